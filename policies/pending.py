"""Moderation that nobody waits for: the texts of rules that only watch are judged when the call is over.

    a call ends -> records_of() -> its record in the journal -> PendingModeration rows -> sweep(), by Celery -> findings

The texts are encrypted from the end of the call until the verdict is in; no broker, log or error ever holds them. A row
is claimed by putting its next try off, so no transaction is open while somebody is asked, and what a dying worker had
claimed comes up again. Findings have ids that follow from the row's, so a row that is judged twice counts once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from accounts.encryption import Undecryptable, decrypt, encrypt
from policies.checks.moderation import ModerationCheck
from policies.errors import ModerationFailed
from policies.models import Finding, PendingModeration
from policies.moderation import Question, TextsTooLong, Verdict, is_too_long, says_anything, storable

if TYPE_CHECKING:
    from policies.engine import Pending

logger = logging.getLogger(__name__)

# proxy.moderation.ask_now, which policies know by the setting MODERATION_CLIENT only.
AskNow = Callable[[Sequence[Question]], list[Verdict | ModerationFailed]]

BATCH_ROWS = 32
SWEEP_S = 20.0
CLAIMED_FOR = timedelta(minutes=5)  # longer than any batch takes
FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=10)
GIVEN_UP_AFTER = timedelta(hours=24)
LOW_BITS = (1 << 62) - 1  # of a UUID, below its time, version and variant


class Asked(NamedTuple):
    row: PendingModeration
    check: ModerationCheck
    question: Question


# --- before: the end of a call --------------------------------------------------------------------------------------


def records_of(pending: Iterable[Pending], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the journal's record of a call carries as `moderation`. `facts`: the columns of its usage event.

    Texts that say nothing are left out; texts that are longer than what is moderated are not kept ("").
    """
    return [
        {"texts": _sealed(texts), "call": _call(rule, check, stage, facts)}
        for rule, stage, texts in pending
        if isinstance(check := rule.check, ModerationCheck) and says_anything(texts)
    ]


def _call(rule: Any, check: ModerationCheck, stage: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a finding has to say of the call and the rule."""
    return {
        "policy": rule.policy,
        "version": rule.version,
        "rule": rule.name,
        "check": rule.check_name,
        "stage": str(stage),
        "action": str(rule.action),
        "dry_run": rule.dry_run,
        "settings": check.settings,
        **{name: facts[name] for name in CALL_FACTS},
    }


CALL_FACTS = ("at", "request_id", "model", "endpoint", "key_id", "key_label", "team_id", "user_id")


def _sealed(texts: list[str]) -> str:
    return "" if is_too_long(texts) else encrypt(orjson.dumps(list(map(storable, texts))).decode())


# --- after: Celery --------------------------------------------------------------------------------------------------


def sweep() -> int:
    """Have what is due judged, for about SWEEP_S; how many rows were looked at.

    Raises what the database raises; what was claimed by then comes up again.
    """
    looked_at = 0
    until = time.monotonic() + SWEEP_S
    while time.monotonic() < until and (rows := _claim()):
        _judge(rows)
        looked_at += len(rows)
    return looked_at


def _claim() -> list[PendingModeration]:
    """Rows that nobody else looks at for a while, those that have waited longest first."""
    now = timezone.now()
    due = PendingModeration.objects.filter(next_try_at__lte=now).order_by("next_try_at", "id")
    if not due.exists():  # on SQLite a transaction keeps the others from writing, so none for nothing
        return []
    with transaction.atomic():
        if connection.features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True)
        rows = list(due[:BATCH_ROWS])
        PendingModeration.objects.filter(pk__in=[row.pk for row in rows]).update(next_try_at=now + CLAIMED_FOR)
    return rows


def _judge(rows: Iterable[PendingModeration]) -> None:
    asked: list[Asked] = []
    for row in rows:
        check = ModerationCheck(row.call["settings"])
        try:
            asked.append(Asked(row, check, Question(check.provider, check.model, _unsealed(row.texts))))
        except ModerationFailed as failed:
            _fail(row, failed)
    ask_now: AskNow = import_string(settings.MODERATION_CLIENT)
    for (row, check, _), said in zip(asked, ask_now([one.question for one in asked]) if asked else [], strict=True):
        try:
            if isinstance(said, ModerationFailed):
                raise said
            _settle(row, check.judge(said))
        except ModerationFailed as failed:
            _fail(row, failed)


def _unsealed(texts: str) -> list[str]:
    """Raises ModerationFailed."""
    if not texts:
        raise TextsTooLong("the texts were too long to be kept")
    try:
        clear: list[str] = orjson.loads(decrypt(texts))
    except (Undecryptable, ValueError):
        raise ModerationFailed("the texts cannot be decrypted: ENCRYPTION_KEYS has changed") from None
    return clear


def _settle(row: PendingModeration, labels: Iterable[str], *, failed: bool = False) -> None:
    """Write what was found, and forget the texts."""
    with transaction.atomic():
        Finding.objects.bulk_create([_finding(row, label, failed) for label in labels], ignore_conflicts=True)
        PendingModeration.objects.filter(pk=row.pk).delete()


def _fail(row: PendingModeration, failed: ModerationFailed) -> None:
    """Try again later, or give up; both say why, and neither says what the texts say."""
    now = timezone.now()
    about = {"request_id": row.call["request_id"], "policy": row.call["policy"]}
    if isinstance(failed, TextsTooLong) or now - _at(row) > GIVEN_UP_AFTER:
        logger.error("the moderation of rule %s is given up: %s", row.call["rule"], failed, extra=about)
        _settle(row, [type(failed).__name__], failed=True)
        return
    logger.warning("the moderation of rule %s failed: %s", row.call["rule"], failed, extra=about)
    pause = min(FIRST_PAUSE * 2 ** min(row.tries, 20), LONGEST_PAUSE)
    PendingModeration.objects.filter(pk=row.pk).update(next_try_at=now + pause, tries=row.tries + 1)


def _finding(row: PendingModeration, label: str, failed: bool) -> Finding:
    call = row.call
    return Finding(
        id=_finding_id(row.pk, label, failed),
        at=_at(row),
        event_id=row.event_id,
        request_id=call["request_id"],
        policy=call["policy"],
        version=call["version"],
        rule=call["rule"],
        check_name=call["check"],
        stage=call["stage"],
        action=call["action"],
        label=label,
        dry_run=call["dry_run"],
        failed=failed,
        model=call["model"],
        endpoint=call["endpoint"],
        key_id=call["key_id"],
        key_label=call["key_label"],
        team_id=call["team_id"],
        user_id=call["user_id"],
    )


def _finding_id(row: UUID, label: str, failed: bool) -> UUID:
    """The same for the same finding, at the same place in time as the row."""
    digest = blake2b(f"{row.hex} {label} {failed}".encode(), digest_size=8).digest()
    return UUID(int=row.int & ~LOW_BITS | int.from_bytes(digest) & LOW_BITS)


def _at(row: PendingModeration) -> datetime:
    """When the call came in."""
    return datetime.fromtimestamp(row.call["at"] / 1e6, UTC)
