"""Sums over events: by minute for the last two days, by hour for ever.

An hour is recomputed whole, by the database, whenever events were added to it, however late; so a roll-up may be
repeated, may be cut off anywhere and may run twice at the same time:

    1  read the hour's marks   every event of a transaction that made these marks is visible from now on
    2  aggregate               sees at least those events; holds no lock, so nobody who inserts waits for it
    3  in one transaction      note the marks as rolled up, unless another roll-up has noted as many; replace the rows

Whoever inserts after 1 leaves more marks than 3 notes, and the hour stays dirty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, Count, F, Func, Q, Sum, Value, When
from django.db.models.sql.compiler import SQLCompiler
from django.utils import timezone

from usage import histogram
from usage.models import DirtyHour, Rollup, UsageEvent
from usage.services import EPOCH, id_range

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
MINUTES_KEPT = timedelta(hours=48)
HOURS_AT_ONCE = 100
ROWS_AT_ONCE = 500

DIMENSIONS = ("key_id", "user_id", "team_id", "model", "provider")
SUMS = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd", "latency_us")
NO_FIRST_BYTE = -1


class MinuteOfHour(Func):
    """0 to 59, of a time in UTC. (Django's TruncMinute calls back into Python for every row on SQLite.)"""

    output_field = models.IntegerField()

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> tuple[str, Any]:
        return super().as_sql(compiler, connection, template="CAST(substr(%(expressions)s, 15, 2) AS integer)", **extra)

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> tuple[str, Any]:
        return super().as_sql(
            compiler, connection, template="EXTRACT(minute FROM %(expressions)s AT TIME ZONE 'UTC')::integer", **extra
        )


def roll_up(limit: int = HOURS_AT_ONCE) -> int:
    """Bring up to `limit` dirty hours up to date, the newest first, and forget old minutes. Returns how many."""
    dirty = DirtyHour.objects.filter(marks__gt=F("rolled_up")).order_by("-hour").values_list("hour", flat=True)
    hours = list(dirty[:limit])
    for hour in hours:
        roll_up_hour(hour)
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
    """Recompute every hour that `start` to `end` (exclusive) touches, dirty or not. Returns how many have events."""
    hours = DirtyHour.objects.filter(hour__gte=_floor_hour(start), hour__lt=end).order_by("hour")
    hours.update(marks=F("marks") + 1)
    chosen = list(hours.values_list("hour", flat=True))
    for hour in chosen:
        roll_up_hour(hour)
    return len(chosen)


def roll_up_hour(hour: datetime) -> None:
    marks = DirtyHour.objects.values_list("marks", flat=True).get(hour=hour)
    rows = list(_aggregate(hour, Rollup.Grain.HOUR))
    if hour + HOUR > _oldest_minute():
        rows += _aggregate(hour, Rollup.Grain.MINUTE)
    with transaction.atomic():
        # Locks the row: of two roll-ups of one hour the second waits here, and then sees that it is too late.
        if DirtyHour.objects.filter(hour=hour, rolled_up__lt=marks).update(rolled_up=marks):
            Rollup.objects.filter(start__gte=hour, start__lt=hour + HOUR).delete()
            Rollup.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)


def prune_minutes() -> None:
    Rollup.objects.filter(grain=Rollup.Grain.MINUTE, start__lt=_oldest_minute()).delete()


def _oldest_minute() -> datetime:
    return _floor_hour(timezone.now() - MINUTES_KEPT)


def _floor_hour(moment: datetime) -> datetime:
    return moment - (moment - EPOCH) % HOUR


def _aggregate(hour: datetime, grain: Rollup.Grain) -> Iterator[Rollup]:
    """The rows of one hour. The database groups by latency bucket too, so that one pass gives sums and histograms;
    what comes back is a few rows per group, however many events there are."""
    by = ("minute", "outcome") if grain == Rollup.Grain.MINUTE else (*DIMENSIONS, "outcome")
    groups: dict[tuple[Any, ...], Rollup] = {}
    for row in _buckets(hour, by):
        key = tuple(row[name] for name in by)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _empty_rollup(hour, grain, dict(zip(by, key, strict=True)))
        for name in SUMS:
            setattr(group, name, getattr(group, name) + row["sum_" + name])
        group.latency_histogram[row["latency_bucket"]] += row["sum_calls"]
        if row["first_byte_bucket"] != NO_FIRST_BYTE:
            group.first_byte_histogram[row["first_byte_bucket"]] += row["sum_calls"]
    yield from groups.values()


def _buckets(hour: datetime, by: tuple[str, ...]) -> Iterable[Mapping[str, Any]]:
    first, last = id_range(hour, hour + HOUR)
    computed: dict[str, Any] = {name: expression for name, expression in COMPUTED.items() if name in by}
    computed |= {"latency_bucket": _bucket_of("latency_us"), "first_byte_bucket": _bucket_of("first_byte_us")}
    columns = [name for name in by if name not in computed]
    rows: Iterable[Mapping[str, Any]] = (
        UsageEvent.objects.filter(id__gte=first, id__lt=last)
        .order_by()
        .values(*columns, **computed)
        .annotate(
            sum_calls=Count("*"),
            sum_unpriced_calls=Count("pk", filter=Q(cost_nano_usd__isnull=True)),
            sum_prompt_tokens=Sum("prompt_tokens"),
            sum_completion_tokens=Sum("completion_tokens"),
            sum_cost_nano_usd=Sum("cost_nano_usd", default=0),
            sum_latency_us=Sum("latency_us"),
        )
    )
    return rows


def _empty_rollup(hour: datetime, grain: Rollup.Grain, group: dict[str, Any]) -> Rollup:
    start = hour + group.pop("minute", 0) * MINUTE
    return Rollup(
        grain=grain,
        start=start,
        **group,
        **dict.fromkeys(SUMS, 0),
        latency_histogram=histogram.empty(),
        first_byte_histogram=histogram.empty(),
    )


def _bucket_of(column: str) -> Case:
    """usage.histogram.bucket in SQL."""
    within = (When(**{f"{column}__lte": bound}, then=Value(index)) for index, bound in enumerate(histogram.BOUNDS_US))
    return Case(
        When(**{f"{column}__isnull": True}, then=Value(NO_FIRST_BYTE)), *within, default=Value(len(histogram.BOUNDS_US))
    )


OUTCOME = Case(
    When(status=499, then=Value(Rollup.Outcome.ABANDONED)),
    When(Q(status__gte=500) | Q(status=0), then=Value(Rollup.Outcome.FAILED)),
    When(status__gte=400, then=Value(Rollup.Outcome.REFUSED)),
    default=Value(Rollup.Outcome.OK),
    output_field=models.CharField(),
)
COMPUTED = {"minute": MinuteOfHour("at"), "outcome": OUTCOME}
