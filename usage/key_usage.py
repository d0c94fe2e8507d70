"""What a key may know of itself: the budgets and limits that hold for it, and what it has used.

It is asked for by apps, as often as they like, so the whole of it is eight queries: all sums of all windows are made in
one pass over the rollups, those of everybody's calls over the subtotals, and one over the events that are not in them
yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.core.cache import cache
from django.db.models import Aggregate, Count, Q, QuerySet, Subquery, Sum
from django.utils import timezone

from accounts.authentication import Principal
from accounts.time_ids import EPOCH, id_range
from usage.models import Adjustment, Budget, Limit, MoneySettings, Rollup, Subtotal, UsageEvent
from usage.rollups import floor_day
from usage.spending import (
    AHEAD,
    COLUMNS,
    HOUR,
    Standing,
    default_zone,
    dirty_and_deleted,
    joined,
    too_old_to_be_kept,
    top_ups_of,
    window_of,
)
from usage.windows import window_at

# A sum over everybody's calls is not made anew because one app asks too often.
INSTALLATION_KEPT_S = 10
SUMMED = ("calls", "prompt_tokens", "completion_tokens", "cost_nano_usd")


class Used(NamedTuple):
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano_usd: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """As the books have it at `as_of`. `today` and `this_month`: of the key alone, in the time zone `zone`."""

    as_of: datetime
    zone: str
    standings: list[Standing]
    limits: list[Limit]
    today: Used
    this_month: Used


def usage_of(principal: Principal, now: datetime | None = None) -> KeyUsage:
    now = now or timezone.now()
    budgets, zone = _budgets_and_zone(principal)
    windows = [window_of(budget, now, zone) for budget in budgets]
    day, month = (window_at(per, zone, now, now).start for per in ("day", "month"))
    wanted = [
        _Wanted(budget.scope, budget.owner_id, budget.model, window.start)
        for budget, window in zip(budgets, windows, strict=True)
    ]
    wanted += [_Wanted("key", principal.key_id, "", start) for start in (day, month)]
    *spent, today, this_month = _all_used(wanted, now + AHEAD)
    top_ups = top_ups_of(budgets, windows) if budgets else []
    standings = [
        Standing(
            budget,
            windows[index],
            spent[index].cost_nano_usd if budget.unit == Budget.Unit.USD else spent[index].tokens,
            max(budget.limit + top_ups[index], 0),
        )
        for index, budget in enumerate(budgets)
    ]
    return KeyUsage(now, zone, standings, _limits(principal), today, this_month)


# --- what holds -----------------------------------------------------------------------------------------------------
def _holds_for(principal: Principal) -> Q:
    own = Q(scope="key", key=principal.key_id) | Q(scope="team", team=principal.team_id)
    if principal.user_id is not None:
        own |= Q(scope="user", user=principal.user_id)
    return own


def _budgets_and_zone(principal: Principal) -> tuple[list[Budget], str]:
    """With the installation's time zone, which comes along with the budgets where there are any."""
    zone = Subquery(MoneySettings.objects.order_by("pk").values("timezone")[:1])
    holds = _holds_for(principal) | Q(scope="installation")
    rows: list[Any] = list(Budget.objects.filter(holds, enabled=True).annotate(zone=zone))
    return rows, (rows[0].zone or "UTC") if rows else default_zone()


def _limits(principal: Principal) -> list[Limit]:
    """Without the installation's: how busy everybody is, is nobody's business."""
    return list(Limit.objects.filter(_holds_for(principal) | Q(scope="client_ip")))


# --- what was used --------------------------------------------------------------------------------------------------
class _Wanted(NamedTuple):
    """Sums of whose calls (`owner`; None: everybody's), of which model ("": every), from when on."""

    scope: str
    owner: int | None
    model: str
    start: datetime

    @property
    def cache_key(self) -> str:
        return f"usage.key_usage.{hashlib.sha256(repr((self.model, self.start)).encode()).hexdigest()}"

    @property
    def of_them(self) -> Q:
        column = COLUMNS.get(self.scope)
        found = Q(**{column: self.owner}) if column else Q()
        return found & Q(model=self.model) if self.model else found

    @property
    def of_subtotals(self) -> Q:
        """The same of everybody's calls."""
        return Q(dimension="model", member=self.model) if self.model else Q(dimension="all")

    @property
    def whole_from(self) -> datetime:
        """The first whole hour."""
        since = _hour_of(self.start)
        return since if since == self.start else since + HOUR


def _all_used(wanted: Sequence[_Wanted], until: datetime) -> list[Used]:
    """In the order given. Those of everybody may be some seconds old."""
    known: dict[_Wanted, Used] = {}
    everybody = {one.cache_key: one for one in wanted if one.owner is None}
    for name, values in cache.get_many(everybody).items():
        known[everybody[name]] = Used(*values)
    missing = list(dict.fromkeys(one for one in wanted if one not in known))
    known.update(zip(missing, _used(missing, until), strict=True))
    fresh = {name: tuple(known[one]) for name, one in everybody.items() if one in missing}
    if fresh:
        cache.set_many(fresh, INSTALLATION_KEPT_S)
    return [known[one] for one in wanted]


def _used(wanted: Sequence[_Wanted], until: datetime) -> list[Used]:
    """Whole hours that are up to date come from rollups, everything else from events and their adjustments."""
    whole_until = _hour_of(until)
    first_hour = min((one.whole_from for one in wanted), default=whole_until)
    dirty, deleted_days = dirty_and_deleted(min((one.start for one in wanted), default=whole_until), until)
    hours = [hour for hour in dirty if first_hour <= hour < whole_until]
    # Of windows that begin within an hour, the rest of that hour.
    edges = {(one.start, min(one.whole_from, until)) for one in wanted if one.start < one.whole_from}
    spans = [*((hour, hour + HOUR) for hour in hours), *edges, (whole_until, until)]

    clean = Q(grain=Rollup.Grain.HOUR, start__gte=first_hour, start__lt=whole_until) & ~Q(start__in=hours)
    touched = {_hour_of(start) for start, _ in spans}
    sums = _rolled_up(wanted, clean, too_old_to_be_kept(deleted_days, touched))
    of_everybody = _of_everybody(wanted, clean)
    within = Q(pk__in=())
    for start, end in joined(spans):
        within |= _ids(start, end)
    if not _has_everybody(wanted):
        within &= _of_anybody(wanted)
    clean_edges = [edge for edge in edges if _hour_of(edge[0]) not in hours]
    conditions = [one.of_them & _not_rolled_up(one, clean_edges, until) for one in wanted]
    by_events = {name: _sum_of(name) for name in SUMMED[1:]} | {"calls": _count}
    more = _sums(UsageEvent.objects.filter(within), conditions, by_events)
    adjusted = _sums(Adjustment.objects.filter(within), conditions, {"cost_nano_usd": _sum_of("delta_nano_usd")})
    return [Used(*map(sum, zip(*parts, strict=True))) for parts in zip(sums, of_everybody, more, adjusted, strict=True)]


def _rolled_up(wanted: Sequence[_Wanted], clean: Q, too_old: Q) -> list[Used]:
    """By whole hours, and what is too old for that; of everybody's calls the latter alone."""
    by_hour = Q(grain=Rollup.Grain.HOUR)
    conditions = [~by_hour & Q(start__gte=floor_day(one.start)) for one in wanted]
    for index, one in enumerate(wanted):
        if one.owner is not None:
            conditions[index] |= by_hour & Q(start__gte=one.whole_from)
        conditions[index] &= one.of_them
    theirs = _of_anybody(wanted)
    chosen = (clean & theirs) | (too_old if _has_everybody(wanted) else too_old & theirs)
    return _sums(Rollup.objects.filter(chosen), conditions, OF_SUMS)


def _of_everybody(wanted: Sequence[_Wanted], clean: Q) -> list[Used]:
    """By whole hours. Everybody's calls are in all rollups there are, but in few subtotals."""
    sums = [Used()] * len(wanted)
    places = [index for index, one in enumerate(wanted) if one.owner is None]
    if places:
        conditions = [wanted[index].of_subtotals & Q(start__gte=wanted[index].whole_from) for index in places]
        rows = Subtotal.objects.filter(clean & Q(dimension__in=("all", "model")))
        for index, used in zip(places, _sums(rows, conditions, OF_SUMS), strict=True):
            sums[index] = used
    return sums


def _has_everybody(wanted: Sequence[_Wanted]) -> bool:
    return any(one.owner is None for one in wanted)


def _of_anybody(wanted: Sequence[_Wanted]) -> Q:
    """Of any of the owners."""
    found = Q(pk__in=())
    for one in wanted:
        if one.owner is not None:
            found |= one.of_them
    return found


def _not_rolled_up(one: _Wanted, edges: list[tuple[datetime, datetime]], until: datetime) -> Q:
    """Of the events that are read: those of its window, but for the ones that are there for the edge of another
    window only, and are in an hour that this one has from the rollups."""
    found = _ids(one.start, until)
    for start, end in edges:
        if _hour_of(start) >= one.whole_from:
            found &= ~_ids(start, end)
    return found


def _ids(start: datetime, end: datetime) -> Q:
    low, high = id_range(start, end)
    return Q(pk__gte=low, pk__lt=high)


Summed = Callable[[Q], Aggregate]


def _sum_of(column: str) -> Summed:
    return lambda condition: Sum(column, filter=condition)


def _count(condition: Q) -> Aggregate:
    return Count("pk", filter=condition)


OF_SUMS = {name: _sum_of(name) for name in SUMMED}


def _sums(rows: QuerySet[Any], conditions: Sequence[Q], summed: Mapping[str, Summed]) -> list[Used]:
    """Of the rows for which each condition holds. One query for all of them."""
    columns = {
        f"{name}_{index}": expression(condition)
        for index, condition in enumerate(conditions)
        for name, expression in summed.items()
    }
    found = rows.order_by().aggregate(**columns)
    return [Used(*(int(found.get(f"{name}_{index}") or 0) for name in SUMMED)) for index in range(len(conditions))]


def _hour_of(moment: datetime) -> datetime:
    return moment - (moment - EPOCH) % HOUR
