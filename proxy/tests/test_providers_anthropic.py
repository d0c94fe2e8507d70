from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from policies.types import Exchange
from proxy.providers.anthropic import MessageStream
from proxy.providers.base import NonsenseReply
from proxy.tests.recorded import RECORDINGS, chat, chunks_of, recording, sse_events, target_of, translate
from usage.pricing import TokenUsage

ANTHROPIC = target_of("anthropic", upstream_model="claude-sonnet-4-5-20250929")
MESSAGES = sorted(path.stem for path in (RECORDINGS / "anthropic").glob("*.json") if not path.stem.startswith("error_"))


def whole(name: str) -> dict[str, Any]:
    """The recorded message as a chat.completion, checked by OpenAI's own client."""
    completion = orjson.loads(ANTHROPIC.adapter.reply(chat(), recording(f"anthropic/{name}.json")).body)
    ChatCompletion.model_validate(completion, strict=True)
    return completion


def streamed(stream: bytes, exchange: Exchange | None = None) -> tuple[bytes, MessageStream]:
    translator = ANTHROPIC.adapter.stream(exchange or chat(stream=True))
    assert isinstance(translator, MessageStream)
    out = b"".join(translator.feed(name, data) for name, data in sse_events(stream))
    return out + translator.end(), translator


def assembled(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A message from its chunks, as a client puts it together."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    finish_reasons = []
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({**call, "function": {**call["function"]}})
                else:
                    message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            finish_reasons.append(choice["finish_reason"])
    assert [reason for reason in finish_reasons if reason] == finish_reasons[-1:]
    return {"message": message, "finish_reason": finish_reasons[-1]}


def comparable(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice without the differences that mean nothing: null or empty, and the white space of arguments."""
    message = choice["message"]
    calls = [
        (call["id"], call["function"]["name"], orjson.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or []
    ]
    texts = [message.get(name) or "" for name in ("content", "reasoning_content")]
    return {"texts": texts, "calls": calls, "finish_reason": choice["finish_reason"]}


# --- the recordings themselves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_recordings_are_what_anthropics_own_client_takes(name: str) -> None:
    # Here, because it takes seconds, and every worker reads this file.
    from anthropic.types import Message, RawMessageStreamEvent

    stream_event: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    Message.model_validate_json(recording(f"anthropic/{name}.json"))
    for _, data in sse_events(recording(f"anthropic/{name}.sse")):
        if data != b'{"type":"ping"}':
            stream_event.validate_json(data)


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://x.services.ai.azure.com/anthropic", "https://x.services.ai.azure.com/anthropic/v1/messages"),
    ],
)
def test_base_url_may_have_the_version_or_not(base_url: str, expected: str) -> None:
    assert translate(chat(), target_of("anthropic", base_url=base_url)).url == expected


def test_headers_carry_key_and_version() -> None:
    assert translate(chat(), ANTHROPIC, "sk-ant-1").headers == {
        "content-type": "application/json",
        "x-api-key": "sk-ant-1",
        "anthropic-version": "2023-06-01",
    }


def test_version_and_extra_headers_are_the_providers_own() -> None:
    target = target_of("anthropic", api_version="2026-10-21", extra_headers={"Anthropic-Beta": "context-1m"})

    headers = translate(chat(), target, "").headers

    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["anthropic-beta"] == "context-1m"
    assert "x-api-key" not in headers


def test_probe_lists_the_models() -> None:
    request = ANTHROPIC.adapter.probe(target_of("anthropic", credential="sk-ant-1"))

    assert (request.method, request.url) == ("GET", "https://api.anthropic.com/v1/models")
    assert request.headers["x-api-key"] == "sk-ant-1"


# --- replies --------------------------------------------------------------------------------------------------------


def test_text_becomes_a_completion() -> None:
    completion = whole("text")

    assert completion["id"] == "msg_01XFDUDYJgAACzvnptvVoYEL"
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "claude-sonnet-4-5-20250929"
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Grüße! It's a nice day, isn't it? 😀", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


def test_tool_uses_become_tool_calls() -> None:
    message = whole("tools_parallel")["choices"][0]["message"]

    assert message["content"] is None
    assert [call["id"] for call in message["tool_calls"]] == ["toolu_01A", "toolu_01B", "toolu_01C"]
    assert message["tool_calls"][1] == {
        "id": "toolu_01B",
        "type": "function",
        "function": {"name": "get_time", "arguments": "{}"},
    }


def test_large_integers_in_arguments_stay_exact() -> None:
    arguments = whole("tools")["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]

    assert "340282366920938463463374607431768211456" in arguments


def test_thoughts_are_handed_on_beside_the_content() -> None:
    message = whole("thinking")["choices"][0]["message"]

    assert message["content"] == "27 * 453 = 12,231"
    assert message["reasoning_content"].startswith("The user asks for")


def test_omitted_thoughts_leave_no_trace() -> None:
    assert "reasoning_content" not in whole("thinking_omitted")["choices"][0]["message"]


def test_what_anthropics_own_tools_did_is_left_out() -> None:
    message = whole("server_tools")["choices"][0]["message"]

    assert message["content"] == "Let me search. He was born on April 30, 1916."
    assert "tool_calls" not in message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", "stop"),
        ("stop_sequence", "stop"),
        ("server_tools", "stop"),
        ("max_tokens", "length"),
        ("context_window", "length"),
        ("tools", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_stop_reasons_become_finish_reasons(name: str, expected: str) -> None:
    assert whole(name)["choices"][0]["finish_reason"] == expected


def test_cached_tokens_are_part_of_the_prompt() -> None:
    reply = ANTHROPIC.adapter.reply(chat(), recording("anthropic/cached.json"))

    assert reply.usage == TokenUsage(prompt=100_298, completion=503, cached=100_000, cache_write=248)
    assert orjson.loads(reply.body)["usage"] == {
        "prompt_tokens": 100_298,
        "completion_tokens": 503,
        "total_tokens": 100_801,
        "prompt_tokens_details": {"cached_tokens": 100_000, "cache_write_tokens": 248},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_tokens_of_thinking_are_told() -> None:
    usage = ANTHROPIC.adapter.reply(chat(), recording("anthropic/thinking.json")).usage

    assert usage == TokenUsage(prompt=44, completion=130, reasoning=90)


@pytest.mark.parametrize("usage", [None, {}, [], {"input_tokens": -1, "output_tokens": 2}, {"input_tokens": 5}])
def test_usage_that_makes_no_sense_counts_as_none(usage: Any) -> None:
    message = {**orjson.loads(recording("anthropic/text.json")), "usage": usage}

    reply = ANTHROPIC.adapter.reply(chat(), orjson.dumps(message))

    assert reply.usage is None
    assert "usage" not in orjson.loads(reply.body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        b'{"type":"message"}',
        b'{"type":"message","id":"a","model":"b","content":null}',
        b'{"type":"message","id":"a","model":"b","content":["text"]}',
        b'{"type":"message","id":"a","model":"b","content":[{"type":"text","text":null}]}',
        b'{"type":"message","id":"a","model":"b","content":[{"type":"tool_use","id":"c"}]}',
        b'{"type":"message","content":[]}',
        recording("openai/chat.json"),
    ],
)
def test_nonsense_with_status_200_is_told_apart(body: bytes) -> None:
    with pytest.raises(NonsenseReply):
        ANTHROPIC.adapter.reply(chat(), body)


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MESSAGES)
def test_stream_says_the_same_as_the_whole_reply(name: str) -> None:
    out, translator = streamed(recording(f"anthropic/{name}.sse"))

    assert comparable(assembled(chunks_of(out))) == comparable(whole(name)["choices"][0])
    assert translator.usage == ANTHROPIC.adapter.reply(chat(), recording(f"anthropic/{name}.json")).usage
    assert translator.finished
    assert translator.error is None
    assert out.endswith(b"data: [DONE]\n\n")


def test_chunks_are_one_message_that_begins_with_its_role() -> None:
    chunks = chunks_of(streamed(recording("anthropic/text.sse"))[0])

    assert {(chunk["id"], chunk["model"], chunk["object"]) for chunk in chunks} == {
        ("msg_01XFDUDYJgAACzvnptvVoYEL", "claude-sonnet-4-5-20250929", "chat.completion.chunk")
    }
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])


def test_tool_call_comes_with_its_name_first_and_then_its_arguments() -> None:
    chunks = chunks_of(streamed(recording("anthropic/tools.sse"))[0])
    calls = list(itertools.chain(*(chunk["choices"][0]["delta"].get("tool_calls", []) for chunk in chunks)))

    assert calls[0] == {
        "index": 0,
        "id": "toolu_01T1x1fJ34qAmk2tNTrN7Up6",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    assert all(set(call) == {"index", "function"} for call in calls[1:])


@pytest.mark.parametrize("asked", [True, False])
def test_usage_comes_last_and_only_when_asked_for(asked: bool) -> None:
    exchange = chat(stream=True, stream_options={"include_usage": asked})

    out, translator = streamed(recording("anthropic/cached.sse"), exchange)

    last = chunks_of(out)[-1]
    assert (last["choices"] == []) is asked
    assert last.get("usage", {}).get("total_tokens") == (100_801 if asked else None)
    assert translator.usage == TokenUsage(prompt=100_298, completion=503, cached=100_000, cache_write=248)


def test_error_midway_is_kept_for_whoever_relays_the_stream() -> None:
    out, translator = streamed(recording("anthropic/error_midway.sse"))

    assert translator.error == {
        "message": "Overloaded",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
    }
    assert not translator.finished
    assert b"Overloaded" not in out
    assert b"[DONE]" not in out


def test_stream_that_breaks_off_is_not_finished() -> None:
    out, translator = streamed(recording("anthropic/broken_off.sse"))

    assert not translator.finished
    assert translator.usage is None
    assert b"[DONE]" not in out


def test_stream_without_a_stop_reason_still_finishes() -> None:
    events = recording("anthropic/text.sse").replace(b'"stop_reason":"end_turn"', b'"stop_reason":null')

    assert assembled(chunks_of(streamed(events)[0]))["finish_reason"] == "stop"


def test_unknown_events_and_blocks_are_skipped() -> None:
    translator = MessageStream(wants_usage=False)
    translator.feed("message_start", sse_events(recording("anthropic/text.sse"))[0][1])

    assert translator.feed("newly_invented", b'{"type":"newly_invented"}') == b""
    assert translator.feed("", b"") == b""
    assert (
        translator.feed("", b'{"type":"content_block_start","index":0,"content_block":{"type":"newly_invented"}}')
        == b""
    )
    assert translator.feed("", b'{"type":"content_block_delta","index":0,"delta":{"type":"invented_delta"}}') == b""


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"[]",
        b'{"type":"message_start"}',
        b'{"type":"message_start","message":{"id":"a"}}',
        b'{"type":"message_start","message":{"id":"a","model":"b","usage":7}}',
        b'{"type":"error"}',
        b'{"type":"error","error":"text"}',
    ],
)
def test_nonsense_in_a_stream_is_told_apart(data: bytes) -> None:
    with pytest.raises(NonsenseReply):
        MessageStream(wants_usage=False).feed("", data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"content_block_delta"}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}',
        b'{"type":"content_block_start","index":[],"content_block":{"type":"tool_use","id":"a","name":"b"}}',
        b'{"type":"message_delta"}',
    ],
)
def test_nonsense_in_a_message_that_has_begun_is_told_apart(data: bytes) -> None:
    translator = MessageStream(wants_usage=False)
    translator.feed("message_start", sse_events(recording("anthropic/text.sse"))[0][1])

    with pytest.raises(NonsenseReply):
        translator.feed("", data)


def test_events_outside_of_a_message_say_nothing() -> None:
    translator = MessageStream(wants_usage=True)

    assert translator.feed("ping", b'{"type":"ping"}') == b""
    assert translator.feed("", b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta"}}') == b""
    assert translator.feed("", b'{"type":"message_stop"}') == b""
    assert not translator.finished


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (402, "insufficient_quota", "insufficient_quota"),
        (403, "invalid_request_error", "permission_denied"),
        (404, "invalid_request_error", "model_not_found"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (504, "server_error", "timeout"),
        (529, "server_error", "overloaded"),
    ],
)
def test_errors_get_openais_names(status: int, type_: str, code: str | None) -> None:
    body = recording(f"anthropic/error_{status}.json")

    assert ANTHROPIC.adapter.error(status, body) == {
        "message": orjson.loads(body)["error"]["message"],
        "type": type_,
        "param": None,
        "code": code,
    }


@pytest.mark.parametrize("status", [400, 401, 404, 429, 529])
def test_error_that_is_translated_already_stays_as_it_is(status: int) -> None:
    error = ANTHROPIC.adapter.error(status, recording(f"anthropic/error_{status}.json"))

    assert ANTHROPIC.adapter.error(500, orjson.dumps({"error": error})) == error


def test_prompt_that_is_too_long_has_the_code_that_clients_look_for() -> None:
    error = ANTHROPIC.adapter.error(400, recording("anthropic/error_too_long.json"))

    assert error["code"] == "context_length_exceeded"


def test_error_of_something_in_between_is_understood_too() -> None:
    assert ANTHROPIC.adapter.error(502, b"<html>")["message"] == "The provider answered 502 without saying why."
    assert ANTHROPIC.adapter.error(429, b'{"error":"slow down"}')["code"] == "rate_limit_exceeded"
