"""The HTTP server: uvicorn with httptools and uvloop, and what it lacks against clients that misbehave.

`python -m gateway_project.server --host 127.0.0.1 --port 8000` is one web process; gunicorn.conf.py runs several of
`Worker`. Both use `Protocol`, which caps and times the head of a request (uvicorn takes half a header for as long as
you like, and megabytes of them), and lends the data plane a way to cut a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import socket
import sys
import time
from typing import Any

import uvicorn
from gunicorn.arbiter import Arbiter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn_worker import UvicornWorker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")

from django.conf import settings

KEEP_ALIVE_S = 75  # pooled SDK clients keep theirs for a minute; who closes first resets the other
MAX_HEADERS = 100
RESTART_PAUSE_S = 1.0
# Read once: Django's settings object costs a microsecond at each look.
MAX_HEADER_BYTES = settings.MAX_HEADER_BYTES
HEADER_TIMEOUT_S = settings.HEADER_TIMEOUT_S
USER_TIMEOUT_MS = int(settings.CLIENT_WRITE_TIMEOUT_S * 1000)
MAX_URL_BYTES = 8 * 1024
ERROR = (
    b"HTTP/1.1 %b\r\ncontent-type: application/json\r\nx-request-id: req_%b\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b"
)
STATUS_LINES = {400: b"400 Bad Request", 414: b"414 URI Too Long", 431: b"431 Request Header Fields Too Large"}
BODY = b'{"error":{"message":"%b","type":"invalid_request_error","param":null,"code":%b}}'


class UntilClose(RequestResponseCycle):
    """An answer over HTTP/1.0, which has no chunks: what has no length ends with the connection (RFC 9112, 6.1).
    nginx speaks 1.0 to what is behind it unless it is told otherwise."""

    has_length = True

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not self.has_length:
                self.chunked_encoding = False
        elif not self.has_length:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class Trailers(list[tuple[bytes, bytes]]):
    """Takes the fields that come after a body in chunks, and forgets them: they must not count as headers, or a caller
    could say after the body who it is (RFC 9110, 6.5.1)."""

    def append(self, field: tuple[bytes, bytes]) -> None:
        """Nothing: how many bytes of them there may be is counted where they come in."""


class Protocol(HttpToolsProtocol):
    """uvicorn's, with a limit of bytes and seconds for the head of each request."""

    _head_bytes = 0
    _idle_bytes = 0  # since the last bit of a body: endless trailers and chunk extensions are neither head nor body
    _in_head = False
    _in_body = False
    _head_timer: asyncio.TimerHandle | None = None
    _refused = False
    _active: Any = None  # the cycle that is being answered; with pipelining not the newest one

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # A client that vanished without a word: what was sent to it stays unacknowledged.
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        self._in_head = True
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_over()
        if self._active is not None and not self._active.response_complete:
            self._active.disconnected = True
            self._active.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._head_bytes += len(data)
        self._idle_bytes += len(data)
        super().data_received(data)
        if not self._in_head:
            self._head_bytes = 0
            if self._idle_bytes > MAX_HEADER_BYTES and self._in_body:
                self.refuse(431, b"What follows the body of the request is too large.")
        elif self._head_bytes > MAX_HEADER_BYTES:
            self.refuse(431, b"The headers of the request are too large.")
        elif self._head_timer is None:
            self._watch_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._head_is_over()
        if len(self.url) > MAX_URL_BYTES:
            self.refuse(414, b"The URL is too long.")
        elif len(self.headers) > MAX_HEADERS or self._is_head_too_large():
            self.refuse(431, b"The headers of the request are too large.")
        if not self._refused:
            self.scope["extensions"] = {"gatehouse.abort": {"abort": self.transport.abort}}
            super().on_headers_complete()
            if any(name == b"transfer-encoding" for name, _ in self.headers):
                self.headers = Trailers()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._idle_bytes = 0
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, b"This is not a valid HTTP request.")

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._active = cycle
        if cycle.scope["http_version"] == "1.0":
            cycle.__class__ = UntilClose
        super()._start_asgi_task(cycle, app)

    def _is_head_too_large(self) -> bool:
        if self._head_bytes <= MAX_HEADER_BYTES:
            return False  # head and body together are not even as long
        return sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADER_BYTES

    def _watch_head(self) -> None:
        self._head_timer = self.loop.call_later(HEADER_TIMEOUT_S, self._head_too_slow)

    def _head_is_over(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()

    def refuse(self, status: int, message: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._head_is_over()
        if self._active is not None and not self._active.response_complete:
            self.transport.abort()  # an answer is under way on this connection: nothing may be written into it
            return
        code = b'"request_header_too_large"' if status == 431 else b"null"
        body = BODY % (message, code)
        request_id = secrets.token_hex(16).encode()
        self.transport.write(ERROR % (STATUS_LINES[status], request_id, len(body), body))
        self.transport.close()


OPTIONS: dict[str, Any] = {
    "http": Protocol,
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,  # x-forwarded-for is judged by TRUSTED_PROXIES, see proxy.asgi
    "timeout_keep_alive": KEEP_ALIVE_S,
    "log_config": None,
}


class Worker(UvicornWorker):
    """gunicorn's worker, with our protocol and gunicorn's graceful timeout passed on."""

    CONFIG_KWARGS = OPTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # gunicorn kills at its own graceful timeout, which gunicorn.conf.py sets a little later than this one.
        self.config.timeout_graceful_shutdown = settings.GRACEFUL_TIMEOUT_S
        self.config.timeout_keep_alive = KEEP_ALIVE_S

    def run(self) -> None:
        """A worker that takes the place of a dead one and cannot start (the database is away) tries again: gunicorn
        takes uvicorn's exit code for "none can ever start", and would end the workers that are well."""
        try:
            super().run()
        except SystemExit as ended:
            if ended.code != Arbiter.WORKER_BOOT_ERROR or self.age <= self.cfg.workers:
                raise
            time.sleep(RESTART_PAUSE_S)
            sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="One web process: proxy, admin and portal.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    uvicorn.run(
        "gateway_project.asgi:application",
        host=arguments.host,
        port=arguments.port,
        timeout_graceful_shutdown=settings.GRACEFUL_TIMEOUT_S,
        **OPTIONS,
    )


if __name__ == "__main__":
    main()
