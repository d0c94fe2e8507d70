"""How large a call is before anybody has counted its tokens: about, and at most."""

from __future__ import annotations

from typing import Any

import pytest

from policies.types import Exchange
from proxy.measure import (
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    estimated_tokens,
    most_completion_tokens,
    most_prompt_tokens,
    text_bytes,
)
from proxy.tests.recorded import chat, exchange_of


def estimated(exchange: Exchange) -> int:
    return estimated_tokens(text_bytes(exchange))


def at_most(exchange: Exchange) -> int:
    return most_prompt_tokens(exchange, text_bytes(exchange))


# --- about -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("x" * 4000, 1000),
        ("東京" * 6, 9),  # 36 bytes
        ("👋" * 4, 4),
        (None, 0),
        ([{"type": "text", "text": "abcdefgh"}, {"type": "image_url", "image_url": {"url": "x" * 5000}}], 2),
        (["abcd", "efgh"], 2),
    ],
    ids=lambda value: str(value)[:20],
)
def test_prompt_is_estimated_at_four_bytes_of_text_a_token(content: Any, tokens: int) -> None:
    assert estimated(chat(messages=[{"role": "user", "content": content}])) == tokens


@pytest.mark.parametrize(
    ("endpoint", "field", "value", "tokens"),
    [
        ("completions", "prompt", "abcdefgh", 2),
        ("completions", "prompt", ["abcd", "efgh"], 2),
        ("completions", "prompt", [1, 2, 3], 3),
        ("embeddings", "input", [[1, 2], [3]], 3),
        ("embeddings", "input", "abcd", 1),
    ],
)
def test_prompt_of_the_other_endpoints_is_estimated_too(endpoint: str, field: str, value: Any, tokens: int) -> None:
    assert estimated(exchange_of(endpoint, {"model": "m", field: value})) == tokens


def test_every_message_counts() -> None:
    messages = [{"role": "system", "content": "abcd"}, {"role": "user", "content": "efgh"}, {"role": "assistant"}]
    assert estimated(chat(messages=messages)) == 2


# --- at most ---------------------------------------------------------------------------------------------------------


def test_prompt_has_no_more_tokens_than_bytes_and_some_around_each_message() -> None:
    messages = [{"role": "user", "content": "abcd"}, {"role": "assistant", "content": "東京"}]
    assert at_most(chat(messages=messages)) == 4 + 6 + 3 * TOKENS_PER_MESSAGE


def test_tools_are_read_like_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    messages = [{"role": "user", "content": "x"}]
    assert at_most(chat(messages=messages, tools=tools)) > at_most(chat(messages=messages)) + 70


@pytest.mark.parametrize(
    ("part", "least"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, TOKENS_PER_IMAGE),
        ({"type": "input_audio", "input_audio": {"data": "A" * 40_000, "format": "mp3"}}, 100),
        ({"type": "file", "file": {"file_data": "A" * 40_000}}, 20_000),
    ],
    ids=["image", "audio", "file"],
)
def test_what_is_not_text_counts_too(part: dict[str, Any], least: int) -> None:
    content = [{"type": "text", "text": "look"}, part]
    assert at_most(chat(messages=[{"role": "user", "content": content}])) >= least


@pytest.mark.parametrize(
    ("fields", "most", "named"),
    [
        ({}, 500, False),
        ({"max_tokens": 50}, 50, True),
        ({"max_completion_tokens": 70}, 70, True),
        ({"max_tokens": 50, "max_completion_tokens": 70}, 70, True),
        ({"max_tokens": 50, "n": 3}, 150, True),
        ({"n": 2}, 1000, False),
        ({"max_tokens": 9_999}, 2_000, True),
        ({"max_tokens": None}, 500, False),
        ({"max_tokens": 0}, 500, False),
        ({"max_tokens": True}, 500, False),
        ({"max_tokens": -5, "n": -1}, 500, False),
    ],
    ids=str,
)
def test_answer_is_as_long_as_the_caller_the_model_and_the_default_allow(
    fields: dict[str, Any], most: int, named: bool
) -> None:
    assert most_completion_tokens(chat(**fields), 2_000, 500) == (most, named)


def test_best_of_and_every_prompt_of_a_list_make_answers_of_their_own() -> None:
    body = {"model": "m", "prompt": ["a", "b"], "max_tokens": 10, "best_of": 4}
    assert most_completion_tokens(exchange_of("completions", body), None, 500) == (80, True)
    body = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 10}
    assert most_completion_tokens(exchange_of("completions", body), None, 500) == (10, True)


def test_embeddings_have_no_answer() -> None:
    assert most_completion_tokens(exchange_of("embeddings", {"model": "m", "input": "a"}), None, 500) == (0, True)
