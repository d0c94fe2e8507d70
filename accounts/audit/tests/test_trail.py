"""What is written to the trail: by saves and deletes of watched models, and by `record`."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import transaction
from django.test import Client

from accounts import services
from accounts.audit import acting, record
from accounts.audit.models import AuditEvent
from accounts.models import ApiKey, Membership, Team, User

pytestmark = pytest.mark.django_db


def events(**wanted: Any) -> list[AuditEvent]:
    """Oldest first."""
    return list(AuditEvent.objects.filter(**wanted).select_related("detail").order_by("number"))


def test_new_row_is_one_event_with_all_its_fields() -> None:
    team = Team.objects.create(name="research", cost_center="4711")
    (event,) = events()
    assert (event.action, event.target_type, event.target_id) == ("team.created", "accounts.team", str(team.pk))
    assert event.target_name == "research"
    assert event.before == {}
    assert event.after["cost_center"] == "4711"


def test_change_tells_only_the_fields_that_changed(research: Team) -> None:
    research.cost_center = "0815"
    research.save()
    event = events()[-1]
    assert (event.action, event.before, event.after) == (
        "team.changed",
        {"cost_center": "4711"},
        {"cost_center": "0815"},
    )


def test_before_is_what_the_database_had_not_what_the_instance_was_read_as(research: Team) -> None:
    stale = Team.objects.get(pk=research.pk)
    research.cost_center = "1"
    research.save()
    stale.cost_center = "2"
    stale.save()
    assert events()[-1].before == {"cost_center": "1"}


def test_save_that_changes_nothing_is_no_event(research: Team) -> None:
    before = len(events())
    research.save()
    assert len(events()) == before


def test_deletion_tells_what_was_there_and_what_went_with_it(research: Team, alice: User) -> None:
    alice.delete()
    deleted = {event.action: event for event in events(action__endswith=".deleted")}
    assert set(deleted) == {"membership.deleted", "user.deleted"}
    assert deleted["user.deleted"].before["email"] == "alice@example.org"
    assert deleted["membership.deleted"].target_name == "alice in research"
    assert deleted["membership.deleted"].before["team"] == research.pk


def test_secrets_are_shown_as_stars(research: Team, alice: User) -> None:
    alice.set_password("correct horse")
    alice.save()
    changed = events(action="user.changed")[-1]
    assert (changed.before, changed.after) == ({"password": "***"}, {"password": "***"})
    key, secret = services.create_key("laptop", research, alice)
    created = events(action="apikey.created")[-1]
    assert created.after["digest"] == "***"
    assert key.digest not in created.detail.after
    assert secret not in created.detail.after


def test_sign_in_and_use_of_a_key_are_no_changes(research: Team, alice: User) -> None:
    key, _ = services.create_key("laptop", research, alice)
    before = len(events())
    Client().force_login(alice)
    services.touch_keys({key.pk: key.created_at})
    assert [event.action for event in events()[before:] if event.action.endswith(".changed")] == []


def test_groups_of_a_user_are_told_by_name(alice: User) -> None:
    auditors = Group.objects.create(name="Reviewers")
    alice.groups.add(auditors)
    added = events(action="user.changed")[-1]
    assert (added.target_name, added.before, added.after) == ("alice", {}, {"groups": ["Reviewers"]})
    auditors.user_set.remove(alice)
    removed = events(action="user.changed")[-1]
    assert (removed.target_name, removed.before, removed.after) == ("alice", {"groups": ["Reviewers"]}, {})


def test_groups_that_are_cleared_are_told_too(alice: User) -> None:
    alice.groups.add(Group.objects.create(name="Reviewers"))
    alice.groups.clear()
    assert events(action="user.changed")[-1].before == {"groups": ["Reviewers"]}


def test_who_acts_is_on_the_event(alice: User) -> None:
    with acting(channel="scim", user=alice, name="token ci", ip="192.0.2.1", request_id="r-1"):
        Team.objects.create(name="sales")
    event = events(action="team.created")[-1]
    assert (event.channel, event.user_id, event.user_name, event.ip, event.request_id) == (
        "scim",
        alice.pk,
        "token ci",
        "192.0.2.1",
        "r-1",
    )


def test_change_without_an_actor_is_the_systems() -> None:
    Team.objects.create(name="sales")
    assert (events()[-1].channel, events()[-1].user_id, events()[-1].user_name) == ("system", None, "")


def test_change_in_the_admin_is_the_administrators() -> None:
    root = User.objects.create_superuser("root")
    client = Client(REMOTE_ADDR="192.0.2.7")
    client.force_login(root)
    fields = {
        "name": "sales",
        "models_allowed_0": "every",
        "memberships-TOTAL_FORMS": 0,
        "memberships-INITIAL_FORMS": 0,
    }
    answer = client.post("/admin/accounts/team/add/", fields, headers={"X-Request-Id": "req-7"})
    assert answer.status_code == 302
    (event,) = events(action="team.created")
    assert (event.channel, event.user_name, event.ip, event.request_id) == ("admin", "root", "192.0.2.7", "req-7")


def test_command_acts_in_the_name_of_the_account_that_runs_it(research: Team, alice: User) -> None:
    call_command("create_key", "laptop", team="research", user="alice")
    (event,) = events(action="apikey.created")
    assert event.channel == "command"
    assert event.user_name.startswith("create_key (")


def test_change_that_is_rolled_back_leaves_no_event() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        Team.objects.create(name="sales")
        raise RuntimeError
    assert events() == []


def test_record_tells_what_is_not_a_save(alice: User) -> None:
    with acting(channel="admin", user=alice):
        record("usage.exported", ("usage", "2026-07", "July"), details={"rows": 3})
    event = events()[-1]
    assert (event.action, event.target_type, event.target_id, event.target_name) == (
        "usage.exported",
        "usage",
        "2026-07",
        "July",
    )
    assert event.details == {"rows": 3}


def test_ids_rise_with_the_numbers(research: Team) -> None:
    for number in range(20):
        research.cost_center = str(number)
        research.save()
    found = events()
    assert [event.number for event in found] == list(range(1, len(found) + 1))
    assert sorted(event.id for event in found) == [event.id for event in found]


def test_membership_and_key_of_a_deleted_team_are_told(research: Team, alice: User) -> None:
    services.create_key("laptop", research, alice)
    research.delete()
    assert {event.action for event in events(action__endswith=".deleted")} == {
        "team.deleted",
        "membership.deleted",
        "apikey.deleted",
    }
    assert not Membership.objects.exists()
    assert not ApiKey.objects.exists()
