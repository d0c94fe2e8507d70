"""Sums over findings: by day, rule and team, and what was blocked lately."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Team
from policies.findings import Acted, BlockedKey, Share, acted_since, blocked_keys, by_day, most, of_call, start_of
from policies.tests.findings import add
from policies.tests.many_findings import insert_many

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


# --- by day ---------------------------------------------------------------------------------------------------------
def test_days_go_up_to_today_without_a_gap() -> None:
    today = timezone.localdate()
    assert [day.date for day in by_day()] == [today - timedelta(days=29 - index) for index in range(30)]


@pytest.mark.parametrize(
    ("columns", "outcome"),
    [
        ({"action": "block"}, "blocked"),
        ({"action": "redact"}, "changed"),
        ({"action": "audit"}, "audited"),
        ({"action": "block", "dry_run": True}, "dry_run"),
        ({"action": "block", "failed": True}, "failed"),
        ({"action": "audit", "dry_run": True, "failed": True}, "failed"),
    ],
)
def test_finding_counts_once_as_what_was_done(now: datetime, columns: dict[str, Any], outcome: str) -> None:
    add(now, **columns)
    today = by_day()[-1]
    assert getattr(today, outcome) == today.total == 1


def test_days_are_those_of_the_installation(settings: Any) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    with timezone.override("Asia/Tokyo"):
        midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
        add(midnight - timedelta(microseconds=1))
        add(midnight)
        assert [day.blocked for day in by_day()[-2:]] == [1, 1]
        assert start_of(1) == midnight


def test_what_is_older_than_the_window_is_not_counted(now: datetime) -> None:
    add(now - 31 * DAY)
    assert sum(day.total for day in by_day()) == 0
    assert most("rule", start_of()) == []


# --- rules and teams ------------------------------------------------------------------------------------------------
def test_rules_are_ranked_by_their_findings(now: datetime) -> None:
    add(now, times=2, rule="few")
    add(now, 10, times=3, rule="many")
    add(now - 40 * DAY, rule="long ago")
    assert most("rule", start_of()) == [Share(None, "many", 3), Share(None, "few", 2)]
    assert most("rule", start_of(), limit=1) == [Share(None, "many", 3)]


def test_teams_are_ranked_also_those_that_are_gone(now: datetime, research: Team) -> None:
    add(now, times=2, team_id=research.pk)
    add(now, 10, team_id=4711)
    add(now, 20, team_id=None)
    assert most("team", start_of()) == [Share(research.pk, "research", 2), Share(4711, "(deleted team 4711)", 1)]


# --- what was blocked -----------------------------------------------------------------------------------------------
def test_calls_that_were_blocked_or_changed_are_counted_not_findings(now: datetime) -> None:
    event_id = uuid4()
    add(now, times=3, event_id=event_id)
    add(now, 10, event_id=event_id, action="redact")
    add(now, 20, action="audit")
    add(now, 30, dry_run=True)
    add(now, 40, failed=True)
    add(now - 2 * HOUR)
    assert acted_since(now - HOUR) == Acted(blocked=1, changed=1)
    assert acted_since(now - DAY) == Acted(blocked=2, changed=1)


def test_findings_of_a_call_stand_in_their_order(now: datetime) -> None:
    event_id = uuid4()
    add(now, 1, event_id=event_id, rule="second")
    add(now, 0, event_id=event_id, rule="first")
    add(now, 2)
    assert [finding.rule for finding in of_call(event_id)] == ["first", "second"]


# --- at size --------------------------------------------------------------------------------------------------------
def test_sums_are_made_of_indexes_alone() -> None:
    """Else a month of a million findings takes seconds instead of a few tenths of one. Seen on SQLite, whose plans can
    be told from few rows."""
    insert_many(2_000, hours=24 * 20)
    for made in (by_day, partial(most, "rule", start_of()), partial(most, "team", start_of())):
        with CaptureQueriesContext(connection) as asked:
            assert made()
        if connection.vendor == "sqlite":
            looks = [line for line in plan_of(asked[0]["sql"]) if "policies_finding" in line]
            assert looks
            assert [line for line in looks if "COVERING INDEX" not in line] == []


def plan_of(sql: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return [row[3] for row in cursor.fetchall()]


def test_every_finding_is_counted_in_each_sum() -> None:
    insert_many(3_000, hours=24 * 20)
    days = by_day()
    assert sum(day.total for day in days) == 3_000
    assert sum(share.findings for share in most("rule", start_of(), limit=100)) == 3_000
    assert sum(share.findings for share in most("team", start_of(), limit=100)) == 3_000
    assert sum(day.failed for day in days) == 3


# --- keys that are blocked again and again --------------------------------------------------------------------------
def test_key_counts_as_blocked_once_for_each_call(now: datetime) -> None:
    for number, call in enumerate((1, 1, 2)):
        add(now, number, event_id=UUID(int=call), key_id=7, team_id=3)
    add(now, 3, key_id=8)
    assert blocked_keys(now - HOUR, 2) == [BlockedKey(7, "laptop (abc)", 3, 2)]


@pytest.mark.parametrize(
    "columns", [{"action": "audit"}, {"dry_run": True}, {"failed": True}, {"key_id": None}], ids=str
)
def test_what_blocked_no_call_of_a_key_does_not_count(now: datetime, columns: dict[str, Any]) -> None:
    add(now, **({"key_id": 7} | columns))
    add(now - 2 * HOUR, key_id=7)
    assert blocked_keys(now - HOUR, 1) == []
