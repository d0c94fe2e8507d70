"""What a month will have cost at its end, from what it has cost so far."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

DAY = timedelta(days=1)
FEWEST_DAYS = 3
SATURDAY = 5

METHOD = (
    "What this month has cost so far, and for each day that is left what an average day of this month did: a working "
    "day counts as the working days so far, a Saturday or Sunday as the weekends so far. Shown from the third whole "
    "day with usage on. Days are in UTC."
)


@dataclass(frozen=True, slots=True)
class Forecast:
    spent_nano_usd: int  # this month, today included
    nano_usd: int  # at the month's end
    end: date  # its last day


def month_end(spent: Mapping[date, int], today: date) -> Forecast | None:
    """`spent`: nano-USD of the days of this month that saw calls. None: fewer than three whole days are known.

    Days before the month's first call do not count: an installation that is a week old has no cheap days before.
    """
    days = [today.replace(day=day) for day in range(1, calendar.monthrange(today.year, today.month)[1] + 1)]
    begun = min(spent, default=today)
    whole = [day for day in days if begun <= day < today]
    if len(whole) < FEWEST_DAYS:
        return None
    # What is left of today: as much as it falls short of an average one.
    rest = max(_average(spent, whole, today) - spent.get(today, 0), 0)
    rest += sum(_average(spent, whole, day) for day in days if day > today)
    so_far = sum(spent.get(day, 0) for day in days if day <= today)
    return Forecast(so_far, so_far + rest, days[-1])


def _average(spent: Mapping[date, int], whole: Iterable[date], like: date) -> int:
    """Of the whole days of the same sort; of all of them when there was none of that sort yet."""
    whole = list(whole)
    alike = [day for day in whole if _is_weekend(day) == _is_weekend(like)] or whole
    return sum(spent.get(day, 0) for day in alike) // len(alike)


def _is_weekend(day: date) -> bool:
    return day.weekday() >= SATURDAY
