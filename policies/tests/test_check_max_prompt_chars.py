from __future__ import annotations

from typing import Any

import pytest

from policies.tests.request_checks import chat, compiled, completion, embedding, found, said
from policies.types import Exchange

OVER = ["over the limit"]


def text(chars: int) -> str:
    return "x" * chars


@pytest.mark.parametrize(
    ("exchange", "labels"),
    [
        (chat(text(10)), []),
        (chat(text(11)), OVER),
        (chat({"role": "system", "content": text(6)}, text(4)), []),
        (chat({"role": "system", "content": text(6)}, text(5)), OVER),
        (chat({"role": "tool", "content": text(11)}), OVER),
        (completion(text(10)), []),
        (completion(text(11)), OVER),
        (completion([text(5), text(6)]), OVER),
        (embedding(text(11)), OVER),
        (embedding([text(5), text(5)]), []),
    ],
)
def test_all_texts_of_a_call_count_together(exchange: Exchange, labels: list[str]) -> None:
    assert found(compiled("max_prompt_chars", limit=10), exchange) == labels


def test_parts_of_a_message_count() -> None:
    """Usage Panda took the number of parts for the number of characters."""
    check = compiled("max_prompt_chars", limit=10)
    parts: list[Any] = [{"type": "text", "text": text(6)}, {"type": "image_url", "image_url": {"url": "https://x"}}]
    assert found(check, chat({"role": "user", "content": parts})) == []
    assert found(check, chat({"role": "user", "content": [*parts, {"type": "text", "text": text(5)}]})) == OVER


def test_content_null_does_not_break_it() -> None:
    """One such request ended Usage Panda's whole process."""
    check = compiled("max_prompt_chars", limit=10)
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said_nothing = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert found(check, chat("hi", said_nothing, {"role": "tool", "tool_call_id": "call_1", "content": "42"})) == []
    assert found(check, chat(text(11), said_nothing)) == OVER


def test_characters_are_code_points() -> None:
    check = compiled("max_prompt_chars", limit=10)
    assert found(check, chat("😀" * 10)) == []
    assert found(check, chat("😀" * 11)) == OVER


def test_numbers_of_tokens_are_no_way_around() -> None:
    check = compiled("max_prompt_chars", limit=10)
    assert found(check, completion([1, 2])) == []
    assert found(check, completion([1, 2, 3])) == OVER
    assert found(check, embedding([[1, 2], [3]])) == OVER


def test_limit_of_zero_is_off() -> None:
    assert found(compiled("max_prompt_chars", limit=0), chat(text(100_000))) == []


def test_caller_is_told_the_limit() -> None:
    message = said(compiled("max_prompt_chars", limit=2000), chat("secret " * 1000))
    assert message == "Send at most 2000 characters of text in one call, all messages together."
