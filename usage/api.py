"""Usage for programs: /api/v1/usage/..., as JSON or as a file."""

from __future__ import annotations

from typing import Any

from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from usage import chargeback, currency
from usage.chargeback import BREAKDOWNS, BadMonth, Breakdown, Chargeback, Used
from usage.chargeback_admin import FILES, file_name
from usage.currency import Currency
from usage.downloads import whole
from usage.spreadsheets import plain


class FileRenderer(BaseRenderer):
    """Chosen by ?format= or by Accept. The view makes the file; what comes here is an error, and that is JSON."""

    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        if renderer_context:
            renderer_context["response"].headers["Content-Type"] = JSONRenderer.media_type
        return bytes(JSONRenderer().render(data))


class CsvRenderer(FileRenderer):
    media_type = "text/csv"
    format = "csv"


class XlsxRenderer(FileRenderer):
    media_type = FILES["xlsx"][0]
    format = "xlsx"


class ChargebackView(APIView):
    """GET ?month=2026-11&by=user|key|model&format=json|csv|xlsx

    Who may ask, and what errors look like, is the management API's (gateway_project.api)."""

    renderer_classes = (JSONRenderer, CsvRenderer, XlsxRenderer)

    def get(self, request: Request) -> HttpResponseBase:
        found = chargeback.chargeback(_month(request), _breakdown(request))
        shown_in = currency.current()
        kind = request.accepted_renderer.format
        if kind in FILES:
            content_type, make = FILES[kind]
            return whole(file_name(found, kind), content_type, make(found, shown_in))
        return Response(as_json(found, shown_in))


def as_json(found: Chargeback, shown_in: Currency) -> dict[str, Any]:
    """Money is text, exact to the nano-USD: a JSON number would become a float wherever it is read."""
    return {
        "month": f"{found.month:%Y-%m}",
        "by": found.breakdown or "team",
        "currency": shown_in.code,
        "units_per_usd": plain(shown_in.units_per_usd),
        "complete": not found.unfinished,
        "total": _used(found.total, shown_in),
        "lines": [
            {
                "cost_center": line.cost_center,
                "team": {"id": line.team_id, "name": line.team},
                **_part(found.breakdown, line.part_id, line.part),
                **_used(line.used, shown_in),
            }
            for line in found.lines
        ],
    }


def _part(breakdown: Breakdown, part_id: int | None, part: str) -> dict[str, Any]:
    if not breakdown:
        return {}
    return {breakdown: part if breakdown == "model" else {"id": part_id, "name": part}}


def _used(used: Used, shown_in: Currency) -> dict[str, Any]:
    return {
        "calls": used.calls,
        "unpriced_calls": used.unpriced_calls,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cost_usd": plain(currency.USD.amount(used.cost_nano_usd)),
        "cost": plain(shown_in.amount(used.cost_nano_usd)),
    }


def _month(request: Request) -> Any:
    try:
        return chargeback.parse_month(request.query_params.get("month", ""))
    except BadMonth as error:
        raise ValidationError({"month": str(error)}) from None


def _breakdown(request: Request) -> Breakdown:
    by = request.query_params.get("by", "")
    if by == "team":
        return ""
    if by not in BREAKDOWNS:
        raise ValidationError({"by": f"Give one of team, {', '.join(filter(None, BREAKDOWNS))}."})
    return by
