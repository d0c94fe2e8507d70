"""Sums over events: by minute for the last two days, by hour for ever.

An hour is recomputed whole, by the database, whenever events were added to it, however late; so a roll-up may be
repeated, may be cut off anywhere and may run twice at the same time:

    1  read the hour's marks   every event of a transaction that made these marks is visible from now on
    2  aggregate               sees at least those events; holds no lock, so nobody who inserts waits for it
    3  in one transaction      note the marks as rolled up, unless another roll-up has noted as many; replace the rows

Whoever inserts after 1 leaves more marks than 3 notes, and the hour stays dirty.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.db import connection, transaction
from django.db.models import F
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


def _aggregate(hour: datetime, grain: Rollup.Grain) -> Iterable[Rollup]:
    """The rows of one hour. The database groups by latency bucket too, so that one pass gives sums and histograms;
    what comes back is a few rows per group, however many events there are."""
    by = ("minute", "outcome") if grain == Rollup.Grain.MINUTE else (*DIMENSIONS, "outcome")
    groups: dict[tuple[Any, ...], Rollup] = {}
    for row in _buckets(hour, by):
        *key, latency_bucket, first_byte_bucket = row[: -len(SUMS)]
        group = groups.get(tuple(key))
        if group is None:
            group = groups[tuple(key)] = _empty_rollup(hour, grain, dict(zip(by, key, strict=True)))
        sums = dict(zip(SUMS, row[-len(SUMS) :], strict=True))
        for name, value in sums.items():
            setattr(group, name, getattr(group, name) + value)
        group.latency_histogram[latency_bucket] += sums["calls"]
        if first_byte_bucket is not None:
            group.first_byte_histogram[first_byte_bucket] += sums["calls"]
    return groups.values()


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


def _buckets(hour: datetime, by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Rows of `by`, the two buckets, and SUMS."""
    bounds = [UsageEvent._meta.pk.get_db_prep_value(bound, connection) for bound in id_range(hour, hour + HOUR)]
    with connection.cursor() as cursor:
        cursor.execute(_statement(by), bounds)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


@cache
def _statement(by: tuple[str, ...]) -> str:
    """In SQL by hand: the ORM takes longer to put it together than the database to answer it."""
    columns = [_EXPRESSIONS.get(name, name) for name in (*by, "latency_bucket", "first_byte_bucket")]
    if connection.vendor == "sqlite":
        columns = [_SQLITE_MINUTE if column == _EXPRESSIONS["minute"] else column for column in columns]
    groups = ", ".join(str(number + 1) for number in range(len(columns)))
    selected = ", ".join([*columns, *(_SUM_EXPRESSIONS[name] for name in SUMS)])
    return f"SELECT {selected} FROM usage_usageevent WHERE id >= %s AND id < %s GROUP BY {groups}"  # noqa: S608


def _bucket_of(column: str) -> str:
    """usage.histogram.bucket in SQL; NULL for NULL."""
    within = " ".join(f"WHEN {column} <= {bound} THEN {index}" for index, bound in enumerate(histogram.BOUNDS_US))
    return f"CASE WHEN {column} IS NULL THEN NULL {within} ELSE {len(histogram.BOUNDS_US)} END"


_EXPRESSIONS = {
    "minute": "CAST(EXTRACT(minute FROM at AT TIME ZONE 'UTC') AS integer)",
    "outcome": (
        "CASE WHEN status = 499 THEN 'abandoned' WHEN status >= 500 OR status = 0 THEN 'failed' "
        "WHEN status >= 400 THEN 'refused' ELSE 'ok' END"
    ),
    "latency_bucket": _bucket_of("latency_us"),
    "first_byte_bucket": _bucket_of("first_byte_us"),
}
_SQLITE_MINUTE = "CAST(substr(at, 15, 2) AS integer)"  # of a text such as 2026-11-21 03:59:59.123456
_SUM_EXPRESSIONS = {
    "calls": "count(*)",
    "unpriced_calls": "count(*) FILTER (WHERE cost_nano_usd IS NULL)",
    # The sum of bigints is a numeric on PostgreSQL, which would come as a Decimal.
    **{
        name: f"CAST(coalesce(sum({name}), 0) AS bigint)"
        for name in ("prompt_tokens", "completion_tokens", "cost_nano_usd", "latency_us")
    },
}
