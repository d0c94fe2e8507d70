"""The windows of budgets: in which hour, day, week or month a moment lies, where the owner of the budget lives. Pure.

A window begins and ends by the clock of its time zone, so a day with a change of clocks has 23 or 25 hours, and the
hour that comes twice in autumn is two windows. All moments here are UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from accounts.time_ids import EPOCH, MICROSECOND, to_unix_us

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FOR_EVER_US = 1 << 62


class Window(NamedTuple):
    """From `start` on and before `end`; None: without an end."""

    start: datetime
    end: datetime | None


class UnknownZone(ValueError):
    """No time zone of that name."""


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownZone(f"{name!r} is not a time zone such as Europe/Berlin") from None


def window_at(per: str, zone: str, at: datetime, counts_from: datetime) -> Window:
    """The window of `at`. `per`: hour, day, week, month, or total, which begins at `counts_from` and has no end.

    Raises UnknownZone."""
    if per == "total":
        return Window(counts_from.astimezone(UTC), None)
    local = at.astimezone(zone_of(zone))
    if per == "hour":
        return _hour(local)
    first = local.date()
    if per == "day":
        last = first + DAY
    elif per == "week":
        first -= first.weekday() * DAY
        last = first + 7 * DAY
    elif per == "month":
        first = first.replace(day=1)
        last = (first + 31 * DAY).replace(day=1)
    else:
        raise ValueError(f"no such window: {per}")
    midnight = time(tzinfo=local.tzinfo)
    # Where midnight is skipped, the day begins at the moment of the jump; where it comes twice, at the first one.
    return Window(datetime.combine(first, midnight).astimezone(UTC), datetime.combine(last, midnight).astimezone(UTC))


def window_at_us(per: str, zone: str, at_us: int, counts_from: datetime) -> tuple[int, int]:
    """The same in microseconds of unix time; FOR_EVER_US: without an end. Raises UnknownZone."""
    window = window_at(per, zone, EPOCH + at_us * MICROSECOND, counts_from)
    return to_unix_us(window.start), FOR_EVER_US if window.end is None else to_unix_us(window.end)


def _hour(local: datetime) -> Window:
    at = local.astimezone(UTC)
    wall = local.replace(minute=0, second=0, microsecond=0)
    start = wall.astimezone(UTC)
    if start.astimezone(local.tzinfo).utcoffset() != local.utcoffset():
        # Lord Howe puts its clocks back by half an hour: from 02:00 to 01:30, in the midst of an hour on the wall.
        start = _change(start, at, local)
    # On the wall the next hour may be two hours away (the clock is put back), by the sun half of one (Lord Howe).
    ends = (start + HOUR, (wall.replace(fold=0) + HOUR).astimezone(UTC))
    return Window(start, min(end for end in ends if end > at))


def _change(before: datetime, after: datetime, local: datetime) -> datetime:
    """When the clocks were changed that `local` is read from: the first whole second with its offset."""
    while after - before > SECOND:
        middle = (before + (after - before) / 2).replace(microsecond=0)
        if middle.astimezone(local.tzinfo).utcoffset() == local.utcoffset():
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)
