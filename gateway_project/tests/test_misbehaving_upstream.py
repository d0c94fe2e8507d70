"""A provider that misbehaves: what the client gets, what is billed, who answers instead, and what never leaks.

Everything in upstream/behaviours.py is here, whole and streamed. Before the first token a failure is an error with a
status: 504 when the provider's time is up (cast.py: 0.5 s to connect, 1 s to begin, 0.7 s of silence), else 502, or
what the provider said. In a stream that has begun it is one error event, and then the end.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway_project.tests import cast
from gateway_project.tests.clients import (
    Stream,
    answer_text,
    body,
    call,
    check_error,
    check_estimate,
    credentials,
    new_request_id,
)
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import wait_until
from gateway_project.tests.upstream import Call, Upstream
from gateway_project.tests.upstream.behaviours import BEHAVIOURS, ERRORS, RATE_LIMITS, UTF8_TEXT

TEXT = "w0 w1 w2 w3 w4 "
MIDWAY = "w0 w1 w2 "
TOKENS = (3, 5)
MEGABYTE = 1024 * 1024
SLACK_S = 1.0  # for a machine that does other things at the same time


@dataclass(frozen=True, slots=True)
class Good:
    """The provider's answer, and its own count of tokens."""

    text: str = TEXT
    tokens: tuple[int, int] = TOKENS


@dataclass(frozen=True, slots=True)
class Failed:
    """An error before the first token, so with a status of its own. Nothing is billed."""

    status: int
    code: str | None
    type: str = "server_error"
    within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """A stream that gave MIDWAY and then an error event. What was relayed is billed, by an estimate."""

    code: str
    within_s: float = 0.0


Expected = Good | Failed | BrokenOff
NONSENSE = Failed(502, "upstream_unavailable")
CUT = BrokenOff("upstream_unavailable")
UTF8 = Good(UTF8_TEXT, (3, 11))
PROVIDERS_500 = Failed(500, None)

# behaviour -> what a client gets that asked for a whole answer, for a stream
TABLE: dict[str, tuple[Expected, Expected]] = {
    "ok": (Good(), Good()),
    "utf8": (UTF8, UTF8),
    "byte-by-byte": (UTF8, UTF8),
    "slow-first-byte": (Good(), Good()),
    "slow-first-event": (Good(), Good()),
    "hang": (Failed(504, "upstream_timeout", within_s=1.0), Failed(504, "upstream_timeout", within_s=1.0)),
    "hang-after-head": (Failed(504, "upstream_timeout", within_s=0.7), Failed(504, "upstream_timeout", within_s=1.0)),
    "hang-midway": (Failed(504, "upstream_timeout", within_s=0.7), BrokenOff("upstream_timeout", within_s=0.7)),
    # Text, finish_reason and tokens were all said: an error would have the client pay for the same answer again.
    "hang-before-done": (Good(), Good()),
    "close-before-head": (NONSENSE, NONSENSE),
    "close-in-head": (NONSENSE, NONSENSE),
    "close-after-head": (NONSENSE, NONSENSE),
    "close-midway": (NONSENSE, CUT),
    "close-mid-event": (Good(), CUT),
    "reset-before-head": (NONSENSE, NONSENSE),
    "reset-midway": (NONSENSE, CUT),
    "end-midway": (NONSENSE, CUT),
    "no-done": (Good(), Good()),
    "until-close": (Good(), Good()),
    "closes-after-answer": (Good(), Good()),
    "dies-on-reuse": (Good(), Good()),
    "empty": (NONSENSE, NONSENSE),
    "json": (NONSENSE, NONSENSE),
    "deep-json": (NONSENSE, NONSENSE),
    "no-choices": (NONSENSE, NONSENSE),
    # Its status cannot be handed on as it was sent; everything else is.
    "error-in-200": (Failed(502, "overloaded"), Failed(502, "overloaded")),
    "error-midway": (Good(), BrokenOff("overloaded")),
    "html": (Failed(502, None), Failed(502, None)),
    "whole-for-stream": (Good(), NONSENSE),
    "stream-for-whole": (NONSENSE, Good()),
    "wrong-type": (Good(), NONSENSE),
    "error": (PROVIDERS_500, PROVIDERS_500),
    "error-json": (PROVIDERS_500, PROVIDERS_500),
    "error-text": (PROVIDERS_500, PROVIDERS_500),
    "error-empty": (PROVIDERS_500, PROVIDERS_500),
    "error-midbody": (NONSENSE, NONSENSE),
    "redirect": (NONSENSE, NONSENSE),
    "gzip": (Good(), Good()),
    "gzip-lie": (NONSENSE, NONSENSE),
    "long-line": (Good(), NONSENSE),
    "endless-line": (Good(), NONSENSE),
    "endless-comments": (Good(), Failed(504, "upstream_timeout", within_s=1.0)),
    "comments": (Good(), Good()),
    "odd-fields": (Good(), Good()),
    "crlf": (Good(), Good()),
    "cr": (Good(), Good()),
    "huge-header": (Good(), Good()),
    "many-headers": (NONSENSE, NONSENSE),
    "bad-header": (NONSENSE, NONSENSE),
    "bad-status-line": (NONSENSE, NONSENSE),
    "too-long": (Good(), NONSENSE),
    "interim": (Good(), Good()),
}
# These have tests of their own, below or in test_misbehaving_client.py.
ELSEWHERE = {
    "repeat", "garbage", "invalid-utf8", "bad-chunk", "big-events", "huge-body", "gzip-bomb", "endless-stream",
}  # fmt: skip
WHOLE = [pytest.param(name, row[0], id=name) for name, row in TABLE.items()]
STREAMED = [pytest.param(name, row[1], id=name) for name, row in TABLE.items()]
EVERY = [
    pytest.param(name, streamed, row[streamed], id=f"{name}-{'streamed' if streamed else 'whole'}")
    for name, row in TABLE.items()
    for streamed in (False, True)
]
LATE = [case for case in EVERY if getattr(case.values[2], "within_s", 0)]


def test_every_behaviour_is_specified() -> None:
    assert set(TABLE) | ELSEWHERE == set(BEHAVIOURS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one call: what the client got, its events, what the upstream heard of it, and how long it took."""

    response: httpx.Response
    events: list[dict[str, Any]]
    upstream: list[Call]
    seconds: float


DISTURBING = ("too-long",)


@pytest.fixture(scope="module")
def outcomes(
    gateway_on: Callable[[str], GatewayProcess], upstream_server: Upstream
) -> Mapping[tuple[str, bool], Outcome]:
    """Every behaviour of the table, called once whole and once streamed, many side by side; at the end, one by one,
    those whose surplus may still arrive when the next call is sent on the same connection."""
    gateway = gateway_on("sqlite")
    upstream_server.reset()
    asked = sorted(itertools.product(TABLE, (False, True)), key=lambda wish: wish[0] in DISTURBING)
    together = [wish for wish in asked if wish[0] not in DISTURBING]
    with ThreadPoolExecutor(4) as threads:  # few: the bombs among them are work, and the others are timed
        answers = list(threads.map(lambda wish: _ask(gateway, *wish), together))
    for wish in asked[len(together) :]:
        answers.append(_ask(gateway, *wish))
        time.sleep(0.05)
    wait_until(lambda: len(_events_of(gateway, answers)) >= len(answers), 20, "every call is in the books")
    events = _events_of(gateway, answers)
    upstream_server.wait_until_idle()
    assert upstream_server.failures == []
    calls: dict[str, list[Call]] = {request_id: [] for request_id, _, _ in answers}
    for asked_upstream in upstream_server.calls:
        calls[asked_upstream.json["user"]].append(asked_upstream)
    return {
        wish: Outcome(response, [event for event in events if event["request_id"] == id], calls[id], seconds)
        for wish, (id, response, seconds) in zip(asked, answers, strict=True)
    }


Answer = tuple[str, httpx.Response, float]


def _ask(gateway: GatewayProcess, name: str, streamed: bool) -> Answer:
    request_id = new_request_id()
    started = time.monotonic()
    response = call(gateway, name, stream=streamed, user=request_id, headers={"x-request-id": request_id})
    return request_id, response, time.monotonic() - started


def _events_of(gateway: GatewayProcess, answers: list[Answer]) -> list[dict[str, Any]]:
    ids = {request_id for request_id, _, _ in answers}
    return [event for event in gateway.events() if event["request_id"] in ids]


Outcomes = Mapping[tuple[str, bool], Outcome]


@pytest.mark.parametrize(("name", "expected"), WHOLE)
def test_whole_answer(outcomes: Outcomes, name: str, expected: Good | Failed) -> None:
    response = outcomes[name, False].response
    if isinstance(expected, Failed):
        check_error(response, expected.status, expected.type, expected.code)
    else:
        assert answer_text(response) == expected.text
        assert response.headers["content-type"] == "application/json"
        assert response.json()["usage"]["completion_tokens"] == expected.tokens[1]


@pytest.mark.parametrize(("name", "expected"), STREAMED)
def test_stream(outcomes: Outcomes, name: str, expected: Expected) -> None:
    response = outcomes[name, True].response
    if isinstance(expected, Failed):
        check_error(response, expected.status, expected.type, expected.code)
        return
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    stream = Stream.of(response)
    if isinstance(expected, Good):
        assert (stream.text, stream.error, stream.done, stream.usage) == (expected.text, None, True, None)
        return
    assert stream.text == MIDWAY
    error = stream.error
    assert error
    assert (error["type"], error["code"], error["param"]) == ("server_error", expected.code, None)
    assert "error" in stream.events[-1]  # and then the end
    assert not stream.done


@pytest.mark.parametrize(("name", "streamed", "expected"), EVERY)
def test_event_of_the_call(outcomes: Outcomes, name: str, streamed: bool, expected: Expected) -> None:
    (event,) = outcomes[name, streamed].events
    assert (event["model"], event["provider"], event["upstream_model"]) == (name, "upstream", f"gpt-test:{name}")
    assert (event["streamed"], event["attempts"], event["endpoint"]) == (streamed, 1, "chat/completions")
    tokens = event["prompt_tokens"], event["completion_tokens"]
    match expected:
        case Good():
            assert (event["status"], event["error_code"]) == (200, "")
            assert (tokens, event["estimated"]) == (expected.tokens, False)
        case Failed():
            assert (event["status"], event["error_code"]) == (expected.status, expected.code or expected.type)
            assert (tokens, event["estimated"]) == ((0, 0), False)
        case BrokenOff():
            assert event["status"] >= 500
            assert event["error_code"] == expected.code
            check_estimate(event, MIDWAY)
    assert event["cost_nano_usd"] == tokens[0] * 1000 + tokens[1] * 2000


@pytest.mark.parametrize(("name", "streamed", "expected"), LATE)
def test_late_provider_is_given_up_in_time(
    outcomes: Outcomes, name: str, streamed: bool, expected: Failed | BrokenOff
) -> None:
    outcome = outcomes[name, streamed]
    assert expected.within_s - 0.05 < outcome.seconds < expected.within_s + SLACK_S
    assert [asked.client_left for asked in outcome.upstream] == [True]


@pytest.mark.parametrize(("name", "streamed", "expected"), EVERY)
def test_provider_hears_of_a_call_once(outcomes: Outcomes, name: str, streamed: bool, expected: Expected) -> None:
    """But for the case that cannot be told from a kept connection which had died before: it closed without a word."""
    heard = len(outcomes[name, streamed].upstream)
    assert heard == 1 or (heard == 2 and name in ("close-before-head", "reset-before-head"))


def test_no_answer_tells_a_secret(outcomes: Outcomes, gateway_on: Callable[[str], GatewayProcess]) -> None:
    told = [f"{o.response.headers} {o.response.text}" for wish, o in outcomes.items() if wish[0] != "repeat"]
    log = gateway_on("sqlite").log
    for secret in (cast.UPSTREAM_KEY, cast.BACKUP_KEY, cast.KEYS["alice"], "127.0.0.1"):
        assert not [text for text in told if secret in text]
    for secret in (cast.UPSTREAM_KEY, cast.BACKUP_KEY, cast.KEYS["alice"]):
        assert secret not in log


def test_nothing_of_the_kind_is_our_own_mistake(gateway_on: Callable[[str], GatewayProcess]) -> None:
    assert "internal_error" not in gateway_on("sqlite").log
    assert "Traceback" not in gateway_on("sqlite").log


# --- a good answer is the provider's own -----------------------------------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "text": {},
    "choices": {"n": 2},
    "logprobs": {"logprobs": True},
    "tool": {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]},
    "schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        }
    },
}


def direct(upstream: Upstream, upstream_call: Call, name: str, **options: object) -> bytes:
    """What the upstream itself answers to the same request."""
    upstream.next(name, **options)
    headers = {"content-type": "application/json"}
    return httpx.post(f"{upstream.origin}{upstream_call.path}", content=upstream_call.body, headers=headers).content


@pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_answer_is_the_providers_byte_for_byte(
    gateway: GatewayProcess, upstream: Upstream, streamed: bool, fields: dict[str, Any]
) -> None:
    """With fields that no API reference knows in every object."""
    asked = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    upstream.next("ok", extra=1)
    response = call(gateway, **asked, **fields)
    assert b"x_unknown" in response.content
    assert response.content == direct(upstream, upstream.last, "ok", extra=1)


def test_stream_misses_nothing_but_the_usage_that_was_not_asked_for(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    upstream.next("ok", extra=1)
    response = call(gateway, stream=True)
    assert upstream.last.json["stream_options"] == {"include_usage": True}
    events = direct(upstream, upstream.last, "ok", extra=1).split(b"\n\n")
    kept = [event for event in events if b'"choices":[]' not in event]
    assert len(kept) == len(events) - 1
    assert response.content == b"\n\n".join(kept)


def test_whole_answer_is_not_written_anew(gateway: GatewayProcess, upstream: Upstream) -> None:
    odd = (
        '{ "choices" : [{"message": {"content": "\\u00fc \\/ \\ud83d \\u0000"}, "index": 0}],\n\t'
        f'"big": {2**70}, "tiny": 1E-400, "same": 1, "same": 2, "float": 1.10,'
        '"usage": {"prompt_tokens": 7, "completion_tokens": 8} }\n'
    )
    upstream.next("json", body=odd)
    response = call(gateway)
    assert response.text == odd
    event = gateway.event_of(response.headers["x-request-id"])
    assert (event["prompt_tokens"], event["completion_tokens"]) == (7, 8)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("name", ["ok", "utf8", "crlf", "cr", "comments", "odd-fields", "gzip"])
def test_stream_is_the_same_however_it_is_cut(
    gateway: GatewayProcess, upstream: Upstream, name: str, size: int
) -> None:
    text = UTF8_TEXT if name == "utf8" else TEXT
    upstream.next(name, split=size)
    stream = Stream.of(call(gateway, stream=True, stream_options={"include_usage": True}))
    assert (stream.text, stream.done, stream.error) == (text, True, None)
    assert stream.usage


@pytest.mark.parametrize("delay_ms", [0, 15], ids=["at once", "one by one"])
@pytest.mark.parametrize(("name", "kept"), [("garbage", b"data: {not json\n\n"), ("invalid-utf8", b"\xff\xc3\x28")])
def test_event_that_nobody_needs_is_handed_on_as_it_came(
    gateway: GatewayProcess, upstream: Upstream, name: str, kept: bytes, delay_ms: int
) -> None:
    """Events are parsed where they hold something that we need (the end, an error, the tokens), and nowhere else: so
    one that is no JSON passes, in whatever packets the stream comes. It is the client's to judge."""
    upstream.next(name, delay_ms=delay_ms)
    response = call(gateway, stream=True)
    assert response.status_code == 200
    assert kept in response.content
    assert response.content.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_chunk_without_a_size_breaks_the_answer_off(
    gateway: GatewayProcess, upstream: Upstream, streamed: bool
) -> None:
    upstream.next("bad-chunk", delay_ms=20)
    response = call(gateway, stream=streamed)
    if not streamed:
        check_error(response, 502, "server_error", "upstream_unavailable")
        return
    stream = Stream.of(response)
    assert stream.text == MIDWAY
    assert stream.error
    assert stream.error["code"] == "upstream_unavailable"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_events_of_a_megabyte_pass(gateway: GatewayProcess, upstream: Upstream, streamed: bool) -> None:
    text = answer_text(call(gateway, "big-events", stream=streamed))
    assert text == " ".join(letter * MEGABYTE for letter in "abc")


# --- tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """A call, and how the upstream is to behave."""

    name: str
    options: tuple[tuple[str, object], ...]
    streamed: bool
    asks_usage: bool = False


def ask_all(gateway: GatewayProcess, upstream: Upstream, wishes: list[Wish]) -> dict[Wish, Outcome]:
    """One after the other, and then all their events at once: an event comes a quarter of a second after its call."""
    answers = []
    for wish in wishes:
        upstream.next(wish.name, **dict(wish.options))
        request_id = new_request_id()
        options = {"stream_options": {"include_usage": True}} if wish.asks_usage else {}
        headers = {"x-request-id": request_id}
        answers.append((request_id, call(gateway, stream=wish.streamed, headers=headers, **options), 0.0))
    wait_until(lambda: len(_events_of(gateway, answers)) >= len(answers), 20, "every call is in the books")
    events = _events_of(gateway, answers)
    return {
        wish: Outcome(response, [event for event in events if event["request_id"] == id], [], 0.0)
        for wish, (id, response, _) in zip(wishes, answers, strict=True)
    }


def usage_wish(usage: str, streamed: bool, asked: bool) -> Wish:
    return Wish("ok", (("usage", usage), ("cached", 2), ("reasoning", 1)), streamed, asked)


USAGES = [
    usage_wish(usage, streamed, asked)
    for usage in ("asked", "always", "last", "each", "twice", "never", "null", "wrong")
    for streamed, asked in ((False, False), (True, False), (True, True))
]


@pytest.fixture(scope="module")
def usages(gateway_on: Callable[[str], GatewayProcess], upstream_server: Upstream) -> dict[Wish, Outcome]:
    return ask_all(gateway_on("sqlite"), upstream_server, USAGES)


@pytest.mark.parametrize(("streamed", "asked"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("usage", ["asked", "always", "last", "each", "twice"])
def test_tokens_are_the_providers(usages: dict[Wish, Outcome], usage: str, streamed: bool, asked: bool) -> None:
    outcome = usages[usage_wish(usage, streamed, asked)]
    assert answer_text(outcome.response) == TEXT
    (event,) = outcome.events
    assert (event["prompt_tokens"], event["completion_tokens"], event["estimated"]) == (3, 5, False)
    assert (event["cached_tokens"], event["reasoning_tokens"]) == (2, 1)
    assert event["cost_nano_usd"] == 3 * 1000 + 5 * 2000


@pytest.mark.parametrize(("streamed", "asked"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("usage", ["never", "null", "wrong"])
def test_tokens_are_estimated_when_the_provider_does_not_tell(
    usages: dict[Wish, Outcome], usage: str, streamed: bool, asked: bool
) -> None:
    outcome = usages[usage_wish(usage, streamed, asked)]
    assert answer_text(outcome.response) == TEXT
    (event,) = outcome.events
    assert event["status"] == 200
    check_estimate(event, TEXT)


# --- the provider says no --------------------------------------------------------------------------------------------


REFUSALS = (400, 404, 409, 413, 422, 429, 500, 501, 503, 504, 529)


def refusal_wish(status: int, streamed: bool) -> Wish:
    return Wish("error", (("status", status),), streamed)


@pytest.fixture(scope="module")
def refusals(gateway_on: Callable[[str], GatewayProcess], upstream_server: Upstream) -> dict[Wish, Outcome]:
    wishes = [refusal_wish(status, streamed) for status in REFUSALS for streamed in (False, True)]
    return ask_all(gateway_on("sqlite"), upstream_server, wishes)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("status", REFUSALS)
def test_providers_refusal_is_handed_on_as_it_was_sent(
    refusals: dict[Wish, Outcome], status: int, streamed: bool
) -> None:
    outcome = refusals[refusal_wish(status, streamed)]
    message, kind, code = ERRORS.get(status, ("The server had an error.", "server_error", None))
    assert check_error(outcome.response, status, kind, code)["message"] == message
    (event,) = outcome.events
    assert (event["status"], event["error_code"], event["cost_nano_usd"]) == (status, code or kind, 0)


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_of_our_own_key_is_not_the_callers_fault(
    gateway: GatewayProcess, upstream: Upstream, status: int
) -> None:
    upstream.next("error", status=status)
    error = check_error(call(gateway), 502, "server_error", "upstream_unavailable")
    assert ERRORS[status][0] not in error["message"]


@pytest.mark.parametrize("status", [201, 204, 206])
def test_other_success_than_200_is_nonsense(gateway: GatewayProcess, upstream: Upstream, status: int) -> None:
    upstream.next("error-empty", status=status)
    check_error(call(gateway), 502, "server_error", "upstream_unavailable")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_redirect_is_not_followed(gateway: GatewayProcess, upstream: Upstream, status: int, streamed: bool) -> None:
    upstream.next("redirect", status=status)
    check_error(call(gateway, stream=streamed), 502, "server_error", "upstream_unavailable")
    assert [asked.path for asked in upstream.calls] == ["/v1/chat/completions"]


def test_error_in_a_good_status_is_told_alike_whole_and_streamed(gateway: GatewayProcess, upstream: Upstream) -> None:
    whole, streamed = (call(gateway, "error-in-200", stream=streamed) for streamed in (False, True))
    assert whole.status_code == streamed.status_code
    assert whole.json() == streamed.json()
    assert whole.json()["error"]["message"] == "The engine is overloaded."


def test_web_page_is_not_quoted(gateway: GatewayProcess) -> None:
    for streamed in (False, True):
        assert "<html>" not in call(gateway, "html", stream=streamed).text


# --- somebody else answers -------------------------------------------------------------------------------------------


def check_answered_by_backup(gateway: GatewayProcess, upstream: Upstream, response: httpx.Response) -> None:
    assert answer_text(response) == TEXT
    assert response.headers["x-gatehouse-provider"] == "backup"
    event = gateway.event_of(response.headers["x-request-id"])
    assert (event["provider"], event["upstream_model"], event["attempts"]) == ("backup", "gpt-test", 2)
    assert (event["status"], event["error_code"], event["estimated"]) == (200, "", False)
    assert (event["prompt_tokens"], event["completion_tokens"]) == TOKENS
    assert upstream.last.header("authorization") == f"Bearer {cast.BACKUP_KEY}"


@pytest.mark.parametrize(
    ("name", "streamed"),
    [
        *itertools.product(("500", "429", "close-before-head", "error-in-200", "nowhere"), (False, True)),
        ("hang", True),
    ],
)
def test_next_route_answers_before_the_first_token(
    gateway: GatewayProcess, upstream: Upstream, name: str, streamed: bool
) -> None:
    check_answered_by_backup(gateway, upstream, call(gateway, f"fallback/{name}", stream=streamed))
    # A connection that closes without a word may have been dead already: then the same route is asked once more.
    assert upstream.received == 1 if name == "nowhere" else 2 <= upstream.received <= 2 + (name == "close-before-head")


@pytest.mark.parametrize("name", ["garbage", "close-midway"])
def test_next_route_answers_when_a_whole_answer_is_nonsense(
    gateway: GatewayProcess, upstream: Upstream, name: str
) -> None:
    check_answered_by_backup(gateway, upstream, call(gateway, f"fallback/{name}"))


@pytest.mark.parametrize("status", [502, 503, 504, 529])
def test_next_route_answers_on_every_5xx(gateway: GatewayProcess, upstream: Upstream, status: int) -> None:
    upstream.next("error", status=status)
    check_answered_by_backup(gateway, upstream, call(gateway, "fallback/500"))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_bad_request_is_bad_everywhere(gateway: GatewayProcess, upstream: Upstream, streamed: bool) -> None:
    check_error(call(gateway, "fallback/400", stream=streamed), 400, "invalid_request_error", None)
    assert upstream.received == 1


def test_nobody_takes_over_after_the_first_token(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("close-midway", delay_ms=20)
    response = call(gateway, "fallback/close-midway", stream=True)
    stream = Stream.of(response)
    assert (stream.text, stream.done) == (MIDWAY, False)
    assert stream.error
    assert upstream.received == 1
    assert response.headers["x-gatehouse-provider"] == "upstream"


def test_last_routes_failure_is_told_when_all_fail(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("error", status=500)
    upstream.next("error", status=503)
    response = call(gateway, "fallback/500")
    check_error(response, 503, "server_error", None)
    event = gateway.event_of(response.headers["x-request-id"])
    assert (event["provider"], event["attempts"], event["status"]) == ("backup", 2, 503)
    assert event["failed_tries"] == "upstream:500"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_event_tells_who_failed_before(gateway: GatewayProcess, upstream: Upstream, streamed: bool) -> None:
    upstream.next("error", status=503)
    event = gateway.event_of(call(gateway, "fallback/500", stream=streamed).headers["x-request-id"])
    assert (event["provider"], event["failed_tries"]) == ("backup", "upstream:503")
    event = gateway.event_of(call(gateway, "gpt-test", stream=streamed).headers["x-request-id"])
    assert event["failed_tries"] == ""


def test_all_routes_share_one_budget_of_time(gateway: GatewayProcess, upstream: Upstream) -> None:
    """The first one hangs for the second that it may, the second one for the half second that is left."""
    started = time.monotonic()
    response = call(gateway, "hurried")
    assert 1.45 < time.monotonic() - started < 1.5 + SLACK_S
    check_error(response, 504, "server_error", "upstream_timeout")
    assert upstream.received == 2
    assert gateway.event_of(response.headers["x-request-id"])["attempts"] == 2


def test_every_route_gets_the_same_request(gateway: GatewayProcess, upstream: Upstream) -> None:
    call(gateway, "fallback/500", messages=[{"role": "user", "content": "ü"}], x_unknown={"a": [1]})
    first, second = (asked.json for asked in upstream.calls)
    assert first.pop("model") == "gpt-test:500"
    assert second.pop("model") == "gpt-test"
    assert first == second


# --- connections that were kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [0, 1], ids=["fin", "rst"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_kept_connection_that_dies_under_the_next_call_is_not_noticed(
    gateway: GatewayProcess, upstream: Upstream, reset: int, streamed: bool
) -> None:
    upstream.next("dies-on-reuse", times=30, reset=reset)
    for _ in range(30):
        answer_text(call(gateway, stream=streamed))
    assert upstream.books.dropped > 0
    assert upstream.received == 30


def test_all_kept_connections_may_die_at_once(gateway: GatewayProcess, upstream: Upstream) -> None:
    """As when something between us and the provider has forgotten them. None of them has read the request."""
    upstream.next("dies-on-reuse", times=13, reset=1, delay_ms=30)
    with ThreadPoolExecutor(12) as threads:
        for response in threads.map(lambda _: call(gateway, stream=True), range(12)):
            assert answer_text(response) == TEXT
    answer_text(call(gateway))
    assert upstream.books.dropped > 0
    assert upstream.received == 13


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ["close-in-head", "bad-header", "bad-status-line", "close-after-head"])
def test_request_is_not_sent_again_once_an_answer_has_begun(
    gateway: GatewayProcess, upstream: Upstream, name: str, streamed: bool
) -> None:
    """Also on a connection that was kept: whoever says a byte has read the request, and may bill it."""
    answer_text(call(gateway))
    upstream.next(name)
    check_error(call(gateway, stream=streamed), 502, "server_error", "upstream_unavailable")
    assert upstream.received == 2


@pytest.mark.parametrize("name", ["closes-after-answer", "too-long", "until-close", "close-midway", "interim"])
def test_next_call_is_answered_well(gateway: GatewayProcess, upstream: Upstream, name: str) -> None:
    for _ in range(3):
        call(gateway, name)
        time.sleep(0.05)  # what is still coming must not come as the answer to the next request
        answer_text(call(gateway))


# --- too much --------------------------------------------------------------------------------------------------------


@contextmanager
def peak_memory(gateway: GatewayProcess) -> Iterator[Callable[[], int]]:
    """Gives a function that tells the most bytes that were in use above those at the beginning."""
    before = gateway.memory_bytes()
    seen = [before]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            seen.append(gateway.memory_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: max(seen) - before
    finally:
        stop.set()
        watcher.join()


@pytest.mark.parametrize(
    ("name", "streamed"),
    [
        ("huge-body", False),
        ("huge-body", True),
        ("gzip-bomb", False),
        ("long-line", True),
        ("endless-line", True),
    ],
)
def test_too_much_is_given_up_before_it_fills_the_memory(
    gateway: GatewayProcess, upstream: Upstream, name: str, streamed: bool
) -> None:
    """A whole answer may have 64 MiB, MAX_REPLY_BYTES; an event of a stream much less."""
    upstream.next(name, mb=200)
    with peak_memory(gateway) as peak:
        # Packing the bomb takes the upstream a while.
        check_error(call(gateway, "patient/ok", stream=streamed), 502, "server_error", "upstream_unavailable")
    assert peak() < 200 * MEGABYTE
    answer_text(call(gateway))


def test_bomb_does_not_hold_up_other_calls(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("gzip-bomb", mb=60)
    bomb = threading.Thread(target=lambda: call(gateway, "patient/ok"))
    bomb.start()
    upstream.wait_for_calls(1)
    slowest = 0.0
    while bomb.is_alive():
        started = time.monotonic()
        gateway.http.get("/v1/models", headers=credentials(gateway, "charlie"))
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 0.5


# --- what goes out, what comes back ----------------------------------------------------------------------------------

ALLOWED_UPSTREAM = {
    "host", "content-type", "content-length", "authorization", "user-agent", "accept", "accept-encoding", "connection",
}  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_provider_sees_no_header_of_the_client_and_our_key(
    gateway: GatewayProcess, upstream: Upstream, streamed: bool
) -> None:
    given = {
        "api-key": "sk-canary-1",
        "x-api-key": "sk-canary-2",
        "openai-organization": "org-canary",
        "openai-project": "proj-canary",
        "cookie": "session=canary",
        "proxy-authorization": "Basic canary",
        "proxy-connection": "canary",
        "x-forwarded-for": "203.0.113.1",
        "x-forwarded-host": "canary.example",
        "forwarded": "for=canary",
        "x-custom-host": "canary.example",
        "x-gatehouse-tags": "a=canary",
        "traceparent": "00-canary",
        "referer": "https://canary.example/",
        "user-agent": "canary/1.0",
        "te": "trailers",
        "x-stainless-lang": "canary",
    }
    answer_text(call(gateway, stream=streamed, headers=given))
    asked = upstream.last
    names = [name.lower() for name, _ in asked.headers]
    assert set(names) <= ALLOWED_UPSTREAM
    assert len(names) == len(set(names))
    assert "canary" not in str(asked.headers)
    assert asked.header("authorization") == f"Bearer {cast.UPSTREAM_KEY}"
    assert f"http://{asked.header('host')}" == upstream.origin
    assert cast.KEYS["alice"] not in f"{asked.headers} {asked.body!r}"


def test_caller_chooses_no_destination(gateway: GatewayProcess, upstream: Upstream) -> None:
    fields = {"api_base": "http://127.0.0.1:9/", "base_url": "http://127.0.0.1:9/", "custom_host": "127.0.0.1:9"}
    headers = {"x-custom-host": "127.0.0.1:9", "x-api-base": "http://127.0.0.1:9/", "x-forwarded-host": "127.0.0.1:9"}
    path = "/v1/chat/completions?api_base=http://127.0.0.1:9/"
    response = gateway.http.post(path, json=body(**fields), headers=credentials(gateway, "alice", headers))
    assert response.status_code == 200
    assert upstream.last.path == "/v1/chat/completions"


def test_line_breaks_stay_inside_the_body(gateway: GatewayProcess, upstream: Upstream) -> None:
    nasty = "x\r\nx-injected: 1\r\n\r\nGET / HTTP/1.1%0d%0ax-injected: 1"
    answer_text(call(gateway, user=nasty, metadata={nasty: nasty}))
    assert upstream.received == 1
    assert upstream.last.header("x-injected") is None
    assert upstream.last.json["user"] == nasty
    check_error(call(gateway, nasty), 404, "invalid_request_error", "model_not_found", param="model")
    assert upstream.received == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_rate_limits_and_request_id_are_handed_on(gateway: GatewayProcess, upstream: Upstream, streamed: bool) -> None:
    response = call(gateway, stream=streamed)
    assert response.headers["x-ratelimit-limit-requests"] == "500"
    assert response.headers["x-ratelimit-remaining-tokens"] == "29900"
    assert response.headers["x-gatehouse-upstream-request-id"] == f"req_upstream_{upstream.last.number}"
    assert response.headers["x-request-id"].startswith("test-")
    assert "set-cookie" not in response.headers


def test_limits_come_with_a_429_too(gateway: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("error", status=429, retry_after=17)
    response = call(gateway)
    assert response.headers["retry-after"] == "17"
    assert {name: response.headers[name] for name in RATE_LIMITS} == RATE_LIMITS
    assert response.headers["x-gatehouse-upstream-request-id"] == f"req_upstream_{upstream.last.number}"


@pytest.mark.parametrize("name", ["huge-header", "gzip", "interim"])
def test_other_headers_are_not_handed_on(gateway: GatewayProcess, name: str) -> None:
    headers = call(gateway, name).headers
    assert not {"x-padding", "content-encoding", "set-cookie", "link"} & set(headers)


@pytest.mark.parametrize("status", [400, 429, 500])
@pytest.mark.parametrize("quoted", ["{key}", "Bearer {key}", "Incorrect API key provided: {key}. Find it at ..."])
def test_key_that_a_provider_quotes_is_masked(
    gateway: GatewayProcess, upstream: Upstream, status: int, quoted: str
) -> None:
    upstream.next("error", status=status, message=quoted.format(key=cast.UPSTREAM_KEY))
    assert cast.UPSTREAM_KEY not in call(gateway).text
    # The last word of two routes; its key has no form by which one could tell it.
    upstream.next("error", status=status, message=quoted.format(key=cast.BACKUP_KEY))
    assert cast.BACKUP_KEY not in call(gateway, "fallback/nowhere").text
    assert cast.UPSTREAM_KEY not in gateway.log
    assert cast.BACKUP_KEY not in gateway.log


def test_key_in_an_error_of_a_good_status_is_masked(gateway: GatewayProcess, upstream: Upstream) -> None:
    error = {"error": {"message": f"Bad key {cast.UPSTREAM_KEY}", "type": "server_error", "code": cast.UPSTREAM_KEY}}
    upstream.next("json", body=json.dumps(error))
    assert cast.UPSTREAM_KEY not in call(gateway).text


UNKNOWN_FIELDS: dict[str, Any] = {
    "x_new": {"deep": [1, None, True, 0, -1, [], {}, ""]},
    "x_integers": [2**53 + 1, 2**63, 2**64, 2**70, -(2**70), 10**100],
    "x_floats": [0.1, 1.0, -0.0, 1e-7, 1.7976931348623157e308, 5e-324, 123456789.123456789],
    "x_texts": ["ü", "😀", "\u2028", "\u0000", "\ud83d", "a\u0301", "\ufeff", "</script>", '"\\/'],
    "x_names": {"": 1, "a b": 2, "ü": 3, "__proto__": 4},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", UNKNOWN_FIELDS)
def test_unknown_field_reaches_the_provider_untouched(
    gateway: GatewayProcess, upstream: Upstream, name: str, streamed: bool
) -> None:
    asked = {**body(stream=streamed), name: UNKNOWN_FIELDS[name]}
    headers = {"content-type": "application/json", **credentials(gateway, "alice")}
    response = gateway.http.post("/v1/chat/completions", content=json.dumps(asked).encode(), headers=headers)
    assert answer_text(response) == TEXT
    # As text: 1 and 1.0, 0.0 and -0.0 are not the same.
    assert json.dumps(upstream.last.json[name]) == json.dumps(UNKNOWN_FIELDS[name])


def test_known_fields_reach_the_provider_untouched(gateway: GatewayProcess, upstream: Upstream) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    paper = {"type": "file", "file": {"filename": "../a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}
    asked = {
        "messages": [
            {"role": "developer", "content": "Be brief.", "name": "house"},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture, sound, paper]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "user", "content": [{"type": "of_next_year", "x": [1]}]},
        ],
        "temperature": 0.30000000000000004,
        "logit_bias": {"50256": -100},
        "stop": ["\n\n", "END"],
        "metadata": {"a": "b"},
        "seed": 2**62,
        "user": "someone",
    }
    answer_text(call(gateway, **asked))
    assert upstream.last.json == {"model": "gpt-test", **asked}


def test_name_that_comes_twice_means_one_thing_to_us_and_the_provider(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    asked = (
        b'{"model": "nobody-knows-it", "model": "gpt-test", "stream": true, "stream": false, "user": "a", "user": "b",'
        b' "messages": [{"role": "user", "content": "one"}],'
        b' "messages": [{"role": "user", "content": "one", "content": "one two"}], "max_tokens": 1, "max_tokens": 7}'
    )
    headers = {"content-type": "application/json", **credentials(gateway, "alice")}
    response = gateway.http.post("/v1/chat/completions", content=asked, headers=headers)
    if response.status_code == 400:
        assert upstream.received == 0
        return
    names: list[list[str]] = []
    json.loads(upstream.last.body, object_pairs_hook=lambda pairs: names.append([name for name, _ in pairs]))
    assert all(len(object_names) == len(set(object_names)) for object_names in names)
    event = gateway.event_of(response.headers["x-request-id"])
    seen = upstream.last.json
    assert (event["model"], event["end_user"], event["streamed"]) == (seen["model"], seen["user"], seen["stream"])
    assert (event["prompt_tokens"], seen["max_tokens"]) == (len(seen["messages"][0]["content"].split()), 7)


# --- every backend ---------------------------------------------------------------------------------------------------

CORE = ("ok", "close-midway", "error-midway", "close-before-head", "error-in-200", "redirect", "html", "error", "cr")


@pytest.mark.parametrize("backend", ["postgres", "postgres+redis"])
def test_core_of_the_table_on_other_backends(
    gateway_on: Callable[[str], GatewayProcess], upstream: Upstream, backend: str
) -> None:
    gateway = gateway_on(backend)
    asked = list(itertools.product(CORE, (False, True)))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda wish: _ask(gateway, *wish), asked))
    for (name, streamed), (request_id, response, _) in zip(asked, answers, strict=True):
        expected = TABLE[name][streamed]
        event = gateway.event_of(request_id)
        if isinstance(expected, Failed):
            check_error(response, expected.status, expected.type, expected.code)
            assert (event["status"], event["cost_nano_usd"]) == (expected.status, 0)
        elif isinstance(expected, Good):
            assert answer_text(response) == expected.text
            assert (event["prompt_tokens"], event["completion_tokens"]) == expected.tokens
        else:
            assert event["error_code"] == expected.code
            check_estimate(event, MIDWAY)


# --- every dialect, every endpoint -----------------------------------------------------------------------------------

MIDWAYS = ("close-midway", "close-mid-event", "reset-midway", "end-midway")
FAILURES = ("close-after-head", "empty", "garbage", "redirect", "gzip-lie", "bad-status-line", "html")


@pytest.mark.parametrize("model", ["azure-test", "claude-test"])
def test_other_dialects_are_safe_too(gateway: GatewayProcess, upstream: Upstream, model: str) -> None:
    for name in ("ok", "utf8", "byte-by-byte", "gzip", "crlf", "comments", "interim"):
        for streamed in (False, True):
            upstream.next(name)
            text = UTF8_TEXT if name in ("utf8", "byte-by-byte") else TEXT
            assert answer_text(call(gateway, model, stream=streamed)) == text, name
    for name in FAILURES:
        upstream.next(name)
        response = call(gateway, model)
        assert response.status_code == 502, (name, response.text)
        assert response.json()["error"]["type"] == "server_error"
    ids = []
    for name in (*MIDWAYS, "error-midway"):
        upstream.next(name)
        ids.append(new_request_id())
        stream = Stream.of(call(gateway, model, stream=True, headers={"x-request-id": ids[-1]}))
        assert (stream.text, stream.done, "error" in stream.events[-1]) == (MIDWAY, False, True), name
    for event in map(gateway.event_of, ids):
        assert event["status"] >= 500
        # Anthropic tells the tokens of the prompt at the beginning; what was made is known at the end only.
        assert event["estimated"]
        assert event["prompt_tokens"] > 0
        assert 1 <= event["completion_tokens"] <= len(MIDWAY)


def test_other_endpoints_are_safe_too(gateway: GatewayProcess, upstream: Upstream) -> None:
    asked: dict[str, dict[str, Any]] = {
        "completions": {"model": "gpt-test", "prompt": "one two three"},
        "embeddings": {"model": "embedding-test", "input": "one two three"},
    }
    for endpoint, fields in asked.items():
        for name in (*FAILURES, "error-in-200", "json"):
            upstream.next(name)
            response = call(gateway, endpoint=endpoint, **fields)
            assert response.status_code == 502, (name, response.text)
        assert response.json()["error"]["type"] == "server_error"
    for name in MIDWAYS:
        upstream.next(name)
        stream = Stream.of(call(gateway, endpoint="completions", stream=True, **asked["completions"]))
        assert (stream.text, stream.done, "error" in stream.events[-1]) == (MIDWAY, False, True), name
    upstream.next("ok", usage="never")
    response = call(gateway, endpoint="embeddings", **asked["embeddings"])
    assert response.status_code == 200
    event = gateway.event_of(response.headers["x-request-id"])
    assert (event["estimated"], event["completion_tokens"]) == (True, 0)
    assert event["prompt_tokens"] > 0


# --- the gateway as its own provider ---------------------------------------------------------------------------------


def test_gateway_that_is_its_own_provider_notices_it(gateway: GatewayProcess, upstream: Upstream) -> None:
    provider = {"name": "ourselves", "kind": "openai", "base_url": f"{gateway.url}/v1", "api_key": cast.KEYS["bob"]}
    route = {"provider": "ourselves", "upstream_model": "loop"}
    gateway.apply({"providers": [provider], "models": [{"name": "loop", "routes": [route], "time_budget_s": 5}]})
    wait_until(lambda: "loop" in gateway.http.get("/v1/models", headers=credentials(gateway, "alice")).text, 2, "loop")
    started = time.monotonic()
    response = call(gateway, "loop")
    assert response.status_code in (502, 508)
    assert time.monotonic() - started < 2
    (calls,) = gateway.query("SELECT count(*) AS n FROM usage_usageevent WHERE model = 'loop'")
    assert calls["n"] <= 20
