"""The real `openai` npm package as the client, driven through openai_client.js."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway_project.tests.cast import UPSTREAM_KEY
from gateway_project.tests.clients import PROMPT, REQUEST_ID, new_request_id
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import Node
from gateway_project.tests.upstream import Upstream

CHAT = "chat.completions.create"
ANSWER = "w0 w1 w2 w3 w4 "
DIALECTS = ("gpt-test", "azure-test", "claude-test")
PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
WEATHER_ARGUMENTS = {"place": "Zürich", "days": 7}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


class Npm:
    """Asks the running driver to do something. Each call is a new client with the key of one of the cast."""

    def __init__(self, driver: subprocess.Popen[str], gateway: GatewayProcess) -> None:
        self._driver = driver
        self._gateway = gateway

    def __call__(self, act: str, resource: str, *arguments: Any, **options: Any) -> Any:
        outcome = self._do(act, resource, *arguments, **options)
        assert "error" not in outcome, outcome["error"]
        return outcome["value"]

    def error(self, act: str, resource: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        """The error that the package threw: its class, status, code, type, param, request_id, message, headers."""
        outcome = self._do(act, resource, *arguments, **options)
        assert "error" in outcome, outcome["value"]
        error: dict[str, Any] = outcome["error"]
        return error

    def _do(
        self,
        act: str,
        resource: str,
        *arguments: Any,
        key: str = "alice",
        client: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        settings = {"baseURL": f"{self._gateway.url}/v1", "apiKey": self._gateway.keys.get(key, key), **(client or {})}
        wish = {"act": act, "resource": resource, "arguments": arguments, "client": settings, **more}
        assert self._driver.stdin
        assert self._driver.stdout
        self._driver.stdin.write(json.dumps(wish) + "\n")
        answer = self._driver.stdout.readline()
        assert answer, "the driver died: see its stderr above"
        outcome: dict[str, Any] = json.loads(answer)
        return outcome


@pytest.fixture(scope="module")
def driver(node: Node) -> Iterator[subprocess.Popen[str]]:
    with node.start(Path(__file__).with_name("openai_client.js")) as process:
        yield process
        assert process.stdin
        process.stdin.close()
        process.wait(10)


@pytest.fixture
def npm(driver: subprocess.Popen[str], gateway: GatewayProcess) -> Npm:
    return Npm(driver, gateway)


def body(model: str = "gpt-test", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": PROMPT, **fields}


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


# --- chat ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", DIALECTS)
def test_chat(npm: Npm, model: str) -> None:
    completion = npm("call", CHAT, body(model))
    assert completion["choices"][0]["message"]["content"] == ANSWER
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["total_tokens"] == 8
    assert REQUEST_ID.fullmatch(completion["request_id"])


def test_body_reaches_the_provider_as_it_was_written(npm: Npm, upstream: Upstream) -> None:
    parts = [
        {"type": "text", "text": "Was ist das? 👩‍👩‍👧 \u2028"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    sent = body(
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}],
        temperature=0.7,
        seed=4711,
        stop=["\n"],
        x_unknown={"kept": [None, 1.5]},
    )
    npm("call", CHAT, sent)
    assert upstream.last.json == sent


def test_n_answers_and_logprobs_come_back(npm: Npm) -> None:
    choices = npm("call", CHAT, body(n=2, logprobs=True))["choices"]
    assert [choice["message"]["content"] for choice in choices] == [ANSWER, ANSWER]
    assert [item["token"] for item in choices[1]["logprobs"]["content"]] == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]


def test_answer_in_a_json_schema_is_parsed(npm: Npm, upstream: Upstream) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": PARAMETERS}}
    completion = npm("call", "chat.completions.parse", body(response_format=wanted))
    assert json.loads(completion["choices"][0]["message"]["content"]) == WEATHER_ARGUMENTS
    assert upstream.last.json["response_format"] == wanted


# --- chat, streamed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", DIALECTS)
def test_stream(npm: Npm, model: str) -> None:
    chunks = npm("stream", CHAT, body(model, stream=True))["chunks"]
    assert text_of(chunks) == ANSWER
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in chunks)


@pytest.mark.parametrize("model", DIALECTS)
def test_stream_with_include_usage_ends_with_the_usage(npm: Npm, model: str) -> None:
    sent = body(model, stream=True, stream_options={"include_usage": True})
    *chunks, last = npm("stream", CHAT, sent)["chunks"]
    assert text_of(chunks) == ANSWER
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 8


def test_stream_helper_puts_the_answer_together(npm: Npm) -> None:
    gathered = npm("gather", "chat.completions.stream", body())
    assert "".join(gathered["pieces"]) == ANSWER
    assert gathered["completion"]["choices"][0]["message"]["content"] == ANSWER


def test_stream_of_split_letters_is_put_together(npm: Npm, upstream: Upstream) -> None:
    upstream.next("byte-by-byte")
    upstream.next("utf8")
    split, plain = (text_of(npm("stream", CHAT, body(stream=True))["chunks"]) for _ in range(2))
    assert split == plain
    assert "🇨🇭" in plain


def test_stream_cut_by_the_client_is_closed_upstream_and_billed(
    npm: Npm, gateway: GatewayProcess, upstream: Upstream
) -> None:
    request_id = new_request_id()
    headers = {"headers": {"x-request-id": request_id}}
    chunks = npm("stream", CHAT, body("endless-stream", stream=True), headers, leave=5)["chunks"]
    assert len(chunks) == 5
    assert upstream.wait_for_end(upstream.last, timeout_s=2).client_left
    event = gateway.event_of(request_id)
    assert (event["status"], event["error_code"], event["estimated"]) == (499, "client_disconnected", True)
    assert event["completion_tokens"] > 0


def test_error_in_mid_stream_is_thrown_after_what_came_before(npm: Npm, upstream: Upstream) -> None:
    upstream.next("error-midway", delay_ms=20)
    outcome = npm("stream", CHAT, body(stream=True))
    assert text_of(outcome["chunks"]) == "w0 w1 w2 "
    assert (outcome["error"]["class"], outcome["error"]["code"]) == ("APIError", "overloaded")


@pytest.mark.parametrize(
    ("behaviour", "code"), [("reset-midway", "upstream_unavailable"), ("hang-midway", "upstream_timeout")]
)
def test_stream_that_breaks_off_does_not_look_complete(npm: Npm, upstream: Upstream, behaviour: str, code: str) -> None:
    upstream.next(behaviour, delay_ms=20)
    assert npm("stream", CHAT, body(stream=True))["error"]["code"] == code


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", DIALECTS)
def test_tool_is_run_and_its_result_answered(npm: Npm, upstream: Upstream, model: str, stream: bool) -> None:
    ran = npm("runTools", CHAT, body(model, tools=[WEATHER], stream=stream))
    assert ran == {"seen": [WEATHER_ARGUMENTS], "content": ANSWER}
    assert upstream.received == 2
    assert "sunny" in upstream.last.body.decode()


# --- the other endpoints ---------------------------------------------------------------------------------------------


def test_completion(npm: Npm) -> None:
    asked = {"model": "gpt-test", "prompt": "one two three"}
    assert npm("call", "completions.create", asked)["choices"][0]["text"] == ANSWER
    chunks = npm("stream", "completions.create", {**asked, "stream": True})["chunks"]
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == ANSWER


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}], ids=["default", "float"])
def test_embeddings(npm: Npm, encoding: dict[str, str]) -> None:
    answer = npm("call", "embeddings.create", {"model": "embedding-test", "input": ["one", "two three"], **encoding})
    assert [row["embedding"] for row in answer["data"]] == [[0.25, -0.5, 0.125]] * 2


def test_models_are_exactly_those_that_the_key_may_call(npm: Npm) -> None:
    assert [model["id"] for model in npm("list", "models.list", key="charlie")] == ["echo", "gpt-alias", "gpt-test"]


def test_model(npm: Npm) -> None:
    assert npm("call", "models.retrieve", "patient/ok")["id"] == "patient/ok"
    assert npm.error("call", "models.retrieve", "embedding-test", key="charlie")["class"] == "NotFoundError"


# --- headers ---------------------------------------------------------------------------------------------------------


def test_headers_of_an_answer(npm: Npm) -> None:
    raw = npm("raw", CHAT, body())
    expected = {
        "x-gatehouse-provider": "upstream",
        "x-gatehouse-model": "gpt-test",
        "x-gatehouse-cost-usd": "0.000013000",
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-tokens": "29900",
    }
    assert {name: raw["headers"][name] for name in expected} == expected
    assert raw["status"] == 200


def test_default_headers_get_into_the_books_and_not_to_the_provider(
    npm: Npm, gateway: GatewayProcess, upstream: Upstream
) -> None:
    request_id = new_request_id()
    headers = {"x-request-id": request_id, "x-gatehouse-tags": "project=apollo", "x-secret-of-the-client": "s3cret"}
    npm("call", CHAT, body(), client={"defaultHeaders": headers, "organization": "org-1"})
    event = gateway.event_of(request_id)
    assert (event["tags"], event["organization"]) == ({"project": "apollo"}, "org-1")
    assert event["user_agent"].startswith("OpenAI/JS")
    names = {name.lower() for name, _ in upstream.last.headers}
    allowed = {"host", "authorization", "content-type", "content-length", "user-agent", "accept", "accept-encoding"}
    assert names <= allowed
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "fields", "error", "status", "code", "param"),
    [
        ("nonsense", {}, "AuthenticationError", 401, "invalid_api_key", None),
        ("expired", {}, "AuthenticationError", 401, "invalid_api_key", None),
        ("embedder", {}, "PermissionDeniedError", 403, "endpoint_not_allowed", None),
        ("alice", {"model": "no-such-model"}, "NotFoundError", 404, "model_not_found", "model"),
        ("charlie", {"model": "embedding-test"}, "NotFoundError", 404, "model_not_found", "model"),
        ("alice", {"temperature": "hot"}, "BadRequestError", 400, None, "temperature"),
        ("alice", {"messages": []}, "BadRequestError", 400, None, "messages"),
    ],
)
def test_gateways_refusal_throws_the_class_that_belongs_to_it(
    npm: Npm,
    upstream: Upstream,
    key: str,
    fields: dict[str, Any],
    error: str,
    status: int,
    code: str | None,
    param: str | None,
) -> None:
    thrown = npm.error("call", CHAT, body(**fields), key=key)
    assert (thrown["class"], thrown["status"]) == (error, status)
    assert (thrown["type"], thrown["code"], thrown["param"]) == ("invalid_request_error", code, param)
    assert REQUEST_ID.fullmatch(thrown["request_id"])
    assert upstream.received == 0


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, "BadRequestError"),
        (404, "NotFoundError"),
        (409, "ConflictError"),
        (422, "UnprocessableEntityError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_providers_refusal_throws_the_class_that_belongs_to_it(
    npm: Npm, upstream: Upstream, status: int, error: str, stream: bool
) -> None:
    upstream.next("error", status=status)
    thrown = npm.error("call", CHAT, body(stream=stream))
    assert (thrown["class"], thrown["status"]) == (error, status)


@pytest.mark.parametrize(
    ("model", "status", "code"), [("nowhere", 502, "upstream_unavailable"), ("hang", 504, "upstream_timeout")]
)
def test_provider_that_fails_is_an_internal_server_error(npm: Npm, model: str, status: int, code: str) -> None:
    thrown = npm.error("call", CHAT, body(model))
    assert (thrown["class"], thrown["status"], thrown["code"]) == ("InternalServerError", status, code)


def test_clients_own_timeout_is_a_timeout_error(npm: Npm, upstream: Upstream) -> None:
    upstream.next("slow-first-byte", delay_ms=700)
    assert npm.error("call", CHAT, body(), client={"timeout": 300})["class"] == "APIConnectionTimeoutError"


def test_aborted_stream_is_closed_upstream(npm: Npm, upstream: Upstream) -> None:
    error = npm.error("abort", CHAT, body("patient/hang", stream=True), after_ms=200)
    assert error["class"] == "APIUserAbortError"
    assert upstream.wait_for_end(upstream.last, timeout_s=2).client_left


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("failure", "times"), [("429", 2), ("500", 1), ("garbage", 1)])
def test_client_retries_and_gets_its_answer(npm: Npm, upstream: Upstream, failure: str, times: int) -> None:
    upstream.next(failure, retry_after="0.02", times=times)
    completion = npm("call", CHAT, body(), client={"maxRetries": times})
    assert completion["choices"][0]["message"]["content"] == ANSWER
    assert upstream.received == times + 1


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_max_retries_is_honoured(npm: Npm, upstream: Upstream, max_retries: int) -> None:
    upstream.next("429", retry_after="0.02", times=10)
    thrown = npm.error("call", CHAT, body(), client={"maxRetries": max_retries})
    assert thrown["class"] == "RateLimitError"
    assert thrown["headers"]["retry-after"] == "0.02"
    assert upstream.received == max_retries + 1


def test_client_does_not_retry_what_would_fail_again(npm: Npm, upstream: Upstream) -> None:
    upstream.next("400", times=10)
    npm.error("call", CHAT, body(), client={"maxRetries": 3})
    assert upstream.received == 1
