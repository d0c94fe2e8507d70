from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policies.checks import loop
from policies.checks.loop import LoopCheck
from policies.tests.request_checks import chat, compiled, completion, embedding, found
from policies.types import Exchange

REPEATED = ["repeated"]
AGAIN = "Are we there yet?"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Callable[..., LoopCheck]:
    def make(**settings: Any) -> LoopCheck:
        check = compiled("loop", settings)
        assert isinstance(check, LoopCheck)
        check.clock = clock  # type: ignore[method-assign,assignment]
        return check

    return make


def step(number: int, **changed: Any) -> Exchange:
    """A turn of an agent that reads the same file again and again: the conversation grows, and call ids are new."""
    turns: list[Any] = [{"role": "system", "content": "You are an agent."}, "Fix the build."]
    for turn in range(number):
        function = {"name": "read_file", "arguments": '{"path": "Makefile"}', **changed}
        call = {"id": f"call_{turn}", "type": "function", "function": function}
        turns.append({"role": "assistant", "content": None, "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": f"call_{turn}", "content": "all: build"})
    return chat(*turns)


def test_fourth_time_within_two_minutes_is_a_loop(breaker, clock) -> None:
    check = breaker()
    for _ in range(3):
        assert found(check, chat(AGAIN)) == []
        clock.now += 10
    assert found(check, chat(AGAIN)) == REPEATED
    assert found(check, chat(AGAIN)) == REPEATED


def test_agent_that_goes_round_in_circles_is_found_while_its_conversation_grows(breaker) -> None:
    check = breaker()
    # The first turns differ: there are not yet three messages of the circle.
    assert [found(check, step(number)) for number in range(2, 7)] == [[], [], [], REPEATED, REPEATED]


def test_agent_that_gets_on_is_left_alone(breaker) -> None:
    check = breaker(repeats=2)
    for number in range(20):
        assert found(check, step(2, arguments=f'{{"path": "file_{number}"}}')) == []


def test_content_null_does_not_break_the_loop_check(breaker) -> None:
    """llmproxy answered 403 to every round trip of a tool call."""
    assert found(breaker(), step(1)) == []
    legacy = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert found(breaker(), chat("hi", legacy, {"role": "function", "name": "f", "content": None})) == []


def test_another_caller_is_not_punished(breaker) -> None:
    check = breaker(repeats=2)
    assert found(check, chat(AGAIN)) == []
    other = chat(AGAIN)
    other.caller = "key-2"
    assert found(check, other) == []
    assert found(check, chat(AGAIN)) == REPEATED


def test_another_user_of_the_same_key_is_not_punished(breaker) -> None:
    check = breaker(repeats=2)
    assert found(check, chat(AGAIN, user="alice")) == []
    assert found(check, chat(AGAIN, user="bob")) == []
    assert found(check, chat(AGAIN)) == []
    assert found(check, chat(AGAIN, user="alice")) == REPEATED


def test_what_was_sent_long_ago_is_forgotten(breaker, clock) -> None:
    check = breaker(repeats=2, within_s=60)
    assert found(check, chat(AGAIN)) == []
    clock.now += 59.9
    assert found(check, chat(AGAIN)) == REPEATED
    clock.now += 0.2
    assert found(check, chat(AGAIN)) == []


def test_who_waits_may_go_on_however_often_it_was_tried(breaker, clock) -> None:
    check = breaker(repeats=2, within_s=60)
    assert found(check, chat(AGAIN)) == []
    for _ in range(59):
        clock.now += 1
        assert found(check, chat(AGAIN)) == REPEATED
    clock.now += 1
    assert found(check, chat(AGAIN)) == []


@pytest.mark.parametrize(
    "other",
    [
        chat("Are we there now?"),
        chat({"role": "system", "content": AGAIN}),
        chat(AGAIN, AGAIN),
        chat({"role": "user", "content": [{"type": "text", "text": AGAIN}]}),
        completion(AGAIN),
    ],
)
def test_other_conversations_are_others(breaker, other: Exchange) -> None:
    check = breaker(repeats=2)
    assert found(check, chat(AGAIN)) == []
    assert found(check, other) == []
    assert found(check, chat(AGAIN)) == REPEATED


def test_what_was_said_before_the_last_three_messages_makes_no_difference(breaker) -> None:
    check = breaker(repeats=2)
    assert found(check, chat("long ago", "1", "2", "3")) == []
    assert found(check, chat("before", "4", "2", "3")) == []
    assert found(check, chat("before", "1", "2", "3")) == REPEATED


@pytest.mark.parametrize("prompt", ["Once upon", ["Once", "upon"], [1, 2, 3]])
def test_completions_are_compared_by_their_prompt(breaker, prompt: Any) -> None:
    check = breaker(repeats=2)
    assert found(check, completion(prompt)) == []
    assert found(check, completion(prompt)) == REPEATED


def test_same_text_may_be_embedded_again_and_again(breaker) -> None:
    check = breaker(repeats=2)
    assert [found(check, embedding("text")) for _ in range(5)] == [[]] * 5


def test_conversations_that_are_over_take_no_memory(breaker, clock) -> None:
    check = breaker(within_s=60)
    for number in range(100):
        found(check, chat(f"question {number}"))
    clock.now += 61
    for number in range(50):
        found(check, chat(f"later question {number}"))
    assert len(check._sent) == 50


def test_only_so_many_conversations_are_kept_and_the_most_silent_goes_first(breaker, monkeypatch) -> None:
    monkeypatch.setattr(loop, "MOST_KEPT", 10)
    check = breaker(repeats=2)
    for number in range(10):
        found(check, chat(f"question {number}"))
    found(check, chat("question 0"))
    found(check, chat("one more"))
    assert len(check._sent) == 10
    assert found(check, chat("question 0")) == REPEATED
    assert found(check, chat("question 1")) == []


def test_nothing_of_a_text_is_kept(breaker) -> None:
    check = breaker()
    found(check, chat("my secret", user="alice"))
    assert "secret" not in repr(check.__dict__)
    assert "alice" not in repr(check.__dict__)


def test_caller_is_told_the_limit(breaker) -> None:
    check = breaker(repeats=2, within_s=30)
    found(check, chat(AGAIN))
    (one,) = check.inspect(chat(AGAIN))
    assert one.message == (
        "The same conversation was sent 2 times within 30 seconds. Go on with something new, or wait."
    )


def test_each_rule_counts_for_itself() -> None:
    """Two rules with the same settings share an instance otherwise, and each call would count twice."""
    assert LoopCheck.remembers
