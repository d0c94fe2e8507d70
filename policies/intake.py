"""Entries that somebody brings to a word list: judged line by line and sorted, before anything is saved."""

from __future__ import annotations

import gc
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from policies.entry_files import Line
from policies.models import Wordlist, WordlistEntry
from policies.services import EntriesChanged, add_entries, check_entry, set_entries
from policies.wordlists.matcher import fold_entry
from policies.wordlists.seeds import seed

MAX_ENTRIES = 100_000
ASKED_AT_ONCE = 500

EntryKey = tuple[str, bool]  # folded, whether it is an exception


@dataclass(slots=True)
class Intake:
    """What would become of each line. Two lines say the same when they fold to the same.

    new      to be added
    known    (line, the entry of the list that says the same)
    shipped  words that the list has already, because they ship with Gatehouse
    doubles  (line, the earlier line that says the same)
    refused  (line, why)
    """

    new: list[Line] = field(default_factory=list)
    known: list[tuple[Line, str]] = field(default_factory=list)
    shipped: list[Line] = field(default_factory=list)
    doubles: list[tuple[Line, Line]] = field(default_factory=list)
    refused: list[tuple[Line, str]] = field(default_factory=list)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """For as long as a hundred thousand lines are held: to walk over them all stops every call of the process for tens
    of milliseconds, and there is nothing to collect."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def sort_lines(lines: Iterable[Line], wordlist: Wordlist | None = None) -> Intake:
    """Reads the list (None: a new one), a query for each few hundred lines; writes nothing."""
    intake = Intake()
    first: dict[EntryKey, Line] = {}
    for line in lines:
        if reason := why_not(line):
            intake.refused.append((line, reason))
            continue
        key = (fold_entry(line.text), bool(line.allow))
        if key in first:
            intake.doubles.append((line, first[key]))
        else:
            first[key] = line
    there = _there(wordlist, list(first))
    shipped = shipped_keys(wordlist)
    for key, line in first.items():
        if key in there:
            intake.known.append((line, there[key]))
        elif key in shipped:
            intake.shipped.append(line)
        else:
            intake.new.append(line)
    return intake


def why_not(line: Line) -> str:
    """Why it cannot be an entry; "" when it can."""
    if line.allow is None:
        return "The column allow must say yes or no."
    if any(unicodedata.category(character) in ("Cc", "Cs") and character != "\t" for character in line.text):
        return "It holds a control character or a line break."
    try:
        check_entry(line.text)
    except ValueError as error:
        return str(error)
    return ""


def add(wordlist: Wordlist, intake: Intake) -> EntriesChanged:
    """Raises ValidationError."""
    return add_entries(wordlist, *_texts(intake.new))


def replace(wordlist: Wordlist, intake: Intake) -> EntriesChanged:
    """Let the lines be all that the list has. Those that say what an entry says leave that as it is written. Raises
    ValidationError."""
    return set_entries(wordlist, *_texts([*intake.new, *(line for line, _ in intake.known)]))


def room(wordlist: Wordlist | None) -> int:
    """So many entries the list may still take."""
    return max(0, MAX_ENTRIES - (wordlist.entry_count if wordlist else 0))


def shipped_keys(wordlist: Wordlist | None) -> set[EntryKey]:
    """Of the list that ships with Gatehouse; none when that is gone."""
    if wordlist is None or not wordlist.builtin:
        return set()
    try:
        entries, allowed = seed(wordlist.builtin)
    except LookupError:
        return set()
    return {(fold_entry(text), False) for text in entries} | {(fold_entry(text), True) for text in allowed}


def _texts(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    return [line.text for line in lines if not line.allow], [line.text for line in lines if line.allow]


def _there(wordlist: Wordlist | None, keys: Sequence[EntryKey]) -> dict[EntryKey, str]:
    found: dict[EntryKey, str] = {}
    if wordlist is None or wordlist.pk is None:
        return found
    for start in range(0, len(keys), ASKED_AT_ONCE):
        folded = {key[0] for key in keys[start : start + ASKED_AT_ONCE]}
        rows = WordlistEntry.objects.filter(wordlist=wordlist, folded__in=folded)
        found |= {(row[0], row[1]): row[2] for row in rows.values_list("folded", "allow", "text")}
    return found
