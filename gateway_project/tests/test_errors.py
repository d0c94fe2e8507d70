"""The outside contract, row by row: who may call what, under which URL, and what a caller is told otherwise.

What providers do wrong is in test_misbehaving_upstream.py, what clients do wrong on the wire in
test_misbehaving_client.py, what happens while the database is away in test_durability.py.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from accounts.keys import make_key, make_public_id, public_id
from gateway_project.tests import cast
from gateway_project.tests.clients import (
    PROMPT,
    REQUEST_ID,
    RawClient,
    answer_text,
    body,
    call,
    check_error,
    credentials,
)
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import wait_until
from gateway_project.tests.upstream import Upstream

ORIGIN = "https://app.example"
MEGABYTE = 1024 * 1024
MAX_BODY_BYTES = 10 * MEGABYTE  # the contract's default
INVALID = "invalid_request_error"
KEY_PLACES = ("authorization", "x-api-key", "api-key", "x-usagepanda-api-key")


@pytest.fixture(scope="module")
def bare(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    """A gateway without any provider, that browsers may call from ORIGIN, and that waits half a second for a body."""
    key = {"name": "alice", "team": "research", "secret": cast.KEYS["alice"]}
    configuration = {"teams": [{"name": "research"}], "keys": [key]}
    with make_gateway("sqlite", configuration, CORS_ALLOWED_ORIGINS=ORIGIN, BODY_TIMEOUT_S="0.5") as gateway:
        yield gateway


def in_place(place: str, key: str) -> dict[str, str]:
    return {place: f"Bearer {key}" if place == "authorization" else key}


def post(gateway: GatewayProcess, content: bytes, *, path: str = "/v1/chat/completions", **headers: str) -> Any:
    """Any bytes, as alice, called JSON unless `headers` (with _ for -) say otherwise."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.http.post(
        path, content=content, headers={"content-type": "application/json"} | credentials(gateway, "alice", given)
    )


def raw_answer(gateway: GatewayProcess, lines: list[str], content: bytes = b"") -> httpx.Response:
    """What comes back for a head of exactly these lines (latin-1), with `connection: close` added."""
    head = "\r\n".join([*lines, "host: 127.0.0.1", "connection: close", "", ""]).encode("latin-1")
    with RawClient(gateway) as client:
        client.send(head + content)
        return parsed(client.read_all())


def parsed(received: bytes) -> httpx.Response:
    head, _, content = received.partition(b"\r\n\r\n")
    status, *fields = head.split(b"\r\n")
    headers = [(name, value.strip()) for name, _, value in (field.partition(b":") for field in fields)]
    return httpx.Response(int(status.split(b" ")[1]), headers=headers, content=content)


# --- 400: what is asked ----------------------------------------------------------------------------------------------

NOT_JSON = {
    "nothing": b"",
    "half an object": b'{"model": "gpt-test", "messages": [',
    "quotes of another language": b"{'model': 'gpt-test'}",
    "a comma too many": b'{"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}],}',
    "something behind it": b'{"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}]} {}',
    "NaN": b'{"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "temperature": NaN}',
    "a leading zero": b'{"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "seed": 01}',
    "a control character in a text": b'{"model": "gpt-test", "messages": [{"role": "user", "content": "a\x01b"}]}',
    "UTF-16": '{"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}]}'.encode("utf-16"),
    "no UTF-8": b'{"model": "gpt-test", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "nested too deeply": b'{"model": "gpt-test", "messages": ' + b"[" * 100_000,
    "nested too deeply and closed": b'{"model": "gpt-test", "metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of a million digits": b'{"model": "gpt-test", "messages": [{"role": "user"}], "x": '
    + b"7" * 10**6
    + b"}",
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_body_that_is_not_json_is_refused(gateway: GatewayProcess, upstream: Upstream, content: bytes) -> None:
    check_error(post(gateway, content), 400, INVALID, None)
    assert upstream.received == 0


@pytest.mark.parametrize("content", [b"null", b"[]", b'"gpt-test"', b"7", b"true"])
def test_body_that_is_no_object_is_refused(gateway: GatewayProcess, content: bytes) -> None:
    check_error(post(gateway, content), 400, INVALID, None)


WRONG_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    # endpoint, fields (... leaves one out), the field that is named
    ("chat/completions", {"model": ..., "messages": PROMPT}, "model"),
    ("chat/completions", {"model": None, "messages": PROMPT}, "model"),
    ("chat/completions", {"model": 7, "messages": PROMPT}, "model"),
    ("chat/completions", {"model": "", "messages": PROMPT}, "model"),
    ("chat/completions", {"model": ["gpt-test"], "messages": PROMPT}, "model"),
    ("chat/completions", {"messages": ...}, "messages"),
    ("chat/completions", {"messages": None}, "messages"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": {}}, "messages"),
    ("chat/completions", {"messages": "hi"}, "messages"),
    ("chat/completions", {"messages": ["hi"]}, "messages"),
    ("chat/completions", {"messages": [{}]}, "messages"),
    ("chat/completions", {"messages": [{"role": 7, "content": "hi"}]}, "messages"),
    ("chat/completions", {"messages": [{"role": "user", "content": 7}]}, "messages"),
    ("chat/completions", {"messages": [{"role": "user", "content": [7]}]}, "messages"),
    ("chat/completions", {"stream": "true"}, "stream"),
    ("chat/completions", {"stream": 1}, "stream"),
    ("chat/completions", {"stream": True, "stream_options": True}, "stream_options"),
    (
        "chat/completions",
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        "stream_options.include_usage",
    ),
    ("chat/completions", {"max_tokens": "5"}, "max_tokens"),
    ("chat/completions", {"max_tokens": -1}, "max_tokens"),
    ("chat/completions", {"max_tokens": 2**63}, "max_tokens"),
    ("chat/completions", {"max_tokens": 1.5}, "max_tokens"),
    ("chat/completions", {"max_completion_tokens": [5]}, "max_completion_tokens"),
    ("chat/completions", {"n": 0}, "n"),
    ("chat/completions", {"n": True}, "n"),
    ("chat/completions", {"n": 1_000_000}, "n"),
    ("chat/completions", {"temperature": "warm"}, "temperature"),
    ("chat/completions", {"top_p": {}}, "top_p"),
    ("chat/completions", {"seed": 2**70}, "seed"),
    ("chat/completions", {"stop": 5}, "stop"),
    ("chat/completions", {"user": 7}, "user"),
    ("chat/completions", {"tools": {}}, "tools"),
    ("chat/completions", {"tools": ["search"]}, "tools"),
    ("chat/completions", {"response_format": "json"}, "response_format"),
    ("chat/completions", {"logit_bias": []}, "logit_bias"),
    ("chat/completions", {"metadata": "x"}, "metadata"),
    ("completions", {}, "prompt"),
    ("completions", {"prompt": 7}, "prompt"),
    ("completions", {"prompt": {}}, "prompt"),
    ("completions", {"prompt": ["a", 7]}, "prompt"),
    ("completions", {"prompt": "hi", "best_of": "x"}, "best_of"),
    ("embeddings", {}, "input"),
    ("embeddings", {"input": 7}, "input"),
    ("embeddings", {"input": [{}]}, "input"),
    ("embeddings", {"input": "hi", "dimensions": "many"}, "dimensions"),
]


@pytest.mark.parametrize(("endpoint", "fields", "param"), WRONG_FIELDS, ids=lambda value: str(value)[:60])
def test_missing_or_wrong_field_is_named(
    gateway: GatewayProcess, upstream: Upstream, endpoint: str, fields: dict[str, Any], param: str
) -> None:
    given = {"model": "gpt-test", **({"messages": PROMPT} if endpoint == "chat/completions" else {}), **fields}
    content = json.dumps({name: value for name, value in given.items() if value is not ...}).encode()
    check_error(post(gateway, content, path=f"/v1/{endpoint}"), 400, INVALID, None, param=param)
    assert upstream.received == 0


def test_null_counts_as_absent(gateway: GatewayProcess) -> None:
    answer_text(call(gateway, stream=None, max_tokens=None, temperature=None, tools=None, user=None, stop=None))


def test_number_that_json_cannot_hold_reaches_no_provider_as_something_else(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    response = post(
        gateway, b'{"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "temperature": 1e999}'
    )
    check_error(response, 400, INVALID, None)
    assert upstream.received == 0


# --- 401: who calls --------------------------------------------------------------------------------------------------


def bad_keys() -> dict[str, str]:
    """Values of `authorization`, by what is wrong with them."""
    alice = cast.KEYS["alice"]
    return {
        "empty": "",
        "scheme only": "Bearer",
        "no scheme": alice,
        "scheme in lower case": f"bearer {alice}",
        "another scheme": f"Basic {base64.b64encode(f'{alice}:'.encode()).decode()}",
        "two blanks": f"Bearer  {alice}",
        "something behind it": f"Bearer {alice},",
        "twice in one header": f"Bearer {alice}, Bearer {alice}",
        "a list": f'Bearer ["{alice}"]',
        "SQL": "Bearer ' OR '1'='1",
        "SQL behind a key": f"Bearer {alice}'--",
        "a wildcard": "Bearer sk-gh-%",
        "prefix only": "Bearer sk-gh-",
        "cut off": f"Bearer {alice[:-1]}",
        "a typing mistake": f"Bearer {alice[:-9]}{'A' if alice[-9] != 'A' else 'B'}{alice[-8:]}",
        "other case": f"Bearer {alice.swapcase()}",
        "letters of another language": f"Bearer {alice}\xfc",
        "unknown": f"Bearer {make_key(make_public_id())}",
        "another secret": f"Bearer {make_key(public_id(alice))}",
        "expired": f"Bearer {cast.KEYS['expired']}",
        "disabled": f"Bearer {cast.KEYS['disabled']}",
        "of a disabled team": f"Bearer {cast.KEYS['closed']}",
        "the provider's": f"Bearer {cast.UPSTREAM_KEY}",
        "long": f"Bearer {'x' * 8_000}",
    }


@pytest.mark.parametrize("what", bad_keys())
def test_every_bad_key_is_answered_alike(gateway: GatewayProcess, upstream: Upstream, what: str) -> None:
    expected = call(gateway, key=None)
    check_error(expected, 401, INVALID, "invalid_api_key")
    content = orjson.dumps(body())
    response = raw_answer(
        gateway,
        [
            "POST /v1/chat/completions HTTP/1.1",
            f"authorization: {bad_keys()[what]}",
            "content-type: application/json",
            f"content-length: {len(content)}",
        ],
        content,
    )
    check_error(response, 401, INVALID, "invalid_api_key")
    assert response.content == expected.content
    assert upstream.received == 0


@pytest.mark.parametrize("place", KEY_PLACES[1:])
@pytest.mark.parametrize("what", ["unknown", "expired", "disabled", "SQL"])
def test_bad_key_is_no_better_in_another_header(gateway: GatewayProcess, place: str, what: str) -> None:
    value = bad_keys()[what].removeprefix("Bearer ")
    response = call(gateway, key=None, headers={place: value})
    check_error(response, 401, INVALID, "invalid_api_key")
    assert response.content == call(gateway, key=None).content


def test_two_authorization_headers_are_no_identity(gateway: GatewayProcess) -> None:
    headers = [("authorization", f"Bearer {cast.KEYS[name]}") for name in ("alice", "charlie")]
    response = gateway.http.post("/v1/chat/completions", json=body(), headers=headers)
    check_error(response, 401, INVALID, "invalid_api_key")


def test_key_in_url_or_cookie_is_not_taken(gateway: GatewayProcess) -> None:
    key = cast.KEYS["alice"]
    for name in ("key", "api_key", "api-key"):
        response = gateway.http.post(f"/v1/chat/completions?{name}={key}", json=body())
        check_error(response, 401, INVALID, "invalid_api_key")
    response = gateway.http.post("/v1/chat/completions", json=body(), headers={"cookie": f"api_key={key}"})
    check_error(response, 401, INVALID, "invalid_api_key")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_every_endpoint_wants_a_key(gateway: GatewayProcess, path: str) -> None:
    check_error(gateway.http.post(path, json={}), 401, INVALID, "invalid_api_key")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gpt-test", "/v1/models/nobody-knows-it"])
def test_models_want_a_key(gateway: GatewayProcess, path: str) -> None:
    check_error(gateway.http.get(path), 401, INVALID, "invalid_api_key")


def test_wrong_key_is_not_repeated_to_anybody(gateway: GatewayProcess) -> None:
    wrong = "sk-proj-canary0123456789canary"
    response = call(gateway, key=wrong)
    assert "canary" not in response.text
    gateway.event_of(response.headers["x-request-id"])
    assert "canary0123456789" not in gateway.log


def test_key_is_taken_from_each_place(gateway: GatewayProcess, upstream: Upstream) -> None:
    responses = [call(gateway, key=None, headers=in_place(place, cast.KEYS["alice"])) for place in KEY_PLACES]
    for response, asked in zip(responses, upstream.calls, strict=True):
        answer_text(response)
        assert gateway.event_of(response.headers["x-request-id"])["key_label"].startswith("alice")
        assert cast.KEYS["alice"] not in str(asked.headers)


@pytest.mark.parametrize("place", KEY_PLACES)
def test_key_is_limited_in_each_place(gateway: GatewayProcess, upstream: Upstream, place: str) -> None:
    def ask(name: str, model: str) -> httpx.Response:
        return call(gateway, model, key=None, headers=in_place(place, cast.KEYS[name]))

    check_error(ask("embedder", "gpt-test"), 403, INVALID, "endpoint_not_allowed")
    check_error(ask("narrow", "ok"), 404, INVALID, "model_not_found", param="model")
    check_error(ask("charlie", "ok"), 404, INVALID, "model_not_found", param="model")
    assert upstream.received == 0


def test_old_clients_own_provider_key_beside_ours_is_used_where_the_provider_allows_it(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    own = {"authorization": "Bearer sk-callers-own", "x-usagepanda-api-key": cast.KEYS["alice"]}
    answer_text(call(gateway, "own-key-test", key=None, headers=own))
    assert upstream.last.header("authorization") == "Bearer sk-callers-own"
    answer_text(call(gateway, "own-key-test", headers={"x-gatehouse-provider-key": "sk-callers-own-2"}))
    assert upstream.last.header("authorization") == "Bearer sk-callers-own-2"
    answer_text(call(gateway, "own-key-test"))
    assert upstream.last.header("authorization") == f"Bearer {cast.UPSTREAM_KEY}"


def test_own_provider_key_is_refused_where_the_provider_does_not_allow_it(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    response = call(gateway, headers={"x-gatehouse-provider-key": "sk-callers-own"})
    check_error(response, 400, INVALID, None)
    assert upstream.received == 0


# --- 403 and 404: what the key may do --------------------------------------------------------------------------------


def test_key_may_call_its_own_endpoints_only(gateway: GatewayProcess) -> None:
    assert call(gateway, "embedding-test", endpoint="embeddings", key="embedder", input="hi").status_code == 200
    for endpoint in ("chat/completions", "completions"):
        response = call(gateway, endpoint=endpoint, key="embedder", prompt="hi")
        check_error(response, 403, INVALID, "endpoint_not_allowed")


def test_model_that_is_unknown_disabled_or_forbidden_looks_the_same(gateway: GatewayProcess) -> None:
    unknown = call(gateway, "nobody-knows-it")
    check_error(unknown, 404, INVALID, "model_not_found", param="model")
    assert call(gateway, "disabled-test").content == unknown.content
    assert call(gateway, "ok", key="narrow").content == unknown.content
    assert call(gateway, "ok", key="charlie").content == unknown.content
    assert call(gateway, "GPT-TEST").content == unknown.content


def listed(gateway: GatewayProcess, key: str) -> dict[str, dict[str, Any]]:
    response = gateway.http.get("/v1/models", headers=credentials(gateway, key))
    assert response.status_code == 200
    assert response.json()["object"] == "list"
    return {card["id"]: card for card in response.json()["data"]}


def test_models_are_exactly_what_the_key_may_call(
    gateway: GatewayProcess, gateway_configuration: dict[str, Any]
) -> None:
    enabled = {model["name"] for model in gateway_configuration["models"] if model.get("enabled", True)}
    assert set(listed(gateway, "alice")) >= {*enabled, "gpt-alias"}
    assert "disabled-test" not in listed(gateway, "alice")
    assert set(listed(gateway, "charlie")) == {"gpt-test", "gpt-alias", "echo"}
    assert set(listed(gateway, "narrow")) == {"gpt-test", "gpt-alias"}
    for name in listed(gateway, "charlie"):
        answer_text(call(gateway, name, key="charlie"))


@pytest.mark.parametrize("name", ["gpt-test", "gpt-alias", "echo", "fallback/500", "fallback%2F500"])
def test_model_is_shown_by_its_name(gateway: GatewayProcess, name: str) -> None:
    response = gateway.http.get(f"/v1/models/{name}", headers=credentials(gateway, "alice"))
    assert response.status_code == 200
    card = response.json()
    assert card == listed(gateway, "alice")[name.replace("%2F", "/")]
    assert (card["object"], type(card["created"]), type(card["owned_by"])) == ("model", int, str)


@pytest.mark.parametrize(("key", "name"), [("alice", "nobody-knows-it"), ("alice", "disabled-test"), ("charlie", "ok")])
def test_model_that_the_key_may_not_call_is_not_shown(gateway: GatewayProcess, key: str, name: str) -> None:
    response = gateway.http.get(f"/v1/models/{name}", headers=credentials(gateway, key))
    check_error(response, 404, INVALID, "model_not_found", param="model")


def test_answer_says_who_answered(gateway: GatewayProcess) -> None:
    response = call(gateway, "gpt-alias")
    assert response.headers["x-gatehouse-provider"] == "upstream"
    assert response.headers["x-gatehouse-model"] == "gpt-test"
    assert float(response.headers["x-gatehouse-cost-usd"]) == pytest.approx((3 * 1 + 5 * 2) / 1e6)
    streamed = call(gateway, stream=True)
    assert streamed.headers["x-gatehouse-provider"] == "upstream"
    assert "x-gatehouse-cost-usd" not in streamed.headers


# --- 404 and 405: where ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "//v1//chat///completions",
        "/v1/chat/completions/",
        "/chat/completions//",
        "/V1/Chat/Completions",
        "/v1/chat/completions?api-version=2024-10-21",
    ],
)
def test_one_endpoint_has_many_spellings(gateway: GatewayProcess, path: str) -> None:
    content = orjson.dumps(body())
    head = [f"POST {path} HTTP/1.1", f"authorization: Bearer {cast.KEYS['alice']}", "content-type: application/json"]
    answer_text(raw_answer(gateway, [*head, f"content-length: {len(content)}"], content))


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/", "/V1/MODELS", "/v1/models/gpt-test/"])
def test_models_have_many_spellings(gateway: GatewayProcess, path: str) -> None:
    assert gateway.http.get(path, headers=credentials(gateway, "alice")).status_code == 200


def test_endpoints_are_known_without_v1(gateway: GatewayProcess) -> None:
    given = credentials(gateway, "alice")
    assert (
        gateway.http.post("/completions", json={"model": "gpt-test", "prompt": "a"}, headers=given).status_code == 200
    )
    embedding = {"model": "embedding-test", "input": "a"}
    assert gateway.http.post("/embeddings", json=embedding, headers=given).status_code == 200


UNKNOWN_PATHS = (
    "/v1",
    "/v1/",
    "/v1/nothing",
    "/v1/chat",
    "/v1/chat/completions/more",
    "/v1/chat/completions;x=1",
    "/v1/chat/./completions",
    "/v1/chat/completions%00",
    "/v1/../admin/",
    "/v1/%2e%2e/admin/",
    "/v1/v1/models",
    "/v1/<script>alert(1)</script>",
)


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_url_is_a_json_404(gateway: GatewayProcess, method: str, path: str) -> None:
    line = f"{method} {path} HTTP/1.1"
    response = raw_answer(gateway, [line, f"authorization: Bearer {cast.KEYS['alice']}", "content-length: 0"])
    check_error(response, 404, INVALID, "unknown_url")


WRONG_METHODS = [
    *((method, "/v1/chat/completions") for method in ("GET", "PUT", "PATCH", "DELETE", "TRACE")),
    *((method, "/chat/completions") for method in ("GET", "DELETE")),
    *((method, "/v1/models") for method in ("POST", "PUT", "DELETE")),
    ("DELETE", "/v1/models/gpt-test"),
]


@pytest.mark.parametrize(("method", "path"), WRONG_METHODS)
def test_wrong_method_is_told_the_right_one(
    gateway: GatewayProcess, upstream: Upstream, method: str, path: str
) -> None:
    response = gateway.http.request(method, path, headers=credentials(gateway, "alice"))
    check_error(response, 405, INVALID, "method_not_allowed")
    assert ("GET" if "models" in path else "POST") in response.headers["allow"]
    assert upstream.received == 0


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_upgrade_is_not_taken_up(gateway: GatewayProcess, upstream: Upstream, protocol: str) -> None:
    lines = ["GET /v1/chat/completions HTTP/1.1", f"upgrade: {protocol}", "connection: upgrade"]
    lines += ["sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"]
    response = raw_answer(gateway, [*lines, f"authorization: Bearer {cast.KEYS['alice']}"])
    assert response.status_code in (400, 405)
    check_error(response, response.status_code, INVALID, response.json()["error"]["code"])
    assert upstream.received == 0


# --- 408, 413, 414, 415, 431: how it is sent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"]
)
def test_only_json_is_taken(gateway: GatewayProcess, upstream: Upstream, content_type: str) -> None:
    response = post(gateway, orjson.dumps(body()), content_type=content_type)
    check_error(response, 415, INVALID, "unsupported_media_type")
    assert upstream.received == 0


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_called_so_too(gateway: GatewayProcess, content_type: str) -> None:
    answer_text(post(gateway, orjson.dumps(body()), content_type=content_type))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_compressed_body_is_refused_unread(gateway: GatewayProcess, encoding: str) -> None:
    response = post(gateway, gzip.compress(orjson.dumps(body())), content_encoding=encoding)
    check_error(response, 415, INVALID, "unsupported_media_type")


def test_large_body_is_refused_and_the_client_gets_to_read_why(gateway: GatewayProcess, upstream: Upstream) -> None:
    content = b" " * (11 * MEGABYTE)
    check_error(post(gateway, content), 413, INVALID, "request_too_large")
    answer_text(call(gateway))
    assert upstream.received == 1


def test_large_body_in_chunks_is_refused_too(gateway: GatewayProcess) -> None:
    chunks = (b" " * MEGABYTE for _ in range(11))
    headers = {"content-type": "application/json", **credentials(gateway, "alice")}
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=10) as http:
        response = http.post("/v1/chat/completions", content=chunks, headers=headers)
    check_error(response, 413, INVALID, "request_too_large")


@pytest.mark.parametrize("length", [MAX_BODY_BYTES + 1, 2**30, 10**30])
def test_length_beyond_the_limit_is_refused_before_the_body_is_read(gateway: GatewayProcess, length: int) -> None:
    started = time.monotonic()
    with RawClient(gateway) as client:
        client.send(client.head(length))
        client.read_until(b"}}")
        # The status of 10**30 is the parser's affair: it is no length that a computer has.
        assert client.status in ((413,) if length < 2**63 else (400, 413))
    assert time.monotonic() - started < 1


def test_body_of_the_largest_size_is_taken(gateway: GatewayProcess, upstream: Upstream) -> None:
    content = orjson.dumps(body())
    answer_text(post(gateway, content + b" " * (MAX_BODY_BYTES - len(content))))
    check_error(post(gateway, content + b" " * (MAX_BODY_BYTES - len(content) + 1)), 413, INVALID, "request_too_large")
    assert upstream.received == 1


def test_body_that_does_not_come_is_a_408(bare: GatewayProcess) -> None:
    with RawClient(bare) as client:
        client.send(client.head(100) + b'{"model":')
        started = time.monotonic()
        client.read_until(b"}}")
        assert 0.4 < time.monotonic() - started < 1.2  # the time for a body is half a second here
        check_error(parsed(client.received), 408, INVALID, "request_timeout")


HUGE_HEADS = {
    "one header of 64 KiB": (["x-padding: " + "x" * 65_536], 431),
    "1,000 headers": ([f"x-padding-{number}: x" for number in range(1000)], 431),
    "a URL of 16 KiB": ([], 414),
}


@pytest.mark.parametrize("what", HUGE_HEADS)
def test_huge_head_is_refused(gateway: GatewayProcess, what: str) -> None:
    lines, status = HUGE_HEADS[what]
    query = "" if lines else "?" + "x" * 16_384
    key = f"authorization: Bearer {cast.KEYS['alice']}"
    response = raw_answer(gateway, [f"GET /v1/models{query} HTTP/1.1", key, *lines])
    code = "request_header_too_large" if status == 431 else None
    check_error(response, status, INVALID, code)


# --- 502, 503, 504: who answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_provider_that_refuses_connections_is_unavailable(gateway: GatewayProcess, streamed: bool) -> None:
    response = call(gateway, "nowhere", stream=streamed)
    check_error(response, 502, "server_error", "upstream_unavailable")
    event = gateway.event_of(response.headers["x-request-id"])
    assert (event["status"], event["error_code"], event["provider"]) == (502, "upstream_unavailable", "nowhere")
    assert (event["prompt_tokens"], event["completion_tokens"], event["cost_nano_usd"]) == (0, 0, 0)


def test_provider_that_cannot_be_reached_is_late(gateway: GatewayProcess) -> None:
    started = time.monotonic()
    check_error(call(gateway, "unreachable"), 504, "server_error", "upstream_timeout")
    assert 0.4 < time.monotonic() - started < 1.5  # its connect timeout is half a second


def test_without_any_provider_the_caller_is_told_so(bare: GatewayProcess) -> None:
    check_error(call(bare, "echo"), 503, "server_error", "no_provider")
    response = bare.http.get("/v1/models", headers=credentials(bare, "alice"))
    check_error(response, 503, "server_error", "no_provider")
    check_error(call(bare, "echo", key=None), 401, INVALID, "invalid_api_key")


# --- x-request-id ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "req_1.2:3/4+5=6@7-8", "0af7651916cd43dd8448eb211c80319c", "x" * 128])
def test_well_formed_request_id_is_taken(gateway: GatewayProcess, given: str) -> None:
    headers = credentials(gateway, "alice", {"x-request-id": given})
    assert gateway.http.get("/v1/models", headers=headers).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "<script>", "a\tb", "ü", '"quoted"', "a,b"])
def test_other_request_id_is_replaced(gateway: GatewayProcess, given: str) -> None:
    lines = ["GET /v1/models HTTP/1.1", f"authorization: Bearer {cast.KEYS['alice']}", f"x-request-id: {given}"]
    made = raw_answer(gateway, lines).headers["x-request-id"]
    assert made != given
    assert REQUEST_ID.fullmatch(made)


def test_every_call_has_a_request_id_of_its_own(gateway: GatewayProcess) -> None:
    headers = in_place("authorization", cast.KEYS["alice"])
    made = {gateway.http.get("/v1/models", headers=headers).headers["x-request-id"] for _ in range(20)}
    assert len(made) == 20


def test_call_is_logged_in_one_line_that_tells_everything_but_what_was_said(gateway: GatewayProcess) -> None:
    asked = [{"role": "user", "content": "canary-in-the-prompt"}]
    response = call(gateway, "repeat", messages=asked)
    request_id = response.headers["x-request-id"]
    assert "canary-in-the-prompt" in answer_text(response)
    gateway.event_of(request_id)
    wait_until(lambda: bool(gateway.log_lines(request_id)), 2, "the call is in the log")
    (line,) = gateway.log_lines(request_id)
    assert (line["endpoint"], line["model"], line["status"], line["error_code"]) == (
        "chat/completions",
        "repeat",
        200,
        "",
    )
    assert {"latency_us", "prompt_tokens", "completion_tokens", "cost_nano_usd", "streamed", "provider"} <= set(line)
    for secret in ("canary-in-the-prompt", cast.KEYS["alice"], cast.UPSTREAM_KEY):
        assert secret not in gateway.log


# --- one event for each call, whatever became of it ------------------------------------------------------------------

REFUSALS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no key": ({"key": None}, 401, "invalid_api_key"),
    "unknown key": ({"key": make_key(make_public_id())}, 401, "invalid_api_key"),
    "endpoint": ({"key": "embedder"}, 403, "endpoint_not_allowed"),
    "model": ({"model": "nobody-knows-it"}, 404, "model_not_found"),
    "field": ({"messages": 7}, 400, "invalid_request_error"),
}


def test_refused_call_has_an_event_too(gateway: GatewayProcess) -> None:
    ids = {what: call(gateway, **asked).headers["x-request-id"] for what, (asked, _, _) in REFUSALS.items()}
    for what, (_, status, code) in REFUSALS.items():
        event = gateway.event_of(ids[what])
        assert (event["status"], event["error_code"], event["endpoint"]) == (status, code, "chat/completions"), what
        assert (event["prompt_tokens"], event["completion_tokens"], event["cost_nano_usd"]) == (0, 0, 0)
        assert (event["attempts"], event["estimated"]) == (0, False)
        assert bool(event["key_label"]) == (status != 401)


def test_event_tells_what_came_with_the_call(gateway: GatewayProcess) -> None:
    headers = {
        "user-agent": "spec/1.0",
        "openai-organization": "org-spec",
        "x-gatehouse-trace-id": "trace-spec",
        "x-gatehouse-tags": "project=apollo, stage=test",
        "x-forwarded-for": "203.0.113.7",
        "x-real-ip": "203.0.113.8",
        "forwarded": "for=203.0.113.9",
    }
    response = call(gateway, "gpt-alias", user="end-user-1", headers=headers)
    event = gateway.event_of(response.headers["x-request-id"])
    assert event["end_user"] == "end-user-1"
    assert (event["user_agent"], event["organization"], event["trace_id"]) == ("spec/1.0", "org-spec", "trace-spec")
    assert event["tags"] == {"project": "apollo", "stage": "test"}
    assert event["client_ip"] == "127.0.0.1"  # nobody is a trusted proxy here
    assert (event["model"], event["provider"], event["upstream_model"]) == ("gpt-test", "upstream", "gpt-test")


def test_call_without_a_price_is_unpriced_and_not_free(gateway: GatewayProcess) -> None:
    response = call(gateway, "unpriced-test")
    assert answer_text(response)
    assert "x-gatehouse-cost-usd" not in response.headers
    assert gateway.event_of(response.headers["x-request-id"])["cost_nano_usd"] is None


# --- browsers --------------------------------------------------------------------------------------------------------


def preflight(gateway: GatewayProcess, origin: str) -> httpx.Response:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return gateway.http.options("/v1/chat/completions", headers={"origin": origin, **asked})


def test_preflight_of_a_known_origin_is_answered_without_a_key(bare: GatewayProcess) -> None:
    response = preflight(bare, ORIGIN)
    assert response.status_code in (200, 204)
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = set(re.split(r"\s*,\s*", response.headers["access-control-allow-headers"].lower()))
    assert {"authorization", "content-type"} <= allowed
    assert "origin" in response.headers["vary"].lower()
    assert REQUEST_ID.fullmatch(response.headers["x-request-id"])


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example.evil.example", "http://app.example"]
)
def test_other_origin_is_not_let_in(bare: GatewayProcess, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(bare, origin).headers
    response = call(bare, "echo", headers={"origin": origin})
    assert "access-control-allow-origin" not in response.headers


def test_browser_gets_to_read_errors_too(bare: GatewayProcess) -> None:
    for response in (
        call(bare, "echo", headers={"origin": ORIGIN}),
        call(bare, key=None, headers={"origin": ORIGIN}),
        bare.http.get("/v1/nothing", headers={"origin": ORIGIN}),
    ):
        assert response.status_code in (401, 404, 503)
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in response.headers["access-control-expose-headers"].lower()
        assert "access-control-allow-credentials" not in response.headers


def test_nobody_is_let_in_unless_it_is_set(gateway: GatewayProcess) -> None:
    assert "access-control-allow-origin" not in preflight(gateway, ORIGIN).headers
    assert "access-control-allow-origin" not in call(gateway, headers={"origin": ORIGIN}).headers
