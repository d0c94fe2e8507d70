"""The figures of the admin's front page, from rollups only: six queries, however many calls there were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils import timezone

from accounts.charts import Chart, chart_data, chart_options
from usage import currency, selectors
from usage.display import compact, duration, money, nearly_all_within, share
from usage.selectors import Period, Share, Traffic

DAY = timedelta(days=1)
TOP = 5
US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Card:
    """One figure, of the last hour and of the last day. `alarm`: the hour's is one to look at. `url`: of more on it."""

    title: str
    icon: str
    hour: str
    hour_note: str
    day: str
    day_note: str
    alarm: bool = False
    url: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a ranking. `percent`: of the first one's cost, for its bar."""

    name: str
    url: str
    calls: str
    cost: str
    unpriced: bool
    percent: int


@dataclass(frozen=True, slots=True)
class Ranking:
    title: str
    column: str
    entries: tuple[Entry, ...]


def figures() -> dict[str, Any]:
    """`cards`, `columns` of charts, `rankings`; only `quiet` is true when the last day saw no call."""
    hour, day = selectors.last_hour(), selectors.last_day()
    if not day.total.calls:
        return {"quiet": True}
    return {
        "quiet": False,
        "cards": cards(hour.total, day.total),
        "columns": [("Last hour", charts(hour, "%H:%M", "minute")), ("Last 24 hours", charts(day, "%H:00", "hour"))],
        "rankings": rankings(timezone.now() - DAY),
    }


def cards(hour: Traffic, day: Traffic) -> list[Card]:
    def both(title: str, icon: str, describe: Callable[[Traffic], tuple[str, str]], alarm: bool = False) -> Card:
        return Card(title, icon, *describe(hour), *describe(day), alarm=alarm)

    return [
        both("Calls", "swap_horiz", _calls),
        both("Spend", "payments", _spend),
        both("Failed calls", "error", _failed, alarm=hour.failed * 20 > hour.calls),
        both("Latency, median", "timer", _latency),
    ]


def _calls(traffic: Traffic) -> tuple[str, str]:
    return f"{traffic.calls:,}", f"{compact(traffic.prompt_tokens + traffic.completion_tokens)} tokens"


def _spend(traffic: Traffic) -> tuple[str, str]:
    unpriced = traffic.unpriced_calls
    note = f"{unpriced:,} call{pluralize(unpriced)} unpriced" if unpriced else "all calls priced"
    return money(traffic.cost_nano_usd), note


def _failed(traffic: Traffic) -> tuple[str, str]:
    """Refused calls are told beside: a limit or a policy that does its work is no failure."""
    return share(traffic.failed, traffic.calls), f"{traffic.failed:,} failed, {traffic.refused:,} refused"


def _latency(traffic: Traffic) -> tuple[str, str]:
    return duration(traffic.p50_us), nearly_all_within(traffic.p95_us)


# --- charts ---------------------------------------------------------------------------------------------------------
def charts(period: Period, time_format: str, step: str) -> list[Chart]:
    points = period.points
    labels = [timezone.localtime(point.start).strftime(time_format) for point in points]
    return [
        _calls_chart(points, labels, step),
        _latency_chart(points, labels, period.total),
        _spend_chart(points, labels, step),
    ]


def _calls_chart(points: tuple[Traffic, ...], labels: list[str], step: str) -> Chart:
    answered = [point.calls - point.errors - point.abandoned for point in points]
    series = [
        ("Answered", answered, "--color-primary-500"),
        ("Client left", [point.abandoned for point in points], "--gh-muted"),
        ("Refused", [point.refused for point in points], "--gh-refused"),
        ("Failed", [point.failed for point in points], "--gh-failed"),
    ]
    busiest = max(range(len(points)), key=lambda index: points[index].calls)
    summary = f"At most {points[busiest].calls:,} in a {step}, at {labels[busiest]}."
    legend = (
        ("gh-answered", "answered"),
        ("gh-left", "client left"),
        ("gh-refused", "refused"),
        ("gh-failed", "failed"),
    )
    return Chart(
        f"Calls per {step}", summary, "bar", chart_data(labels, series, "bar"), chart_options(precision=0), legend
    )


def _latency_chart(points: tuple[Traffic, ...], labels: list[str], total: Traffic) -> Chart:
    series = [
        ("Median, s", [_seconds(point.p50_us) for point in points], "--color-primary-500"),
        ("95th percentile, s", [_seconds(point.p95_us) for point in points], "--gh-muted"),
    ]
    first = f"First byte: median {duration(total.first_byte_p50_us)}, {nearly_all_within(total.first_byte_p95_us)}."
    legend = (("gh-answered", "median"), ("gh-left", "95th percentile"))
    return Chart(
        "Latency of answered calls, seconds", first, "line", chart_data(labels, series, "line"), chart_options(), legend
    )


def _spend_chart(points: tuple[Traffic, ...], labels: list[str], step: str) -> Chart:
    shown_in = currency.current()
    amounts = [float(shown_in.amount(point.cost_nano_usd)) for point in points]
    series = [(shown_in.code, amounts, "--color-primary-500")]
    dearest = max(range(len(points)), key=lambda index: points[index].cost_nano_usd)
    summary = f"At most {money(points[dearest].cost_nano_usd, shown_in)} in a {step}, at {labels[dearest]}."
    return Chart(
        f"Spend per {step}, {shown_in.code}", summary, "bar", chart_data(labels, series, "bar"), chart_options()
    )


def _seconds(us: int | None) -> float | None:
    return None if us is None else round(us / US_PER_S, 3)


# --- rankings -------------------------------------------------------------------------------------------------------
def rankings(since: datetime) -> list[Ranking]:
    return [
        Ranking("Top models", "Model", _entries(selectors.top("model", since, TOP), _model_url)),
        Ranking("Top teams", "Team", _entries(selectors.top("team", since, TOP), _id_url("team"))),
        Ranking("Top keys", "API key", _entries(selectors.top("key", since, TOP), _id_url("key"))),
    ]


def _entries(shares: list[Share], url: Callable[[Share], str]) -> tuple[Entry, ...]:
    most = max((entry.cost_nano_usd for entry in shares), default=0)
    return tuple(
        Entry(
            name=entry.name,
            url=url(entry),
            calls=f"{entry.calls:,}",
            cost=money(entry.cost_nano_usd),
            unpriced=entry.unpriced_calls > 0,
            percent=round(100 * entry.cost_nano_usd / most) if most else 0,
        )
        for entry in shares
    )


def _model_url(entry: Share) -> str:
    return _events_url(model=entry.name)


def _id_url(dimension: str) -> Callable[[Share], str]:
    return lambda entry: "" if entry.id is None else _events_url(**{f"{dimension}__id__exact": str(entry.id)})


def _events_url(**filters: str) -> str:
    return f"{reverse('admin:usage_usageevent_changelist')}?{urlencode(filters)}"
