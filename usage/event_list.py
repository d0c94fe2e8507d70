"""The list of usage events: any window of time, and what its rows cost with their adjustments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from accounts.keyset import RecordList, WindowFilter
from accounts.time_ids import id_range
from usage.exports import FORMATS, adjustments_of

MINUTE = timedelta(minutes=1)


class EventWindow(WindowFilter):
    """Besides the usual ones any window, `2026-11-01T00:00..2026-12-01T00:00` (UTC, the end excluded): the dashboard
    leads there."""

    def __init__(self, request: HttpRequest, params: dict[str, Any], *args: Any) -> None:
        given = params.get(self.parameter_name, "")
        text = str(given[-1] if isinstance(given, list) else given)
        self._bounds = bounds_of(text)
        if self._bounds:
            start, end = self._bounds
            self.windows = {**self.windows, text: (window_text(start, end), None)}
        super().__init__(request, params, *args)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self._bounds:
            return super().queryset(request, queryset)
        first, end = id_range(*self._bounds)
        return queryset.filter(pk__gte=first, pk__lt=end)


def bounds_of(text: str) -> tuple[datetime, datetime] | None:
    """What a window's text says; None when it is none."""
    try:
        start, end = (datetime.fromisoformat(part).replace(tzinfo=UTC) for part in text.split(".."))
    except ValueError:
        return None
    return (start, end) if datetime(1970, 1, 1, tzinfo=UTC) <= start < end else None


def window_text(start: datetime, end: datetime) -> str:
    if not (start.hour or start.minute or end.hour or end.minute):
        last = end - MINUTE
        return f"{start:%-d %b %Y}" + ("" if start.date() == last.date() else f" to {last:%-d %b %Y}")
    return f"{start:%-d %b %Y, %H:%M} to {end:%-d %b %Y, %H:%M}"


class EventList(RecordList):
    """`exports`: (format, URL of the file with all that is listed)."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        adjustments = adjustments_of(event.pk for event in self.result_list)
        for event in self.result_list:
            event.adjustment_nano_usd = adjustments.get(event.pk, 0)
        query = self.get_query_string()
        self.exports = [
            (kind.label, reverse("admin:usage_usageevent_export", args=[name]) + query)
            for name, kind in FORMATS.items()
        ]
