"""Who may call, what is not understood, and what the IdP can find out about this server."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.audit.models import AuditEvent
from accounts.models import User
from accounts.scim.models import ScimToken
from accounts.scim.tests.conftest import ERROR, GROUP, PATCH, USER, IdP
from accounts.scim.tokens import rotate_token
from accounts.services import create_key, create_user, personal_team

pytestmark = pytest.mark.django_db
PATHS = (
    "Users",
    "Users/1",
    "Groups",
    "Groups/1",
    "ServiceProviderConfig",
    "Schemas",
    "ResourceTypes",
    "",
    "Me",
    "Bulk",
)


def check_error(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/scim+json"
    found = response.json()
    assert found["schemas"] == [ERROR]
    assert found["status"] == str(status)
    return dict(found)


# --- who may call ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", PATHS)
def test_nobody_without_a_token_learns_anything(idp: IdP, path: str) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        response = idp.ask(method, path, {}, Authorization="Bearer nonsense")
        check_error(response, 401)
        assert response["WWW-Authenticate"].startswith("Bearer")


def test_other_kinds_of_credentials_are_none(idp: IdP) -> None:
    user = create_user("alice")
    _, key = create_key("k", personal_team(user), user)
    wrong = (f"Bearer {key}", f"Basic {idp.secret}", idp.secret, "Bearer", f"Bearer {idp.secret}x", "")
    for given in wrong:
        check_error(idp.get("Users", Authorization=given), 401)
    idp.client.force_login(User.objects.create_superuser("root"))
    check_error(idp.get("Users", Authorization=""), 401)


def test_token_that_was_rotated_or_disabled_is_refused(idp: IdP) -> None:
    old, idp.secret = idp.secret, rotate_token(idp.token)
    assert idp.get("Users").status_code == 200
    check_error(idp.get("Users", Authorization=f"Bearer {old}"), 401)
    idp.token.disabled = True
    idp.token.save()
    check_error(idp.get("Users"), 401)


def test_token_is_kept_as_a_digest_only(idp: IdP) -> None:
    assert idp.secret not in str(ScimToken.objects.values().get())


def test_command_makes_and_rotates_a_token(db: None) -> None:
    made, rotated = StringIO(), StringIO()
    call_command("create_scim_token", "Okta", quiet=True, stdout=made)
    call_command("create_scim_token", "Okta", rotate=True, quiet=True, stdout=rotated)
    assert made.getvalue().startswith("gh-scim-")
    assert made.getvalue() != rotated.getvalue()
    assert made.getvalue().split("-")[2] == rotated.getvalue().split("-")[2]
    with pytest.raises(CommandError, match="already exists"):
        call_command("create_scim_token", "Okta")
    with pytest.raises(CommandError, match="no SCIM token"):
        call_command("create_scim_token", "nobody", rotate=True)


def test_changes_are_in_the_audit_trail_with_the_token(idp: IdP) -> None:
    idp.create("alice")
    event = AuditEvent.objects.filter(action="user.created").latest("id")
    assert (event.channel, event.detail.user_name) == ("scim", "SCIM token Entra ID")


# --- what is not understood -----------------------------------------------------------------------------------------
BODIES = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'"text"',
    b"\xff\xfe",
    b'{"userName": "a\\u0000b"}',
    b"[" * 100_000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b"{}",
    b'{"schemas": "x", "userName": 3}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": ""}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "a b"}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": null}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": {"a": 1}}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "a", "active": "perhaps"}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "a", "emails": "x"}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "a", "emails": [{"value": "no"}]}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "' + b"a" * 200 + b'"}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": ["x"]}',
    b'{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "' + b"x" * 300 + b'"}',
    b'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"]}',
    b'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [{}]}',
    b'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [{"op": "explode"}]}',
    b'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [{"op": "remove"}]}',
    b'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [{"op": "add", "path": "id", '
    b'"value": "9"}]}',
    b'{"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [{"op": "add", "path": "x[[", '
    b'"value": 1}]}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_body_that_is_no_resource_is_a_4xx_in_the_shape_of_scim(idp: IdP, body: bytes) -> None:
    person, group = idp.create("somebody"), idp.create_group("something")
    for method, path in (
        *(("POST", "Users"), ("PUT", f"Users/{person['id']}"), ("PATCH", f"Users/{person['id']}")),
        *(("POST", "Groups"), ("PUT", f"Groups/{group['id']}"), ("PATCH", f"Groups/{group['id']}")),
    ):
        response = idp.ask(method, path, raw=body)
        check_error(response, response.status_code)
        assert 400 <= response.status_code < 500, (method, path, response.content)
    assert idp.get(f"Users/{person['id']}").json() == person
    assert idp.get(f"Groups/{group['id']}").json() == group


def test_body_of_another_kind_is_refused(idp: IdP) -> None:
    check_error(idp.ask("POST", "Users", raw=b"userName=a", Content_Type="application/x-www-form-urlencoded"), 415)
    body = {"schemas": [USER], "userName": "a"}
    assert idp.ask("POST", "Users", body, Content_Type="application/json; charset=utf-8").status_code == 201


def test_body_that_is_too_large_is_refused(idp: IdP) -> None:
    check_error(idp.ask("POST", "Users", raw=b'{"a": "' + b"x" * 3_000_000 + b'"}'), 413)


@pytest.mark.parametrize("object_id", ["0", "-1", "x", "9" * 30, "1.5", "%00", "٣", "a/b"])
def test_id_of_nobody_is_not_found(idp: IdP, object_id: str) -> None:
    for kind in ("Users", "Groups"):
        response = idp.get(f"{kind}/{object_id}")
        assert response.status_code in (400, 404)
        check_error(response, response.status_code)


ODD = ["startIndex=x", "count=x", "startIndex=1e9", "count=9999999999999999999999", "count=-5", "startIndex=-3"]
ODD += ["startIndex=99999999999", "attributes=userName&excludedAttributes=emails", "attributes=%5B", "count=%00"]


@pytest.mark.parametrize("query", ODD)
def test_odd_page_is_answered_or_refused(idp: IdP, query: str) -> None:
    response = idp.get(f"Users?{query}")
    if response.status_code != 200:
        assert 400 <= response.status_code < 500
        check_error(response, response.status_code)


def test_methods_and_endpoints_that_are_none(idp: IdP) -> None:
    check_error(idp.ask("DELETE", "Users"), 405)
    check_error(idp.ask("OPTIONS", "Users"), 405)
    check_error(idp.ask("POST", "ServiceProviderConfig", {}), 405)
    check_error(idp.get("Me"), 404)
    check_error(idp.ask("POST", "Bulk", {"schemas": [PATCH]}), 404)


# --- what there is --------------------------------------------------------------------------------------------------
def test_server_says_what_it_can(idp: IdP) -> None:
    config = idp.get("ServiceProviderConfig").json()
    can = {name: config[name]["supported"] for name in ("patch", "filter", "etag", "bulk", "sort", "changePassword")}
    assert can == {"patch": True, "filter": True, "etag": True, "bulk": False, "sort": False, "changePassword": False}
    assert config["authenticationSchemes"][0]["type"] == "oauthbearertoken"


def test_server_says_what_it_has(idp: IdP) -> None:
    assert {schema["id"] for schema in idp.get("Schemas").json()["Resources"]} >= {USER, GROUP}
    assert {kind["endpoint"] for kind in idp.get("ResourceTypes").json()["Resources"]} == {"/Users", "/Groups"}
    assert idp.get(f"Schemas/{USER}").json()["id"] == USER
    assert idp.get("ResourceTypes/User").json()["schema"] == USER
    check_error(idp.get("Schemas/urn:none"), 404)
