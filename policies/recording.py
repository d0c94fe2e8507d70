"""What policies found in calls, from the journal into the database. usage.flusher calls `record` with the records of a
batch of calls, in the transaction that writes their usage events.

A record is the usage event's columns by name (`id` as 32 hex digits, `at` in unix microseconds), and any of:

    findings    [{policy, version, rule, check, stage, action, label, count, dry_run, failed}, ...]
    content     {request, reply, retention_days}: texts to be kept; tokens of accounts.encryption, "" for none
    moderation  [{texts, call}, ...]: texts whose moderation waits (a token), and what a finding needs to know

The same record may come twice: its rows have ids made from the event's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from django.db import DataError, IntegrityError, models, transaction

from accounts.time_ids import EPOCH, MICROSECOND
from policies.models import Finding, LoggedContent, PendingModeration

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Row = TypeVar("Row", bound=models.Model)

RANDOM_BITS = (1 << 62) - 1  # of a UUID of version 7; what stands before them is the time
# What a record or row of the wrong shape raises, here or in the database. Not when the database is away.
BAD_ROW = (DataError, IntegrityError, AttributeError, KeyError, TypeError, ValueError, OverflowError)


def record(records: Iterable[Record]) -> None:
    """Writes the rows of these records. What cannot be a row is logged and left out. Raises what the database raises
    when it is away."""
    records = list(records)
    _insert(Finding, _rows(records, _findings))
    _insert(LoggedContent, _rows(records, _content))
    _insert(PendingModeration, _rows(records, _pending))


def row_id(event_id: str, index: int) -> UUID:
    """As old as the event and as good as unique: its id, counted on in the bits that are random."""
    number = int(event_id, 16)
    return UUID(int=number & ~RANDOM_BITS | (number + index) & RANDOM_BITS)


def _findings(call: Record) -> list[Finding]:
    whose = _whose(call)
    return [
        Finding(
            id=row_id(call["id"], index),
            endpoint=_fit(Finding, "endpoint", call["endpoint"]),
            policy=_fit(Finding, "policy", found["policy"]),
            version=int(found["version"]),
            rule=_fit(Finding, "rule", found["rule"]),
            check_name=_fit(Finding, "check_name", found["check"]),
            stage=_fit(Finding, "stage", found["stage"]),
            action=_fit(Finding, "action", found["action"]),
            label=_fit(Finding, "label", found.get("label", "")),
            count=int(found.get("count", 1)),
            dry_run=bool(found.get("dry_run")),
            failed=bool(found.get("failed")),
            **whose,
        )
        for index, found in enumerate(call.get("findings") or ())
    ]


def _content(call: Record) -> list[LoggedContent]:
    kept = call.get("content")
    if not kept or not (kept.get("request") or kept.get("reply")):
        return []
    whose = _whose(call)
    expires_at = whose["at"] + timedelta(days=int(kept["retention_days"]))
    texts = {"request": str(kept.get("request") or ""), "reply": str(kept.get("reply") or "")}
    return [LoggedContent(expires_at=expires_at, **texts, **whose)]


def _pending(call: Record) -> list[PendingModeration]:
    return [
        PendingModeration(
            id=row_id(call["id"], index),
            event_id=UUID(call["id"]),
            next_try_at=_moment(call["at"]),
            call=dict(waiting["call"]),
            texts=str(waiting["texts"]),
        )
        for index, waiting in enumerate(call.get("moderation") or ())
    ]


def _whose(call: Record) -> dict[str, Any]:
    """What a row says of the call it is about."""
    return {
        "event_id": UUID(call["id"]),
        "at": _moment(call["at"]),
        "request_id": _fit(Finding, "request_id", call["request_id"]),
        "model": _fit(Finding, "model", call["model"]),
        "key_label": _fit(Finding, "key_label", call["key_label"]),
        "key_id": call["key_id"],
        "team_id": call["team_id"],
        "user_id": call["user_id"],
    }


def _rows(records: Iterable[Record], read: Callable[[Record], list[Row]]) -> list[Row]:
    rows: list[Row] = []
    for call in records:
        try:
            rows += read(call)
        except BAD_ROW as error:
            _leave_out(call.get("id"), error)
    return rows


def _insert(kind: type[Row], rows: Sequence[Row]) -> None:
    """One statement for all; if that is refused, one for each, so that only the bad one is lost."""
    insert = partial(kind._default_manager.bulk_create, ignore_conflicts=True)
    if not rows:
        return
    try:
        with transaction.atomic():
            insert(rows)
    except BAD_ROW:
        for row in rows:
            try:
                with transaction.atomic():
                    insert([row])
            except BAD_ROW as error:
                _leave_out(row.pk, error)


def _leave_out(what: object, error: Exception) -> None:
    # The class alone: the message of a database quotes the values.
    logger.error("what policies found in call %s cannot be written (%s); it is left out", what, type(error).__name__)


def _moment(at_us: int) -> datetime:
    return EPOCH + at_us * MICROSECOND


def _fit(kind: type[models.Model], column: str, text: str) -> str:
    """As both databases take it: no NUL, which PostgreSQL cannot hold, nothing that is not UTF-8, and not too long."""
    length: int = kind._meta.get_field(column).max_length  # type: ignore[union-attr,assignment]
    if not text.isascii() or "\0" in text:
        text = text.replace("\0", "").encode("utf-8", "replace").decode()
    return text[:length]
