"""One HTTP call at the door: reading, replying, deadlines, and a client that leaves."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from proxy import call as call_module
from proxy.call import Call, Header, Message, client_left
from proxy.errors import (
    BodyTooLarge,
    BodyTooSlow,
    ClientLeft,
    GatewayError,
    InvalidRequest,
    UpstreamTimeout,
)

LEFT: Message = {"type": "http.disconnect"}
HEADERS: list[Header] = [(b"content-type", b"application/json")]


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def late() -> GatewayError:
    return UpstreamTimeout("late")


CLIENTS: list[Client] = []


class Client:
    """What the server would be: gives the messages one after the other, then waits; keeps what is sent."""

    def __init__(self, *messages: Message) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.inbox.put_nowait(message)
        self.taken = 0
        self.sent: list[Message] = []
        self.calls: list[Call] = []
        CLIENTS.append(self)

    async def receive(self) -> Message:
        message = await self.inbox.get()
        self.taken += 1
        return message

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def call(self, *headers: Header, **scope: Any) -> Call:
        usual = {"method": "POST", "path": "/v1/chat/completions", "headers": list(headers)}
        self.calls.append(Call({**usual, **scope}, self.receive, self.send))
        return self.calls[-1]

    def leave(self) -> None:
        self.inbox.put_nowait(LEFT)

    @property
    def reply_headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def reply_body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "TICK_S", 0.01)
    monkeypatch.setattr(call_module, "LINGER_S", 0.05)


async def interrupted(call: Call, wait: Callable[[], Awaitable[Any]] | None = None) -> GatewayError:
    """What interrupts a call that waits (for ever, unless `wait` says otherwise)."""
    try:
        async with asyncio.timeout(10):
            await (wait() if wait else asyncio.Event().wait())
    except asyncio.CancelledError:
        return call.interruption()
    raise AssertionError("it was not interrupted")


@pytest.fixture(autouse=True)
async def over() -> AsyncIterator[None]:
    """Ends the calls of the test, as the door does. The timer of one that went on would begin to watch its client while
    the loop is closed, and a later test would be blamed for it."""
    yield
    for client in CLIENTS:
        for call in client.calls:
            call.end()
    CLIENTS.clear()


# --- who calls what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [b"a", b"order-4711", b"x" * 128, b"00-4bf9:2f/3=+@._"])
async def test_well_formed_request_id_is_the_callers(given: bytes) -> None:
    assert Client().call((b"x-request-id", given)).request_id == given.decode()


@pytest.mark.parametrize(
    "given", [b"", b" a", b"x" * 129, b"a b", b"a\r\nb", b"\xe9", b"a,b", b'"', b"<script>", b"a\n"]
)
async def test_other_request_id_is_replaced(given: bytes) -> None:
    call = Client().call((b"x-request-id", given))
    assert call.request_id == f"req_{call.id}"
    assert re.fullmatch(r"req_[0-9a-f-]{32,36}", call.request_id)


async def test_every_call_has_an_id_of_its_own_and_they_grow() -> None:
    ids = [Client().call().id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids[0] < ids[-1] or ids[0][:12] == ids[-1][:12]


async def test_header_that_comes_twice_is_joined() -> None:
    call = Client().call((b"x-tag", b"a"), (b"x-other", b"o"), (b"x-tag", b"b"), (b"x-tag", b"c"))
    assert call.headers == {b"x-tag": b"a, b, c", b"x-other": b"o"}


async def test_request_id_that_comes_twice_is_replaced() -> None:
    call = Client().call((b"x-request-id", b"a"), (b"x-request-id", b"b"))
    assert call.request_id == f"req_{call.id}"


async def test_header_may_hold_any_byte() -> None:
    assert Client().call((b"x-tag", bytes(range(0x80, 0x100)))).header(b"x-tag") == bytes(range(0x80, 0x100)).decode(
        "latin-1"
    )
    assert Client().call().header(b"x-tag") == ""


# --- reading the body ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        [part(b"abcd")],
        [part(b"ab", more=True), part(b"cd")],
        [part(b"ab", more=True), part(b"cd", more=True), part(b"")],
    ],
)
async def test_body_is_read_whole(parts: list[Message]) -> None:
    assert await Client(*parts).call().read_body(4, 1) == b"abcd"


async def test_body_that_says_it_is_too_large_is_refused_unread() -> None:
    client = Client(part(b"abcde"))
    with pytest.raises(BodyTooLarge, match="4 bytes"):
        await client.call((b"content-length", b"5")).read_body(4, 1)
    assert client.taken == 0


async def test_body_that_is_too_large_is_refused_as_soon_as_it_is() -> None:
    client = Client(*[part(b"abc", more=True)] * 10)
    with pytest.raises(BodyTooLarge):
        await client.call().read_body(4, 1)
    assert client.taken == 2


async def test_body_that_lies_about_its_length_is_measured() -> None:
    with pytest.raises(BodyTooLarge):
        await Client(part(b"abcde")).call((b"content-length", b"1")).read_body(4, 1)


@pytest.mark.parametrize("length", [b"", b"-1", b"1, 1", b"0x10", b"1e3", b"\xb2"])
async def test_length_that_is_no_number_is_refused(length: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await Client(part(b"a")).call((b"content-length", length)).read_body(4, 1)


async def test_body_that_does_not_come_in_time_is_refused() -> None:
    began = time.monotonic()
    with pytest.raises(BodyTooSlow):
        await Client(part(b"a", more=True)).call().read_body(4, 0.05)
    assert time.monotonic() - began < 1


async def test_client_that_leaves_while_it_sends_has_left() -> None:
    call = Client(part(b"a", more=True), LEFT).call()
    with pytest.raises(ClientLeft):
        await call.read_body(4, 1)
    assert call.client_gone


# --- replying --------------------------------------------------------------------------------------------------------


async def test_reply_has_length_request_id_and_what_was_added() -> None:
    client = Client()
    call = client.call((b"x-request-id", b"order-4711"))
    call.extra_headers.append((b"vary", b"origin"))
    await call.reply(404, list(HEADERS), b"{}")
    assert client.sent[0]["status"] == 404
    expected = {b"content-length": b"2", b"x-request-id": b"order-4711", b"vary": b"origin", **dict(HEADERS)}
    assert client.reply_headers == expected
    assert (client.reply_body, client.sent[-1]["more_body"]) == (b"{}", False)
    assert (call.status, call.replied) == (404, True)
    assert call.first_byte_us is not None


async def test_small_body_that_nobody_read_is_read_away_and_the_connection_kept() -> None:
    client = Client(part(b"abc"))
    await client.call((b"content-length", b"3")).reply(401, list(HEADERS), b"{}")
    assert client.taken == 1
    assert b"connection" not in client.reply_headers


@pytest.mark.parametrize("header", [(b"content-length", b"1000000"), (b"transfer-encoding", b"chunked")])
async def test_large_body_that_nobody_read_ends_the_connection_once_the_client_had_time_to_read(header: Header) -> None:
    client = Client(*[part(b"x" * 1000, more=True)] * 5, part(b""))
    await client.call(header).reply(413, list(HEADERS), b"{}")
    assert client.reply_headers[b"connection"] == b"close"
    assert client.reply_body == b"{}"
    assert client.taken == 6


async def test_body_that_never_ends_is_not_read_for_ever() -> None:
    client = Client(part(b"x", more=True))
    began = time.monotonic()
    await client.call((b"transfer-encoding", b"chunked")).reply(413, list(HEADERS), b"{}")
    assert time.monotonic() - began < 1
    assert client.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_rest_of_a_body_is_waited_for_no_longer_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "LINGER_S", 30)
    for last in (part(b""), LEFT):
        client = Client(part(b"x", more=True), last)
        async with asyncio.timeout(10):
            await client.call((b"transfer-encoding", b"chunked")).reply(413, list(HEADERS), b"{}")
        assert client.taken == 2


async def test_body_that_came_too_late_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_module, "LINGER_S", 30)
    client = Client(part(b"x", more=True))
    call = client.call((b"content-length", b"100"))
    with pytest.raises(BodyTooSlow):
        await call.read_body(1000, 0.02)
    async with asyncio.timeout(10):
        await call.reply(408, list(HEADERS), b"{}")
    assert client.reply_headers[b"connection"] == b"close"
    call.end()


async def test_reply_after_the_body_was_read_keeps_the_connection() -> None:
    client = Client(part(b"abc"))
    call = client.call((b"transfer-encoding", b"chunked"))
    await call.read_body(10, 1)
    await call.reply(200, list(HEADERS), b"{}")
    assert b"connection" not in client.reply_headers


async def test_connection_is_cut_where_the_server_lends_a_way() -> None:
    cut = []
    extensions = {"gatehouse.abort": {"abort": lambda: cut.append(True)}}
    Client().call(extensions=extensions).abort()
    assert cut == [True]
    Client().call().abort()
    Client().call(extensions=None).abort()


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_task_that_does_not_get_on_in_time_is_interrupted_with_the_error_of_its_phase() -> None:
    call = Client().call()
    call.expect(0.03, late)
    began = time.monotonic()
    assert isinstance(await interrupted(call), UpstreamTimeout)
    assert 0.02 < time.monotonic() - began < 0.5
    call.end()


async def test_next_phase_replaces_the_deadline_of_the_one_before() -> None:
    call = Client().call()
    call.expect(0.02, late)
    call.expect(30, client_left)
    await asyncio.sleep(0.06)
    call.expect(0.02, client_left)
    assert isinstance(await interrupted(call), ClientLeft)
    call.end()


async def test_each_piece_of_progress_gives_new_time() -> None:
    call = Client().call()
    for _ in range(6):
        call.expect(0.6, late)
        await asyncio.sleep(0.12)
    call.end()


async def test_task_goes_on_after_an_interruption_as_if_nothing_had_been() -> None:
    call = Client().call()
    call.expect(0.01, late)
    await interrupted(call)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.02)
    call.expect(0.01, late)
    assert isinstance(await interrupted(call), UpstreamTimeout)
    call.end()


async def test_call_that_is_over_is_not_interrupted() -> None:
    client = Client(part(b"x"))
    call = client.call()
    await call.read_body(4, 1)
    call.expect(0.01, late)
    call.end()
    client.leave()
    call.interrupt(late())
    await asyncio.sleep(0.05)
    assert not call.client_gone


async def test_call_that_is_over_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    client = Client()
    call = await waiting_call(client)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() > before, "somebody watches for the client"
    call.end()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_first_interruption_counts() -> None:
    call = Client().call()
    call.expect(30, late)
    call.interrupt(client_left())
    call.interrupt(late())
    assert isinstance(await interrupted(call), ClientLeft)
    call.end()


async def test_cancellation_that_is_not_ours_goes_on() -> None:
    async def serve() -> None:
        call = Client().call()
        call.expect(30, late)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise call.interruption() from None
        finally:
            call.end()

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- the client leaves -----------------------------------------------------------------------------------------------


async def waiting_call(client: Client) -> Call:
    """A call whose body is read, and that waits for its provider."""
    client.inbox.put_nowait(part(b"{}"))
    call = client.call()
    await call.read_body(100, 1)
    call.expect(30, late)
    return call


async def test_client_that_leaves_interrupts_the_call() -> None:
    client = Client()
    call = await waiting_call(client)
    client.leave()
    began = time.monotonic()
    assert isinstance(await interrupted(call), ClientLeft)
    assert time.monotonic() - began < 0.5
    assert call.client_gone
    call.end()


async def test_detached_call_goes_on_without_its_client() -> None:
    client = Client()
    call = await waiting_call(client)
    call.detached_limit_s = 5
    client.leave()
    await asyncio.sleep(0.05)
    assert call.client_gone
    call.end()


async def test_detached_call_goes_on_for_its_limit_only() -> None:
    client = Client()
    call = await waiting_call(client)
    call.detached_limit_s = 0.05
    client.leave()
    assert isinstance(await interrupted(call), ClientLeft)
    call.end()


async def test_detached_call_gets_no_more_time_from_a_new_phase() -> None:
    client = Client()
    call = await waiting_call(client)
    call.detached_limit_s = 0.1

    async def get_on() -> None:
        while True:
            call.expect(30, late)
            await asyncio.sleep(0.01)

    client.leave()
    began = time.monotonic()
    assert isinstance(await interrupted(call, get_on), ClientLeft)
    assert time.monotonic() - began < 1
    call.end()


async def test_deadline_of_the_provider_still_holds_for_a_detached_call() -> None:
    client = Client()
    call = await waiting_call(client)
    call.detached_limit_s = 5
    client.leave()
    await asyncio.sleep(0.03)
    call.expect(0.03, late)
    assert isinstance(await interrupted(call), UpstreamTimeout)
    call.end()


async def test_server_that_says_goodbye_after_the_reply_is_not_a_client_that_left() -> None:
    client = Client()
    call = await waiting_call(client)
    await call.reply(200, list(HEADERS), b"{}")
    client.leave()
    await asyncio.sleep(0.05)
    assert not call.client_gone
    call.end()


# --- relaying a stream -----------------------------------------------------------------------------------------------


async def relayed(call: Call, turns: int, pause_s: float, *, stuck_sending: bool = False) -> None:
    """Turns between reading and writing, then is stuck in one of the two."""
    for _ in range(turns):
        call.progress += 1
        call.sending = not call.sending
        await asyncio.sleep(pause_s)
    call.sending = stuck_sending
    await asyncio.Event().wait()


async def test_provider_that_falls_silent_is_given_up() -> None:
    call = await waiting_call(Client())
    call.relaying(0.05, late, 5)
    assert isinstance(await interrupted(call, lambda: relayed(call, 4, 0)), UpstreamTimeout)
    call.end()


async def test_client_that_stops_reading_is_given_up() -> None:
    call = await waiting_call(Client())
    call.relaying(5, late, 0.05)
    assert isinstance(await interrupted(call, lambda: relayed(call, 4, 0, stuck_sending=True)), ClientLeft)
    call.end()


async def test_stream_that_moves_is_left_alone_however_long_it_takes() -> None:
    call = await waiting_call(Client())
    call.relaying(0.6, late, 0.6)
    began = time.monotonic()
    assert isinstance(await interrupted(call, lambda: relayed(call, 10, 0.08)), UpstreamTimeout)
    assert time.monotonic() - began > 10 * 0.08 + 0.5
    call.end()


async def test_client_that_leaves_interrupts_a_stream() -> None:
    client = Client()
    call = await waiting_call(client)
    call.relaying(30, late, 30)
    client.leave()
    assert isinstance(await interrupted(call, lambda: relayed(call, 10_000, 0.005)), ClientLeft)
    call.end()


async def test_phase_after_the_stream_has_a_deadline_again() -> None:
    call = await waiting_call(Client())
    call.relaying(30, late, 30)
    call.expect(0.03, client_left)
    assert isinstance(await interrupted(call), ClientLeft)
    call.end()
