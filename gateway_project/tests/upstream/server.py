"""The upstream itself: a real HTTP/1.1 server on raw sockets, so that it can misbehave at the level of bytes.

`Upstream` runs in a thread of the test's process with an event loop of its own; `python -m
gateway_project.tests.upstream` is a process of its own (for soak tests), with the books at /control/books.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway_project.tests.upstream import answers, behaviours
from gateway_project.tests.upstream.answers import Options, compact
from gateway_project.tests.upstream.books import ANSWERED, CLIENT_CLOSED, CLIENT_RESET, CUT, Books, Call
from gateway_project.tests.upstream.turn import Turn, arm_reset

KEEP_CALLS = 20_000
CONTROL = "/control/"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


class Server:
    """Everything that outlives a connection: books, script, who is connected. Lives in one event loop."""

    def __init__(self, keep: int = KEEP_CALLS) -> None:
        self._keep = keep
        self.books = Books(keep)
        self.script: deque[tuple[str, Options]] = deque()
        self.failures: list[BaseException] = []
        self.connections: set[Connection] = set()
        self.connections_made = 0
        self.origin = ""
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=4096)
        self.origin = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        turns = [connection.turn for connection in self.connections if connection.turn]
        for connection in list(self.connections):
            connection.abandon()
        await asyncio.gather(*turns, return_exceptions=True)
        await asyncio.sleep(0)

    def reset(self) -> None:
        """New books, empty script. Calls that are still open stay in the old books."""
        self.books = Books(self._keep)
        self.script.clear()
        self.failures.clear()

    def plan(self, name: str, options: Options, times: int = 1) -> None:
        """Raises KeyError when no behaviour has that name."""
        behaviours.find(name, options)
        self.script.extend([(name, options)] * times)

    def choose(self, model: str) -> tuple[str, Options]:
        """The script comes first; then what the model's name says."""
        if self.script:
            return self.script.popleft()
        _, _, wish = model.partition(":")
        name, _, query = wish.partition("?")
        return name or "ok", Options.parse(query)

    def control(self, verb: str, body: bytes) -> dict[str, Any]:
        if verb == "next":
            wish = json.loads(body)
            self.plan(wish["name"], Options(wish.get("options")), wish.get("times", 1))
        elif verb == "reset":
            self.reset()
        return self.books.totals()


class Connection(asyncio.Protocol):
    """One client connection: reads requests one after the other, runs a turn for each."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.turn: asyncio.Task[None] | None = None
        self.dies_on_next = ""
        self.number = 0
        self._buffer = bytearray()
        self._continued = False
        self._end: Callable[[str], None] | None = None
        self._room: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)
        self.server.connections_made += 1
        self.number = self.server.connections_made
        # A write counts as sent when the kernel has it, so nothing is buffered here.
        transport.set_write_buffer_limits(high=0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def socket(self) -> socket.socket:
        raw: socket.socket = self.transport.get_extra_info("socket")
        return raw

    def data_received(self, data: bytes) -> None:
        if self.dies_on_next and self.turn is None:
            self.server.books.drop()
            self.close(reset=self.dies_on_next == "reset")
            return
        self._buffer += data
        if self.turn is None:
            self._next_request()

    def eof_received(self) -> bool:
        self._client_left(CLIENT_CLOSED)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._client_left(CLIENT_RESET if error else CLIENT_CLOSED)
        self.server.connections.discard(self)

    def pause_writing(self) -> None:
        self._room = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._room and not self._room.done():
            self._room.set_result(None)
        self._room = None

    async def write(self, data: bytes) -> None:
        if self.transport.is_closing():
            # Nobody reads any more; connection_lost comes with the next turn of the loop and cancels us.
            await asyncio.Event().wait()
        self.transport.write(data)
        if self._room:
            await self._room

    def close(self, reset: bool = False) -> None:
        """FIN after what was written, or RST at once."""
        if self.transport.is_closing():
            return
        if reset:
            arm_reset(self.socket)
            self.transport.abort()
        else:
            self.transport.close()

    def abandon(self) -> None:
        if self.turn:
            self.turn.cancel()
        self.transport.abort()

    def _client_left(self, how: str) -> None:
        if self.turn and self._end:
            self._end(how)
            self.turn.cancel()

    def _next_request(self) -> None:
        request = self._parse()
        if request is None or self.transport.is_closing():
            return
        if request.path.startswith(CONTROL):
            body = compact(self.server.control(request.path.removeprefix(CONTROL), request.body))
            self.transport.write(_json_answer(body))
            self._next_request()
            return
        self.turn = asyncio.get_running_loop().create_task(self._run(request))

    async def _run(self, request: Request) -> None:
        books = self.server.books
        asked = _json_object(request.body)
        model = _deployment(request.path) or str(asked.get("model", ""))
        name, options = self.server.choose(model)
        call = Call(
            number=books.received + 1,
            connection=self.number,
            method=request.method,
            path=request.target,
            headers=request.headers,
            body=request.body,
            model=model,
            behaviour=name,
        )
        books.open(call)
        self._end = lambda how: books.close(call, how)
        try:
            await self._answer(call, books, asked, name, options)
            books.close(call, ANSWERED)
        except asyncio.CancelledError:
            # The client left, or the server stops: either way nobody waits for this task's word.
            books.close(call, CUT)
        except Exception as error:
            self.server.failures.append(error)
            self.close(reset=True)
        finally:
            self.turn = self._end = None
        if self._buffer:
            self._next_request()

    async def _answer(self, call: Call, books: Books, asked: Any, name: str, options: Options) -> None:
        known = answers.dialect(call.path.partition("?")[0])
        dialect = known or answers.ChatAnswer
        try:
            if known is None:
                name = "404"
            behave, options = behaviours.find(name, options)
        except KeyError:
            behave, options = behaviours.find("404", options)
        turn = Turn(self, books, call, dialect, asked, options)
        try:
            await behave(turn)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError):
            # A body that makes no sense to it: like a real provider it says so, as long as it still can.
            if call.bytes_sent:
                raise
            await behaviours.BEHAVIOURS["error"](Turn(self, books, call, dialect, {}, Options({"status": 400})))

    def _parse(self) -> Request | None:
        """The next whole request of the buffer; None: not all here yet."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        headers = [(name, value.strip()) for name, _, value in pairs]
        lookup = {name.lower(): value for name, value in headers}
        if lookup.get("expect", "").lower() == "100-continue" and not self._continued:
            self._continued = True
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, used = self._body(end + 4, lookup)
        if used < 0:
            return None
        del self._buffer[:used]
        self._continued = False
        method, target, _ = first.split(" ", 2)
        return Request(method, target, headers, body)

    def _body(self, start: int, headers: dict[str, str]) -> tuple[bytes, int]:
        """The body and where it ends in the buffer; -1: not all here yet."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(start)
        end = start + int(headers.get("content-length", 0))
        return (bytes(self._buffer[start:end]), end) if len(self._buffer) >= end else (b"", -1)

    def _chunks(self, at: int) -> tuple[bytes, int]:
        body = bytearray()
        while (line_end := self._buffer.find(b"\r\n", at)) >= 0:
            size = int(bytes(self._buffer[at:line_end]).split(b";")[0], 16)
            end = line_end + 2 + size
            if len(self._buffer) < end + 2:
                break
            body += self._buffer[line_end + 2 : end]
            at = end + 2
            if size == 0:
                return bytes(body), at
        return b"", -1


class Upstream:
    """The server in a thread, and a test's handle on it. `with Upstream() as upstream: ...`"""

    def __init__(self, port: int = 0, keep: int = KEEP_CALLS) -> None:
        self._server = Server(keep)
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    def __enter__(self) -> Upstream:
        self._thread.start()
        self._do(self._server.start(self._port))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    @property
    def origin(self) -> str:
        """Such as http://127.0.0.1:40001, without a path."""
        return self._server.origin

    @property
    def url(self) -> str:
        """The base URL as OpenAI's: with /v1."""
        return f"{self._server.origin}/v1"

    @property
    def books(self) -> Books:
        return self._server.books

    @property
    def calls(self) -> list[Call]:
        """The calls since the last reset, oldest first."""
        return list(self._server.books.calls)

    @property
    def last(self) -> Call:
        return self._server.books.calls[-1]

    @property
    def received(self) -> int:
        return self._server.books.received

    @property
    def failures(self) -> list[BaseException]:
        """What went wrong in the upstream itself, against its script."""
        return self._server.failures

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._server.connections)

    def next(self, name: str, *, times: int = 1, **options: object) -> None:
        """The next call (or the next few) is answered so, whatever its model's name says. Raises KeyError."""
        self._server.plan(name, Options(options), times)

    def reset(self) -> None:
        self._loop.call_soon_threadsafe(self._server.reset)
        self._do(asyncio.sleep(0))

    def wait(self, is_true: Callable[[], bool], timeout_s: float = 5) -> None:
        """Until `is_true`, asked again at every entry in the books. Raises TimeoutError."""
        if not self.books.wait(is_true, timeout_s):
            raise TimeoutError(f"The upstream did not see it within {timeout_s:g} s: {self.books.totals()}")

    def wait_for_calls(self, count: int, timeout_s: float = 5) -> list[Call]:
        self.wait(lambda: self.books.received >= count, timeout_s)
        return self.calls

    def wait_until_idle(self, timeout_s: float = 5) -> None:
        """Until no call is open: the last byte of an answer is read before its end is in the books."""
        self.wait(lambda: self.books.received == self.books.ended.total(), timeout_s)

    def wait_for_end(self, call: Call, timeout_s: float = 5) -> Call:
        self.wait(lambda: call.ended is not None, timeout_s)
        return call


def _json_answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _deployment(path: str) -> str:
    """Azure names the model in the path: /openai/deployments/NAME/chat/completions."""
    _, _, rest = path.partition("/deployments/")
    return unquote(rest.partition("/")[0])
