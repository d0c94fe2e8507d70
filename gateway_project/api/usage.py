"""What was used: sums, single calls, and who pays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

import usage.api
from accounts.time_ids import first_id
from gateway_project.api.access import MayDo
from gateway_project.api.base import ApiView, Listed, Retrieved
from gateway_project.api.errors import BadRequest
from gateway_project.api.fields import usd
from gateway_project.api.pages import Filter, read_id, read_moment, read_text
from usage.api import CsvRenderer, XlsxRenderer
from usage.exports import adjustments_of
from usage.models import UsageEvent
from usage.reports import COLUMNS, LONGEST, LONGEST_BY_HOUR, OF_ROWS, Line, Selection, Sums, report

USUAL_SPAN = timedelta(days=30)
MEASURES = ("spend", "tokens", "calls", "failed", "refused")
MOST_LINES = 1000


class OfUsage(ApiView):
    permission_classes: Any = (MayDo,)
    resource, model = "usage", UsageEvent

    def right(self) -> str:
        return "view"

    def reads(self) -> bool:
        return True


# --- sums -----------------------------------------------------------------------------------------------------------
class SumsSerializer(serializers.Serializer):
    calls = serializers.IntegerField()
    refused = serializers.IntegerField(help_text="The caller's fault.")
    failed = serializers.IntegerField(help_text="Ours or the provider's.")
    abandoned = serializers.IntegerField(help_text="The client left.")
    unpriced_calls = serializers.IntegerField(help_text="Nobody knows what they cost.")
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    cost_usd = serializers.CharField(help_text="Exact, as text.")


class LineSerializer(SumsSerializer):
    group = serializers.JSONField(help_text="Id or name, or the start of the period; null: calls without one.")
    name = serializers.CharField(help_text="What people call it.")


class ReportSerializer(serializers.Serializer):
    start = serializers.DateTimeField()
    end = serializers.DateTimeField(help_text="Not included.")
    by = serializers.CharField()
    total = SumsSerializer()
    lines = LineSerializer(many=True)
    others = SumsSerializer(allow_null=True, help_text="What the rest used, if there are more than fit.")


def _query(name: str, words: str, kind: Any = str, **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, OpenApiParameter.QUERY, description=words, **more)


ID = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
NAME = {"type": "string", "maxLength": 500}
MOMENT = {"type": "string", "format": "date-time"}
SUMS_PARAMETERS = [
    _query("by", "What the lines are.", enum=list(COLUMNS)),
    _query("start", "From then on; whole hours, beyond three days whole days (UTC). Left out: 30 days ago.", MOMENT),
    _query("end", "Up to then, not included. Left out: now.", MOMENT),
    _query("measure", "What the lines are in the order of.", enum=list(MEASURES)),
    _query("lines", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MOST_LINES, "default": 50}),
    *(
        _query(name, f"Only calls of this {name}; 0: of none.", ID if name in OF_ROWS else NAME)
        for name in COLUMNS
        if name != "time"
    ),
]


class UsageSums(OfUsage):
    """Sums over any time, from what is rolled up: at most some seconds old."""

    tag_name = "usage"
    parameters = tuple(one.name for one in SUMS_PARAMETERS)

    @extend_schema(operation_id="usage_sums", parameters=SUMS_PARAMETERS, responses=ReportSerializer)
    def get(self, request: Any) -> Response:
        asked = request.query_params
        start, end = _span(asked)
        filters = {name: _member(name, asked[name]) for name in COLUMNS if name in asked and name != "time"}
        selection = Selection(
            start,
            end,
            filters,
            cast(Any, _one_of(asked, "by", COLUMNS)),
            cast(Any, _one_of(asked, "measure", MEASURES)),
        )
        found = report(selection, _lines(asked.get("lines", "50")))
        return Response(
            {
                "start": start,
                "end": end,
                "by": selection.group,
                "total": _sums(found.total),
                "lines": [_line(line) for line in found.lines],
                "others": None if found.others is None else _sums(found.others),
            }
        )


def _span(asked: Any) -> tuple[datetime, datetime]:
    """Whole hours or days. Raises BadRequest."""
    now = timezone.now()
    end = read_moment("end", asked["end"]) if "end" in asked else now
    start = read_moment("start", asked["start"]) if "start" in asked else end - USUAL_SPAN
    if not start < end:
        raise BadRequest("It must be before the end.", "start")
    if end - start > LONGEST:
        raise BadRequest(f"At most {LONGEST.days} days at once.", "start")
    if start.year < 1980 or end.year > 9000:
        raise BadRequest("That time is too far away.", "start")
    step = timedelta(hours=1) if end - start <= LONGEST_BY_HOUR else timedelta(days=1)
    first, last = _floor(start, step), _floor(end, step)
    return first, last if last == end else last + step


def _floor(moment: datetime, step: timedelta) -> datetime:
    at = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return at if step < timedelta(days=1) else at.replace(hour=0)


def _member(name: str, given: str) -> int | str:
    return read_id(name, given) if name in OF_ROWS else read_text(name, given)


def _one_of(asked: Any, name: str, known: Any) -> str:
    given = str(asked.get(name, next(iter(known))))
    if given not in known:
        raise BadRequest(f"Give one of {', '.join(known)}.", name)
    return given


def _lines(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) < 5 and 1 <= int(given) <= MOST_LINES):
        raise BadRequest(f"Give a whole number from 1 to {MOST_LINES}.", "lines")
    return int(given)


def _sums(sums: Sums) -> dict[str, Any]:
    plain = ("calls", "refused", "failed", "abandoned", "unpriced_calls", "prompt_tokens", "completion_tokens")
    return {**{name: getattr(sums, name) for name in plain}, "cost_usd": usd(sums.cost_nano_usd)}


def _line(line: Line) -> dict[str, Any]:
    group = line.group
    at = isinstance(group, datetime)
    return {"group": group, "name": group.isoformat() if at else line.name, **_sums(line.sums)}


# --- calls ----------------------------------------------------------------------------------------------------------
class EventSerializer(serializers.ModelSerializer):
    cost_usd = serializers.SerializerMethodField(help_text="Exact, as text, with later adjustments. Null: unpriced.")
    team: Any = serializers.IntegerField(source="team_id", allow_null=True)
    user: Any = serializers.IntegerField(source="user_id", allow_null=True)
    key: Any = serializers.IntegerField(source="key_id", allow_null=True)
    tags = serializers.JSONField()

    class Meta:
        model = UsageEvent
        fields = (
            *("id", "at", "request_id", "endpoint", "key", "key_label", "user", "team", "model", "provider"),
            *("upstream_model", "status", "error_code", "refused_by", "streamed", "prompt_tokens"),
            *("completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "estimated"),
            *("cost_usd", "latency_us", "first_byte_us", "attempts", "failed_tries", "end_user", "client_ip"),
            *("user_agent", "organization", "trace_id", "tags"),
        )

    def get_cost_usd(self, event: UsageEvent) -> str | None:
        if event.cost_nano_usd is None:
            return None
        adjustments = self.context.get("adjustments")
        delta = (adjustments_of([event.pk]) if adjustments is None else adjustments).get(event.pk, 0)
        return usd(event.cost_nano_usd + delta)


class Since(Filter):
    """A time is a range of ids."""

    def read(self, name: str, given: str) -> Any:
        return first_id(read_moment(name, given))


class UsageEvents(Listed, Retrieved):
    """Single calls, newest first."""

    resource, model, serializer_class = "usage", UsageEvent, EventSerializer
    queryset = UsageEvent.objects.all()
    newest_first = True
    lookup_value_regex = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    filters = {
        "since": Since("pk__gte", "Only calls from then on.", "moment"),
        "until": Since("pk__lt", "Only calls before then.", "moment"),
        "team": Filter("team_id", "Only calls of the team with this id.", "id"),
        "user": Filter("user_id", "Only calls of the person with this id.", "id"),
        "key": Filter("key_id", "Only calls of the API key with this id.", "id"),
        "model": Filter("model", "Only calls of this model."),
        "provider": Filter("provider", "Only calls that this provider answered."),
        "error_code": Filter("error_code", "Only calls that ended with this error."),
        "request_id": Filter("request_id", "Only calls with this request id."),
    }

    def row(self, **conditions: Any) -> Any:
        return super().row(pk=self.kwargs["pk"])

    def many(self, rows: Any) -> Any:
        context = {**self.get_serializer_context(), "adjustments": adjustments_of(row.pk for row in rows)}
        return EventSerializer(rows, many=True, context=context).data


# --- who pays -------------------------------------------------------------------------------------------------------
class ChargebackView(OfUsage, usage.api.ChargebackView):
    """Who pays for a month: JSON, or a file by ?format= or Accept."""

    tag_name = "usage"
    renderer_classes = (JSONRenderer, CsvRenderer, XlsxRenderer)
    content_negotiation_class = usage.api.ChargebackView.content_negotiation_class
    parameters = ("month", "by", "format")

    @extend_schema(
        operation_id="usage_chargeback",
        parameters=[
            _query("month", "Such as 2026-11.", required=True),
            _query("by", "What each team's line is broken down by.", enum=["team", "user", "key", "model"]),
        ],
        responses={(200, "application/json"): dict},
    )
    def get(self, request: Any) -> Any:
        return usage.api.ChargebackView.get(self, request)
