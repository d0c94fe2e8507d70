"""The HTTP server against clients that misbehave: what a request may look like, how long it may take to arrive."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway_project import server
from gateway_project.server import OPTIONS, Protocol

GET = b"GET /plain HTTP/1.1\r\nhost: x\r\n\r\n"
MEGABYTE = 1024 * 1024


class Application:
    """What the gateway would be: tells what it was asked, or does what the path says."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.go = asyncio.Event()

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope in self.scopes]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        what = getattr(self, scope["path"].strip("/"), self.plain)
        await what(scope, receive, send)

    async def plain(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]]
        answer = orjson.dumps({"path": scope["path"], "headers": headers, "body_bytes": len(body)})
        await self._reply(send, answer)

    async def wait(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answers when the test says so, or notices that the client has left."""
        await receive()
        gone = asyncio.create_task(receive())
        going = asyncio.create_task(self.go.wait())
        await asyncio.wait([gone, going], return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.set()
        for task in (gone, going):
            task.cancel()
        if not self.left.is_set():
            await self._reply(send, b'{"path":"/wait"}')

    async def stream(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """An answer in pieces, of which nobody knows how many will come."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in (b"data: a\n\n", b"data: b\n\n"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def cut(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Begins an answer, then cuts the connection."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        scope["extensions"]["gatehouse.abort"]["abort"]()

    @staticmethod
    async def _reply(send: Any, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Client:
    """A connection to the server on which anything can be written."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body. Raises asyncio.IncompleteReadError when the server closes."""
        async with asyncio.timeout(5):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split(" ")[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the server closes; a reset counts as that."""
        async with asyncio.timeout(5):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_HEADER_BYTES", 4096)
    monkeypatch.setattr(server, "HEADER_TIMEOUT_S", 0.2)


@pytest.fixture
async def application() -> Application:
    return Application()


@pytest.fixture
async def connect(limits: None, application: Application) -> AsyncIterator[Any]:
    """connect(): a new connection to a server with our protocol."""
    config = uvicorn.Config(application, **{**OPTIONS, "lifespan": "off", "loop": "asyncio"})
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = listening.sockets[0].getsockname()[1]
    clients: list[Client] = []

    async def make() -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    listening.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.gather(*state.tasks, return_exceptions=True)
    await listening.wait_closed()


@pytest.fixture
async def client(connect: Any) -> Client:
    return await connect()


def check_refused(answer: tuple[int, dict[str, str], bytes], status: int, code: str | None) -> None:
    assert answer[0] == status
    assert (answer[1]["content-type"], answer[1]["connection"]) == ("application/json", "close")
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer[1]["x-request-id"])
    error = orjson.loads(answer[2])["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, None)
    assert error["message"]


# --- proper requests -------------------------------------------------------------------------------------------------


async def test_request_is_answered_and_the_connection_kept(client: Client) -> None:
    for _ in range(3):
        await client.send(GET)
        status, headers, body = await client.answer()
        assert (status, orjson.loads(body)["path"]) == (200, "/plain")
        assert "server" not in headers


async def test_large_body_is_not_taken_for_a_large_head(client: Client) -> None:
    await client.send(b"POST /plain HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % MEGABYTE + b"x" * MEGABYTE)
    assert orjson.loads((await client.answer())[2])["body_bytes"] == MEGABYTE
    await client.send(GET)
    assert (await client.answer())[0] == 200


async def test_head_may_come_byte_by_byte(client: Client, application: Application) -> None:
    for byte in GET:
        await client.send(bytes([byte]))
    assert (await client.answer())[0] == 200
    assert application.paths == ["/plain"]


async def test_requests_that_are_sent_at_once_are_answered_in_order(client: Client) -> None:
    paths = [b"/a", b"/b", b"/c"]
    await client.send(b"".join(GET.replace(b"/plain", path) for path in paths))
    assert [orjson.loads((await client.answer())[2])["path"] for _ in paths] == ["/a", "/b", "/c"]


async def test_http_1_0_is_answered_and_closed(client: Client) -> None:
    await client.send(b"GET /plain HTTP/1.0\r\n\r\n")
    assert (await client.answer())[0] == 200
    assert await client.rest() == b""


@pytest.mark.parametrize("connection", [b"", b"connection: keep-alive\r\n"])
async def test_stream_over_http_1_0_ends_with_the_connection(client: Client, connection: bytes) -> None:
    await client.send(b"GET /stream HTTP/1.0\r\n" + connection + b"\r\n")
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    assert body == b"data: a\n\ndata: b\n\n"
    assert b"chunked" not in head


async def test_stream_over_http_1_1_comes_in_chunks_and_the_connection_is_kept(client: Client) -> None:
    await client.send(GET.replace(b"/plain", b"/stream") + GET)
    async with asyncio.timeout(5):
        received = await client._reader.readuntil(b"0\r\n\r\n")
    assert received.endswith(b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n")
    assert (await client.answer())[0] == 200


async def test_client_that_leaves_is_noticed(client: Client, application: Application) -> None:
    await client.send(GET.replace(b"/plain", b"/wait"))
    while not application.scopes:
        await asyncio.sleep(0.01)
    client.close()
    async with asyncio.timeout(2):
        await application.left.wait()


async def test_client_that_leaves_takes_its_waiting_requests_along(client: Client, application: Application) -> None:
    await client.send(GET.replace(b"/plain", b"/wait") + GET + GET)
    while not application.scopes:
        await asyncio.sleep(0.01)
    client.close()
    async with asyncio.timeout(2):
        await application.left.wait()
    await asyncio.sleep(0.05)
    assert application.paths == ["/wait"]


async def test_data_plane_may_cut_a_connection(client: Client) -> None:
    await client.send(GET.replace(b"/plain", b"/cut"))
    assert (await client.rest()).endswith((b"half", b""))


# --- the head is limited ---------------------------------------------------------------------------------------------

FIRST = b"GET /plain HTTP/1.1\r\nhost: x\r\n"
TOO_LARGE = {
    "one header": FIRST + b"x-long: " + b"x" * 5000 + b"\r\n\r\n",
    "one header that does not end": FIRST + b"x-long: " + b"x" * 5000,
    "one name that does not end": FIRST + b"x" * 5000,
    "many headers": FIRST + b"".join(b"x-%d: %s\r\n" % (number, b"x" * 100) for number in range(60)) + b"\r\n",
    "more headers than anybody needs": FIRST + b"a:b\r\n" * 150 + b"\r\n",
    "a head before a body": FIRST.replace(b"GET", b"POST")
    + b"x-long: "
    + b"x" * 5000
    + b"\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("request_bytes", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_head_that_is_too_large_is_refused(
    client: Client, application: Application, request_bytes: bytes
) -> None:
    await client.send(request_bytes)
    check_refused(await client.answer(), 431, "request_header_too_large")
    assert await client.rest() == b""
    assert application.scopes == []


async def test_endless_head_is_cut_off_early(client: Client, application: Application) -> None:
    await client.send(FIRST)
    sent = 0
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        for _ in range(1000):
            await client.send(b"x-more: " + b"x" * 1000 + b"\r\n")
            sent += 1
            await asyncio.sleep(0)
        await client.answer()
        raise ConnectionResetError
    assert sent < 1000
    assert application.scopes == []


async def test_head_of_the_next_request_is_limited_too(client: Client) -> None:
    await client.send(GET)
    await client.answer()
    await client.send(TOO_LARGE["one header"])
    check_refused(await client.answer(), 431, "request_header_too_large")


@pytest.mark.parametrize("path", [b"/" + b"x" * 9000, b"/?" + b"x" * 9000])
async def test_url_that_is_too_long_is_refused(
    client: Client, application: Application, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(server, "MAX_HEADER_BYTES", 32 * 1024)
    await client.send(GET.replace(b"/plain", path))
    check_refused(await client.answer(), 414, None)
    assert application.scopes == []


# --- the head is timed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nx-half: "])
async def test_head_that_does_not_come_ends_the_connection(
    client: Client, application: Application, begun: bytes
) -> None:
    if begun:
        await client.send(begun)
    began = time.monotonic()
    assert await client.rest() == b""
    assert 0.1 < time.monotonic() - began < 2
    assert application.scopes == []


async def test_head_that_dribbles_in_gets_no_more_time(client: Client) -> None:
    await client.send(FIRST)
    began = time.monotonic()
    with pytest.raises(ConnectionError):
        while time.monotonic() - began < 3:
            await client.send(b"x-drop: x\r\n")
            await asyncio.sleep(0.02)
    assert time.monotonic() - began < 2


async def test_kept_connection_may_rest_longer_than_a_head_may_take(client: Client) -> None:
    await client.send(GET)
    await client.answer()
    await asyncio.sleep(0.4)
    await client.send(GET)
    assert (await client.answer())[0] == 200


async def test_head_of_the_next_request_is_timed_too(client: Client) -> None:
    await client.send(GET)
    await client.answer()
    await client.send(b"GET / HT")
    began = time.monotonic()
    assert await client.rest() == b""
    assert time.monotonic() - began < 2


async def test_slow_answer_is_not_a_slow_head(client: Client, application: Application) -> None:
    await client.send(GET.replace(b"/plain", b"/wait"))
    await asyncio.sleep(0.4)
    application.go.set()
    assert (await client.answer())[0] == 200


# --- what is no HTTP -------------------------------------------------------------------------------------------------

POST = b"POST /plain HTTP/1.1\r\nhost: x\r\n"
NO_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2 without an upgrade": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"BREW /plain HTTP/1.1\r\nhost: x\r\n\r\n",
    "version of tomorrow": b"GET /plain HTTP/9.9\r\nhost: x\r\n\r\n",
    "blank in the target": b"GET /plain x HTTP/1.1\r\nhost: x\r\n\r\n",
    "nul in the target": b"GET /pl\x00ain HTTP/1.1\r\nhost: x\r\n\r\n",
    "blank before the colon": POST + b"content-length : 2\r\n\r\n{}",
    "header without a colon": POST + b"nonsense\r\n\r\n",
    "header without a name": POST + b": x\r\n\r\n",
    "header name with a blank": POST + b"x y: z\r\n\r\n",
    "nul in a header": POST + b"x-a: b\x00c\r\n\r\n",
    "bare carriage return in a header": POST + b"x-a: b\rc\r\n\r\n",
}
# Requests whose length two readers may see differently: whoever takes them can be made to smuggle others.
SMUGGLED = {
    "both a length and chunks": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "length with a sign": POST + b"content-length: +2\r\n\r\n{}",
    "length in hex": POST + b"content-length: 0x2\r\n\r\n{}",
    "length below nothing": POST + b"content-length: -1\r\n\r\n",
    "length that overflows": POST + b"content-length: 99999999999999999999999\r\n\r\n",
    "chunks that are not the last coding": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding after a line break": POST + b"transfer-encoding:\n chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", [*NO_HTTP.values(), *SMUGGLED.values()], ids=[*NO_HTTP, *SMUGGLED])
async def test_what_is_no_http_is_refused_and_nothing_after_it_is_read(
    client: Client, application: Application, request_bytes: bytes
) -> None:
    await client.send(request_bytes + GET.replace(b"/plain", b"/smuggled"))
    check_refused(await client.answer(), 400, None)
    assert await client.rest() == b""
    assert "/smuggled" not in application.paths


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nx\r\n0\r\n\r\n", b"-1\r\n", b"2\r\nabcd\r\n0\r\n\r\n", b"fffffffffffffffff\r\nx"]
)
async def test_broken_chunk_ends_the_connection(client: Client, application: Application, chunks: bytes) -> None:
    await client.send(POST + b"transfer-encoding: chunked\r\n\r\n")
    await asyncio.sleep(0.02)
    await client.send(chunks + GET.replace(b"/plain", b"/smuggled"))
    await client.rest()
    assert "/smuggled" not in application.paths


@pytest.mark.parametrize("coding", [b"xchunked", b"gzip", b"chunked, gzip", b"chunked, chunked"])
async def test_body_in_another_coding_ends_the_connection(
    client: Client, application: Application, coding: bytes
) -> None:
    await client.send(POST + b"transfer-encoding: %s\r\n\r\n0\r\n\r\n" % coding + GET.replace(b"/plain", b"/smuggled"))
    assert b" 200 " not in await client.rest()
    assert "/smuggled" not in application.paths


async def test_garbage_after_a_request_does_not_get_into_its_answer(client: Client, application: Application) -> None:
    await client.send(GET.replace(b"/plain", b"/wait"))
    while not application.scopes:
        await asyncio.sleep(0.01)
    await client.send(b"garbage\r\n\r\n")
    assert await client.rest() == b""


async def test_refused_client_that_goes_on_sending_is_not_listened_to(client: Client, application: Application) -> None:
    with pytest.raises(ConnectionError):
        await client.send(NO_HTTP["garbage"])
        for _ in range(1000):
            await client.send(GET * 100)
            await asyncio.sleep(0)
    assert application.scopes == []


# --- trailers --------------------------------------------------------------------------------------------------------

CHUNKED = b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"


async def test_what_follows_the_last_chunk_is_no_header(client: Client) -> None:
    """Whoever stands in front of us has looked at the headers, not at this."""
    await client.send(POST + CHUNKED + b"authorization: Bearer x\r\nx-forwarded-for: 10.0.0.1\r\n\r\n")
    headers = dict(orjson.loads((await client.answer())[2])["headers"])
    assert headers == {"host": "x", "transfer-encoding": "chunked"}
    await client.send(GET)
    assert (await client.answer())[0] == 200


async def test_body_may_come_in_many_small_chunks(client: Client) -> None:
    await client.send(POST + b"transfer-encoding: chunked\r\n\r\n" + b"1;a=b\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert orjson.loads((await client.answer())[2])["body_bytes"] == 20_000
    await client.send(GET)
    assert (await client.answer())[0] == 200


async def test_what_is_written_beside_a_chunks_size_does_not_go_on_for_ever(client: Client) -> None:
    await client.send(POST + b"transfer-encoding: chunked\r\n\r\n1;x=")
    with pytest.raises(ConnectionError):
        for _ in range(400):
            await client.send(b"y" * 5000)
            await asyncio.sleep(0)


ENDLESS_TRAILERS = {
    "many": (b"", b"a:b\r\n" * 1000),
    "one value": (b"x: ", b"y" * 5000),
    "one name": (b"", b"x" * 5000),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS_TRAILERS.values(), ids=ENDLESS_TRAILERS)
async def test_what_follows_the_last_chunk_does_not_fill_the_memory(
    client: Client, application: Application, begin: bytes, more: bytes
) -> None:
    await client.send(POST + CHUNKED + begin)
    sent = 0
    with pytest.raises(ConnectionError):
        for _ in range(400):
            await client.send(more)
            sent += 5000
            await asyncio.sleep(0)
    assert sent < 500_000
    assert all(len(scope["headers"]) == 2 for scope in application.scopes)
