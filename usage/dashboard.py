"""The figures of the admin's front page, from rollups only: five queries, however many calls there were."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.template.defaultfilters import pluralize
from django.urls import reverse
from django.utils import timezone

from usage import selectors
from usage.display import duration, share, usd
from usage.selectors import Period, Share, Traffic

DAY = timedelta(days=1)
TOP = 5
US_PER_S = 1_000_000
NANO_PER_USD = 1_000_000_000

GREY = "#9ca3af"


def _options(**y_ticks: Any) -> str:
    """Chart.js's options: nothing moves, nothing overlaps, and as few lines as will do."""
    ticks = {"color": GREY, "maxTicksLimit": 4, **y_ticks}
    options = {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {"legend": {"display": False}},
        "scales": {
            "x": {
                "border": {"display": False},
                "grid": {"display": False},
                "ticks": {"color": GREY, "maxTicksLimit": 7, "maxRotation": 0},
            },
            "y": {"beginAtZero": True, "border": {"display": False}, "grid": {"display": True}, "ticks": ticks},
        },
    }
    return json.dumps(options)


@dataclass(frozen=True, slots=True)
class Card:
    """One figure, of the last hour and of the last day. `alarm`: the hour's is one to look at."""

    title: str
    icon: str
    hour: str
    hour_note: str
    day: str
    day_note: str
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """`data` and `options` are JSON for Chart.js; `summary` says the same in words. `legend`: (colour class, name)."""

    title: str
    summary: str
    kind: str
    data: str
    options: str
    legend: tuple[tuple[str, str], ...] = ()


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
        both("Errors", "error", _errors, alarm=hour.failed * 20 > hour.calls),
        both("Latency, median", "timer", _latency),
    ]


def _calls(traffic: Traffic) -> tuple[str, str]:
    return f"{traffic.calls:,}", f"{_compact(traffic.prompt_tokens + traffic.completion_tokens)} tokens"


def _spend(traffic: Traffic) -> tuple[str, str]:
    unpriced = traffic.unpriced_calls
    note = f"{unpriced:,} call{pluralize(unpriced)} unpriced" if unpriced else "all calls priced"
    return usd(traffic.cost_nano_usd), note


def _errors(traffic: Traffic) -> tuple[str, str]:
    return share(traffic.errors, traffic.calls), f"{traffic.failed:,} failed, {traffic.refused:,} refused"


def _latency(traffic: Traffic) -> tuple[str, str]:
    return duration(traffic.p50_us), f"95 % within {duration(traffic.p95_us)}"


def _compact(count: int) -> str:
    for limit, suffix in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if count >= limit:
            return f"{count / (1000 if suffix == 'k' else limit):,.1f}{suffix}"
    return f"{count:,}"


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
    return Chart(f"Calls per {step}", summary, "bar", _data(labels, series, "bar"), _options(precision=0), legend)


def _latency_chart(points: tuple[Traffic, ...], labels: list[str], total: Traffic) -> Chart:
    series = [
        ("Median, s", [_seconds(point.p50_us) for point in points], "--color-primary-500"),
        ("95th percentile, s", [_seconds(point.p95_us) for point in points], "--gh-muted"),
    ]
    first = f"First byte: median {duration(total.first_byte_p50_us)}, 95 % within {duration(total.first_byte_p95_us)}."
    legend = (("gh-answered", "median"), ("gh-left", "95th percentile"))
    return Chart("Latency of answered calls, seconds", first, "line", _data(labels, series, "line"), _options(), legend)


def _spend_chart(points: tuple[Traffic, ...], labels: list[str], step: str) -> Chart:
    series = [("US dollars", [point.cost_nano_usd / NANO_PER_USD for point in points], "--color-primary-500")]
    dearest = max(range(len(points)), key=lambda index: points[index].cost_nano_usd)
    summary = f"At most {usd(points[dearest].cost_nano_usd)} in a {step}, at {labels[dearest]}."
    return Chart(f"Spend per {step}, US dollars", summary, "bar", _data(labels, series, "bar"), _options())


def _seconds(us: int | None) -> float | None:
    return None if us is None else round(us / US_PER_S, 3)


def _data(labels: list[str], series: list[tuple[str, list[Any], str]], kind: str) -> str:
    datasets = [
        {
            "label": name,
            "data": values,
            "stack": "calls" if kind == "bar" else name,
            "backgroundColor": f"var({colour})",
            "borderColor": f"var({colour})",
            "borderRadius": 2,
            "borderWidth": 0 if kind == "bar" else 2,
            "pointRadius": 1.5,
            "pointHitRadius": 8,
            "cubicInterpolationMode": "monotone",
        }
        for name, values, colour in series
    ]
    return json.dumps({"labels": labels, "datasets": datasets})


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
            cost=usd(entry.cost_nano_usd),
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
