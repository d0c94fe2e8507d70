"""One call being answered: what a behaviour may do with it. Everything sent is booked once the kernel has taken it."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gateway_project.tests.upstream.answers import Answer, Event, MessagesAnswer, Options, compact
from gateway_project.tests.upstream.books import ANSWERED, CUT, Books, Call

if TYPE_CHECKING:
    from gateway_project.tests.upstream.server import Connection

SSE_TYPE = "text/event-stream; charset=utf-8"


class Turn:
    """`newline`, `replace`, `content_type`, `extra_headers` bend the well-behaved answer before it is sent."""

    def __init__(
        self, connection: Connection, books: Books, call: Call, dialect: type[Answer], request: Any, options: Options
    ) -> None:
        self.connection = connection
        self.books = books
        self.call = call
        self.dialect = dialect
        self.request = request
        self.options = options
        self.answer = dialect(request, options)
        self.newline = b"\n"
        self.replace: tuple[bytes, bytes] | None = None
        self.content_type: str | None = None
        self.extra_headers: dict[str, str] = {}
        self._chunked = False
        self._press: Any = None

    @property
    def streams(self) -> bool:
        return self.answer.streams

    @property
    def speaks_anthropic(self) -> bool:
        return isinstance(self.answer, MessagesAnswer)

    @property
    def origin(self) -> str:
        return self.connection.server.origin

    def override(self, **options: object) -> None:
        """The same answer with other options; what the test gave explicitly as `text` is not asked for."""
        self.options = Options({**self.options.as_dict(), **options})
        self.answer = self.dialect(self.request, self.options)

    # --- the well-behaved answer, whole or in its parts ---

    async def answer_well(self) -> None:
        if not self.streams:
            await self.whole(self.bill_whole())
            return
        events = list(self.answer.events())  # before the head: a request that makes no sense gets its 400 in time
        await self.begin_stream()
        await self.say(events)
        await self.finish_stream()

    def bill_whole(self) -> bytes:
        """The whole answer's body, booked as produced."""
        self.books.bill(self.call, self.answer.prompt_tokens, self.answer.completion_tokens)
        return self._bent(compact(self.answer.whole()))

    async def whole(
        self,
        body: bytes,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if self._press:
            body = self._press.compress(body) + self._press.flush()
        await self.send(self._head(status, content_type, dict(headers or {}), length=len(body)) + body)

    async def begin_stream(self, chunked: bool = True) -> None:
        self.books.bill(self.call, self.answer.prompt_tokens)
        await self.head(content_type=SSE_TYPE, chunked=chunked)

    async def say(self, events: Iterable[Event]) -> None:
        delay = self.options.seconds("delay_ms")
        for event in events:
            await self.event(event)
            if delay:
                await self.pause(delay)

    async def event(self, event: Event) -> None:
        name = b"event: %s%s" % (event.name.encode(), self.newline) if event.name else b""
        self.bill(event)
        await self.chunk(b"%sdata: %s%s%s" % (name, self._bent(event.data), self.newline, self.newline))

    def bill(self, event: Event) -> None:
        """Produced is billed, whether or not anybody gets to read it."""
        self.books.bill(self.call, completion_tokens=event.tokens)
        self.books.event(self.call)

    async def finish_stream(self) -> None:
        if self.answer.done:
            await self.event(Event(self.answer.done))
        await self.end_chunks()

    # --- bytes ---

    async def head(
        self,
        status: int = 200,
        *,
        content_type: str = "application/json",
        length: int | None = None,
        chunked: bool = False,
    ) -> None:
        await self.send(self._head(status, content_type, {}, length=length, chunked=chunked))

    async def chunk(self, data: bytes) -> None:
        """A part of the body, as a chunk of its own where the head said chunks."""
        if self._press:
            data = self._press.compress(data) + self._press.flush(zlib.Z_SYNC_FLUSH)
        await self.send(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)

    async def end_chunks(self) -> None:
        if self._press:
            tail = self._press.flush()
            await self.send(b"%x\r\n%s\r\n" % (len(tail), tail))
        if self._chunked:
            await self.send(b"0\r\n\r\n")

    async def send(self, data: bytes) -> None:
        size = self.options.count("split") or len(data) or 1
        for at in range(0, len(data), size):
            part = data[at : at + size]
            await self.connection.write(part)
            self.books.sent(self.call, len(part))
            if at + size < len(data):
                await asyncio.sleep(0)

    def compress(self) -> None:
        self._press = zlib.compressobj(wbits=31)
        self.extra_headers["content-encoding"] = "gzip"

    # --- time, and the end ---

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def hang(self) -> None:
        """Until the client leaves."""
        await asyncio.Event().wait()

    def answered(self) -> None:
        """All was said, though something strange may follow."""
        self.books.close(self.call, ANSWERED)

    def cut(self, reset: bool = False) -> None:
        """Closes the connection: with FIN after what was sent, or with RST at once."""
        self.books.close(self.call, CUT)
        self.connection.close(reset)

    def die_on_next(self, reset: bool) -> None:
        self.connection.dies_on_next = "reset" if reset else "close"

    def _bent(self, data: bytes) -> bytes:
        return data.replace(*self.replace) if self.replace else data

    def _head(
        self, status: int, content_type: str, headers: dict[str, str], *, length: int | None, chunked: bool = False
    ) -> bytes:
        self._chunked = chunked
        lines = {
            "content-type": self.content_type or content_type,
            "x-request-id": f"req_upstream_{self.call.number}",
            "openai-processing-ms": "7",
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29900",
            "x-ratelimit-reset-tokens": "200ms",
            "set-cookie": "session=of-the-upstream",
            **headers,
            **self.extra_headers,
        }
        if length is not None:
            lines["content-length"] = str(length)
        if chunked:
            lines["transfer-encoding"] = "chunked"
        reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
        joined = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"HTTP/1.1 {status} {reason}\r\n{joined}\r\n".encode("latin-1")


def arm_reset(raw: socket.socket) -> None:
    """Closing the socket from now on sends RST and drops what was not sent."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
