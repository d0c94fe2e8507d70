"""What was spent of budgets, by the books: sums by hour where they are up to date, events where they are not yet. Sums
are subtotals where one dimension tells all, and rollups where both an owner and a model do.

So it says what the journal has brought into the database by now. What is under way only the ledger knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, NamedTuple

from django.db.models import BigIntegerField, F, Q, QuerySet, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast
from django.utils import timezone

from accounts.time_ids import EPOCH, MICROSECOND, first_id, id_range
from usage import subtotals
from usage.models import Adjustment, Budget, DirtyDay, DirtyHour, MoneySettings, Rollup, TopUp, UsageEvent
from usage.rollups import floor_day
from usage.windows import Window, window_at

HOUR = timedelta(hours=1)
# Clocks differ: an event may bear a time of the near future.
AHEAD = timedelta(hours=1)
OWNERS_AT_ONCE = 500
# Eight statements each at most, and SQLite takes 500 in a union.
SPANS_AT_ONCE = 60

COLUMNS = {"team": "team_id", "user": "user_id", "key": "key_id"}


class Spent(NamedTuple):
    """Nano-USD (unpriced calls cost nothing) and tokens, prompt and completion."""

    nano_usd: int = 0
    tokens: int = 0

    def of(self, unit: str) -> int:
        return self.nano_usd if unit == Budget.Unit.USD else self.tokens

    def plus(self, other: Spent) -> Spent:
        return Spent(self.nano_usd + other.nano_usd, self.tokens + other.tokens)


@dataclass(frozen=True, slots=True)
class Standing:
    """`spent` and `limit` (with top-ups) in the budget's unit: nano-USD or tokens."""

    budget: Budget
    window: Window
    spent: int
    limit: int

    @property
    def left(self) -> int:
        return max(self.limit - self.spent, 0)


def standings(budgets: Iterable[Budget], now: datetime | None = None, zone: str = "") -> list[Standing]:
    """How each budget stands in its window of `now`, in the order given. A few queries, however many. `zone`: the
    installation's, where it is known already."""
    budgets, now, zone = list(budgets), now or timezone.now(), zone or default_zone()
    windows = [window_of(budget, now, zone) for budget in budgets]
    spent = spent_in(list(zip(budgets, windows, strict=True)), now + AHEAD)
    top_ups = top_ups_of(budgets, windows)
    return [
        Standing(budget, window, spent[index], max(budget.limit + top_ups[index], 0))
        for index, (budget, window) in enumerate(zip(budgets, windows, strict=True))
    ]


def default_zone() -> str:
    """The installation's time zone, for budgets that name none."""
    zone: str = MoneySettings.objects.values_list("timezone", flat=True).first() or "UTC"
    return zone


def window_of(budget: Budget, at: datetime, zone: str) -> Window:
    return window_at(budget.per, budget.timezone or zone, at, budget.counts_from)


def top_ups_of(budgets: Sequence[Budget], windows: Sequence[Window]) -> list[int]:
    """What was given in addition for each of these windows."""
    given: dict[int, list[tuple[datetime, int]]] = defaultdict(list)
    oldest = min((window.start for window in windows), default=None)
    if oldest is not None:
        rows = TopUp.objects.filter(budget__in=[budget.pk for budget in budgets], window_start__gte=oldest)
        for budget_id, start, amount in rows.values_list("budget_id", "window_start", "amount"):
            given[budget_id].append((start, amount))
    return [
        sum(
            amount
            for start, amount in given[budget.pk]
            if window.start <= start and (window.end is None or start < window.end)
        )
        for budget, window in zip(budgets, windows, strict=True)
    ]


def spent_in(wanted: Sequence[tuple[Budget, Window]], until: datetime) -> list[int]:
    """What was spent of each budget from the start of the window up to `until`, in the budget's unit."""
    return _of_budgets(wanted, lambda spans: _sums(spans, until))


def _of_budgets(wanted: Sequence[tuple[Budget, Window]], sums_of: Callable[[Sequence[Span]], list[Sums]]) -> list[int]:
    """Asks together for budgets whose windows begin together. `sums_of`: what was spent in spans."""
    groups: dict[tuple[str, datetime, bool], list[int]] = defaultdict(list)
    for index, (budget, window) in enumerate(wanted):
        groups[budget.scope, window.start, bool(budget.model)].append(index)
    asked: list[tuple[Span, list[int]]] = []
    for (scope, start, by_model), indexes in groups.items():
        for first in range(0, len(indexes), OWNERS_AT_ONCE):
            some = indexes[first : first + OWNERS_AT_ONCE]
            asked.append((Span(scope, start, by_model, {wanted[index][0].owner_id for index in some}), some))
    spent = [0] * len(wanted)
    for first in range(0, len(asked), SPANS_AT_ONCE):
        part = asked[first : first + SPANS_AT_ONCE]
        for sums, (_, indexes) in zip(sums_of([span for span, _ in part]), part, strict=True):
            totals = _of_every_model(sums)
            for index in indexes:
                budget = wanted[index][0]
                found = sums.get((budget.owner_id, budget.model)) if budget.model else totals.get(budget.owner_id)
                spent[index] = (found or Spent()).of(budget.unit)
    return spent


def spent_until(wanted: Sequence[tuple[Budget, int, int]]) -> list[int]:
    """What a ledger that counts calls itself from a moment on has to add: what was spent from the start of the window
    until that moment (both unix microseconds), and by how much re-ratings have changed the calls since, which it has
    counted at what they cost then."""
    by_end: dict[int, list[int]] = defaultdict(list)
    for index, (_, start_us, until_us) in enumerate(wanted):
        if start_us < until_us:
            by_end[until_us].append(index)
    spent = _rerated_since([(budget, max(start_us, until_us)) for budget, start_us, until_us in wanted])
    for until_us, indexes in by_end.items():
        windows = [(wanted[index][0], Window(EPOCH + wanted[index][1] * MICROSECOND, None)) for index in indexes]
        for index, amount in zip(indexes, spent_in(windows, EPOCH + until_us * MICROSECOND), strict=True):
            spent[index] += amount
    return spent


def _rerated_since(wanted: Sequence[tuple[Budget, int]]) -> list[int]:
    """By how much calls that came in since a moment, unix microseconds, were priced otherwise later."""
    windows = [(budget, Window(EPOCH + since_us * MICROSECOND, None)) for budget, since_us in wanted]
    oldest = min((window.start for _, window in windows), default=None)
    if oldest is None or not Adjustment.objects.filter(pk__gte=first_id(oldest)).exists():
        return [0] * len(wanted)
    return _of_budgets(windows, _rerated)


def _rerated(spans: Sequence[Span]) -> list[Sums]:
    since = [Adjustment.objects.filter(pk__gte=first_id(span.start)) for span in spans]
    queries = [
        _grouped(rows, number, span.scope, span.owners, "delta_nano_usd")
        for number, (span, rows) in enumerate(zip(spans, since, strict=True))
    ]
    found = _add_all(queries)
    return [found[number] for number in range(len(spans))]


Sums = dict[tuple[int | None, str], Spent]


def _of_every_model(sums: Sums) -> dict[int | None, Spent]:
    totals: dict[int | None, Spent] = {}
    for (owner, _), spent in sums.items():
        totals[owner] = totals.get(owner, Spent()).plus(spent)
    return totals


class Span(NamedTuple):
    """Whose spending is asked for, from when, and whether it matters on which model."""

    scope: str
    start: datetime
    by_model: bool
    owners: set[int | None]


def _sums(spans: Sequence[Span], until: datetime) -> list[Sums]:
    """For each span, by owner (None: the installation) and model ("" where it does not matter). Two queries for all of
    them: budgets without an end begin each at a moment of its own.

    Whole hours that are up to date come from rollups, all else from events: the hours at both ends, and those to which
    events were added since they were rolled up. Most spans have the same end, so each such part is read once for all
    of a scope."""
    dirty, deleted = dirty_and_deleted(min((span.start for span in spans), default=until), until)
    queries: list[QuerySet[Any, Any]] = []
    owners: dict[_Part, set[int | None]] = defaultdict(set)
    parts_of: list[list[_Part]] = []
    for number, span in enumerate(spans):
        whole_hours, parts = _split(span, until, dirty)
        if whole_hours:
            queries.append(_rolled_up(number, span, whole_hours, Rollup.Grain.HOUR))
        days = [day for day in deleted if day >= floor_day(span.start)]
        if days:
            queries.append(_rolled_up(number, span, Q(start__in=days), Rollup.Grain.DAY))
        parts_of.append(parts)
        for part in parts:
            owners[part] |= span.owners
    numbers = {part: len(spans) + index for index, part in enumerate(owners)}
    for part, number in numbers.items():
        queries += _not_rolled_up(number, part, owners[part], deleted)
    found = _add_all(queries)
    for number, parts in enumerate(parts_of):
        for part in parts:
            for place, spent in found[numbers[part]].items():
                found[number][place] = found[number].get(place, Spent()).plus(spent)
    return [found[number] for number in range(len(spans))]


class _Part(NamedTuple):
    """Times that are read from events, for one sort of owners."""

    scope: str
    times: tuple[tuple[datetime, datetime], ...]


def _split(span: Span, until: datetime, dirty: Sequence[datetime]) -> tuple[Q, list[_Part]]:
    """The whole hours that come from rollups (Q(): none), and the rest: the edge that few others have, and what all
    have in common that begin before the same dirty hours."""
    whole_from, whole_until = _next_hour(span.start), _hour_of(until)
    if whole_from >= whole_until:
        return Q(), [_Part(span.scope, ((span.start, until),))] if span.start < until else []
    hours = [hour for hour in dirty if whole_from <= hour < whole_until]
    rest = [*((hour, hour + HOUR) for hour in hours), (whole_until, until)]
    times = [[(span.start, whole_from)], rest]
    parts = [_Part(span.scope, tuple(part)) for part in times if any(since < before for since, before in part)]
    return Q(start__gte=whole_from, start__lt=whole_until) & ~Q(start__in=hours), parts


def _not_rolled_up(
    number: int, part: _Part, owners: set[int | None], deleted: Sequence[datetime]
) -> list[QuerySet[Any, Any]]:
    within = Q()
    for since, before in joined(part.times):
        low, high = id_range(since, before)
        within |= Q(pk__gte=low, pk__lt=high)
    touched = {_hour_of(since) for since, before in part.times if since < before}
    of_these = (number, part.scope, owners)
    return [
        _grouped(UsageEvent.objects.filter(within), *of_these, "cost_nano_usd", tokens=True),
        _grouped(Adjustment.objects.filter(within), *of_these, "delta_nano_usd"),
        _grouped(Rollup.objects.filter(pruned(touched, deleted)), *of_these, "cost_nano_usd", tokens=True),
    ]


def dirty_and_deleted(start: datetime, until: datetime) -> tuple[list[datetime], list[datetime]]:
    """Hours that are not rolled up, and days whose sums by hour were too old to be kept, between these moments (one
    query)."""
    hours = DirtyHour.objects.filter(marks__gt=F("rolled_up"), hour__gte=start, hour__lt=until)
    days = DirtyDay.objects.filter(hours_deleted=True, day__gte=floor_day(start), day__lt=until)
    of_days = days.values_list("day", Value(True))
    found = list(hours.values_list("hour", Value(False)).union(of_days, all=True))
    return [at for at, is_day in found if not is_day], [at for at, is_day in found if is_day]


def too_old_to_be_kept(deleted: Sequence[datetime], touched: set[datetime]) -> Q:
    """Rollups that stand for events that were deleted in hours that are read from events, and for hours of `deleted`
    days. An hour or a day at the edge counts whole: rather too much was spent than too little."""
    return pruned(touched, deleted) | Q(grain=Rollup.Grain.DAY, start__in=deleted)


def pruned(touched: set[datetime], deleted: Sequence[datetime]) -> Q:
    """The first part of it. Of a deleted day all that is pruned is in the rollups of the day."""
    return Q(grain=Rollup.Grain.PRUNED, start__in=touched - set(deleted))


def joined(spans: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same time in as few spans as will do: after an outage there may be hundreds of hours in a row."""
    found: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _rolled_up(number: int, span: Span, within: Q, grain: Rollup.Grain) -> QuerySet[Any, Any]:
    """The same rows as `_grouped` gives, of whole hours or days."""
    if span.scope not in COLUMNS:
        rows = subtotals.of("model" if span.by_model else "all", grain).filter(within)
        return _summed(rows, number, NOBODY, F("member"), "cost_nano_usd", TOKENS)
    if span.by_model:
        rollups = Rollup.objects.filter(within, grain=grain)
        return _grouped(rollups, number, span.scope, span.owners, "cost_nano_usd", tokens=True)
    rows = subtotals.of(span.scope, grain).filter(within, member__in=[str(owner) for owner in span.owners])
    return _summed(rows, number, subtotals.group_expression(span.scope), NO_MODEL, "cost_nano_usd", TOKENS)


def _grouped(
    rows: QuerySet[Any], number: int, scope: str, owners: set[int | None], cost: str, *, tokens: bool = False
) -> QuerySet[Any, Any]:
    """Rows of `number`, owner, model, cost and tokens."""
    column = COLUMNS.get(scope)
    if column:
        rows = rows.filter(**{f"{column}__in": owners})
    return _summed(rows, number, F(column) if column else NOBODY, F("model"), cost, TOKENS if tokens else NO_TOKENS)


def _summed(
    rows: QuerySet[Any], number: int, owner: Combinable, model: Combinable, cost: str, tokens: Any
) -> QuerySet[Any, Any]:
    named = rows.order_by().values(number=Value(number, BIG), owner=owner, of_model=model)
    found: QuerySet[Any, Any] = named.annotate(cost=Sum(cost, default=0), used=tokens)
    return found.values_list("number", "owner", "of_model", "cost", "used")


BIG = BigIntegerField()
NOBODY = Cast(Value(None), BIG)
NO_MODEL = Value("")
NO_TOKENS = Value(0, BIG)
TOKENS = Sum(F("prompt_tokens") + F("completion_tokens"), default=0)


def _add_all(queries: list[QuerySet[Any, Any]]) -> defaultdict[int, Sums]:
    """What all of these find, in one go, by number."""
    found: defaultdict[int, Sums] = defaultdict(dict)
    rows: Iterable[Any] = queries[0].union(*queries[1:], all=True) if len(queries) > 1 else chain(*queries)
    for number, owner, model, cost, tokens in rows:
        before = found[number].get((owner, model), Spent())
        # The sum of bigints is a numeric on PostgreSQL.
        found[number][owner, model] = before.plus(Spent(int(cost), int(tokens)))
    return found


def _hour_of(moment: datetime) -> datetime:
    return moment - (moment - EPOCH) % HOUR


def _next_hour(moment: datetime) -> datetime:
    """`moment` itself if it is a whole hour."""
    return moment + (EPOCH - moment) % HOUR
