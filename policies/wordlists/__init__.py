"""Word lists: what they say, how they are compiled, and those that ship with Gatehouse."""

from __future__ import annotations

from collections.abc import Iterable

from policies.wordlists.matcher import Matcher
from policies.wordlists.seeds import OTHER_LANGUAGES, seed


def compile_wordlist(
    name: str, entries: Iterable[str], allowed: Iterable[str], *, builtin: str, catch_disguises: bool
) -> Matcher:
    """A list of the database: its own entries and, if it is one that ships with Gatehouse (`builtin`), that list's.
    Takes about a second for 100,000 entries. Raises LookupError when there is no such list to ship."""
    shipped, shipped_allowed = seed(builtin) if builtin else ((), ())
    return Matcher(
        name,
        [*shipped, *entries],
        [*shipped_allowed, *allowed],
        catch_disguises=catch_disguises,
        with_endings=builtin not in OTHER_LANGUAGES,
    )
