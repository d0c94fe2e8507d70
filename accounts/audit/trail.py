"""Writes events, in the transaction of what they tell of: an event exists exactly if the change does."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction

from accounts.audit import actors, chain
from accounts.audit.models import AuditDetail, AuditEvent, AuditHead, unix_us
from accounts.time_ids import time_bits

HIDDEN = "***"
HEAD_MISSING, HEAD_ALTERED = "audit.head_missing", "audit.head_altered"
Target = models.Model | tuple[str, object, str]

logger = logging.getLogger(__name__)


@transaction.atomic
def record(
    action: str,
    target: Target | None = None,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """`target`: a row, or (type, id, shown name) of what is none. The mappings are written as they are, for whoever may
    read the trail: no secrets, no prompts. Raises DatabaseError, so that what cannot be recorded is not done."""
    head = lock()
    return _append(head, action, _described(target), _json(before), _json(after), _json(details))


def lock() -> AuditHead:
    """The end of the chain, for this transaction alone until it ends. Whoever changes a watched row takes it before
    they write, so that nobody waits for them in a circle."""
    head = AuditHead.objects.select_for_update().filter(pk=1).first()
    if head is None:
        return _begin()
    if head.number:
        key = chain.find_key(head.key)
        if key is None or not chain.holds(head.signature, chain.head_signature(key, head)):
            logger.error("the end of the audit trail was altered; run manage.py verify_audit")
            _append(head, HEAD_ALTERED, ("audit.audithead", "1", ""), "{}", "{}", "{}")
    return head


def _begin() -> AuditHead:
    last = AuditEvent.objects.order_by("-number").first()
    AuditHead.objects.get_or_create(pk=1)
    head = AuditHead.objects.select_for_update().get(pk=1)
    if last is not None and not head.number:
        logger.error("the end of the audit trail was deleted; run manage.py verify_audit")
        head.number, head.digest, head.last_id = last.number, last.digest, last.id
        _append(head, HEAD_MISSING, ("audit.audithead", "1", ""), "{}", "{}", "{}")
    return head


def _append(
    head: AuditHead, action: str, target: tuple[str, str, str], before: str, after: str, details: str
) -> AuditEvent:
    actor = actors.current()
    person = actor.person()
    event = AuditEvent(
        id=_next_id(head.last_id),
        number=head.number + 1,
        channel=actor.channel,
        action=action,
        target_type=target[0],
        target_id=_clean(target[1], 64),
        request_id=_clean(actor.request_id, 100),
    )
    detail = AuditDetail(
        event=event,
        user_id=person.pk if person is not None else None,
        user_name=_clean(actor.shown(), 200),
        ip=_clean(actor.ip, 64),
        target_name=_clean(target[2], 250),
        before=before,
        after=after,
        details=details,
    )
    seal(head, event, detail)
    event.save(force_insert=True)
    detail.save(force_insert=True)
    event.detail = detail
    return event


def seal(head: AuditHead, event: AuditEvent, detail: AuditDetail) -> None:
    """Makes `event` the newest, after `head`, which is moved."""
    found = chain.parts(detail)
    salts = chain.make_salts(found)
    detail.salts = json.dumps(salts)
    event.commitments = json.dumps({name: chain.commitment(salts[name], name, found[name]) for name in found})
    fingerprint, key = chain.signing_key()
    if head.key and head.key != fingerprint:
        chain.keep_old_keys()
    event.key = fingerprint
    event.digest = chain.event_digest(key, event, head.digest or chain.START)
    head.number, head.digest, head.last_id, head.key = event.number, event.digest, event.id, fingerprint
    head.signature = chain.head_signature(key, head)
    head.save()


def _next_id(last: UUID | None) -> UUID:
    """Later than the last, also when the clock was put back."""
    at_us = time.time_ns() // 1000
    if last is not None:
        at_us = max(at_us, unix_us(last) + 1)
    return UUID(int=time_bits(at_us) | 0b10 << 62 | secrets.randbits(62))


def _described(target: Target | None) -> tuple[str, str, str]:
    if target is None:
        return "", "", ""
    if isinstance(target, models.Model):
        return target._meta.label_lower, str(target.pk), shown(target)
    kind, pk, name = target
    return kind, str(pk), name


def shown(row: models.Model) -> str:
    try:
        return str(row)
    except Exception:  # what it belongs to is gone already, perhaps, and the event matters more than the name
        return ""


def _json(given: Mapping[str, Any] | None) -> str:
    return json.dumps(dict(given or {}), cls=DjangoJSONEncoder, ensure_ascii=True)


def _clean(text: str, limit: int) -> str:
    """PostgreSQL takes no NUL and no half of a pair."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()[:limit]
