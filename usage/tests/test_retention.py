"""What is too old is deleted, and no sum changes by it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.time_ids import to_unix_us
from usage import aggregation, retention, rollups, services, tasks
from usage.models import Adjustment, DirtyDay, DirtyHour, MoneySettings, Rollup, UsageEvent
from usage.retention import prune
from usage.rollups import roll_up, roll_up_again, roll_up_all
from usage.tests.events import NOON, add, row

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MIDNIGHT = NOON.replace(hour=0)
NOW = NOON + 100 * DAY

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def keep(events: int | None = None, hours: int | None = None) -> None:
    MoneySettings.objects.update_or_create(pk=1, defaults={"events_kept_days": events, "rollups_kept_days": hours})


def adjust(at: datetime = NOON, delta: int = 5, **changed: Any) -> None:
    Adjustment.objects.create(
        id=UUID(services.new_event_id(to_unix_us(at))),
        event_id=UUID(int=1),
        at=at,
        delta_nano_usd=delta,
        **{"model": "gpt", "provider": "openai", "status": 200} | changed,
    )
    services.mark_hours([rollups.floor_hour(at)])


def costs(grain: str) -> list[tuple[datetime, int]]:
    rows = Rollup.objects.filter(grain=grain).order_by("start").values_list("start")
    return list(rows.annotate(cost=Sum("cost_nano_usd")))


# --- events -----------------------------------------------------------------------------------------------------------
def test_nothing_is_deleted_unless_the_admin_says_so() -> None:
    add()
    roll_up()
    assert prune() == retention.Pruned()
    assert UsageEvent.objects.count() == 1


def test_events_older_than_the_days_set_are_deleted_with_their_adjustments() -> None:
    keep(events=30)
    for days in (29, 31, 99):
        add(NOW - days * DAY)
        adjust(NOW - days * DAY)
    roll_up_all()
    assert prune() == retention.Pruned(events=2, adjustments=2)
    assert list(UsageEvent.objects.values_list("at", flat=True)) == [NOW - 29 * DAY]
    assert list(Adjustment.objects.values_list("at", flat=True)) == [NOW - 29 * DAY]


def test_whole_hours_are_deleted() -> None:
    keep(events=30)
    for minutes in (-61, -1, 0, 1):
        add(NOW - 30 * DAY + timedelta(minutes=minutes))
    roll_up_all()
    prune()
    assert UsageEvent.objects.count() == 2


def test_events_of_the_last_two_days_are_kept_whatever_is_set() -> None:
    keep(events=0)
    add(NOW - 2 * DAY)
    add(NOW - 3 * DAY)
    roll_up_all()
    assert prune().events == 1
    assert len(Rollup.objects.filter(grain="minute")) == 1


def test_sums_stay_what_they_were() -> None:
    keep(events=30)
    add(cost_nano_usd=7, count=3)
    add(cost_nano_usd=None, status=500)
    adjust(delta=-1)
    roll_up_all()
    before = everything()
    prune()
    roll_up_all()
    assert everything() == before
    assert not UsageEvent.objects.exists()


def test_rebuilding_a_time_whose_events_were_deleted_changes_no_sum() -> None:
    keep(events=30)
    add(cost_nano_usd=7, count=3)
    roll_up_all()
    before = everything()
    prune()
    assert roll_up_again(MIDNIGHT, NOW) == 1
    assert everything() == before


def test_event_that_comes_after_its_hour_was_deleted_is_counted_too() -> None:
    keep(events=30)
    add(cost_nano_usd=7)
    roll_up_all()
    prune()
    add(cost_nano_usd=2)
    roll_up_all()
    assert costs("hour") == [(NOON, 9)]
    assert costs("day") == [(MIDNIGHT, 9)]
    assert prune().events == 1
    add(cost_nano_usd=1)
    roll_up_all()
    assert costs("day") == [(MIDNIGHT, 10)]


def test_hours_that_are_not_rolled_up_are_left_alone() -> None:
    keep(events=30)
    add(NOON)
    add(NOON + HOUR)
    roll_up_all()
    add(NOON + HOUR)
    assert prune() == retention.Pruned(events=1, not_rolled_up=1)
    assert UsageEvent.objects.count() == 2


def test_hours_whose_marks_were_lost_are_left_alone() -> None:
    keep(events=30)
    add()
    roll_up_all()
    DirtyHour.objects.all().delete()
    assert prune() == retention.Pruned(not_rolled_up=1)


def test_long_hours_are_deleted_in_batches_and_may_be_cut_off_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(events=30)
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 2)
    add(cost_nano_usd=1, count=5)
    roll_up_all()
    ticks = iter([True, True, False])
    pruned = retention.Pruned()
    retention._prune_events(NOW, pruned, lambda: next(ticks))
    assert (pruned.events, UsageEvent.objects.count()) == (4, 1)
    add(cost_nano_usd=1)
    roll_up_all()
    assert costs("hour") == [(NOON, 6)]
    prune()
    assert UsageEvent.objects.count() == 0
    assert Rollup.objects.filter(grain="pruned").count() == 1
    roll_up_again(MIDNIGHT, NOW)
    assert costs("hour") == [(NOON, 6)]


def test_events_are_deleted_without_being_loaded() -> None:
    keep(events=30)
    add(count=20)
    roll_up_all()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        prune()
    assert not [query for query in queries if "user_agent" in query["sql"]]


def test_task_gives_the_worker_back_after_a_while_and_goes_on_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(events=30)
    add()
    roll_up_all()
    monkeypatch.setattr(tasks, "PRUNE_AT_MOST_S", 0.0)
    tasks.prune()
    assert UsageEvent.objects.count() == 1
    monkeypatch.undo()
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    tasks.prune()
    assert UsageEvent.objects.count() == 0


# --- sums by hour -----------------------------------------------------------------------------------------------------
def test_sums_by_hour_older_than_the_days_set_are_deleted_and_those_by_day_stay() -> None:
    keep(hours=60)
    for days in (59, 61):
        add(NOW - days * DAY, cost_nano_usd=3)
    roll_up_all()
    assert prune() == retention.Pruned(hours=1)
    assert costs("hour") == [(NOW - 59 * DAY, 3)]
    assert [cost for _, cost in costs("day")] == [3, 3]


def test_sums_by_hour_are_kept_as_long_as_the_budget_of_a_month_needs_them() -> None:
    keep(hours=1)
    add(NOW - 34 * DAY)
    roll_up_all()
    assert prune().hours == 0


@pytest.mark.parametrize("events", [None, 30])
def test_day_without_its_hours_still_takes_late_events_and_adjustments(events: int | None) -> None:
    keep(events=events, hours=60)
    for hours in (-1, 0, 1):
        add(NOON + hours * HOUR, cost_nano_usd=3)
    roll_up_all()
    prune()
    assert (costs("hour"), costs("day")) == ([], [(MIDNIGHT, 9)])
    add(cost_nano_usd=1)
    adjust(NOON - HOUR, delta=-2)
    roll_up_all()
    assert (costs("hour"), costs("day")) == ([], [(MIDNIGHT, 8)])
    prune()
    roll_up_again(MIDNIGHT, NOW)
    assert (costs("hour"), costs("day")) == ([], [(MIDNIGHT, 8)])


def test_hours_of_a_day_that_is_not_rolled_up_are_left_alone() -> None:
    keep(hours=60)
    add()
    roll_up_all()
    DirtyDay.objects.update(marks=9)
    assert prune() == retention.Pruned(not_rolled_up=1)
    assert len(costs("hour")) == 1


# --- at the same time -------------------------------------------------------------------------------------------------
def while_adding_up(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Lets `action` happen once, after the events have been read and before what is pruned of them."""
    add_rollups = aggregation._Groups.add_rollups
    left = [action]

    def slow(groups: aggregation._Groups, rows: Any) -> None:
        if left:
            left.pop()()
        add_rollups(groups, rows)

    monkeypatch.setattr(aggregation._Groups, "add_rollups", slow)


def test_events_that_are_just_being_rolled_up_are_not_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(events=30)
    add(cost_nano_usd=3)
    roll_up_all()
    add(cost_nano_usd=3)
    while_adding_up(monkeypatch, prune)
    roll_up_all()
    assert costs("hour") == [(NOON, 6)]


def test_roll_up_that_was_overtaken_by_another_and_a_deletion_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(events=30)
    add(cost_nano_usd=3)

    def overtake() -> None:
        roll_up()
        assert prune().events == 1

    while_adding_up(monkeypatch, overtake)
    roll_up()
    assert costs("hour") == [(NOON, 3)]


def test_hours_that_are_deleted_while_one_is_rolled_up_do_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(hours=60)
    add(NOON, cost_nano_usd=3)
    add(NOON + HOUR, cost_nano_usd=3)
    roll_up_all()
    add(NOON, cost_nano_usd=3)
    while_adding_up(monkeypatch, prune)
    rollups.roll_up_hour(NOON)
    roll_up_all()
    assert (costs("hour"), costs("day")) == ([], [(MIDNIGHT, 9)])


# --- by hand ----------------------------------------------------------------------------------------------------------
def test_sums_of_events_that_somebody_deleted_by_hand_are_kept() -> None:
    add(cost_nano_usd=3)
    roll_up_all()
    UsageEvent.objects.all().delete()
    roll_up_again(MIDNIGHT, NOW)
    assert costs("hour") == [(NOON, 3)]
    assert costs("day") == [(MIDNIGHT, 3)]


def prune_usage(*arguments: str) -> list[str]:
    out = StringIO()
    call_command("prune_usage", *arguments, stdout=out)
    return out.getvalue().splitlines()


def test_command_says_what_it_would_delete_and_then_what_it_did() -> None:
    keep(events=30, hours=60)
    services.insert_events([row(NOON), row(NOON)])
    adjust(NOON)
    roll_up_all()
    told = [
        "2 usage events and 1 adjustment from before 2027-01-29 12:00 UTC.",
        "1 sum by hour from before 2026-12-30 UTC.",
    ]
    assert prune_usage("--dry-run") == [f"Would delete {line}" for line in told]
    assert UsageEvent.objects.count() == 2
    assert prune_usage() == [f"Deleted {line}" for line in told]
    assert UsageEvent.objects.count() == 0


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]], ids=["really", "dry"])
def test_command_says_what_must_be_rolled_up_first(arguments: list[str]) -> None:
    keep(events=30)
    add()
    assert prune_usage(*arguments)[1].startswith("Left alone: 1 hour or day not rolled up yet.")


def test_command_says_that_everything_is_kept() -> None:
    assert prune_usage()[0].startswith("Everything is kept")


def everything() -> list[dict[str, Any]]:
    rows = Rollup.objects.filter(grain__in=("hour", "day")).order_by("grain", "start", "outcome").values()
    return [{name: value for name, value in found.items() if name != "id"} for found in rows]
