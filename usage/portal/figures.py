"""What somebody used by day, key and model: from sums by day only, in one query, and drawn as SVG on the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.formats import date_format

from accounts.models import ApiKey
from usage.display import compact, money
from usage.models import Rollup
from usage.portal.whose import Whose

Measure = Literal["spend", "tokens", "calls"]
MEASURES: dict[Measure, str] = {"spend": "Spend", "tokens": "Tokens", "calls": "Calls"}
SPLITS = {"model": "By model", "key": "By key"}
DAYS = (7, 30, 90)
DAY = timedelta(days=1)
SERIES = 5
LINES = 50
UNKNOWN, GONE = "(unknown model)", "(deleted key)"
HEIGHT, STEP, GAP = 100.0, 10.0, 2.0


@dataclass(slots=True)
class Used:
    calls: int = 0
    refused: int = 0
    tokens: int = 0
    nano_usd: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.calls += int(row["sum_calls"])
        self.refused += int(row["not_answered"] or 0)
        self.tokens += int(row["sum_prompt"]) + int(row["sum_completion"])
        self.nano_usd += int(row["sum_cost"])

    def measured(self, measure: Measure) -> int:
        return {"spend": self.nano_usd, "tokens": self.tokens, "calls": self.calls}[measure]

    @property
    def spend_text(self) -> str:
        return money(self.nano_usd)

    @property
    def tokens_text(self) -> str:
        return compact(self.tokens)


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    used: Used
    url: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """In the coordinates of the chart. `series`: the number of its colour."""

    x: str
    y: str
    width: str
    height: str
    series: int


@dataclass(frozen=True, slots=True)
class Day:
    label: str
    title: str
    used: Used
    x: str
    width: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """`view_box`, then the days, each with its bars; `legend`: (number of the colour, name)."""

    view_box: str
    days: list[Day]
    legend: list[tuple[int, str]]
    most: str
    summary: str


@dataclass(frozen=True, slots=True)
class Figures:
    total: Used
    by_model: list[Line]
    by_key: list[Line]
    chart: Chart


def figures(whose: Whose, days: int, measure: Measure, split: str) -> Figures:
    """Two queries: the sums, and the names of the keys."""
    today = timezone.now().astimezone(UTC).date()
    dates = [today - (days - 1 - index) * DAY for index in range(days)]
    rows = _rows(whose, dates[0])
    total, by_model, by_key = Used(), dict[Any, Used](), dict[Any, Used]()
    by_day: dict[date, Used] = {day: Used() for day in dates}
    parts: dict[tuple[date, Any], Used] = {}
    for row in rows:
        day = row["start"].astimezone(UTC).date()
        if day not in by_day:  # clocks differ: a call may bear a time of tomorrow
            continue
        group = row["model"] if split == "model" else row["key_id"]
        for sums in (
            total,
            by_day[day],
            by_model.setdefault(row["model"], Used()),
            by_key.setdefault(row["key_id"], Used()),
            parts.setdefault((day, group), Used()),
        ):
            sums.add(row)
    keys = _keys(by_key)
    model_lines = _lines(by_model, {name: (name or UNKNOWN, "") for name in by_model}, measure)
    key_lines = _lines(by_key, keys, measure)
    grouped = by_model if split == "model" else by_key
    ranked = sorted(grouped, key=lambda group: -grouped[group].measured(measure))[:SERIES]
    names = [keys[group][0] if split == "key" else group or UNKNOWN for group in ranked]
    chart = _chart(by_day, parts, ranked, names, len(grouped) > SERIES, measure)
    return Figures(total, model_lines, key_lines, chart)


def _rows(whose: Whose, first: date) -> list[dict[str, Any]]:
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    found = Rollup.objects.filter(whose.rows, grain=Rollup.Grain.DAY, start__gte=start).order_by()
    sums: Any = found.values("start", "key_id", "model").annotate(
        sum_calls=Sum("calls"),
        not_answered=Sum("calls", filter=~Q(outcome=Rollup.Outcome.OK)),
        sum_prompt=Sum("prompt_tokens"),
        sum_completion=Sum("completion_tokens"),
        sum_cost=Sum("cost_nano_usd"),
    )
    return list(sums)


def _keys(key_ids: Iterable[int | None]) -> dict[Any, tuple[str, str]]:
    """Name and public id of each; "" of those that are gone."""
    rows = ApiKey.objects.filter(pk__in=[key for key in key_ids if key]).values_list("pk", "name", "public_id")
    found = {pk: (name, public_id) for pk, name, public_id in rows}
    return {key: found.get(key or 0, (GONE, "")) for key in key_ids}


def _lines(grouped: dict[Any, Used], names: dict[Any, tuple[str, str]], measure: Measure) -> list[Line]:
    ranked = sorted(grouped, key=lambda group: (-grouped[group].measured(measure), -grouped[group].calls))
    return [Line(names[group][0], grouped[group], names[group][1]) for group in ranked[:LINES]]


# --- the chart ------------------------------------------------------------------------------------------------------
def _chart(
    by_day: dict[date, Used],
    parts: dict[tuple[date, Any], Used],
    ranked: list[Any],
    names: list[str],
    has_others: bool,
    measure: Measure,
) -> Chart:
    most = max((used.measured(measure) for used in by_day.values()), default=0)
    days = []
    for index, (day, used) in enumerate(by_day.items()):
        amounts = [parts[day, group].measured(measure) if (day, group) in parts else 0 for group in ranked]
        amounts.append(used.measured(measure) - sum(amounts))
        title = f"{date_format(day, 'D j M')}: {text(used, measure)}"
        bars = _bars(index * STEP + GAP / 2, amounts, most)
        days.append(Day(date_format(day, "j M"), title, used, _number(index * STEP), _number(STEP), bars))
    legend = list(enumerate(names, 1)) + ([(SERIES + 1, "Others")] if has_others else [])
    width = _number(len(days) * STEP)
    return Chart(f"0 0 {width} {_number(HEIGHT)}", days, legend, _amount(most, measure), _summary(by_day, measure))


def _bars(x: float, amounts: list[int], most: int) -> list[Bar]:
    """On top of each other, the first at the foot."""
    bars, top = [], HEIGHT
    for number, amount in enumerate(amounts, 1):
        if amount > 0 and most:
            height = (HEIGHT - 2) * amount / most
            top -= height
            series = number if number < len(amounts) else SERIES + 1
            bars.append(Bar(_number(x), _number(top), _number(STEP - GAP), _number(height), series))
    return bars


def _number(value: float) -> str:
    """Of an SVG, whatever decimal point the language has."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(used: Used, measure: Measure) -> str:
    words = {"spend": "", "tokens": " tokens", "calls": " calls"}
    return f"{_amount(used.measured(measure), measure)}{words[measure]}"


def _amount(value: int, measure: Measure) -> str:
    return money(value) if measure == "spend" else compact(value)


def _summary(by_day: dict[date, Used], measure: Measure) -> str:
    busiest = max(by_day, key=lambda day: by_day[day].measured(measure))
    if not by_day[busiest].measured(measure):
        return "Nothing in this time."
    return f"The most on {date_format(busiest, 'j F')}: {text(by_day[busiest], measure)}."
