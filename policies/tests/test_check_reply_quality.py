from __future__ import annotations

from typing import Any

import pytest

from policies.checks.reply_quality import ReplyQualityCheck
from policies.tests.tools import exchange_of, made


def faults(choice: dict[str, Any], **settings: Any) -> list[str]:
    check = made(ReplyQualityCheck, **settings)
    return [found.label for found in check.inspect_reply({"choices": [choice]}, exchange_of())]


def said(content: Any, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish_reason}


@pytest.mark.parametrize("content", [None, "", "  \n", []])
def test_reply_without_text_is_empty(content: Any) -> None:
    assert faults(said(content)) == ["empty"]


def test_reply_that_calls_a_tool_is_not_empty() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert faults(said(None, "tool_calls", tool_calls=[call])) == []


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "Sorry, I cannot assist with this request.",
        "I’m very sorry, but I won’t do that.",
        "I cannot provide instructions for that.",
        "As an AI language model, I am unable to form opinions.",
        "Es tut mir leid, aber dabei kann ich dir nicht helfen.",
        "Leider darf ich dazu nichts sagen, das kann ich nicht.",
        "Ich kann Ihnen dabei nicht weiterhelfen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "**Sorry**, I can't do that.",
    ],
)
def test_refusal_is_known_by_how_it_begins(text: str) -> None:
    assert faults(said(text)) == ["refused"]


@pytest.mark.parametrize(
    "text",
    [
        "Sorry for the delay! Here is the summary you asked for.",
        "I can help with that.",
        "The clerk said: I'm sorry, but I can't help you.",
        "Leider regnet es heute.",
        "I can't help but notice how well the second chapter begins.",
        "I'm sorry to hear that you can't sleep. Three things help:",
        "Unfortunately, you cannot cancel online; call the shop.",
        "Leider kann der Drucker dieses Papier nicht einziehen.",
        "I cannot overstate how much the second chapter gained.",
        '```python\nraise ValueError("sorry, can\'t")\n```',
    ],
)
def test_answer_that_only_sounds_like_a_refusal_is_none(text: str) -> None:
    assert faults(said(text)) == []


def test_provider_says_itself_that_it_refuses() -> None:
    assert faults(said(None, refusal="No.")) == ["refused"]


@pytest.mark.parametrize("reason", ["length", "content_filter", "max_tokens"])
def test_reply_that_ends_at_a_limit_is_cut_off(reason: str) -> None:
    assert faults(said("Once upon a", reason)) == ["truncated"]


def test_only_what_is_asked_for_is_counted() -> None:
    assert faults(said("", "length"), empty=False) == ["truncated"]


def test_legacy_completion_is_judged_too() -> None:
    assert faults({"index": 0, "text": "", "finish_reason": "length"}) == ["empty", "truncated"]


@pytest.mark.parametrize("reply", [{}, {"choices": None}, {"choices": [None, 1]}, {"data": []}])
def test_reply_of_any_shape_is_taken(reply: dict[str, Any]) -> None:
    assert list(made(ReplyQualityCheck).inspect_reply(reply, exchange_of())) == []


def test_long_reply_costs_no_more_than_its_beginning() -> None:
    assert faults(said("I'm sorry " * 200_000)) == []
