"""Reads the trail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import QuerySet

from accounts.audit.models import AuditEvent
from accounts.time_ids import first_id

ROWS_AT_ONCE = 1000


def events(since: datetime | None = None, until: datetime | None = None, after: int = 0) -> QuerySet[AuditEvent]:
    """With their details. From `since` up to, but not including, `until`; those after the number `after`."""
    found = AuditEvent.objects.select_related("detail").filter(number__gt=after)
    if since is not None:
        found = found.filter(id__gte=first_id(since))
    return found if until is None else found.filter(id__lt=first_id(until))


def oldest_first(found: QuerySet[AuditEvent]) -> Iterator[AuditEvent]:
    """A page at a time, so that no cursor is kept open however slowly they are taken."""
    last = 0
    while page := list(found.filter(number__gt=last).order_by("number")[:ROWS_AT_ONCE]):
        yield from page
        last = page[-1].number
