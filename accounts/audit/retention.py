"""Deletes events older than AUDIT_RETENTION_DAYS. The chain holds: a signed checkpoint says where it starts."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.audit import chain, trail
from accounts.audit.models import AuditCheckpoint, AuditDetail, AuditEvent
from accounts.time_ids import first_id

EVENTS_AT_ONCE = 5000
PRUNED = "audit.pruned"


def limit(now: datetime | None = None) -> datetime | None:
    """What is older is to be deleted; None: nothing is."""
    days = settings.AUDIT_RETENTION_DAYS
    return (now or timezone.now()) - timedelta(days=days) if days else None


def prune(now: datetime | None = None, stop_after_s: float | None = None) -> int:
    """How many events were deleted. `stop_after_s`: what is left over by then is for the next time."""
    before = limit(now)
    newest = AuditEvent.objects.order_by("-number").values_list("number", flat=True).first()
    if before is None or newest is None:
        return 0
    deadline = None if stop_after_s is None else time.monotonic() + stop_after_s
    deleted = 0
    while batch := _prune_batch(before, newest):
        deleted += batch
        if deadline is not None and time.monotonic() > deadline:
            break
    return deleted


@transaction.atomic
def _prune_batch(before: datetime, newest: int) -> int:
    """The oldest of those from before then, in the order of the chain; `newest` and what came after it always stays."""
    trail.lock()
    old = AuditEvent.objects.filter(id__lt=first_id(before), number__lt=newest)
    rows = list(old.order_by("number").only("id", "number", "digest")[:EVENTS_AT_ONCE])
    if not rows:
        return 0
    last = rows[-1]
    _checkpoint(last, len(rows))
    gone = AuditEvent.objects.filter(number__lte=last.number)
    details = AuditDetail.objects.filter(event__in=gone)
    details._raw_delete(details.db)
    gone._raw_delete(gone.db)
    trail.record(PRUNED, details={"events": len(rows), "up_to": last.number})
    return len(rows)


def _checkpoint(last: AuditEvent, events: int) -> None:
    fingerprint, key = chain.signing_key()
    # To the second: a database may keep less of a moment than Python.
    made_at = timezone.now().replace(microsecond=0)
    checkpoint = AuditCheckpoint(
        number=last.number, digest=last.digest, events=events, made_at=made_at, key=fingerprint
    )
    checkpoint.signature = chain.checkpoint_signature(key, checkpoint)
    checkpoint.save(force_insert=True)
