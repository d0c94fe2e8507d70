"""Sums over any time, filtered and grouped: they are those of the events."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.models import Team
from accounts.services import create_key
from usage import histogram, reports, subtotals
from usage.models import Rollup, UsageEvent
from usage.reports import NOBODY, Report, Selection, report, spend_forecast
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db

FIRST = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def shown(group: str = "team", days: int = 10, measure: str = "spend", rows: int = 50, **filters: Any) -> Report:
    return report(Selection(FIRST, FIRST + days * DAY, filters, group, measure), rows)  # type: ignore[arg-type]


def costs(found: Report) -> dict[str, int]:
    return {line.name: line.sums.cost_nano_usd for line in found.lines}


@pytest.fixture
def traffic(research: Team) -> None:
    """Of research on two days, of a deleted team, and of nobody."""
    add(FIRST + HOUR, team_id=research.pk, cost_nano_usd=100, key_id=1, user_id=7)
    add(FIRST + 5 * DAY, team_id=research.pk, cost_nano_usd=50, model="llama", provider="local")
    add(FIRST + 5 * DAY, team_id=4711, cost_nano_usd=400)
    add(FIRST + 6 * DAY, status=429, error_code="rate_limit_exceeded", cost_nano_usd=0, prompt_tokens=0)
    add(FIRST + 6 * DAY, status=502, error_code="upstream_unavailable", cost_nano_usd=None)
    add(FIRST + 6 * DAY, status=499, cost_nano_usd=5)
    add(FIRST - timedelta(seconds=1), cost_nano_usd=10**9)
    add(FIRST + 10 * DAY, cost_nano_usd=10**9)
    roll_up_all()


def test_sums_are_those_of_the_events_of_the_time(traffic: None) -> None:
    total = shown().total
    assert (total.calls, total.refused, total.failed, total.abandoned, total.errors) == (6, 1, 1, 1, 2)
    assert (total.cost_nano_usd, total.unpriced_calls) == (555, 1)
    assert (total.prompt_tokens, total.completion_tokens, total.tokens) == (500, 120, 620)


def test_days_need_no_event(traffic: None) -> None:
    UsageEvent.objects.all().delete()
    assert shown().total.calls == 6


def test_up_to_three_days_are_read_by_hour(traffic: None) -> None:
    Rollup.objects.filter(grain=Rollup.Grain.DAY).delete()
    found = shown(days=3)
    assert found.total.calls == 1
    assert found.selection.starts[1] - found.selection.starts[0] == HOUR
    assert [len(found.points), found.points[1][0].calls] == [72, 1]


def test_lines_are_ranked_and_named(traffic: None) -> None:
    assert list(costs(shown()).items()) == [("(deleted team 4711)", 400), ("research", 150), ("(no team)", 5)]


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("model", ["gpt", "llama"]),
        ("provider", ["openai", "local"]),
        ("key", ["(no key)", "(deleted key 1)"]),
        ("user", ["(no user)", "(deleted user 7)"]),
    ],
)
def test_everything_can_be_grouped_by(traffic: None, group: str, names: list[str]) -> None:
    assert [line.name for line in shown(group).lines] == names


def test_times_come_newest_first_and_quiet_ones_are_left_out(traffic: None) -> None:
    found = shown("time")
    assert [line.group for line in found.lines] == [FIRST + 6 * DAY, FIRST + 5 * DAY, FIRST]
    assert [line.sums.cost_nano_usd for line in found.lines] == [5, 450, 100]
    assert found.charted == []


@pytest.mark.parametrize(
    ("measure", "first"),
    [("spend", "(deleted team 4711)"), ("calls", "(no team)"), ("failed", "(no team)"), ("refused", "(no team)")],
)
def test_lines_are_ranked_by_what_is_shown(traffic: None, measure: str, first: str) -> None:
    assert shown(measure=measure).lines[0].name == first


def test_filters_apply_together(traffic: None, research: Team) -> None:
    assert shown(team=research.pk).total.cost_nano_usd == 150
    assert shown(team=research.pk, model="llama").total.cost_nano_usd == 50
    assert shown(team=NOBODY).total.calls == 3
    assert shown(provider="nobody").total.calls == 0


def test_what_is_not_listed_is_summed_up(traffic: None) -> None:
    found = shown(rows=1)
    assert [line.sums.cost_nano_usd for line in found.lines] == [400]
    assert found.others
    assert (found.others.calls, found.others.cost_nano_usd) == (5, 155)
    assert shown().others is None


def test_chart_adds_up_to_the_total_and_has_the_first_five_apart() -> None:
    for number in range(8):
        add(FIRST + number * DAY, team_id=number + 1, cost_nano_usd=1000 - number)
    roll_up_all()
    found = shown()
    assert found.charted == [f"(deleted team {number})" for number in range(1, 6)]
    assert [len(point) for point in found.points] == [6] * 10
    assert sum(part.cost_nano_usd for point in found.points for part in point) == found.total.cost_nano_usd
    assert [point[-1].cost_nano_usd for point in found.points] == [0] * 5 + [995, 994, 993, 0, 0]


def test_group_without_a_name_has_a_colour_of_its_own(traffic: None) -> None:
    found = shown()
    assert found.charted[2] == "(no team)"
    assert [point[2].calls for point in found.points] == [0, 0, 0, 0, 0, 0, 3, 0, 0, 0]


# --- latencies ------------------------------------------------------------------------------------------------------
def test_percentiles_are_of_answered_calls_of_all_days() -> None:
    for day in range(10):
        add(FIRST + day * DAY, count=9, latency_us=90_000, first_byte_us=40_000)
        add(FIRST + day * DAY, latency_us=9_000_000, first_byte_us=None)
        add(FIRST + day * DAY, status=502, error_code="upstream_unavailable", latency_us=500_000_000)
    roll_up_all()
    latencies = shown().latencies
    assert latencies.calls == 100
    assert (latencies.percentile_us(0.5) or 0) <= 100_000
    assert 6_000_000 < (latencies.percentile_us(0.95) or 0) <= 10_000_000
    assert (latencies.first_byte_us(0.99) or 0) <= 50_000


def test_lines_have_latencies_of_their_own(research: Team) -> None:
    add(FIRST, team_id=research.pk, latency_us=90_000)
    add(FIRST, latency_us=9_000_000, cost_nano_usd=1)
    roll_up_all()
    quick, slow = shown().lines
    assert (quick.latencies.percentile_us(1) or 0) <= 100_000 < (slow.latencies.percentile_us(0) or 0)


def test_only_the_busiest_are_read_for_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    add(FIRST, count=3, team_id=1)
    add(FIRST, count=2, team_id=2)
    add(FIRST, count=1, team_id=3)
    roll_up_all()
    monkeypatch.setattr(reports, "MAX_HISTOGRAMS", 2)
    found = shown(model="gpt", provider="openai")
    assert (found.latencies.calls, found.total.calls) == (5, 6)
    assert [line.latencies.calls for line in found.lines] == [3, 2, 0]
    assert found.lines[2].latencies.percentile_us(0.5) is None


@pytest.mark.parametrize("filters", [{}, {"model": "gpt"}], ids=str)
def test_latencies_of_all_calls_are_of_all_with_one_filter_at_most(
    filters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for team in (1, 2, 3):
        add(FIRST, count=4 - team, team_id=team)
    roll_up_all()
    monkeypatch.setattr(reports, "MAX_HISTOGRAMS", 2)
    found = shown(**filters)
    assert (found.latencies.calls, found.total.calls) == (6, 6)
    assert [line.latencies.calls for line in found.lines] == [3, 2, 0]


def test_nothing_used_is_an_empty_report() -> None:
    found = shown()
    assert (found.total.calls, found.lines, found.others, len(found.points)) == (0, [], None, 10)


@pytest.mark.parametrize("group", ["team", "user", "key", "model", "provider", "time"])
def test_report_takes_four_queries(traffic: None, group: str, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(4):
        shown(group)


def test_key_goes_by_its_name_and_public_id(research: Team) -> None:
    key, _ = create_key("laptop", research)
    add(FIRST, key_id=key.pk)
    roll_up_all()
    assert shown("key").lines[0].name == f"laptop ({key.public_id})"


# --- two places where it is read from -------------------------------------------------------------------------------
@pytest.mark.parametrize("group", ["team", "user", "key", "model", "provider", "time"])
@pytest.mark.parametrize(
    "filters",
    [{}, {"team": 2}, {"team": NOBODY}, {"key": 1}, {"user": 7}, {"model": "b"}, {"provider": "openai"}],
    ids=str,
)
def test_subtotals_say_the_same_as_rollups(
    group: Any, filters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pick = random.Random(1).choice
    for _ in range(60):
        ids = {"key_id": pick([None, 1, 2, 30]), "user_id": pick([None, 7]), "team_id": pick([None, 1, 2])}
        add(
            FIRST + pick(range(48)) * HOUR,
            model=pick(["", "a", "b"]), provider=pick(["", "openai"]), status=pick([200, 200, 200, 429, 499, 502]),
            cost_nano_usd=pick([None, 1, 10**12]), latency_us=pick([90_000, 9_000_000]), **ids,
        )  # fmt: skip
    roll_up_all()
    for days in (2, 10):
        for measure in ("spend", "calls", "failed", "refused"):
            fast = shown(group, days, measure, 2, **filters)
            with monkeypatch.context() as patched:
                patched.setattr(Selection, "member", None)
                assert fast == shown(group, days, measure, 2, **filters)
                patched.setattr(Selection, "whole", None)
                assert fast == shown(group, days, measure, 2, **filters)


@pytest.mark.parametrize("query", [{}, {"team": 2}, {"group": "time", "model": "gpt"}], ids=str)
def test_one_dimension_needs_no_rollup(
    traffic: None, query: dict[str, Any], django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(4) as queries:
        shown(**query)
    assert not [query for query in queries if "usage_rollup" in query["sql"]]


@pytest.mark.parametrize("group", ["team", "key", "model"])
def test_with_one_filter_only_the_ranking_reads_all_rollups(
    group: str, django_assert_max_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is of the groups that it has chosen, and what all of them used is a subtotal."""
    for number in range(1, 9):
        add(FIRST + number * HOUR, team_id=number, key_id=number, model=f"model-{number}", cost_nano_usd=100 - number)
    roll_up_all()
    with django_assert_max_num_queries(5) as queries:
        found = shown(group, rows=2, provider="openai")
    rollups = [query["sql"] for query in queries if "usage_rollup" in query["sql"]]
    assert len(rollups) == 3
    assert len([sql for sql in rollups if f'{reports.COLUMNS[group]}" IN (' not in sql]) == 1
    assert [line.sums.calls for line in found.lines] == [1, 1]
    assert (found.total.calls, found.latencies.calls) == (8, 8)


# --- forecast -------------------------------------------------------------------------------------------------------
def test_forecast_is_of_what_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("usage.reports.timezone.now", lambda: datetime(2026, 11, 11, 0, 5, tzinfo=UTC))
    histogram_of_none = histogram.empty()
    Rollup.objects.bulk_create(
        Rollup(
            grain=Rollup.Grain.DAY, start=FIRST + day * DAY, team_id=team, outcome="ok", calls=1, unpriced_calls=0,
            prompt_tokens=1, completion_tokens=1, cost_nano_usd=team, latency_us=1,
            latency_histogram=histogram_of_none, first_byte_histogram=histogram_of_none,
        )
        for day in range(-3, 10)
        for team in (1, 20)
    )  # fmt: skip
    subtotals.add_up(Rollup.Grain.DAY, FIRST - 3 * DAY, FIRST + 10 * DAY)
    everybody, one = spend_forecast({}), spend_forecast({"team": 20})
    assert everybody
    assert one
    assert (everybody.spent_nano_usd, everybody.nano_usd, one.nano_usd) == (210, 630, 600)
