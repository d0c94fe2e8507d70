"""Windows of budgets: they begin where the owner's clock says so, also when the clocks change."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.windows import UnknownZone, window_at, window_at_us

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
    "Africa/Cairo", "Pacific/Apia", "Asia/Kathmandu", "America/St_Johns",
)  # fmt: skip


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def bounds(per: str, zone: str, at: str) -> tuple[str, str]:
    start, end = window_at(per, zone, utc(at), EPOCH)
    assert end is not None
    return f"{start:%Y-%m-%d %H:%M}", f"{end:%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("per", "zone", "at", "start", "end"),
    [
        ("hour", "UTC", "2026-11-21 16:59:59", "2026-11-21 16:00", "2026-11-21 17:00"),
        ("hour", "Asia/Kolkata", "2026-11-21 16:10", "2026-11-21 15:30", "2026-11-21 16:30"),
        ("day", "UTC", "2026-11-21 00:00", "2026-11-21 00:00", "2026-11-22 00:00"),
        ("day", "Europe/Berlin", "2026-11-21 23:30", "2026-11-21 23:00", "2026-11-22 23:00"),
        ("day", "America/New_York", "2026-11-21 03:00", "2026-11-20 05:00", "2026-11-21 05:00"),
        ("week", "UTC", "2026-11-22 23:59", "2026-11-16 00:00", "2026-11-23 00:00"),
        ("week", "UTC", "2026-11-23 00:00", "2026-11-23 00:00", "2026-11-30 00:00"),
        ("month", "Europe/Berlin", "2026-11-30 23:30", "2026-11-30 23:00", "2026-12-31 23:00"),
        ("month", "UTC", "2028-02-29 12:00", "2028-02-01 00:00", "2028-03-01 00:00"),
    ],
)
def test_window(per: str, zone: str, at: str, start: str, end: str) -> None:
    assert bounds(per, zone, at) == (start, end)


def test_day_of_spring_has_23_hours_and_that_of_autumn_25() -> None:
    spring = window_at("day", "Europe/Berlin", utc("2026-03-29 12:00"), EPOCH)
    autumn = window_at("day", "Europe/Berlin", utc("2026-10-25 12:00"), EPOCH)
    assert (spring.end - spring.start, autumn.end - autumn.start) == (timedelta(hours=23), timedelta(hours=25))  # type: ignore[operator]


def test_hour_that_comes_twice_is_two_windows() -> None:
    """In Berlin, 02:30 of 2026-10-25 is at 00:30 and at 01:30 UTC."""
    assert bounds("hour", "Europe/Berlin", "2026-10-25 00:30") == ("2026-10-25 00:00", "2026-10-25 01:00")
    assert bounds("hour", "Europe/Berlin", "2026-10-25 01:30") == ("2026-10-25 01:00", "2026-10-25 02:00")


def test_half_an_hour_that_comes_twice_is_a_window_of_its_own() -> None:
    """On Lord Howe the clocks went from 02:00 back to 01:30 at 15:00 UTC of 2027-04-03."""
    assert bounds("hour", "Australia/Lord_Howe", "2027-04-03 14:45") == ("2027-04-03 14:00", "2027-04-03 15:00")
    assert bounds("hour", "Australia/Lord_Howe", "2027-04-03 15:00") == ("2027-04-03 15:00", "2027-04-03 15:30")
    assert bounds("hour", "Australia/Lord_Howe", "2027-04-03 15:10") == ("2027-04-03 15:00", "2027-04-03 15:30")
    assert bounds("hour", "Australia/Lord_Howe", "2027-04-03 15:30") == ("2027-04-03 15:30", "2027-04-03 16:30")


def test_month_with_a_change_of_clocks_lasts_an_hour_more() -> None:
    assert bounds("month", "Europe/Berlin", "2026-10-10 00:00") == ("2026-09-30 22:00", "2026-10-31 23:00")


def test_day_whose_midnight_is_skipped_begins_at_the_jump() -> None:
    """In Cairo, 2026-04-24 begins at 01:00."""
    assert bounds("day", "Africa/Cairo", "2026-04-24 12:00") == ("2026-04-23 22:00", "2026-04-24 21:00")


def test_day_whose_midnight_comes_twice_begins_at_the_first_one() -> None:
    """In Havana the clocks go from 01:00 back to midnight on 2026-11-01."""
    assert bounds("day", "America/Havana", "2026-11-01 05:30")[0] == "2026-11-01 04:00"


def test_total_begins_when_it_counts_from_and_never_ends() -> None:
    began = utc("2026-11-20 08:15")
    assert window_at("total", "Europe/Berlin", utc("2027-01-01 00:00"), began) == (began, None)


@given(
    per=st.sampled_from(["hour", "day", "week", "month"]),
    zone=st.sampled_from(ZONES),
    at=st.datetimes(datetime(2011, 1, 1), datetime(2039, 1, 1)),
)
def test_moment_lies_in_its_window_and_the_end_in_the_next(per: str, zone: str, at: datetime) -> None:
    at_us = (at.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    start, end = window_at_us(per, zone, at_us, EPOCH)
    assert start <= at_us < end
    assert window_at_us(per, zone, start, EPOCH)[0] == start
    assert window_at_us(per, zone, end - 1, EPOCH)[0] == start
    assert window_at_us(per, zone, end, EPOCH)[0] == end


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "UTC\0"])
def test_unknown_zone_is_told(zone: str) -> None:
    with pytest.raises(UnknownZone):
        window_at("day", zone, utc("2026-11-21 00:00"), EPOCH)


def test_zones_are_known_on_a_machine_that_has_none() -> None:
    """As in a slim container image: then they come from the tzdata package."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([])
    try:
        assert zoneinfo.ZoneInfo.no_cache("Europe/Berlin").utcoffset(datetime(2026, 7, 1)) == timedelta(hours=2)
    finally:
        zoneinfo.reset_tzpath(before)
