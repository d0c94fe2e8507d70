"""The words of a text that may go on growing, with what stands between them."""

from __future__ import annotations

from bisect import bisect_right

from policies.fold import Folded
from policies.wordlists.entries import spaced_once

PENDING = -1  # only later text can tell


class Tokens:
    """`count` words are complete. The last one is not when it touches the end of a text that goes on: `partial`."""

    __slots__ = ("_folded", "count", "final", "partial", "text", "words")

    def __init__(self, folded: Folded, final: bool) -> None:
        self._folded = folded
        self.text = folded.text
        self.words = folded.words
        self.final = final
        self.count = len(self.words)
        self.partial = ""
        if self.words and not final and self.text.endswith(self.words[-1]):
            self.count -= 1
            self.partial = self.words[-1]

    @property
    def starts(self) -> list[int]:
        """Where each word begins."""
        return self._folded.starts

    def end(self, index: int) -> int:
        return self.starts[index] + len(self.words[index])

    def at(self, offset: int) -> int:
        """Which word the character at `offset` belongs to, -1 if the first one begins later."""
        return bisect_right(self.starts, offset) - 1

    def gap(self, index: int) -> str:
        """What stands before a word: one space for any white space."""
        return spaced_once(self.text[self.end(index - 1) : self.starts[index]])


def growing(text: Folded) -> Tokens:
    """To be derived: of a text that goes on, for all lists that read it."""
    return Tokens(text, final=False)


def literal_end(text: str, start: int, literal: str, final: bool) -> int | None:
    """Where `literal`, its spaces standing for any white space, ends in `text` if it begins at `start`. None: it does
    not stand there. PENDING: so far as the text goes, it does."""
    for index, part in enumerate(literal.split(" ")):
        if index:
            after = _skip_space(text, start)
            if after == start:
                return PENDING if start == len(text) and not final else None
            start = after
        if not text.startswith(part, start):
            rest = text[start : start + len(part)]
            return PENDING if not final and start + len(rest) == len(text) and part.startswith(rest) else None
        start += len(part)
    return start


def literal_start(text: str, end: int, literal: str) -> int | None:
    """Where `literal` begins in `text` if it ends at `end`. None: it does not stand there."""
    for index, part in enumerate(reversed(literal.split(" "))):
        if index:
            before = end
            while end and text[end - 1].isspace():
                end -= 1
            if end == before:
                return None
        if not text.endswith(part, 0, end):
            return None
        end -= len(part)
    return end


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
