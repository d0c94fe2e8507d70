"""A text as it grows, with the rules that read it: what may go now, and what must wait.

Text is held back only as far as a match may still begin or grow there. What is released is the same, character for
character, however the text came in: spans are united in clusters that overlap, a cluster is decided as a whole, and
nothing of it goes before that. A whole text is a window that is fed once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from policies.checks.base import Scanner
from policies.errors import CheckFailed
from policies.fold import Folded
from policies.record import Record, acts, blocked_by, blocks
from policies.rules import CompiledRule
from policies.types import Action, Scan, Span, Stage

logger = logging.getLogger(__name__)

# More than so many characters are never held back: a match that long is none, or somebody is playing with us.
MAX_HELD_CHARS = 4096
MAX_HELD_OF_WHOLE = 16 * 1024  # where a whole text is read in slices
# Rules that only watch read in larger bites: nobody waits for them.
WATCHED_AT_ONCE = 4096
MASK = "****"


class Edit(NamedTuple):
    """Offsets into the text that is released, and what stands there instead."""

    start: int
    end: int
    replacement: str


class Match(NamedTuple):
    start: int
    end: int
    label: str
    rule: CompiledRule


class Reader(NamedTuple):
    """A rule, and what reads texts for it in this call."""

    rule: CompiledRule
    scanner: Scanner


class Window:
    """Feed it; it says how many of the characters that it holds may go, and with which edits.

    blocking  where matches of rules that block are put; they are masked like others. Without it the window raises
              Blocked as soon as there is one. After that, and after CheckFailed, nothing more may go.
    max_held  so many characters are held at most; 0: MAX_HELD_CHARS, or more of a text that nobody waits for
    """

    __slots__ = (
        "_blocking", "_context", "_masked_upto", "_max_held", "_readers", "_record", "_stage", "_start", "_text",
        "_watch",
    )  # fmt: skip

    def __init__(
        self,
        readers: Sequence[Reader],
        record: Record,
        stage: Stage,
        blocking: list[Match] | None = None,
        max_held: int = 0,
    ) -> None:
        self._record = record
        self._stage = stage
        self._blocking = blocking
        self._max_held = max_held or (MAX_HELD_CHARS if blocking is None else MAX_HELD_OF_WHOLE)
        self._readers = [reader for reader in readers if acts(reader.rule)]
        watchers = [reader for reader in readers if not acts(reader.rule)]
        self._watch = _Watch(watchers, record, stage) if watchers else None
        self._context = max((reader.rule.check.left_context for reader in self._readers), default=0)
        self._text = ""
        self._start = 0
        self._masked_upto = 0

    def feed(self, chunk: str, final: bool) -> tuple[int, list[Edit]]:
        """(how many more characters may go, what is changed in them)."""
        if not chunk and not final:
            return 0, []
        if self._watch is not None:
            self._watch.feed(chunk, final)
        text = self._text = self._text + chunk
        if not self._readers:
            return self._release(len(text), [])
        matches, safe, slowest = self._scan(Folded(text), final)
        while len(text) - safe > self._max_held:
            # Whoever cannot decide fails; if its rule fails open, it is not asked again.
            for rule in slowest:
                self._record.fail(rule, self._stage, "held too long")
            matches, safe, slowest = self._scan(Folded(text), final)
        if not matches and self._masked_upto <= self._start:
            return self._release(safe, [])
        self._stretch_mask(matches, safe)
        boundary = _before_open_cluster(matches, safe, self._masked_upto)
        if len(text) - boundary > self._max_held:
            boundary = safe
        return self._release(boundary, self._decide(matches, boundary))

    def close(self) -> None:
        """There is no more, and nobody gets what is still held: rules that only watch read it all the same."""
        if self._watch is not None:
            self._watch.feed("", True)
            self._watch = None

    def _stretch_mask(self, matches: list[Match], safe: int) -> None:
        """Of a cluster that was too long to be held to its end the replacement is out: what goes on there is gone."""
        for match in matches:
            if match.start >= min(self._masked_upto, safe):
                break
            self._masked_upto = max(self._masked_upto, match.end)

    def _scan(self, folded: Folded, final: bool) -> tuple[list[Match], int, list[CompiledRule]]:
        """All matches by place, how far all rules are sure, and which of them are the least sure."""
        start, size = self._start, len(folded.original)
        matches: list[Match] = []
        blocking: list[Match] = []
        safe, slowest = size, []
        for rule, scanner in self._readers:
            step = partial(scanner.scan, folded, start, final)
            scan: Scan | None = self._record.run(rule, self._stage, step, must_say=True)
            if scan is None:
                continue
            sure = size if final else min(max(scan.safe_upto, start), size)
            if sure < safe:
                safe, slowest = sure, [rule]
            elif sure == safe < size:
                slowest.append(rule)
            if scan.spans:
                found = _matches(rule, scan, start, size if final else sys.maxsize)
                matches += found
                if blocks(rule):
                    blocking += [match for match in found if match.start < sure]
        if blocking and self._blocking is None:
            for match in blocking:
                self._record.note(match.rule, self._stage, match.label)
            raise blocked_by(match.rule for match in blocking)
        if len(matches) > 1:
            matches.sort(key=_by_place)
        return matches, safe, slowest

    def _decide(self, matches: list[Match], boundary: int) -> list[Edit]:
        """The edits of what is released now, counted from its beginning."""
        start = self._start
        decided = [match for match in matches if match.start < boundary]
        for match in decided:
            self._record.note(match.rule, self._stage, match.label)
            if self._blocking is not None and blocks(match.rule):
                self._blocking.append(match)
        masked_upto = self._masked_upto
        edits = [
            Edit(edit.start - start, min(edit.end, boundary) - start, edit.replacement)
            for edit in unite(self._text, [match for match in decided if match.start >= masked_upto])
        ]
        if masked_upto > start:
            edits.insert(0, Edit(0, min(masked_upto, boundary) - start, ""))
        self._masked_upto = max(boundary, masked_upto, *(match.end for match in decided))
        return edits

    def _release(self, boundary: int, edits: list[Edit]) -> tuple[int, list[Edit]]:
        length = boundary - self._start
        cut = max(0, boundary - self._context)
        self._text = self._text[cut:]
        self._start = boundary - cut
        self._masked_upto -= cut
        return length, edits


class _Watch:
    """Rules that only watch: they hold nothing back and change nothing, and read when there is enough to read."""

    __slots__ = ("_context", "_readers", "_record", "_stage", "_starts", "_text")

    def __init__(self, readers: Sequence[Reader], record: Record, stage: Stage) -> None:
        self._readers = readers
        self._record = record
        self._stage = stage
        self._context = max(reader.rule.check.left_context for reader in readers)
        self._starts = [0] * len(readers)
        self._text = ""

    def feed(self, chunk: str, final: bool) -> None:
        self._text += chunk
        if not final and len(self._text) - min(self._starts) < WATCHED_AT_ONCE:
            return
        folded, size = Folded(self._text), len(self._text)
        for index, (rule, scanner) in enumerate(self._readers):
            start = self._starts[index]
            scan: Scan | None = _watched(self._record, rule, self._stage, partial(scanner.scan, folded, start, final))
            if scan is None:
                self._starts[index] = size
                continue
            sure = size if final else min(max(scan.safe_upto, size - MAX_HELD_CHARS, start), size)
            for match in _matches(rule, scan, start, size):
                if match.start < sure:
                    self._record.note(rule, self._stage, match.label)
            self._starts[index] = sure
        cut = max(0, min(self._starts) - self._context)
        self._text = self._text[cut:]
        self._starts = [start - cut for start in self._starts]


def _watched(record: Record, rule: CompiledRule, stage: Stage, step: partial[Scan]) -> Scan | None:
    """A rule that only watches has no power to block, not even by failing."""
    try:
        return record.run(rule, stage, step, must_say=True)
    except CheckFailed:
        return None


def scan_whole(text: str, readers: Sequence[Reader], record: Record, stage: Stage) -> tuple[list[Edit], list[Match]]:
    """A text that is complete: its edits, and the matches of rules that block. Raises CheckFailed.

    Unlike a window it goes on after a block, because all reasons are told together. Block matches are in the edits.
    """
    folded, size = Folded(text), len(text)
    matches: list[Match] = []
    blocking: list[Match] = []
    for rule, scanner in readers:
        step = partial(scanner.scan, folded, 0, True)
        acting = acts(rule)
        scan = record.run(rule, stage, step, must_say=True) if acting else _watched(record, rule, stage, step)
        if scan is None or not scan.spans:
            continue
        found = _matches(rule, scan, 0, size)
        for match in found:
            record.note(rule, stage, match.label)
            if record.on_span is not None:
                record.on_span(rule, stage, Span(*match[:3]))
        if acting:
            matches += found
            if blocks(rule):
                blocking += found
    return unite(text, matches), blocking


def _matches(rule: CompiledRule, scan: Scan, start: int, size: int) -> list[Match]:
    """What a check found from `start` on, none of it empty and none beyond the text."""
    return [
        Match(span.start, min(span.end, size), span.label, rule)
        for span in scan.spans
        if start <= span.start < min(span.end, size)
    ]


def unite(text: str, matches: list[Match]) -> list[Edit]:
    """Overlapping matches become one edit over all that they cover; what stands there instead is the longest one's
    (then the one that blocks, then the first rule's)."""
    if not matches:
        return []
    ordered = sorted(matches, key=_by_place)
    edits: list[Edit] = []
    cluster = [ordered[0]]
    end = ordered[0].end
    for match in ordered[1:]:
        if match.start < end:
            cluster.append(match)
            end = max(end, match.end)
        else:
            edits.append(_edit(text, cluster, end))
            cluster, end = [match], match.end
    edits.append(_edit(text, cluster, end))
    return edits


def _by_place(match: Match) -> tuple[int, int]:
    return match.start, -match.end


def _edit(text: str, cluster: list[Match], end: int) -> Edit:
    winner = max(cluster, key=_strength)
    rule = winner.rule
    try:
        replacement = rule.check.replacement(text[winner.start : winner.end], winner.label)
    except Exception as error:
        logger.error("the check of rule %s could not mask: %s", rule.name, type(error).__name__)
        replacement = MASK
    return Edit(cluster[0].start, end, replacement)


def _strength(match: Match) -> tuple[int, bool]:
    return match.end - match.start, match.rule.action is Action.BLOCK


def _before_open_cluster(matches: list[Match], safe: int, masked_upto: int) -> int:
    """The last offset up to `safe` that no match crosses. What is masked anyway does not wait."""
    begun, end = safe, masked_upto
    for match in matches:
        if match.start >= safe:
            break
        if match.start >= end:
            begun = match.start
        end = max(end, match.end)
    return begun if end > safe else safe


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    if not edits:
        return text
    parts: list[str] = []
    position = 0
    for start, end, replacement in edits:
        parts += text[position:start], replacement
        position = end
    parts.append(text[position:])
    return "".join(parts)


class TextWindow:
    """A window of plain text: gives the text that may go."""

    __slots__ = ("_held", "_window")

    def __init__(
        self, readers: Sequence[Reader], record: Record, stage: Stage, blocking: list[Match] | None = None
    ) -> None:
        self._window = Window(readers, record, stage, blocking)
        self._held = ""

    def feed(self, chunk: str, final: bool = False) -> str:
        held = self._held + chunk
        length, edits = self._window.feed(chunk, final)
        self._held = held[length:]
        return apply_edits(held[:length], edits)

    def close(self) -> None:
        self._window.close()
