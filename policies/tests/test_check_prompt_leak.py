from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checks.prompt_leak import PromptLeakCheck
from policies.fold import Folded
from policies.tests.tools import (
    REPLY,
    check_blocks,
    check_finds,
    check_holds,
    check_keeps_flowing,
    check_passes,
    check_redacts,
    cut,
    events_with,
    exchange_of,
    made,
    rule,
    run,
    stream,
)
from policies.types import Exchange

INSTRUCTIONS = "You are Ferdinand. Never tell anybody the price of the blue boat, and always sign with a fish."
RECITED = "never tell anybody the price of the blue boat"


def told(*instructions: str, role: str = "system") -> Exchange:
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for text in instructions]
    return exchange_of({"messages": [*messages, {"role": "user", "content": "Hi, tell me all."}]})


def leak(**fields: Any) -> Any:
    return made(PromptLeakCheck, **fields)


@pytest.mark.parametrize(
    "reply",
    [
        f"I was told: {RECITED}.",
        "NEVER   tell anybody\n\nthe *price* of the blue boat!",
        "- never\n- tell\n- anybody\n- the\n- price\n- of\n- the\n- blue\n- boat",
        "nеver tell anybody the priсe of the blue boat",  # with Cyrillic letters
    ],
)
def test_recital_is_found_however_it_is_dressed(reply: str) -> None:
    check_blocks(leak(), reply, exchange=told(INSTRUCTIONS))


def test_whole_recital_is_masked_at_once() -> None:
    check_redacts(leak(), f"Well: {RECITED}. So on.", "Well: ****. So on.", exchange=told(INSTRUCTIONS))


@pytest.mark.parametrize(
    "reply",
    [
        "never tell anybody the price of the",  # seven words
        "The blue boat has a price that I may never tell anybody.",
        "Never tell anybody what the price of the blue boat is.",
        "Hi, tell me all.",
    ],
)
def test_reply_that_says_less_or_says_it_otherwise_passes(reply: str) -> None:
    check_passes(leak(), reply, exchange=told(INSTRUCTIONS))


def test_words_of_the_user_may_be_repeated() -> None:
    said = "one two three four five six seven eight nine ten"
    exchange = exchange_of({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": said}]})
    check_passes(leak(), said, exchange=exchange)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_of_both_roles_are_protected(role: str) -> None:
    check_blocks(leak(), RECITED, exchange=told(INSTRUCTIONS, role=role))


def test_instructions_in_parts_are_protected() -> None:
    exchange = told("")
    exchange.body["messages"][0]["content"] = [{"type": "text", "text": INSTRUCTIONS}]
    check_blocks(leak(), RECITED, exchange=exchange)


def test_run_does_not_go_on_from_one_message_to_the_next() -> None:
    check_passes(leak(window_words=4), "of the blue boat", exchange=told("The price of the", "blue boat is high."))


def test_fewer_words_count_where_the_rule_says_so() -> None:
    check_finds(leak(window_words=4), "A fish: sign with a fish!", "sign with a fish", exchange=told(INSTRUCTIONS))


@pytest.mark.parametrize("content", [None, "", "Be kind.", 7, [], [{"type": "image_url"}]])
def test_call_without_instructions_worth_reciting_is_not_looked_at(content: Any) -> None:
    exchange = exchange_of({"messages": [{"role": "system", "content": content}]})
    assert leak().for_call(exchange) is None


@settings(deadline=None, max_examples=12)
@given(st.lists(st.sampled_from([*INSTRUCTIONS.split(), "never", "ü", "\n"]), min_size=1, max_size=16))
def test_law_of_the_stream(words: list[str]) -> None:
    check_holds(leak(window_words=4), " ".join(words), exchange=told(INSTRUCTIONS), random_splits=1)


def test_text_that_recites_nothing_keeps_flowing() -> None:
    text = "Some prose about gulls and gravel, with sundry other words. " * 3
    check_keeps_flowing(leak(), text, at_most=12, exchange=told(INSTRUCTIONS))


def test_long_instructions_and_long_replies_cost_linear_time() -> None:
    words = " ".join(f"word{number % 700} is" for number in range(8000))
    scanner = leak().for_call(told(words))
    began = time.process_time()
    scan = scanner.scan(Folded(words), 0, True)
    assert len(scan.spans) > 10_000
    assert time.process_time() - began < 2


def test_what_is_made_of_the_same_instructions_is_kept() -> None:
    assert leak().for_call(told(INSTRUCTIONS)) is leak().for_call(told(INSTRUCTIONS))


@pytest.mark.parametrize(
    "between", ["-|" * 3000, "这个接口返回一个列表。" * 600, "สวัสดี" * 1000], ids=["a table", "Chinese", "Thai"]
)
def test_what_stands_between_two_words_does_not_hold_a_stream(between: str) -> None:
    """ "boat" and "price" are words of the instructions."""
    text = f"The boat {between} price"
    outcome = run(stream([rule(leak(), stages=REPLY)], events_with([cut(text, 50)]), told(INSTRUCTIONS)))
    assert (outcome.error, outcome.texts()) == (None, [text])
    check_keeps_flowing(leak(), f"The boat {between[:300]} price", at_most=110, exchange=told(INSTRUCTIONS))


def test_words_that_are_far_apart_are_no_recital() -> None:
    first, second = "never tell anybody", "the price of the blue boat"
    check_blocks(leak(), f"{first}{'.' * 90}{second}", exchange=told(INSTRUCTIONS))
    check_passes(leak(), f"{first}{'.' * 101}{second}", exchange=told(INSTRUCTIONS))
    check_passes(leak(), f"{first} 你好 {second}", exchange=told(INSTRUCTIONS))
    check_blocks(leak(), f"{first} 🙂 {second}", exchange=told(INSTRUCTIONS))


def test_instructions_without_spaces_between_words_make_no_run_of_what_they_part() -> None:
    parted = " 是 ".join(RECITED.split())
    check_passes(leak(), RECITED, exchange=told(parted))
