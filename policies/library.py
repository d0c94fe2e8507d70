"""Word lists for the checks that need them: read and compiled when a rule asks, and kept for as long as they stay the
same. Compiling takes a second for a long list, so it happens where configuration is built, never in a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from policies.checks.base import WordMatcher
from policies.models import Wordlist, WordlistEntry
from policies.wordlists import compile_wordlist


class Fingerprint(NamedTuple):
    """Two lists with the same one match the same and report it by the same name."""

    name: str
    builtin: str
    content_hash: str
    catch_disguises: bool


class Library:
    """The word lists of the database at one moment; a checks.base.World.

    Those that an earlier library has compiled and that have not changed are taken over. One query, and one for each
    list that is compiled. Raises what the database raises.
    """

    def __init__(self, earlier: Library | None = None) -> None:
        self._rows = {row.name: row for row in Wordlist.objects.all()}
        self._earlier = earlier.compiled if earlier else {}
        self.compiled: dict[Fingerprint, WordMatcher] = {}

    def fingerprint(self, name: str) -> Fingerprint | None:
        """None: there is no such list."""
        row = self._rows.get(name)
        return Fingerprint(name, row.builtin, row.content_hash, row.catch_disguises) if row else None

    def wordlist(self, name: str) -> WordMatcher:
        fingerprint = self.fingerprint(name)
        if fingerprint is None:
            raise LookupError(f"there is no word list {name}")
        matcher = self.compiled.get(fingerprint) or self._earlier.get(fingerprint)
        if matcher is None:
            matcher = self._compile(fingerprint)
        self.compiled[fingerprint] = matcher
        return matcher

    def forget_earlier(self) -> None:
        """What nobody has asked for is let go."""
        self._earlier = {}

    def _compile(self, wanted: Fingerprint) -> WordMatcher:
        rows = WordlistEntry.objects.filter(wordlist=self._rows[wanted.name]).order_by("pk")
        entries: list[str] = []
        allowed: list[str] = []
        for text, allow in rows.values_list("text", "allow").iterator(chunk_size=5000):
            (allowed if allow else entries).append(text)
        return compile_wordlist(
            wanted.name, entries, allowed, builtin=wanted.builtin, catch_disguises=wanted.catch_disguises
        )


class Shelf:
    """Word lists that are compiled already; never reads the database. A checks.base.World for the path of a call."""

    def __init__(self, matchers: Iterable[tuple[Fingerprint, WordMatcher]]) -> None:
        self._matchers = {fingerprint.name: matcher for fingerprint, matcher in matchers}

    def wordlist(self, name: str) -> WordMatcher:
        try:
            return self._matchers[name]
        except KeyError:
            raise LookupError(f"no rule in force uses a word list {name}") from None
