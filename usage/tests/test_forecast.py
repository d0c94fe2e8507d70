"""What a month will have cost, from its days so far."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from usage.forecast import month_end

MONDAY = date(2026, 11, 2)  # November 2026 begins on a Sunday and has 30 days


def days(first: date, *spent: int) -> dict[date, int]:
    return {first + timedelta(days=index): nano for index, nano in enumerate(spent)}


def test_even_spending_goes_on_evenly() -> None:
    spent = days(date(2026, 11, 1), *[100] * 10)
    found = month_end(spent, date(2026, 11, 10))
    assert found
    assert (found.spent_nano_usd, found.nano_usd, found.end) == (1_000, 3_000, date(2026, 11, 30))


def test_weekends_are_as_cheap_as_they_were() -> None:
    spent = days(date(2026, 11, 1), 0, 10, 10, 10, 10, 10, 0)  # Sunday to Saturday
    found = month_end(spent, date(2026, 11, 8))
    assert found
    assert found.nano_usd == 21 * 10  # working days of the month


def test_weekend_that_was_not_seen_yet_is_taken_for_an_ordinary_day() -> None:
    found = month_end(days(MONDAY, 10, 10, 10), date(2026, 11, 5))
    assert found
    assert found.nano_usd == 29 * 10


def test_what_today_has_cost_already_is_not_counted_twice() -> None:
    found = month_end(days(MONDAY, 10, 10, 10, 4), date(2026, 11, 5))
    assert found
    assert (found.spent_nano_usd, found.nano_usd) == (34, 29 * 10)


def test_dear_day_today_is_not_expected_again() -> None:
    found = month_end(days(MONDAY, 10, 10, 10, 50), date(2026, 11, 5))
    assert found
    assert found.nano_usd == 29 * 10 + 40


def test_quiet_days_count_as_days_without_cost() -> None:
    found = month_end({MONDAY: 40, MONDAY + timedelta(days=3): 40}, MONDAY + timedelta(days=4))
    assert found
    assert found.nano_usd == 80 + 25 * 20


@pytest.mark.parametrize("count", [0, 1, 2])
def test_nothing_is_said_after_two_whole_days(count: int) -> None:
    assert month_end(days(MONDAY, *[10] * count), MONDAY + timedelta(days=count)) is None


def test_days_of_other_months_do_not_count() -> None:
    spent = days(MONDAY, 10, 10, 10) | {date(2026, 12, 1): 10_000}
    found = month_end(spent, date(2026, 11, 5))
    assert found
    assert found.nano_usd == 29 * 10
