from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from proxy.endpoints import CHAT
from proxy.errors import InvalidRequest
from proxy.providers.anthropic_request import DROPPED, REFUSED, TRANSLATED
from proxy.providers.base import UnsupportedRequest
from proxy.tests.recorded import chat, sent, target_of, translate

BUDGET_MODEL = "claude-haiku-4-5-20251001"
ADAPTIVE_MODEL = "claude-sonnet-5"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@functools.cache
def params() -> TypeAdapter[Any]:
    """The types of Anthropic's own client. Read late, because it takes seconds, and every worker reads this file."""
    from anthropic.types.message_create_params import MessageCreateParams

    return TypeAdapter(MessageCreateParams)


def translated(model: str = BUDGET_MODEL, version: str = "", **body: Any) -> dict[str, Any]:
    """What Anthropic gets, checked by the types of its own client."""
    request = sent(chat(**body), target_of("anthropic", upstream_model=model, api_version=version))
    exhaust(params().validate_python(request))
    return request


def exhaust(value: Any) -> None:
    """Pydantic checks iterables only while they are read."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for item in value:
            exhaust(item)


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return translated(messages=list(messages))["messages"]


def refused(**body: Any) -> str | None:
    """The field that the refusal names."""
    target = target_of("anthropic", upstream_model=BUDGET_MODEL)
    with pytest.raises(UnsupportedRequest) as refusal:
        target.adapter.request(chat(**body), target, "")
    return refusal.value.param


def user(content: Any = "Hello") -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# --- the whole ------------------------------------------------------------------------------------------------------


def test_least_request() -> None:
    assert translated() == {
        "model": BUDGET_MODEL,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("Hello")]}],
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_tokens": 10}, 10),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": None}, 4096),
        ({"reasoning_effort": "none"}, 4096),
        ({"reasoning_effort": "high"}, 16_384),
        ({"reasoning_effort": "high", "max_tokens": 5000}, 5000),
    ],
)
def test_tokens_are_limited_as_the_client_says(given: dict[str, Any], expected: int) -> None:
    assert translated(**given)["max_tokens"] == expected


def test_streams_are_asked_for() -> None:
    body = translated(stream=True, stream_options={"include_usage": True})

    assert body["stream"] is True
    assert "stream_options" not in body


# --- messages -------------------------------------------------------------------------------------------------------


def test_system_and_developer_messages_become_the_system_prompt() -> None:
    body = translated(
        messages=[
            {"role": "system", "content": "Be brief."},
            user(),
            {"role": "developer", "content": [text("Be kind."), text("  ")]},
        ]
    )

    assert body["system"] == [text("Be brief."), text("Be kind.")]
    assert body["messages"] == [{"role": "user", "content": [text("Hello")]}]


def test_messages_of_one_speaker_in_a_row_are_one_turn() -> None:
    assert turns(user("a"), user(["b", text("c")]), {"role": "assistant", "content": "d"}, user("e")) == [
        {"role": "user", "content": [text("a"), text("b"), text("c")]},
        {"role": "assistant", "content": [text("d")]},
        {"role": "user", "content": [text("e")]},
    ]


@pytest.mark.parametrize("nothing", ["", " \n", None, [], [{"type": "text", "text": ""}]])
def test_empty_messages_are_left_out(nothing: Any) -> None:
    assert turns(user(nothing), {"role": "assistant", "content": nothing}, user("x")) == [
        {"role": "user", "content": [text("x")]}
    ]


def test_refusals_of_the_assistant_are_its_words() -> None:
    parts = [{"type": "refusal", "refusal": "No."}]

    assert turns(user(), {"role": "assistant", "content": parts})[1]["content"] == [text("No.")]
    assert turns(user(), {"role": "assistant", "content": None, "refusal": "No."})[1]["content"] == [text("No.")]
    assert turns(user(), {"role": "assistant", "content": "", "refusal": ["No."]}, user("x"))[0] == {
        "role": "user",
        "content": [text("Hello"), text("x")],
    }


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://example.org/cat.png", {"type": "url", "url": "https://example.org/cat.png"}),
        (f"data:image/png;base64,{PNG}", {"type": "base64", "media_type": "image/png", "data": PNG}),
        (f"DATA:image/JPG;BASE64,{PNG}", {"type": "base64", "media_type": "image/jpeg", "data": PNG}),
    ],
)
def test_images_come_from_the_web_or_the_message(url: str, source: dict[str, Any]) -> None:
    parts = [text("What is this?"), {"type": "image_url", "image_url": {"url": url, "detail": "high"}}]

    assert turns(user(parts))[0]["content"] == [text("What is this?"), {"type": "image", "source": source}]


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (
            "data:application/pdf;base64,JVBERi0=",
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        ),
        ("https://example.org/a.pdf", {"type": "url", "url": "https://example.org/a.pdf"}),
        (
            "data:text/markdown;charset=utf-8;base64," + base64.b64encode("# Größe".encode()).decode(),
            {"type": "text", "media_type": "text/plain", "data": "# Größe"},
        ),
    ],
)
def test_files_become_documents(data: str, source: dict[str, Any]) -> None:
    parts = [{"type": "file", "file": {"filename": "a.pdf", "file_data": data}}]

    assert turns(user(parts))[0]["content"] == [{"type": "document", "source": source, "title": "a.pdf"}]


def test_cache_control_stays_where_the_client_put_it() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}

    body = translated(
        messages=[{"role": "system", "content": "Long.", **mark}, user([{**text("Doc"), **mark}, text("Why?")])],
        tools=[{**TOOL, **mark}],
    )

    assert body["system"] == [{**text("Long."), **mark}]
    assert body["messages"][0]["content"] == [{**text("Doc"), **mark}, text("Why?")]
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([{"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}], "messages[0].content[0]"),
        ([text("a"), {"type": "newly_invented"}], "messages[0].content[1]"),
        ([{"text": "a"}], "messages[0].content[0]"),
        ([{"type": ["text"]}], "messages[0].content[0]"),
        ([{"type": "text", "text": 7}], "messages[0].content[0].text"),
        ([{"type": "image_url"}], "messages[0].content[0].image_url.url"),
        ([{"type": "image_url", "image_url": {"url": "cat.png"}}], "messages[0].content[0].image_url.url"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png,abc"}}], "messages[0].content[0].image_url.url"),
        ([{"type": "file", "file": {"file_id": "file-abc"}}], "messages[0].content[0].file"),
        ([{"type": "file"}], "messages[0].content[0].file"),
        ([{"type": "file", "file": {"file_data": "data:a/b;base64,aa"}}], "messages[0].content[0].file.file_data"),
        ([{"type": "file", "file": {"file_data": "data:text/x;base64,?"}}], "messages[0].content[0].file.file_data"),
    ],
)
def test_parts_that_anthropic_does_not_take_are_refused_by_name(parts: list[Any], param: str) -> None:
    assert refused(messages=[user(parts)]) == param


def test_roles_that_anthropic_does_not_know_are_refused() -> None:
    assert refused(messages=[user(), {"role": "function", "name": "f", "content": "1"}]) == "messages[1]"
    assert (
        refused(messages=[user(), {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}])
        == "messages[1].function_call"
    )


# --- tools ----------------------------------------------------------------------------------------------------------


def call(id_: str, arguments: Any = '{"city": "Oslo"}', name: str = "get_weather") -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_round_of_tools() -> None:
    assert turns(
        user("Weather?"),
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call("call_1"), call("call_2", "")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "7 °C"},
        {"role": "tool", "tool_call_id": "call_2", "content": [text("8 °C")]},
        user("Thanks"),
    )[1:] == [
        {
            "role": "assistant",
            "content": [
                text("Let me look."),
                {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "call_2", "name": "get_weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [text("7 °C")]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [text("8 °C")]},
                text("Thanks"),
            ],
        },
    ]


def test_result_of_a_tool_may_be_empty() -> None:
    result = turns(user(), {"role": "tool", "tool_call_id": "call_1", "content": ""})[0]["content"][1]

    assert result == {"type": "tool_result", "tool_use_id": "call_1"}


def test_ids_of_other_providers_fit_and_still_belong_together() -> None:
    messages = turns(
        user(),
        {"role": "assistant", "tool_calls": [call("functions.get:0|x")]},
        {"role": "tool", "tool_call_id": "functions.get:0|x", "content": "7"},
    )

    assert messages[1]["content"][0]["id"] == messages[2]["content"][0]["tool_use_id"] == "functions_get_0_x"


def test_large_integers_in_arguments_stay_exact() -> None:
    exchange = chat(
        messages=[user(), {"role": "assistant", "tool_calls": [call("a", '{"id": 123456789012345678901}')]}]
    )

    assert b"123456789012345678901" in translate(exchange, target_of("anthropic")).body


@pytest.mark.parametrize("arguments", ["{", "[]", "7", {"city": "Oslo"}, "[" * 5000])
def test_arguments_that_are_no_object_are_refused(arguments: Any) -> None:
    messages = [user(), {"role": "assistant", "tool_calls": [call("a", arguments)]}]

    assert refused(messages=messages) == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize("calls", [["text"], [{"type": "custom", "custom": {"name": "x", "input": "y"}}]])
def test_calls_of_anything_but_functions_are_refused(calls: list[Any]) -> None:
    assert refused(messages=[user(), {"role": "assistant", "tool_calls": calls}]) == "messages[1].tool_calls[0]"


def test_functions_become_tools() -> None:
    strict = {"type": "function", "function": {"name": "now", "strict": True}}

    assert translated(tools=[TOOL, strict])["tools"] == [
        {
            "name": "get_weather",
            "description": "Weather of a city",
            "input_schema": TOOL["function"]["parameters"],  # type: ignore[index]
        },
        {"name": "now", "input_schema": {"type": "object", "properties": {}}, "strict": True},
    ]


def test_anthropics_own_tools_go_as_they_are() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}

    assert translated(tools=[search])["tools"] == [search]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        (None, True, None),
        ("auto", None, {"type": "auto"}),
        ("none", None, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
    ],
)
def test_choice_of_tools(choice: Any, parallel: bool | None, expected: dict[str, Any] | None) -> None:
    body = translated(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)

    assert body.get("tool_choice") == expected


def test_choice_without_tools_is_left_out() -> None:
    assert set(translated(tool_choice="auto", parallel_tool_calls=False, tools=[])) == {
        "model",
        "max_tokens",
        "messages",
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": "y"}}]},
            "tools[0].function.parameters",
        ),
    ],
)
def test_tools_that_anthropic_does_not_take_are_refused(body: dict[str, Any], param: str) -> None:
    assert refused(**body) == param


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"temperature": 2}, {"temperature": 1}),
        ({"temperature": -0.5}, {"temperature": 0}),
        ({"temperature": 0.7, "top_p": 1}, {"temperature": 0.7}),
        ({"top_p": 0.9, "top_k": 40}, {"top_p": 0.9, "top_k": 40}),
        ({"temperature": None}, {}),
    ],
)
def test_sampling_is_translated(given: dict[str, Any], expected: dict[str, Any]) -> None:
    body = translated(**given)

    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == expected


@pytest.mark.parametrize(
    ("model", "version", "kept"),
    [
        ("claude-3-5-sonnet-20241022", "", True),
        ("claude-3-opus-20240229", "", True),
        ("claude-opus-4-20250514", "", True),
        ("claude-sonnet-4-6", "", True),
        ("claude-opus-4-7", "", False),
        ("claude-opus-4-8", "", False),
        ("claude-sonnet-5", "", False),
        ("claude-haiku-5-5", "", False),
        ("claude-mythos-preview", "", False),
        ("my-claude", "", False),
        ("deepseek-chat", "", True),
        ("claude-3-opus-20240229", "2026-10-21", False),
    ],
)
def test_sampling_is_left_out_where_it_is_refused(model: str, version: str, kept: bool) -> None:
    body = translated(model, version, temperature=0.5, top_p=0.5, top_k=5)

    assert ("temperature" in body, "top_p" in body, "top_k" in body) == (kept, kept, kept)


@pytest.mark.parametrize(("stop", "expected"), [("END", ["END"]), (["a", "b"], ["a", "b"]), ([], None), (None, None)])
def test_stop_sequences(stop: Any, expected: list[str] | None) -> None:
    assert translated(stop=stop).get("stop_sequences") == expected


@pytest.mark.parametrize("stop", ["\n", ["a", " "], [""]])
def test_white_space_cannot_stop_anthropic(stop: Any) -> None:
    assert refused(stop=stop) == "stop"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"user": "u-1"}, {"user_id": "u-1"}),
        ({"safety_identifier": "s-1"}, {"user_id": "s-1"}),
        ({"user": "u-1", "metadata": {"user_id": "m-1", "topic": "x"}}, {"user_id": "m-1"}),
        ({"metadata": {"topic": "x"}}, None),
    ],
)
def test_end_user_is_told(given: dict[str, Any], expected: dict[str, str] | None) -> None:
    assert translated(**given).get("metadata") == expected


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", "auto"), ("default", "standard_only"), ("flex", None), ("priority", None)]
)
def test_service_tier(given: str, expected: str | None) -> None:
    assert translated(service_tier=given).get("service_tier") == expected


def test_schema_of_the_answer_is_asked_for() -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}}

    assert translated(response_format=response_format)["output_config"] == {
        "format": {"type": "json_schema", "schema": SCHEMA}
    }


def test_plain_text_needs_no_format() -> None:
    assert "output_config" not in translated(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("response_format", "param"),
    [
        ({"type": "json_object"}, "response_format"),
        ({"type": "grammar"}, "response_format"),
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
    ],
)
def test_formats_that_anthropic_does_not_have_are_refused(response_format: dict[str, Any], param: str) -> None:
    assert refused(response_format=response_format) == param


# --- thinking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("effort", "max_tokens", "budget"),
    [
        ("minimal", 20_000, 2_000),
        ("low", 20_000, 4_000),
        ("medium", 20_000, 10_000),
        ("high", 20_000, 16_000),
        ("low", 2_000, 1_024),
        ("high", 1_024, None),
        ("none", 20_000, None),
    ],
)
def test_effort_is_a_budget_for_models_that_have_one(effort: str, max_tokens: int, budget: int | None) -> None:
    body = translated(BUDGET_MODEL, reasoning_effort=effort, max_completion_tokens=max_tokens)

    assert body.get("thinking") == (budget and {"type": "enabled", "budget_tokens": budget})
    assert "output_config" not in body


@pytest.mark.parametrize(
    ("effort", "expected"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh"), ("max", "max")],
)
def test_effort_is_an_effort_for_newer_models(effort: str, expected: str) -> None:
    body = translated(ADAPTIVE_MODEL, reasoning_effort=effort)

    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"] == {"effort": expected}


def test_no_effort_switches_thinking_off() -> None:
    body = translated(ADAPTIVE_MODEL, reasoning_effort="none")

    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


def test_effort_and_schema_share_the_output_config() -> None:
    body = translated(
        ADAPTIVE_MODEL,
        reasoning_effort="low",
        output_config={"effort": "max", "newer": 1},
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    )

    assert body["output_config"] == {
        "effort": "low",
        "newer": 1,
        "format": {"type": "json_schema", "schema": SCHEMA},
    }


@pytest.mark.parametrize("model", [BUDGET_MODEL, ADAPTIVE_MODEL])
def test_tool_that_must_be_called_leaves_no_room_for_thinking(model: str) -> None:
    body = translated(model, reasoning_effort="high", tools=[TOOL], tool_choice="required", max_tokens=9000)

    assert "thinking" not in body


def test_budget_is_left_out_on_results_of_tools_whose_thoughts_are_gone() -> None:
    messages = [
        user(),
        {"role": "assistant", "tool_calls": [call("a")]},
        {"role": "tool", "tool_call_id": "a", "content": "7"},
    ]

    assert "thinking" not in translated(BUDGET_MODEL, reasoning_effort="low", messages=messages, tools=[TOOL])
    assert "thinking" in translated(ADAPTIVE_MODEL, reasoning_effort="low", messages=messages, tools=[TOOL])


def test_thinking_of_the_clients_own_goes_as_it_is() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000, "display": "summarized"}

    assert translated(BUDGET_MODEL, thinking=thinking, reasoning_effort="high")["thinking"] == thinking


def test_thinking_and_temperature_exclude_each_other() -> None:
    assert "temperature" not in translated(BUDGET_MODEL, reasoning_effort="low", temperature=0.2)


def test_unknown_effort_is_refused() -> None:
    assert refused(reasoning_effort="herculean") == "reasoning_effort"


# --- everything else ------------------------------------------------------------------------------------------------


def test_every_field_of_openais_is_decided_upon() -> None:
    known = set(completion_create_params.CompletionCreateParamsStreaming.__annotations__) | set(
        completion_create_params.CompletionCreateParamsBase.__annotations__
    )

    assert known - DROPPED - TRANSLATED - set(REFUSED) == set()


@pytest.mark.parametrize("name", sorted(DROPPED))
def test_fields_without_a_counterpart_are_dropped(name: str) -> None:
    assert name not in translated(**{name: {"any": "value"}})


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_fields_that_would_change_the_answer_are_refused(name: str) -> None:
    assert refused(**{name: {"any": "value"}}) == name


@pytest.mark.parametrize("nothing", [None, False, {}, [], 0])
def test_fields_that_ask_for_nothing_are_not_refused(nothing: Any) -> None:
    assert set(translated(**dict.fromkeys(REFUSED, nothing))) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(("field", "value"), [("n", 2), ("modalities", ["text", "audio"])])
def test_more_than_one_choice_and_audio_are_refused(field: str, value: Any) -> None:
    assert refused(**{field: value}) == field


def test_fields_of_anthropics_and_of_the_future_pass_through() -> None:
    unknown = {"container": "c-1", "newly_invented": {"deep": [1, None]}}

    body = translated(**unknown, nothing=None, n=1, modalities=["text"])

    assert {**body, **unknown} == body
    assert "nothing" not in body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file", "refusal"]) | JSON},
    optional=dict.fromkeys(("text", "refusal", "image_url", "file", "cache_control"), JSON),
)
CALLS = st.fixed_dictionaries({"function": st.fixed_dictionaries({"arguments": st.just("{}") | JSON}) | JSON})
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | st.text(max_size=3)},
    optional={
        "content": st.text(max_size=5) | st.lists(PARTS | st.text(max_size=3), max_size=3),
        "tool_calls": st.lists(CALLS, max_size=2) | JSON,
        "tool_call_id": JSON,
        "refusal": JSON,
    },
)
FIELDS = [*sorted(TRANSLATED - {"model", "messages", "stream"}), *sorted(REFUSED), "thinking", "unknown"]
BODIES = st.builds(
    lambda messages, fields: {**fields, "messages": messages},
    st.lists(MESSAGES, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(BODIES)
def test_any_valid_body_is_translated_or_refused(body: dict[str, Any]) -> None:
    exchange = chat(**body)
    try:
        CHAT.check(exchange.body)
        request = translate(exchange, target_of("anthropic", upstream_model=BUDGET_MODEL))
    except (InvalidRequest, UnsupportedRequest):
        return
    json.loads(request.body)
    assert orjson.loads(request.body)["model"] == BUDGET_MODEL


@pytest.mark.parametrize("role", ["system", "developer"])
def test_conversation_of_instructions_only_is_refused_before_it_is_sent(role: str) -> None:
    assert refused(messages=[{"role": role, "content": "be brief"}]) == "messages"
