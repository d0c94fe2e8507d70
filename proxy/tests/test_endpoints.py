"""What a body must hold, endpoint by endpoint. Field types and ranges are those of OpenAI's API reference."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, ENDPOINTS, Endpoint
from proxy.errors import InvalidRequest

USER = {"role": "user", "content": "hello"}
SMALLEST: dict[str, dict[str, Any]] = {
    "chat/completions": {"model": "m", "messages": [USER]},
    "completions": {"model": "m", "prompt": "hello"},
    "embeddings": {"model": "m", "input": "hello"},
}
NO_STRING: list[Any] = [1, True, [], {}]
NO_NUMBER: list[Any] = ["1", True, [], {}, [1]]
NO_INTEGER: list[Any] = [*NO_NUMBER, 1.0, 0.5]
NO_OBJECT: list[Any] = ["x", 1, False, [], [{}]]
NO_LIST: list[Any] = ["x", 1, {}, True]
NO_BOOLEAN: list[Any] = ["true", 1, 0, [], {}]

ACCEPTED: list[tuple[Endpoint, str, list[Any]]] = [
    (CHAT, "model", ["m", "x" * 200, "org/model:tag@1+2", "名"]),
    (CHAT, "frequency_penalty", [-2, 2, 0.5, -0.0, 1e300]),
    (CHAT, "logit_bias", [{}, {"50256": -100}]),
    (CHAT, "logprobs", [True, False]),
    (CHAT, "max_completion_tokens", [1, 2**31 - 1]),
    (CHAT, "max_tokens", [1, 2**31 - 1]),
    (CHAT, "metadata", [{}, {"a": "b"}]),
    (CHAT, "modalities", [["text"], ["text", "audio"], []]),
    (CHAT, "n", [1, 128]),
    (CHAT, "parallel_tool_calls", [True, False]),
    (CHAT, "response_format", [{"type": "text"}, {}]),
    (CHAT, "seed", [0, -1, 2**63 - 1, -(2**63)]),
    (CHAT, "stop", ["x", "", [], ["a", "b"]]),
    (CHAT, "store", [True, False]),
    (CHAT, "stream", [True, False]),
    (CHAT, "stream_options", [{}, {"include_usage": True}, {"include_usage": None}, {"include_obfuscation": 1}]),
    (CHAT, "temperature", [0, 2, 1.5]),
    (CHAT, "tools", [[], [{}], [{"type": "function", "function": {"name": "f"}}]]),
    (CHAT, "top_logprobs", [0, 20]),
    (CHAT, "user", ["", "carol"]),
    (COMPLETIONS, "prompt", ["", "x", ["a", "b"], [1, 2], [[1, 2], [3]], [""]]),
    (COMPLETIONS, "best_of", [1, 20]),
    (COMPLETIONS, "echo", [True, False]),
    (COMPLETIONS, "logprobs", [0, 5]),
    (COMPLETIONS, "max_tokens", [0, 1, 2**31 - 1]),  # 0 with echo: the prompt's log probabilities and nothing more
    (COMPLETIONS, "suffix", ["", "x"]),
    (EMBEDDINGS, "input", ["x", ["a", "b"], [1, 2], [[1], [2, 3]]]),
    (EMBEDDINGS, "dimensions", [1, 4096]),
    (EMBEDDINGS, "encoding_format", ["float", "base64"]),
]

REFUSED: list[tuple[Endpoint, str, list[Any]]] = [
    (CHAT, "model", [*NO_STRING, "", "x" * 201]),
    (CHAT, "messages", [*NO_LIST, [], ["x"], [None], [[]], [1]]),
    (CHAT, "messages", [[{}], [{"role": 1}], [{"role": None}], [USER, {"content": "x"}]]),
    (CHAT, "messages", [[{**USER, "content": bad}] for bad in (1, True, {}, [1], [None], [[]], ["x", 1])]),
    (CHAT, "frequency_penalty", NO_NUMBER),
    (CHAT, "presence_penalty", NO_NUMBER),
    (CHAT, "temperature", NO_NUMBER),
    (CHAT, "top_p", NO_NUMBER),
    (CHAT, "logit_bias", NO_OBJECT),
    (CHAT, "logprobs", NO_BOOLEAN),
    (CHAT, "max_completion_tokens", [*NO_INTEGER, 0, -1, 2**31]),
    (CHAT, "max_tokens", [*NO_INTEGER, -1, 2**31, 10**30]),
    (CHAT, "metadata", NO_OBJECT),
    (CHAT, "modalities", NO_LIST),
    (CHAT, "n", [*NO_INTEGER, 0, -1, 129]),
    (CHAT, "parallel_tool_calls", NO_BOOLEAN),
    (CHAT, "response_format", NO_OBJECT),
    (CHAT, "seed", [*NO_INTEGER, 2**63, -(2**63) - 1]),
    (CHAT, "stop", [1, True, {}, [1], [None], ["a", 1]]),
    (CHAT, "store", NO_BOOLEAN),
    (CHAT, "stream", NO_BOOLEAN),
    (CHAT, "stream_options", NO_OBJECT),
    (CHAT, "tools", [*NO_LIST, [1], [None], ["x"], [[]]]),
    (CHAT, "functions", [*NO_LIST, ["x"]]),
    (CHAT, "top_logprobs", NO_INTEGER),
    (CHAT, "user", NO_STRING),
    (CHAT, "reasoning_effort", NO_STRING),
    (CHAT, "service_tier", NO_STRING),
    (CHAT, "audio", NO_OBJECT),
    (COMPLETIONS, "prompt", [1, True, {}, [], [None], ["a", 1], [1, "a"], [1.5], [True]]),
    (COMPLETIONS, "prompt", [[[]], [[1], 2], [[1.5]], [["a"]], [{}]]),
    (COMPLETIONS, "best_of", [*NO_INTEGER, -1, 129]),
    (COMPLETIONS, "echo", NO_BOOLEAN),
    (COMPLETIONS, "logprobs", NO_INTEGER),
    (COMPLETIONS, "max_tokens", [*NO_INTEGER, -1, 2**31]),
    (COMPLETIONS, "suffix", NO_STRING),
    (EMBEDDINGS, "input", [1, True, {}, [], [{}], ["a", 1], [[]], [[], [1]]]),
    (EMBEDDINGS, "dimensions", [*NO_INTEGER, 0, -1]),
    (EMBEDDINGS, "encoding_format", NO_STRING),
    (EMBEDDINGS, "user", NO_STRING),
]


def cases(table: list[tuple[Endpoint, str, list[Any]]]) -> list[Any]:
    return [
        pytest.param(endpoint, name, value, id=f"{endpoint.name}: {name}={str(value)[:40]}")
        for endpoint, name, values in table
        for value in values
    ]


def refusal(endpoint: Endpoint, body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        endpoint.check(body)
    return caught.value


@pytest.mark.parametrize(("endpoint", "name", "value"), cases(ACCEPTED))
def test_value_of_the_reference_is_accepted(endpoint: Endpoint, name: str, value: Any) -> None:
    endpoint.check({**SMALLEST[endpoint.name], name: value})


@pytest.mark.parametrize(("endpoint", "name", "value"), cases(REFUSED))
def test_other_value_is_refused_and_the_field_named(endpoint: Endpoint, name: str, value: Any) -> None:
    error = refusal(endpoint, {**SMALLEST[endpoint.name], name: value})
    assert (error.status, error.param, error.code) == (400, name, None)
    assert f"'{name}'" in error.message


def test_refusal_says_what_the_value_must_be_and_does_not_repeat_it() -> None:
    error = refusal(CHAT, {**SMALLEST["chat/completions"], "user": ["my secret prompt"]})
    assert error.message == "Invalid value for 'user': it must be a string."


@pytest.mark.parametrize(
    "content",
    [None, "", "x", [], [{"type": "text", "text": "x"}], ["x"], [{"type": "of tomorrow"}]],
    ids=lambda content: str(content)[:30],
)
def test_message_content_may_be_text_parts_or_nothing(content: Any) -> None:
    CHAT.check({"model": "m", "messages": [{"role": "assistant", "content": content}]})


def test_message_may_have_no_content_and_any_role() -> None:
    CHAT.check({"model": "m", "messages": [{"role": "developer"}, {"role": "of tomorrow", "x": 1}]})


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, EMBEDDINGS], ids=lambda endpoint: endpoint.name)
def test_required_field_that_is_missing_or_null_is_named(endpoint: Endpoint) -> None:
    smallest = SMALLEST[endpoint.name]
    for name in smallest:
        without = {other: value for other, value in smallest.items() if other != name}
        for body in (without, {**smallest, name: None}):
            error = refusal(endpoint, body)
            assert (error.param, error.message) == (name, f"Missing required parameter: '{name}'.")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, EMBEDDINGS], ids=lambda endpoint: endpoint.name)
def test_null_counts_as_absent_in_every_other_field(endpoint: Endpoint) -> None:
    smallest = SMALLEST[endpoint.name]
    endpoint.check({**dict.fromkeys(endpoint.fields), **smallest})


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, EMBEDDINGS], ids=lambda endpoint: endpoint.name)
def test_unknown_field_may_hold_anything(endpoint: Endpoint) -> None:
    for value in (*NO_STRING, "x", None, 10**40, [[{}]]):
        endpoint.check({**SMALLEST[endpoint.name], "x_unknown": value})


@pytest.mark.parametrize("value", ["yes", 1, [], {}])
def test_include_usage_is_true_or_false(value: Any) -> None:
    for endpoint in (CHAT, COMPLETIONS):
        error = refusal(endpoint, {**SMALLEST[endpoint.name], "stream_options": {"include_usage": value}})
        assert error.param == "stream_options.include_usage"


def test_embeddings_do_not_stream() -> None:
    assert [endpoint.name for endpoint in ENDPOINTS.values() if endpoint.streams] == ["chat/completions", "completions"]
    EMBEDDINGS.check({**SMALLEST["embeddings"], "stream": True, "stream_options": 5})
