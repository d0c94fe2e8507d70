"""One HTTP call at the door: its headers and body, its deadlines, its reply, and the client's leaving.

Knows ASGI, nothing of models or providers. A call has one timer for everything that may take too long: each phase says
`expect(seconds, error)`, and when the time is up the task is interrupted with that error. The client's leaving
interrupts it the same way. `interruption()` turns the CancelledError, where the task waited, into that error.
"""

from __future__ import annotations

import asyncio
import re
import time
from asyncio import AbstractEventLoop, CancelledError, TimerHandle
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.errors import BodyTooLarge, BodyTooSlow, ClientLeft, GatewayError, InvalidRequest
from usage.services import new_event_id

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")

# How often a call looks at its deadline, and how late its client is first watched: most calls are over sooner.
TICK_S = 0.25
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
SMALL_BODY = 64 * 1024
LINGER_BYTES = 16 * 1024 * 1024
LINGER_S = 2.0
NEVER = float("inf")


class Call:
    """See the module. `id` is the usage event's; `request_id` is what the caller and the logs see."""

    __slots__ = (
        "_armed_at", "_body_complete", "_body_is_late", "_deadline_at", "_detached_until", "_interrupted", "_late",
        "_loop", "_receive", "_relay", "_seen", "_since", "_task", "_timer", "_watch", "admission", "at_us",
        "client_gone", "detached_limit_s", "ended", "extra_headers", "facts", "first_byte_us", "headers", "id",
        "method", "opened", "outcome", "passage", "path", "progress", "replied", "request_id", "scope", "send_message",
        "sending", "started_ns", "status", "streaming",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.started_ns = time.perf_counter_ns()
        self.at_us = time.time_ns() // 1000
        self.id = new_event_id(self.at_us)
        self.headers = _headers(scope["headers"])
        given = self.headers.get(b"x-request-id")
        well_formed = given is not None and REQUEST_ID.fullmatch(given) is not None
        self.request_id = given.decode() if given is not None and well_formed else f"req_{self.id}"
        self._receive = receive
        self.send_message = send
        self._body_complete = False
        self._body_is_late = False
        self.extra_headers: list[Header] = []
        self.status = 0  # of the reply, once it has begun
        self.streaming = False  # the reply has begun as a stream of events
        self.replied = False  # its last byte was handed over
        self.ended = False
        self.first_byte_us: int | None = None
        self.client_gone = False
        # Not None: when the client leaves, the call goes on for at most so long, because it is billed anyhow.
        self.detached_limit_s: float | None = None
        # The books of the call, see proxy.books.
        self.facts: dict[str, Any] | None = None
        self.outcome: dict[str, Any] = {}
        self.opened = False
        # Its way through the policies, see proxy.passage; None: no policy holds for it.
        self.passage: Any = None
        # What is held for it, see proxy.admission; None: nothing limits it.
        self.admission: Any = None
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self._interrupted: GatewayError | None = None
        self._armed_at = self._deadline_at = self._detached_until = NEVER
        # While a stream is relayed: (silence of the provider, its error, silence of the client), see `relaying`.
        self._relay: tuple[float, Callable[[], GatewayError], float] | None = None
        self._seen = (-1, False)
        self._since = 0.0
        self.progress = 0
        self.sending = False
        self._late: Callable[[], GatewayError] = client_left

    # --- deadlines and interruptions --------------------------------------------------------------------------------

    def expect(self, seconds: float, late: Callable[[], GatewayError]) -> None:
        """From now on the task must get on within `seconds`, or is interrupted with `late()`."""
        self._relay = None
        at = self._loop.time() + seconds
        if at > self._detached_until:
            at, late = self._detached_until, client_left
        self._deadline_at = at
        self._late = late
        if at < self._armed_at:
            self._arm(at)

    def relaying(self, idle_s: float, idle: Callable[[], GatewayError], write_s: float) -> None:
        """From now on the task turns between waiting for the provider and writing to the client: it raises `progress`
        at each turn and says in `sending` which of the two it waits for. The timer looks now and then whether it still
        turns, which is cheaper than a deadline for each turn."""
        self._relay = (idle_s, idle, write_s)
        self._since = self._loop.time()

    def interrupt(self, error: GatewayError) -> None:
        if self._interrupted is None and self._task is not None and not self.ended:
            self._interrupted = error
            self._task.cancel()

    def interruption(self) -> GatewayError:
        """To be raised in `except CancelledError`: what interrupted us. A cancellation that is not ours goes on."""
        error, self._interrupted = self._interrupted, None
        if error is None or self._task is None:
            raise
        self._task.uncancel()
        return error

    def elapsed_us(self) -> int:
        return (time.perf_counter_ns() - self.started_ns) // 1000

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._task = asyncio.current_task()
        self._armed_at = min(at, self._loop.time() + TICK_S)
        self._timer = self._loop.call_at(self._armed_at, self._tick)

    def _tick(self) -> None:
        if self.ended:
            return
        if self._watch is None and self._body_complete:
            self._watch = self._loop.create_task(self._watch_client())
        now = self._loop.time()
        if self._relay is not None:
            self._check_relay(now, *self._relay)
        elif now >= self._deadline_at:
            self._deadline_at = NEVER
            self.interrupt(self._late())
        self._arm_again()

    def _check_relay(self, now: float, idle_s: float, idle: Callable[[], GatewayError], write_s: float) -> None:
        seen = (self.progress, self.sending)
        if seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since >= (write_s if self.sending else idle_s):
            self.interrupt(client_left() if self.sending else idle())

    def _arm_again(self) -> None:
        self._armed_at = min(self._deadline_at, self._loop.time() + TICK_S)
        self._timer = self._loop.call_at(self._armed_at, self._tick)

    async def _watch_client(self) -> None:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if self.ended or self.replied:  # a server also says so when the reply is complete
            return
        self.client_gone = True
        if self.detached_limit_s is None:
            self.interrupt(client_left())
        else:
            self._detached_until = self._loop.time() + self.detached_limit_s
            self.expect(max(self._deadline_at - self._loop.time(), 0), self._late)

    # --- the request ------------------------------------------------------------------------------------------------

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def read_body(self, limit: int, timeout_s: float) -> bytes:
        """The whole body. Raises BodyTooLarge (without reading on), BodyTooSlow, InvalidRequest, ClientLeft."""
        declared = self.headers.get(b"content-length")
        if declared is not None and (not declared.isdigit() or int(declared) > limit):
            raise too_large(limit) if declared.isdigit() else InvalidRequest("The content-length is not a number.")
        self.expect(timeout_s, _body_too_slow)
        try:
            message = await self._receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                self._body_complete = True
                body: bytes = message.get("body", b"")
                if len(body) > limit:
                    raise too_large(limit)
                return body
            return await self._read_rest(message, limit)
        except CancelledError:
            self._body_is_late = True
            raise self.interruption() from None

    async def _read_rest(self, message: Message, limit: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                self.client_gone = True
                raise ClientLeft("The client left before its request was complete.")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            chunks.append(chunk)
            if not message.get("more_body"):
                self._body_complete = True
                return b"".join(chunks)
            message = await self._receive()

    # --- the reply --------------------------------------------------------------------------------------------------

    async def start(self, status: int, headers: list[Header]) -> None:
        self.status = status
        self.first_byte_us = self.elapsed_us()
        headers.append((b"x-request-id", self.request_id.encode()))
        headers.extend(self.extra_headers)
        await self.send_message({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, more: bool = True) -> None:
        self.replied = not more
        await self.send_message({"type": "http.response.body", "body": body, "more_body": more})

    async def reply(self, status: int, headers: list[Header], body: bytes) -> None:
        """A whole reply. When the request was not read to its end the connection is closed after it."""
        headers.append((b"content-length", str(len(body)).encode()))
        if self._body_complete or self._has_no_body() or await self._read_small_rest():
            await self.start(status, headers)
            await self.send(body, more=False)
            return
        headers.append((b"connection", b"close"))
        await self.start(status, headers)
        await self.send(body)
        if not self._body_is_late:
            # A close with unread bytes in the socket resets the connection, and the client never sees why.
            await self._linger()
        await self.send(b"", more=False)

    def abort(self) -> None:
        """Cut the connection: the client reads too slowly to be told anything. Without our server: nothing to do."""
        extension = (self.scope.get("extensions") or {}).get("gatehouse.abort")
        if extension is not None:
            extension["abort"]()

    def end(self) -> None:
        """The call is over: no more timers, nobody watches."""
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()

    def _has_no_body(self) -> bool:
        return b"transfer-encoding" not in self.headers and self.headers.get(b"content-length", b"0") == b"0"

    async def _read_small_rest(self) -> bool:
        """True when the body was short enough to be read away, so that the connection can be kept."""
        declared = self.headers.get(b"content-length", b"")
        if not declared.isdigit() or int(declared) > SMALL_BODY or self.client_gone or self._body_is_late:
            return False
        try:
            await self.read_body(SMALL_BODY, LINGER_S)
        except GatewayError:
            return False
        return True

    async def _linger(self) -> None:
        """Read away what the client still sends, for a moment, so that it gets to read our reply."""
        seen = 0
        self.expect(LINGER_S, _body_too_slow)
        try:
            while seen < LINGER_BYTES:
                message = await self._receive()
                seen += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
        except CancelledError:
            self.interruption()


def client_left() -> GatewayError:
    return ClientLeft("The client left.")


def too_large(limit: int) -> GatewayError:
    return BodyTooLarge(f"The request is larger than this gateway accepts ({limit} bytes). Send less in one call.")


def _body_too_slow() -> GatewayError:
    return BodyTooSlow("The request did not arrive in time. Send it again.")


def _headers(raw: list[Header]) -> dict[bytes, bytes]:
    """By lower-case name; one that comes twice is joined with a comma, as RFC 9110 has it (5.3)."""
    headers = dict(raw)
    if len(headers) == len(raw):
        return headers
    headers = {}
    for name, value in raw:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers
