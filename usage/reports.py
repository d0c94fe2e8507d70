"""Sums over any time, filtered and grouped: what the dashboard shows. From sums by hour and day only: the time it takes
depends on how many keys, models and days there are, not on how many calls.

Where one dimension is enough, as when nothing is filtered, from subtotals; else from rollups, which have all dimensions
and are many more. The database adds up the figures. Latency histograms are added up here, so only so many of them are
read: the busiest first. `Latencies.calls` says how many calls that covers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple, Protocol

import orjson
from django.db.models import Case, F, IntegerField, Q, QuerySet, Sum, TextField, Value, When
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Cast
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from usage import forecast, histogram, subtotals
from usage.forecast import Forecast
from usage.models import Rollup, Subtotal

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
Measure = Literal["spend", "tokens", "calls", "failed", "refused"]

COLUMNS: dict[str, str] = {
    "team": "team_id", "user": "user_id", "key": "key_id", "model": "model", "provider": "provider", "time": "start"
}  # fmt: skip
OF_ROWS = subtotals.OF_ROWS
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
    def answered(self) -> int:
        return self.calls - self.errors - self.abandoned

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

    @property
    def grain(self) -> Rollup.Grain:
        return Rollup.Grain.HOUR if self.by_hour else Rollup.Grain.DAY

    @property
    def within(self) -> dict[str, datetime]:
        """Of hours or days: those selected."""
        return {"start__gte": self.start, "start__lt": self.end}

    @property
    def whole(self) -> _Member | None:
        """Whose subtotals are those of all calls selected; None where several filters have left these."""
        return _member(self.filters)

    @property
    def member(self) -> _Member | None:
        """The same, where no other dimension is asked for; None where one is."""
        whole = self.whole
        return whole if not self.filters or (whole and self.group in ("time", whole.dimension)) else None


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
    """Five queries at most; three or four without filters."""
    source: _Source = _OfSubtotals(selection, selection.member) if selection.member else _OfRollups(selection)
    by_time = selection.group == "time"
    ranked = [] if by_time else source.ranked(rows + 1)
    more = len(ranked) > rows
    ranked = ranked[:rows]
    points = source.points([group for group, _ in ranked[:CHARTED]])
    total = _sum(sums for point in points.values() for sums in point)
    if by_time:
        ranked = [(start, _sum(points[start])) for start in reversed(selection.starts)]
        ranked = [(start, sums) for start, sums in ranked if sums.calls or sums.cost_nano_usd]
    groups = [group for group, _ in ranked]
    latencies, whole = source.latencies(groups)
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
    member = _member(filters)
    days: QuerySet[Any] = member.subtotals(Rollup.Grain.DAY) if member else _filtered(filters, Rollup.Grain.DAY)
    days = days.filter(start__gte=first, start__lt=first + LONGEST).order_by()
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


# --- where it is read from ------------------------------------------------------------------------------------------
class _Member(NamedTuple):
    """One team, user, key, model or provider, or all calls, as subtotals have them."""

    dimension: str
    member: str

    def subtotals(self, grain: Rollup.Grain) -> QuerySet[Subtotal]:
        return subtotals.of(self.dimension, grain).filter(member=self.member)


def _member(filters: Mapping[str, int | str]) -> _Member | None:
    """That these filters leave; None where there are several."""
    if not filters:
        return _Member(Subtotal.Dimension.ALL, "")
    (dimension, value), *more = filters.items()
    return None if more else _Member(dimension, subtotals.member(value))


class _Source(Protocol):
    """To be asked in this order."""

    def ranked(self, rows: int) -> list[tuple[Any, Sums]]:
        """The groups that used the most by the selection's measure."""

    def points(self, charted: Sequence[Any]) -> dict[datetime, list[Sums]]:
        """For each start, quiet ones too: the sums of the charted groups, in their order, and of everybody else."""

    def latencies(self, groups: Sequence[Any]) -> tuple[dict[Any, Latencies], Latencies]:
        """Of these groups, and of all calls."""


def _ordered(selection: Selection, found: QuerySet[Any, Any], group: Any) -> QuerySet[Any, Any]:
    return found.order_by(_MEASURED[selection.measure].desc(), F("sum_calls").desc(), group.asc())


_MEASURED: dict[Measure, F | CombinedExpression] = {
    "spend": F("sum_cost_nano_usd"),
    "calls": F("sum_calls"),
    "tokens": F("sum_prompt_tokens") + F("sum_completion_tokens"),
    "failed": F("sum_failed"),
    "refused": F("sum_refused"),
}


def _sums(row: Mapping[str, Any]) -> Sums:
    # The sum of bigints is a numeric on PostgreSQL.
    return Sums(**{name: int(row[f"sum_{name}"]) for name in _NAMES})


def _sum(parts: Iterable[Sums]) -> Sums:
    total = Sums()
    for part in parts:
        total.add(part)
    return total


def _added(parts: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Latencies:
    """Pairs of histograms, bucket by bucket."""
    parts = [(histogram.empty(), histogram.empty()), *parts]
    total, first_byte = zip(*parts, strict=True)
    return Latencies([*map(sum, zip(*total, strict=True))], [*map(sum, zip(*first_byte, strict=True))])


# --- subtotals ------------------------------------------------------------------------------------------------------
class _OfSubtotals:
    """Of all calls selected, those of `whole`, there is a row for each start."""

    def __init__(self, selection: Selection, whole: _Member) -> None:
        self.selection, self.whole = selection, whole
        self._latencies: dict[datetime, Latencies] = {}

    def ranked(self, rows: int) -> list[tuple[Any, Sums]]:
        dimension = self.selection.group
        members = self._rows(Q(dimension=dimension))
        if self.whole.dimension == dimension:
            members = members.filter(member=self.whole.member)
        plain = {f"sum_{name}": Sum(name) for name in _NAMES}
        found = members.values("member").annotate(**plain)
        most = _ordered(self.selection, found, subtotals.group_expression(dimension))
        return [(subtotals.group(dimension, row["member"]), _sums(row)) for row in most[:rows]]

    def points(self, charted: Sequence[Any]) -> dict[datetime, list[Sums]]:
        places = {subtotals.member(group): place for place, group in enumerate(charted)}
        points = {start: [Sums() for _ in range(len(charted) + 1)] for start in self.selection.starts}
        chosen = Q(dimension=self.whole.dimension, member=self.whole.member)
        if places:
            chosen |= Q(dimension=self.selection.group, member__in=list(places))
        rows = self._rows(chosen).values_list("start", "dimension", "member", *subtotals.HISTOGRAMS, *_NAMES)
        for start, dimension, member, total, first_byte, *figures in rows:
            at, sums = start.astimezone(UTC), Sums(*figures)
            if (dimension, member) == self.whole:
                points[at][-1].add(sums)
                self._latencies[at] = Latencies(orjson.loads(total), orjson.loads(first_byte))
            if dimension == self.selection.group and member in places:
                points[at][places[member]] = sums
                points[at][-1].add(sums, -1)
        return points

    def latencies(self, groups: Sequence[Any]) -> tuple[dict[Any, Latencies], Latencies]:
        whole = _added((each.total, each.first_byte) for each in self._latencies.values())
        if self.selection.group == "time":
            return self._latencies, whole
        dimension = self.selection.group
        members = [subtotals.member(group) for group in groups]
        busiest = self._rows(Q(dimension=dimension, member__in=members)).order_by("-calls", "-start", "member")
        parts: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        for member, *texts in busiest.values_list("member", *subtotals.HISTOGRAMS)[:MAX_HISTOGRAMS]:
            parts[member].append((orjson.loads(texts[0]), orjson.loads(texts[1])))
        return {subtotals.group(dimension, member): _added(some) for member, some in parts.items()}, whole

    def _rows(self, chosen: Q) -> QuerySet[Subtotal]:
        """Of the time."""
        return Subtotal.objects.filter(chosen, grain=self.selection.grain, **self.selection.within)


# --- rollups --------------------------------------------------------------------------------------------------------
class _OfRollups:
    """Where filters leave one member, what it used in all, at each start, comes from its subtotals: rollups are asked
    for the ranking, and after that for the groups that it has chosen alone."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.column = COLUMNS[selection.group]
        self._latencies: Latencies | None = None  # of all calls, where they are known

    def ranked(self, rows: int) -> list[tuple[Any, Sums]]:
        found: QuerySet[Any, Any] = self._rows().values(group=F(self.column)).annotate(**_sums_of())
        return [(row["group"], _sums(row)) for row in _ordered(self.selection, found, F("group"))[:rows]]

    def points(self, charted: Sequence[Any]) -> dict[datetime, list[Sums]]:
        points = {start: [Sums() for _ in range(len(charted) + 1)] for start in self.selection.starts}
        rows = self._rows()
        if self.selection.whole:
            self._add_whole(points, self.selection.whole)
            rows = rows.filter(self._one_of(charted))
        whens = [When(self._one_of([group]), then=Value(index)) for index, group in enumerate(charted)]
        place = Case(*whens, default=Value(len(charted)), output_field=IntegerField())
        for row in rows.values("start", place=place).annotate(**_sums_of()).order_by():
            point, sums = points[row["start"].astimezone(UTC)], _sums(row)
            point[row["place"]].add(sums)
            if self.selection.whole:
                point[-1].add(sums, -1)
        return points

    def _add_whole(self, points: dict[datetime, list[Sums]], whole: _Member) -> None:
        parts = []
        rows = whole.subtotals(self.selection.grain).filter(**self.selection.within)
        for start, total, first_byte, *figures in rows.values_list("start", *subtotals.HISTOGRAMS, *_NAMES):
            points[start.astimezone(UTC)][-1].add(Sums(*figures))
            parts.append((orjson.loads(total), orjson.loads(first_byte)))
        self._latencies = _added(parts)

    def latencies(self, groups: Sequence[Any]) -> tuple[dict[Any, Latencies], Latencies]:
        answered = self._rows().filter(outcome=Rollup.Outcome.OK)
        if self._latencies:
            answered = answered.filter(self._one_of(groups))
        # Chosen by id first: else the database sorts all of them with their histograms. And as text: the ORM takes
        # several times as long over JSON as over all the rest of the page.
        busiest = answered.order_by("-calls", "-pk").values("pk")
        texts = {"total": Cast("latency_histogram", TextField()), "first": Cast("first_byte_histogram", TextField())}
        rows = Rollup.objects.filter(pk__in=busiest[:MAX_HISTOGRAMS]).annotate(**texts)
        parts: dict[Any, list[tuple[Any, Any]]] = defaultdict(list)
        for group, total, first_byte in rows.values_list(self.column, "total", "first"):
            parts[group].append((orjson.loads(total), orjson.loads(first_byte)))
        whole = self._latencies or _added(part for some in parts.values() for part in some)
        return {group: _added(parts[group]) for group in groups if group in parts}, whole

    def _one_of(self, groups: Sequence[Any]) -> Q:
        named = Q(**{f"{self.column}__in": [group for group in groups if group is not None]})
        return named | Q(**{f"{self.column}__isnull": True}) if None in groups else named

    def _rows(self) -> QuerySet[Rollup]:
        return _filtered(self.selection.filters, self.selection.grain).filter(**self.selection.within)


def _filtered(filters: Mapping[str, int | str], grain: Rollup.Grain) -> QuerySet[Rollup]:
    rollups = Rollup.objects.filter(grain=grain)
    for dimension, value in filters.items():
        nobody = dimension in OF_ROWS and value == NOBODY
        rollups = rollups.filter(**{COLUMNS[dimension]: None if nobody else value})
    return rollups


def _sums_of() -> dict[str, Sum]:
    """Under other names than the columns': a later sum would take the earlier one for its column."""
    outcomes = {f"sum_{name}": Sum("calls", filter=Q(outcome=name), default=0) for name in _OUTCOMES}
    plain = {f"sum_{name}": Sum(name) for name in _PLAIN}
    return {**plain, **outcomes}
