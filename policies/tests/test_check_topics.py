from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checks.topics import MAX_KEYWORDS, TopicsCheck
from policies.patterns import MAX_PATTERNS
from policies.tests.stream_law import check_stream_law
from policies.tests.tools import (
    check_blocks,
    check_finds,
    check_holds,
    check_keeps_flowing,
    check_passes,
    check_redacts,
    made,
)


def topics(**fields: Any) -> Any:
    return made(TopicsCheck, **fields)


def refusals(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as refused:
        topics(**fields)
    return refused.value.message_dict


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("merger", "The MERGER, the mergers.", ["MERGER"]),
        ("project apollo", "On project\n  Apollo now.", ["project\n  Apollo"]),
        ("merg*", "The mergers merge.", ["mergers", "merge"]),
        ("слияние", "Это Слияние.", ["Слияние"]),
        ("C++", "C++ and C", ["C++"]),
    ],
)
def test_keyword_is_found_as_a_whole_word_in_any_case(keyword: str, text: str, found: list[str]) -> None:
    check_finds(topics(keywords=[keyword]), text, *[(one, "keyword") for one in found])


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [("erge", "The mergers emerge.", ["mergers", "emerge"]), ("obj++", "See MyObj++ here.", ["MyObj++"])],
)
def test_keyword_is_found_inside_words_where_the_rule_says_so(keyword: str, text: str, found: list[str]) -> None:
    check_finds(topics(keywords=[keyword], whole_words=False), text, *found)


def test_pattern_is_found_and_named_by_its_number() -> None:
    check = topics(patterns=[r"project\s+[a-z]+-\d", r"\bQ[1-4] results\b"])
    text = "About project  Zeus-7 and the q3 results."
    check_finds(check, text, ("project  Zeus-7", "pattern 1"), ("q3 results", "pattern 2"))


def test_pattern_longer_than_its_limit_does_not_count() -> None:
    check = topics(patterns=["begin.*end"], max_match_chars=20)
    check_finds(check, "begin it all and then end. begin and end.", "begin and end")


def test_keywords_and_patterns_work_together() -> None:
    check = topics(keywords=["merger"], patterns=[r"\d{3}-\d{4}"])
    check_redacts(check, "The merger: call 555-1234.", "The ****: call ****.")
    check_blocks(check, "Call 555-1234.")
    check_passes(check, "Merging traffic, 55-123.")


# --- named faults of what it replaces --------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["check", "back", "cocktail", "Essex", "document", "title"])
def test_keyword_is_no_substring_and_no_regular_expression(word: str) -> None:
    """Usage Panda's B4: each entry was an unescaped expression, so that "f*ck" matched every "ck"."""
    check_finds(topics(keywords=["f*ck", "sex", "tit", "cum", "a.c"]), f"The {word}, abc.")


def test_keyword_may_hold_the_signs_of_a_regular_expression() -> None:
    check_finds(
        topics(keywords=["a+b (draft)", "[secret]", "what?"]),
        "The a+b (draft), see [secret].",
        "a+b (draft)",
        "[secret]",
    )


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(a", "missing )"), (r"a(?=b)", "(?="), (r"\Aa", "use ^"), ("x*", "nothing at all")]
)
def test_pattern_that_cannot_work_is_refused_with_its_number_and_the_reason(pattern: str, reason: str) -> None:
    [error] = refusals(patterns=["fine", pattern])["patterns"]
    assert error.startswith(f"Pattern 2 ({pattern}): ")
    assert reason in error


def test_rule_without_a_topic_is_refused() -> None:
    assert refusals() == {"keywords": ["Name at least one keyword or pattern."]}


@pytest.mark.parametrize(("keyword", "whole_words"), [("***", True), ("x", False)])
def test_keyword_that_would_match_nearly_everything_is_refused(keyword: str, whole_words: bool) -> None:
    [error] = refusals(keywords=["fine", keyword], whole_words=whole_words)["keywords"]
    assert error.startswith(f"{keyword}: ")


def test_too_many_are_refused() -> None:
    assert "keywords" in refusals(keywords=[f"word{number}" for number in range(MAX_KEYWORDS + 1)])
    assert "patterns" in refusals(patterns=[f"word{number}" for number in range(MAX_PATTERNS + 1)])


@pytest.mark.parametrize("size", [0, 2001])
def test_longest_match_is_bounded(size: int) -> None:
    assert "max_match_chars" in refusals(patterns=["a"], max_match_chars=size)


# --- streams ---------------------------------------------------------------------------------------------------------


def test_everything_holds_for_keywords_and_patterns_in_every_field_and_split() -> None:
    check = topics(keywords=["big merger"], patterns=[r"\bproject\s+[a-z]{2,8}\b"])
    check_holds(check, "A big\nmerger — é: project  zeus, Project 7.")


def test_harmless_text_keeps_flowing() -> None:
    check = topics(patterns=[r"project\s+[a-z]+-\d", r"secret.{0,100}plan"])
    check_keeps_flowing(check, "Nothing here is in any way about sewing projections of Prague.", at_most=7)


@settings(max_examples=100, deadline=None)
@given(
    st.text("merg é\n-12", max_size=40), st.lists(st.integers(0, 40), max_size=8), st.sampled_from([(0,), (1, 0, 4)])
)
def test_law_of_streams(text: str, cuts: list[int], lags: tuple[int, ...]) -> None:
    check = topics(keywords=["merge", "e m"], patterns=[r"\be+\b", "g.*?1", "^r", r"\d$"], max_match_chars=9)
    check_stream_law(check, text, cuts, check.left_context, lags)


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_long_texts_take_time_by_their_length() -> None:
    check = topics(keywords=["project zeus"], patterns=[r"(?:project\s+)+x", r"p.*?zeus"])
    text = "project " * 25_000
    begun = time.process_time()
    check_stream_law(check, text, range(32_768, 200_000, 32_768), check.left_context)
    assert time.process_time() - begun < 5
