"""Groups of the identity provider, and who is told when somebody is no longer in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from accounts import scim
from accounts.models import User
from accounts.scim.models import ScimGroup
from accounts.scim.selectors import group_names
from accounts.scim.tests.conftest import GROUP, IdP

pytestmark = pytest.mark.django_db


@pytest.fixture
def told() -> Iterator[list[tuple[str, set[str], set[str]]]]:
    """(username, groups now, groups lost)"""
    calls: list[tuple[str, set[str], set[str]]] = []

    def listener(user: Any, now: Any, lost: Any) -> None:
        calls.append((user.username, set(now), set(lost)))

    scim.on_groups_changed(listener)
    yield calls
    scim._listeners.remove(listener)


@pytest.fixture
def people(idp: IdP) -> dict[str, str]:
    return {name: idp.create(name)["id"] for name in ("alice", "bob", "charlie")}


def members(found: dict[str, Any]) -> set[str]:
    return {member["display"] for member in found.get("members", [])}


def test_group_has_its_people_and_they_have_it(idp: IdP, people: dict[str, str]) -> None:
    group = idp.create_group("research", people["alice"], people["bob"], externalId="g-1")
    assert members(idp.get(f"Groups/{group['id']}").json()) == {"alice", "bob"}
    assert idp.get(f"Users/{people['alice']}").json()["groups"][0]["display"] == "research"
    assert group_names(User.objects.get(username="alice")) == {"research", "g-1"}


@pytest.mark.parametrize("op", ["add", "Add"])
def test_members_are_added(idp: IdP, people: dict[str, str], op: str) -> None:
    group = idp.create_group("research", people["alice"])
    found = idp.patch(f"Groups/{group['id']}", {"op": op, "path": "members", "value": [{"value": people["bob"]}]})
    assert members(found) == {"alice", "bob"}


@pytest.mark.parametrize("style", ["Entra ID", "Okta"])
def test_members_are_removed(idp: IdP, people: dict[str, str], style: str, told: list[Any]) -> None:
    group = idp.create_group("research", people["alice"], people["bob"])
    told.clear()
    operation: dict[str, Any] = {"op": "remove", "path": f'members[value eq "{people["alice"]}"]'}
    if style == "Entra ID":
        operation = {"op": "Remove", "path": "members", "value": [{"value": people["alice"]}]}
    assert members(idp.patch(f"Groups/{group['id']}", operation)) == {"bob"}
    assert told == [("alice", set(), {"research"})]


def test_put_says_who_is_in_it(idp: IdP, people: dict[str, str], told: list[Any]) -> None:
    group = idp.create_group("research", people["alice"], people["bob"])
    told.clear()
    body = {
        "schemas": [GROUP],
        "displayName": "research",
        "members": [{"value": people[n]} for n in ("bob", "charlie")],
    }
    response = idp.ask("PUT", f"Groups/{group['id']}", body)
    assert members(response.json()) == {"bob", "charlie"}
    assert sorted(told) == [("alice", set(), {"research"}), ("charlie", {"research"}, set())]


def test_deleted_group_is_lost_to_all_of_its_people(idp: IdP, people: dict[str, str], told: list[Any]) -> None:
    group = idp.create_group("research", people["alice"], people["bob"], externalId="g-1")
    told.clear()
    assert idp.ask("DELETE", f"Groups/{group['id']}").status_code == 204
    assert sorted(told) == [("alice", set(), {"research", "g-1"}), ("bob", set(), {"research", "g-1"})]
    assert idp.get(f"Groups/{group['id']}").status_code == 404


def test_renamed_group_is_lost_by_its_old_name(idp: IdP, people: dict[str, str], told: list[Any]) -> None:
    group = idp.create_group("research", people["alice"])
    told.clear()
    idp.patch(f"Groups/{group['id']}", {"op": "Replace", "path": "displayName", "value": "science"})
    assert told == [("alice", {"science"}, {"research"})]


def test_person_who_is_deleted_is_in_no_group(idp: IdP, people: dict[str, str], told: list[Any]) -> None:
    group = idp.create_group("research", people["alice"], people["bob"])
    told.clear()
    idp.ask("DELETE", f"Users/{people['alice']}")
    assert told == [("alice", set(), {"research"})]
    assert members(idp.get(f"Groups/{group['id']}").json()) == {"bob"}


def test_name_that_another_group_of_the_person_has_too_is_not_lost(
    idp: IdP, people: dict[str, str], told: list[Any]
) -> None:
    idp.create_group("one", people["alice"], externalId="same")
    two = idp.create_group("two", people["alice"], externalId="same")
    told.clear()
    idp.ask("DELETE", f"Groups/{two['id']}")
    assert told == [("alice", {"one", "same"}, {"two"})]


def test_list_leaves_members_out_when_asked_to(idp: IdP, people: dict[str, str]) -> None:
    idp.create_group("research", people["alice"])
    page = idp.get('Groups?filter=displayName eq "research"&excludedAttributes=members').json()
    assert "members" not in page["Resources"][0]
    assert idp.get(f'Groups?filter=members eq "{people["alice"]}"').json()["totalResults"] == 1
    assert idp.get(f'Groups?filter=members.value eq "{people["bob"]}"').json()["totalResults"] == 0


@pytest.mark.parametrize(
    "member", [{"value": "999999"}, {"value": "x"}, {"value": "1", "type": "Group"}, {}, {"value": ""}]
)
def test_member_who_is_nobody_is_refused(idp: IdP, member: dict[str, str]) -> None:
    response = idp.ask("POST", "Groups", {"schemas": [GROUP], "displayName": "research", "members": [member]})
    assert (response.status_code, response.json()["scimType"]) == (400, "invalidValue")
    assert not ScimGroup.objects.exists()


def test_local_administrator_cannot_be_put_into_a_group(idp: IdP) -> None:
    """A rule for the group would give them, or take from them, what it says."""
    root = User.objects.create_superuser("root")
    body = {"schemas": [GROUP], "displayName": "research", "members": [{"value": str(root.pk)}]}
    assert idp.ask("POST", "Groups", body).status_code == 400


def test_second_group_of_a_name_is_a_conflict(idp: IdP) -> None:
    idp.create_group("research")
    response = idp.ask("POST", "Groups", {"schemas": [GROUP], "displayName": "research"})
    assert (response.status_code, response.json()["scimType"]) == (409, "uniqueness")
