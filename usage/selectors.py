"""What dashboards show. Read from rollups and subtotals only, in one query each, however many events there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import orjson
from django.db.models import CharField, OuterRef, Subquery, Sum, Value
from django.db.models.functions import Concat
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from usage import histogram, subtotals
from usage.models import Rollup

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

Dimension = Literal["key", "user", "team", "model", "provider"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls of a period that begins at `start`. Latencies in microseconds, of answered calls only: a refusal takes no
    time and a timeout all of it. None: nothing was answered."""

    start: datetime
    calls: int
    refused: int  # the caller's fault: 4xx
    failed: int  # ours or the provider's: 5xx, or the gateway died
    abandoned: int  # the client left
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: int
    unpriced_calls: int
    p50_us: int | None
    p95_us: int | None
    first_byte_p50_us: int | None
    first_byte_p95_us: int | None

    @property
    def errors(self) -> int:
        return self.refused + self.failed


@dataclass(frozen=True, slots=True)
class Period:
    """`points`: one per minute or hour, oldest first, quiet ones included, the last one still running."""

    points: tuple[Traffic, ...]
    total: Traffic


@dataclass(frozen=True, slots=True)
class Share:
    """What one key, user, team, model or provider used. `id`: None for models and providers, and for calls without."""

    id: int | None
    name: str
    calls: int
    refused: int
    failed: int
    abandoned: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: int
    unpriced_calls: int

    @property
    def errors(self) -> int:
        return self.refused + self.failed


def last_hour() -> Period:
    """Sixty minutes, this one included."""
    now = timezone.now().replace(second=0, microsecond=0)
    start = now - 59 * MINUTE
    minutes = Rollup.objects.filter(grain=Rollup.Grain.MINUTE, start__gte=start)
    points = [_Sum() for _ in range(60)]
    for row in minutes.values("start", "outcome", *_SUMS, *subtotals.HISTOGRAMS):
        index = (row["start"] - start) // MINUTE
        if index < len(points):  # an event may bear a time of the near future: clocks differ
            points[index].add_minute(row)
    return _period(start, MINUTE, points)


def last_day() -> Period:
    """Twenty-four hours, this one included."""
    start = timezone.now().replace(minute=0, second=0, microsecond=0) - 23 * HOUR
    hours = subtotals.of("all", Rollup.Grain.HOUR).filter(start__gte=start)
    points = [_Sum() for _ in range(24)]
    for row in hours.values("start", *_SUMS, *_OUTCOMES, *subtotals.HISTOGRAMS):
        index = (row["start"] - start) // HOUR
        if index < len(points):
            points[index].add_hour(row)
    return _period(start, HOUR, points)


def top(dimension: Dimension, since: datetime, limit: int = 10) -> list[Share]:
    """Who used the most since the hour of `since`: by cost, then by calls."""
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    group = subtotals.group_expression(dimension)
    rows: Iterable[Mapping[str, Any]] = (
        subtotals.of(dimension, Rollup.Grain.HOUR)
        .filter(start__gte=hour)
        .values(group=group)
        .annotate(**{name: Sum(name) for name in (*_SUMS, *_OUTCOMES)})
        .annotate(**_name_of(dimension))
        .order_by("-cost_nano_usd", "-calls", "group")[:limit]
    )
    return [_share(dimension, dict(row)) for row in rows]


_SUMS = subtotals.PLAIN
_OUTCOMES = subtotals.OUTCOMES


def _name_of(dimension: Dimension) -> dict[str, Subquery]:
    if dimension == "key":
        label = Concat("name", Value(" ("), "public_id", Value(")"), output_field=CharField())
        return {"name": Subquery(ApiKey.objects.filter(pk=OuterRef("group")).values(label=label))}
    if dimension == "user":
        return {"name": Subquery(User.objects.filter(pk=OuterRef("group")).values("username"))}
    if dimension == "team":
        return {"name": Subquery(Team.objects.filter(pk=OuterRef("group")).values("name"))}
    return {}


def _share(dimension: Dimension, row: dict[str, Any]) -> Share:
    group = row.pop("group")
    if dimension in ("model", "provider"):
        return Share(id=None, name=group or f"(no {dimension})", **row)
    name = row.pop("name")
    if not name:
        name = f"(no {dimension})" if group is None else f"(deleted {dimension} {group})"
    return Share(id=group, name=name, **row)


@dataclass(slots=True)
class _Sum:
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*_SUMS, *_OUTCOMES), 0))
    latency: list[int] = field(default_factory=histogram.empty)
    first_byte: list[int] = field(default_factory=histogram.empty)

    def add_minute(self, row: Mapping[str, Any]) -> None:
        """A rollup: one of each outcome."""
        for name in _SUMS:
            self.counts[name] += row[name]
        if row["outcome"] == Rollup.Outcome.OK:
            histogram.add(self.latency, row["latency_histogram"])
            histogram.add(self.first_byte, row["first_byte_histogram"])
        else:
            self.counts[row["outcome"]] += row["calls"]

    def add_hour(self, row: Mapping[str, Any]) -> None:
        """A subtotal: of all outcomes."""
        for name in self.counts:
            self.counts[name] += row[name]
        histogram.add(self.latency, orjson.loads(row["latency_histogram"]))
        histogram.add(self.first_byte, orjson.loads(row["first_byte_histogram"]))

    def add(self, other: _Sum) -> None:
        for name, count in other.counts.items():
            self.counts[name] += count
        histogram.add(self.latency, other.latency)
        histogram.add(self.first_byte, other.first_byte)

    def traffic(self, start: datetime) -> Traffic:
        return Traffic(
            start=start,
            **self.counts,
            p50_us=histogram.percentile(self.latency, 0.5),
            p95_us=histogram.percentile(self.latency, 0.95),
            first_byte_p50_us=histogram.percentile(self.first_byte, 0.5),
            first_byte_p95_us=histogram.percentile(self.first_byte, 0.95),
        )


def _period(start: datetime, step: timedelta, points: list[_Sum]) -> Period:
    total = _Sum()
    for point in points:
        total.add(point)
    return Period(
        tuple(point.traffic(start + index * step) for index, point in enumerate(points)), total.traffic(start)
    )
