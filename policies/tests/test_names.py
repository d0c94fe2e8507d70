from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.names import Names


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o", "GPT-4o"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o*", "gpt-4o"),
        ("gpt-4o*", "gpt-4o-mini"),
        ("*-mini", "gpt-4o-mini"),
        ("*", "anything"),
        ("claude-*-sonnet*", "claude-4-sonnet-20260101"),
        ("a**b", "ab"),
        ("*a*", "a"),
        ("gpt*", "gpt\nwith a line"),
    ],
)
def test_names_match_whole_in_any_case_with_stars_for_any_characters(entry: str, name: str) -> None:
    assert Names(["other", entry]).match(name) == entry


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "my-gpt-4o"),
        ("gpt.4o", "gpt-4o"),
        ("gpt-?o", "gpt-4o"),
        ("gpt-[4]o", "gpt-4o"),
        ("ab*ba", "aba"),
        ("a*b*c", "acb"),
        ("gpt-4o*", ""),
    ],
)
def test_only_the_star_is_special(entry: str, name: str) -> None:
    assert Names([entry]).match(name) is None


@given(entry=st.text("ab*", max_size=8), name=st.text("ab", max_size=12))
def test_stars_mean_what_they_mean_in_a_shell(entry: str, name: str) -> None:
    assert (Names([entry]).match(name) is not None) == fnmatchcase(name, entry)


def test_no_entry_makes_a_name_slow_to_match() -> None:
    names = Names(["*a" * 30 + "*b"])
    begun = time.process_time()
    assert names.match("a" * 5000) is None
    assert time.process_time() - begun < 0.1


def test_list_without_entries_is_false() -> None:
    assert not Names([])
    assert Names(["a"])
    assert Names(["*"])
