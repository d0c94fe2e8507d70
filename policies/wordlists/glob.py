"""A word with stars in it, such as `f*dge`, `fudg*` or `*fudge*`."""

from __future__ import annotations

from functools import lru_cache

from policies.wordlists.entries import MAX_WILD_LETTERS


def longest_word(word: str) -> int:
    """Letters of the longest word that a word of an entry may stand for."""
    return len(word) - word.count("*") + MAX_WILD_LETTERS if "*" in word else len(word)


class Glob:
    """`fits(word)`: in time that grows with the word, however many stars there are."""

    __slots__ = ("_first", "_last", "_letters", "_middle", "anchor")

    def __init__(self, word: str) -> None:
        self._first, *self._middle, self._last = word.split("*")
        self._letters = len(word) - word.count("*")
        self.anchor = max((self._first, *self._middle, self._last), key=len)  # what every word that fits contains

    def fits(self, word: str) -> bool:
        if not self._letters <= len(word) <= self._letters + MAX_WILD_LETTERS or not word.startswith(self._first):
            return False
        if not word.endswith(self._last):
            return False
        position, end = len(self._first), len(word) - len(self._last)
        for piece in self._middle:
            position = word.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True


@lru_cache(maxsize=8192)
def glob(word: str) -> Glob:
    return Glob(word)
