"""Who pays for a month: calls, tokens and cost by cost centre and team, and by person, key or model within them.

From sums by day. Calls without a team, and teams without a cost centre, have lines of their own, so that the lines
add up to the sum of the month's events and adjustments, to the nano-USD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from operator import add, attrgetter
from typing import Any, Literal

from django.db.models import F, QuerySet, Sum
from django.utils import timezone

from accounts.models import Team
from usage import currency, subtotals
from usage.currency import Currency
from usage.models import DirtyDay, DirtyHour, Rollup
from usage.reports import OF_ROWS, names_of

Breakdown = Literal["", "user", "key", "model"]
BREAKDOWNS: dict[Breakdown, str] = {"": "Teams only", "user": "Users", "key": "API keys", "model": "Models"}
NO_COST_CENTER = "(no cost centre)"
_YEARS = range(2000, 2200)


class BadMonth(ValueError):
    """The message is for whoever asked."""


@dataclass(frozen=True, slots=True)
class Used:
    calls: int = 0
    unpriced_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(*map(add, _figures(self), _figures(other)))


_SUMS = tuple(column.name for column in fields(Used))
_figures = attrgetter(*_SUMS)


@dataclass(frozen=True, slots=True)
class Line:
    """`cost_center` as the team has it today, "" for none. `team_id` None: calls without a team. `part_id` and `part`:
    of the user or key, the name alone of a model; None and "" without a breakdown."""

    cost_center: str
    team_id: int | None
    team: str
    part_id: int | None
    part: str
    used: Used


@dataclass(frozen=True, slots=True)
class Chargeback:
    """`unfinished`: hours and days with calls or adjustments that are not in the sums yet."""

    month: date
    breakdown: Breakdown
    lines: list[Line]
    total: Used
    unfinished: int


def chargeback(month: date, breakdown: Breakdown = "") -> Chargeback:
    """Of the calendar month (UTC) that begins at `month`. Five queries at most."""
    start, end = bounds(month)
    used = _used(start, end, breakdown)
    teams = {pk: (name, center) for pk, name, center in _teams({team for team, _ in used})}
    parts = names_of(breakdown, {part for _, part in used}) if breakdown else {}
    lines = sorted((_line(*place, sums, breakdown, teams, parts) for place, sums in used.items()), key=_order)
    return Chargeback(month, breakdown, lines, total_of(lines), _unfinished(start, end))


def total_of(lines: Iterable[Line]) -> Used:
    return Used(*map(sum, zip(*(_figures(line.used) for line in lines), strict=True)))


def parse_month(text: str) -> date:
    """2026-11 -> 1 November 2026. Raises BadMonth."""
    found = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if not found or int(found[1]) not in _YEARS:
        raise BadMonth("Give a month as year and number, such as 2026-11.")
    return date(int(found[1]), int(found[2]), 1)


def this_month() -> date:
    return timezone.now().astimezone(UTC).date().replace(day=1)


def months(most: int = 60) -> list[date]:
    """Those that have usage, and this one; the newest first."""
    first = Rollup.objects.filter(grain=Rollup.Grain.DAY).order_by("start").values_list("start", flat=True).first()
    month = this_month()
    oldest = first.astimezone(UTC).date().replace(day=1) if first else month
    found = [month]
    while month > oldest and len(found) < most:
        month = (month - timedelta(days=1)).replace(day=1)
        found.append(month)
    return found


def bounds(month: date) -> tuple[datetime, datetime]:
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    return start, (start + timedelta(days=31)).replace(day=1)


# --- as a table -----------------------------------------------------------------------------------------------------
def header(found: Chargeback, shown_in: Currency) -> list[str]:
    part = {"": [], "model": ["model"]}.get(found.breakdown, [f"{found.breakdown}_id", found.breakdown])
    amounts = ["cost_usd"] if shown_in.is_usd else ["cost_usd", f"cost_{shown_in.code.lower()}"]
    return ["month", "cost_center", "team_id", "team", *part, *_SUMS[:-1], *amounts]


def table(found: Chargeback, shown_in: Currency) -> Iterator[list[Any]]:
    """Rows for a file, in the order of `header`. Costs are Decimals and exact; there is no line with the total, so that
    whoever adds them up counts nothing twice."""
    for line in found.lines:
        part = {"": [], "model": [line.part]}.get(found.breakdown, [line.part_id, line.part])
        yield [
            *(f"{found.month:%Y-%m}", line.cost_center, line.team_id, line.team, *part),
            *(getattr(line.used, name) for name in _SUMS[:-1]),
            *amounts(line.used, shown_in),
        ]


def amounts(used: Used, shown_in: Currency) -> list[Any]:
    """The cost in US dollars, and in the currency for display if that is another one."""
    shown = [currency.USD] if shown_in.is_usd else [currency.USD, shown_in]
    return [each.amount(used.cost_nano_usd) for each in shown]


# --- inside ---------------------------------------------------------------------------------------------------------
def _used(start: datetime, end: datetime, breakdown: Breakdown) -> dict[tuple[int | None, Any], Used]:
    """By team and part (None without a breakdown). Who a team, user or key is, subtotals tell; not on which model."""
    within = {"start__gte": start, "start__lt": end}
    if breakdown == "model":
        rollups = Rollup.objects.filter(grain=Rollup.Grain.DAY, **within)
        return {(team, model): used for team, model, used in _summed(rollups, "team_id", "model")}
    dimension = subtotals.OWNER if breakdown else "team"
    found: dict[tuple[int | None, Any], Used] = {}
    for member, used in _summed(subtotals.of(dimension, Rollup.Grain.DAY).filter(**within), "member"):
        owner = subtotals.owner(member) if breakdown else {"team": subtotals.group("team", member)}
        place = owner["team"], owner[breakdown] if breakdown else None
        found[place] = found[place] + used if place in found else used
    return found


def _summed(days: QuerySet[Any], *columns: str) -> Iterator[tuple[Any, ...]]:
    """Rows of the columns and what was used."""
    rows = days.order_by().values_list(*columns).annotate(*(Sum(name) for name in _SUMS))
    for row in rows:
        # The sum of bigints is a numeric on PostgreSQL.
        yield *row[: len(columns)], Used(*map(int, row[len(columns) :]))


def _teams(ids: set[int | None]) -> Any:
    return Team.objects.filter(pk__in=[pk for pk in ids if pk]).values_list("pk", "name", "cost_center")


def _line(
    team_id: int | None,
    part: Any,
    used: Used,
    breakdown: Breakdown,
    teams: dict[int, tuple[str, str]],
    parts: dict[Any, str],
) -> Line:
    gone = "(no team)" if team_id is None else f"(deleted team {team_id})"
    team, cost_center = teams.get(team_id or 0, (gone, ""))
    return Line(
        cost_center=cost_center,
        team_id=team_id,
        team=team,
        part_id=part if breakdown in OF_ROWS else None,
        part=parts[part] if breakdown else "",
        used=used,
    )


def _order(line: Line) -> tuple[Any, ...]:
    """By cost centre, those without one last; within it by team, and there by cost."""
    nobody = line.team_id is None
    return (not line.cost_center, line.cost_center, nobody, line.team, line.team_id or 0, -line.used.cost_nano_usd,
            line.part, line.part_id or 0)  # fmt: skip


def _unfinished(start: datetime, end: datetime) -> int:
    """Hours and days whose sums are out of date."""
    dirty = {"marks__gt": F("rolled_up")}
    hours = DirtyHour.objects.filter(hour__gte=start, hour__lt=end, **dirty).count()
    return hours + DirtyDay.objects.filter(day__gte=start, day__lt=end, **dirty).count()
