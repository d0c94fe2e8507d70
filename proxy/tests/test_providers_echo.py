from __future__ import annotations

import base64
import math
import struct
from typing import Any

import orjson
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from policies.types import Exchange
from proxy.providers.base import UnsupportedRequest
from proxy.tests.recorded import chat, chunks_of, exchange_of, target_of, translate
from usage.pricing import TokenUsage

ECHO = target_of("echo")


def answer(exchange: Exchange) -> dict[str, Any]:
    assert ECHO.adapter.answer is not None
    body = ECHO.adapter.answer(exchange)
    assert isinstance(body, bytes)
    return orjson.loads(body)


def events(exchange: Exchange) -> list[bytes]:
    assert ECHO.adapter.answer is not None
    given = ECHO.adapter.answer(exchange)
    assert not isinstance(given, bytes)
    return list(given)


def said(**body: Any) -> dict[str, Any]:
    """The only choice of a chat."""
    completion = answer(chat(**body))
    ChatCompletion.model_validate(completion, strict=True)
    return completion["choices"][0]


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


# --- chat -----------------------------------------------------------------------------------------------------------


def test_the_last_message_is_repeated() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *user("Hello  there,\nworld ")]

    assert said(messages=messages) == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello  there,\nworld ", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_model_of_the_answer_is_the_public_one() -> None:
    assert answer(chat())["model"] == "public-model"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}], "What is this?"),
        ([{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "data:,"}}], "See [image]"),
        ([{"type": "input_audio", "input_audio": {}}, {"type": "file", "file": {}}], "[audio] [file]"),
        (["plain"], "plain"),
        (None, ""),
        ("", ""),
        ("half \ud83d", "half \ud83d"),
    ],
)
def test_parts_are_joined_and_named(content: Any, expected: str) -> None:
    if "\ud83d" in expected:
        assert ECHO.adapter.answer is not None
        assert b"half \\ud83d" in b"".join([ECHO.adapter.answer(chat(messages=user(content)))])  # type: ignore[list-item]
    else:
        assert said(messages=user(content))["message"]["content"] == expected


def test_words_are_tokens() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *user("one two  three")]

    assert answer(chat(messages=messages))["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
    }


def test_usage_is_read_from_the_answer_like_any_other() -> None:
    body = orjson.dumps(answer(chat()))

    assert ECHO.adapter.reply(chat(), body).usage == TokenUsage(prompt=1, completion=1)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("limit", "text", "finish_reason", "tokens"), [(2, "one two", "length", 2), (3, "one two three ", "stop", 3)]
)
def test_answer_ends_at_the_limit(field: str, limit: int, text: str, finish_reason: str, tokens: int) -> None:
    exchange = chat(messages=user("one two three "), **{field: limit})

    choice = answer(exchange)["choices"][0]

    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish_reason)
    assert answer(exchange)["usage"]["completion_tokens"] == tokens


def test_n_choices_are_given_and_counted() -> None:
    completion = answer(chat(messages=user("one two"), n=3))

    assert [choice["index"] for choice in completion["choices"]] == [0, 1, 2]
    assert completion["usage"]["completion_tokens"] == 6


def test_tools_are_answered_with_text() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]

    assert said(tools=tools, tool_choice="required")["finish_reason"] == "stop"


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["Hello", "Hello  there,\n world ", " lead", "", "  ", "😀 日本語 ok"])
@pytest.mark.parametrize("limit", [None, 2])
def test_stream_says_the_same_as_the_whole_answer(content: str, limit: int | None) -> None:
    body = {"messages": user(content), "max_tokens": limit, "n": 2}

    whole = answer(chat(**body))
    chunks = chunks_of(b"".join(events(chat(**body, stream=True))))

    texts, reasons = {0: "", 1: ""}, {}
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
            if choice["finish_reason"]:
                reasons[choice["index"]] = choice["finish_reason"]
    assert list(texts.values()) == [choice["message"]["content"] for choice in whole["choices"]]
    assert list(reasons.values()) == [choice["finish_reason"] for choice in whole["choices"]]
    assert chunks[-1]["usage"] == whole["usage"]


def test_stream_comes_word_by_word() -> None:
    chunks = chunks_of(b"".join(events(chat(stream=True, messages=user("one two three")))))

    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "one"},
        {"content": " two"},
        {"content": " three"},
        {},
    ]
    assert len({chunk["id"] for chunk in chunks}) == 1


@pytest.mark.parametrize("asked", [True, False])
def test_stream_ends_as_openais_does_whether_asked_for_usage_or_not(asked: bool) -> None:
    stream = events(chat(stream=True, stream_options={"include_usage": asked}))

    assert chunks_of(stream[-2])[0]["choices"] == []
    assert stream[-1] == b"data: [DONE]\n\n"


# --- completions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens"),
    [
        ("one two", ["one two"], 2),
        (["one", "two three"], ["one", "two three"], 3),
        ([11, 12], ["11 12"], 2),
        ([[11, 12], [13]], ["11 12", "13"], 3),
    ],
)
def test_legacy_completions_repeat_each_prompt(prompt: Any, texts: list[str], tokens: int) -> None:
    exchange = exchange_of("completions", {"prompt": prompt})

    completion = answer(exchange)
    Completion.model_validate(completion, strict=True)

    assert [choice["text"] for choice in completion["choices"]] == texts
    assert completion["usage"] == {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens}


def test_legacy_completions_stream() -> None:
    chunks = chunks_of(b"".join(events(exchange_of("completions", {"prompt": "one two", "stream": True}))))

    assert [choice["text"] for chunk in chunks for choice in chunk["choices"]] == ["one", " two", ""]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


# --- embeddings -----------------------------------------------------------------------------------------------------


def vectors(**body: Any) -> list[Any]:
    response = answer(exchange_of("embeddings", body))
    if body.get("encoding_format") != "base64":
        CreateEmbeddingResponse.model_validate(response, strict=True)
    return [item["embedding"] for item in response["data"]]


def test_vector_is_a_function_of_the_text_and_of_length_one() -> None:
    first, second, same = vectors(input=["one", "two", "one"])

    assert first == same != second
    assert len(first) == 16
    assert math.isclose(math.hypot(*first), 1)


@pytest.mark.parametrize("dimensions", [1, 7, 4096])
def test_dimensions_are_as_asked_for(dimensions: int) -> None:
    assert [len(vector) for vector in vectors(input="one", dimensions=dimensions)] == [dimensions]


def test_base64_holds_the_same_numbers() -> None:
    [encoded] = vectors(input="one", encoding_format="base64")

    assert list(struct.unpack("<16f", base64.b64decode(encoded))) == pytest.approx(vectors(input="one")[0])


@pytest.mark.parametrize(("given", "count"), [("a b", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
def test_each_input_has_a_vector(given: Any, count: int) -> None:
    assert len(vectors(input=given)) == count


def test_words_of_all_inputs_are_counted_and_a_stream_is_not_known() -> None:
    exchange = exchange_of("embeddings", {"input": ["a b", "c"], "stream": True})

    assert answer(exchange)["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


# --- requests -------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_anywhere() -> None:
    for request in (translate(chat(), ECHO), ECHO.adapter.probe(ECHO)):
        assert (request.url, request.headers, request.body) == ("echo:", {}, b"")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "dimensions": 4097}, "dimensions"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": ["a"] * 65, "dimensions": 4096}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_embeddings_without_measure_are_refused(body: dict[str, Any], param: str) -> None:
    for attempt in (lambda: translate(exchange_of("embeddings", body), ECHO), lambda: vectors(**body)):
        with pytest.raises(UnsupportedRequest) as refusal:
            attempt()
        assert refusal.value.param == param


@pytest.mark.parametrize("stream", [True, False])
def test_echoes_without_measure_are_refused_before_they_begin(stream: bool) -> None:
    exchange = chat(messages=user("x" * 40_000), n=128, stream=stream)

    assert ECHO.adapter.answer is not None
    for attempt in (lambda: translate(exchange, ECHO), lambda: ECHO.adapter.answer(exchange)):  # type: ignore[misc]
        with pytest.raises(UnsupportedRequest):
            attempt()


def test_errors_have_openais_shape() -> None:
    assert ECHO.adapter.error(500, b"")["type"] == "server_error"
