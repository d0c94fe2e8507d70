"""What of other apps is in the audit trail (accounts.audit): whatever is set up, not what is measured or computed."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.db import models

from accounts.audit import anchors, personal, watch
from accounts.tokens.models import StoredReply
from policies.models import (
    Assignment,
    ContentView,
    Finding,
    LoggedContent,
    PendingModeration,
    Policy,
    PolicyVersion,
    Rule,
    Wordlist,
    WordlistEntry,
)
from proxy.models import Model, Provider, Route
from usage.alert_models import AlertDestination, AlertRule
from usage.alerts import transport
from usage.models import (
    Adjustment,
    Budget,
    DirtyDay,
    DirtyHour,
    Limit,
    ModelPrice,
    MoneySettings,
    Rerating,
    Rollup,
    Subtotal,
    TopUp,
    UsageEvent,
)

SET_UP_HERE: tuple[type[models.Model], ...] = (
    *(Provider, Model, Route),
    *(Policy, Rule, PolicyVersion, Assignment),
    *(Budget, TopUp, Limit, ModelPrice, MoneySettings),
    *(AlertDestination, AlertRule),
)
SET_UP = (
    *("access.TermsVersion", "access.RequestRule", "access.AccessSettings", "sso.IdentityProvider", "sso.GroupRule"),
    *("socialaccount.SocialApp", "scim.ScimGroup", "scim.ScimToken"),
)


def build() -> None:
    """Once, when all apps have their models."""
    for model in SET_UP_HERE:
        watch(model)
    # Entries that are written many at once are told by policies.services, these figures with them.
    watch(Wordlist, ignored={"entry_count", "content_hash", "updated_at"})
    watch(WordlistEntry)
    watch(Rerating, ignored={"events", "changed", "delta_nano_usd", "ended_at"})
    watch(Authenticator, hidden={"data"}, ignored={"last_used_at"})
    _tell_what_is_personal()
    anchors.set_post(_post)


def _post(url: str, body: bytes) -> None:
    """To wherever AUDIT_ANCHOR_URL says, but for this machine and private networks: `transport` judges the address."""
    try:
        transport.post(url, body, {}, private_network=settings.AUDIT_ANCHOR_PRIVATE_NETWORK)
    except transport.NotSent as error:
        raise anchors.NotDelivered(str(error)) from None


def _tell_what_is_personal() -> None:
    """For the export and the erasure of a person."""
    gone = "erased"
    personal.set_rules(
        blanked={
            UsageEvent: {
                "request_id": gone, "key_label": gone, "end_user": "", "client_ip": "", "user_agent": "",
                "organization": "", "trace_id": "", "tags": [],
            },
            Finding: {"request_id": gone, "key_label": gone},
            ContentView: {"username": gone, "client_ip": "", "request_id": gone},
        },
        deleted=[LoggedContent],
        kept=[Budget, Limit, ModelPrice, Assignment, AlertRule],
        unsearched=[
            # Set up by administrators; names in there are no traces. Nor are those that machines have given.
            Provider, Model, Route, Policy, Rule, Assignment, Wordlist, WordlistEntry, MoneySettings, Budget, Limit,
            ModelPrice, AlertDestination, AlertRule, Permission, Group, ContentType, Session,
            *(apps.get_model(label) for label in SET_UP),
            # By far the most rows: those of the person are emptied above, and no others name people.
            UsageEvent, Finding, LoggedContent, Rollup, Subtotal, DirtyHour, DirtyDay, Adjustment,
        ],
        unsearched_columns=[(PolicyVersion, "document")],
        sealed=[StoredReply, PendingModeration],
    )  # fmt: skip
