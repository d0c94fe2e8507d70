"""Which strings of a request and of a reply are texts that rules read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import Unreadable
from policies.tests.tools import Asks, Phrases, answer, ask, exchange_of, moderation, nobody, rule, run
from policies.texts import MAX_DEPTH, build, has_tokens, reply_texts, request_texts, walk
from policies.types import Action

BASE64 = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=" * 4


def read_of(body: dict[str, Any]) -> list[str]:
    """What rules read of a request, in order."""
    return [text.value for text in request_texts(body)]


def said_in(reply: dict[str, Any]) -> list[str]:
    return [text.value for _, text in reply_texts(reply)]


def chat(message: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}, message], **fields}


def call(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}


# Where the word "secret" stands; everything else in them is harmless.
READ: dict[str, dict[str, Any]] = {
    "user": chat({"role": "user", "content": "my secret"}),
    "system": chat({"role": "system", "content": "my secret"}),
    "developer": chat({"role": "developer", "content": "my secret"}),
    "assistant": chat({"role": "assistant", "content": "my secret"}),
    "unknown role": chat({"role": "oracle", "content": "my secret"}),
    "part": chat({"role": "user", "content": [{"type": "text", "text": "my secret"}]}),
    "part that is a string": chat({"role": "user", "content": ["my secret"]}),
    "refusal part": chat({"role": "assistant", "content": [{"type": "refusal", "refusal": "my secret"}]}),
    "refusal": chat({"role": "assistant", "content": None, "refusal": "my secret"}),
    "reasoning": chat({"role": "assistant", "content": "Hi", "reasoning_content": "my secret"}),
    "name": chat({"role": "user", "content": "Hi", "name": "secret"}),
    "tool call": chat({"role": "assistant", "content": None, "tool_calls": [call('{"a": "my secret"}')]}),
    "escaped tool call": chat({"role": "assistant", "content": None, "tool_calls": [call('{"a": "s\\u0065cret"}')]}),
    "function call": chat({"role": "assistant", "content": None, "function_call": call('{"a": "secret"}')["function"]}),
    "custom tool call": chat(
        {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "sql", "input": "my secret"}}]}
    ),
    "tool result": chat({"role": "tool", "tool_call_id": "call_1", "content": "my secret"}),
    "tool result in parts": chat(
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "secret"}]}
    ),
    "function result": chat({"role": "function", "name": "look_up", "content": "my secret"}),
    "tool description": chat(
        {"role": "user", "content": "Hi"},
        tools=[{"type": "function", "function": {"name": "look_up", "description": "my secret"}}],
    ),
    "tool name": chat({"role": "user", "content": "Hi"}, tools=[{"type": "function", "function": {"name": "secret"}}]),
    "schema": chat(
        {"role": "user", "content": "Hi"},
        functions=[
            {"name": "f", "parameters": {"type": "object", "properties": {"a": {"description": "my secret"}}}},
        ],
    ),
    "enum of a schema": chat(
        {"role": "user", "content": "Hi"},
        tools=[
            {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"enum": ["secret"]}}}}}
        ],
    ),
    "response format": chat(
        {"role": "user", "content": "Hi"},
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"title": "my secret"}}},
    ),
    "prediction": chat({"role": "user", "content": "Hi"}, prediction={"type": "content", "content": "my secret"}),
    "metadata": chat({"role": "user", "content": "Hi"}, metadata={"id": "secret"}),
    "stop": chat({"role": "user", "content": "Hi"}, stop=["secret"]),
    "unknown field": chat({"role": "user", "content": "Hi"}, instructions_to_model="my secret"),
    "unknown object": chat({"role": "user", "content": "Hi"}, extra_body={"deep": [{"er": "my secret"}]}),
    "unknown field of a message": chat({"role": "user", "content": "Hi", "thoughts": {"a": "my secret"}}),
    "link": chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://secret.example"}}]}),
    "file name": chat({"role": "user", "content": [{"type": "file", "file": {"filename": "secret.txt"}}]}),
    "long id": chat({"role": "user", "content": "Hi", "id": "say secret " * 20}),
    "prompt": {"model": "m", "prompt": "my secret"},
    "prompts": {"model": "m", "prompt": ["Hello", "my secret"]},
    "suffix": {"model": "m", "prompt": "Hello", "suffix": "my secret"},
    "input": {"model": "m", "input": "my secret"},
    "inputs": {"model": "m", "input": ["Hello", "my secret"]},
    "input parts": {"model": "m", "input": [{"type": "text", "text": "my secret"}]},
}


@pytest.mark.parametrize("where", READ)
def test_request_is_read(where: str) -> None:
    secret = rule(Phrases("secret"))
    assert run(ask([secret], exchange_of(copy.deepcopy(READ[where])))).blocked


@pytest.mark.parametrize("where", READ)
def test_request_is_redacted_where_it_is_read(where: str) -> None:
    outcome = run(ask([rule(Phrases("secret"), Action.REDACT)], exchange_of(copy.deepcopy(READ[where]))))
    assert outcome.error is None
    assert "secret" not in str(outcome.body)
    assert "****" in str(outcome.body)


NOT_READ: dict[str, dict[str, Any]] = {
    "role": chat({"role": "secret", "content": "Hi"}),
    "type": chat({"role": "user", "content": [{"type": "secret", "text": "Hi"}]}),
    "tool call id": chat({"role": "tool", "tool_call_id": "secret", "content": "Hi"}),
    "model": {"model": "secret", "prompt": "Hi"},
    "user": {"model": "m", "prompt": "Hi", "user": "secret"},
    "audio": chat(
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "secret" + BASE64, "format": "wav"}}],
        }
    ),
    "file": chat({"role": "user", "content": [{"type": "file", "file": {"file_data": "secret" + BASE64}}]}),
    "image": chat(
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,secret" + BASE64}}],
        }
    ),
    "seal": chat({"role": "assistant", "content": "Hi", "reasoning": [{"signature": "secret" + BASE64}]}),
    "keys": chat({"role": "user", "content": "Hi"}, metadata={"secret": "x"}),
}


@pytest.mark.parametrize("where", NOT_READ)
def test_what_says_nothing_is_not_read(where: str) -> None:
    outcome = run(ask([rule(Phrases("secret"))], exchange_of(NOT_READ[where])))
    assert outcome.error is None
    assert not outcome.findings


def test_names_that_a_schema_gives_can_block_and_are_never_changed() -> None:
    """Models read the names of a tool's parameters; another name would be another tool."""

    def body() -> dict[str, Any]:
        parameters = {"type": "object", "properties": {"the secret": {"type": "string"}}, "required": []}
        return chat({"role": "user", "content": "Hi"}, tools=[{"function": {"name": "f", "parameters": parameters}}])

    assert run(ask([rule(Phrases("secret"))], exchange_of(body()))).blocked
    assert run(ask([rule(Phrases("secret"), "redact")], exchange_of(body()))).body == body()


def test_words_of_schemas_are_no_texts() -> None:
    body = chat(
        {"role": "user", "content": "Hi"}, tools=[{"type": "function", "function": {"parameters": {"type": "object"}}}]
    )
    assert run(ask([rule(Phrases("function", "parameters", "object"))], exchange_of(body))).error is None


def test_texts_are_read_in_the_order_of_the_request() -> None:
    body = chat(
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}, stop="x"
    )
    assert read_of(body) == ["Hello", "one", "two", "x"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "prompt": '{"secret": 1}'},
        chat({"role": "user", "content": '{"secret": 1}'}),
        chat({"role": "user", "content": "Hi", "arguments": '{"secret": 1}'}),
    ],
)
def test_only_arguments_of_functions_are_read_as_json(body: dict[str, Any]) -> None:
    """Of other texts that look like it the keys are text too."""
    redacted = run(ask([rule(Phrases("secret"), "redact")], exchange_of(copy.deepcopy(body)))).body
    assert str(redacted) == str(body).replace("secret", "****")


def test_numbers_and_switches_are_no_texts() -> None:
    assert read_of({"model": "m", "prompt": "Hi", "max_tokens": 5, "logprobs": True, "seed": None}) == ["Hi"]


# --- replies ---


REPLIED: dict[str, dict[str, Any]] = {
    "content": {"message": {"role": "assistant", "content": "my secret"}},
    "content parts": {"message": {"content": [{"type": "text", "text": "my secret"}]}},
    "reasoning_content": {"message": {"content": None, "reasoning_content": "my secret"}},
    "reasoning": {"message": {"content": None, "reasoning": "my secret"}},
    "reasoning details": {"message": {"reasoning_details": [{"type": "reasoning.text", "text": "my secret"}]}},
    "refusal": {"message": {"content": None, "refusal": "my secret"}},
    "transcript": {"message": {"content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "my secret"}}},
    "tool call": {"message": {"content": None, "tool_calls": [call('{"a": "my secret"}')]}},
    "escaped tool call": {"message": {"content": None, "tool_calls": [call('{"a": "s\\u0065cret"}')]}},
    "function call": {"message": {"content": None, "function_call": {"name": "f", "arguments": '["secret"]'}}},
    "name of a tool": {"message": {"tool_calls": [{"function": {"name": "secret", "arguments": "{}"}}]}},
    "citation": {"message": {"annotations": [{"type": "url_citation", "url_citation": {"title": "my secret"}}]}},
    "text": {"text": "my secret"},
    "unknown field": {"message": {"content": "Hi", "musings": {"deep": ["my secret"]}}},
    "unknown field of a choice": {"message": {"content": "Hi"}, "musings": "my secret"},
}


@pytest.mark.parametrize("where", REPLIED)
def test_reply_is_read_and_redacted(where: str) -> None:
    def reply() -> dict[str, Any]:
        return {"id": "1", "choices": [{"index": 0, "finish_reason": "stop", **copy.deepcopy(REPLIED[where])}]}

    assert run(answer([rule(Phrases("secret"))], reply())).blocked
    redacted = run(answer([rule(Phrases("secret"), "redact")], reply()))
    assert "secret" not in str(redacted.reply) and "****" in str(redacted.reply)


def test_facts_beside_the_choices_are_read_too() -> None:
    reply = {"choices": [], "citations": ["https://secret.example"]}
    assert run(answer([rule(Phrases("secret"), "redact")], reply)).reply["citations"] == ["https://****.example"]


REPLY_NOT_READ: dict[str, dict[str, Any]] = {
    "ids": {"id": "secret", "model": "secret", "object": "secret", "system_fingerprint": "secret", "choices": []},
    "usage": {"usage": {"note": "secret"}, "choices": []},
    "embeddings": {"data": [{"object": "embedding", "embedding": "secret"}]},
    "finish reason": {"choices": [{"finish_reason": "secret", "message": {"role": "secret"}}]},
    "probabilities": {"choices": [{"logprobs": {"content": [{"token": "secret"}]}}]},
    "verdicts of Azure": {"choices": [{"content_filter_results": {"hate": {"severity": "secret"}}}]},
    "sound": {"choices": [{"message": {"audio": {"id": "a", "data": "secret"}}}]},
    "seal": {"choices": [{"message": {"tool_calls": [{"extra": {"thought_signature": "secret" + BASE64}}]}}]},
}


@pytest.mark.parametrize("where", REPLY_NOT_READ)
def test_facts_of_a_reply_are_not_read(where: str) -> None:
    assert said_in(REPLY_NOT_READ[where]) == []


@pytest.mark.parametrize("choices", [None, 5, {}, [None, 1, "x", []], [{"message": None}, {"delta": 5}]])
def test_reply_of_another_shape_is_no_error(choices: Any) -> None:
    assert said_in({"choices": choices}) == []


def test_delta_and_message_name_a_text_the_same() -> None:
    """So that a streamed text is the one of the whole reply."""
    said = {"content": "a", "tool_calls": [{"index": 3, "function": {"arguments": "{}"}}]}
    paths = [[text.path for _, text in reply_texts({"choices": [{kind: said}]})] for kind in ("message", "delta")]
    assert paths[0] == paths[1] == [("content",), ("tool_calls", 3, "function", "arguments")]


def test_delta_can_be_built_again_from_a_texts_path() -> None:
    said = {"content": "a", "tool_calls": [{"index": 3, "function": {"arguments": "{}"}}], "parts": ["x"]}
    for text in walk(said, ()):
        assert [(again.path, again.value) for again in walk(build(text.path, text.value), ())] == [
            (text.path, text.value)
        ]


# --- what cannot be read ---

TOKENS = [[1, 2], [[1, 2], [3]], [1.5], [None], ["Hi", 5]]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("field", ["prompt", "input"])
def test_token_numbers_are_refused_when_a_rule_has_to_read(tokens: list[Any], field: str) -> None:
    body = {"model": "m", field: tokens}
    assert has_tokens(body)
    outcome = run(ask([rule(Phrases("secret"), "redact")], exchange_of(body)))
    assert outcome.blocked and outcome.error is not None
    assert "text itself" in outcome.error.message


@pytest.mark.parametrize("fields", [{"action": "audit"}, {"dry_run": True}])
def test_token_numbers_pass_when_no_rule_acts(fields: dict[str, Any]) -> None:
    outcome = run(ask([rule(Phrases("secret"), **fields)], exchange_of({"model": "m", "prompt": [1, 2]})))
    assert outcome.error is None


async def test_token_numbers_are_refused_when_they_would_have_to_be_moderated() -> None:
    moderate = moderation()
    outcome = await ask([rule(Asks())], exchange_of({"model": "m", "input": [1, 2]}), moderate)
    assert outcome.blocked
    assert moderate.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", ["Hi", ["Hi", "you"], [{"type": "text"}], None, []])
def test_texts_are_no_token_numbers(value: Any) -> None:
    assert not has_tokens({"prompt": value, "input": value, "max_tokens": [1]})


def nested(depth: int, *, text: str = "secret") -> Any:
    value: Any = text
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def test_deep_texts_are_read() -> None:
    body = chat({"role": "user", "content": "Hi"}, deep=nested(MAX_DEPTH - 2))
    assert run(ask([rule(Phrases("secret"))], exchange_of(body))).blocked


@pytest.mark.parametrize("depth", [MAX_DEPTH + 5, 900])
def test_json_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    body = chat({"role": "user", "content": "Hi"}, deep=nested(depth))
    outcome = run(ask([rule(Phrases("secret"), "redact")], exchange_of(body), nobody))
    assert isinstance(outcome.error, Unreadable)
    assert "nested" in outcome.error.message


def test_without_rules_that_read_nesting_is_nobodys_business() -> None:
    body = chat({"role": "user", "content": "Hi"}, deep=nested(900))
    assert run(ask([], exchange_of(body))).error is None


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "system", "x" * 70, "my own"]),
                "content": st.sampled_from(["Hi", "", None, ["Hi"]]),
            },
            optional={"name": st.just("alice")},
        ),
        max_size=4,
    )
)
def test_plain_messages_are_read_as_all_others_are(messages: list[dict[str, Any]]) -> None:
    assert list(request_texts({"messages": messages})) == list(walk(messages, ("messages",)))
