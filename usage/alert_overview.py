"""Open alerts, for the admin's front page: the worst first, and whether anybody is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Case, CharField, Count, DateTimeField, IntegerField, QuerySet, UUIDField, Value, When
from django.db.models.functions import Cast
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

from accounts.admin_pages import label, short_time
from usage.alert_admin import SEVERITY_COLORS
from usage.alert_models import Alert, AlertDestination

SHOWN = 5
SOMEBODY_IS_TOLD, COUNTED_BESIDE = 99, 98  # as ranks: before every alert


@dataclass(frozen=True, slots=True)
class Line:
    severity: SafeString
    title: str
    url: str
    since: str
    ago: str


class Row(NamedTuple):
    rank: int
    id: UUID
    severity: str
    title: str
    fired_at: datetime


def overview(request: HttpRequest, beside: QuerySet[Any]) -> dict[str, Any] | None:
    """For templates/admin/open_alerts.html: at most SHOWN `lines`, whether there are `more`, and whether nobody is
    told, with `add_url` for those who may change that; and how many rows there are of `beside`, which are counted in
    the same query. None for those who may not look at alerts."""
    if not request.user.has_perm("usage.view_alert"):
        return None
    rows = [Row(*row) for row in _worst_first(beside)[: SHOWN + 3]]
    counted = sum(int(row.title) for row in rows if row.rank == COUNTED_BESIDE)
    rows = [row for row in rows if row.rank != COUNTED_BESIDE]
    alerts = [row for row in rows if row.rank != SOMEBODY_IS_TOLD]
    may_add = request.user.has_perm("usage.add_alertdestination")
    return {
        "lines": [_line(alert) for alert in alerts[:SHOWN]],
        "more": len(alerts) > SHOWN,
        "list_url": f"{reverse('admin:usage_alert_changelist')}?state=open&window=all",
        "beside": counted,
        "nobody_is_told": len(alerts) == len(rows),
        "add_url": reverse("admin:usage_alertdestination_add") if may_add else "",
    }


def _worst_first(beside: QuerySet[Any]) -> QuerySet[Any, Any]:
    """Alerts that go on, of the same severity the newest first; before them, one row if there is a destination, and one
    that counts what is beside. One query, because the front page makes many."""
    ranks = [When(severity=severity, then=Value(rank)) for rank, severity in enumerate(Alert.Severity.values)]
    alerts = Alert.objects.filter(resolved_at=None).annotate(rank=Case(*ranks, output_field=IntegerField()))
    nothing = (Cast(Value(None), UUIDField()), Value(""), Value(""), Cast(Value(None), DateTimeField()))
    somebody = AlertDestination.objects.filter(enabled=True).order_by().annotate(rank=Value(SOMEBODY_IS_TOLD))
    rows = alerts.order_by().values_list("rank", "id", "severity", "title", "fired_at")
    uuid, text, moment = nothing[0], nothing[1], nothing[3]
    counted = beside.order_by().values(rank=Value(COUNTED_BESIDE)).annotate(count=Cast(Count("pk"), CharField()))
    others = (
        somebody.values_list("rank", *nothing).distinct(),
        counted.values_list("rank", uuid, text, "count", moment),
    )
    return rows.union(*others, all=True).order_by("-rank", "-id")


def _line(alert: Row) -> Line:
    return Line(
        label(str(Alert.Severity(alert.severity).label), SEVERITY_COLORS.get(alert.severity, "")),
        alert.title,
        reverse("admin:usage_alert_change", args=[alert.id]),
        short_time(alert.fired_at),
        timesince(alert.fired_at, depth=1),
    )
