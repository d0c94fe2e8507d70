"""Primary keys that rise with time: UUIDs of version 7, whose first 60 bits tell the moment to the microsecond.

So a window of time is a range of ids, and needs no index but the primary key's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Far enough from the last moment of `datetime` that an hour and a day can be added, in every zone.
LAST = datetime(9999, 12, 29, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UUID_VERSION_7 = 7 << 76


def id_range(start: datetime, end: datetime) -> tuple[UUID, UUID]:
    """Bounds of the ids from `start` up to, but not including, `end`; exact to the microsecond."""
    return first_id(start), first_id(end)


def first_id(moment: datetime) -> UUID:
    """No id of that moment or later is smaller."""
    return UUID(int=time_bits(to_unix_us(within_reach(moment))))


def within_reach(moment: datetime) -> datetime:
    """`moment`, or the nearest that is neither before the first id nor too late to reckon with: of a time that people
    write, nothing but its part in between can hold any row."""
    return min(max(moment, EPOCH), LAST)


def to_unix_us(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND


def time_bits(at_us: int) -> int:
    """Milliseconds, and 12 bits of what is left (RFC 9562, 6.2, method 3); the variant and 62 bits are still free."""
    ms, us = divmod(at_us, 1000)
    return ms << 80 | UUID_VERSION_7 | (us * 4096 // 1000) << 64
