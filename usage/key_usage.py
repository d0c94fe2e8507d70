"""What a key may know of itself: the budgets and limits that hold for it, and what it has used.

It is asked for by apps, as often as they like, so the whole of it is eight queries: all sums of all windows are made in
one pass over the rollups, and one over the events that are not in them yet.
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
from usage.models import Adjustment, Budget, Limit, MoneySettings, Rollup, UsageEvent
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

    rollups = Rollup.objects.filter(grain=Rollup.Grain.HOUR, start__gte=first_hour, start__lt=whole_until)
    since = [Q(start__gte=one.whole_from) for one in wanted]
    sums = _sums(rollups.exclude(start__in=hours), wanted, since, {name: _sum_of(name) for name in SUMMED})
    within = Q()
    for start, end in joined(spans):
        within |= _ids(start, end)
    clean_edges = [edge for edge in edges if _hour_of(edge[0]) not in hours]
    since = [_not_rolled_up(one, clean_edges, until) for one in wanted]
    by_events = {name: _sum_of(name) for name in SUMMED[1:]} | {"calls": _count}
    more = _sums(UsageEvent.objects.filter(within), wanted, since, by_events)
    by_adjustments = {"cost_nano_usd": _sum_of("delta_nano_usd")}
    adjusted = _sums(Adjustment.objects.filter(within), wanted, since, by_adjustments)
    touched = {_hour_of(start) for start, _ in spans}
    deleted = too_old_to_be_kept(deleted_days, touched)
    since = [Q(start__gte=floor_day(one.start)) for one in wanted]
    gone = _sums(deleted, wanted, since, {name: _sum_of(name) for name in SUMMED})
    return [Used(*map(sum, zip(*parts, strict=True))) for parts in zip(sums, more, adjusted, gone, strict=True)]


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


def _sums(
    rows: QuerySet[Any], wanted: Sequence[_Wanted], since: Sequence[Q], summed: Mapping[str, Summed]
) -> list[Used]:
    """One query for all of them."""
    of_anybody = Q()
    if all(one.owner is not None for one in wanted):
        for one in wanted:
            of_anybody |= one.of_them
    columns = {
        f"{name}_{index}": expression(one.of_them & since[index])
        for index, one in enumerate(wanted)
        for name, expression in summed.items()
    }
    found = rows.filter(of_anybody).order_by().aggregate(**columns)
    return [Used(*(int(found.get(f"{name}_{index}") or 0) for name in SUMMED)) for index in range(len(wanted))]


def _hour_of(moment: datetime) -> datetime:
    return moment - (moment - EPOCH) % HOUR
