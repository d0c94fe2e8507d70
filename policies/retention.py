"""Deletes what is no longer to be kept: logged texts after the days that their policy said, findings after those of the
installation. In small steps, each its own transaction, so that nobody waits for a lock; a sweep that is cut off goes on
the next time."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Model, QuerySet
from django.utils import timezone

from accounts.time_ids import first_id
from policies.models import Finding, LoggedContent

CHUNK_ROWS = 1000


def purge(now: datetime | None = None) -> int:
    """How many rows were deleted."""
    now = now or timezone.now()
    old = now - timedelta(days=settings.FINDINGS_RETENTION_DAYS)
    contents = LoggedContent.objects.filter(expires_at__lte=now).order_by("expires_at")
    findings = Finding.objects.filter(id__lt=first_id(old)).order_by("id")
    return _delete(contents) + _delete(findings)


def _delete(rows: QuerySet[Model]) -> int:
    deleted = 0
    while chunk := list(rows.values_list("pk", flat=True)[:CHUNK_ROWS]):
        deleted += rows.model._default_manager.filter(pk__in=chunk).delete()[0]
    return deleted
