from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from proxy.providers.base import NonsenseReply, UnsupportedRequest
from proxy.providers.openai import clean, is_usage_only, usage_of
from proxy.tests.recorded import chat, exchange_of, recording, sent, sse_events, target_of, translate
from usage.pricing import TokenUsage

OPENAI = target_of("openai", base_url="https://api.openai.com/v1", upstream_model="gpt-4o-mini")


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "embeddings"])
def test_each_endpoint_has_its_address(endpoint: str) -> None:
    request = translate(exchange_of(endpoint, {"input": "x", "messages": [], "prompt": "x"}), OPENAI)

    assert request.url == f"https://api.openai.com/v1/{endpoint}"
    assert request.method == "POST"


def test_request_has_the_upstreams_model_and_else_what_the_client_sent() -> None:
    body = {"temperature": 0, "tools": [{"type": "function"}], "invented_field": {"deep": [1, None]}, "user": None}

    assert sent(chat(**body), OPENAI) == {**chat(**body).body, "model": "gpt-4o-mini"}


def test_headers_carry_the_credential() -> None:
    assert translate(chat(), OPENAI, "sk-theirs").headers == {
        "content-type": "application/json",
        "authorization": "Bearer sk-theirs",
    }


def test_provider_without_a_key_gets_no_authorization() -> None:
    assert "authorization" not in translate(chat(), target_of("ollama"), "").headers


def test_extra_headers_win_whatever_their_case() -> None:
    target = target_of("openai", extra_headers={"Authorization": "Basic abc", "OpenAI-Organization": "org-1"})

    headers = translate(chat(), target).headers

    assert headers["authorization"] == "Basic abc"
    assert headers["openai-organization"] == "org-1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True}),
        ({"stream_options": {"include_obfuscation": False}}, {"include_obfuscation": False, "include_usage": True}),
    ],
)
def test_a_stream_always_asks_for_its_usage(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(chat(stream=True, **given), OPENAI)["stream_options"] == expected


def test_what_is_no_stream_gets_no_stream_options() -> None:
    assert "stream_options" not in sent(chat(), OPENAI)


@pytest.mark.parametrize("kind", ["mistral", "cohere"])
def test_stream_options_are_left_out_where_they_are_refused(kind: str) -> None:
    body = sent(chat(stream=True, stream_options={"include_usage": True}), target_of(kind))

    assert body["stream"] is True
    assert "stream_options" not in body


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**70), "half an emoji \ud83d", json.loads("[" * 300 + "]" * 300)],
    ids=["beyond 64 bits", "negative", "lone surrogate", "nested"],
)
def test_json_that_orjson_does_not_write_arrives_all_the_same(value: Any) -> None:
    assert json.loads(translate(chat(seed=value), OPENAI).body)["seed"] == value


def test_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedRequest):
        OPENAI.adapter.request(chat(temperature=float("inf"), seed=2**64), OPENAI, "")


def test_probe_lists_the_models() -> None:
    request = OPENAI.adapter.probe(target_of("openai", base_url="https://api.openai.com/v1", credential="sk-ours"))

    assert (request.method, request.url, request.body) == ("GET", "https://api.openai.com/v1/models", b"")
    assert request.headers["authorization"] == "Bearer sk-ours"


# --- replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/chat.json", TokenUsage(prompt=19, completion=13)),
        ("openai/chat_cached_reasoning.json", TokenUsage(prompt=2006, completion=300, cached=1920, reasoning=256)),
        ("openai/chat_audio.json", TokenUsage(88, 47, units={"audio_prompt": 60, "audio_completion": 40})),
        ("openai/tools_parallel.json", TokenUsage(prompt=81, completion=46)),
        ("deepseek/chat.json", TokenUsage(prompt=90, completion=40, cached=64, reasoning=31)),
        ("moonshot/chat.json", TokenUsage(prompt=30, completion=2, cached=19)),
        ("azure_openai/chat.json", TokenUsage(prompt=12, completion=3)),
    ],
)
def test_reply_goes_on_byte_for_byte_with_its_usage(name: str, expected: TokenUsage) -> None:
    reply = OPENAI.adapter.reply(chat(), recording(name))

    assert reply.body == recording(name)
    assert reply.usage == expected


def test_tokens_of_thinking_that_only_the_total_names_are_counted_as_output() -> None:
    assert usage_of(orjson.loads(recording("xai/chat.json"))) == TokenUsage(
        prompt=32, completion=9 + 94, cached=6, reasoning=94
    )
    assert usage_of(orjson.loads(recording("gemini/chat.json"))) == TokenUsage(prompt=20, completion=603, reasoning=405)


def test_legacy_completion_is_understood() -> None:
    exchange = exchange_of("completions", {"prompt": "Say this is a test"})

    assert OPENAI.adapter.reply(exchange, recording("openai/completion.json")).usage == TokenUsage(5, 7)


@pytest.mark.parametrize(("name", "tokens"), [("openai/embeddings.json", 8), ("voyage/embeddings.json", 10)])
def test_embeddings_have_prompt_tokens_only(name: str, tokens: int) -> None:
    exchange = exchange_of("embeddings", {"input": "x"})

    assert OPENAI.adapter.reply(exchange, recording(name)).usage == TokenUsage(prompt=tokens)


def test_usage_in_groqs_own_place_is_found() -> None:
    assert usage_of(orjson.loads(recording("groq/stream_last_event.json"))) == TokenUsage(38, 24)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "12 tokens",
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": "10", "completion_tokens": 5},
        {"prompt_tokens": 10},
        {"prompt_tokens": 10, "completion_tokens": 2**31},
        {"completion_tokens": 10, "total_tokens": 3},
        {"total_tokens": 12},
    ],
)
def test_usage_that_makes_no_sense_counts_as_none(usage: Any) -> None:
    assert usage_of({"choices": [], "usage": usage}) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10, "total_tokens": 15}, TokenUsage(10, 5)),
        ({"completion_tokens": 5, "total_tokens": 15}, TokenUsage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, TokenUsage(10, 5)),
        ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": [1]}, TokenUsage(10, 5)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 99}},
            TokenUsage(10, 5, cached=10),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -4}},
            TokenUsage(9, 5),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cache_write_tokens": 7}},
            TokenUsage(9, 5, cache_write=7),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "cache_creation_input_tokens": 6},
            TokenUsage(9, 5, cache_write=6),
        ),
    ],
)
def test_usage_is_read_as_far_as_it_makes_sense(usage: dict[str, Any], expected: TokenUsage) -> None:
    assert usage_of({"choices": [], "usage": usage}) == expected


def test_reply_without_usage_is_still_a_reply() -> None:
    assert OPENAI.adapter.reply(chat(), b'{"choices":[{"index":0}]}').usage is None


def test_reply_that_only_lenient_parsers_take_is_handed_on() -> None:
    body = (
        b'{"choices":[{"message":{"content":"\\ud83d"},"logprobs":NaN}],"usage":{"prompt_tokens":1,"total_tokens":2}}'
    )

    assert OPENAI.adapter.reply(chat(), body) == OPENAI.adapter.reply(chat(), body)
    assert OPENAI.adapter.reply(chat(), body).body == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"choices":null}',
        b'{"choices":{}}',
        b'{"error":{"message":"no"}}',
        b'{"data":[]}',
        b"\xff\xfe",
        b"[" * 2000,
        b'{"choices":[],' + b'"x":' + b"9" * 5000 + b',"y":NaN}',
    ],
)
def test_nonsense_with_status_200_is_told_apart(body: bytes) -> None:
    with pytest.raises(NonsenseReply):
        OPENAI.adapter.reply(chat(), body)


def test_chat_reply_is_nonsense_as_embeddings() -> None:
    with pytest.raises(NonsenseReply):
        OPENAI.adapter.reply(exchange_of("embeddings", {"input": "x"}), recording("openai/chat.json"))


def test_streams_need_no_translation() -> None:
    assert OPENAI.adapter.stream(chat(stream=True)) is None


@pytest.mark.parametrize(("name", "found"), [("openai/stream.sse", [4]), ("azure_openai/stream.sse", [4])])
def test_usage_event_is_the_one_with_usage_and_without_choices(name: str, found: list[int]) -> None:
    events = [orjson.loads(data) for _, data in sse_events(recording(name)) if data != b"[DONE]"]

    assert [index for index, event in enumerate(events) if is_usage_only(event)] == found


# --- errors ---------------------------------------------------------------------------------------------------------


def error(status: int, body: bytes | Any) -> dict[str, Any]:
    found = OPENAI.adapter.error(status, body if isinstance(body, bytes) else orjson.dumps(body))
    assert list(found) == ["message", "type", "param", "code"]
    return found


@pytest.mark.parametrize("name", ["error_400", "error_404", "error_429", "error_429_quota", "error_500"])
def test_openais_own_errors_stay_as_they_are(name: str) -> None:
    body = recording(f"openai/{name}.json")

    assert error(400, body) == orjson.loads(body)["error"]


@pytest.mark.parametrize(
    ("status", "name", "message", "type_", "code"),
    [
        (400, "gemini/error_400", "Invalid value at 'generation_config.temperature'.", None, "INVALID_ARGUMENT"),
        (400, "vllm/error_400", "This model's maximum context length is 4096 tokens.", "BadRequestError", None),
        (422, "vllm/error_422", "body.messages: Field required", None, None),
        (422, "mistral/error_422", "body.logit_bias: Extra inputs are not permitted", "invalid_request_error", None),
        (429, "huggingface/error_429", "Too Many Requests: you have", "requests", "rate_limit_exceeded"),
        (402, "openrouter/error_402", "This request requires more credits", None, None),
        (402, "deepseek/error_402", "Insufficient Balance", "unknown_error", "invalid_request_error"),
        (404, "ollama/error_404", "model 'llama9' not found", "api_error", None),
    ],
)
def test_errors_of_every_dialect_are_understood(
    status: int, name: str, message: str, type_: str | None, code: str | None
) -> None:
    found = error(status, recording(f"{name}.json"))

    assert found["message"].startswith(message)
    assert found["type"] == (type_ or "invalid_request_error")
    assert found["code"] == code


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "model is overloaded"}, "model is overloaded"),
        ({"error": ["one", "two"]}, "one; two"),
        ({"errors": [{"message": "bad gateway", "code": 7003}]}, "bad gateway"),
        ({"message": "no such thing"}, "no such thing"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": {"error": {"message": "deep"}}}, "deep"),
        ({"error": {"message": {"detail": "deeper"}}}, "deeper"),
    ],
)
def test_message_is_found_wherever_it_is(body: Any, message: str) -> None:
    assert error(400, body)["message"] == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><h1>503 the prompt was: secret</h1></html>",
        b"Internal Server Error",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"[[]]",
        b"7",
        b'{"error":[]}',
        b'{"error":{}}',
        b'{"error":{"message":null}}',
        b'{"error":{"message":{"a":{"b":"prompt"}}}}',
        b'{"prompt":"secret"}',
    ],
)
def test_body_without_a_message_is_not_quoted(body: bytes) -> None:
    assert error(503, body)["message"] == "The provider answered 503 without saying why."


@pytest.mark.parametrize(
    ("status", "type_", "code"),
    [
        (400, "invalid_request_error", None),
        (404, "invalid_request_error", None),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (529, "server_error", None),
    ],
)
def test_type_and_code_follow_from_the_status_when_nothing_is_said(status: int, type_: str, code: str | None) -> None:
    assert error(status, b"") == {
        "message": f"The provider answered {status} without saying why.",
        "type": type_,
        "param": None,
        "code": code,
    }


def test_keys_that_the_provider_quotes_are_masked() -> None:
    message = error(401, recording("openai/error_401.json"))["message"]

    assert message.startswith("Incorrect API key provided: sk-...")
    assert "abc12" not in message
    assert "WXYZ" not in message


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("bad key sk-ant-api03-abcDEF_123 given", "bad key sk-... given"),
        ("header was 'Bearer eyJhbGciOi.abc.def=='", "header was 'Bearer ...'"),
        ("gsk_abcdefgh12345678 is revoked", "gsk_... is revoked"),
        ("API key AIzaSyAbCdEf0123456789 is invalid", "API key AIza... is invalid"),
        ("a task-manager on a risk-averse desk", "a task-manager on a risk-averse desk"),
    ],
)
def test_credentials_are_recognised_by_their_look(said: str, expected: str) -> None:
    assert clean(said) == expected


def test_strings_of_errors_are_capped() -> None:
    found = error(400, {"error": {"message": "m" * 9000, "type": "t" * 9000, "param": "p" * 9000, "code": "c" * 9000}})

    assert [len(text) for text in found.values()] == [2000] * 4
