"""Sums over events: by minute for the last two days, by hour, and by day for ever.

An hour is recomputed whole, by the database, whenever events were added to it, however late; so a roll-up may be
repeated, may be cut off anywhere and may run twice at the same time:

    1  read the hour's marks   every event of a transaction that made these marks is visible from now on
    2  aggregate               sees at least those events; holds no lock, so nobody who inserts waits for it
    3  in one transaction      mark the day; note the hour's marks as rolled up, unless another roll-up has noted as
                               many; replace the rows, and their subtotals

Whoever inserts after 1 leaves more marks than 3 notes, and the hour stays dirty. A day is the sum of its hours and goes
the same way, one level up: its marks are those that 3 makes.

Locks are taken in one order: a day, one of its hours, rollups. What usage.retention deletes needs both to be clean, and
holds their locks; between 1 and 3 they are not, or 3 finds its marks noted already. So a roll-up never sees half of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.db.models import F
from django.utils import timezone

from accounts.time_ids import EPOCH, id_range
from usage import aggregation, subtotals
from usage.models import Adjustment, DirtyDay, DirtyHour, Rollup, UsageEvent
from usage.services import mark_hours

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTES_KEPT = timedelta(hours=48)
HOURS_AT_ONCE = 100
ROWS_AT_ONCE = 500


def roll_up(limit: int = HOURS_AT_ONCE) -> int:
    """Bring up to `limit` dirty hours up to date, the newest first, and then every dirty day; forget old minutes.
    Returns how many hours."""
    dirty = DirtyHour.objects.filter(marks__gt=F("rolled_up")).order_by("-hour").values_list("hour", flat=True)
    hours = list(dirty[:limit])
    for hour in hours:
        roll_up_hour(hour)
    for day in DirtyDay.objects.filter(marks__gt=F("rolled_up")).order_by("-day").values_list("day", flat=True):
        roll_up_day(day)
    prune_minutes()
    return len(hours)


def roll_up_all() -> int:
    """Until nothing is dirty, or what remains gets dirty as fast as it is cleaned. Returns how many hours."""
    done = 0
    while hours := roll_up():
        done += hours
        if hours < HOURS_AT_ONCE:
            break
    return done


def roll_up_again(start: datetime, end: datetime) -> int:
    """Recompute every hour that `start` to `end` (exclusive) touches, dirty or not, and their days. Returns how many
    hours have events. Day by day, so it may be cut off, and begun again, anywhere."""
    done = 0
    start, end = floor_hour(start), floor_hour(end + HOUR - timedelta(microseconds=1))
    while first := _first_hour_with_events(start, end):
        day = floor_day(first)
        start = min(day + DAY, end)
        hours = _hours_with_events(first, start)
        with transaction.atomic():
            mark_hours(hours)
        for hour in sorted(hours):
            roll_up_hour(hour)
        roll_up_day(day)
        done += len(hours)
    return done


def roll_up_hour(hour: datetime) -> None:
    marks = DirtyHour.objects.values_list("marks", flat=True).get(hour=hour)
    only_by_day = DirtyDay.objects.filter(day=floor_day(hour), hours_deleted=True).exists()
    rows = [] if only_by_day else _aggregate(hour)
    with transaction.atomic():
        if _mark_day(hour).hours_deleted != only_by_day:
            return  # it became too old just now; the hour is still dirty
        # Locks the row: of two roll-ups of one hour the second waits here, and then sees that it is too late.
        if DirtyHour.objects.filter(hour=hour, rolled_up__lt=marks).update(rolled_up=marks) and rows:
            grains = (Rollup.Grain.HOUR, Rollup.Grain.MINUTE)
            _replace(Rollup.objects.filter(grain__in=grains, start__gte=hour, start__lt=hour + HOUR), rows)
            subtotals.add_up(Rollup.Grain.HOUR, hour, hour + HOUR)


def roll_up_day(day: datetime) -> None:
    dirty = DirtyDay.objects.get(day=day)
    rows = aggregation.period(Rollup.Grain.DAY, day, day + DAY) if dirty.hours_deleted else []
    with transaction.atomic():
        as_read = DirtyDay.objects.filter(day=day, rolled_up__lt=dirty.marks, hours_deleted=dirty.hours_deleted)
        if not as_read.update(rolled_up=dirty.marks):
            return
        before = Rollup.objects.filter(grain=Rollup.Grain.DAY, start=day)
        if dirty.hours_deleted and rows:
            _replace(before, rows)
        elif Rollup.objects.filter(grain=Rollup.Grain.HOUR, start__gte=day, start__lt=day + DAY).exists():
            before.delete()
            aggregation.add_up(Rollup.Grain.HOUR, day, day + DAY, into=Rollup.Grain.DAY)
        subtotals.add_up(Rollup.Grain.DAY, day, day + DAY)


def prune_minutes() -> None:
    Rollup.objects.filter(grain=Rollup.Grain.MINUTE, start__lt=_oldest_minute()).delete()


def hours_of(model: type[models.Model], start: datetime, end: datetime) -> Iterator[datetime]:
    """The hours between `start` and `end` (exclusive) in which rows of `model`, which has time-ordered ids, lie.
    Oldest first; a look at the primary key for each, however many rows there are."""
    while start < end:
        low, high = id_range(start, end)
        rows = model._default_manager.filter(pk__gte=low, pk__lt=high).order_by("pk")
        first: UUID | None = rows.values_list("pk", flat=True).first()
        if first is None:
            return
        hour = floor_hour(EPOCH + timedelta(milliseconds=first.int >> 80))
        yield hour
        start = hour + HOUR


def floor_hour(moment: datetime) -> datetime:
    return moment - (moment - EPOCH) % HOUR


def floor_day(moment: datetime) -> datetime:
    """The start of its day in UTC."""
    return (moment - (moment - EPOCH) % DAY).astimezone(UTC)


def _hours_with_events(start: datetime, end: datetime) -> set[datetime]:
    """Hours that are marked, and hours whose marks were lost: after a restore there may be events without."""
    written = {hour for hours in _written_hours(start, end) for hour in hours}
    return written.union(hours_of(UsageEvent, start, end), hours_of(Adjustment, start, end))


def _first_hour_with_events(start: datetime, end: datetime) -> datetime | None:
    firsts = [hours.first() for hours in _written_hours(start, end)]
    firsts += [next(iter(hours_of(model, start, end)), None) for model in (UsageEvent, Adjustment)]
    return min((hour for hour in firsts if hour is not None), default=None)


def _written_hours(start: datetime, end: datetime) -> list[models.QuerySet[Any, datetime]]:
    marked = DirtyHour.objects.filter(hour__gte=start, hour__lt=end).order_by("hour")
    pruned = Rollup.objects.filter(grain=Rollup.Grain.PRUNED, start__gte=start, start__lt=end).order_by("start")
    return [marked.values_list("hour", flat=True), pruned.values_list("start", flat=True)]


def _mark_day(hour: datetime) -> DirtyDay:
    """Say, in the current transaction, that the sums of its day are out of date. Locks the day."""
    day = floor_day(hour)
    if not DirtyDay.objects.filter(day=day).update(marks=F("marks") + 1):
        # Another roll-up may be about to insert it: then this waits for that one's commit.
        DirtyDay.objects.bulk_create([DirtyDay(day=day, marks=0)], ignore_conflicts=True)
        DirtyDay.objects.filter(day=day).update(marks=F("marks") + 1)
    return DirtyDay.objects.get(day=day)


def _aggregate(hour: datetime) -> list[Rollup]:
    rows = aggregation.period(Rollup.Grain.HOUR, hour, hour + HOUR)
    if hour + HOUR > _oldest_minute():
        rows += aggregation.minutes(hour, hour + HOUR)
    return rows


def _replace(before: models.QuerySet[Rollup], rows: list[Rollup]) -> None:
    """Only with something: a time without any event has sums when somebody deleted the events by hand, and then they
    are all that is left."""
    before.delete()
    Rollup.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)


def _oldest_minute() -> datetime:
    return floor_hour(timezone.now() - MINUTES_KEPT)
