"""A client that misbehaves: it leaves, does not read, does not write, or writes what is no HTTP.

Then the upstream is closed within a second, the call is settled (499, with what was produced until then), memory stays
flat, and nobody else notices. `impatient` is a gateway with short deadlines, see IMPATIENCE.
"""

from __future__ import annotations

import random
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from gateway_project.tests import cast
from gateway_project.tests.clients import (
    RawClient,
    answer_text,
    body,
    call,
    check_estimate,
    credentials,
    new_request_id,
)
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.upstream import ANSWERED, Upstream

MIDWAY = "w0 w1 w2 "
MEGABYTE = 1024 * 1024
HEADER_TIMEOUT_S, BODY_TIMEOUT_S, WRITE_TIMEOUT_S, DETACHED_LIMIT_S = 0.6, 0.8, 0.7, 1.5
SLACK_S = 1.0  # for a machine that does other things at the same time
IMPATIENCE = {
    "HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S),
    "BODY_TIMEOUT_S": str(BODY_TIMEOUT_S),
    "CLIENT_WRITE_TIMEOUT_S": str(WRITE_TIMEOUT_S),
    "DETACHED_LIMIT_S": str(DETACHED_LIMIT_S),
}


@pytest.fixture(scope="module")
def impatient_gateway(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    with make_gateway("sqlite", **IMPATIENCE) as gateway:
        yield gateway


@pytest.fixture
def impatient(impatient_gateway: GatewayProcess, upstream: Upstream) -> GatewayProcess:
    return impatient_gateway


def check_upstream_closed(upstream: Upstream, left_at: float) -> None:
    """Within a second of the moment the client left."""
    ended = upstream.wait_for_end(upstream.last)
    assert ended.client_left
    assert ended.closed_at
    assert ended.closed_at - left_at < 1.0


def abandoned_event(client: RawClient) -> dict[str, Any]:
    """The event of a call whose client left; it is there within a second or so."""
    event = client.gateway.event_of(client.request_id, timeout_s=1 + SLACK_S)
    assert (event["status"], event["error_code"]) == (499, "client_disconnected")
    return event


# --- it leaves -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_leaving_in_mid_stream_closes_the_upstream_and_is_billed_for_what_came(
    every_gateway: GatewayProcess, upstream: Upstream, how: str
) -> None:
    with RawClient(every_gateway) as client:
        client.ask("patient/hang-midway", stream=True)
        client.read_until(b"w2 ")
        left_at = time.monotonic()
        client.leave(how)
    check_upstream_closed(upstream, left_at)
    event = abandoned_event(client)
    assert (event["provider"], event["streamed"], event["attempts"]) == ("patient", True, 1)
    check_estimate(event, MIDWAY)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("name", ["hang", "hang-after-head"])
def test_leaving_before_the_first_byte_of_a_stream_is_billed_for_the_prompt(
    impatient: GatewayProcess, upstream: Upstream, name: str, how: str
) -> None:
    """The provider has it, and will bill it: a prompt must not be free for those who leave early."""
    with RawClient(impatient) as client:
        client.ask(f"patient/{name}", stream=True)
        upstream.wait_for_calls(1)
        left_at = time.monotonic()
        client.leave(how)
    check_upstream_closed(upstream, left_at)
    check_estimate(abandoned_event(client), "")


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_leaving_a_stream_that_never_ends(impatient: GatewayProcess, upstream: Upstream, how: str) -> None:
    with RawClient(impatient) as client:
        client.ask("endless-stream", stream=True)
        client.read_until(b"w4 ")
        left_at = time.monotonic()
        client.leave(how)
    check_upstream_closed(upstream, left_at)
    event = abandoned_event(client)
    assert event["estimated"]
    assert 5 <= event["completion_tokens"] <= 3 * upstream.last.events_sent


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_leaving_after_the_last_event_is_no_leaving(impatient: GatewayProcess, upstream: Upstream, how: str) -> None:
    with RawClient(impatient) as client:
        client.ask(stream=True)
        client.read_until(b"[DONE]\n\n")
        client.leave(how)
    event = impatient.event_of(client.request_id)
    assert (event["status"], event["error_code"], event["estimated"]) == (200, "", False)
    assert (event["prompt_tokens"], event["completion_tokens"]) == (3, 5)
    assert upstream.wait_for_end(upstream.last).ended == ANSWERED


def test_leaving_with_a_whole_answer_is_no_leaving(impatient: GatewayProcess) -> None:
    with RawClient(impatient) as client:
        client.ask()
        client.read_until(b"}}}")
        client.leave("rst")
    assert impatient.event_of(client.request_id)["status"] == 200


def check_ran_on_detached(client: RawClient, upstream: Upstream) -> None:
    assert upstream.wait_for_end(upstream.last).ended == ANSWERED
    event = abandoned_event(client)
    assert (event["prompt_tokens"], event["completion_tokens"], event["estimated"]) == (3, 5, False)
    assert event["cost_nano_usd"] == 3 * 1000 + 5 * 2000


@pytest.mark.parametrize(("name", "how"), [("slow-first-byte", "rst"), ("slow-first-event", "fin")])
def test_whole_answer_runs_on_without_its_client_and_bills_what_it_cost(
    impatient: GatewayProcess, upstream: Upstream, name: str, how: str
) -> None:
    with RawClient(impatient) as client:
        client.ask(f"patient/{name}")
        upstream.wait_for_calls(1)
        client.leave(how)
    check_ran_on_detached(client, upstream)


def test_whole_answer_runs_on_on_every_backend(every_gateway: GatewayProcess, upstream: Upstream) -> None:
    with RawClient(every_gateway) as client:
        client.ask("patient/slow-first-byte")
        upstream.wait_for_calls(1)
        client.leave()
    check_ran_on_detached(client, upstream)


def test_whole_answer_does_not_run_on_for_ever(impatient: GatewayProcess, upstream: Upstream) -> None:
    with RawClient(impatient) as client:
        client.ask("patient/hang")
        upstream.wait_for_calls(1)
        left_at = time.monotonic()
        client.leave()
    ended = upstream.wait_for_end(upstream.last)
    assert ended.client_left
    assert ended.closed_at
    assert DETACHED_LIMIT_S - 0.2 < ended.closed_at - left_at < DETACHED_LIMIT_S + SLACK_S
    check_estimate(abandoned_event(client), "")


def test_next_route_is_not_tried_for_a_client_that_left(impatient: GatewayProcess, upstream: Upstream) -> None:
    with RawClient(impatient) as client:
        client.ask("fallback/hang", stream=True)
        upstream.wait_for_calls(1)
        client.leave()
    assert abandoned_event(client)["attempts"] == 1
    time.sleep(0.3)
    assert upstream.received == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_leaving_with_half_a_body_costs_nothing(impatient: GatewayProcess, upstream: Upstream, how: str) -> None:
    with RawClient(impatient) as client:
        client.send(client.head(1000) + b'{"model": "gpt-test", ')
        client.leave(how)
    event = abandoned_event(client)
    assert (event["prompt_tokens"], event["cost_nano_usd"], event["attempts"]) == (0, 0, 0)
    assert upstream.received == 0


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("said", [b"", b"POST", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"])
def test_leaving_before_the_call_is_nobodys_business(impatient: GatewayProcess, said: bytes, how: str) -> None:
    with RawClient(impatient) as client:
        client.send(said)
        client.leave(how)
    answer_text(call(impatient))


def test_many_leave_at_once(impatient: GatewayProcess, upstream: Upstream) -> None:
    """Sixty clients vanish in every way and at every moment. Each call is closed, settled, and in the books once."""
    ways = [(moment, how) for moment in ("hang", "hang-midway", "endless-stream") for how in ("fin", "rst")] * 10
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(impatient)) for _ in ways]
        for client, (moment, _) in zip(clients, ways, strict=True):
            client.ask(f"patient/{moment}", stream=True)
        for client, (moment, _) in zip(clients, ways, strict=True):
            if moment != "hang":
                client.read_until(b"w2 ")
        upstream.wait_for_calls(len(ways))
        left_at = time.monotonic()
        for client, (_, how) in zip(clients, ways, strict=True):
            client.leave(how)
        last_left_at = time.monotonic()
    upstream.wait_until_idle()
    assert all(ended.client_left for ended in upstream.calls)
    assert all(left_at <= (ended.closed_at or 0) <= last_left_at + 1 for ended in upstream.calls)
    for client in clients:
        abandoned_event(client)


# --- it does not read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", ["silent", "a byte at a time"])
def test_client_that_does_not_read_its_stream_is_cut_off(
    impatient: GatewayProcess, upstream: Upstream, pace: str
) -> None:
    before = impatient.memory_bytes()
    upstream.next("endless-stream", delay_ms=0, text="x" * 20_000)
    with RawClient(impatient, receive_buffer=4096) as client:
        client.ask("patient/ok", stream=True)
        if pace != "silent":
            client.read_until(b"xxx")
            client.read_slowly(15, pause_s=0.05)
        ended = upstream.wait_for_end(upstream.last if upstream.calls else upstream.wait_for_calls(1)[0], 8)
        assert ended.client_left
        event = abandoned_event(client)
    # What the kernel's buffers hold, and little more: the upstream was held back.
    assert ended.bytes_sent < 24 * MEGABYTE
    assert impatient.memory_bytes() - before < 16 * MEGABYTE
    assert event["estimated"]
    assert event["completion_tokens"] > 100


def test_client_that_does_not_read_its_whole_answer_is_cut_off(impatient: GatewayProcess, upstream: Upstream) -> None:
    """It costs what it costs. Whether the last bytes were lost on the way is not known, so either status is true."""
    before = impatient.memory_bytes()
    upstream.next("big-events", mb=8)
    with RawClient(impatient, receive_buffer=4096) as client:
        client.ask("patient/ok")
        event = impatient.event_of(client.request_id)
        assert (event["prompt_tokens"], event["completion_tokens"], event["estimated"]) == (3, 3, False)
        assert (event["status"], event["error_code"]) in ((200, ""), (499, "client_disconnected"))
        time.sleep(WRITE_TIMEOUT_S + 0.3)
        assert impatient.memory_bytes() - before < 12 * MEGABYTE
        assert len(client.read_all()) < 24 * MEGABYTE


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_slow_reader_that_goes_on_gets_everything(
    impatient: GatewayProcess, upstream: Upstream, streamed: bool
) -> None:
    """Its answer takes longer than a write may, but each write gets on."""
    upstream.next("big-events", mb=4)
    with RawClient(impatient, receive_buffer=65_536) as client:
        client.ask("patient/ok", stream=streamed)
        started = time.monotonic()
        while len(client.received) < 12 * MEGABYTE:
            chunk = client.socket.recv(128 * 1024)
            assert chunk, "the gateway has closed the connection in the middle of its answer"
            client.received += chunk
            time.sleep(0.008)
        client.read_until(b"[DONE]" if streamed else b"}}}")
        assert time.monotonic() - started > WRITE_TIMEOUT_S
    event = impatient.event_of(client.request_id)
    assert (event["status"], event["completion_tokens"], event["estimated"]) == (200, 3, False)


# --- it does not write -----------------------------------------------------------------------------------------------


def seconds_until_closed(client: RawClient) -> float:
    started = time.monotonic()
    client.read_all()
    return time.monotonic() - started


def check_refused_or_closed(client: RawClient, *statuses: int) -> None:
    """What came is nothing, or one error in the one shape."""
    if not client.received:
        return
    assert client.status in statuses
    head, _, content = client.received.partition(b"\r\n\r\n")
    assert b"\nx-request-id: " in head.lower()
    assert set(orjson.loads(content)["error"]) == {"message", "type", "param", "code"}


SLOW_HEADS: dict[str, list[bytes]] = {
    "nothing": [],
    "a letter": [b"P"],
    "a line": [b"POST /v1/chat/completions HTTP/1.1\r\n"],
    "half a header": [b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthoriz"],
    "all but the end": [b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"],
    # Each letter comes soon after the last; the head as a whole does not.
    "letter by letter": [b"%c" % letter for letter in b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx: y"],
}
SLOW_BODIES: dict[str, tuple[int | None, list[bytes]]] = {
    # content-length (None: chunked), what comes of it
    "declared, nothing": (1000, []),
    "declared, a piece": (1000, [b"x"]),
    "declared, letter by letter": (1000, [b"x"] * 60),
    "chunked, nothing": (None, []),
    "chunked, a piece": (None, [b"1\r\nx\r\n"]),
    "chunked, letter by letter": (None, [b"1\r\nx\r\n"] * 60),
    "half a chunk": (None, [b"5\r\nab"]),
    "a chunk's size, letter by letter": (None, [b"0"] * 60),
}


@dataclass(frozen=True, slots=True)
class Stalled:
    """A client that was too slow: what it got, and after how many seconds."""

    client: RawClient
    seconds: float


@pytest.fixture(scope="module")
def stalled(impatient_gateway: GatewayProcess) -> dict[str, Stalled]:
    """Everybody of the two tables above, side by side."""
    starts = {what: (b"", pieces) for what, pieces in SLOW_HEADS.items()}
    with ThreadPoolExecutor(2 * (len(SLOW_HEADS) + len(SLOW_BODIES))) as threads:
        idlers = {what: RawClient(impatient_gateway) for what in [*SLOW_HEADS, *SLOW_BODIES]}
        starts |= {what: (idlers[what].head(length), pieces) for what, (length, pieces) in SLOW_BODIES.items()}

        def stall(what: str) -> Stalled:
            client, (start, pieces) = idlers[what], starts[what]
            with client:
                client.send(start)
                started = time.monotonic()
                writing = threads.submit(client.dribble, pieces, 0.05)
                with suppress(ConnectionError):
                    client.read_until(b"}}" if start else b"no mark: until it is closed")
                seconds = time.monotonic() - started
                with suppress(OSError):
                    client.socket.shutdown(socket.SHUT_RDWR)
                writing.result()
            return Stalled(client, seconds)

        return dict(zip(idlers, threads.map(stall, idlers), strict=True))


@pytest.mark.parametrize("what", SLOW_HEADS)
def test_slow_head_is_not_waited_for(stalled: dict[str, Stalled], what: str) -> None:
    assert HEADER_TIMEOUT_S - 0.1 < stalled[what].seconds < HEADER_TIMEOUT_S + SLACK_S
    check_refused_or_closed(stalled[what].client, 400, 408)


@pytest.mark.parametrize("what", SLOW_BODIES)
def test_slow_body_is_a_408(impatient_gateway: GatewayProcess, stalled: dict[str, Stalled], what: str) -> None:
    client = stalled[what].client
    assert BODY_TIMEOUT_S - 0.1 < stalled[what].seconds < BODY_TIMEOUT_S + SLACK_S
    assert client.status == 408
    check_refused_or_closed(client, 408)
    event = impatient_gateway.event_of(client.request_id)
    assert (event["status"], event["error_code"], event["attempts"]) == (408, "request_timeout", 0)


def test_second_head_on_a_connection_is_not_waited_for_either(impatient: GatewayProcess) -> None:
    with RawClient(impatient) as client:
        client.ask()
        client.read_until(b"}}}")
        client.received = b""
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost:")
        assert seconds_until_closed(client) < HEADER_TIMEOUT_S + SLACK_S
        check_refused_or_closed(client, 400, 408)


def test_kept_connection_may_be_idle_for_longer_than_a_head_may_take(impatient: GatewayProcess) -> None:
    with RawClient(impatient) as client:
        for _ in range(2):
            client.received = b""
            client.ask()
            client.read_until(b"}}}")
            assert client.status == 200
            time.sleep(HEADER_TIMEOUT_S + 0.3)


def test_endless_head_is_cut_off(impatient: GatewayProcess) -> None:
    with RawClient(impatient) as client:
        started = time.monotonic()
        client.send(b"GET /v1/models HTTP/1.1\r\n")
        client.dribble((b"x-%d: y\r\n" % number * 100 for number in range(10_000)), pause_s=0)
        client.read_all()
        assert time.monotonic() - started < HEADER_TIMEOUT_S + SLACK_S
        check_refused_or_closed(client, 400, 431)


@pytest.mark.parametrize("length", [None, 2**30], ids=["chunked", "declared"])
def test_endless_body_is_a_413_and_fills_no_memory(
    impatient: GatewayProcess, upstream: Upstream, length: int | None
) -> None:
    before = impatient.memory_bytes()
    data = b"x" * 65_536
    piece = data if length else b"%x\r\n%s\r\n" % (len(data), data)

    def send_for_ever(client: RawClient) -> None:
        client.send(client.head(length))
        client.dribble((piece for _ in range(16 * 300)), pause_s=0)
        client.read_all()

    with ExitStack() as stack, ThreadPoolExecutor(4) as threads:
        clients = [stack.enter_context(RawClient(impatient)) for _ in range(4)]
        list(threads.map(send_for_ever, clients))
    for client in clients:
        check_refused_or_closed(client, 413)
        assert impatient.event_of(client.request_id)["status"] == 413
    assert impatient.memory_bytes() - before < 64 * MEGABYTE
    assert upstream.received == 0


def test_expectation_is_met_before_the_body_is_sent(impatient: GatewayProcess) -> None:
    content = orjson.dumps(body())
    with RawClient(impatient) as client:
        client.send(client.head(len(content))[:-2] + b"expect: 100-continue\r\n\r\n")
        client.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.received = b""
        client.send(content)
        client.read_until(b"}}}")
        assert client.status == 200


def test_body_that_would_be_refused_is_not_asked_for(impatient: GatewayProcess) -> None:
    with RawClient(impatient) as client:
        client.send(client.head(2**30)[:-2] + b"expect: 100-continue\r\n\r\n")
        client.read_until(b"}}")
        assert client.status == 413


# --- it writes more than was asked for -------------------------------------------------------------------------------


def request_bytes(client: RawClient, model: str = "gpt-test", **fields: Any) -> tuple[bytes, str]:
    """A request, and its id."""
    client.request_id = new_request_id()
    content = orjson.dumps(body(model, **fields))
    return client.head(len(content)) + content, client.request_id


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_pipelined_requests_are_answered_in_their_order(
    impatient: GatewayProcess, upstream: Upstream, streamed: bool
) -> None:
    with RawClient(impatient) as client:
        slow, slow_id = request_bytes(client, "slow-first-byte", stream=streamed)
        quick, quick_id = request_bytes(client)
        client.send(slow + quick)
        client.read_until(quick_id.encode())
        client.read_until(b"}}}")
        assert client.received.count(b"HTTP/1.1 200 OK") == 2
        assert client.received.index(slow_id.encode()) < client.received.index(quick_id.encode())
    for request_id in (slow_id, quick_id):
        assert impatient.event_of(request_id)["status"] == 200


def test_pipelining_client_that_leaves_is_settled(impatient: GatewayProcess, upstream: Upstream) -> None:
    with RawClient(impatient) as client:
        first, first_id = request_bytes(client, "patient/hang-midway", stream=True)
        second, second_id = request_bytes(client)
        client.send(first + second)
        client.read_until(b"w2 ")
        left_at = time.monotonic()
        client.leave("rst")
    ended = upstream.wait_for_end(upstream.calls[0])
    assert ended.closed_at
    assert ended.closed_at - left_at < 1.0
    assert impatient.event_of(first_id)["status"] == 499
    # The second one was never answered; whether it was begun is nobody's business, as long as it is in the books then.
    assert upstream.received == 1 or impatient.event_of(second_id)["status"] in (200, 499)


def test_rude_request_behind_a_good_one_does_not_spoil_the_answer(impatient: GatewayProcess) -> None:
    with RawClient(impatient) as client:
        good, request_id = request_bytes(client, "slow-first-byte")
        client.send(good + b"\x00\x01garbage\r\n\r\n")
        client.read_all()
    assert impatient.event_of(request_id)["completion_tokens"] == 5  # it was asked for, and it was made
    received = client.received
    assert received.count(b"HTTP/1.1 ") <= 2
    assert b"HTTP/1.1 500" not in received
    if received:  # an answer that began is whole, or the connection was cut
        assert received.startswith((b"HTTP/1.1 200 OK", b"HTTP/1.1 400 "))


CANARY_MODEL = "utf8"


def canary(gateway: GatewayProcess) -> bytes:
    """A whole request that must never be executed: it is data of the request before it, or nothing at all."""
    content = orjson.dumps(body(CANARY_MODEL))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.keys['alice']}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


CHUNKED = "transfer-encoding: chunked"
JSON = b'{"model": "gpt-test", "messages": [{"role": "user", "content": "one"}]}'
ONE_CHUNK = b"%x\r\n%s\r\n" % (len(JSON), JSON)
# Headers (NUMBER is the length of everything that follows the head), and what follows before the canary.
SMUGGLING: dict[str, tuple[list[str], bytes]] = {
    "length and chunks": (["content-length: NUMBER", CHUNKED], b"0\r\n\r\n"),
    "chunks and length": ([CHUNKED, "content-length: 4"], ONE_CHUNK + b"0\r\n\r\n"),
    "two lengths": ([f"content-length: {len(JSON)}", "content-length: NUMBER"], JSON),
    "two lengths in one": ([f"content-length: {len(JSON)}, NUMBER"], JSON),
    "length with a plus": (["content-length: +NUMBER"], JSON),
    "length in hex": (["content-length: 0x10"], JSON),
    "length below zero": (["content-length: -1"], JSON),
    "length with an underscore": (["content-length: 1_0"], JSON),
    "length of two numbers": (["content-length: 10 10"], JSON),
    "length that is empty": (["content-length:"], JSON),
    "length that is no number": (["content-length: many"], JSON),
    "length that overflows": (["content-length: 18446744073709551617"], JSON),
    "chunked and something": (["transfer-encoding: chunked, identity"], ONE_CHUNK + b"0\r\n\r\n"),
    "something like chunked": (["transfer-encoding: xchunked"], ONE_CHUNK + b"0\r\n\r\n"),
    "chunked with a tab": (["transfer-encoding: chunked\x0b"], ONE_CHUNK + b"0\r\n\r\n"),
    "chunked in quotes": (['transfer-encoding: "chunked"'], ONE_CHUNK + b"0\r\n\r\n"),
    "chunked and length, folded": (["transfer-encoding:\r\n chunked", "content-length: NUMBER"], b"0\r\n\r\n"),
    "blank before the colon": (["transfer-encoding : chunked", "content-length: NUMBER"], b"0\r\n\r\n"),
    "underscore for a dash": (["transfer_encoding: chunked", "content-length: 10000000000000"], b"0\r\n\r\n"),
    "bare LF between headers": (["x: y\ntransfer-encoding: chunked", "content-length: NUMBER"], b"0\r\n\r\n"),
    "bare CR between headers": (["x: y\rtransfer-encoding: chunked", "content-length: NUMBER"], b"0\r\n\r\n"),
    "chunk size that overflows": ([CHUNKED], b"fffffffffffffffff\r\n"),
    "chunk size with a plus": ([CHUNKED], b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size in 0x": ([CHUNKED], b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size below zero": ([CHUNKED], b"-1\r\nhello\r\n0\r\n\r\n"),
    "no chunk size": ([CHUNKED], b"\r\nhello\r\n0\r\n\r\n"),
    "chunk longer than its size": ([CHUNKED], b"2\r\nhello\r\n0\r\n\r\n"),
    "bare CR in a chunk extension": ([CHUNKED], b"5;a=\rb\r\nhello\r\n0\r\n\r\n"),
    "NUL in a header": (["x: a\x00b", f"content-length: {len(JSON)}"], JSON),
    "nameless header": ([": x", f"content-length: {len(JSON)}"], JSON),
    "header without a colon": (["x", f"content-length: {len(JSON)}"], JSON),
    "odd header name": (["x(y): z", f"content-length: {len(JSON)}"], JSON),
}


@pytest.mark.parametrize("what", SMUGGLING)
def test_doubtful_framing_is_refused_and_nothing_smuggled(
    impatient: GatewayProcess, upstream: Upstream, what: str
) -> None:
    headers, content = SMUGGLING[what]
    content += canary(impatient)
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: 127.0.0.1",
        f"authorization: Bearer {cast.KEYS['alice']}",
        "content-type: application/json",
        *(header.replace("NUMBER", str(len(content))) for header in headers),
    ]
    with RawClient(impatient) as client:
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
        client.read_all()
    check_refused_or_closed(client, 400, 413)
    assert upstream.received == 0


GARBAGE = {
    "random": random.Random(1).randbytes(2000),
    "zeros": b"\x00" * 2000,
    "line ends": b"\r\n" * 1000,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.Random(2).randbytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/9.9": b"GET /v1/models HTTP/9.9\r\nhost: x\r\n\r\n",
    "no such protocol": b"GET /v1/models FTP/1.1\r\nhost: x\r\n\r\n",
    "no such method": b"BREW /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n",
    "no target": b"GET  HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n",
    "letters beyond ASCII": "GÉT /v1/modèls HTTP/1.1\r\nhöst: x\r\n\r\n".encode(),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_refused_or_closed(impatient: GatewayProcess, upstream: Upstream, what: str) -> None:
    with RawClient(impatient) as client:
        client.send(GARBAGE[what])
        assert seconds_until_closed(client) < HEADER_TIMEOUT_S + SLACK_S
        check_refused_or_closed(client, 400, 401, 404, 405, 408, 431)
    assert upstream.received == 0


def test_mutated_requests_are_answered_or_refused(impatient: GatewayProcess, upstream: Upstream) -> None:
    """Never a 5xx, never a hang: whatever a request has become, it is answered, refused, or its connection closed."""
    chance = random.Random(42)
    good = b"GET /v1/models/gpt-test HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %s\r\naccept: */*\r\n\r\n" % (
        cast.KEYS["alice"].encode()
    )

    def mutated() -> bytes:
        data = bytearray(good[:-4])
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            odd = chance.choice([b"\x00", b"\n", b"\r", b" ", b"\t", b":", b"\xff", b"\r\n ", b"%", b"/", b"\x7f", b""])
            data[at : at + chance.randint(0, 2)] = odd
        return bytes(data) + b"\r\nconnection: close\r\n\r\n"

    def send(data: bytes) -> bytes:
        with RawClient(impatient) as client:
            client.send(data)
            return client.read_all()

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(send, [mutated() for _ in range(400)]))
    statuses = {int(answer.split(b" ", 2)[1]) for answer in answers if answer}
    assert 200 in statuses
    assert statuses <= {200, 400, 401, 404, 405, 408, 431}
    answer_text(call(impatient))


def test_old_http_gets_a_stream_that_ends_with_the_connection(impatient: GatewayProcess) -> None:
    content = orjson.dumps(body(stream=True))
    with RawClient(impatient) as client:
        client.send(client.head(len(content)).replace(b"HTTP/1.1", b"HTTP/1.0") + content)
        head, _, stream = client.read_all().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"data: [DONE]\n\n")


# --- and nobody else notices -----------------------------------------------------------------------------------------


def latencies(gateway: GatewayProcess, count: int = 60) -> list[float]:
    def one() -> float:
        started = time.perf_counter()
        answer_text(call(gateway))
        return time.perf_counter() - started

    return sorted(one() for _ in range(count))


def test_other_callers_do_not_notice_fifty_that_misbehave(gateway: GatewayProcess, upstream: Upstream) -> None:
    latencies(gateway, 10)
    idle = latencies(gateway)
    upstream.next("endless-stream", times=5, delay_ms=0, text="x" * 20_000)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(gateway, receive_buffer=4096)) for _ in range(50)]
        for client in clients[:5]:
            client.ask("patient/ok", stream=True)  # and does not read it
        upstream.wait_for_calls(5)
        for client in clients[5:20]:
            client.ask("patient/hang-midway", stream=True)
        for client in clients[20:35]:
            client.send(client.head(1000) + b'{"model"')
        for client in clients[35:]:
            client.send(client.head(1000)[:40])
        upstream.wait_for_calls(20)
        time.sleep(0.5)  # until the buffers of those who do not read are full
        meanwhile = latencies(gateway)
    assert statistics.median(meanwhile) < 2 * statistics.median(idle) + 0.01
    assert meanwhile[-3] < 0.3  # all but two: the machine has other things to do as well


def test_memory_is_flat_whatever_clients_do(impatient: GatewayProcess, upstream: Upstream) -> None:
    def ordeal() -> None:
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(impatient)) for _ in range(80)]
            for client in clients[:40]:
                client.ask("patient/hang-midway", stream=True)
            for client in clients[40:]:
                client.send(client.head(5 * MEGABYTE) + b"x" * 65_536)
            for client in clients[:40]:
                client.read_until(b"w2 ")
            for client in clients:
                client.leave("rst")
        for client in clients:
            abandoned_event(client)

    ordeal()
    before = impatient.memory_bytes()
    for _ in range(3):
        ordeal()
    assert impatient.memory_bytes() - before < 5 * MEGABYTE


def test_gateway_is_as_well_as_before(impatient: GatewayProcess) -> None:
    """After all of this file."""
    assert impatient.query("SELECT * FROM usage_usageevent WHERE error_code = 'internal_error' OR status = 500") == []
    assert "Exception in ASGI application" not in impatient.log
    assert impatient.http.get("/v1/models", headers=credentials(impatient, "alice")).status_code == 200
