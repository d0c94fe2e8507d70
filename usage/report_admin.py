"""The admin's usage dashboard: figures, a chart and who used the most, of any time, down to the calls themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin

from accounts.charts import Chart, chart_data, chart_options
from usage import currency, forecast, reports
from usage.currency import Currency
from usage.display import compact, duration, money, nearly_all_within, share
from usage.downloads import whole
from usage.event_list import window_text
from usage.report_forms import DIMENSIONS, GROUPS, MEASURES, RANGES, ReportForm
from usage.reports import NOBODY, OF_ROWS, Latencies, Line, Report, Selection, Sums
from usage.spreadsheets import CSV_TYPE, csv_lines

DAY = timedelta(days=1)
TEMPLATE = "admin/usage/dashboard.html"
FAILED = "the provider or the gateway failed: statuses of 500 and above."
REFUSED = "the caller was told no, by a policy, a rate limit, a budget, or for what was asked: statuses of 400 to 498."
MOST_ROWS = 10_000  # of a CSV file
OTHERS = "All others"
# What a line of one leads to: the same time and filters, and these with it, grouped by the first that is left.
DEEPER = {
    "team": ("key", "model", "user", "time"),
    "user": ("key", "model", "time"),
    "key": ("model", "time"),
    "model": ("team", "key", "provider", "time"),
    "provider": ("model", "team", "key", "time"),
    "time": ("team", "key", "model", "user", "provider"),
}


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    icon: str
    value: str
    notes: tuple[str, ...]
    alarm: bool = False
    help_text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, as it is read. `percent`: of the first one's, for its bar. URLs are "" where there is
    nothing more to see."""

    name: str
    url: str
    events_url: str
    percent: int
    share: str
    cost: str
    unpriced: bool
    calls: str
    failed: str
    refused: str
    tokens: str
    latency: str
    first_byte: str


def dashboard(model_admin: ModelAdmin, request: HttpRequest) -> HttpResponse:
    form = _form(model_admin, request)
    found = reports.report(form.selection)
    shown_in = currency.current()
    context = {
        **model_admin.admin_site.each_context(request),
        "title": "Spend & usage",
        "form": form,
        "media": model_admin.media + form.media,
        "ranges": [(words, form.parameters(**_ONLY_RANGE, range=name), name == form.range) for name, words in
                   RANGES.items()],
        "period": f"{window_text(form.selection.start, form.selection.end)} (UTC)",
        "chips": list(_chips(form)),
        "empty": not found.total.calls and not found.total.cost_nano_usd,
    }  # fmt: skip
    if not context["empty"]:
        context |= {
            "figures": figures(found, shown_in),
            "chart": chart(found, shown_in),
            "rows": [_row(form, found, line, shown_in) for line in found.lines],
            "others": found.others and _others(found, found.others, shown_in),
            "group_label": _group_label(form.selection),
            "csv_url": reverse("admin:usage_dashboard_csv") + form.parameters(),
            "forecast_method": forecast.METHOD,
            "sampled": _sampled(found),
            "failed": FAILED,
            "refused": REFUSED,
        }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, TEMPLATE, context)


def dashboard_csv(model_admin: ModelAdmin, request: HttpRequest) -> HttpResponse:
    """The table, with more lines than the page has."""
    selection = _form(model_admin, request).selection
    found = reports.report(selection, rows=MOST_ROWS)
    name = f"usage-{selection.start:%Y-%m-%d}-{selection.end - reports.HOUR:%Y-%m-%d}-by-{selection.group}.csv"
    return whole(name, CSV_TYPE, csv_lines(csv_rows(found, currency.current())))


def csv_rows(found: Report, shown_in: Currency) -> Iterator[list[Any]]:
    amounts = ["cost_usd"] if shown_in.is_usd else ["cost_usd", f"cost_{shown_in.code.lower()}"]
    yield [
        *(found.selection.group, "id", "calls", "refused", "failed", "abandoned", "prompt_tokens", "completion_tokens"),
        *("unpriced_calls", *amounts, "latency_p50_ms", "latency_p95_ms", "first_byte_p50_ms", "first_byte_p95_ms"),
    ]
    for line in found.lines:
        yield _csv_row(found.selection, line, shown_in)
    if found.others:
        yield _csv_row(found.selection, Line(None, OTHERS, found.others, Latencies()), shown_in)


def _csv_row(selection: Selection, line: Line, shown_in: Currency) -> list[Any]:
    sums, latencies = line.sums, line.latencies
    cost = [currency.USD.amount(sums.cost_nano_usd)]
    if not shown_in.is_usd:
        cost.append(shown_in.amount(sums.cost_nano_usd))
    milliseconds = [
        *(latencies.percentile_us(0.5), latencies.percentile_us(0.95)),
        *(latencies.first_byte_us(0.5), latencies.first_byte_us(0.95)),
    ]
    return [
        line.group if selection.group == "time" else line.name,
        line.group if selection.group in OF_ROWS else None,
        *(sums.calls, sums.refused, sums.failed, sums.abandoned, sums.prompt_tokens, sums.completion_tokens),
        *(sums.unpriced_calls, *cost, *(us and Decimal(us) / 1000 for us in milliseconds)),
    ]


def _form(model_admin: ModelAdmin, request: HttpRequest) -> ReportForm:
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    return ReportForm(request)


# --- figures --------------------------------------------------------------------------------------------------------
def figures(found: Report, shown_in: Currency) -> list[Figure]:
    total, latencies = found.total, found.latencies
    spend_notes = (
        [f"{total.unpriced_calls:,} call{pluralize(total.unpriced_calls)} unpriced"] if total.unpriced_calls else []
    )
    if not shown_in.is_usd:
        spend_notes.insert(0, money(total.cost_nano_usd, currency.USD))
    shown = [
        Figure("Spend", "payments", money(total.cost_nano_usd, shown_in), tuple(spend_notes)),
        Figure(
            "Tokens",
            "data_object",
            compact(total.tokens),
            (f"{compact(total.prompt_tokens)} in, {compact(total.completion_tokens)} out",),
        ),
        Figure("Calls", "swap_horiz", f"{total.calls:,}", (f"{total.abandoned:,} left by the client",)),
        Figure(
            "Failed",
            "error",
            share(total.failed, total.calls),
            (f"{total.failed:,}, by the provider or the gateway",),
            alarm=total.failed * 20 > total.calls,
            help_text=FAILED,
        ),
        Figure(
            "Refused",
            "block",
            share(total.refused, total.calls),
            (f"{total.refused:,}, by policies, limits, budgets",),
            help_text=REFUSED,
        ),
        Figure("Latency", "timer", duration(latencies.percentile_us(0.5)), (_within(latencies, "total"),)),
        Figure("First byte", "bolt", duration(latencies.first_byte_us(0.5)), (_within(latencies, "first"),)),
    ]
    expected = reports.spend_forecast(found.selection.filters)
    if expected:
        words = f"by {expected.end:%-d %B}; {money(expected.spent_nano_usd, shown_in)} so far"
        shown.insert(1, Figure("Forecast", "trending_up", money(expected.nano_usd, shown_in), (words,)))
    return shown


def _within(latencies: Latencies, which: str) -> str:
    us = latencies.percentile_us(0.95) if which == "total" else latencies.first_byte_us(0.95)
    return f"median; {nearly_all_within(us)}"


def _sampled(found: Report) -> str:
    """How many of the answered calls the latencies are of, at least, in the figures and the table; "" when of all."""
    of_all = found.latencies.calls, found.total.answered
    of_lines = (
        sum(line.latencies.calls for line in found.lines),
        sum(line.sums.answered for line in found.lines),
    )
    calls, answered = min(of_all, of_lines, key=lambda pair: pair[0] / (pair[1] or 1))
    return share(calls, answered) if calls < answered else ""


def chart(found: Report, shown_in: Currency) -> Chart:
    selection = found.selection
    names = [*found.charted, OTHERS] if found.charted else [MEASURES[selection.measure]]
    if found.charted and not any(point[-1].measured(selection.measure) for point in found.points):
        names.pop()
    series: list[tuple[str, list[Any], str]] = [
        (name, [_value(point[index], found, shown_in) for point in found.points], _colour(name, index))
        for index, name in enumerate(names)
    ]
    legend = tuple((_colour(name, index).removeprefix("--"), name) for index, name in enumerate(names))
    words = {"spend": f"Spend, {shown_in.code}"}.get(selection.measure, MEASURES[selection.measure])
    step = "hour" if selection.by_hour else "day"
    whole_numbers = {} if selection.measure == "spend" else {"precision": 0}
    labels = [_label(start, selection) for start in selection.starts]
    return Chart(
        f"{words} by {step}",
        _summary(found, labels, step, shown_in),
        "bar",
        chart_data(labels, series, "bar"),
        chart_options(**whole_numbers),
        legend if found.charted else (),
    )


def _colour(name: str, index: int) -> str:
    return "--gh-muted" if name == OTHERS else f"--gh-series-{index + 1}"


def _value(sums: Sums, found: Report, shown_in: Currency) -> float | int:
    measured = sums.measured(found.selection.measure)
    return float(shown_in.amount(measured)) if found.selection.measure == "spend" else measured


def _summary(found: Report, labels: list[str], step: str, shown_in: Currency) -> str:
    measure = found.selection.measure
    points = [sum(part.measured(measure) for part in point) for point in found.points]
    most = max(range(len(points)), key=points.__getitem__)
    amount = money(points[most], shown_in) if measure == "spend" else f"{points[most]:,}"
    return f"Most in one {step}: {amount}, {labels[most]} (UTC)."


def _label(start: datetime, selection: Selection) -> str:
    if not selection.by_hour:
        return f"{start:%-d %b}"
    return f"{start:%H:00}" if selection.end - selection.start <= DAY else f"{start:%-d %b %H:00}"


# --- the table ------------------------------------------------------------------------------------------------------
def _row(form: ReportForm, found: Report, line: Line, shown_in: Currency) -> Row:
    name = _time_name(line.group, form.selection) if form.selection.group == "time" else line.name
    return _written(found, name, line, shown_in, deeper_url(form, line), events_url(form.selection, line))


def _others(found: Report, sums: Sums, shown_in: Currency) -> Row:
    return _written(found, OTHERS, Line(None, OTHERS, sums, Latencies()), shown_in)


def _written(found: Report, name: str, line: Line, shown_in: Currency, url: str = "", events_url: str = "") -> Row:
    sums, latencies, measure = line.sums, line.latencies, found.selection.measure
    most = max((other.sums.measured(measure) for other in found.lines), default=0)
    return Row(
        name=name,
        url=url,
        events_url=events_url,
        percent=min(100, round(100 * sums.measured(measure) / most)) if most > 0 else 0,
        share=share(sums.measured(measure), found.total.measured(measure)),
        cost=money(sums.cost_nano_usd, shown_in),
        unpriced=sums.unpriced_calls > 0,
        calls=f"{sums.calls:,}",
        failed=f"{sums.failed:,}",
        refused=f"{sums.refused:,}",
        tokens=f"{compact(sums.prompt_tokens)} / {compact(sums.completion_tokens)}",
        latency=_pair(latencies.percentile_us(0.5), latencies.percentile_us(0.95)),
        first_byte=_pair(latencies.first_byte_us(0.5), latencies.first_byte_us(0.95)),
    )


def _pair(median: int | None, p95: int | None) -> str:
    return "-" if median is None else f"{duration(median)} / {duration(p95)}"


def _group_label(selection: Selection) -> str:
    if selection.group != "time":
        return GROUPS[selection.group]
    return "Hour (UTC)" if selection.by_hour else "Day (UTC)"


def _time_name(start: datetime, selection: Selection) -> str:
    return f"{start:%-d %b, %H:00}" if selection.by_hour else f"{start:%a %-d %b %Y}"


# --- links ----------------------------------------------------------------------------------------------------------
_ONLY_RANGE: dict[str, None] = {"from": None, "to": None}


def deeper_url(form: ReportForm, line: Line) -> str:
    """The same page, of this line alone."""
    selection = form.selection
    taken = {*selection.filters, selection.group}
    group = next((name for name in DEEPER[selection.group] if name not in taken), None)
    if selection.group == "time":
        if selection.by_hour:
            return ""
        day = line.group.astimezone(UTC).date().isoformat()
        return form.parameters(**{"range": None, "from": day, "to": day, "group": group or "time"})
    value = NOBODY if line.group is None else line.group
    if value == "":  # calls without a model: there is no way to ask for them alone
        return ""
    return form.parameters(**{selection.group: value, "group": group})


def events_url(selection: Selection, line: Line) -> str:
    """The calls of this line. "" where the list of events has no filter for them."""
    start, end, filters = selection.start, selection.end, dict(selection.filters)
    if selection.group == "time":
        start, end = line.group, line.group + selection.step
    else:
        filters[selection.group] = NOBODY if line.group is None else line.group
    if "" in filters.values():
        return ""
    query: dict[str, Any] = {"window": f"{start:%Y-%m-%dT%H:%M}..{end:%Y-%m-%dT%H:%M}"}
    for name, value in filters.items():
        if name not in OF_ROWS:
            query[name] = value
        elif value == NOBODY:
            query[f"{name}__isnull"] = "True"
        else:
            query[f"{name}__id__exact"] = value
    return f"{reverse('admin:usage_usageevent_changelist')}?{urlencode(query)}"


def _chips(form: ReportForm) -> Iterator[tuple[str, str, str]]:
    """(dimension, name, the page without this filter)"""
    for dimension in DIMENSIONS:
        value = form.selection.filters.get(dimension)
        if value is not None:
            group = None if value == NOBODY else value
            name = reports.names_of(dimension, [group])[group]
            yield GROUPS[dimension], name, form.parameters(**{dimension: None})
