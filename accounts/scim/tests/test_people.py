"""People: made, changed and ended by the identity provider."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from accounts import versions
from accounts.authentication import InvalidKey, check_now
from accounts.models import ApiKey, User
from accounts.scim.models import ScimPerson
from accounts.scim.tests.conftest import ENTERPRISE, USER, IdP
from accounts.services import create_key, create_user, peppers, personal_team

pytestmark = pytest.mark.django_db
ALICE = {
    "externalId": "a1f",
    "name": {"givenName": "Alice", "familyName": "Sample"},
    "emails": [{"value": "alice@example.org", "type": "work", "primary": True}],
    "active": True,
}


def works(secret: str) -> bool:
    try:
        check_now(secret, peppers())
    except InvalidKey:
        return False
    return True


def key_of(user: User) -> tuple[ApiKey, str]:
    return create_key("laptop", personal_team(user), user)


def user_of(found: dict[str, Any]) -> User:
    return User.objects.get(pk=found["id"])


def deactivate(value: Any = False) -> dict[str, Any]:
    return {"op": "replace", "path": "active", "value": value}


# --- made and read --------------------------------------------------------------------------------------------------
def test_person_is_made_with_a_team_of_their_own_and_no_password(idp: IdP) -> None:
    found = idp.create("alice@example.org", **ALICE)
    user = user_of(found)
    assert (user.username, user.email, user.first_name, user.last_name) == (
        *("alice@example.org", "alice@example.org"),
        *("Alice", "Sample"),
    )
    assert not user.has_usable_password()
    assert user.personal_team.memberships.get().user == user
    assert (user.is_staff, user.is_superuser) == (False, False)


def test_what_was_sent_comes_back(idp: IdP) -> None:
    extra = {"displayName": "Alice S.", "title": "Dr", ENTERPRISE: {"department": "Physics", "employeeNumber": "7"}}
    found = idp.create("alice", **ALICE, **extra, schemas=[USER, ENTERPRISE])
    read = idp.get(f"Users/{found['id']}").json()
    for name, value in {**ALICE, **extra}.items():
        assert read[name] == value
    assert read["meta"]["location"].endswith(f"/scim/v2/Users/{found['id']}")
    assert read["meta"]["resourceType"] == "User"


def test_password_is_neither_kept_nor_set(idp: IdP) -> None:
    found = idp.create("alice", password="pa55word-of-the-idp")
    assert not user_of(found).has_usable_password()
    assert "pa55word" not in str(ScimPerson.objects.values().get())


def test_rights_cannot_be_sent(idp: IdP) -> None:
    found = idp.create("alice", is_superuser=True, isStaff=True, roles=[{"value": "admin"}], groups=[])
    user = user_of(found)
    assert (user.is_staff, user.is_superuser, user.groups.count()) == (False, False, 0)


def test_second_person_of_a_name_is_a_conflict(idp: IdP) -> None:
    idp.create("alice")
    response = idp.ask("POST", "Users", {"schemas": [USER], "userName": "ALICE"})
    assert (response.status_code, response.json()["scimType"]) == (409, "uniqueness")


@pytest.mark.parametrize("count", [1, 3])
def test_list_is_paged(idp: IdP, count: int) -> None:
    names = [idp.create(f"person{number}")["userName"] for number in range(5)]
    got: list[str] = []
    while len(got) < 5:
        page = idp.get(f"Users?startIndex={len(got) + 1}&count={count}").json()
        assert (page["totalResults"], page["startIndex"]) == (5, len(got) + 1)
        assert page["itemsPerPage"] == len(page["Resources"]) <= count
        got += [user["userName"] for user in page["Resources"]]
    assert got == names


@pytest.mark.parametrize(
    "text",
    [
        'userName eq "alice"',
        'userName eq "ALICE"',
        'externalId eq "a1f"',
        'emails eq "alice@example.org"',
        'emails.value eq "Alice@example.org"',
        'emails[type eq "work"].value eq "alice@example.org"',
        'emails[type eq "work" and value eq "alice@example.org"]',
        'name.familyName sw "Sam"',
        'userName eq "nobody" or userName co "lic"',
        'not (userName eq "bob") and active eq true',
        'urn:ietf:params:scim:schemas:core:2.0:User:userName eq "alice"',
        "externalId pr",
    ],
)
def test_filter_finds_alice_and_nobody_else(idp: IdP, text: str) -> None:
    idp.create("alice", **ALICE)
    idp.create("bob", active=False)
    response = idp.client.get("/scim/v2/Users", {"filter": text}, headers={"Authorization": f"Bearer {idp.secret}"})
    assert [user["userName"] for user in response.json()["Resources"]] == ["alice"], response.content


@pytest.mark.parametrize(
    "text",
    ["userName", 'userName eq "', "(((", "userName gt 3", 'nickName eq "x"', "active co true", "(" * 3000, "a\x00"],
)
def test_filter_that_is_none_is_told(idp: IdP, text: str) -> None:
    response = idp.client.get("/scim/v2/Users", {"filter": text}, headers={"Authorization": f"Bearer {idp.secret}"})
    assert response.status_code == 400
    assert response.json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]


def test_only_what_is_asked_for_is_given(idp: IdP) -> None:
    found = idp.create("alice", **ALICE)
    only = idp.get(f"Users/{found['id']}?attributes=userName").json()
    assert set(only) == {"schemas", "id", "userName"}
    assert "emails" not in idp.get(f"Users/{found['id']}?excludedAttributes=emails").json()


# --- changed --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "operations",
    [
        pytest.param([{"op": "replace", "path": "name.givenName", "value": "Alicia"}], id="standard"),
        pytest.param([{"op": "Replace", "path": "name.givenName", "value": "Alicia"}], id="Entra capital"),
        pytest.param([{"op": "Add", "path": "name.givenName", "value": "Alicia"}], id="Entra adds"),
        pytest.param([{"op": "replace", "value": {"name": {"givenName": "Alicia"}}}], id="Okta, no path"),
        pytest.param([{"op": "Replace", "value": {"name.givenName": "Alicia"}}], id="Entra, paths as names"),
    ],
)
def test_name_is_patched_however_it_is_written(idp: IdP, operations: list[dict[str, Any]]) -> None:
    found = idp.create("alice", **ALICE)
    changed = idp.patch(f"Users/{found['id']}", *operations)
    assert changed["name"] == {"givenName": "Alicia", "familyName": "Sample"}
    assert user_of(found).first_name == "Alicia"


def test_address_is_patched_as_entra_does(idp: IdP) -> None:
    found = idp.create("alice")
    path = 'emails[type eq "work"].value'
    idp.patch(f"Users/{found['id']}", {"op": "Add", "path": path, "value": "a@example.org"})
    assert user_of(found).email == "a@example.org"
    idp.patch(f"Users/{found['id']}", {"op": "Replace", "path": path, "value": "b@example.org"})
    assert user_of(found).email == "b@example.org"


def test_put_replaces_everything(idp: IdP) -> None:
    found = idp.create("alice", **ALICE, title="Dr")
    response = idp.ask("PUT", f"Users/{found['id']}", {"schemas": [USER], "userName": "alicia", "active": True})
    assert response.status_code == 200, response.content
    assert "title" not in response.json()
    assert (user_of(found).username, user_of(found).email) == ("alicia", "")


def test_change_of_what_has_changed_since_is_refused(idp: IdP) -> None:
    found = idp.create("alice")
    etag = idp.get(f"Users/{found['id']}")["ETag"]
    assert etag == found["meta"]["version"]
    assert idp.get(f"Users/{found['id']}", If_None_Match=etag).status_code == 304
    rename = {"op": "replace", "path": "userName", "value": "alicia"}
    idp.patch(f"Users/{found['id']}", rename, If_Match=etag)
    idp.patch(f"Users/{found['id']}", deactivate(), If_Match=etag, status=412)
    assert user_of(found).is_active


def test_bad_change_changes_nothing(idp: IdP) -> None:
    found = idp.create("alice", **ALICE)
    rename = {"op": "replace", "path": "userName", "value": "alicia"}
    bad = {"op": "replace", "path": "emails", "value": [{"value": "no address", "primary": True}]}
    refused = idp.patch(f"Users/{found['id']}", rename, bad, status=400)
    assert refused["scimType"] == "invalidValue"
    assert user_of(found).username == "alice"


# --- ended ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "operation",
    [
        deactivate(),
        deactivate("False"),
        {"op": "Replace", "value": {"active": "False"}},
        {"op": "replace", "value": {"active": False}},
    ],
)
def test_keys_of_a_person_who_left_stop(idp: IdP, operation: dict[str, Any]) -> None:
    found = idp.create("alice")
    user = user_of(found)
    _, secret = key_of(user)
    assert works(secret)
    before = versions.current()[versions.IDENTITY]
    assert idp.patch(f"Users/{user.pk}", operation)["active"] is False
    assert not works(secret)
    assert versions.current()[versions.IDENTITY] > before  # so that every worker knows within a second


def test_sessions_of_a_person_who_left_end_for_good(idp: IdP) -> None:
    found = idp.create("alice")
    user = user_of(found)
    browser, other = Client(), Client()
    browser.force_login(user)
    other.force_login(create_user("bob"))
    idp.patch(f"Users/{user.pk}", deactivate())
    idp.patch(f"Users/{user.pk}", deactivate(True))
    assert user_of(found).is_active
    assert not browser.session.get("_auth_user_id") or not _signed_in(browser)
    assert _signed_in(other)


def _signed_in(client: Client) -> bool:
    from django.contrib.sessions.models import Session

    return Session.objects.filter(session_key=client.cookies[settings.SESSION_COOKIE_NAME].value).exists()


def test_delete_makes_inactive_so_that_what_was_spent_stays_explained(idp: IdP) -> None:
    found = idp.create("alice")
    user = user_of(found)
    key, secret = key_of(user)
    assert idp.ask("DELETE", f"Users/{user.pk}").status_code == 204
    assert idp.get(f"Users/{user.pk}").status_code == 404
    assert idp.get('Users?filter=userName eq "alice"').json()["totalResults"] == 0
    assert not user_of(found).is_active
    assert not works(secret)
    assert ApiKey.objects.filter(pk=key.pk).exists()


def test_person_who_comes_back_is_the_same_one(idp: IdP) -> None:
    found = idp.create("alice")
    _, secret = key_of(user_of(found))
    idp.ask("DELETE", f"Users/{found['id']}")
    again = idp.create("alice", **ALICE)
    assert again["id"] == found["id"]
    assert works(secret)


def test_person_who_was_blocked_here_stays_blocked_when_the_idp_repeats_itself(idp: IdP) -> None:
    found = idp.create("alice")
    user = user_of(found)
    user.is_active = False
    user.save()
    idp.ask("PUT", f"Users/{user.pk}", {"schemas": [USER], "userName": "alice", "title": "Dr", "active": True})
    assert not user_of(found).is_active


def test_person_whom_the_idp_ended_and_somebody_made_active_here_is_ended_when_it_repeats_itself(idp: IdP) -> None:
    found = idp.create("alice", active=False)
    user = user_of(found)
    user.is_active = True
    user.save()
    idp.patch(f"Users/{user.pk}", deactivate())
    assert not user_of(found).is_active


# --- whom it is not about -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flag", ["is_staff", "is_superuser"])
def test_local_administrators_are_out_of_reach(idp: IdP, flag: str) -> None:
    root = User.objects.create_user("root", "root@example.org", "x", **{flag: True})
    assert idp.get('Users?filter=userName eq "root"').json()["totalResults"] == 0
    assert idp.get(f"Users/{root.pk}").status_code == 404
    idp.patch(f"Users/{root.pk}", deactivate(), status=404)
    assert idp.ask("DELETE", f"Users/{root.pk}").status_code == 404
    assert idp.ask("POST", "Users", {"schemas": [USER], "userName": "root"}).status_code == 409
    root.refresh_from_db()
    assert root.is_active


def test_staff_that_came_by_scim_are_still_ended_by_it(idp: IdP) -> None:
    found = idp.create("alice")
    user = user_of(found)
    user.is_staff = True
    user.save()
    idp.patch(f"Users/{user.pk}", deactivate())
    assert not user_of(found).is_active


def test_person_who_was_here_before_is_found_and_taken_over(idp: IdP, alice: User) -> None:
    page = idp.get('Users?filter=userName eq "alice"').json()
    assert [user["id"] for user in page["Resources"]] == [str(alice.pk)]
    idp.patch(f"Users/{alice.pk}", {"op": "add", "path": "externalId", "value": "a1f"}, deactivate())
    alice.refresh_from_db()
    assert not alice.is_active
    assert alice.scim.external_id == "a1f"
