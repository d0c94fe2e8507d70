from __future__ import annotations

import json
from typing import Any

import pytest

from policies.prompts import chars_in, prompt_chars, texts_in, tokens_in, written


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("hello", ["hello"]),
        (None, []),
        (7, []),
        ([], []),
        (["a", "b"], ["a", "b"]),
        ([{"type": "text", "text": "a"}, "b", {"type": "refusal", "refusal": "c"}], ["a", "b", "c"]),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], []),
        ([{"type": "text"}, {"type": "text", "text": None}, {"type": "text", "text": 5}, {}], []),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "a"}]}], ["a"]),
    ],
)
def test_texts_of_a_content_are_its_string_or_those_of_its_parts(content: Any, texts: list[str]) -> None:
    assert list(texts_in(content)) == texts


def test_deeply_nested_content_is_read_to_its_end() -> None:
    content: Any = "end"
    for _ in range(100_000):
        content = [content]
    assert chars_in(content) == 3


@pytest.mark.parametrize(
    ("value", "count"),
    [("text", 0), (None, 0), ([1, 2, 3], 3), ([[1, 2], [3]], 3), (["a", "b"], 0), ([True], 0), ([], 0)],
)
def test_tokens_are_the_numbers_of_a_prompt(value: Any, count: int) -> None:
    assert tokens_in(value) == count


@pytest.mark.parametrize(
    ("body", "chars"),
    [
        ({"messages": [{"role": "system", "content": "abc"}, {"role": "user", "content": "de"}]}, 5),
        ({"messages": [{"role": "assistant", "content": None}, {"role": "tool", "content": "abc"}]}, 3),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "abc"}, "de"]}]}, 5),
        ({"prompt": "abc"}, 3),
        ({"prompt": ["abc", "de"]}, 5),
        ({"prompt": [1, 2, 3]}, 12),
        ({"prompt": [[1], [2, 3]]}, 12),
        ({"input": "abc"}, 3),
        ({"input": ["abc", "de"]}, 5),
        ({"messages": "nonsense", "prompt": {"a": 1}, "input": None}, 0),
        ({}, 0),
    ],
)
def test_prompt_is_as_long_as_its_texts_together(body: dict[str, Any], chars: int) -> None:
    assert prompt_chars(body) == chars


def test_characters_are_counted_and_not_bytes_or_halves_of_pairs() -> None:
    assert prompt_chars({"prompt": "Grüße 😀"}) == 7


@pytest.mark.parametrize("value", [{"a": [1, "ü"]}, 2**70, "\ud83d", [2**64, {"b": "\ud800"}]])
def test_every_json_value_can_be_written(value: Any) -> None:
    assert json.loads(written(value)) == value


def test_what_is_nested_too_deeply_is_written_as_nothing() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert written(value) == b""
