from __future__ import annotations

from typing import Any

import pytest

from policies.tests.request_checks import chat, compiled, completion, embedding, found, said
from policies.types import Exchange

OVER = ["over the limit"]


def fits(exchange: Exchange, window: int | None, **settings: Any) -> bool:
    exchange.context_window = window
    return found(compiled("context_window", **settings), exchange) == []


def text(tokens: int) -> str:
    return "word" * tokens


@pytest.mark.parametrize("make", [chat, completion, embedding])
def test_prompt_must_fit_the_window_by_four_bytes_a_token(make: Any) -> None:
    assert fits(make(text(100)), 100)
    assert not fits(make(text(101)), 100)


def test_reply_asked_for_must_fit_as_well() -> None:
    assert fits(chat(text(60), max_tokens=40), 100)
    assert not fits(chat(text(60), max_tokens=41), 100)
    assert not fits(chat(text(60), max_completion_tokens=41), 100)
    assert fits(chat(text(100), max_tokens=5000), 100, reserve_for_reply=False)


def test_margin_may_be_left() -> None:
    assert fits(chat(text(90)), 100, share_percent=90)
    assert not fits(chat(text(91)), 100, share_percent=90)


@pytest.mark.parametrize("window", [None, 0])
def test_window_that_is_not_known_holds_everything(window: int | None) -> None:
    assert fits(chat(text(10_000), max_tokens=10**9), window)


def test_bytes_of_utf8_count_and_not_characters() -> None:
    assert fits(chat("語" * 4), 3)
    assert not fits(chat("語" * 6), 3)
    assert not fits(chat("\ud83d" * 8), 3)


def test_calls_of_tools_and_their_definitions_take_room() -> None:
    tool = {"type": "function", "function": {"name": "search", "description": text(100)}}
    assert not fits(chat("hi", tools=[tool]), 100)
    assert not fits(chat("hi", functions=[tool["function"]]), 100)
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": text(100)}}
    assert not fits(chat("hi", {"role": "assistant", "content": None, "tool_calls": [call]}), 100)


def test_images_and_files_take_none() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + text(1000)}}
    assert fits(chat({"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}), 100)


@pytest.mark.parametrize(
    ("exchange", "labels"),
    [
        (embedding([text(60), text(60)]), []),
        (embedding([text(60), text(101)]), OVER),
        (completion([text(60), text(60)]), []),
        (completion([1] * 100), []),
        (completion([1] * 101), OVER),
        (completion([[1] * 60, [1] * 60]), []),
        (completion([[1] * 60, [1] * 101]), OVER),
        (completion([]), []),
    ],
)
def test_of_several_prompts_each_has_the_window_to_itself(exchange: Exchange, labels: list[str]) -> None:
    exchange.context_window = 100
    assert found(compiled("context_window"), exchange) == labels


@pytest.mark.parametrize("exchange", [chat(text(101)), completion([1] * 101), chat("x", max_tokens=101)])
def test_size_of_the_request_never_hides_what_does_not_fit(exchange: Exchange) -> None:
    """The shortcut for small requests must agree with counting."""
    exchange.body_bytes = len(str(exchange.body).replace(" ", ""))
    assert not fits(exchange, 100)


def test_caller_is_told_the_limit() -> None:
    exchange = chat(text(10_000), max_tokens=10)
    exchange.context_window = 8000
    assert said(compiled("context_window", share_percent=90), exchange) == (
        "The call does not fit the model: the prompt and the reply that it asks for may have about 7200 tokens. "
        "Shorten the conversation, or ask for fewer tokens."
    )
