"""Sums over any time, filtered and grouped: what the dashboard shows. From rollups only: the time it takes depends on
how many keys, models and days there are, not on how many calls.

The database adds up the figures. Latency histograms are added up here, so only so many of them are read: the busiest
rollups first. `Latencies.calls` says how many calls that covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from operator import add
from typing import Any, Literal

import orjson
from django.db.models import Case, F, IntegerField, Q, QuerySet, Sum, TextField, Value, When
from django.db.models.functions import Cast
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from usage import forecast, histogram
from usage.forecast import Forecast
from usage.models import Rollup

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# Up to here by hour, beyond by day.
LONGEST_BY_HOUR = 3 * DAY
LONGEST = 366 * DAY
CHARTED = 5
ROWS = 50
MAX_HISTOGRAMS = 2_000

Dimension = Literal["team", "user", "key", "model", "provider"]
Group = Literal["team", "user", "key", "model", "provider", "time"]
Measure = Literal["spend", "tokens", "calls", "errors"]

COLUMNS: dict[str, str] = {
    "team": "team_id", "user": "user_id", "key": "key_id", "model": "model", "provider": "provider", "time": "start"
}  # fmt: skip
OF_ROWS = ("team", "user", "key")  # the others are known by their name
# In a filter: calls that belong to no team, user or key. No row has this id.
NOBODY = 0


@dataclass(slots=True)
class Sums:
    """`refused`: the caller's fault, 4xx. `failed`: ours or the provider's. `abandoned`: the client left."""

    calls: int = 0
    refused: int = 0
    failed: int = 0
    abandoned: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0
    unpriced_calls: int = 0

    def add(self, other: Sums, sign: int = 1) -> None:
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))

    @property
    def errors(self) -> int:
        return self.refused + self.failed

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def measured(self, measure: Measure) -> int:
        return self.cost_nano_usd if measure == "spend" else int(getattr(self, measure))


_NAMES = tuple(column.name for column in fields(Sums))
_OUTCOMES = ("refused", "failed", "abandoned")
_PLAIN = tuple(name for name in _NAMES if name not in _OUTCOMES)


@dataclass(slots=True)
class Latencies:
    """Of answered calls, `calls` of them: a refusal takes no time and a timeout all of it."""

    total: list[int] = field(default_factory=histogram.empty)
    first_byte: list[int] = field(default_factory=histogram.empty)

    def add(self, total: Sequence[int], first_byte: Sequence[int]) -> None:
        self.total = list(map(add, self.total, total))
        self.first_byte = list(map(add, self.first_byte, first_byte))

    @property
    def calls(self) -> int:
        return sum(self.total)

    def percentile_us(self, q: float) -> int | None:
        return histogram.percentile(self.total, q)

    def first_byte_us(self, q: float) -> int | None:
        return histogram.percentile(self.first_byte, q)


@dataclass(frozen=True, slots=True)
class Selection:
    """`start` and `end` (exclusive) are whole hours, beyond three days whole days (UTC). `filters`: dimension -> id or
    name; NOBODY: calls without one."""

    start: datetime
    end: datetime
    filters: Mapping[str, int | str]
    group: Group
    measure: Measure = "spend"

    @property
    def by_hour(self) -> bool:
        return self.end - self.start <= LONGEST_BY_HOUR

    @property
    def step(self) -> timedelta:
        return HOUR if self.by_hour else DAY

    @property
    def starts(self) -> list[datetime]:
        return [self.start + index * self.step for index in range((self.end - self.start) // self.step)]

    def rollups(self) -> QuerySet[Rollup]:
        grain = Rollup.Grain.HOUR if self.by_hour else Rollup.Grain.DAY
        return _filtered(self.filters).filter(grain=grain, start__gte=self.start, start__lt=self.end)


@dataclass(frozen=True, slots=True)
class Line:
    """One team, user, key, model, provider, hour or day. `group`: its id, name or start; None: calls without one."""

    group: Any
    name: str
    sums: Sums
    latencies: Latencies


@dataclass(frozen=True, slots=True)
class Report:
    """`lines`: those that used the most by `measure`, times in their order; `others`: what the rest used, if there are
    more. `charted`: the names of the first few lines, and for each start of `selection.starts` their sums in that
    order, at last those of everybody else."""

    selection: Selection
    total: Sums
    latencies: Latencies
    lines: list[Line]
    others: Sums | None
    charted: list[str]
    points: list[list[Sums]]


def report(selection: Selection, rows: int = ROWS) -> Report:
    """Four queries, three without groups to name."""
    by_time = selection.group == "time"
    ranked = [] if by_time else _ranked(selection, rows + 1)
    more = len(ranked) > rows
    ranked = ranked[:rows]
    points = _points(selection, [group for group, _ in ranked[:CHARTED]])
    total = _sum(sums for point in points.values() for sums in point)
    if by_time:
        ranked = [(start, _sum(points[start])) for start in reversed(selection.starts)]
        ranked = [(start, sums) for start, sums in ranked if sums.calls or sums.cost_nano_usd]
    groups = [group for group, _ in ranked]
    latencies, whole = _latencies(selection, set(groups))
    names = {} if by_time else names_of(selection.group, groups)
    lines = [Line(group, names.get(group, ""), sums, latencies.get(group, Latencies())) for group, sums in ranked]
    others = _sum([total])
    for line in lines:
        others.add(line.sums, -1)
    charted = [] if by_time else [line.name for line in lines[:CHARTED]]
    return Report(selection, total, whole, lines, others if more else None, charted, list(points.values()))


def spend_forecast(filters: Mapping[str, int | str]) -> Forecast | None:
    """Of this month, by its days so far (one query)."""
    today = timezone.now().astimezone(UTC).date()
    first = datetime(today.year, today.month, 1, tzinfo=UTC)
    days = _filtered(filters).filter(grain=Rollup.Grain.DAY, start__gte=first, start__lt=first + LONGEST)
    spent: dict[date, int] = {}
    for start, cost in days.values_list("start").annotate(Sum("cost_nano_usd")):
        spent[start.astimezone(UTC).date()] = int(cost)
    return forecast.month_end(spent, today)


def names_of(dimension: str, groups: Iterable[Any]) -> dict[Any, str]:
    """What people call these: one query for teams, users and keys, none for models and providers."""
    groups = list(groups)
    if dimension not in OF_ROWS:
        return {group: group or f"(no {dimension})" for group in groups}
    found: dict[Any, str] = dict(_NAMED[dimension](pk__in=[group for group in groups if group]))
    return {group: found.get(group) or _unnamed(dimension, group) for group in groups}


def _unnamed(dimension: str, group: int | None) -> str:
    return f"(deleted {dimension} {group})" if group else f"(no {dimension})"


_NAMED: dict[str, Any] = {
    "team": lambda **which: Team.objects.filter(**which).values_list("pk", "name"),
    "user": lambda **which: User.objects.filter(**which).values_list("pk", "username"),
    "key": lambda **which: (
        (pk, f"{name} ({public_id})")
        for pk, name, public_id in ApiKey.objects.filter(**which).values_list("pk", "name", "public_id")
    ),
}


# --- queries --------------------------------------------------------------------------------------------------------
def _filtered(filters: Mapping[str, int | str]) -> QuerySet[Rollup]:
    rollups = Rollup.objects.all()
    for dimension, value in filters.items():
        nobody = dimension in OF_ROWS and value == NOBODY
        rollups = rollups.filter(**{COLUMNS[dimension]: None if nobody else value})
    return rollups


def _sums_of() -> dict[str, Sum]:
    """Under other names than the columns': a later sum would take the earlier one for its column."""
    outcomes = {f"sum_{name}": Sum("calls", filter=Q(outcome=name), default=0) for name in _OUTCOMES}
    errors = Sum("calls", filter=Q(outcome__in=("refused", "failed")), default=0)
    tokens = Sum(F("prompt_tokens") + F("completion_tokens"))
    plain = {f"sum_{name}": Sum(name) for name in _PLAIN}
    return {**plain, **outcomes, "sum_tokens": tokens, "sum_errors": errors}


_MEASURED: dict[Measure, str] = {
    "spend": "sum_cost_nano_usd",
    "calls": "sum_calls",
    "tokens": "sum_tokens",
    "errors": "sum_errors",
}


def _sums(row: Mapping[str, Any]) -> Sums:
    # The sum of bigints is a numeric on PostgreSQL.
    return Sums(**{name: int(row[f"sum_{name}"]) for name in _NAMES})


def _ranked(selection: Selection, rows: int) -> list[tuple[Any, Sums]]:
    found: QuerySet[Any, Any] = selection.rollups().values(group=F(COLUMNS[selection.group])).annotate(**_sums_of())
    most = found.order_by(F(_MEASURED[selection.measure]).desc(), F("sum_calls").desc(), F("group").asc())
    return [(row["group"], _sums(row)) for row in most[:rows]]


def _points(selection: Selection, charted: Sequence[Any]) -> dict[datetime, list[Sums]]:
    """For each start, quiet ones too: the sums of the charted groups, in their order, and of everybody else."""
    column = COLUMNS[selection.group]
    whens = [
        When(**{column: group} if group is not None else {f"{column}__isnull": True}, then=Value(index))
        for index, group in enumerate(charted)
    ]
    place = Case(*whens, default=Value(len(charted)), output_field=IntegerField())
    points = {start: [Sums() for _ in range(len(charted) + 1)] for start in selection.starts}
    for row in selection.rollups().values("start", place=place).annotate(**_sums_of()).order_by():
        points[row["start"].astimezone(UTC)][row["place"]] = _sums(row)
    return points


def _latencies(selection: Selection, groups: set[Any]) -> tuple[dict[Any, Latencies], Latencies]:
    """By group, for those given, and of all."""
    column = COLUMNS[selection.group]
    # Chosen by id first: else the database sorts all of them with their histograms. And as text: the ORM takes several
    # times as long over JSON as over all the rest of the page.
    busiest = selection.rollups().filter(outcome=Rollup.Outcome.OK).order_by("-calls", "-pk").values("pk")
    texts = {"total": Cast("latency_histogram", TextField()), "first": Cast("first_byte_histogram", TextField())}
    rows = Rollup.objects.filter(pk__in=busiest[:MAX_HISTOGRAMS]).annotate(**texts)
    found: dict[Any, Latencies] = {}
    for group, total, first_byte in rows.values_list(column, "total", "first"):
        found.setdefault(group, Latencies()).add(orjson.loads(total), orjson.loads(first_byte))
    whole = Latencies()
    for part in found.values():
        whole.add(part.total, part.first_byte)
    return {group: part for group, part in found.items() if group in groups}, whole


def _sum(parts: Iterable[Sums]) -> Sums:
    total = Sums()
    for part in parts:
        total.add(part)
    return total
