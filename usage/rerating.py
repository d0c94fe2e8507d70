"""Prices the calls of a time again, after a price turned out to be wrong, late or missing.

Usage events stay as they were written: what is different is written down beside each as an adjustment, whose sum with
the event is what the call costs now. So it may be run again, be cut off anywhere, and run twice at the same time: it
looks at what a call costs by now, and a second run finds nothing to change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, Sum
from django.utils import timezone

from accounts import versions
from accounts.models import User
from accounts.time_ids import id_range, to_unix_us
from usage.models import Adjustment, DirtyHour, Rerating, UsageEvent
from usage.price_list import PriceHistory, price_history
from usage.pricing import Price, cost, usage_of_event
from usage.services import mark_hours, new_event_id

EVENTS_AT_ONCE = 2000
USED = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "estimated")
READ = (
    "id", "at", "key_id", "user_id", "team_id", "model", "provider", "upstream_model", "status", "cost_nano_usd",
    "units", *USED,
)  # fmt: skip

# Name of a provider -> its id in genai-prices ("": it has no list price). Of those that are there now.
PricesIds = Callable[[], dict[str, str]]


def _nobody() -> dict[str, str]:
    return {}


_prices_ids: PricesIds = _nobody


def set_prices_ids(prices_ids: PricesIds) -> None:
    """Providers are no business of this app: whoever knows them lends this (gateway_project.crossings)."""
    global _prices_ids
    _prices_ids = prices_ids


class Change(NamedTuple):
    """`became_priced`: its price was not known before."""

    event: dict[str, Any]
    delta_nano_usd: int
    became_priced: bool


@dataclass(slots=True)
class Rerated:
    """What came of it. `run`: the record of it; None of a dry run.

    `by_model`: of each model with a changed call, how many and by how much. Calls that keep the cost they have:
    `provider_gone`, as their provider is not there any more, so that nobody knows its prices; `price_unknown`.
    """

    run: Rerating | None
    events: int = 0
    changed: int = 0
    became_priced: int = 0
    delta_nano_usd: int = 0
    provider_gone: int = 0
    price_unknown: int = 0
    by_model: dict[str, tuple[int, int]] = field(default_factory=dict)


def rerate(
    start: datetime, end: datetime, *, model: str = "", reason: str, by: User | None = None, dry_run: bool = False
) -> Rerated:
    """Let every call from `start` up to, but not including, `end` cost what its model, and team, cost at its time, by
    the prices as they are known now. `model`: only calls of this one. `dry_run`: only find out.

    Memory stays flat however many there are; the hours that change are marked to be rolled up again, and at the end the
    budgets in force count what is different. Raises ValueError when the time is empty or no reason is given.
    """
    if start >= end:
        raise ValueError("The time to price again must begin before it ends.")
    if not reason.strip():
        raise ValueError("Say why, for whoever reads the books later.")
    reason = reason.strip()[:200]
    run = None if dry_run else Rerating.objects.create(start=start, end=end, model=model, reason=reason, by=by)
    rerated = Rerated(run)
    pricer = _Pricer(price_history(), _prices_ids(), rerated)
    events = UsageEvent.objects.order_by("id")
    if model:
        events = events.filter(model=model)
    for low, high in _pages(events, *id_range(start, end)):
        page = events.filter(id__gte=low, id__lt=high)
        with nullcontext() if dry_run else transaction.atomic():
            if not dry_run:
                _lock_hours(page)
            changes = pricer.changes(list(page.values(*READ)))
            if run is not None:
                _write(run, changes)
                run.events, run.changed, run.delta_nano_usd = rerated.events, rerated.changed, rerated.delta_nano_usd
                run.save(update_fields=("events", "changed", "delta_nano_usd"))
    if run is not None:
        _end(run)
    return rerated


def _end(run: Rerating) -> None:
    """Also lets the budgets in force read what their calls cost by now (usage.limits)."""
    with transaction.atomic():
        run.ended_at = timezone.now()
        run.save(update_fields=("ended_at",))
        versions.bump(versions.LIMITS)


def _pages(events: QuerySet[UsageEvent], low: UUID, high: UUID) -> Iterator[tuple[UUID, UUID]]:
    """Ranges of ids that together are this one, each of so many events that are there now."""
    while True:
        ids = events.filter(id__gte=low, id__lt=high).values_list("id", flat=True)
        following = ids[EVENTS_AT_ONCE : EVENTS_AT_ONCE + 1].first()
        yield low, following or high
        if following is None:
            return
        low = following


def _lock_hours(page: QuerySet[UsageEvent]) -> None:
    """Until our commit nobody else adjusts events of these hours or deletes them (usage.retention)."""
    hours = sorted({_hour(at) for at in page.values_list("at", flat=True)})
    if hours:
        list(DirtyHour.objects.select_for_update().filter(hour__in=hours).order_by("hour"))


class _Pricer:
    """Finds what changes, and counts."""

    def __init__(self, history: PriceHistory, prices_ids: dict[str, str], rerated: Rerated) -> None:
        self._history = history
        self._prices_ids = prices_ids
        self._rerated = rerated

    def changes(self, events: list[dict[str, Any]]) -> list[Change]:
        """`events` in the order of their ids."""
        if not events:
            return []
        adjusted = _adjusted(events[0]["id"], events[-1]["id"])
        found = (self._change(event, *adjusted[event["id"]]) for event in events)
        changes = [change for change in found if change is not None]
        self._count(len(events), changes)
        return changes

    def _change(self, event: dict[str, Any], adjusted_by: int, priced_by: int) -> Change | None:
        usage = usage_of_event(event)
        if not (usage.prompt or usage.completion or usage.units):
            return None  # refused, or failed before anything was used: that is free at any price
        price = self._price(event)
        if price is None:
            return None
        recorded = event["cost_nano_usd"]
        is_priced = (recorded is not None) + priced_by
        delta = cost(usage, price) - (recorded or 0) - adjusted_by
        return Change(event, delta, not is_priced) if delta or not is_priced else None

    def _price(self, event: dict[str, Any]) -> Price | None:
        at = event["at"]
        own = self._history.own(event["model"], event["team_id"], at)
        if own is not None:
            return own
        prices_id = self._prices_ids.get(event["provider"])
        if prices_id is None:
            self._rerated.provider_gone += 1
            return None
        listed = self._history.listed(prices_id, event["upstream_model"], at)
        if listed is None:
            self._rerated.price_unknown += 1
        return listed

    def _count(self, events: int, changes: Sequence[Change]) -> None:
        rerated = self._rerated
        rerated.events += events
        rerated.changed += len(changes)
        for change in changes:
            rerated.became_priced += change.became_priced
            rerated.delta_nano_usd += change.delta_nano_usd
            calls, delta = rerated.by_model.get(change.event["model"], (0, 0))
            rerated.by_model[change.event["model"]] = calls + 1, delta + change.delta_nano_usd


def _adjusted(first: UUID, last: UUID) -> dict[UUID, tuple[int, int]]:
    """Of each event in this range of ids: by how much it was adjusted so far, and its priced calls."""
    adjustments = Adjustment.objects.filter(event_id__gte=first, event_id__lte=last).order_by()
    found: dict[UUID, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in adjustments.values("event_id").annotate(delta=Sum("delta_nano_usd"), priced=Sum("priced_calls")):
        found[row["event_id"]] = int(row["delta"]), int(row["priced"])
    return found


def _write(run: Rerating, changes: Sequence[Change]) -> None:
    """Also marks the hours, in the transaction that it is called in."""
    if not changes:
        return
    Adjustment.objects.bulk_create([_adjustment(run, change) for change in changes], batch_size=EVENTS_AT_ONCE)
    mark_hours({_hour(change.event["at"]) for change in changes})


def _adjustment(run: Rerating, change: Change) -> Adjustment:
    event = change.event
    same = ("at", "key_id", "user_id", "team_id", "model", "provider", "status")
    return Adjustment(
        id=UUID(hex=new_event_id(to_unix_us(event["at"]))),
        event_id=event["id"],
        rerating=run,
        delta_nano_usd=change.delta_nano_usd,
        priced_calls=int(change.became_priced),
        **{name: event[name] for name in same},
    )


def _hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
