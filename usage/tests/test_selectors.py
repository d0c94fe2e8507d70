"""What the dashboards show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from usage.rollups import roll_up
from usage.selectors import Period, Share, last_day, last_hour, top
from usage.tests.events import add

NOW = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def calls_of(period: Period) -> dict[datetime, int]:
    return {point.start: point.calls for point in period.points if point.calls}


def names_and_calls(shares: list[Share]) -> list[tuple[str, int]]:
    return [(share.name, share.calls) for share in shares]


# --- periods --------------------------------------------------------------------------------------------------------
def test_last_hour_is_sixty_minutes_up_to_this_one() -> None:
    period = last_hour()
    assert len(period.points) == 60
    assert period.points[0].start == NOW.replace(minute=35, second=0) - HOUR
    assert period.points[-1].start == NOW.replace(second=0)


def test_last_day_is_twenty_four_hours_up_to_this_one() -> None:
    period = last_day()
    assert len(period.points) == 24
    assert period.points[0].start == datetime(2026, 11, 19, 13, tzinfo=UTC)
    assert period.points[-1].start == datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_quiet_period_is_all_zeros_without_latencies() -> None:
    total = last_hour().total
    assert (total.calls, total.errors, total.cost_nano_usd, total.p50_us, total.p95_us) == (0, 0, 0, None, None)


def test_calls_fall_into_their_minute_and_their_hour() -> None:
    for ago in (timedelta(), 2 * MINUTE, 59 * MINUTE, 61 * MINUTE, 23 * HOUR, 25 * HOUR):
        add(NOW - ago)
    roll_up()
    minute, hour = NOW.replace(second=0), NOW.replace(minute=0, second=0)
    assert calls_of(last_hour()) == {minute - 59 * MINUTE: 1, minute - 2 * MINUTE: 1, minute: 1}
    assert calls_of(last_day()) == {hour - 23 * HOUR: 1, hour - HOUR: 2, hour: 2}
    assert (last_hour().total.calls, last_day().total.calls) == (3, 5)


def test_call_with_a_time_of_the_future_breaks_nothing() -> None:
    add(NOW + 5 * MINUTE)
    add(NOW + 2 * HOUR)
    roll_up()
    assert calls_of(last_hour()) == {}


def test_spend_tokens_and_kinds_of_errors_are_told_apart() -> None:
    for status, count in ((200, 4), (429, 3), (502, 2), (0, 1), (499, 5)):
        add(NOW, count=count, status=status, cost_nano_usd=10, prompt_tokens=7, completion_tokens=3)
    add(NOW, cost_nano_usd=None, prompt_tokens=0, completion_tokens=0)
    roll_up()
    for total in (last_hour().total, last_day().total, last_hour().points[-1]):
        assert (total.calls, total.refused, total.failed, total.abandoned, total.errors) == (16, 3, 3, 5, 6)
        assert (total.cost_nano_usd, total.unpriced_calls) == (150, 1)
        assert (total.prompt_tokens, total.completion_tokens) == (105, 45)


def test_latencies_are_those_of_answered_calls() -> None:
    add(NOW, count=90, latency_us=800_000, first_byte_us=200_000)
    add(NOW, count=10, latency_us=20_000_000, first_byte_us=200_000)
    add(NOW, count=500, status=429, latency_us=500)
    roll_up()
    total = last_hour().total
    assert total.p50_us and total.p95_us and total.first_byte_p95_us
    assert 750_000 <= total.p50_us <= 1_000_000
    assert 15_000_000 <= total.p95_us <= 25_000_000
    assert 100_000 <= total.first_byte_p95_us <= 250_000


def test_percentiles_of_the_day_are_not_an_average_of_its_hours() -> None:
    add(NOW - 5 * HOUR, count=99, latency_us=100_000)
    add(NOW, latency_us=50_000_000)
    roll_up()
    total = last_day().total
    assert total.p50_us and total.p50_us <= 100_000


# --- who used the most ----------------------------------------------------------------------------------------------
def test_top_is_by_cost_then_by_calls() -> None:
    add(NOW, model="dear", cost_nano_usd=100)
    add(NOW, model="busy", cost_nano_usd=1, count=3)
    add(NOW, model="quiet", cost_nano_usd=3)
    roll_up()
    assert names_and_calls(top("model", NOW - HOUR)) == [("dear", 1), ("busy", 3), ("quiet", 1)]
    assert names_and_calls(top("model", NOW - HOUR, limit=1)) == [("dear", 1)]


def test_top_counts_from_the_hour_of_since() -> None:
    add(NOW - 3 * HOUR)
    add(NOW - 2 * HOUR)
    roll_up()
    assert [share.calls for share in top("provider", NOW - 2 * HOUR)] == [1]


def test_keys_users_and_teams_are_shown_by_name(alice: User, research: Team) -> None:
    key = ApiKey.objects.create(public_id="PublicId0001", name="laptop", user=alice, team=research)
    add(NOW, key_id=key.pk, user_id=alice.pk, team_id=research.pk)
    roll_up()
    found = {dimension: top(dimension, NOW)[0] for dimension in ("key", "user", "team")}  # type: ignore[arg-type]
    assert {dimension: share.name for dimension, share in found.items()} == {
        "key": "laptop (PublicId0001)",
        "user": "alice",
        "team": "research",
    }
    assert {dimension: share.id for dimension, share in found.items()} == {
        "key": key.pk,
        "user": alice.pk,
        "team": research.pk,
    }


def test_calls_without_a_key_and_of_deleted_ones_are_still_there() -> None:
    add(NOW, cost_nano_usd=5_000)
    add(NOW, key_id=77)
    add(NOW, model="", cost_nano_usd=9_000)
    roll_up()
    assert names_and_calls(top("key", NOW)) == [("(no key)", 2), ("(deleted key 77)", 1)]
    assert names_and_calls(top("model", NOW)) == [("(no model)", 1), ("gpt", 2)]


def test_share_tells_errors_tokens_and_unpriced_calls() -> None:
    for status in (200, 404, 500, 499):
        add(NOW, status=status, cost_nano_usd=None, prompt_tokens=2, completion_tokens=1)
    roll_up()
    (share,) = top("model", NOW)
    assert (share.calls, share.refused, share.failed, share.abandoned, share.errors) == (4, 1, 1, 1, 2)
    assert (share.prompt_tokens, share.completion_tokens) == (8, 4)
    assert (share.cost_nano_usd, share.unpriced_calls) == (0, 4)


# --- what it costs the database -------------------------------------------------------------------------------------
def test_each_takes_one_query(django_assert_num_queries: Any, alice: User) -> None:
    add(NOW, user_id=alice.pk)
    roll_up()
    for select in (last_hour, last_day, lambda: top("user", NOW), lambda: top("key", NOW), lambda: top("model", NOW)):
        with django_assert_num_queries(1) as queries:
            select()
        assert "usage_usageevent" not in queries.captured_queries[0]["sql"]
