"""Reads the whole trail and tells whatever was edited, deleted, added, reordered or cut off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from accounts.audit import anchors, chain
from accounts.audit.anchors import Anchor
from accounts.audit.models import AuditCheckpoint, AuditDetail, AuditEvent, AuditHead
from accounts.audit.trail import HEAD_ALTERED, HEAD_MISSING

ROWS_AT_ONCE = 1000
FINDINGS_AT_MOST = 100
LEFT_IN_CHAIN = {
    HEAD_MISSING: "its end had been deleted",
    HEAD_ALTERED: "its end had been altered",
}


@dataclass(slots=True)
class Report:
    """`findings`: a sentence each, at most FINDINGS_AT_MOST. `first`, `last`: the numbers of the events that are there;
    0, 0: none are. `erased`: parts that were erased by us."""

    findings: list[str] = field(default_factory=list)
    events: int = 0
    first: int = 0
    last: int = 0
    erased: int = 0
    anchors: int = 0


def verify(given: Iterable[Anchor] | None = None) -> Report:
    """`given`: anchors to hold it against; None: those of AUDIT_ANCHOR_FILE."""
    known = list(anchors.read() if given is None else given)
    while True:
        began = AuditCheckpoint.objects.order_by("-number").first()
        report = _Walk(known, began).report()
        ended = AuditCheckpoint.objects.order_by("-number").first()
        # Old events were deleted while we read: what seemed to be missing was not.
        if not report.findings or (began and began.number) == (ended and ended.number):
            return report


class _Walk:
    def __init__(self, known: list[Anchor], checkpoint: AuditCheckpoint | None) -> None:
        self._keys = chain.known_keys()
        self._given = known
        self._anchors: dict[int, list[Anchor]] = {}
        for anchor in known:
            self._anchors.setdefault(anchor.number, []).append(anchor)
        self._checkpoint = checkpoint
        self._number = checkpoint.number if checkpoint else 0
        self._digest: str | None = checkpoint.digest if checkpoint else chain.START
        self._report = Report(anchors=len(known))

    def report(self) -> Report:
        for finding in self._findings():
            if len(self._report.findings) == FINDINGS_AT_MOST:
                self._report.findings.append("There is more; only the first findings are told.")
                break
            self._report.findings.append(finding)
        return self._report

    def _findings(self) -> Iterator[str]:
        yield from anchors.forged(self._given, self._keys)
        yield from self._check_checkpoints()
        while True:
            read = self._report.events
            yield from self._check_events()
            head = AuditHead.objects.filter(pk=1).first()
            # Events that were written meanwhile.
            if head is None or head.number <= self._number or read == self._report.events:
                break
        yield from self._check_head(head)
        yield from self._check_anchors()
        if AuditDetail.objects.exclude(event__in=AuditEvent.objects.all()).exists():
            yield "There are details of events that are not there."

    def _check_checkpoints(self) -> Iterator[str]:
        for row in AuditCheckpoint.objects.order_by("number"):
            key = self._keys.get(row.key)
            if key is None or not chain.holds(row.signature, chain.checkpoint_signature(key, row)):
                yield f"The checkpoint after event {row.number} was altered, or is not ours."

    # --- events ---
    def _check_events(self) -> Iterator[str]:
        while True:
            rows = AuditEvent.objects.filter(number__gt=self._number).order_by("number")[:ROWS_AT_ONCE]
            events = list(rows)
            details = AuditDetail.objects.in_bulk([event.pk for event in events])
            for event in events:
                yield from self._check_event(event, details.get(event.pk))
            if len(events) < ROWS_AT_ONCE:
                return

    def _check_event(self, event: AuditEvent, detail: AuditDetail | None) -> Iterator[str]:
        self._report.events += 1
        self._report.first = self._report.first or event.number
        self._report.last = event.number
        previous = self._digest
        if event.number != self._number + 1:
            yield _missing(self._number + 1, event.number - 1)
            previous = None
        self._number, self._digest = event.number, event.digest
        key = self._keys.get(event.key)
        if key is None:
            yield f"Event {event.number} is signed under the key {event.key}, which nobody knows (ENCRYPTION_KEYS)."
            return
        # After a gap nobody knows what the digest before was; the next event tells whether this one was altered.
        if previous is not None and not chain.holds(event.digest, chain.event_digest(key, event, previous)):
            yield f"Event {event.number} ({event.action}) was altered, or is not where it was written."
        for anchor in self._anchors.pop(event.number, []):
            if anchor.digest != event.digest:
                yield f"Event {event.number} is not the one that the anchor of {anchor.at} names."
        if event.action in LEFT_IN_CHAIN:
            written = f"When event {event.number} was written ({event.at:%Y-%m-%d %H:%M} UTC)"
            yield f"{written}, {LEFT_IN_CHAIN[event.action]}."
        if detail is None:
            yield f"The detail of event {event.number} ({event.action}) was deleted."
        else:
            yield from self._check_detail(event, detail, key)

    def _check_detail(self, event: AuditEvent, detail: AuditDetail, key: bytes) -> Iterator[str]:
        try:
            commitments = json.loads(event.commitments)
            salts, erased, there = json.loads(detail.salts), json.loads(detail.erased), chain.parts(detail)
            added = [name for name, value in there.items() if name not in commitments and value]
            wrong = []
            for name, expected in commitments.items():
                if name in erased:
                    self._report.erased += 1
                    is_right = chain.holds(erased[name], chain.erasure_proof(key, event, name)) and not there.get(name)
                else:
                    is_right = name in there and chain.commitment(salts[name], name, there[name]) == expected
                if not is_right:
                    wrong.append(name)
        except (ValueError, KeyError, AttributeError, TypeError):
            yield f"The detail of event {event.number} ({event.action}) was altered: it cannot be read."
            return
        if wrong or added:
            names = ", ".join(sorted([*wrong, *added]))
            yield f"The detail of event {event.number} ({event.action}) was altered: {names}."

    # --- the end ---
    def _check_head(self, head: AuditHead | None) -> Iterator[str]:
        if head is None:
            if self._number:
                yield "The end of the trail was deleted: nothing says how many events there were."
            return
        if not head.number and not self._number:
            return
        key = self._keys.get(head.key)
        if key is None or not chain.holds(head.signature, chain.head_signature(key, head)):
            yield "The end of the trail was altered: what it says is not signed by us."
        elif head.number > self._number:
            yield f"{_missing(self._number + 1, head.number)} They were the newest ones."
        elif head.number < self._number:
            yield f"There are events after number {head.number}, where the trail ends."
        elif head.digest != self._digest:
            yield f"The newest event, {head.number}, is not the one that was written last."

    def _check_anchors(self) -> Iterator[str]:
        """Those whose event is not there."""
        pruned = self._checkpoint.number if self._checkpoint else 0
        for number, those in sorted(self._anchors.items()):
            for anchor in those:
                if number > self._number:
                    yield (
                        f"The anchor of {anchor.at} names event {number}, but the newest one is {self._number}: the "
                        "trail was put back to an earlier state."
                    )
                elif self._checkpoint and number == pruned and anchor.digest != self._checkpoint.digest:
                    yield f"The checkpoint after event {number} does not agree with the anchor of {anchor.at}."


def _missing(first: int, last: int) -> str:
    return f"Event {first} is missing." if first == last else f"Events {first} to {last} are missing."
