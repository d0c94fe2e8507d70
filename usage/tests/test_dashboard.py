"""The front page's figures: from rollups only, right, and few queries."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Team
from accounts.services import create_key
from usage import dashboard
from usage.display import compact
from usage.models import UsageEvent
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db


@pytest.fixture
def traffic(research: Team) -> None:
    """Three calls in this minute, two of them errors; one unpriced call five hours ago."""
    key, _ = create_key("laptop", research)
    now = timezone.now()
    add(now, cost_nano_usd=2_000_000_000, team_id=research.pk, key_id=key.pk, latency_us=800_000)
    add(now, status=429, error_code="rate_limit_exceeded", cost_nano_usd=0)
    add(now, status=502, error_code="upstream_unavailable", cost_nano_usd=0)
    add(now - timedelta(hours=5), cost_nano_usd=None, model="llama")
    roll_up_all()


def test_day_without_calls_is_quiet() -> None:
    assert dashboard.figures() == {"quiet": True}


def test_cards_tell_the_last_hour_and_the_last_day(traffic: None) -> None:
    calls, spend, failed, latency = dashboard.figures()["cards"]
    assert (calls.hour, calls.day) == ("3", "4")
    assert (spend.hour, spend.day, spend.day_note) == ("$2.00", "$2.00", "1 call unpriced")
    assert (failed.hour, failed.hour_note) == ("33 %", "1 failed, 1 refused")
    assert failed.alarm
    assert latency.hour.endswith("ms")


def test_refused_calls_are_no_failures() -> None:
    add(timezone.now(), count=9, status=429, error_code="rate_limit_exceeded", cost_nano_usd=0)
    add(timezone.now())
    roll_up_all()
    failed = dashboard.figures()["cards"][2]
    assert (failed.title, failed.hour, failed.hour_note) == ("Failed calls", "0 %", "0 failed, 9 refused")
    assert not failed.alarm


def test_charts_add_up_to_the_cards(traffic: None) -> None:
    (_, (calls, _, spend)), (_, day) = dashboard.figures()["columns"]
    data = json.loads(calls.data)
    assert sum(sum(series["data"]) for series in data["datasets"]) == 3
    assert len(data["labels"]) == 60
    assert len(json.loads(day[0].data)["labels"]) == 24
    assert sum(json.loads(spend.data)["datasets"][0]["data"]) == 2.0


def test_charts_say_the_same_in_words(traffic: None) -> None:
    (_, (calls, _, spend)), _ = dashboard.figures()["columns"]
    assert calls.summary.startswith("At most 3 in a minute")
    assert spend.summary.startswith("At most $2.00 in a minute")


def test_rankings_lead_to_the_calls(traffic: None, research: Team) -> None:
    models, teams, keys = dashboard.figures()["rankings"]
    assert [entry.name for entry in models.entries] == ["gpt", "llama"]
    assert [entry.percent for entry in models.entries] == [100, 0]
    assert models.entries[1].unpriced
    assert models.entries[0].url.endswith("?model=gpt")
    assert teams.entries[0].name == "research"
    assert teams.entries[0].url.endswith(f"?team__id__exact={research.pk}")
    assert keys.entries[0].name.startswith("laptop (")


def test_figures_take_six_queries_and_no_event(traffic: None, django_assert_num_queries: Any) -> None:
    UsageEvent.objects.all().delete()
    with django_assert_num_queries(6):
        assert dashboard.figures()["cards"][0].day == "4"


@pytest.mark.parametrize(
    ("tokens", "words"), [(999, "999"), (12_345, "12.3k"), (4_500_000, "4.5M"), (7_200_000_000, "7.2B")]
)
def test_large_numbers_are_short(tokens: int, words: str) -> None:
    assert compact(tokens) == words
