"""The real `openai` package as the client: whoever points it at the gateway notices no difference."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from gateway_project.tests.cast import UPSTREAM_KEY
from gateway_project.tests.clients import PROMPT, REQUEST_ID, new_request_id
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import free_port, wait_until
from gateway_project.tests.upstream import Upstream

ANSWER = "w0 w1 w2 w3 w4 "
DIALECTS = ("gpt-test", "azure-test", "claude-test")
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}
WEATHER_ARGUMENTS = {"place": "Zürich", "days": 7}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="

ClientOf = Callable[..., OpenAI]


class GetWeather(BaseModel):
    place: str
    days: int


class Forecast(BaseModel):
    title: str
    days: list[GetWeather]


def http_client() -> httpx.Client:
    """The SDK's own, without proxies, and without reading all certificates for each test: here is no TLS."""
    return openai.DefaultHttpxClient(trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@pytest.fixture
def client_of(gateway: GatewayProcess) -> Iterator[ClientOf]:
    """client_of(key, **options): a client with the key of one of the cast. It does not retry unless told to."""
    with ExitStack() as stack:

        def make(key: str = "alice", **options: Any) -> OpenAI:
            settings = {"base_url": f"{gateway.url}/v1", "api_key": gateway.keys.get(key, key), "max_retries": 0}
            return stack.enter_context(OpenAI(**{**settings, "http_client": http_client(), **options}))

        yield make


@pytest.fixture
def client(client_of: ClientOf) -> OpenAI:
    return client_of()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own pause between retries, which begins at half a second, is short."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


def ask(client: OpenAI, model: str = "gpt-test", **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": model, "messages": PROMPT, **fields})


def text_of(chunks: Any, index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


# --- chat ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", DIALECTS)
def test_chat(client: OpenAI, model: str) -> None:
    completion = ask(client, model)
    assert completion.object == "chat.completion"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == ANSWER
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 5)
    assert completion.usage.total_tokens == 8


def test_conversation_reaches_the_provider_as_it_was_written(client: OpenAI, upstream: Upstream) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Answer in German."}]},
        {"role": "user", "name": "alice", "content": 'Grüße 👩‍👩‍👧 é \u2028 \x7f "quoted" \\ <b>'},
        {"role": "assistant", "content": None, "refusal": "No.", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "user", "content": ""},
    ]
    ask(client, messages=messages)
    assert upstream.last.json == {"model": "gpt-test", "messages": messages}


def test_every_parameter_reaches_the_provider(client: OpenAI, upstream: Upstream) -> None:
    fields: dict[str, Any] = {
        "frequency_penalty": -2,
        "function_call": "none",
        "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "max_completion_tokens": 100,
        "max_tokens": 100,
        "metadata": {"project": "apollo"},
        "modalities": ["text", "audio"],
        "audio": {"format": "wav", "voice": "alloy"},
        "n": 1,
        "parallel_tool_calls": False,
        "prediction": {"type": "content", "content": "w0 w1"},
        "presence_penalty": 0.5,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "reasoning_effort": "none",
        "response_format": {"type": "json_object"},
        "safety_identifier": "hashed",
        "seed": 2**62,
        "service_tier": "flex",
        "stop": ["\n", "END"],
        "store": False,
        "temperature": 0,
        "tool_choice": "auto",
        "tools": [WEATHER],
        "top_logprobs": 0,
        "top_p": 1e-9,
        "user": "carol",
        "verbosity": "low",
        "web_search_options": {"search_context_size": "low"},
    }
    ask(client, **fields)
    assert upstream.last.json == {"model": "gpt-test", "messages": PROMPT, **fields}


def test_fields_that_nobody_has_heard_of_pass_both_ways(client: OpenAI, upstream: Upstream) -> None:
    upstream.next("ok", extra=1)
    unheard = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "x_flag": None, "x_list": [1, 2.5, "ü", {}]}
    completion = ask(client, extra_body=unheard)
    assert {name: upstream.last.json[name] for name in unheard} == unheard
    assert completion.model_extra["x_unknown"] == {"kept": [1, None, "ü"]}
    assert completion.choices[0].message.model_extra["x_unknown"] == {"kept": [1, None, "ü"]}


def test_text_arrives_letter_by_letter_as_the_provider_wrote_it(client: OpenAI, upstream: Upstream) -> None:
    text = "Zürich – 東京 🇨🇭 👩‍👩‍👧 é نमस्ते \u2028\u0000 \\n"
    upstream.next("ok", text=text)
    upstream.next("ok", text=text)
    assert ask(client).choices[0].message.content == text
    assert text_of(ask(client, stream=True)) == text


def test_n_answers_come_back(client: OpenAI) -> None:
    completion = ask(client, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert [choice.message.content for choice in completion.choices] == [ANSWER, ANSWER]
    assert completion.usage.completion_tokens == 10


def test_logprobs_come_back(client: OpenAI) -> None:
    choice = ask(client, logprobs=True, top_logprobs=2).choices[0]
    assert [item.token for item in choice.logprobs.content] == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]
    assert choice.logprobs.content[0].logprob == -0.5
    assert choice.logprobs.content[0].bytes == list(b"w0 ")


def test_cached_and_reasoning_tokens_come_back(client: OpenAI, upstream: Upstream) -> None:
    upstream.next("ok", cached=2, reasoning=4)
    usage = ask(client).usage
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.completion_tokens_details.reasoning_tokens == 4


@pytest.mark.parametrize("model", DIALECTS)
def test_image_part_is_accepted(client: OpenAI, model: str) -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    assert ask(client, model, messages=[{"role": "user", "content": parts}]).choices[0].message.content == ANSWER


def test_image_audio_and_file_parts_reach_the_provider(client: OpenAI, upstream: Upstream) -> None:
    parts = [
        {"type": "text", "text": "What are these?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://pictures.example/cat.jpg"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    ask(client, messages=[{"role": "user", "content": parts}])
    assert upstream.last.json["messages"][0]["content"] == parts


# --- chat, streamed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", DIALECTS)
def test_stream(client: OpenAI, model: str) -> None:
    chunks = list(ask(client, model, stream=True))
    assert text_of(chunks) == ANSWER
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_shows_no_usage_unless_asked_for(client: OpenAI, gateway: GatewayProcess, upstream: Upstream) -> None:
    request_id = new_request_id()
    chunks = list(ask(client, stream=True, extra_headers={"x-request-id": request_id}))
    assert all(chunk.choices and not chunk.usage for chunk in chunks)
    # It was obtained all the same: the books have it.
    assert upstream.last.json["stream_options"] == {"include_usage": True}
    event = gateway.event_of(request_id)
    assert (event["prompt_tokens"], event["completion_tokens"], event["estimated"]) == (3, 5, False)


@pytest.mark.parametrize("model", DIALECTS)
def test_stream_with_include_usage_ends_with_the_usage(client: OpenAI, model: str) -> None:
    *chunks, last = ask(client, model, stream=True, stream_options={"include_usage": True})
    assert not any(chunk.usage for chunk in chunks)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (3, 5, 8)


def test_other_stream_options_reach_the_provider(client: OpenAI, upstream: Upstream) -> None:
    list(ask(client, stream=True, stream_options={"include_obfuscation": False}))
    assert upstream.last.json["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_stream_of_n_answers(client: OpenAI) -> None:
    chunks = list(ask(client, stream=True, n=2))
    assert [text_of(chunks, index) for index in (0, 1)] == [ANSWER, ANSWER]


def test_stream_with_logprobs(client: OpenAI) -> None:
    choices = [chunk.choices[0] for chunk in ask(client, stream=True, logprobs=True)]
    tokens = [item.token for choice in choices if choice.logprobs for item in choice.logprobs.content]
    assert tokens == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]


def test_stream_comes_as_it_is_made(client: OpenAI, upstream: Upstream) -> None:
    """The first word is there while the provider has not yet said the last one."""
    upstream.next("hang-midway")
    with ask(client, "patient/hang-midway", stream=True) as stream:
        words = []
        for chunk in stream:
            words.append(chunk.choices[0].delta.content)
            if "w2 " in words:
                break
        assert upstream.last.ended is None


@pytest.mark.parametrize("behaviour", ["byte-by-byte", "crlf", "cr", "comments", "odd-fields", "gzip", "until-close"])
def test_stream_is_understood_however_the_provider_frames_it(
    client: OpenAI, upstream: Upstream, behaviour: str
) -> None:
    upstream.next(behaviour)
    upstream.next("utf8" if behaviour == "byte-by-byte" else "ok")
    chunks, plain = (list(ask(client, stream=True)) for _ in range(2))
    assert text_of(chunks) == text_of(plain)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_cut_by_the_client_is_closed_upstream_and_billed(
    client: OpenAI, gateway: GatewayProcess, upstream: Upstream
) -> None:
    request_id = new_request_id()
    stream = ask(client, "endless-stream", stream=True, extra_headers={"x-request-id": request_id})
    for count, _ in enumerate(stream):
        if count == 5:
            break
    stream.close()
    call = upstream.wait_for_end(upstream.last, timeout_s=2)
    assert call.client_left
    event = gateway.event_of(request_id)
    assert (event["status"], event["error_code"]) == (499, "client_disconnected")
    assert event["estimated"]
    assert event["prompt_tokens"] > 0
    assert event["completion_tokens"] > 0
    assert event["cost_nano_usd"] > 0


def test_connection_can_be_used_again_after_a_stream_was_cut(client: OpenAI, upstream: Upstream) -> None:
    with ask(client, "endless-stream", stream=True) as stream:
        next(iter(stream))
    assert ask(client).choices[0].message.content == ANSWER


def test_stream_helper_puts_the_answer_together(client: OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-test", messages=PROMPT) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        completion = stream.get_final_completion()
    assert "".join(deltas) == ANSWER
    assert completion.choices[0].message.content == ANSWER


def test_error_in_mid_stream_is_raised_after_what_came_before(client: OpenAI, upstream: Upstream) -> None:
    upstream.next("error-midway", delay_ms=20)
    words = []
    with pytest.raises(openai.APIError, match="The engine is overloaded") as caught:
        for chunk in ask(client, stream=True):
            words.append(chunk.choices[0].delta.content or "")
    assert "".join(words) == "w0 w1 w2 "
    assert caught.value.body == {
        "message": "The engine is overloaded.",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
    }


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("close-midway", "upstream_unavailable"),
        ("reset-midway", "upstream_unavailable"),
        ("end-midway", "upstream_unavailable"),
        ("hang-midway", "upstream_timeout"),
    ],
)
def test_stream_that_breaks_off_does_not_look_complete(
    client: OpenAI, upstream: Upstream, behaviour: str, code: str
) -> None:
    upstream.next(behaviour)
    with pytest.raises(openai.APIError) as caught:
        list(ask(client, stream=True))
    assert (caught.value.type, caught.value.code) == ("server_error", code)


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", DIALECTS)
def test_tool_is_called_and_its_result_answered(client: OpenAI, model: str) -> None:
    choice = ask(client, model, tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls"
    (called,) = choice.message.tool_calls
    assert called.function.name == "get_weather"
    assert json.loads(called.function.arguments) == WEATHER_ARGUMENTS
    result = {"role": "tool", "tool_call_id": called.id, "content": "sunny"}
    answer = ask(client, model, messages=[*PROMPT, choice.message, result], tools=[WEATHER])
    assert answer.choices[0].message.content == ANSWER


@pytest.mark.parametrize("model", DIALECTS)
def test_streamed_tool_call_is_put_together_from_its_pieces(client: OpenAI, model: str) -> None:
    chunks = list(ask(client, model, tools=[WEATHER], stream=True))
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert {call.index for call in calls} == {0}
    assert calls[0].id
    assert calls[0].function.name == "get_weather"
    assert json.loads("".join(call.function.arguments or "" for call in calls)) == WEATHER_ARGUMENTS
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_tool_made_from_a_class_comes_back_as_the_class(client: OpenAI) -> None:
    tool = openai.pydantic_function_tool(GetWeather)
    completion = client.chat.completions.parse(model="gpt-test", messages=PROMPT, tools=[tool])
    (called,) = completion.choices[0].message.tool_calls or []
    assert called.function.parsed_arguments == GetWeather(place="Zürich", days=7)


# --- JSON schema -----------------------------------------------------------------------------------------------------


def test_answer_in_a_json_schema_comes_back_as_the_class(client: OpenAI, upstream: Upstream) -> None:
    completion = client.chat.completions.parse(model="gpt-test", messages=PROMPT, response_format=GetWeather)
    assert completion.choices[0].message.parsed == GetWeather(place="Zürich", days=7)
    schema = upstream.last.json["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"]) == ("GetWeather", True)


def test_schema_with_definitions_reaches_the_provider(client: OpenAI, upstream: Upstream) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "Forecast", "schema": Forecast.model_json_schema()}}
    ask(client, response_format=wanted)
    assert upstream.last.json["response_format"] == wanted


def test_streamed_answer_in_a_json_schema_comes_back_as_the_class(client: OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-test", messages=PROMPT, response_format=GetWeather) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.parsed == GetWeather(place="Zürich", days=7)


@pytest.mark.parametrize(
    ("finish", "error"),
    [("length", openai.LengthFinishReasonError), ("content_filter", openai.ContentFilterFinishReasonError)],
)
def test_unfinished_answer_is_told_as_such(
    client: OpenAI, upstream: Upstream, finish: str, error: type[Exception]
) -> None:
    upstream.next("ok", finish=finish)
    with pytest.raises(error):
        client.chat.completions.parse(model="gpt-test", messages=PROMPT, response_format=GetWeather)


# --- the other endpoints ---------------------------------------------------------------------------------------------


def test_completion(client: OpenAI, upstream: Upstream) -> None:
    completion = client.completions.create(model="gpt-test", prompt="one two three", suffix="!", best_of=1, echo=False)
    assert (completion.object, completion.choices[0].text) == ("text_completion", ANSWER)
    assert completion.usage
    assert completion.usage.total_tokens == 8
    assert upstream.last.json["suffix"] == "!"


@pytest.mark.parametrize("prompt", [["one two", "three"], [1, 2, 3], [[1, 2], [3]]])
def test_completion_takes_every_kind_of_prompt(client: OpenAI, upstream: Upstream, prompt: Any) -> None:
    assert client.completions.create(model="gpt-test", prompt=prompt).choices[0].text == ANSWER
    assert upstream.last.json["prompt"] == prompt


def test_streamed_completion(client: OpenAI) -> None:
    chunks = list(client.completions.create(model="gpt-test", prompt="one two three", stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == ANSWER
    assert all(chunk.choices and not chunk.usage for chunk in chunks)


@pytest.mark.parametrize("given", ["one two three", ["one", "two three"], [1, 2, 3], [[1], [2, 3]]])
def test_embeddings(client: OpenAI, given: Any) -> None:
    answer = client.embeddings.create(model="embedding-test", input=given)
    several = isinstance(given, list) and not isinstance(given[0], int)
    assert [list(row.embedding) for row in answer.data] == [[0.25, -0.5, 0.125]] * (len(given) if several else 1)


def test_embeddings_as_floats(client: OpenAI, upstream: Upstream) -> None:
    answer = client.embeddings.create(
        model="embedding-test", input="one two three", encoding_format="float", dimensions=3
    )
    assert answer.data[0].embedding == [0.25, -0.5, 0.125]
    assert answer.usage.prompt_tokens == 3
    assert upstream.last.json["dimensions"] == 3


def test_models_are_exactly_those_that_the_key_may_call(client_of: ClientOf) -> None:
    assert [model.id for model in client_of("charlie").models.list()] == ["echo", "gpt-alias", "gpt-test"]
    names = [model.id for model in client_of("alice").models.list()]
    assert {"echo", "gpt-test", "embedding-test", "patient/ok"} <= set(names)


@pytest.mark.parametrize("name", ["gpt-test", "patient/ok", "fallback/500"])
def test_model(client: OpenAI, name: str) -> None:
    model = client.models.retrieve(name)
    assert (model.id, model.object) == (name, "model")
    assert model.created > 1_700_000_000
    assert model.owned_by


@pytest.mark.parametrize(("key", "name"), [("alice", "no-such-model"), ("charlie", "embedding-test")])
def test_model_that_is_not_there_or_not_for_this_key_is_not_found(client_of: ClientOf, key: str, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client_of(key).models.retrieve(name)
    assert caught.value.code == "model_not_found"


# --- headers ---------------------------------------------------------------------------------------------------------


def test_raw_headers_of_an_answer(client: OpenAI, upstream: Upstream) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-test", messages=PROMPT)
    assert raw.parse().choices[0].message.content == ANSWER
    assert REQUEST_ID.fullmatch(raw.headers["x-request-id"])
    expected = {
        "x-gatehouse-provider": "upstream",
        "x-gatehouse-model": "gpt-test",
        "x-gatehouse-cost-usd": "0.000013000",
        "x-gatehouse-upstream-request-id": f"req_upstream_{upstream.last.number}",
        "openai-processing-ms": "7",
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29900",
        "x-ratelimit-reset-tokens": "200ms",
    }
    assert {name: raw.headers[name] for name in expected} == expected
    assert "set-cookie" not in raw.headers


def test_raw_headers_of_a_stream(client: OpenAI) -> None:
    create = client.chat.completions.with_streaming_response.create
    with create(model="gpt-test", messages=PROMPT, stream=True) as raw:
        assert text_of(raw.parse()) == ANSWER
    assert REQUEST_ID.fullmatch(raw.headers["x-request-id"])
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["x-gatehouse-provider"] == "upstream"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "29900"


def test_request_id_is_the_callers_own(client: OpenAI) -> None:
    assert ask(client, extra_headers={"x-request-id": "order-4711"})._request_id == "order-4711"
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "no-such-model", extra_headers={"x-request-id": "order-4712"})
    assert caught.value.request_id == "order-4712"


def test_default_headers_get_into_the_books_and_not_to_the_provider(
    client_of: ClientOf, gateway: GatewayProcess, upstream: Upstream
) -> None:
    request_id = new_request_id()
    client = client_of(
        organization="org-1",
        project="proj-1",
        default_headers={
            "x-gatehouse-tags": "project=apollo, stage=test",
            "x-gatehouse-trace-id": "trace-1",
            "x-request-id": request_id,
            "x-secret-of-the-client": "s3cret",
            "cookie": "session=1",
        },
    )
    ask(client, user="carol")
    event = gateway.event_of(request_id)
    assert event["tags"] == {"project": "apollo", "stage": "test"}
    assert (event["organization"], event["trace_id"], event["end_user"]) == ("org-1", "trace-1", "carol")
    assert event["user_agent"].startswith("OpenAI/Python")
    names = {name.lower() for name, _ in upstream.last.headers}
    allowed = {"host", "authorization", "content-type", "content-length", "user-agent", "accept", "accept-encoding"}
    assert names <= allowed
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "x-usagepanda-api-key"])
def test_key_may_be_in_other_headers(
    client_of: ClientOf, gateway: GatewayProcess, upstream: Upstream, header: str
) -> None:
    headers = {"Authorization": openai.Omit(), header: gateway.keys["alice"]}
    assert ask(client_of("nobody's"), extra_headers=headers).choices[0].message.content == ANSWER
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert upstream.last.header(header) is None


def test_azure_client_works_with_its_own_paths_and_header(gateway: GatewayProcess, upstream: Upstream) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=gateway.url,
        api_key=gateway.keys["charlie"],
        api_version="2024-10-21",
        max_retries=0,
        http_client=http_client(),
    )
    with client:
        assert ask(client).choices[0].message.content == ANSWER
        assert text_of(ask(client, stream=True)) == ANSWER
        assert [model.id for model in client.models.list()] == ["echo", "gpt-alias", "gpt-test"]
    assert upstream.last.path == "/v1/chat/completions"
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert upstream.last.header("api-key") is None


def test_azure_client_may_name_its_deployment_once(gateway: GatewayProcess, upstream: Upstream) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=gateway.url,
        azure_deployment="gpt-test",
        api_key=gateway.keys["alice"],
        api_version="2024-10-21",
        max_retries=0,
        http_client=http_client(),
    )
    with client:
        assert ask(client).choices[0].message.content == ANSWER


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["nonsense", "sk-gh-0123456789ab-nothing-like-it", "expired", "disabled", "sk-" + "a" * 10_000],
    ids=["nonsense", "malformed", "expired", "disabled", "endless"],
)
def test_wrong_key_is_an_authentication_error(client_of: ClientOf, upstream: Upstream, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(client_of(key))
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")
    assert upstream.received == 0


def test_wrong_keys_all_get_the_same_message(client_of: ClientOf) -> None:
    messages = set()
    for key in ("nonsense", "expired", "disabled"):
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(client_of(key))
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_endpoint_that_the_key_may_not_use_is_a_permission_error(client_of: ClientOf, upstream: Upstream) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        ask(client_of("embedder"))
    assert caught.value.code == "endpoint_not_allowed"
    assert upstream.received == 0
    client_of("embedder").embeddings.create(model="embedding-test", input="x")


@pytest.mark.parametrize(("key", "model"), [("alice", "no-such-model"), ("charlie", "embedding-test")])
def test_model_unknown_or_not_allowed_is_not_found(client_of: ClientOf, key: str, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client_of(key), model)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_url_that_does_not_exist_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.generate(prompt="a cat")
    assert caught.value.code == "unknown_url"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"model": 5}, "model"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"tools": {}}, "tools"),
        ({"n": 0}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"extra_body": {"user": 5}}, "user"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_field_is_a_bad_request_that_names_it(
    client: OpenAI, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **fields)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
    assert upstream.received == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (413, openai.APIStatusError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_providers_refusal_raises_the_class_that_belongs_to_it(
    client: OpenAI, upstream: Upstream, status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    upstream.next("error", status=status)
    with pytest.raises(error) as caught:
        ask(client, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.request_id
    assert upstream.received == 1


@pytest.mark.parametrize("status", [401, 403])
def test_providers_refusal_of_our_key_is_not_the_callers_fault(client: OpenAI, upstream: Upstream, status: int) -> None:
    upstream.next("error", status=status)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 502
    assert "key1" not in str(caught.value.body)


def test_rate_limit_error_brings_the_providers_limits(client: OpenAI, upstream: Upstream) -> None:
    upstream.next("error", status=429, retry_after=7)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert (caught.value.type, caught.value.code) == ("requests", "rate_limit_exceeded")
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["x-ratelimit-remaining-requests"]) == ("7", "0")
    assert headers["x-ratelimit-reset-tokens"] == "2s"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("nowhere", 502, "upstream_unavailable"),
        ("close-before-head", 502, "upstream_unavailable"),
        ("garbage", 502, "upstream_unavailable"),
        ("error-in-200", 502, "overloaded"),
        ("hang", 504, "upstream_timeout"),
        ("unreachable", 504, "upstream_timeout"),
    ],
)
def test_provider_that_fails_is_an_internal_server_error(client: OpenAI, model: str, status: int, code: str) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, model)
    assert (caught.value.status_code, caught.value.code, caught.value.type) == (status, code, "server_error")


def test_clients_own_timeout_is_a_timeout_error_and_the_answer_is_billed(
    client: OpenAI, gateway: GatewayProcess, upstream: Upstream
) -> None:
    upstream.next("slow-first-byte", delay_ms=700)
    request_id = new_request_id()
    with pytest.raises(openai.APITimeoutError):
        ask(client, timeout=0.3, extra_headers={"x-request-id": request_id})
    event = gateway.event_of(request_id)
    assert (event["status"], event["error_code"]) == (499, "client_disconnected")
    assert (event["prompt_tokens"], event["completion_tokens"], event["estimated"]) == (3, 5, False)


def test_nobody_at_the_address_is_a_connection_error(client_of: ClientOf) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(client_of(base_url=f"http://127.0.0.1:{free_port()}/v1"))


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["429", "500", "502", "empty", "html", "error-in-200"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_client_retries_and_gets_its_answer(
    client_of: ClientOf, upstream: Upstream, hasty: None, failure: str, stream: bool
) -> None:
    upstream.next(failure, retry_after="0.02", times=2)
    answer = ask(client_of(max_retries=2), stream=stream)
    assert (text_of(answer) if stream else answer.choices[0].message.content) == ANSWER
    assert upstream.received == 3


@pytest.mark.parametrize("max_retries", [0, 1, 3])
@pytest.mark.parametrize("failure", ["429", "503", "garbage"])
def test_max_retries_is_honoured(
    client_of: ClientOf, upstream: Upstream, hasty: None, max_retries: int, failure: str
) -> None:
    """One call of the client is one call of the provider: the gateway adds no retries of its own."""
    upstream.next(failure, retry_after="0.02", times=10)
    with pytest.raises(openai.APIStatusError):
        ask(client_of(max_retries=max_retries))
    assert upstream.received == max_retries + 1


@pytest.mark.parametrize("failure", ["400", "404", "413", "422"])
def test_client_does_not_retry_what_would_fail_again(
    client_of: ClientOf, upstream: Upstream, hasty: None, failure: str
) -> None:
    upstream.next(failure, times=10)
    with pytest.raises(openai.APIStatusError):
        ask(client_of(max_retries=3))
    assert upstream.received == 1


def test_each_retry_is_a_call_in_the_books(
    client_of: ClientOf, gateway: GatewayProcess, upstream: Upstream, hasty: None
) -> None:
    upstream.next("500")
    trace_id = new_request_id()
    ask(client_of(max_retries=1, default_headers={"x-gatehouse-trace-id": trace_id}))
    statement = f"SELECT status FROM usage_usageevent WHERE trace_id = '{trace_id}' ORDER BY id"
    wait_until(lambda: len(gateway.query(statement)) == 2, 5, "both calls are in the books")
    assert [row["status"] for row in gateway.query(statement)] == [500, 200]


# --- the asynchronous client -----------------------------------------------------------------------------------------


def async_client(gateway: GatewayProcess, **options: Any) -> openai.AsyncOpenAI:
    http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key=gateway.keys["alice"], max_retries=0, http_client=http_client, **options
    )


async def test_async_chat_and_stream(gateway: GatewayProcess) -> None:
    async with async_client(gateway) as client:
        assert (await ask(client)).choices[0].message.content == ANSWER
        stream = await ask(client, stream=True)
        assert text_of([chunk async for chunk in stream]) == ANSWER


async def test_async_calls_side_by_side(gateway: GatewayProcess, upstream: Upstream) -> None:
    async with async_client(gateway) as client:
        prompts = [[{"role": "user", "content": " ".join(["x"] * count)}] for count in range(1, 31)]
        answers = await asyncio.gather(*(ask(client, messages=prompt) for prompt in prompts))
    assert [answer.usage.prompt_tokens for answer in answers] == list(range(1, 31))
    assert upstream.received == 30


async def test_cancelled_async_stream_is_closed_upstream(gateway: GatewayProcess, upstream: Upstream) -> None:
    async def listen(client: openai.AsyncOpenAI) -> None:
        async for _ in await ask(client, "endless-stream", stream=True):
            begun.set()

    begun = asyncio.Event()
    async with async_client(gateway) as client:
        task = asyncio.create_task(listen(client))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(lambda: upstream.wait_for_end(upstream.last, 2).client_left)
