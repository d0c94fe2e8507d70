"""OpenID Connect: what is asked, and which answers are believed."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from django.test import Client

from accounts.audit.models import AuditEvent
from accounts.models import Team, User
from accounts.sso.models import IdentityProvider
from accounts.sso.tests.issuers import KEY, OTHER_KEY, Oidc

SECRET = "0123456789-0123456789-0123456789-0123456789"


def is_signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def test_first_sign_in_makes_a_person_with_a_personal_team(oidc: Oidc, client: Client) -> None:
    oidc.issuer().userinfo = {
        "preferred_username": "stu",
        "email": "stu@example.org",
        "given_name": "Stu",
        "family_name": "Dent",
    }
    assert oidc.sign_in(client)["location"] == "/"
    user = User.objects.get(username="stu")
    assert (user.email, user.get_full_name(), user.has_usable_password()) == ("stu@example.org", "Stu Dent", False)
    assert Team.objects.filter(personal_of=user).exists()
    assert client.session["_auth_user_id"] == str(user.pk)


def test_sign_in_is_in_the_audit_trail_with_its_idp(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    oidc.sign_in(client)
    (event,) = AuditEvent.objects.filter(action="session.signed_in")
    assert event.channel == "sso"
    assert json.loads(event.detail.details) == {"identity_provider": "corp"}


def test_second_sign_in_finds_the_person_by_sub_and_takes_what_is_new(oidc: Oidc, client: Client) -> None:
    issuer = oidc.issuer()
    issuer.userinfo = {"preferred_username": "stu", "email": "old@example.org"}
    oidc.sign_in(client)
    client.logout()
    issuer.userinfo = {"preferred_username": "renamed", "email": "new@example.org"}
    oidc.sign_in(client)
    assert [(user.username, user.email) for user in User.objects.all()] == [("stu", "new@example.org")]


def test_request_has_nonce_state_and_pkce_and_the_verifier_reaches_the_token_page(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    sent = oidc.begin(client)
    assert sent["code_challenge_method"] == "S256"
    assert len(sent["nonce"]) >= 32
    oidc.finish(client, sent["state"])
    assert len(oidc.asked[0] or "") >= 43


def test_caller_adds_nothing_to_the_request(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    sent = oidc.begin(client, query="?scope=admin&auth_params=prompt%3Dnone%26client_id%3Devil&process=connect")
    assert sorted(sent["scope"].split()) == ["email", "openid", "profile"]
    assert "prompt" not in sent
    assert sent["client_id"] == "client-of-corp"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"iss": "https://evil.example.org"},
        {"aud": "another-client"},
        {"aud": ["client-of-corp", "another-client"]},
        {"azp": "another-client"},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"iat": int(time.time()) + 3600},
        {"sub": None},
        {"sub": ""},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"_claim_names": {"groups": "src1"}},
    ],
    ids=lambda claims: "-".join(claims),
)
def test_id_token_that_is_not_for_this_sign_in_is_refused(oidc: Oidc, client: Client, claims: dict[str, Any]) -> None:
    oidc.issuer().claims = claims
    assert oidc.sign_in(client).status_code == 403
    assert not is_signed_in(client)
    assert not User.objects.exists()
    assert AuditEvent.objects.filter(action="session.refused").count() == 1


def test_id_token_for_several_clients_says_which_of_them_asked(oidc: Oidc, client: Client) -> None:
    oidc.issuer().claims = {"aud": ["client-of-corp", "another-client"], "azp": "client-of-corp"}
    assert oidc.sign_in(client)["location"] == "/"


def test_token_that_another_key_signed_is_refused(oidc: Oidc, client: Client) -> None:
    oidc.issuer().key = OTHER_KEY
    assert oidc.sign_in(client).status_code == 403


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_token_without_a_signature_or_with_a_shared_key_is_refused(oidc: Oidc, client: Client, algorithm: str) -> None:
    issuer = oidc.issuer()
    sent = oidc.begin(client)
    good = jwt.decode(issuer.token(nonce=sent["nonce"]), options={"verify_signature": False})
    forged = jwt.encode(good, None if algorithm == "none" else SECRET, algorithm, headers={"kid": "one"})
    issuer.tokens = {"access_token": "at", "id_token": forged}
    assert oidc.finish(client, sent["state"]).status_code == 403


def test_answer_without_an_id_token_is_refused(oidc: Oidc, client: Client) -> None:
    oidc.issuer().tokens = {"access_token": "at"}
    assert oidc.sign_in(client).status_code == 403


def test_userinfo_of_somebody_else_is_refused(oidc: Oidc, client: Client) -> None:
    oidc.issuer().userinfo = {"sub": "s-2"}
    assert oidc.sign_in(client).status_code == 403


@pytest.mark.parametrize("issuer", ["https://evil.example.org", ""], ids=["another", "missing"])
def test_answer_says_which_issuer_it_is_from(oidc: Oidc, client: Client, issuer: str) -> None:
    oidc.issuer()
    assert oidc.finish(client, oidc.begin(client)["state"], iss=issuer).status_code == 403
    assert oidc.asked == []


def test_sign_in_begun_at_one_idp_does_not_end_at_another(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    oidc.issuer("evil", "https://evil.example.org")
    state = oidc.begin(client)["state"]
    assert oidc.finish(client, state, slug="evil", iss="https://evil.example.org").status_code == 403
    assert oidc.asked == []


def test_state_of_another_browser_or_used_before_is_refused(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    state = oidc.begin(client)["state"]
    assert oidc.finish(Client(), state).status_code == 403
    assert oidc.finish(client, state).status_code == 302
    assert oidc.finish(client, state).status_code == 403
    assert len(oidc.asked) == 1


def test_session_has_another_key_after_the_sign_in(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    state = oidc.begin(client)["state"]
    before = client.session.session_key
    oidc.finish(client, state)
    assert client.session.session_key != before


@pytest.mark.parametrize(
    "target", ["https://evil.example.org/", "//evil.example.org", "/\\evil.example.org", "javascript:alert(1)"]
)
def test_sign_in_leads_to_this_host_only(oidc: Oidc, client: Client, target: str) -> None:
    oidc.issuer()
    assert oidc.sign_in(client, query=f"?next={target}")["location"] == "/"


def test_sign_in_leads_where_the_person_wanted_to_go(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    assert oidc.sign_in(client, query="?next=/keys/")["location"] == "/keys/"


def test_local_account_with_the_same_name_and_address_is_not_taken_over(oidc: Oidc, client: Client) -> None:
    root = User.objects.create_superuser("Root", "root@example.org", "pw")
    oidc.issuer().userinfo = {"preferred_username": "root", "email": "root@example.org", "email_verified": True}
    oidc.sign_in(client)
    assert client.session["_auth_user_id"] != str(root.pk)
    assert User.objects.get(pk=client.session["_auth_user_id"]).username == "root-2"


def test_same_sub_at_another_idp_is_another_person(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    oidc.sign_in(client)
    oidc.issuers.clear()
    oidc.issuer("other", "https://other.example.org")
    browser = Client()
    state = oidc.begin(browser, "other")["state"]
    assert oidc.finish(browser, state, slug="other", iss="https://other.example.org")["location"] == "/"
    assert User.objects.count() == 2


def test_address_that_is_not_verified_is_not_taken(oidc: Oidc, client: Client) -> None:
    oidc.issuer().userinfo = {"preferred_username": "bob", "email": "boss@example.org", "email_verified": False}
    oidc.sign_in(client)
    assert User.objects.get().email == ""


def test_person_who_is_not_active_is_refused(oidc: Oidc, client: Client) -> None:
    oidc.issuer().userinfo = {"preferred_username": "stu"}
    oidc.sign_in(client)
    client.logout()
    User.objects.update(is_active=False)
    answer = oidc.sign_in(client)
    assert answer.status_code == 403
    assert b"not active" in answer.content
    assert not is_signed_in(client)


def test_disabled_idp_is_not_there(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    IdentityProvider.objects.update(enabled=False)
    assert client.get("/accounts/oidc/corp/login/").status_code == 404


def test_what_the_idp_says_of_names_is_shown_as_text(oidc: Oidc, client: Client) -> None:
    oidc.issuer().userinfo = {"preferred_username": "<script>x</script>", "given_name": "<img src=x onerror=alert(1)>"}
    oidc.sign_in(client)
    page = client.get("/").content.decode()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


# --- log-out that the IdP starts --------------------------------------------------------------------------------------
EVENTS = {"http://schemas.openid.net/event/backchannel-logout": {}}


def log_out(oidc: Oidc, **claims: Any) -> int:
    token = oidc.issuers["https://idp.example.org"].token(**{"jti": "j-1", "events": EVENTS, **claims})
    return int(Client().post("/accounts/oidc/corp/backchannel-logout/", {"logout_token": token}).status_code)


def test_idp_ends_the_sessions_of_a_person(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    oidc.sign_in(client)
    assert log_out(oidc) == 200
    assert client.get("/").status_code == 302


def test_idp_ends_one_of_its_sessions_only(oidc: Oidc, client: Client) -> None:
    issuer, other = oidc.issuer(), Client()
    issuer.claims = {"sid": "laptop"}
    oidc.sign_in(client)
    issuer.claims = {"sid": "phone"}
    oidc.sign_in(other)
    assert log_out(oidc, sid="laptop", sub=None) == 200
    assert (client.get("/").status_code, other.get("/").status_code) == (302, 200)


@pytest.mark.parametrize(
    "claims",
    [
        {"events": None},
        {"events": {"other": {}}},
        {"nonce": "n"},
        {"sub": None},
        {"jti": None},
        {"aud": "another"},
        {"iss": "https://evil.example.org"},
        {"iat": int(time.time()) - 3600},
    ],
    ids=lambda claims: "-".join(claims),
)
def test_log_out_token_that_is_none_is_refused(oidc: Oidc, client: Client, claims: dict[str, Any]) -> None:
    oidc.issuer()
    oidc.sign_in(client)
    assert log_out(oidc, **claims) == 400
    assert client.get("/").status_code == 200


def test_log_out_token_counts_once(oidc: Oidc, client: Client) -> None:
    oidc.issuer()
    assert (log_out(oidc), log_out(oidc)) == (200, 400)


def test_log_out_token_of_a_stranger_is_refused(oidc: Oidc, client: Client) -> None:
    issuer = oidc.issuer()
    oidc.sign_in(client)
    issuer.key = OTHER_KEY
    assert log_out(oidc) == 400
    issuer.key = KEY
    assert client.get("/").status_code == 200
