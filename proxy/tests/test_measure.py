"""How large a call is before anybody has counted its tokens: about, and at most."""

from __future__ import annotations

from typing import Any

import pytest

from policies.types import Exchange
from proxy.measure import (
    TOKENS_FOR_TOOLS,
    TOKENS_PER_IMAGE,
    TOKENS_PER_MESSAGE,
    asked_tokens,
    estimated_tokens,
    most_bytes,
    most_completion_tokens,
    most_prompt_tokens,
    text_bytes,
)
from proxy.tests.recorded import chat, exchange_of


def estimated(exchange: Exchange) -> int:
    return estimated_tokens(text_bytes(exchange))


def at_most(exchange: Exchange) -> int:
    return most_prompt_tokens(exchange, most_bytes(exchange))


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


TEXT = "東京 abcd " * 500
HIDDEN: dict[str, dict[str, Any]] = {
    "content": {"messages": [{"role": "user", "content": TEXT}]},
    "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]},
    "name": {"messages": [{"role": "user", "content": "x", "name": TEXT}]},
    "arguments": {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": TEXT}}]}]},
    "legacy arguments": {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": TEXT}}]},
    "reasoning": {"messages": [{"role": "assistant", "content": "x", "reasoning_content": TEXT}]},
    "refusal": {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": TEXT}]}]},
    "text beside no content": {"messages": [{"role": "user", "content": [{"content": None, "text": TEXT}]}]},
    "a picture that is none": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": TEXT}]}]},
    "a file of text": {
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": f"data:text/plain,{TEXT}"}}]}]
    },
    "tools": {"messages": [], "tools": [{"type": "function", "function": {"name": "f", "description": TEXT}}]},
    "a field nobody knows": {"messages": [], "context_of_ours": {TEXT: [TEXT]}},
}


@pytest.mark.parametrize("body", HIDDEN.values(), ids=HIDDEN)
def test_prompt_has_no_more_tokens_than_the_request_has_bytes_wherever_they_are(body: dict[str, Any]) -> None:
    assert at_most(exchange_of("chat/completions", {"model": "m", **body})) > len(TEXT.encode())


def test_messages_are_no_prompt_of_completions() -> None:
    body = {"model": "m", "prompt": TEXT, "messages": []}
    assert at_most(exchange_of("completions", body)) > len(TEXT.encode())
    assert estimated(exchange_of("completions", body)) == estimated_tokens(len(TEXT.encode()))


def test_plain_prompt_has_no_more_tokens_than_bytes_and_some_around_each_message() -> None:
    messages = [{"role": "user", "content": "abcd"}, {"role": "assistant", "content": "東京"}]
    assert at_most(chat(messages=messages, temperature=1, user="alice")) == 4 + 6 + 3 * TOKENS_PER_MESSAGE


@pytest.mark.parametrize(
    "messages", ["text", {"role": "user"}, [["text"]], ["text"], [{"role": ["x"]}], [{"content": [1]}]]
)
def test_nonsense_is_measured_too(messages: Any) -> None:
    assert at_most(chat(messages=messages)) > 0


def test_having_tools_costs_tokens_of_its_own() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    without = chat(messages=[{"role": "user", "content": "x"}])
    assert at_most(chat(messages=without.body["messages"], tools=tools)) > at_most(without) + TOKENS_FOR_TOOLS


def test_what_is_read_as_a_picture_is_not_counted_as_text() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    assert at_most(chat(messages=[{"role": "user", "content": [part]}])) < TOKENS_PER_IMAGE + 1_000


def test_rate_limit_is_asked_for_what_is_beside_the_text_too() -> None:
    exchange = chat(messages=[{"role": "user", "content": "abcd", "name": "n" * 40_000}], max_tokens=5)
    exchange.body_bytes = 40_100
    assert asked_tokens(exchange) >= 10_000
    exchange = chat(messages=[{"role": "user", "content": "abcd"}], max_tokens=5)
    exchange.body_bytes = 200
    assert asked_tokens(exchange) == 1 + 5


@pytest.mark.parametrize(
    ("part", "least"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, TOKENS_PER_IMAGE),
        ({"type": "input_audio", "input_audio": {"data": "A" * 40_000, "format": "mp3"}}, 100),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 40_000}}, 20_000),
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
