"""What is deleted when it is too old. Sums outlive what they are sums of, to the cent.

Events go in batches, with their adjustments; in the same transaction the sums of the batch are written as rollups of
the grain "pruned", and an hour is from then on the sum of these and of what is left. So a late event still counts, a
later roll-up, of any time and as often as one likes, changes nothing, and a crash leaves nothing half done.

Only of hours and days that are rolled up: with the locks held nobody can add to them meanwhile (usage.rollups).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import merge
from itertools import groupby

from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from accounts.time_ids import EPOCH, id_range
from usage import aggregation, subtotals
from usage.models import Adjustment, DirtyDay, DirtyHour, MoneySettings, Rollup, UsageEvent
from usage.rollups import DAY, HOUR, MINUTES_KEPT, ROWS_AT_ONCE, floor_day, floor_hour, hours_of

EVENTS_AT_ONCE = 10_000
# The minutes of the front page are computed from events.
EVENTS_KEPT_AT_LEAST = MINUTES_KEPT + HOUR
# Budgets of a month, in whatever time zone, are computed from hours.
HOURS_KEPT_AT_LEAST = timedelta(days=35)

KeepsOn = Callable[[], bool]


@dataclass(slots=True)
class Pruned:
    """`not_rolled_up`: hours, and days, that are old enough but must wait for a roll-up."""

    events: int = 0
    adjustments: int = 0
    hours: int = 0
    not_rolled_up: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What is older is to be deleted: events before a whole hour, sums by hour before a whole day. None: nothing."""

    events_before: datetime | None
    hours_before: datetime | None


def limits(now: datetime | None = None) -> Limits:
    """As the admin has it under "money & limits"."""
    row = MoneySettings.objects.first() or MoneySettings()
    now = now or timezone.now()
    events_before = _before(now, row.events_kept_days, EVENTS_KEPT_AT_LEAST)
    hours_before = _before(now, row.rollups_kept_days, HOURS_KEPT_AT_LEAST)
    return Limits(events_before and floor_hour(events_before), hours_before and floor_day(hours_before))


def prune(stop_after_s: float | None = None) -> Pruned:
    """Delete what is too old. `stop_after_s`: what is left over by then is for the next time."""
    deadline = None if stop_after_s is None else time.monotonic() + stop_after_s

    def keeps_on() -> bool:
        return deadline is None or time.monotonic() < deadline

    pruned, to = Pruned(), limits()
    if to.events_before:
        _prune_events(to.events_before, pruned, keeps_on)
    if to.hours_before:
        _prune_hours(to.hours_before, pruned, keeps_on)
    return pruned


def would_prune() -> Pruned:
    """What `prune` would delete now."""
    pruned, to = Pruned(), limits()
    if to.events_before:
        low, high = id_range(EPOCH, to.events_before)
        for hour in _hours_to_prune(to.events_before):
            pruned.not_rolled_up += not _is_clean(hour)
        pruned.events = UsageEvent.objects.filter(pk__gte=low, pk__lt=high).count()
        pruned.adjustments = Adjustment.objects.filter(pk__gte=low, pk__lt=high).count()
    if to.hours_before:
        pruned.hours = Rollup.objects.filter(grain=Rollup.Grain.HOUR, start__lt=to.hours_before).count()
    return pruned


def _before(now: datetime, days: int | None, at_least: timedelta) -> datetime | None:
    return None if days is None else now - max(days * DAY, at_least)


# --- events -----------------------------------------------------------------------------------------------------------
def _hours_to_prune(before: datetime) -> Iterator[datetime]:
    for hour, _ in groupby(merge(hours_of(UsageEvent, EPOCH, before), hours_of(Adjustment, EPOCH, before))):
        yield hour


def _prune_events(before: datetime, pruned: Pruned, keeps_on: KeepsOn) -> None:
    for hour in _hours_to_prune(before):
        is_left = True
        while is_left:
            if not keeps_on():
                return
            is_left = _prune_batch(hour, pruned)


def _prune_batch(hour: datetime, pruned: Pruned) -> bool:
    """Delete some events of an hour. Returns whether there may be more that can be deleted now."""
    low, high = id_range(hour, hour + HOUR)
    with transaction.atomic():
        if not _lock_clean(hour):
            pruned.not_rolled_up += 1
            return False
        events = UsageEvent.objects.filter(pk__gte=low, pk__lt=high).order_by("pk")
        next_batch = events.values_list("pk", flat=True)[EVENTS_AT_ONCE : EVENTS_AT_ONCE + 1].first()
        high = next_batch or high
        Rollup.objects.bulk_create(aggregation.about_to_be_pruned(hour, low, high), batch_size=ROWS_AT_ONCE)
        pruned.events += UsageEvent.objects.filter(pk__gte=low, pk__lt=high).delete()[0]
        pruned.adjustments += Adjustment.objects.filter(pk__gte=low, pk__lt=high).delete()[0]
        if not next_batch:
            _merge(hour, hour + HOUR)
    return next_batch is not None


def _lock_clean(hour: datetime) -> bool:
    """Lock the hour and its day until the end of the transaction; False when one of them is not rolled up."""
    day = DirtyDay.objects.select_for_update().filter(day=floor_day(hour), marks=F("rolled_up"))
    hours = DirtyHour.objects.select_for_update().filter(hour=hour, marks=F("rolled_up"))
    return bool(list(day)) and bool(list(hours))


def _is_clean(hour: datetime) -> bool:
    day = DirtyDay.objects.filter(day=floor_day(hour), marks=F("rolled_up"))
    return day.exists() and DirtyHour.objects.filter(hour=hour, marks=F("rolled_up")).exists()


def _merge(start: datetime, end: datetime) -> None:
    """Make one row per group of the sums of deleted events between `start` and `end`."""
    pruned = Rollup.objects.filter(grain=Rollup.Grain.PRUNED, start__gte=start, start__lt=end)
    last = pruned.aggregate(last=Max("pk"))["last"]
    if last is not None:
        aggregation.add_up(Rollup.Grain.PRUNED, start, end, into=Rollup.Grain.PRUNED)
        pruned.filter(pk__lte=last).delete()


# --- sums by hour -----------------------------------------------------------------------------------------------------
def _prune_hours(before: datetime, pruned: Pruned, keeps_on: KeepsOn) -> None:
    hours = Rollup.objects.filter(grain=Rollup.Grain.HOUR, start__lt=before).order_by("start")
    oldest = hours.values_list("start", flat=True).first()
    while oldest is not None and keeps_on():
        day = floor_day(oldest)
        pruned.hours += _prune_hours_of(day, pruned)
        oldest = hours.filter(start__gte=day + DAY).values_list("start", flat=True).first()


def _prune_hours_of(day: datetime, pruned: Pruned) -> int:
    with transaction.atomic():
        clean = DirtyDay.objects.filter(day=day, marks=F("rolled_up"))
        if not clean.update(hours_deleted=True):
            pruned.not_rolled_up += 1
            return 0
        _merge(day, day + DAY)
        subtotals.remove(Rollup.Grain.HOUR, day, day + DAY)
        hours = Rollup.objects.filter(grain=Rollup.Grain.HOUR, start__gte=day, start__lt=day + DAY)
        return hours.delete()[0]
