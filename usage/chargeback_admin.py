"""The admin's page of who pays for a month, and the same as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminSelectWidget

from usage import chargeback, currency
from usage.chargeback import BREAKDOWNS, NO_COST_CENTER, BadMonth, Breakdown, Chargeback, Line, Used
from usage.currency import Currency
from usage.display import compact, money
from usage.downloads import whole
from usage.spreadsheets import CSV_TYPE, XLSX_TYPE, csv_lines, xlsx

TEMPLATE = "admin/usage/chargeback.html"
WIDTHS = {"cost_center": 16, "team": 28, "user": 28, "key": 36, "model": 32}
USUAL_WIDTH = 16


class ChargebackForm(forms.Form):
    """Always gives `month` and `breakdown`: what makes no sense is said, and this month taken instead."""

    def __init__(self, request: HttpRequest) -> None:
        super().__init__({"month": f"{chargeback.this_month():%Y-%m}", **request.GET.dict()})
        months = [(f"{month:%Y-%m}", f"{month:%B %Y}") for month in chargeback.months()]
        self.fields["month"] = forms.CharField(
            label="Month",
            help_text="From its first to its last day in UTC.",
            widget=UnfoldAdminSelectWidget(choices=months),
        )
        self.fields["by"] = forms.ChoiceField(
            label="Break down by",
            choices=BREAKDOWNS,
            required=False,
            widget=UnfoldAdminSelectWidget,
            help_text="Each team's line in parts, which add up to it.",
        )
        self.is_valid()
        self.month: date = self.cleaned_data.get("month") or chargeback.this_month()
        self.breakdown = cast(Breakdown, self.cleaned_data.get("by") or "")

    def clean_month(self) -> date:
        try:
            return chargeback.parse_month(self.cleaned_data["month"])
        except BadMonth as error:
            raise forms.ValidationError(str(error)) from None

    def url(self, name: str, *arguments: str) -> str:
        query = {"month": f"{self.month:%Y-%m}", "by": self.breakdown}
        return f"{reverse(f'admin:{name}', args=arguments)}?{urlencode(query)}"


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    calls: str
    unpriced: str
    tokens: str
    usd: str  # to the nano
    shown: str  # in the currency for display; "" when that is the dollar


@dataclass(frozen=True, slots=True)
class TeamRows:
    total: Row
    parts: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CostCenter:
    total: Row
    teams: list[TeamRows]

    @property
    def html(self) -> SafeString:
        return format_html_join("", "{}", ((row,) for row in self._rows()))

    def _rows(self) -> Iterator[SafeString]:
        """As they stand below each other, each with its CSS class."""
        yield _html("gh-center", self.total)
        for team in self.teams:
            yield _html("gh-team", team.total)
            for part in team.parts:
                yield _html("gh-part", part)


def page(model_admin: ModelAdmin, request: HttpRequest) -> HttpResponse:
    form = _form(model_admin, request)
    found = chargeback.chargeback(form.month, form.breakdown)
    shown_in = currency.current()
    total = _row("Total", found.total, shown_in)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": f"Chargeback, {found.month:%B %Y}",
        "form": form,
        "centers": list(cost_centers(found, shown_in)),
        "total": total,
        "total_html": _html("gh-center", total),
        "shown_in": shown_in,
        "unfinished": found.unfinished,
        "files": [(kind.upper(), form.url("usage_chargeback_file", kind)) for kind in FILES],
        "dashboard_url": reverse("admin:usage_dashboard"),
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, TEMPLATE, context)


def file(model_admin: ModelAdmin, request: HttpRequest, kind: str) -> HttpResponse:
    form = _form(model_admin, request)
    if kind not in FILES:
        raise Http404
    found = chargeback.chargeback(form.month, form.breakdown)
    content_type, make = FILES[kind]
    return whole(file_name(found, kind), content_type, make(found, currency.current()))


def file_name(found: Chargeback, kind: str) -> str:
    return f"chargeback-{found.month:%Y-%m}.{kind}"


def to_csv(found: Chargeback, shown_in: Currency) -> bytes:
    return csv_lines([chargeback.header(found, shown_in), *chargeback.table(found, shown_in)])


def to_xlsx(found: Chargeback, shown_in: Currency) -> bytes:
    header = chargeback.header(found, shown_in)
    widths = [WIDTHS.get(column, USUAL_WIDTH) for column in header]
    return xlsx(f"Chargeback {found.month:%Y-%m}", header, chargeback.table(found, shown_in), widths)


FILES = {"csv": (CSV_TYPE, to_csv), "xlsx": (XLSX_TYPE, to_xlsx)}


def cost_centers(found: Chargeback, shown_in: Currency) -> Iterator[CostCenter]:
    for center, lines in groupby(found.lines, key=lambda line: line.cost_center):
        own = list(lines)
        teams = [
            _team(list(of_team), found.breakdown, shown_in)
            for _, of_team in groupby(own, key=lambda line: line.team_id)
        ]
        yield CostCenter(_row(center or NO_COST_CENTER, chargeback.total_of(own), shown_in), teams)


def _team(lines: list[Line], breakdown: Breakdown, shown_in: Currency) -> TeamRows:
    parts = [_row(line.part, line.used, shown_in) for line in lines] if breakdown else []
    return TeamRows(_row(lines[0].team, chargeback.total_of(lines), shown_in), parts)


def _html(kind: str, row: Row) -> SafeString:
    """A row of the table. There may be thousands: in a template they took as long as all the rest of the page."""
    mark = format_html(' <abbr title="Of these without a price: {}">+?</abbr>', row.unpriced) if row.unpriced else ""
    shown = format_html("<td>{}</td>", row.shown) if row.shown else ""
    text = '<tr class="{}"><th scope="row">{}</th><td>{}{}</td><td>{}</td><td>{}</td>{}</tr>\n'
    return format_html(text, kind, row.name, row.calls, mark, row.tokens, row.usd, shown)


def _row(name: str, used: Used, shown_in: Currency) -> Row:
    return Row(
        name=name,
        calls=f"{used.calls:,}",
        unpriced=f"{used.unpriced_calls:,}" if used.unpriced_calls else "",
        tokens=f"{compact(used.prompt_tokens)} / {compact(used.completion_tokens)}",
        usd=f"{currency.USD.amount(used.cost_nano_usd):,.9f}",
        shown="" if shown_in.is_usd else money(used.cost_nano_usd, shown_in),
    )


def _form(model_admin: ModelAdmin, request: HttpRequest) -> Any:
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    return ChargebackForm(request)
