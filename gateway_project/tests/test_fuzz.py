"""Nonsense of every kind against every endpoint: never a 500, always the contract's answer, nothing broken upstream.

The examples are the same in each run. `Wire` speaks HTTP byte for byte, because no proper client would send this.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_project.tests.cast import UPSTREAM_KEY
from gateway_project.tests.clients import REQUEST_ID
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.json_cases import I_VALUES, N_BODIES, N_VALUES, Y_VALUES
from gateway_project.tests.upstream import Upstream

MAX_BODY_BYTES = 1024 * 1024
REFUSALS = {400, 401, 403, 404, 405, 408, 413, 414, 415, 431}
SENT_UPSTREAM = {"host", "authorization", "content-type", "content-length", "user-agent", "accept", "accept-encoding"}

Header = tuple[bytes, bytes]


def fuzzed(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# --- the wire --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A kept connection to the gateway, opened again whenever the gateway has closed it."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._socket: socket.socket | None = None

    def post(self, path: str, body: bytes, *headers: Header, key: str | None = "alice") -> Answer:
        """With a key and a JSON content type, unless `headers` has them."""
        names = {name for name, _ in headers}
        usual: list[Header] = []
        if key and b"authorization" not in names:
            usual.append((b"authorization", f"Bearer {self._gateway.keys[key]}".encode()))
        if b"content-type" not in names:
            usual.append((b"content-type", b"application/json"))
        return self.ask(b"POST", path.encode("ascii"), [*usual, *headers], body)

    def ask(self, method: bytes, target: bytes, headers: Iterable[Header], body: bytes = b"") -> Answer:
        length = [(b"content-length", str(len(body)).encode())] if body or method == b"POST" else []
        lines = [b"%s: %s\r\n" % header for header in [(b"host", b"127.0.0.1"), *length, *headers]]
        answer = self.raw(b"%s %s HTTP/1.1\r\n%s\r\n%s" % (method, target, b"".join(lines), body), method.decode())
        assert answer is not None, "closed without an answer"
        return answer

    def raw(self, data: bytes, method: str = "POST", *, is_all: bool = False) -> Answer | None:
        """Whatever comes back; None: the gateway closed without a word. `is_all`: nothing more is ever sent."""
        for is_last_try in (self._socket is None, True):
            try:
                return self._raw(data, method, is_all)
            except (HTTPException, ConnectionError):
                self.close()
                # A kept connection may have been closed meanwhile.
                if is_last_try:
                    return None
        return None

    def _raw(self, data: bytes, method: str, is_all: bool) -> Answer:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._gateway.port), timeout=10)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(data)
        if is_all:
            self._socket.shutdown(socket.SHUT_WR)
        with HTTPResponse(self._socket, method=method) as response:
            response.begin()
            answer = Answer(response.status, dict(response.getheaders()), response.read())
            if response.will_close or is_all:
                self.close()
        return answer

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@pytest.fixture(scope="module")
def fuzzed_gateway(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    """With everything switched on that reads a header."""
    options = {"CORS_ALLOWED_ORIGINS": "*", "TRUSTED_PROXIES": "127.0.0.1", "MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    with make_gateway("sqlite", **options) as gateway:
        yield gateway


@pytest.fixture
def wire(fuzzed_gateway: GatewayProcess, upstream: Upstream) -> Iterator[Wire]:
    """Whatever the test sent, the gateway must not have complained of itself."""
    pid, log_before = fuzzed_gateway.pid, len(fuzzed_gateway.log)
    wire = Wire(fuzzed_gateway)
    yield wire
    wire.close()
    assert fuzzed_gateway.is_running
    assert fuzzed_gateway.pid == pid
    said = fuzzed_gateway.log[log_before:]
    assert not re.search(r'"level":\s*"(error|critical)"|Traceback', said), said[-4000:]


def check(answer: Answer) -> Answer:
    """A proper answer, or the contract's error; with x-request-id either way."""
    assert REQUEST_ID.fullmatch(answer.headers.get("x-request-id", "")), answer
    if answer.status == 200:
        check_good(answer)
    else:
        assert answer.status in REFUSALS, answer
        check_refusal(answer)
    return answer


def check_good(answer: Answer) -> None:
    if answer.headers["content-type"] == "application/json":
        assert isinstance(json.loads(answer.body), dict)
        return
    assert answer.headers["content-type"].startswith("text/event-stream"), answer
    *events, end = answer.body.split(b"\n\n")
    assert end == b""
    assert events.pop() == b"data: [DONE]", answer
    for event in events:
        assert isinstance(json.loads(event.removeprefix(b"data: ")), dict)


def check_refusal(answer: Answer) -> None:
    assert answer.headers["content-type"] == "application/json", answer
    body = json.loads(answer.body)
    assert list(body) == ["error"]
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["param"], str | None)
    assert isinstance(error["code"], str | None)


def check_sent(upstream: Upstream) -> None:
    """What the provider got is what a careful client would have sent."""
    assert upstream.failures == []
    for call in upstream.calls:
        body = json.loads(call.body.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse)
        assert isinstance(body, dict)
        assert isinstance(body["model"], str)
        assert any(body.get(name) for name in ("messages", "prompt", "input")) or "" in body.values()
        assert {name.lower() for name, _ in call.headers} <= SENT_UPSTREAM | {
            "x-api-key",
            "api-key",
            "anthropic-version",
        }
        secrets = [call.header(name) for name in ("authorization", "x-api-key", "api-key")]
        assert {secret.removeprefix("Bearer ") for secret in secrets if secret} == {UPSTREAM_KEY}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


# --- JSON that is strange but JSON -----------------------------------------------------------------------------------


class Pairs(list[tuple[str, Any]]):
    """An object whose keys may come twice."""


class Literal(str):
    """JSON as it stands, such as a number that no Python value is written as."""


def encoded(value: Any) -> bytes:
    """JSON text. Lone surrogates are escaped, so that it is UTF-8."""
    if isinstance(value, Literal):
        return value.encode()
    if isinstance(value, Pairs | dict):
        pairs = value.items() if isinstance(value, dict) else value
        return b"{%s}" % b",".join(b"%s:%s" % (encoded(name), encoded(item)) for name, item in pairs)
    if isinstance(value, list):
        return b"[%s]" % b",".join(map(encoded, value))
    return json.dumps(value).encode()


NAUGHTY = [
    "", " ", "\x00", "\n", "\x7f", "\u200b", "\u2028", "\ufeff", "\ufffe", "\ud800", "\udfff\ud800", "x\udc00y",
    "null", "true", "NaN", "-1", "1e400", "0x10", "undefined", "__proto__", "constructor", "[object Object]",
    "' OR 1=1 --", '"; DROP TABLE usage_usageevent; --', "<script>alert(1)</script>", "{{7*7}}", "${jndi:ldap://x}",
    "%s%n", "../../etc/passwd", "\\", '\\"', '"usage":{"prompt_tokens":9}', "data: [DONE]\n\n",
    "\r\nx-injected: 1\r\n", "[DONE]", "Ω≈ç√∫", "田中さん", "👩‍👩‍👧‍👦", "🏳0🌈️", "ﷺ", "مرحبا", "z̷̡͇̳a̸̟͗l̸g̵o̵",
    "\u202eevil\u202c", "İıẞß", "a" * 5000, "é" * 300,
]  # fmt: skip
NUMBERS = [
    "0", "-0", "-0.0", "1e0", "1E+2", "1e-400", "1e308", "1e309", "-1e400", "0.1e1", "2147483647", "2147483648",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616",
    "1" + "0" * 100, "1" + "0" * 5000, "0." + "3" * 500, "129", "128",
]  # fmt: skip

strings = st.sampled_from(NAUGHTY) | st.text(max_size=20)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(NUMBERS).map(Literal)
    | strings
)


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.lists(st.tuples(strings, children), max_size=4).map(Pairs)
    return st.lists(children, max_size=4) | pairs


anything = st.recursive(leaves, containers, max_leaves=8)


# --- every field, confused -------------------------------------------------------------------------------------------

MODELS = ("echo", "gpt-test", "azure-test", "claude-test")
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
PARTS = [
    {"type": "text", "text": "what is this"},
    {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlh", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    {"type": "refusal", "refusal": "no"},
]
FULL: dict[str, dict[str, Any]] = {
    "chat/completions": {
        "model": "echo",
        "messages": [
            {"role": "system", "content": "be brief", "name": "admin"},
            {"role": "user", "content": PARTS},
            {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL], "refusal": None, "audio": {"id": "a1"}},
            {"role": "tool", "tool_call_id": "c1", "content": "42"},
            {"role": "user", "content": "one two three"},
        ],
        "audio": {"voice": "alloy", "format": "wav"},
        "frequency_penalty": 0.5,
        "function_call": "auto",
        "functions": [{"name": "g", "parameters": {"type": "object"}}],
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "max_completion_tokens": 16,
        "max_tokens": 16,
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": "x"},
        "presence_penalty": 0.5,
        "prompt_cache_key": "k",
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "safety_identifier": "x",
        "seed": 1,
        "service_tier": "auto",
        "stop": ["x"],
        "store": False,
        "stream": False,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "temperature": 1,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "tools": [TOOL],
        "top_logprobs": 2,
        "top_p": 1,
        "user": "carol",
        "verbosity": "low",
        "web_search_options": {},
    },
    "completions": {
        "model": "echo",
        "prompt": ["one two", "three"],
        "best_of": 1,
        "echo": False,
        "frequency_penalty": 0,
        "logit_bias": {},
        "logprobs": 1,
        "max_tokens": 16,
        "n": 1,
        "presence_penalty": 0,
        "seed": 1,
        "stop": "x",
        "stream": False,
        "stream_options": {"include_usage": False},
        "suffix": "!",
        "temperature": 0,
        "top_p": 1,
        "user": "carol",
    },
    "embeddings": {
        "model": "echo",
        "input": [[1, 2], [3]],
        "dimensions": 3,
        "encoding_format": "float",
        "user": "carol",
        "stream": False,
    },
}
MESSAGES = [{"role": "user", "content": "one two three"}, *FULL["chat/completions"]["messages"]]
ENDPOINTS = tuple(FULL)
REQUIRED = {
    "chat/completions": ("model", "messages"),
    "completions": ("model", "prompt"),
    "embeddings": ("model", "input"),
}

Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in a JSON value, however deep."""
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, item in items:
        yield (*path, step)
        yield from places(item, (*path, step))


def put(value: Any, path: Path, new: Any) -> Any:
    """A copy of `value` with `new` at the path; where the path leads nowhere any more, as it was."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and step in value:
        return {**value, step: put(value[str(step)], rest, new)}
    if type(value) is list and isinstance(step, int) and step < len(value):
        return [put(item, rest, new) if at == step else item for at, item in enumerate(value)]
    return value


@st.composite
def confused(draw: st.DrawFn, endpoint: str) -> dict[str, Any]:
    """A body with some of the endpoint's fields, some messages, and anything in the place of up to three values.

    Most of the places are deep inside, where it is the provider (or its adapter) that has to make sense of them.
    """
    full = FULL[endpoint]
    required = REQUIRED[endpoint]
    kept = draw(st.sets(st.sampled_from(sorted(set(full) - set(required))), max_size=5))
    body: Any = {name: full[name] for name in (*required, *sorted(kept))} | {"model": draw(st.sampled_from(MODELS))}
    if "messages" in body:
        body["messages"] = draw(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=4))
    if endpoint != "embeddings":
        body["stream"] = draw(st.booleans())
    if draw(st.booleans()):
        body["x_unknown"] = draw(anything)
    everywhere = list(places(body))
    deep = [path for path in everywhere if len(path) > 1]
    for _ in range(draw(st.integers(0, 3))):
        among = deep if deep and draw(st.integers(0, 9)) else everywhere
        body = put(body, draw(st.sampled_from(among)), draw(anything))
    return body


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_confused_fields(wire: Wire, upstream: Upstream, endpoint: str) -> None:
    @fuzzed(400 if endpoint == "chat/completions" else 100)
    @given(body=confused(endpoint))
    def run(body: dict[str, Any]) -> None:
        upstream.reset()
        check(wire.post(f"/v1/{endpoint}", encoded(body)))
        check_sent(upstream)

    run()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_field_of_each_wrong_type(wire: Wire, upstream: Upstream, endpoint: str) -> None:
    """Whatever is in a field of the reference: a 400 names that field, or the provider gets to judge it."""
    full = FULL[endpoint]
    wrong: list[Any] = [None, True, 0, -1, 1.5, 2**70, "", "x", [], [None], [[]], {}, {"x": None}]
    for name in full:
        for value in wrong:
            answer = check(wire.post(f"/v1/{endpoint}", encoded({**full, name: value})))
            if answer.status == 400:
                param = json.loads(answer.body)["error"]["param"]
                assert param is None or param.partition(".")[0] in (name, "stream_options"), (name, value, answer)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_any_json_at_all(wire: Wire, upstream: Upstream, endpoint: str) -> None:
    @fuzzed(80)
    @given(value=anything)
    def run(value: Any) -> None:
        answer = check(wire.post(f"/v1/{endpoint}", encoded(value)))
        assert answer.status == 400
        assert upstream.received == 0

    run()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_any_bytes_at_all(wire: Wire, upstream: Upstream, endpoint: str) -> None:
    @fuzzed(80)
    @given(body=st.binary(max_size=200))
    def run(body: bytes) -> None:
        answer = check(wire.post(f"/v1/{endpoint}", body))
        assert answer.status == 400
        assert upstream.received == 0

    run()


def test_damaged_json(wire: Wire, upstream: Upstream) -> None:
    """A few bytes of a good body are lost, doubled or something else."""
    good = encoded({"model": "gpt-test", "messages": [{"role": "user", "content": "Grüße"}], "stop": ["x"], "n": 1})
    edit = st.tuples(st.integers(0, len(good)), st.integers(0, 3), st.binary(max_size=3))

    @fuzzed(200)
    @given(edits=st.lists(edit, min_size=1, max_size=3))
    def run(edits: list[tuple[int, int, bytes]]) -> None:
        upstream.reset()
        body = good
        for at, lost, new in edits:
            body = body[:at] + new + body[at + lost :]
        check(wire.post("/v1/chat/completions", body))
        check_sent(upstream)

    run()


# --- JSON, class by class: y must be accepted and arrive as it is, n must be refused, i may be either -----------------


def body_with(value: bytes) -> bytes:
    return b'{"model":"gpt-test","messages":[{"role":"user","content":"one two three"}],"x":%s}' % value


@pytest.mark.parametrize("value", Y_VALUES.values(), ids=Y_VALUES)
def test_y_is_accepted_and_reaches_the_provider_as_it_is(wire: Wire, upstream: Upstream, value: bytes) -> None:
    assert check(wire.post("/v1/chat/completions", body_with(value))).status == 200
    assert repr(upstream.last.json["x"]) == repr(json.loads(value))


@pytest.mark.parametrize("value", N_VALUES.values(), ids=N_VALUES)
def test_n_is_refused(wire: Wire, upstream: Upstream, value: bytes) -> None:
    check_not_json(wire.post("/v1/chat/completions", body_with(value)), upstream)


@pytest.mark.parametrize("value", I_VALUES.values(), ids=I_VALUES)
def test_i_is_refused_or_reaches_the_provider_well_formed(wire: Wire, upstream: Upstream, value: bytes) -> None:
    answer = check(wire.post("/v1/chat/completions", body_with(value)))
    assert answer.status in (200, 400)
    assert upstream.received == (answer.status == 200)
    if upstream.received and not value.startswith((b"[", b"{")):
        check_sent(upstream)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("body", N_BODIES.values(), ids=N_BODIES)
def test_body_that_is_no_json_object_is_refused(wire: Wire, upstream: Upstream, endpoint: str, body: bytes) -> None:
    check_not_json(wire.post(f"/v1/{endpoint}", body), upstream)


def check_not_json(answer: Answer, upstream: Upstream) -> None:
    assert check(answer).status == 400
    error = json.loads(answer.body)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, None)
    assert upstream.received == 0


def test_key_given_twice_reaches_the_provider_once(wire: Wire, upstream: Upstream) -> None:
    """What is checked must be what the provider reads, whichever of the two it would take."""
    body = b'{"model":"nowhere","model":"gpt-test","messages":1,"messages":[{"role":"user","content":"x"}],"n":1,"n":2}'
    assert check(wire.post("/v1/chat/completions", body)).status == 200
    check_sent(upstream)
    assert upstream.last.json == {"model": "gpt-test", "messages": [{"role": "user", "content": "x"}], "n": 2}


def test_body_larger_than_the_limit_is_refused_whatever_it_is(wire: Wire, upstream: Upstream) -> None:
    for body in (b" " * (MAX_BODY_BYTES + 1), body_with(b'"%s"' % (b"x" * MAX_BODY_BYTES))):
        answer = check(wire.post("/v1/chat/completions", body))
        assert answer.status == 413
        assert json.loads(answer.body)["error"]["code"] == "request_too_large"
    assert upstream.received == 0


# --- headers ---------------------------------------------------------------------------------------------------------

KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key", b"x-usagepanda-api-key")
READ_HEADERS = (
    *KEY_HEADERS,
    b"x-gatehouse-provider-key",
    b"x-request-id",
    b"x-gatehouse-tags",
    b"x-gatehouse-trace-id",
    b"x-usagepanda-trace-id",
    b"traceparent",
    b"content-type",
    b"content-encoding",
    b"user-agent",
    b"openai-organization",
    b"openai-project",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"forwarded",
    b"origin",
    b"access-control-request-headers",
    b"access-control-request-method",
    b"accept",
    b"accept-encoding",
    b"cookie",
    b"host",
    b"if-none-match",
    b"range",
)
TELLING = [
    b"", b" ", b",", b",,,", b"a=b", b"a=b,c", b"=,=", b"a=" + b"x" * 200, b"Bearer", b"Bearer ", b"bearer x",
    b"Basic Og==", b"sk-gh-", b"sk-gh-0123456789ab-", b"*", b"null", b"application/json; charset=utf-16",
    b"application/jsonx", b"gzip", b"gzip, br", b"identity", b"127.0.0.1, 10.0.0.1", b"::1", b"[::1]:80", b"unknown",
    b"1.2.3.4, " * 50, b"999.1.1.1", b"\xff\xfe", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\x80" * 50, b"x" * 4000,
    b"%0d%0a", b"\\r\\n", b"a;b", b'"', b"https://evil.example",
]  # fmt: skip

values = st.sampled_from(TELLING) | st.binary(max_size=40).map(
    lambda data: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"?", data)
)
header = st.tuples(st.sampled_from(READ_HEADERS), values)
SMALL = encoded({"model": "gpt-test", "messages": [{"role": "user", "content": "x"}]})


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/echo"]
)
def test_any_header_value_in_every_header_that_is_read(wire: Wire, upstream: Upstream, path: str) -> None:
    method = b"GET" if "models" in path else b"POST"
    body = b"" if method == b"GET" else SMALL
    key = (b"authorization", f"Bearer {wire._gateway.keys['alice']}".encode())
    kind = (b"content-type", b"application/json")

    @fuzzed(100)
    @given(headers=st.lists(header, min_size=1, max_size=6), with_key=st.booleans())
    def run(headers: list[Header], with_key: bool) -> None:
        upstream.reset()
        check(wire.ask(method, path.encode(), [*([key] if with_key else []), kind, *headers], body))
        check_sent(upstream)

    run()


@pytest.mark.parametrize("name", READ_HEADERS, ids=bytes.decode)
def test_header_that_comes_several_times(wire: Wire, upstream: Upstream, name: bytes) -> None:
    for first, second in ((b"a", b"b"), (b"a", b""), (b"", b""), (b"\xff", b"\xff"), (b"x=1", b"x=2")):
        check(wire.post("/v1/chat/completions", SMALL, (name, first), (name, second), (name, first)))
    check_sent(upstream)


@pytest.mark.parametrize("name", KEY_HEADERS, ids=bytes.decode)
def test_no_value_of_a_key_header_opens_the_door(wire: Wire, upstream: Upstream, name: bytes) -> None:
    @fuzzed(60)
    @given(value=values)
    def run(value: bytes) -> None:
        assert check(wire.post("/v1/chat/completions", SMALL, (name, value), key=None)).status == 401
        assert upstream.received == 0

    run()


@pytest.mark.parametrize("control", [b"\x00", b"\x01", b"\x0b", b"\x1f", b"\x7f", b"\r", b"\n", b"\r\n"])
def test_control_character_in_a_header_is_refused(wire: Wire, upstream: Upstream, control: bytes) -> None:
    for name in (b"authorization", b"x-request-id", b"x-anything"):
        answer = wire.post("/v1/chat/completions", SMALL, (name, b"a%sb" % control))
        assert check(answer).status in (400, 401)
        assert b"a%sb" % control not in str(answer.headers).encode()
    assert upstream.received == 0


def test_request_id_that_is_not_well_formed_is_replaced(wire: Wire) -> None:
    @fuzzed(60)
    @given(value=values)
    def run(value: bytes) -> None:
        answer = check(wire.post("/v1/embeddings", b'{"model":"echo","input":"x"}', (b"x-request-id", value)))
        given_back = answer.headers["x-request-id"]
        assert re.fullmatch(r"[A-Za-z0-9._:/+=@-]{1,128}", given_back)

    run()


# --- methods and paths -----------------------------------------------------------------------------------------------

SEGMENTS = [
    "v1",
    "V1",
    "chat",
    "completions",
    "embeddings",
    "models",
    "echo",
    "",
    ".",
    "..",
    "%2e%2e",
    "%00",
    "%ff",
    "%2F",
    "a" * 500,
    "é",
]


def test_any_path_under_v1(wire: Wire, upstream: Upstream) -> None:
    @fuzzed(200)
    @given(
        segments=st.lists(st.sampled_from(SEGMENTS) | st.text(max_size=8), max_size=5),
        query=st.sampled_from(["", "?", "?api-version=2024-10-21", "?a=b&a=c", "?%ff=%00", "?" + "x" * 500]),
        method=st.sampled_from([b"GET", b"POST"]),
    )
    def run(segments: list[str], query: str, method: bytes) -> None:
        path = "".join(f"/{segment}" for segment in ["v1", *segments])
        target = re.sub(rb"[\x00-\x20\x7f#?]", b"_", path.encode("utf-8", "replace")) + query.encode()
        key = (b"authorization", f"Bearer {wire._gateway.keys['alice']}".encode())
        check(
            wire.ask(method, target, [key, (b"content-type", b"application/json")], b"{}" if method == b"POST" else b"")
        )

    run()
    assert upstream.received == 0


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/v1/models/echo", "/v1/nowhere", "/chat/completions"]
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"PATCH", b"DELETE", b"TRACE", b"PROPFIND", b"OPTIONS"])
def test_any_method(wire: Wire, upstream: Upstream, path: str, method: bytes) -> None:
    key = (b"authorization", f"Bearer {wire._gateway.keys['alice']}".encode())
    answer = wire.ask(method, path.encode(), [key])
    assert REQUEST_ID.fullmatch(answer.headers.get("x-request-id", ""))
    allowed = method == b"OPTIONS" or (method == b"GET" and "models" in path)
    assert answer.status == (200 if allowed else 404 if path == "/v1/nowhere" else 405)
    if method not in (b"HEAD", b"OPTIONS"):
        check(answer)
    assert upstream.received == 0


# --- not even HTTP ---------------------------------------------------------------------------------------------------


def test_requests_that_are_damaged(wire: Wire, upstream: Upstream) -> None:
    """A few bytes anywhere in a good request are something else: an answer of the contract, or the connection ends."""
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"
    body = b'{"model":"embedding-test","input":"one two three"}'
    good = head % wire._gateway.keys["alice"].encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    edit = st.tuples(st.integers(0, len(good)), st.integers(0, 4), st.binary(max_size=4))

    @fuzzed(200)
    @given(edits=st.lists(edit, min_size=1, max_size=4))
    def run(edits: list[tuple[int, int, bytes]]) -> None:
        upstream.reset()
        request = good
        for at, lost, new in edits:
            request = request[:at] + new + request[at + lost :]
        answer = wire.raw(request, is_all=True)
        # A damaged path may lead to Django's pages, which are not the data plane's.
        if answer is not None and not answer.headers.get("content-type", "").startswith("text/html"):
            check(answer)
        check_sent(upstream)

    run()


def test_bytes_that_are_no_request(wire: Wire, upstream: Upstream) -> None:
    @fuzzed(150)
    @given(data=st.binary(min_size=1, max_size=300))
    def run(data: bytes) -> None:
        answer = wire.raw(data, is_all=True)
        if answer is not None:
            assert check(answer).status == 400

    run()
    assert upstream.received == 0
