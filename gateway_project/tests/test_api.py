"""The management API: who may call, what errors look like, pages, entity tags, idempotency keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from accounts.audit.models import AuditEvent
from accounts.models import ApiKey, Team, User
from accounts.tokens.models import StoredReply
from accounts.tokens.scopes import RESOURCES as SCOPED
from accounts.tokens.services import revoke_token
from gateway_project.api.urls import RESOURCES
from gateway_project.tests.api_client import Program, error

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin(admin_user: User) -> Program:
    return Program(admin_user)


# --- who may --------------------------------------------------------------------------------------------------------
def test_without_a_token_nothing_is_told(db: None) -> None:
    for name in RESOURCES:
        reply = Client().get(f"/api/v1/{name}")
        assert error(reply, 401)["code"] == "invalid_token"
        assert reply["WWW-Authenticate"].startswith("Bearer")


def test_api_key_and_revoked_token_are_no_tokens(admin: Program) -> None:
    revoke_token(admin.token)
    assert error(admin.get("me"), 401)["code"] == "invalid_token"
    reply = Client(headers={"authorization": "Bearer sk-gh-x"}).get("/api/v1/me")
    assert error(reply, 401)["code"] == "invalid_token"


def test_wrong_token_is_not_helped_by_a_session(admin_client: Client) -> None:
    assert admin_client.get("/api/v1/users").status_code == 200
    assert admin_client.get("/api/v1/users", headers={"authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_member_without_permissions_gets_nothing_of_any_resource(alice: User, name: str) -> None:
    member = Program(alice)
    for reply in (member.get(name), member.get(f"{name}/1"), member.post(name), member.delete(f"{name}/1")):
        assert reply.status_code in (403, 404, 405), reply.content
        assert "data" not in reply.json()
    assert error(member.get(name), 403)["code"] == "permission_denied"


def test_token_does_what_its_owner_may_at_the_time_of_the_call(alice: User) -> None:
    program = Program(alice, may=("accounts.view_team",))
    assert program.get("teams").status_code == 200
    alice.user_permissions.clear()
    assert error(program.get("teams"), 403)["message"] == "This needs the permission to view teams."
    alice.is_active = False
    alice.save()
    assert error(program.get("teams"), 401)["code"] == "invalid_token"


def test_right_to_view_is_no_right_to_change(alice: User, research: Team) -> None:
    program = Program(alice, may=("accounts.view_team",))
    for reply in (
        program.post("teams", {"name": "new"}),
        program.patch(f"teams/{research.pk}", {"name": "new"}),
        program.delete(f"teams/{research.pk}"),
    ):
        assert error(reply, 403)["code"] == "permission_denied"


def test_scope_narrows_even_a_superuser(admin_user: User, research: Team) -> None:
    reader = Program(admin_user, "teams:read")
    assert reader.get("teams").status_code == 200
    assert error(reader.patch(f"teams/{research.pk}", {"name": "x"}), 403)["code"] == "insufficient_scope"
    assert error(reader.get("users"), 403)["message"] == "The token lacks the scope users:read."


def test_every_resource_has_its_scope() -> None:
    assert {view.resource for view in RESOURCES.values()} == set(SCOPED)


def test_token_works_from_its_networks_only(admin: Program) -> None:
    admin.token.networks_allowed = ["192.0.2.0/24"]
    admin.token.save()
    assert error(admin.get("me"), 403)["code"] == "address_not_allowed"


def test_session_needs_a_csrf_token_to_change_anything(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.get("/api/v1/teams").status_code == 200
    reply = client.post("/api/v1/teams", {"name": "x"}, content_type="application/json")
    assert "CSRF" in error(reply, 403)["message"]
    assert not Team.objects.filter(name="x").exists()


def test_me_says_who_calls_and_what_they_may(alice: User, research: Team) -> None:
    program = Program(alice, "teams:read", may=("accounts.view_team",))
    found = program.get("me").json()
    assert (found["username"], found["permissions"]) == ("alice", ["accounts.view_team"])
    assert found["teams"] == [{"id": research.pk, "name": "research", "role": "member"}]
    assert found["token"]["scopes"] == ["teams:read"]


# --- nobody gives or takes more than they have ------------------------------------------------------------------------
def test_user_manager_cannot_make_a_superuser(alice: User, bob: User) -> None:
    program = Program(alice, may=("accounts.view_user", "accounts.change_user", "accounts.add_user"))
    assert program.patch(f"users/{bob.pk}", {"first_name": "Bob"}).status_code == 200
    for right in ({"is_superuser": True}, {"is_staff": True}, {"groups": ["Admin"]}):
        assert error(program.patch(f"users/{bob.pk}", right), 403)["code"] == "permission_denied"
        assert error(program.post("users", {"username": "new", **right}), 403)["code"] == "permission_denied"
    assert not User.objects.filter(username="new").exists()


def test_user_manager_cannot_touch_a_superuser(alice: User, admin_user: User) -> None:
    program = Program(alice, may=("accounts.view_user", "accounts.change_user", "accounts.delete_user"))
    assert error(program.patch(f"users/{admin_user.pk}", {"email": "eve@x.org"}), 403)["code"] == "permission_denied"
    assert error(program.delete(f"users/{admin_user.pk}"), 403)["code"] == "permission_denied"


def test_token_makes_no_token_that_may_more_or_lives_longer(admin_user: User) -> None:
    program = Program(admin_user, "tokens:write", "keys:read")
    made = program.post("tokens", {"name": "child", "scopes": ["keys:read"]})
    assert made.status_code == 201
    assert error(program.post("tokens", {"name": "x", "scopes": ["*"]}), 403)["code"] == "insufficient_scope"
    later = (timezone.now() + timedelta(days=200)).isoformat()
    reply = program.post("tokens", {"name": "x", "scopes": ["keys:read"], "expires_at": later})
    assert error(reply, 400)["param"] == "expires_at"


# --- errors ---------------------------------------------------------------------------------------------------------
NONSENSE = {
    "cut off": b"{",
    "no UTF-8": b"\xff",
    "NaN": b'{"name": NaN}',
    "a key twice": b'{"name": "a", "name": "b"}',
    "half a pair": b'{"name": "\\ud800"}',
    "NUL": b'{"name": "\\u0000"}',
    "a list": b"[1]",
    "nested deeply": b"[" * 5000,
    "infinite": b'{"name": 1e999}',
    "a number for a text": b'{"name": 7}',
    "too long": b'{"name": "' + b"x" * 300 + b'"}',
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_any_bytes_are_a_mistake_in_the_one_shape(admin: Program, body: bytes) -> None:
    for headers in ({}, {"idempotency_key": "k"}):
        assert error(admin.call("POST", "teams", body, **headers), 400)["code"] is None


def test_body_beyond_the_limit_is_too_large(admin: Program, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 1000
    body = b'{"name": "' + b"x" * 1000 + b'"}'
    assert error(admin.call("POST", "teams", body), 413)["code"] == "request_too_large"
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    assert error(admin.call("POST", "teams", body, idempotency_key="k"), 413)["code"] == "request_too_large"


def test_mistake_names_its_field(admin: Program) -> None:
    found = error(admin.post("teams", {"cost_center": "1"}), 400)
    assert (found["param"], found["type"]) == ("name", "invalid_request_error")
    assert error(admin.get("teams?colour=red"), 400)["param"] == "colour"
    assert error(admin.get("teams?limit=0"), 400)["param"] == "limit"
    assert error(admin.get("teams?after=x"), 400)["param"] == "after"
    assert error(admin.get("keys?user=x"), 400)["param"] == "user"


def test_unknown_address_method_and_type_are_told_in_the_one_shape(admin: Program) -> None:
    assert error(admin.get("planets"), 404)["code"] == "unknown_url"
    assert error(admin.get("teams/99999999999999999"), 404)["code"] == "not_found"
    assert error(admin.put("teams", {}), 405)["code"] == "method_not_allowed"
    reply = Client(headers={"authorization": f"Bearer {admin.secret}"}).post("/api/v1/teams", {"name": "x"})
    assert error(reply, 415)["code"] == "unsupported_media_type"


# --- pages ----------------------------------------------------------------------------------------------------------
def test_pages_follow_each_other_to_the_last(admin: Program) -> None:
    for number in range(5):
        Team.objects.create(name=f"team {number}")
    seen, after = [], ""
    while True:
        page = admin.get(f"teams?limit=2{after}").json()
        seen += [team["name"] for team in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == [f"team {number}" for number in range(5)]


def test_lists_take_the_same_few_queries_however_long(admin: Program, django_assert_max_num_queries: Any) -> None:
    for number in range(30):
        team = Team.objects.create(name=f"team {number}")
        ApiKey.objects.create(name="k", team=team, public_id=f"{number:012d}")
    admin.get("me")
    for name in ("teams", "keys", "users", "memberships", "models", "policies", "budgets", "usage/events", "audit"):
        with django_assert_max_num_queries(9):
            assert admin.get(name).status_code == 200


# --- entity tags ----------------------------------------------------------------------------------------------------
def test_change_of_what_has_changed_meanwhile_is_refused(admin: Program, research: Team) -> None:
    url = f"teams/{research.pk}"
    tag = admin.get(url)["ETag"]
    assert admin.patch(url, {"cost_center": "1"}, if_match=tag).status_code == 200
    for reply in (admin.patch(url, {"cost_center": "2"}, if_match=tag), admin.delete(url, if_match=tag)):
        assert error(reply, 412)["code"] == "precondition_failed"
    assert admin.patch(url, {"cost_center": "2"}, if_match="*").status_code == 200
    assert error(admin.patch(url, {}, if_match="nonsense"), 400)["param"] == "If-Match"


def test_weak_tag_is_no_proof_of_having_seen_it(admin: Program, research: Team) -> None:
    tag = admin.get(f"teams/{research.pk}")["ETag"]
    assert admin.patch(f"teams/{research.pk}", {"cost_center": "1"}, if_match=f"W/{tag}").status_code == 412


def test_what_the_reader_has_is_not_sent_again(admin: Program, research: Team) -> None:
    tag = admin.get(f"teams/{research.pk}")["ETag"]
    reply = admin.get(f"teams/{research.pk}", if_none_match=f'"other", {tag}')
    assert (reply.status_code, reply.content, reply["ETag"]) == (304, b"", tag)


def test_use_of_a_key_does_not_change_its_tag(admin: Program, research: Team) -> None:
    key = ApiKey.objects.create(name="k", team=research, public_id="a" * 12)
    tag = admin.get(f"keys/{key.pk}")["ETag"]
    ApiKey.objects.update(last_used_at=timezone.now())
    assert admin.get(f"keys/{key.pk}")["ETag"] == tag


# --- idempotency keys -----------------------------------------------------------------------------------------------
def test_request_that_is_sent_again_is_answered_again_and_not_done_again(admin: Program, research: Team) -> None:
    body = {"name": "service", "team": research.pk}
    first, second = (admin.post("keys", body, idempotency_key="once") for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert (second["Idempotency-Replayed"], second["ETag"], second["Location"]) == (
        "true",
        first["ETag"],
        first["Location"],
    )
    assert second["Cache-Control"] == "no-store"
    assert ApiKey.objects.count() == 1


def test_stored_reply_does_not_hold_the_secret_in_clear(admin: Program, research: Team) -> None:
    secret = admin.post("keys", {"name": "service", "team": research.pk}, idempotency_key="once").json()["secret"]
    stored = str(StoredReply.objects.values().get())
    assert secret not in stored
    assert secret.rpartition("-")[2] not in stored
    assert "once" not in stored


def test_key_used_for_another_request_is_a_mistake(admin: Program) -> None:
    admin.post("teams", {"name": "a"}, idempotency_key="once")
    assert error(admin.post("teams", {"name": "b"}, idempotency_key="once"), 422)["code"] == "idempotency_key_reused"
    assert error(admin.post("users", {"name": "a"}, idempotency_key="once"), 422)["code"] == "idempotency_key_reused"


def test_request_under_way_is_not_begun_again(admin: Program) -> None:
    admin.post("teams", {"name": "a"}, idempotency_key="once")
    StoredReply.objects.update(status=None, at=timezone.now())
    assert error(admin.post("teams", {"name": "a"}, idempotency_key="once"), 409)["code"] == "request_under_way"
    StoredReply.objects.update(at=timezone.now() - timedelta(minutes=3))
    assert error(admin.post("teams", {"name": "a"}, idempotency_key="once"), 400)["param"] == "name"


def test_mistake_leaves_the_key_free(admin: Program) -> None:
    error(admin.post("teams", {}, idempotency_key="once"), 400)
    assert admin.post("teams", {"name": "a"}, idempotency_key="once").status_code == 201


def test_keys_of_two_tokens_are_apart(admin: Program, admin_user: User) -> None:
    other = Program(admin_user)
    assert admin.post("teams", {"name": "a"}, idempotency_key="once").status_code == 201
    assert other.post("teams", {"name": "b"}, idempotency_key="once").status_code == 201


# --- the trail, the schema ------------------------------------------------------------------------------------------
def test_changes_are_in_the_audit_trail_with_the_token(admin: Program) -> None:
    admin.post("teams", {"name": "a"})
    event = AuditEvent.objects.select_related("detail").get(action="team.created")
    assert (event.channel, event.user_id) == ("api", admin.user.pk)
    assert admin.token.public_id in event.user_name


def test_schema_is_valid_and_complete(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json")
    described = capsys.readouterr().out
    assert '"openapi": "3.1' in described
    for name in RESOURCES:
        assert f'"/api/v1/{name}"' in described


def test_permissions_are_asked_of_the_database_each_time(alice: User) -> None:
    program = Program(alice)
    assert program.get("teams").status_code == 403
    alice.user_permissions.add(Permission.objects.get(codename="view_team"))
    assert program.get("teams").status_code == 200
