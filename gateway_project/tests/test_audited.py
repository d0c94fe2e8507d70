"""Every change of what is set up is one event in the audit trail; so are sign-ins, exports and looks at content."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from allauth.mfa.models import Authenticator
from django.apps import apps
from django.contrib.auth import authenticate
from django.core.management import call_command
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.audit import anchors
from accounts.audit.models import AuditEvent
from accounts.audit.watching import watched
from accounts.encryption import encrypt
from accounts.models import ApiKey, Team, User
from accounts.services import create_key, rename_allowed
from policies import services as policies
from policies.content import open_content
from policies.models import LoggedContent, Policy, Wordlist, WordlistEntry
from proxy.models import Model, Provider, Route
from proxy.services import rename_model, save_provider
from usage import budgets
from usage.alert_models import AlertDestination, AlertRule
from usage.models import Budget, Limit, MoneySettings
from usage.prices import set_price

pytestmark = pytest.mark.django_db

# What is written by machines, or tells itself what happened; not set up by anybody.
NOT_WATCHED = {
    *("accounts.ConfigVersion", "auth.Permission", "contenttypes.ContentType", "sessions.Session", "admin.LogEntry"),
    *("usage.UsageEvent", "usage.DirtyHour", "usage.DirtyDay", "usage.Rollup", "usage.Subtotal", "usage.Adjustment"),
    *("usage.Alert", "usage.Delivery", "usage.SignInFailures"),
    *("policies.Finding", "policies.LoggedContent", "policies.ContentView", "policies.PendingModeration"),
    *("audit.AuditEvent", "audit.AuditDetail", "audit.AuditHead", "audit.AuditCheckpoint", "audit.AuditKey"),
}
OURS = {"accounts", "usage", "policies", "proxy"}


def since(number: int = 0) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(number__gt=number).select_related("detail").order_by("number"))


def last_number() -> int:
    return AuditEvent.objects.order_by("-number").values_list("number", flat=True).first() or 0


def test_every_model_is_watched_or_known_not_to_be() -> None:
    ours = {model for model in apps.get_models() if model._meta.app_label in OURS}
    unknown = {model._meta.label for model in ours - set(watched())} - NOT_WATCHED
    assert unknown == set()


CHANGES: dict[str, tuple[Callable[[], models.Model], dict[str, Any]]] = {
    "provider": (lambda: Provider.objects.create(name="p", kind="openai", base_url="https://x/v1"), {"enabled": False}),
    "model": (lambda: Model.objects.create(name="m"), {"aliases": ["n"]}),
    "policy": (lambda: Policy.objects.create(name="exams"), {"log_request": True}),
    "wordlist": (lambda: Wordlist.objects.create(name="names"), {"catch_disguises": False}),
    "budget": (lambda: Budget.objects.create(scope="everyone", limit=5), {"limit": 10**12}),
    "limit": (lambda: Limit.objects.create(scope="everyone", requests_per_minute=5), {"requests_per_minute": 6}),
    "alertdestination": (lambda: AlertDestination.objects.create(name="mail", address="x"), {"enabled": False}),
    "alertrule": (lambda: AlertRule.objects.create(name="r", kind="budget"), {"enabled": False}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_one_event_with_before_and_after(name: str) -> None:
    make, changes = CHANGES[name]
    began = last_number()
    row = make()
    before = {field: getattr(row, field) for field in changes}
    for field, value in changes.items():
        setattr(row, field, value)
    row.save()
    row.delete()
    created, changed, deleted = since(began)
    assert [created.action, changed.action, deleted.action] == [f"{name}.created", f"{name}.changed", f"{name}.deleted"]
    assert (changed.before, changed.after) == (before, changes)


def test_second_factor_is_told_without_its_secret(alice: User) -> None:
    made = Authenticator.objects.create(user=alice, type="totp", data={"secret": "JBSWY3DPEHPK3PXP"})
    began = last_number()
    made.delete()
    (event,) = since(began)
    assert (event.action, event.before["data"], event.before["user"]) == ("authenticator.deleted", "***", alice.pk)


def test_secret_of_a_provider_is_never_told() -> None:
    provider = Provider(name="p", kind="openai", base_url="https://x/v1")
    save_provider(provider, credential="sk-very-secret")
    save_provider(provider, credential="sk-another-secret")
    created, changed = since()[-2:]
    assert created.after["credential"] == "***"
    assert (changed.before, changed.after) == ({"credential": "***"}, {"credential": "***"})
    assert not any("gAAAA" in event.detail.after for event in since())


def test_file_of_apply_is_told_as_the_commands(tmp_path: Path) -> None:
    document = "teams:\n  - {name: research, cost_center: '4711'}\nusers:\n  - {username: alice, teams: [research]}\n"
    path = tmp_path / "gateway.yaml"
    path.write_text(document)
    call_command("apply", str(path), stdout=io.StringIO())
    told = [(event.action, event.channel, event.target_name) for event in since()]
    assert ("team.created", "command", "research") in told
    assert ("user.created", "command", "alice") in told
    assert len(told) == len(set(told))
    began = last_number()
    call_command("apply", str(path), stdout=io.StringIO())
    assert since(began) == []


def test_rename_of_a_model_tells_each_list_budget_and_limit_that_goes_along(research: Team, alice: User) -> None:
    for owner in (research, alice):
        owner.models_allowed = ["old"]
        owner.save()
    Budget.objects.create(scope="everyone", model="old", limit=5)
    Limit.objects.create(scope="everyone", model="old", requests_per_minute=5)
    set_price("old", input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1))
    began = last_number()
    rename_model("old", "new")
    told = {event.action: event for event in since(began)}
    assert {"team.changed", "user.changed", "budget.changed", "limit.changed", "modelprice.created"} == set(told)
    assert (told["team.changed"].before, told["team.changed"].after) == (
        {"models_allowed": ["old"]},
        {"models_allowed": ["new"]},
    )


def test_rename_in_no_list_is_no_event() -> None:
    began = last_number()
    rename_allowed("old", "new")
    assert since(began) == []


def test_entries_of_a_word_list_are_one_event() -> None:
    wordlist = Wordlist.objects.create(name="names")
    began = last_number()
    policies.add_entries(wordlist, ["anna", "bert"])
    policies.remove_entries(wordlist, ["anna"])
    policies.set_entries(wordlist, ["bert"])
    added, removed = since(began)
    assert added.details == {"added": {"count": 2, "exceptions": 0, "first": ["anna", "bert"]}}
    assert removed.details == {"removed": {"count": 1, "exceptions": 0, "first": ["anna"]}}
    WordlistEntry.objects.get().delete()
    assert [event.action for event in since(removed.number)] == ["wordlistentry.deleted"]


def test_top_up_and_settings_of_money_are_told() -> None:
    root = User.objects.create_superuser("root")
    budget = Budget.objects.create(scope="everyone", limit=5, per="month")
    began = last_number()
    budgets.top_up(budget, 7, reason="exams", by=root)
    MoneySettings.objects.get_or_create()
    assert since(began)[0].action == "topup.created"


def test_route_goes_with_its_model() -> None:
    provider = Provider.objects.create(name="p", kind="openai", base_url="https://x/v1")
    model = Model.objects.create(name="m")
    Route.objects.create(model=model, provider=provider, upstream_model="m")
    began = last_number()
    model.delete()
    assert {event.action for event in since(began)} == {"route.deleted", "model.deleted"}


# --- what is no change ----------------------------------------------------------------------------------------------
def test_sign_in_and_sign_out_are_told_with_the_address() -> None:
    User.objects.create_superuser("root", password="correct horse")
    client = Client(REMOTE_ADDR="192.0.2.8")
    client.post(reverse("account_login"), {"login": "root", "password": "correct horse"})
    signed_in = AuditEvent.objects.select_related("detail").get(action="session.signed_in")
    assert (signed_in.user_name, signed_in.target_name, signed_in.ip) == ("root", "root", "192.0.2.8")
    client.logout()
    signed_out = AuditEvent.objects.select_related("detail").get(action="session.signed_out")
    assert signed_out.user_name == "root"


def test_sign_in_that_fails_is_told_but_not_what_was_typed() -> None:
    User.objects.create_user("root", password="correct horse")
    assert authenticate(username="root", password="wrong") is None
    assert authenticate(username="my password by mistake", password="wrong") is None
    known, unknown = AuditEvent.objects.filter(action="session.sign_in_failed").select_related("detail").order_by("id")
    assert known.target_name == "root"
    assert (unknown.target_type, unknown.target_name, unknown.details) == ("", "", {})


@pytest.mark.django_db(transaction=True)
def test_look_at_logged_content_is_told_before_anything_is_decrypted(alice: User) -> None:
    content = LoggedContent.objects.create(
        event_id=uuid4(), at=timezone.now(), expires_at=timezone.now(), request_id="r-1", request=encrypt("{}")
    )
    began = last_number()
    open_content(content, alice, "192.0.2.1")
    (event,) = since(began)
    assert (event.action, event.target_id) == ("loggedcontent.viewed", str(content.event_id))


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_download_of_the_chargeback_is_told(kind: str, admin_client: Client) -> None:
    month = datetime(2026, 7, 1, tzinfo=UTC)
    admin_client.get(reverse("admin:usage_chargeback_file", args=[kind]) + f"?month={month:%Y-%m}")
    event = AuditEvent.objects.select_related("detail").latest("number")
    assert (event.action, event.target_name, event.user_name, event.channel) == (
        "usage.exported",
        f"chargeback-2026-07.{kind}",
        "admin",
        "admin",
    )


def test_download_of_usage_events_is_told(admin_client: Client) -> None:
    answer: Any = admin_client.get(reverse("admin:usage_usageevent_export", args=["csv"]))
    assert b"".join(answer.streaming_content)
    event = AuditEvent.objects.select_related("detail").latest("number")
    assert (event.action, event.target_name.startswith("usage-events-")) == ("usage.exported", True)


def test_key_made_and_rotated_in_the_admin_is_told_without_its_secret(
    admin_client: Client, research: Team, alice: User
) -> None:
    key, secret = create_key("laptop", research, alice)
    began = last_number()
    page = f"/admin/accounts/apikey/{key.pk}/rotate/"
    form = admin_client.get(page).context["form"]
    data = {"overlap": "day", "generation": form.initial["generation"]}
    admin_client.post(page, data)
    (event,) = [event for event in since(began) if event.target_type == "accounts.apikey"]
    assert (event.action, event.user_name) == ("apikey.changed", "admin")
    assert (event.after["digest"], event.after["previous_digest"]) == ("***", "***")
    assert secret.split("-")[-1] not in event.detail.after
    assert ApiKey.objects.get().digest not in event.detail.after


def test_anchors_do_not_reach_private_networks(settings: Any) -> None:
    settings.AUDIT_ANCHOR_FILE = ""
    settings.AUDIT_ANCHOR_URL = "http://127.0.0.1:9/"
    Team.objects.create(name="research")
    with pytest.raises(anchors.NotDelivered, match="private network"):
        anchors.write()
