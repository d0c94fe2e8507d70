"""Rollups are never wrong by a cent: random histories, with all that happens to events, against plain addition."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from accounts.time_ids import to_unix_us
from usage import aggregation, histogram, retention, rollups, services
from usage.models import Adjustment, DirtyDay, DirtyHour, MoneySettings, Rollup
from usage.tests.events import NOON, row
from usage.tests.subtotals import added_up, subtotals

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NOW = NOON + 6 * DAY
DAYS = [NOON, NOON + DAY, NOON + 2 * DAY]
DIMENSIONS = ("key_id", "user_id", "team_id", "model", "provider", "outcome")
OUTCOMES = {200: "ok", 400: "refused", 429: "refused", 499: "abandoned", 500: "failed", 0: "failed"}

pytestmark = pytest.mark.django_db


class History:
    """What happened, and the sums that follow from it: (start of hour, dimensions) -> sums."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.hours: Counter[Any] = Counter()
        self.events: list[tuple[str, datetime, dict[str, Any]]] = []
        self.unpriced: set[str] = set()

    def moment(self) -> datetime:
        day = self.random.choice(DAYS)
        edge = self.random.choice([0, 3_599_999_999, self.random.randrange(3_600_000_000)])
        return day + self.random.choice([-12, -1, 0, 1, 11]) * HOUR + timedelta(microseconds=edge)

    def insert(self) -> None:
        rows = []
        for _ in range(self.random.randrange(1, 12)):
            at, pick = self.moment(), self.random.choice
            event = {
                "key_id": pick([None, 1, 2]), "user_id": pick([None, 7]), "team_id": pick([1, 2]),
                "model": pick(["a", "b"]), "provider": pick(["", "openai"]), "status": pick(list(OUTCOMES)),
                "prompt_tokens": self.random.randrange(2**40), "completion_tokens": self.random.randrange(9),
                "cost_nano_usd": pick([None, 0, 1, self.random.randrange(2**50)]),
                "latency_us": self.random.randrange(700_000_000),
                "first_byte_us": pick([None, self.random.randrange(10**6)]),
            }  # fmt: skip
            rows.append(row(at, **event))
            self.events.append((rows[-1][0], at, event))
            self._count_event(rows[-1][0], at, event)
        services.insert_events(rows)
        if self.random.random() < 0.2:
            services.insert_events(rows)  # the journal of a worker that died is read twice

    def adjust(self) -> None:
        if not self.events:
            return
        event_id, at, event = self.random.choice(self.events)
        delta, priced = self.random.randrange(-(10**9), 10**9), 0
        if event_id in self.unpriced and self.random.random() < 0.7:
            priced = 1
            self.unpriced.remove(event_id)
        dimensions = {name: event[name] for name in ("key_id", "user_id", "team_id", "model", "provider", "status")}
        Adjustment.objects.create(
            id=UUID(services.new_event_id(to_unix_us(at))),
            event_id=UUID(event_id), at=at, delta_nano_usd=delta, priced_calls=priced, **dimensions,
        )  # fmt: skip
        services.mark_hours([rollups.floor_hour(at)])
        self._count(at, event, cost_nano_usd=delta, unpriced_calls=-priced)

    def _count_event(self, event_id: str, at: datetime, event: dict[str, Any]) -> None:
        cost = event["cost_nano_usd"]
        if cost is None:
            self.unpriced.add(event_id)
        sums = {name: event[name] for name in ("prompt_tokens", "completion_tokens", "latency_us")}
        self._count(at, event, calls=1, unpriced_calls=int(cost is None), cost_nano_usd=cost or 0, **sums)
        self._count(at, event, **{f"latency {histogram.bucket(event['latency_us'])}": 1})
        if event["first_byte_us"] is not None:
            self._count(at, event, **{f"first byte {histogram.bucket(event['first_byte_us'])}": 1})

    def _count(self, at: datetime, event: dict[str, Any], **sums: int) -> None:
        group = tuple(OUTCOMES[event["status"]] if name == "outcome" else event[name] for name in DIMENSIONS)
        for name, value in sums.items():
            self.hours[rollups.floor_hour(at), group, name] += value

    def days(self) -> Counter[Any]:
        days: Counter[Any] = Counter()
        for (hour, group, name), value in self.hours.items():
            days[rollups.floor_day(hour), group, name] += value
        return days


def written(grain: str) -> Counter[Any]:
    """The same from the rollups."""
    sums: Counter[Any] = Counter()
    for rollup in Rollup.objects.filter(grain=grain):
        group = tuple(getattr(rollup, name) for name in DIMENSIONS)
        for name in aggregation.SUMS:
            sums[rollup.start, group, name] += getattr(rollup, name)
        for index, calls in enumerate(rollup.latency_histogram):
            sums[rollup.start, group, f"latency {index}"] += calls
        for index, calls in enumerate(rollup.first_byte_histogram):
            sums[rollup.start, group, f"first byte {index}"] += calls
    return sums


def by(dimension: int, sums: Counter[Any]) -> Counter[Any]:
    added: Counter[Any] = Counter()
    for (_, group, name), value in sums.items():
        added[group[dimension], name] += value
    return added


def not_zero(sums: Counter[Any]) -> dict[Any, int]:
    return {key: value for key, value in sums.items() if value}


class Crash(BaseException):
    """kill -9, as near as one process can get to it."""


@contextmanager
def crashing(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """The `after`th writing of rollups is the last thing that this process does."""
    left = [after]

    def dying(work: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return work(*arguments, **options)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(aggregation, "add_up", dying(aggregation.add_up))
        patch.setattr(type(Rollup.objects.all()), "bulk_create", dying(type(Rollup.objects.all()).bulk_create))
        patch.setattr(type(Rollup.objects.all()), "delete", dying(type(Rollup.objects.all()).delete))
        with suppress(Crash):
            yield


@pytest.mark.parametrize("seed", range(3), ids=str)
def test_hours_and_days_equal_the_events_whatever_happened_to_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(seed)
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(retention, "HOURS_KEPT_AT_LEAST", DAY)
    money = MoneySettings.objects.create()

    def prune() -> None:
        money.events_kept_days = history.random.choice([None, 3, 4, 5])
        money.rollups_kept_days = history.random.choice([None, None, 4, 5])
        money.save()
        retention.prune()

    def roll_up_again() -> None:
        start, end = sorted([history.moment(), history.moment()])
        rollups.roll_up_again(start, end + HOUR)

    def lose_marks() -> None:
        """A restore without them; the command is what one is told to run then."""
        DirtyHour.objects.all().delete()
        rollups.roll_up_again(DAYS[0] - DAY, DAYS[-1] + DAY)

    steps = [
        history.insert, history.insert, history.insert, history.adjust, history.adjust, roll_up_again, prune,
        lose_marks, lambda: rollups.roll_up(1), lambda: rollups.roll_up(3), rollups.roll_up_all,
    ]  # fmt: skip
    for _ in range(20):
        step = history.random.choice(steps)
        if step in steps[:5] or history.random.random() < 0.6:
            step()
        else:
            with crashing(monkeypatch, after=history.random.randrange(8)):
                step()
        for grain in ("hour", "day"):
            assert subtotals(grain) == added_up(grain), (step, grain)
    rollups.roll_up_again(DAYS[0] - DAY, DAYS[-1] + DAY)

    assert not [hour for hour in DirtyHour.objects.all() if hour.marks != hour.rolled_up]
    assert not_zero(written("day")) == not_zero(history.days())
    gone = set(DirtyDay.objects.filter(hours_deleted=True).values_list("day", flat=True))
    kept = Counter({key: value for key, value in history.hours.items() if rollups.floor_day(key[0]) not in gone})
    assert not_zero(written("hour")) == not_zero(kept)
    for dimension in range(len(DIMENSIONS)):
        assert not_zero(by(dimension, written("day"))) == not_zero(by(dimension, history.hours))
