"""What becomes of the events of a stream when rules read them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from policies.documents import PolicySpec
from policies.engine import Chain, Review
from policies.errors import Blocked, CheckFailed
from policies.guard import StreamGuard
from policies.rules import CompiledRule
from policies.tests.tools import (
    REPLY,
    BreaksAfter,
    Outcome,
    Phrases,
    ReadsWhole,
    answer,
    cut,
    events_with,
    exchange_of,
    nobody,
    reassembled,
    rule,
    run,
    stream,
)
from policies.types import Stage

Event = dict[str, Any]


def redact(*phrases: str, **fields: Any) -> CompiledRule:
    return rule(Phrases(*phrases), "redact", **{"stages": REPLY, **fields})


def event(index: int | None = 0, finish_reason: str | None = None, **choice: Any) -> Event:
    """One event of a chat, with one choice. `choice`: what stands in it, such as `delta`."""
    place = {} if index is None else {"index": index}
    whole = {**place, **choice, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion.chunk", "created": 2, "model": "m", "choices": [whole]}


def says(content: str, **fields: Any) -> Event:
    return event(delta={"content": content}, **fields)


STOP = event(delta={}, finish_reason="stop")


def guard_of(*rules: CompiledRule) -> StreamGuard:
    review = Review(Chain(rules), exchange_of())
    run(review.request(nobody))
    guard = review.stream()
    assert guard is not None
    return guard


def streamed(events: list[Event], *rules: CompiledRule) -> Outcome:
    return run(stream(rules, copy.deepcopy(events)))


# --- when nobody has to wait ---


def test_stream_that_nobody_reads_has_no_guard() -> None:
    review = Review(Chain([rule(Phrases("secret"), stages=frozenset({Stage.REQUEST}))]), exchange_of())
    run(review.request(nobody))
    assert review.stream() is None


def test_event_in_which_nothing_is_held_or_changed_goes_as_it_came() -> None:
    guard = guard_of(redact("secret"))
    assert guard.event(event(delta={"role": "assistant", "content": ""})) is None
    assert guard.event(says("Hello")) is None
    assert guard.event(event(delta={"reasoning_content": "mmh"})) is None


AS_THEY_CAME: list[Event] = [
    {"choices": [], "usage": {"prompt_tokens": 1}},
    {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
    {"id": "1", "model": "m"},
    {"choices": None},
    {"choices": "none"},
    {"choices": [None, 5, "x"]},
    {"choices": [{}]},
    {"choices": [{"index": 0}]},
    {"choices": [{"index": 0, "delta": None}]},
    {"choices": [{"index": "0", "delta": {"content": None}}]},
    {"choices": [{"index": 0, "delta": {"role": "assistant"}, "logprobs": None}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [None, {"index": 0, "function": None}]}}]},
    {"error": None, "choices": []},
]


@pytest.mark.parametrize("odd", AS_THEY_CAME, ids=json.dumps)
def test_event_without_a_text_goes_as_it_came(odd: Event) -> None:
    guard = guard_of(redact("secret"))
    assert guard.event(copy.deepcopy(odd)) is None
    assert guard.event(says("and on")) is None


def test_text_that_begins_no_match_goes_in_its_own_event() -> None:
    guard = guard_of(redact("secret"))
    for word in ("Once ", "upon ", "a ", "time, ", "all ", "went ", "well."):
        assert guard.event(says(word)) is None


# --- when it is held ---


def test_event_whose_text_is_all_held_is_left_out() -> None:
    guard = guard_of(redact("secret"))
    assert guard.event(says("sec")) == []
    sent = guard.event(says("ond"))
    assert sent is not None
    assert [one["choices"][0]["delta"]["content"] for one in sent] == ["second"]


def test_event_that_says_something_else_goes_with_an_empty_text() -> None:
    guard = guard_of(redact("secret"))
    assert guard.event(event(delta={"role": "assistant", "content": "sec"})) == [
        event(delta={"role": "assistant", "content": ""})
    ]


def test_other_facts_of_an_event_whose_text_is_held_are_not_lost() -> None:
    outcome = streamed([{**says("se"), "citations": ["https://example.org"]}, says("ven"), STOP], redact("secret"))
    assert [one["citations"] for one in outcome.events if "citations" in one] == [["https://example.org"]]
    assert outcome.texts() == ["seven"]


def test_usage_in_an_event_whose_text_is_held_is_not_lost() -> None:
    outcome = streamed([{**says("se"), "usage": {"prompt_tokens": 1}}, STOP], redact("secret"))
    assert [one["usage"] for one in outcome.events if "usage" in one] == [{"prompt_tokens": 1}]


def test_role_and_ids_are_never_held() -> None:
    opening = {"role": "assistant", "tool_calls": [{"index": 0, "id": "call_secret", "type": "function"}]}
    assert guard_of(redact("secret")).event(event(delta=copy.deepcopy(opening))) is None


def test_name_of_a_tool_comes_whole() -> None:
    """A call without its name is no call."""
    guard = guard_of(redact("secret"))
    call = {"index": 0, "id": "call_1", "function": {"name": "sec", "arguments": ""}}
    assert guard.event(event(delta={"tool_calls": [call]})) is None


# --- how a choice ends ---


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter"])
def test_what_is_held_comes_before_the_finish_reason(finish: str) -> None:
    guard = guard_of(redact("secret"))
    guard.event(says("so sec"))
    last = event(delta={}, finish_reason=finish)
    assert guard.event(last) == [
        {**event(delta={"content": "sec"}), "choices": [{**says("sec")["choices"][0], "logprobs": None}]},
        event(delta={}, finish_reason=finish),
    ]
    assert guard.end() == []


def test_text_in_the_event_of_the_finish_reason_keeps_its_order() -> None:
    outcome = streamed([says("a se"), says("cond sec", finish_reason="stop")], redact("secret"))
    assert outcome.texts() == ["a second sec"]
    assert [one["choices"][0]["finish_reason"] for one in outcome.events] == [None, "stop"]


@pytest.mark.parametrize("text", ["", "ret", "ond", "."])
def test_held_text_joins_the_last_piece_whatever_it_says(text: str) -> None:
    outcome = streamed([says("a sec"), says(text, finish_reason="stop")], redact("secret"))
    assert outcome.texts() == [("a sec" + text).replace("secret", "****")]


def test_each_place_ends_on_its_own() -> None:
    """Of three texts that are held, two are not in the last event."""
    call = {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": "s'}}]}
    events = [event(delta={"reasoning_content": "s"}), event(delta=call), says("s", finish_reason="stop")]
    outcome = streamed(events, redact("secret"))
    assert outcome.texts("reasoning_content") == ["s"]
    assert outcome.texts("arguments") == ['{"a": "s']
    assert outcome.texts() == ["s"]
    assert outcome.events[-1]["choices"][0]["finish_reason"] == "stop"


def test_stream_without_finish_reason_gives_what_is_held_at_its_end() -> None:
    guard = guard_of(redact("secret"))
    guard.event(says("sec"))
    guard.event(event(1, delta={"content": "se"}))
    assert reassembled(guard.end())["choices"] == [
        {"index": 0, "message": {"content": "sec"}},
        {"index": 1, "message": {"content": "se"}},
    ]
    assert guard.end() == []


def test_text_after_a_finish_reason_is_a_text_of_its_own() -> None:
    outcome = streamed([says("a sec"), STOP, says("ret is a secret")], redact("secret"))
    assert outcome.texts() == ["a secret is a ****"]


def test_events_of_our_own_look_like_the_providers_and_carry_none_of_its_texts() -> None:
    first = {**says("a sec"), "system_fingerprint": "fp", "note": "the secret", "citations": ["https://example.org"]}
    outcome = streamed([first, STOP], redact("secret"))
    ours = outcome.events[-2]
    head = {name: ours[name] for name in ours if name != "choices"}
    assert head == {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 2,
        "model": "m",
        "system_fingerprint": "fp",
    }
    assert "the secret" not in json.dumps(outcome.events)


def test_choice_without_an_index_is_the_first() -> None:
    events = [
        event(None, delta={"content": "a sec"}),
        event(0, delta={"content": "ret"}),
        event(None, delta={}, finish_reason="stop"),
    ]
    assert streamed(events, redact("secret")).texts() == ["a ****"]


def test_several_choices_in_one_event() -> None:
    one = event(0, delta={"content": "my sec"})
    one["choices"].append(event(1, delta={"content": "your sec"})["choices"][0])
    two = event(0, delta={"content": "ret"})
    two["choices"].append(event(1, delta={"content": "ond"}, finish_reason="stop")["choices"][0])
    assert streamed([one, two], redact("secret")).texts() == ["my ****", "your second"]


def test_texts_of_completions_stand_in_the_choice() -> None:
    events = [event(text="my sec"), event(text="ret"), event(text="", finish_reason="stop")]
    outcome = streamed(events, redact("secret"))
    assert outcome.texts("text") == ["my ****"]
    assert all("delta" not in one["choices"][0] for one in outcome.events)


@pytest.mark.parametrize("where", ["content", "text"])
def test_text_that_looks_like_json_is_a_text(where: str) -> None:
    """Only arguments of tool calls have keys that stay as they are."""
    pieces = cut('{"secret": 1, "n": "s\\u0065cret"}', 3)
    outcome = run(stream([redact("secret")], events_with([pieces], where)))
    assert outcome.texts(where) == ['{"****": 1, "n": "s\\u0065cret"}']


# --- texts and their copies ---


def test_probabilities_and_sound_do_not_say_what_is_held() -> None:
    """They go whatever is found: they come with the text, before a rule can have read it."""
    spoken = {"audio": {"id": "a", "data": "UklGRg==", "transcript": "well"}}
    logprobs = {"content": [{"token": "sec", "logprob": -0.1}]}
    outcome = streamed(
        [event(delta={"content": "sec"}, logprobs=logprobs), event(delta=spoken), STOP], redact("secret")
    )
    assert "UklGRg" not in json.dumps(outcome.events)
    assert '"token"' not in json.dumps(outcome.events)
    assert outcome.reply["choices"][0]["message"]["audio"] == {"id": "a", "transcript": "well"}


def test_rules_that_only_watch_leave_probabilities_and_sound() -> None:
    spoken = event(delta={"audio": {"data": "UklGRg=="}}, logprobs={"content": [{"token": "x"}]})
    assert guard_of(rule(Phrases("secret"), "audit")).event(spoken) is None


@pytest.mark.parametrize("kind", ["delta", "message"])
def test_spoken_words_are_redacted_and_their_sound_goes(kind: str) -> None:
    said = {kind: {"content": None, "audio": {"id": "a", "data": "UklGRg==", "transcript": "my secret"}}}
    outcome = streamed([event(finish_reason="stop", **said)], redact("secret"))
    assert outcome.events[0]["choices"][0][kind]["audio"] == {"id": "a", "transcript": "my ****"}


def test_whole_reply_keeps_redacted_words_and_drops_their_sound_and_probabilities() -> None:
    message = {"content": None, "audio": {"id": "a", "data": "UklGRg==", "transcript": "my secret"}}
    harmless = {"content": "Hi", "audio": {"id": "b", "data": "UklGRg==", "transcript": "Hi"}}
    logprobs = {"content": [{"token": "x"}]}
    reply = {
        "choices": [
            {"index": 0, "message": message, "logprobs": logprobs},
            {"index": 1, "message": harmless, "logprobs": logprobs},
        ]
    }
    first, second = run(answer([redact("secret")], copy.deepcopy(reply))).reply["choices"]
    assert first["message"]["audio"] == {"id": "a", "transcript": "my ****"}
    assert first["logprobs"] is None
    assert second == reply["choices"][1]


def test_verdicts_of_azure_go_as_they_came() -> None:
    verdict = {"hate": {"filtered": False, "severity": "safe"}}
    events = [says(word) for word in ("Hello", " wor", "ld")] + [STOP]
    for one in events:
        one["choices"][0]["content_filter_results"] = verdict
    sent = streamed(events, redact("safe", "fear")).events
    assert [one["choices"][0]["content_filter_results"] for one in sent] == [verdict] * 4


def test_seal_of_a_provider_comes_in_one_piece() -> None:
    """Whoever cuts it cannot send it back."""
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    sealed = {**call, "extra_content": {"google": {"thought_signature": "c2Vj" * 40}}}
    assert guard_of(redact("secret")).event(event(delta={"tool_calls": [sealed]})) is None


def test_facts_beside_the_choices_come_whole_and_are_redacted() -> None:
    outcome = streamed(
        [{**says("Hi"), "citations": ["https://secret.example"], "note": "secret"}, STOP], redact("secret")
    )
    assert (outcome.events[0]["citations"], outcome.events[0]["note"]) == (["https://****.example"], "****")
    assert outcome.texts() == ["Hi"]


def test_fact_beside_the_choices_blocks() -> None:
    outcome = streamed(
        [{"choices": [], "citations": ["https://secret.example"]}], rule(Phrases("secret"), stages=REPLY)
    )
    assert outcome.blocked and outcome.events == []


# --- how it ends badly ---


def test_nothing_of_the_blocked_match_gets_out() -> None:
    outcome = streamed([says(piece) for piece in cut("so my secret is", 2)], rule(Phrases("secret"), stages=REPLY))
    assert outcome.blocked
    assert outcome.texts() == ["so my "]


def test_block_in_one_choice_ends_them_all() -> None:
    events = events_with([["a ", "b ", "c ", "d "], ["e ", "secret", "f ", "g "]])
    outcome = run(stream([rule(Phrases("secret"), stages=REPLY)], events))
    assert outcome.blocked
    assert outcome.texts() == ["a b ", "e "]


def test_all_rules_that_block_at_once_are_named() -> None:
    rules = [
        rule(Phrases("secret"), message="No secrets.", name="a"),
        rule(Phrases("cret"), message="No crets.", name="b"),
        rule(Phrases("x"), message="No x.", name="c"),
    ]
    with pytest.raises(Blocked) as blocked:
        guard_of(*rules).event(says("a secret "))
    assert blocked.value.message == "No secrets. No crets."


def test_choices_that_have_begun_are_known() -> None:
    """Each of them gets the end of a stream that is blocked with an answer."""
    guard = guard_of(redact("secret"))
    for one in (says("a"), event(2, delta={"content": "b"}), event(1, delta={"content": "c"}), STOP):
        guard.event(one)
    assert guard.indexes == [1, 2]


def test_broken_check_ends_the_stream() -> None:
    guard = guard_of(rule(BreaksAfter(Phrases("secret"), 1), "redact", stages=REPLY))
    assert guard.event(says("fine ")) is None
    with pytest.raises(CheckFailed):
        guard.event(says("not fine"))


@pytest.mark.parametrize(
    "ending", [rule(Phrases("secret"), name="block"), rule(BreaksAfter(Phrases("q"), 6), name="b")]
)
def test_rules_that_watch_have_read_all_that_came_when_a_stream_ends_badly(ending: CompiledRule) -> None:
    watching = rule(Phrases("hum"), "audit", name="watch", stages=REPLY)
    outcome = streamed([says(piece) for piece in cut("hum hum, secret hum", 3)], watching, ending)
    assert outcome.error is not None
    assert outcome.findings["watch", Stage.REPLY, "", False] >= 2


def test_rules_that_watch_have_read_all_that_came_when_the_client_leaves() -> None:
    review = Review(Chain([rule(Phrases("hum"), "audit", stages=REPLY)]), exchange_of())
    run(review.request(nobody))
    guard = review.stream()
    assert guard is not None
    guard.event(says("hum hu"))
    guard.event(says("m"))
    guard.close()
    guard.close()
    assert [finding.count for finding in review.record.findings()] == [2]


# --- the whole reply ---


def test_nothing_goes_before_a_rule_has_read_the_whole_reply() -> None:
    guard = guard_of(rule(ReadsWhole("secret")))
    assert guard.withhold
    guard.event(says("my sec"))
    guard.event(says("ret"))
    guard.event(STOP)
    assert guard.said is not None
    assert guard.said.reply()["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"content": "my secret"}},
    ]


@pytest.mark.parametrize("text", ["my secret", "nothing"])
def test_stream_is_judged_like_the_whole_reply(text: str) -> None:
    outcome = streamed([says(piece) for piece in cut(text, 2)] + [STOP], rule(ReadsWhole("secret"), name="whole"))
    assert outcome.blocked is (text == "my secret")
    assert outcome.texts() == ([] if outcome.blocked else [text])


@pytest.mark.parametrize("fields", [{"action": "audit"}, {"dry_run": True}])
def test_rule_that_only_watches_whole_replies_withholds_nothing(fields: dict[str, Any]) -> None:
    watching = rule(ReadsWhole("secret"), name="whole", **fields)
    assert not guard_of(watching).withhold
    outcome = streamed([says(piece) for piece in cut("my secret", 2)] + [STOP], watching)
    assert outcome.untouched and outcome.error is None
    assert outcome.findings == {("whole", Stage.REPLY, "word", False): 1}


class JudgesEvents(ReadsWhole):
    """Each event says enough."""

    needs_whole_reply = False


def test_rule_that_can_judge_by_the_event_holds_nothing_back_and_ends_the_stream_there() -> None:
    judging = rule(JudgesEvents("secret"), name="judge")
    assert not guard_of(judging).withhold
    outcome = streamed([says("Hello, "), says("a secret"), says("more"), STOP], judging)
    assert outcome.blocked
    assert outcome.texts() == ["Hello, "]
    assert outcome.findings == {("judge", Stage.REPLY, "word", False): 1}


@pytest.mark.parametrize("fields", [{"action": "audit"}, {"dry_run": True}])
def test_rule_that_only_watches_events_leaves_them_as_they_are(fields: dict[str, Any]) -> None:
    outcome = streamed([says("Hello, "), says("a secret"), STOP], rule(JudgesEvents("secret"), name="judge", **fields))
    assert outcome.untouched and outcome.error is None
    assert outcome.findings == {("judge", Stage.REPLY, "word", False): 1}


def test_reply_put_together_from_a_stream_has_tool_calls_and_several_choices() -> None:
    calls = [{"index": 1, "id": "c", "function": {"name": "f", "arguments": '{"a'}}]
    more = [{"index": 1, "function": {"arguments": '": 1}'}}]
    guard = guard_of(rule(ReadsWhole()))
    for one in (event(1, delta={"tool_calls": calls}), event(1, delta={"tool_calls": more}), says("Hi"), STOP):
        guard.event(one)
    assert guard.said is not None
    first, second = guard.said.reply()["choices"]
    assert first == {"index": 0, "finish_reason": "stop", "message": {"content": "Hi"}}
    assert second["message"]["tool_calls"][1] == {"function": {"name": "f", "arguments": '{"a": 1}'}}


def test_what_is_kept_of_a_stream_is_what_the_client_read() -> None:
    review = Review(Chain([redact("secret")], [PolicySpec(log_reply=True)]), exchange_of())
    run(review.request(nobody))
    guard = review.stream()
    assert guard is not None
    for one in [says(piece) for piece in cut("my secret, my sec", 3)]:
        guard.event(one)
    guard.end()
    assert guard.released is not None
    assert guard.released.reply()["choices"][0]["message"]["content"] == "my ****, my sec"
