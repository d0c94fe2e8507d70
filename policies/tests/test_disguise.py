"""Where a text looks odd. What is made of it: test_matcher.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.fold import Folded
from policies.wordlists import disguise

PIECES = st.sampled_from(
    [
        "a",
        "b",
        "un",
        "able",
        "hello",
        "aaa",
        "A",
        " ",
        " ",
        ".",
        "-",
        "'",
        "!",
        "!!",
        "?",
        "\n",
        "_",
        "*",
        "@",
        "$",
        "3",
        "0",
    ]
)


@settings(max_examples=1000)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_short_texts_that_are_passed_over_are_ordinary(text: str) -> None:
    assert disguise._odd_in_whole(Folded(text)) == disguise._odd(Folded(text))


@pytest.mark.parametrize("text", ["Hello! How are you?", "It's a well-known (old) story: read it.", "I am a man"])
def test_ordinary_short_texts_are_passed_over(text: str) -> None:
    assert disguise._is_plain_text(Folded(text))
