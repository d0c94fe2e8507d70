from __future__ import annotations

import timeit
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.tests.request_checks import chat, compiled, completion, embedding
from policies.types import Exchange

REPLIES = [
    {"match": "Who are  you?", "reply": "I am the assistant of the faculty."},
    {"match": "Opening hours", "reply": "Monday to Friday, 9 to 5."},
]


def answer(exchange: Exchange, **settings: Any) -> str | None:
    found = list(compiled("canned_reply", {"replies": REPLIES, **settings}).inspect(exchange))
    assert len(found) <= 1
    return found[0].answer if found else None


@pytest.mark.parametrize(
    "question", ["Who are  you?", "who are you?", "WHO ARE YOU?", "  Who are\n\tyou?  ", "Who are\u00a0you?"]
)
def test_question_is_known_whatever_its_case_and_spaces(question: str) -> None:
    assert answer(chat(question)) == "I am the assistant of the faculty."
    assert answer(completion(question)) == "I am the assistant of the faculty."


@pytest.mark.parametrize("question", ["Who are you", "Whoareyou?", "Tell me: who are you?", "Who are you? Really?", ""])
def test_question_must_be_the_whole_text(question: str) -> None:
    assert answer(chat(question)) is None


def test_case_is_folded_in_every_language() -> None:
    replies = [{"match": "Größe STRASSE", "reply": "yes"}]
    assert answer(chat("GRÖSSE straße"), replies=replies) == "yes"


def test_exact_match_is_to_the_letter() -> None:
    assert answer(chat("Who are  you?"), match_how="exact") == "I am the assistant of the faculty."
    assert answer(chat("who are you?"), match_how="exact") is None
    assert answer(chat("Who are  you? "), match_how="exact") is None


def test_only_the_last_message_is_compared() -> None:
    assert answer(chat("Hello", {"role": "assistant", "content": "Hi!"}, "opening hours")) == REPLIES[1]["reply"]
    assert answer(chat("opening hours", {"role": "assistant", "content": "Hm?"}, "Never mind")) is None


def test_parts_of_a_message_are_one_text() -> None:
    parts = [{"type": "text", "text": "Opening"}, {"type": "text", "text": "hours"}]
    assert answer(chat({"role": "user", "content": parts})) == REPLIES[1]["reply"]
    assert answer(chat({"role": "user", "content": parts[:1]})) is None


@pytest.mark.parametrize("prompt", [["opening hours"], "opening hours"])
def test_single_prompt_of_a_completion_is_compared(prompt: Any) -> None:
    assert answer(completion(prompt)) == REPLIES[1]["reply"]


@pytest.mark.parametrize("prompt", [["opening hours", "who are you?"], [1, 2], [[1]], [1], []])
def test_several_prompts_and_numbers_of_tokens_have_no_canned_reply(prompt: Any) -> None:
    assert answer(completion(prompt)) is None


def test_embeddings_have_no_canned_reply() -> None:
    assert answer(embedding("opening hours")) is None


def test_content_null_does_not_break_it() -> None:
    assert answer(chat("opening hours", {"role": "assistant", "content": None})) is None


def test_long_text_costs_no_more_than_the_longest_question() -> None:
    check = compiled("canned_reply", replies=[*REPLIES, {"match": "Öffnungszeiten", "reply": "9 bis 17 Uhr"}])
    long = chat("ÖFFNUNGSZEITEN " * 300_000)
    assert not list(check.inspect(long))
    assert min(timeit.repeat(lambda: check.inspect(long), number=1, repeat=5)) < 0.02


def test_finding_names_the_reply_by_its_number() -> None:
    """And quotes neither the question nor the answer."""
    (found,) = compiled("canned_reply", replies=REPLIES).inspect(chat("opening hours"))
    assert (found.label, found.message) == ("reply 2", "")


def test_replies_may_be_given_as_lines() -> None:
    assert answer(chat("PING"), replies="ping => pong\nhello => hi") == "pong"


@pytest.mark.parametrize(
    ("match_how", "is_twice"), [("normalised", True), ("exact", False)], ids=["normalised", "exact"]
)
def test_question_has_one_reply(match_how: str, is_twice: bool) -> None:
    settings = {"replies": "Ping => pong\nping => something else", "match_how": match_how}
    if not is_twice:
        assert answer(chat("ping"), **settings) == "something else"
        return
    with pytest.raises(ValidationError) as error:
        compiled("canned_reply", settings)
    assert error.value.message_dict == {
        "replies": ["must have one reply a question: number 2 asks what was asked before"]
    }


@pytest.mark.parametrize(
    "settings", [{}, {"replies": []}, {"replies": [{"match": "a"}]}, {"replies": "a => b", "x": 1}]
)
def test_settings_without_a_reply_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        compiled("canned_reply", settings)
