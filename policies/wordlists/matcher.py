"""A word list as rules use it: compiled once, then asked of every text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate

from policies.fold import Folded
from policies.types import Scan, Span
from policies.wordlists.disguise import LEFT, Disguises
from policies.wordlists.entries import fold_entry, matchable, validate_entry
from policies.wordlists.index import Index

__all__ = ["Matcher", "fold_entry", "validate_entry"]

# Letters of scripts some of whose letters are taken for Latin ones, as people write them who write that script. Letters
# that hardly anybody writes but to pass for Latin are not among them.
_FOREIGN_LETTERS = (
    "\u0370-\u037e\u0384-\u03f1\u03f4-\u03f8\u03fa-\u03ff\u1f00-\u1fffЀ-ЄІЇЉ-єіїљ-џҊ-Һ\u04be-\u04ff\u0530-\u058f"
)
_FOREIGN = re.compile(rf"[\W\d_]*[{_FOREIGN_LETTERS}][\W\d_{_FOREIGN_LETTERS}]*")
# So many letters at most does a star in an exception stand for: all that it may cover has to be kept of a stream.
_WILD_LETTERS = 24
_EDGE = 16  # characters, most of them invisible, between a word and what stands beside it


class Matcher:
    """Finds the entries of a list, whole words, whatever their case, width and look-alikes; a checks.base.WordMatcher.

    entries, allowed   as the admin wrote them; those that validate_entry refuses are left out. Where one of `allowed`
                       covers a match, that match does not count
    catch_disguises    also finds words that are spelled out, masked, stretched and written with digits,
    with_endings       and those with an English ending; not for words of another language
    """

    def __init__(
        self,
        name: str,
        entries: Iterable[str],
        allowed: Iterable[str] = (),
        *,
        catch_disguises: bool = False,
        with_endings: bool = True,
    ) -> None:
        self.name = name
        self._foreign: set[str] = set()
        self._index = Index(self._folded(entries))
        self._disguises = Disguises(self._index, with_endings) if catch_disguises else None
        self._index.complete()
        exceptions = [entry for entry in map(matchable, allowed) if entry is not None]
        self._exceptions = Index(exceptions)
        # What is longer in the text than any exception should be, by invisible characters say, is none.
        self._exception_chars = _EDGE + max(map(_longest_match, exceptions), default=-_EDGE)
        self.left_context = self._exception_chars + (_EDGE + LEFT if catch_disguises else _EDGE)

    def _folded(self, entries: Iterable[str]) -> Iterator[str]:
        for text in entries:
            if (entry := matchable(text)) is not None:
                if entry.isascii() and not text.isascii() and _FOREIGN.fullmatch(text):
                    self._foreign.add(entry)
                yield entry

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        matches, pending = self._index.find(text, final)
        if self._disguises is not None:
            self._disguises.find(text, final, matches, pending)
        if not matches:
            safe = len(text.original) if final else _safe(text, start, [text.at(place) for place in pending])
            return Scan((), safe)
        spans = {text.span(first, last) for first, last, entry in matches if self._is_meant(text, first, last, entry)}
        waiting = [text.at(place) for place in pending]
        if spans and self._exception_chars:
            spans = self._without_exceptions(text, final, spans, waiting)
        return Scan(
            [Span(first, last, self.name) for first, last in sorted(spans) if first >= start],
            len(text.original) if final else _safe(text, start, waiting),
        )

    def _is_meant(self, text: Folded, start: int, end: int, entry: str) -> bool:
        """A word all of whose letters are Cyrillic, say, is a Cyrillic word, even if it looks like a listed Latin one;
        unless the list has it in Cyrillic."""
        original = text.original
        if original.isascii() or entry in self._foreign or not text.text[start:end].isascii():
            return True
        first, last = text.span(start, end)
        return original[first:last].isascii() or not _FOREIGN.fullmatch(original, first, last)

    def _without_exceptions(
        self, text: Folded, final: bool, spans: set[tuple[int, int]], waiting: list[int]
    ) -> set[tuple[int, int]]:
        """Those that no exception covers. If one still may, it is not known yet: the match waits."""
        exceptions, open_exceptions = self._exceptions.find(text, final)
        covers = sorted(text.span(first, last) for first, last, _ in exceptions)
        covers = [(first, last) for first, last in covers if last - first <= self._exception_chars]
        begins = [first for first, _ in covers]
        reached = list(accumulate((last for _, last in covers), max))
        size = len(text.original)
        open_from = min((p for p in map(text.at, open_exceptions) if size - p <= self._exception_chars), default=size)
        counting = set()
        for first, last in spans:
            before = bisect_right(begins, first)
            if before and reached[before - 1] >= last:
                continue
            if open_from <= first:
                waiting.append(first)
            else:
                counting.add((first, last))
        return counting


def _longest_match(entry: str) -> int:
    return len(entry) + entry.count("*") * _WILD_LETTERS


def _safe(text: Folded, start: int, waiting: list[int]) -> int:
    """What cannot be seen at the end waits for what it stands before: whether that begins a word is not known yet."""
    size = len(text.text)
    seen = size if text.original.isascii() else text.span(size - 1, size)[1] if size else 0
    return max(start, min([place for place in (*waiting, seen) if place >= start], default=start))
