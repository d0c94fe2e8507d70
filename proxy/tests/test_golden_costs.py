"""What real calls cost, from the providers' own words to the nano-dollar. See proxy/tests/golden."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy import streaming
from proxy.providers.openai import usage_of
from proxy.tests.golden import Golden, anthropic, openai, others
from proxy.tests.recorded import chat, exchange_of, target_of
from usage.pricing import TokenUsage, cost, cost_at_most, event_columns, usage_of_event

CASES = (*openai.CASES, *anthropic.CASES, *others.CASES)
STREAMED = [case for case in CASES if case.shape in ("chat", "event")]
MESSAGES = [case for case in CASES if case.shape == "message"]
# What bounds a call has to be told of: pictures and tools are no tokens.
BOUNDED = [case for case in CASES if not case.price.image and not case.price.tools]

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_the_table_is_large_enough_and_names_each_case_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@every
def test_a_call_costs_what_the_provider_bills(case: Golden) -> None:
    assert cost(reported(case), case.price) == case.cost


@every
def test_what_is_stored_of_a_call_is_enough_to_price_it_again(case: Golden) -> None:
    stored = orjson.loads(orjson.dumps(event_columns(reported(case))))
    assert cost(usage_of_event(stored), case.price) == case.cost


@pytest.mark.parametrize("case", BOUNDED, ids=lambda case: case.name)
def test_no_call_costs_more_than_was_held_for_it(case: Golden) -> None:
    usage = reported(case)
    assert case.cost <= cost_at_most(usage.prompt, usage.completion, case.price)


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
def test_a_stream_costs_what_the_whole_answer_costs(case: Golden) -> None:
    relay = streaming.PassThrough(wants_usage=False)
    last = {"object": "chat.completion.chunk", "choices": [], "usage": case.payload}
    relay.feed(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n')
    relay.feed(b"data: " + orjson.dumps(last) + b"\n\ndata: [DONE]\n\n")
    assert relay.usage is not None
    assert cost(relay.usage, case.price) == case.cost


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.name)
def test_a_streamed_message_costs_what_the_whole_message_costs(case: Golden) -> None:
    """The stream begins with all that was asked and ends with what was made of it."""
    translator = target_of("anthropic").adapter.stream(chat(stream=True))
    assert translator is not None
    begun = {**case.payload, "output_tokens": 1, "output_tokens_details": None, "server_tool_use": None}
    ended = {"output_tokens": case.payload["output_tokens"], **_only(case, "output_tokens_details", "server_tool_use")}
    message = {"id": "msg_1", "type": "message", "model": "claude", "content": [], "usage": begun}
    for event in (
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": ended},
    ):
        translator.feed(str(event["type"]), orjson.dumps(event))
    assert translator.usage is not None
    assert cost(translator.usage, case.price) == case.cost


def reported(case: Golden) -> TokenUsage:
    """What the adapter reads out of the reply with this payload in it."""
    if case.shape == "reply":
        usage = usage_of(case.payload)
    elif case.shape == "message":
        message = {"id": "msg_1", "type": "message", "model": "claude", "content": [], "usage": case.payload}
        usage = target_of("anthropic").adapter.reply(chat(), orjson.dumps(message)).usage
    elif case.shape == "embeddings":
        usage = _openai("embeddings", {"input": "Hi"}, {"data": [{"embedding": [0.5]}], "usage": case.payload})
    elif case.shape == "completion":
        usage = _openai("completions", {"prompt": "Hi"}, {"choices": [{"text": "!"}], "usage": case.payload})
    else:
        usage = _openai("chat/completions", {}, {"choices": [{"index": 0}], "usage": case.payload})
    assert usage is not None
    return usage


def _openai(endpoint: str, body: dict[str, Any], reply: dict[str, Any]) -> TokenUsage | None:
    return target_of("openai").adapter.reply(exchange_of(endpoint, body), orjson.dumps(reply)).usage


def _only(case: Golden, *names: str) -> dict[str, Any]:
    return {name: case.payload[name] for name in names if name in case.payload}
