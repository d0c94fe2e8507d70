"""Entries that somebody brings: what is new, what is there, what is refused and why."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from policies import intake, services
from policies.entry_files import Line, read_text
from policies.intake import Intake, collector_at_rest, sort_lines
from policies.models import Wordlist

pytestmark = pytest.mark.django_db


@pytest.fixture
def frogs() -> Wordlist:
    wordlist = Wordlist.objects.create(name="frogs")
    services.set_entries(wordlist, ["Frog", "Straße"], ["frogman"])
    return wordlist


@pytest.fixture
def builtin(monkeypatch: pytest.MonkeyPatch) -> Wordlist:
    monkeypatch.setattr(intake, "seed", lambda name: (("fudge",), ("fudge cake",)))
    return Wordlist.objects.create(name="sweets", builtin="sweets")


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def sorted_(pasted: str, wordlist: Wordlist | None = None) -> Intake:
    return sort_lines(read_text(pasted), wordlist)


def test_new_entries_are_told_from_those_that_are_there(frogs: Wordlist) -> None:
    found = sorted_("toad\nFROG\nSTRASSE\n!frogman\n!toad", frogs)
    assert texts(found.new) == ["toad", "toad"]
    assert [line.allow for line in found.new] == [False, True]
    assert [(line.text, there) for line, there in found.known] == [
        ("FROG", "Frog"),
        ("STRASSE", "Straße"),
        ("frogman", "frogman"),
    ]


def test_word_and_exception_of_the_same_text_are_two_entries(frogs: Wordlist) -> None:
    assert texts(sorted_("!frog\nfrogman", frogs).new) == ["frog", "frogman"]


def test_lines_that_fold_to_the_same_are_shown_as_doubles() -> None:
    found = sorted_("Straße\nnewt\nSTRASSE\nstrasse")
    assert texts(found.new) == ["Straße", "newt"]
    assert [(line.number, first.number) for line, first in found.doubles] == [(3, 1), (4, 1)]


def test_what_ships_with_the_list_is_not_added_again(builtin: Wordlist) -> None:
    found = sorted_("FUDGE\n!fudge\n!Fudge Cake\ncake", builtin)
    assert texts(found.shipped) == ["FUDGE", "Fudge Cake"]
    assert [(line.text, line.allow) for line in found.new] == [("fudge", True), ("cake", False)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (Line(7, "*"), "only stars or punctuation"),
        (Line(7, "f*"), "at least two letters"),
        (Line(7, "x" * 201), "at most 200 characters"),
        (Line(7, "fr\x07og"), "control character"),
        (Line(7, "two\nlines"), "line break"),
        (Line(7, "half \ud83d"), "control character"),
        (Line(7, "frog", None), "must say yes or no"),
        (Line(7, ""), "Write a word"),
    ],
)
def test_refused_line_is_told_with_its_reason(line: Line, reason: str) -> None:
    found = sort_lines([line, Line(8, "newt")])
    assert texts(found.new) == ["newt"]
    assert found.refused[0][0].number == 7
    assert reason in found.refused[0][1]


def test_whatever_is_new_can_be_saved(frogs: Wordlist) -> None:
    changed = intake.add(frogs, sorted_("toad\nFROG\n!newt\n*", frogs))
    assert changed.added == 2
    assert sorted(frogs.entries.values_list("text", "allow")) == [
        ("Frog", False),
        ("Straße", False),
        ("frogman", True),
        ("newt", True),
        ("toad", False),
    ]


def test_replacing_keeps_what_is_meant_and_removes_the_rest(frogs: Wordlist) -> None:
    changed = intake.replace(frogs, sorted_("FROG\ntoad", frogs))
    assert (changed.added, changed.removed) == (1, 2)
    assert sorted(frogs.entries.values_list("text", flat=True)) == ["Frog", "toad"]


def test_sorting_asks_little_of_a_long_list(frogs: Wordlist, django_assert_max_num_queries: Any) -> None:
    pasted = "\n".join(f"word {number}" for number in range(2_000))
    with django_assert_max_num_queries(5):
        assert len(sorted_(pasted, frogs).new) == 2_000


def test_list_has_room_for_so_many(frogs: Wordlist) -> None:
    frogs.entry_count = intake.MAX_ENTRIES - 2
    assert (intake.room(frogs), intake.room(None)) == (2, intake.MAX_ENTRIES)


def test_collector_rests_while_many_lines_are_held_and_only_then() -> None:
    assert gc.isenabled()
    with pytest.raises(LookupError), collector_at_rest():
        assert not gc.isenabled()
        raise LookupError
    assert gc.isenabled()
