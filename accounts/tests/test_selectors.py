from __future__ import annotations

import pytest

from accounts import selectors
from accounts.models import Membership
from accounts.selectors import Caller
from accounts.services import create_key, personal_team

pytestmark = pytest.mark.django_db

OWNED = {"user_id": 1, "user__is_active": True, "is_member": True}
SERVICE = {"user_id": None, "user__is_active": None, "is_member": False}
LEFT = {**OWNED, "is_member": False}


@pytest.mark.parametrize(
    ("facts", "in_force"),
    [
        (OWNED, True),
        (SERVICE, True),
        ({**OWNED, "disabled": True}, False),
        ({**SERVICE, "disabled": True}, False),
        ({**OWNED, "team__disabled": True}, False),
        ({**SERVICE, "team__disabled": True}, False),
        ({**OWNED, "user__is_active": False}, False),
        (LEFT, False),
        ({**LEFT, "team__personal_of_id": 1}, True),
        ({**LEFT, "team__personal_of_id": 2}, False),
        ({**LEFT, "team__personal_of_id": 1, "user__is_active": False}, False),
    ],
)
def test_key_is_in_force_when_nothing_is_disabled_and_its_owner_is_active_in_the_team(facts, in_force):
    usual = {**dict.fromkeys(Caller._fields), "disabled": False, "team__disabled": False}
    assert Caller(**{**usual, **facts}).in_force is in_force


def test_caller_is_found_by_public_id_with_the_facts_of_owner_and_team(alice, research):
    key, _ = create_key("laptop", research, alice, models=["echo"])
    caller = selectors.caller_by_public_id(key.public_id)

    assert (caller.id, caller.name, caller.models_allowed) == (key.pk, "laptop", ["echo"])
    assert (caller.user__is_active, caller.is_member, caller.team__personal_of_id) == (True, True, None)
    assert selectors.caller_by_public_id("a" * 12) is None


def test_member_of_another_team_is_no_member(alice, charlie, research):
    key, _ = create_key("laptop", research, alice)
    Membership.objects.filter(user=alice).update(team=charlie.teams.get())
    assert not selectors.caller_by_public_id(key.public_id).is_member


def test_callers_are_read_in_chunks_and_the_gone_left_out(alice, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(selectors, "CHUNK", 2)
    team = personal_team(alice)
    ids = [create_key(name, team, alice)[0].pk for name in "abc"]
    with django_assert_num_queries(2):
        callers = list(selectors.callers_by_id([*ids, 999_999]))
    assert sorted(caller.id for caller in callers) == ids
