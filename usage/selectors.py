"""What dashboards show. Read from rollups only, in one query each, however many events there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from django.db.models import CharField, F, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Concat
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from usage import histogram
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
    return _period(MINUTE, 60)


def last_day() -> Period:
    """Twenty-four hours, this one included."""
    return _period(HOUR, 24)


def top(dimension: Dimension, since: datetime, limit: int = 10) -> list[Share]:
    """Who used the most since the hour of `since`: by cost, then by calls."""
    column = dimension if dimension in ("model", "provider") else f"{dimension}_id"
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    rows: Iterable[Mapping[str, Any]] = (
        Rollup.objects.filter(grain=Rollup.Grain.HOUR, start__gte=hour)
        .values(group=F(column))
        # First these: "calls" means the column until it is the name of a sum.
        .annotate(**{name: _calls(name) for name in _OUTCOMES})
        .annotate(**{name: Sum(name) for name in _SUMS})
        .annotate(**_name_of(dimension))
        .order_by("-cost_nano_usd", "-calls", "group")[:limit]
    )
    return [_share(dimension, dict(row)) for row in rows]


_SUMS = ("calls", "prompt_tokens", "completion_tokens", "cost_nano_usd", "unpriced_calls")
_OUTCOMES = ("refused", "failed", "abandoned")


def _calls(outcome: str) -> Sum:
    return Sum("calls", filter=Q(outcome=outcome), default=0)


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
    """Adds up rollups of any outcome."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*_SUMS, *_OUTCOMES), 0))
    latency: list[int] = field(default_factory=histogram.empty)
    first_byte: list[int] = field(default_factory=histogram.empty)

    def add(self, row: Mapping[str, Any]) -> None:
        for name in _SUMS:
            self.counts[name] += row[name]
        if row["outcome"] == Rollup.Outcome.OK:
            histogram.add(self.latency, row["latency_histogram"])
            histogram.add(self.first_byte, row["first_byte_histogram"])
        else:
            self.counts[row["outcome"]] += row["calls"]

    def traffic(self, start: datetime) -> Traffic:
        return Traffic(
            start=start,
            **self.counts,
            p50_us=histogram.percentile(self.latency, 0.5),
            p95_us=histogram.percentile(self.latency, 0.95),
            first_byte_p50_us=histogram.percentile(self.first_byte, 0.5),
            first_byte_p95_us=histogram.percentile(self.first_byte, 0.95),
        )


def _period(step: timedelta, count: int) -> Period:
    """From minute rows, for hours too: they are not split by key and model, so there are few of them."""
    now = timezone.now().replace(second=0, microsecond=0)
    start = (now if step == MINUTE else now.replace(minute=0)) - (count - 1) * step
    points = [_Sum() for _ in range(count)]
    total = _Sum()
    for row in _minutes_since(start):
        index = (row["start"] - start) // step
        if index < count:  # an event may bear a time of the near future: clocks differ
            points[index].add(row)
            total.add(row)
    return Period(
        tuple(point.traffic(start + index * step) for index, point in enumerate(points)), total.traffic(start)
    )


def _minutes_since(start: datetime) -> Iterable[Mapping[str, Any]]:
    rows: Iterable[Mapping[str, Any]] = Rollup.objects.filter(grain=Rollup.Grain.MINUTE, start__gte=start).values(
        "start", "outcome", *_SUMS, "latency_histogram", "first_byte_histogram"
    )
    return rows
