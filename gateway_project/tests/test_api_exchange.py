"""A token of the IdP for an API key that lives for hours (RFC 8693)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.socialaccount.models import SocialAccount
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from accounts import services
from accounts.audit.models import AuditEvent
from accounts.authentication import check_now
from accounts.models import ApiKey, Membership, Team, User
from accounts.sso.tests.issuers import OTHER_KEY, Oidc, OidcIssuer
from accounts.tokens.exchange import purge_keys
from accounts.tokens.models import ShortLivedKey
from gateway_project.api.exchange import GRANT, ISSUED, SUBJECT_TYPES
from proxy.models import Model, Provider, Route

pytestmark = pytest.mark.django_db
URL = "/api/v1/token-exchange"


@pytest.fixture
def issuer(db: None, monkeypatch: pytest.MonkeyPatch) -> OidcIssuer:
    return Oidc(monkeypatch).issuer()


@pytest.fixture
def known(issuer: OidcIssuer, alice: User) -> User:
    """Alice, who has signed in through the issuer."""
    SocialAccount.objects.create(user=alice, provider="corp", uid="s-1")
    return alice


def ask(token: str, **more: Any) -> Any:
    given = {"grant_type": GRANT, "subject_token": token, "subject_token_type": SUBJECT_TYPES[0], **more}
    body = urlencode({name: value for name, value in given.items() if value is not None}, doseq=True)
    return Client().post(URL, body, content_type="application/x-www-form-urlencoded")


def refused(reply: Any, status: int = 400) -> tuple[str, str]:
    assert reply.status_code == status, reply.content
    assert reply["Cache-Control"] == "no-store"
    return reply.json()["error"], reply.json()["error_description"]


def test_id_token_gives_a_key_for_an_hour(issuer: OidcIssuer, known: User, research: Team) -> None:
    reply = ask(issuer.token(), team="research")
    given = reply.json()
    assert reply.status_code == 200
    assert (given["token_type"], given["issued_token_type"], given["expires_in"]) == ("Bearer", ISSUED, 3600)
    assert reply["Cache-Control"] == "no-store"
    principal = check_now(given["access_token"], services.peppers())
    assert (principal.user_id, principal.team_id) == (known.pk, research.pk)
    key = ApiKey.objects.get()
    assert timedelta(minutes=59) < key.expires_at - timezone.now() <= timedelta(hours=1)  # type: ignore[operator]


def test_without_a_team_it_is_in_the_personal_one(issuer: OidcIssuer, known: User) -> None:
    assert ask(issuer.token()).status_code == 200
    assert ApiKey.objects.get().team.personal_of == known


def test_scope_narrows_the_models(issuer: OidcIssuer, known: User) -> None:
    model = Model.objects.create(name="gpt")
    Route.objects.create(model=model, provider=Provider.objects.create(name="echo", kind="echo"))
    assert ask(issuer.token(), team="research", scope="gpt").json()["scope"] == "gpt"
    assert ApiKey.objects.get().models_allowed == ["gpt"]
    assert refused(ask(issuer.token(), team="research", scope="o1"))[0] == "invalid_scope"


def test_new_person_is_made_if_they_may_sign_in(issuer: OidcIssuer) -> None:
    issuer.row.groups_allowed = "staff"
    issuer.row.save()
    assert "not among those" in refused(ask(issuer.token(groups=["students"])))[1]
    assert not User.objects.exists()
    assert ask(issuer.token(groups=["staff"], email="eve@example.org")).status_code == 200
    assert SocialAccount.objects.get().uid == "s-1"


def test_inactive_person_gets_nothing(issuer: OidcIssuer, known: User) -> None:
    known.is_active = False
    known.save()
    assert "not active" in refused(ask(issuer.token()))[1]


def test_team_of_others_is_an_invalid_target(issuer: OidcIssuer, known: User, charlie: User) -> None:
    assert refused(ask(issuer.token(), team="sales"))[0] == "invalid_target"
    assert refused(ask(issuer.token(), team="no such team"))[0] == "invalid_target"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another client"}, {"aud": ["client-of-corp", "other"]}, {"exp": 1}, {"exp": None}, {"sub": None},
        {"iss": "https://evil.example"}, {"azp": "another client"}, {"iat": None},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ],
    ids=str,
)  # fmt: skip
def test_token_with_a_wrong_claim_is_refused(issuer: OidcIssuer, known: User, claims: dict[str, Any]) -> None:
    assert refused(ask(issuer.token(**claims)))[0] == "invalid_request"
    assert not ApiKey.objects.exists()


def test_forged_and_malformed_tokens_are_refused(issuer: OidcIssuer, known: User) -> None:
    good = issuer.token()
    issuer.key = OTHER_KEY
    forged = [issuer.token(), good[:-4] + "AAAA", good.rpartition(".")[0] + ".", "x", "a.b.c", "e30.e30.", "x" * 20_000]
    for token in forged:
        assert refused(ask(token))[0] == "invalid_request"


def test_switched_off_idp_vouches_for_nobody(issuer: OidcIssuer, known: User) -> None:
    issuer.row.enabled = False
    issuer.row.save()
    assert refused(ask(issuer.token()))[0] == "invalid_request"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": "urn:x"}, "invalid_request"),
        ({"requested_token_type": "urn:x"}, "invalid_request"),
        ({"audience": "https://elsewhere.example"}, "invalid_target"),
        ({"expires_in": "43201"}, "invalid_request"),
        ({"expires_in": "59"}, "invalid_request"),
        ({"team": ["research", "sales"]}, "invalid_request"),
    ],
)
def test_mistakes_are_named_as_the_rfc_does(issuer: OidcIssuer, known: User, given: dict[str, Any], error: str) -> None:
    token = given.pop("subject_token", issuer.token())
    assert refused(ask(token, **given))[0] == error


def test_only_forms_are_read(issuer: OidcIssuer) -> None:
    assert refused(Client().post(URL, {}, content_type="application/json"), 415)[0] == "invalid_request"


def test_thirty_requests_a_minute_from_one_address(issuer: OidcIssuer) -> None:
    cache.clear()
    for _ in range(30):
        refused(ask("x"))
    assert refused(ask("x"), 429)[0] == "temporarily_unavailable"
    cache.clear()


def test_it_is_in_the_audit_trail_without_the_key(issuer: OidcIssuer, known: User) -> None:
    secret = ask(issuer.token()).json()["access_token"]
    events = {event.action: event for event in AuditEvent.objects.select_related("detail")}
    assert events["apikey.exchanged"].user_id == known.pk
    assert events["apikey.exchanged"].channel == "api"
    ask("x")
    refusal = AuditEvent.objects.select_related("detail").get(action="apikey.exchange_refused")
    assert refusal.details["error"] == "invalid_request"
    trail = str([(event.before, event.after, event.details) for event in events.values()])
    assert secret not in trail
    assert secret.rpartition("-")[2] not in trail


def test_ended_keys_are_deleted_and_used_ones_later(issuer: OidcIssuer, known: User) -> None:
    Membership.objects.filter(user=known).update(role="member")
    for _ in range(4):
        ask(issuer.token())
    fresh, unused, used, old = ApiKey.objects.order_by("pk")
    now = timezone.now()
    for key, days, used_at in ((unused, 2, None), (used, 2, now), (old, 31, now)):
        ApiKey.objects.filter(pk=key.pk).update(expires_at=now - timedelta(days=days), last_used_at=used_at)
    assert purge_keys() == 2
    assert list(ApiKey.objects.order_by("pk")) == [fresh, used]
    assert ShortLivedKey.objects.count() == 2
