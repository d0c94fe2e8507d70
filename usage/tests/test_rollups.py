"""Rollups: sums that are right however late, often or at the same time events and roll-ups come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone

from accounts.time_ids import to_unix_us
from usage import aggregation, histogram, rollups, services
from usage.models import Adjustment, DirtyDay, DirtyHour, Rollup, UsageEvent
from usage.rollups import roll_up, roll_up_again, roll_up_all, roll_up_hour
from usage.tasks import roll_up as roll_up_task
from usage.tests.events import NOON, add, row
from usage.tests.subtotals import added_up, subtotals

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MIDNIGHT = NOON.replace(hour=0)
NOW = NOON + HOUR

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return NOW


def sums(grain: str = "hour", *names: str) -> list[Any]:
    return list(
        Rollup.objects.filter(grain=grain).order_by("start", "id").values_list(*names or ("calls",), flat=not names[1:])
    )


def dirty() -> list[datetime]:
    return [hour.hour for hour in DirtyHour.objects.all() if hour.marks > hour.rolled_up]


# --- what is summed up ----------------------------------------------------------------------------------------------
def test_calls_tokens_cost_and_latency_of_an_hour_are_added_up() -> None:
    add(NOON, prompt_tokens=10, completion_tokens=1, cost_nano_usd=7, latency_us=1_000)
    add(
        NOON + HOUR - timedelta(microseconds=1),
        prompt_tokens=20,
        completion_tokens=2,
        cost_nano_usd=8,
        latency_us=2_000,
    )
    roll_up()
    rollup = Rollup.objects.get(grain="hour")
    assert (rollup.start, rollup.calls, rollup.prompt_tokens, rollup.completion_tokens) == (NOON, 2, 30, 3)
    assert (rollup.cost_nano_usd, rollup.latency_us, rollup.unpriced_calls) == (15, 3_000, 0)


def test_unpriced_calls_are_counted_and_cost_nothing() -> None:
    add(cost_nano_usd=None, count=2)
    add(cost_nano_usd=5)
    roll_up()
    assert sums("hour", "calls", "unpriced_calls", "cost_nano_usd") == [(3, 2, 5)]


def test_latencies_are_counted_in_the_buckets_of_the_histogram() -> None:
    latencies = [0, *histogram.BOUNDS_US, *(bound + 1 for bound in histogram.BOUNDS_US)]
    services.insert_events([row(latency_us=us, first_byte_us=us) for us in latencies])
    roll_up()
    expected = histogram.empty()
    for us in latencies:
        expected[histogram.bucket(us)] += 1
    assert sums("hour", "latency_histogram", "first_byte_histogram") == [(expected, expected)]


def test_call_without_a_first_byte_is_in_no_bucket_of_it() -> None:
    add(first_byte_us=None)
    roll_up()
    assert sum(Rollup.objects.get(grain="hour").first_byte_histogram) == 0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"), (201, "ok"), (399, "ok"), (400, "refused"), (401, "refused"), (429, "refused"), (498, "refused"),
        (499, "abandoned"), (500, "failed"), (502, "failed"), (504, "failed"), (0, "failed"),
    ],
)  # fmt: skip
def test_outcome_follows_from_the_status(status: int, outcome: str) -> None:
    add(status=status)
    roll_up()
    assert sums("hour", "outcome") == sums("minute", "outcome") == [outcome]


def test_hours_are_split_by_key_user_team_model_provider_and_outcome() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"key_id": 1}, {"user_id": 1}, {"team_id": 1}, {"model": "other"}, {"provider": "other"}, {"status": 500},
    ]  # fmt: skip
    for changed in variants:
        add(**changed, count=2)
    roll_up()
    assert sums() == [2] * len(variants)


def test_minutes_are_split_by_outcome_only() -> None:
    add(NOON, key_id=1, model="a")
    add(NOON + 59 * timedelta(seconds=1), key_id=2, model="b")
    add(NOON, status=500)
    add(NOON + 7 * MINUTE)
    roll_up()
    assert sorted(sums("minute", "start", "outcome", "calls", "model")) == [
        (NOON, "failed", 1, ""),
        (NOON, "ok", 2, ""),
        (NOON + 7 * MINUTE, "ok", 1, ""),
    ]


def test_hour_begins_and_ends_sharp() -> None:
    for at in (NOON - timedelta(microseconds=1), NOON, NOON + HOUR - timedelta(microseconds=1), NOON + HOUR):
        add(at)
    roll_up()
    assert sums("hour", "start", "calls") == [(NOON - HOUR, 1), (NOON, 2), (NOON + HOUR, 1)]


def test_sums_beyond_32_bits_are_exact() -> None:
    add(count=3, cost_nano_usd=2**60, prompt_tokens=2**60)
    roll_up()
    assert sums("hour", "cost_nano_usd", "prompt_tokens") == [(3 * 2**60, 3 * 2**60)]


# --- days -----------------------------------------------------------------------------------------------------------
def test_day_is_the_sum_of_its_hours() -> None:
    latencies = (1_000, 2_000_000, 3_000_000)
    for hours, latency in enumerate(latencies):
        add(NOON - hours * HOUR, count=2, cost_nano_usd=7, latency_us=latency, first_byte_us=None)
    roll_up()
    day = Rollup.objects.get(grain="day")
    assert (day.start, day.calls, day.cost_nano_usd, day.latency_us) == (MIDNIGHT, 6, 42, 2 * sum(latencies))
    assert [day.latency_histogram[histogram.bucket(latency)] for latency in latencies] == [2, 2, 2]
    assert (sum(day.latency_histogram), sum(day.first_byte_histogram)) == (6, 0)


def test_days_are_split_as_hours_are() -> None:
    variants: list[dict[str, Any]] = [
        {}, {"key_id": 1}, {"user_id": 1}, {"team_id": 1}, {"model": "other"}, {"provider": "other"}, {"status": 500},
    ]  # fmt: skip
    for changed in variants:
        add(NOON, **changed)
        add(NOON + HOUR, **changed)
    roll_up()
    assert sums("day") == [2] * len(variants)


def test_day_begins_and_ends_sharp_in_utc() -> None:
    for at in (MIDNIGHT - timedelta(microseconds=1), MIDNIGHT, MIDNIGHT + DAY - timedelta(microseconds=1)):
        add(at)
    roll_up()
    assert sums("day", "start", "calls") == [(MIDNIGHT - DAY, 1), (MIDNIGHT, 2)]


def test_late_event_changes_its_day_too() -> None:
    add(NOON - 3 * HOUR)
    add(NOON)
    roll_up()
    add(NOON - 3 * HOUR)
    roll_up()
    assert sums("day") == [3]


def test_day_is_summed_up_again_only_when_one_of_its_hours_was(monkeypatch: pytest.MonkeyPatch) -> None:
    add(NOON)
    add(NOON - DAY)
    roll_up()
    add(NOON)
    days: list[datetime] = []
    monkeypatch.setattr(rollups, "roll_up_day", days.append)
    roll_up()
    assert days == [MIDNIGHT]


def test_day_whose_roll_up_died_is_summed_up_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    roll_up()
    add()

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(aggregation, "add_up", die)
        roll_up()
    assert (sums("hour"), sums("day")) == ([2], [1])
    roll_up()
    assert sums("day") == [2]


# --- adjustments ----------------------------------------------------------------------------------------------------
def adjust(delta: int, at: datetime = NOON, **changed: Any) -> None:
    Adjustment.objects.create(
        id=UUID(services.new_event_id(to_unix_us(at))),
        event_id=UUID(int=1),
        at=at,
        delta_nano_usd=delta,
        **{"model": "gpt", "provider": "openai", "status": 200} | changed,
    )
    services.mark_hours([NOON])


def test_adjustments_count_in_the_time_and_group_of_their_event() -> None:
    add(NOON + 7 * MINUTE, cost_nano_usd=10)
    add(NOON + 7 * MINUTE, cost_nano_usd=10, status=499)
    roll_up()
    adjust(-3, NOON + 7 * MINUTE)
    adjust(5, NOON + 7 * MINUTE, status=499)
    adjust(1, NOON + 7 * MINUTE, status=499)
    roll_up()
    for grain in ("minute", "hour", "day"):
        assert sorted(sums(grain, "outcome", "calls", "cost_nano_usd")) == [("abandoned", 1, 16), ("ok", 1, 7)]


def test_adjustment_that_prices_a_call_makes_it_no_longer_unpriced() -> None:
    add(cost_nano_usd=None, count=2)
    adjust(9, priced_calls=1)
    roll_up()
    assert sums("hour", "calls", "unpriced_calls", "cost_nano_usd") == [(2, 1, 9)]
    adjust(-9, priced_calls=-1)
    roll_up()
    assert sums("day", "calls", "unpriced_calls", "cost_nano_usd") == [(2, 2, 0)]


# --- when -----------------------------------------------------------------------------------------------------------
def test_hour_is_clean_after_a_roll_up_and_dirty_again_after_a_late_event() -> None:
    add()
    assert dirty() == [NOON]
    assert roll_up() == 1
    assert dirty() == []
    assert roll_up() == 0
    add()
    assert dirty() == [NOON]
    roll_up()
    assert sums() == sums("minute") == [2]


def test_roll_up_may_be_repeated() -> None:
    add(count=3)
    roll_up()
    DirtyHour.objects.update(marks=5)
    roll_up()
    assert sums() == sums("minute") == [3]


def test_newest_hours_come_first() -> None:
    for hours in range(3):
        add(NOON - hours * HOUR)
    assert roll_up(limit=2) == 2
    assert dirty() == [NOON - 2 * HOUR]


def test_backlog_of_any_length_is_rolled_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "HOURS_AT_ONCE", 2)
    for hours in range(5):
        add(NOON - hours * HOUR)
    assert roll_up_all() == 5
    assert dirty() == []


def test_minutes_are_kept_for_two_days() -> None:
    add(NOW - timedelta(hours=47))
    add(NOW - timedelta(hours=50))
    roll_up()
    assert sums("minute", "start") == [NOW - timedelta(hours=47)]
    assert len(sums()) == 2


def test_old_minutes_are_pruned_and_hours_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    add(NOON)
    roll_up()
    monkeypatch.setattr(timezone, "now", lambda: NOON + timedelta(hours=49))
    roll_up()
    assert (sums("minute"), sums()) == ([], [1])


def test_clean_hours_are_recomputed_on_demand() -> None:
    for hours in range(3):
        add(NOON - hours * HOUR)
    roll_up()
    Rollup.objects.update(calls=99)
    assert roll_up_again(NOON - HOUR + 30 * MINUTE, NOON) == 1
    assert sums("hour", "start", "calls") == [(NOON - 2 * HOUR, 99), (NOON - HOUR, 1), (NOON, 99)]


def test_beats_task_rolls_up() -> None:
    add()
    roll_up_task()
    assert sums() == [1]


# --- at the same time -----------------------------------------------------------------------------------------------
def test_event_that_comes_while_its_hour_is_rolled_up_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    after_aggregation(monkeypatch, add)
    roll_up()
    assert sums() == [1]
    assert dirty() == [NOON]
    roll_up()
    assert sums() == [2]


def test_roll_up_that_was_overtaken_does_not_undo_the_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    add()

    def overtake() -> None:
        add()
        roll_up_hour(NOON)

    after_aggregation(monkeypatch, overtake)
    roll_up_hour(NOON)
    assert sums() == [2]
    assert dirty() == []


def test_roll_up_that_dies_leaves_the_old_sums_and_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    roll_up()
    add()

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(type(Rollup.objects.all()), "bulk_create", die)
        roll_up()
    assert sums() == [1]
    assert dirty() == [NOON]


def after_aggregation(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Lets `action` happen once, between the reading of the events and the writing of the rollups."""
    aggregate = rollups._aggregate
    left = [action]

    def slow(hour: datetime) -> list[Rollup]:
        rows = aggregate(hour)
        if left:
            left.pop()()
        return rows

    monkeypatch.setattr(rollups, "_aggregate", slow)


def in_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture
def on_postgresql(transactional_db: None) -> Iterator[None]:
    if connection.vendor != "postgresql":
        pytest.skip("row locks are PostgreSQL's; usage/tests/test_on_postgresql.py runs this there")
    yield


@pytest.mark.django_db(transaction=True)
def test_events_committed_after_the_roll_up_has_read_keep_the_hour_dirty(on_postgresql: None) -> None:
    """The case that a mark which is only inserted, not raised, would lose: the events are there but not yet visible."""
    add()
    inserted, finish = threading.Event(), threading.Event()

    def insert_slowly() -> None:
        with transaction.atomic():
            add()
            inserted.set()
            assert finish.wait(10)

    inserting = in_thread(insert_slowly)
    assert inserted.wait(10)
    rolling = in_thread(lambda: roll_up_hour(NOON))
    rolling.join(0.3)
    assert rolling.is_alive()  # waits for the mark's lock
    finish.set()
    inserting.join()
    rolling.join()
    assert dirty() == [NOON]
    roll_up()
    assert (sums(), dirty()) == ([2], [])


@pytest.mark.django_db(transaction=True)
def test_nobody_who_inserts_waits_for_the_aggregation(on_postgresql: None, monkeypatch: pytest.MonkeyPatch) -> None:
    add()

    def insert_meanwhile() -> None:
        thread = in_thread(add)
        thread.join(5)
        assert not thread.is_alive()

    after_aggregation(monkeypatch, insert_meanwhile)
    roll_up_hour(NOON)
    assert dirty() == [NOON]


@pytest.mark.django_db(transaction=True)
def test_many_writers_and_many_roll_ups_at_once_end_in_the_right_sums() -> None:
    """Three threads insert into two hours while two roll up all the time."""
    batches = 15
    done = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return run

    def insert() -> None:
        for _ in range(batches):
            services.insert_events([row(NOON), row(NOON - HOUR), row(NOON)])

    def roll() -> None:
        while not done.is_set():
            roll_up()

    rolling = [in_thread(guarded(roll)) for _ in range(2)]
    for thread in [in_thread(guarded(insert)) for _ in range(3)]:
        thread.join()
    done.set()
    for thread in rolling:
        thread.join()
    assert errors == []
    roll_up()
    assert UsageEvent.objects.count() == 3 * 3 * batches
    assert sums("hour", "start", "calls") == [(NOON - HOUR, 3 * batches), (NOON, 2 * 3 * batches)]
    assert sums("minute", "start", "calls") == sums("hour", "start", "calls")
    assert sums("day", "start", "calls") == [(MIDNIGHT, 3 * 3 * batches)]
    assert subtotals("hour") == added_up("hour")
    assert subtotals("day") == added_up("day")
    assert dirty() == []
    assert not [day for day in DirtyDay.objects.all() if day.marks > day.rolled_up]
