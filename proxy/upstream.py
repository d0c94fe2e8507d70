"""The only place from which calls leave: aiohttp's connection pools and parser, behind a small protocol.

    Upstream.send(request, target) -> UpstreamReply -> read() | next_chunk()... -> close()

aiohttp's connector pools, resolves, connects and does TLS; its parser reads answers. Its session, request and response
objects are left out: they cost as much as all the rest of a call (docs/adr/0006-aiohttp-on-the-hot-path.md), and a call
needs nothing that they do. What is used of aiohttp is nearly public; its version is pinned, and
proxy/tests/test_upstream.py says what must hold when the pin moves.

Deadlines for the first byte and for silence are the caller's (proxy.call.Call): one timer for a whole call is cheaper
than one per read. Redirects are not followed, cookies not kept, proxies of the environment not used.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from proxy.providers.base import Target, UpstreamRequest
from proxy.ssrf import is_public_address

# Sent with every request; what an adapter sets comes on top.
HEADERS = {"user-agent": "gatehouse", "accept": "*/*", "accept-encoding": "identity"}
MAX_LINE = 64 * 1024
MAX_HEADERS = 256
READ_BUFFER = 256 * 1024
KEEPALIVE_S = 60
SMALL_BODY = 64 * 1024  # joined to the head; a longer one is not copied


class ConnectFailed(Exception):
    """Nobody answered at the address: nothing was sent."""


class ConnectTimedOut(ConnectFailed):
    """Nobody answered in the provider's connect timeout."""


class Broken(Exception):
    """The connection broke, or what came is not HTTP. `unanswered`: a kept connection died before it answered."""

    def __init__(self, message: str, unanswered: bool = False) -> None:
        super().__init__(message)
        self.unanswered = unanswered


class TooLarge(Exception):
    """The answer is longer than MAX_REPLY_BYTES."""


class UpstreamReply(Protocol):
    status: int

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """As they came: any case, any bytes but control characters."""

    def header(self, name: str) -> str: ...

    async def read(self, limit: int, progress: Callable[[], None]) -> bytes:
        """The whole body; `progress` is called whenever some of it came. Raises Broken, TooLarge."""

    async def next_chunk(self) -> bytes:
        """Some bytes, as they come; b"" at the end. Raises Broken."""

    def close(self) -> None:
        """Let go: a fully read connection goes back to the pool, any other is closed."""


class Upstream(Protocol):
    async def send(self, request: UpstreamRequest, target: Target) -> UpstreamReply:
        """Raises ConnectFailed, ConnectTimedOut, Broken."""


class AiohttpUpstream:
    """Two pools: providers that may be in the private network, and those whose addresses must be public."""

    def __init__(self) -> None:
        self._open = aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE_S)
        self._guarded = aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE_S, resolver=PublicResolver()
        )
        # Connections that have served a call before.
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    async def send(self, request: UpstreamRequest, target: Target) -> AiohttpReply:
        address = _address(request.url, target.ssl)
        head = _head(request.method, request.url, tuple(request.headers.items()))
        connection = await self._connect(address, target)
        protocol = connection.protocol
        is_reused = protocol in self._used
        try:
            self._write(protocol, head, request.body)
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except (aiohttp.ClientError, OSError) as error:
            connection.close()
            raise Broken("the connection broke before an answer", unanswered=is_reused) from error
        except HttpProcessingError as error:
            connection.close()
            raise Broken("what came is not HTTP") from error
        except BaseException:
            connection.close()
            raise
        if not is_reused:
            self._used.add(protocol)
        return AiohttpReply(connection, message, content)

    async def close(self) -> None:
        await self._open.close()
        await self._guarded.close()

    async def _connect(self, address: _Address, target: Target) -> Any:
        connector: Any = self._open if target.private_network else self._guarded
        try:
            connection = await connector.connect(address, traces=[], timeout=_timeout(target.connect_timeout_s))
        except TimeoutError as error:
            raise ConnectTimedOut("connecting took too long") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectFailed(_why(error)) from error
        return connection

    def _write(self, protocol: Any, head: bytes, body: bytes) -> None:
        """Raises ConnectionResetError when the connection died in the pool."""
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=True,
            read_bufsize=READ_BUFFER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        head += b"content-length: %d\r\n\r\n" % len(body) if body else b"\r\n"
        if len(body) <= SMALL_BODY:
            transport.write(head + body)
        else:
            transport.writelines((head, body))


class AiohttpReply:
    """An answer whose head has come. Its connection goes back to the pool by itself when its body has been read."""

    __slots__ = ("_connection", "_content", "_message", "status")

    def __init__(self, connection: Connection, message: Any, content: aiohttp.StreamReader) -> None:
        self._connection: Connection | None = connection
        self._message = message
        self._content = content
        self.status: int = message.code
        content.on_eof(self._release)

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        raw: Iterable[tuple[bytes, bytes]] = self._message.raw_headers
        return raw

    def header(self, name: str) -> str:
        value: str = self._message.headers.get(name, "")
        return value

    async def read(self, limit: int, progress: Callable[[], None]) -> bytes:
        try:
            chunk = await self._content.readany()
            if self._content.at_eof():
                return _within(chunk, limit)
            chunks, size = [chunk], len(chunk)
            while chunk := await self._content.readany():
                size += len(chunk)
                if size > limit:
                    raise TooLarge
                chunks.append(chunk)
                progress()
            return b"".join(chunks)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise Broken("the answer broke off") from error

    async def next_chunk(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise Broken("the stream broke off") from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


class PublicResolver(AbstractResolver):
    """Drops private addresses at connect time, so that a name which turns inward later does not help anybody."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [result for result in found if is_public_address(ipaddress.ip_address(result["host"].split("%")[0]))]
        if not public:
            raise OSError(f"{host} is not a public address")
        return public

    async def close(self) -> None:
        await self._resolver.close()


@dataclass(frozen=True, slots=True)
class _Address:
    """What aiohttp's connector wants to know of a request."""

    connection_key: ConnectionKey
    url: URL
    host: str
    port: int
    ssl: ssl.SSLContext | bool
    proxy: None = None
    proxy_headers: None = None
    server_hostname: None = None

    def is_ssl(self) -> bool:
        return self.connection_key.is_ssl


@lru_cache(maxsize=1024)
def _address(url: str, tls: ssl.SSLContext | bool) -> _Address:
    """Raises ConnectFailed when it is not the URL of a host."""
    try:
        parsed = URL(url, encoded=True)
        host, port = parsed.raw_host, parsed.port
    except ValueError as error:
        raise ConnectFailed("its base URL is not a URL") from error
    if not host or not port or parsed.scheme not in ("http", "https"):
        raise ConnectFailed("its base URL is not an http(s) URL")
    key = ConnectionKey(host, port, parsed.scheme == "https", tls, None, None, None, None)
    return _Address(key, parsed, host, port, tls)


@lru_cache(maxsize=1024)
def _head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Request line and headers, all but the length of the body and the blank line. Raises ConnectFailed."""
    parsed = URL(url, encoded=True)
    given = {name.lower(): value for name, value in headers}
    fields = {"host": parsed.host_port_subcomponent or "", **HEADERS, **given}
    lines = [f"{method} {parsed.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if any(not line.isprintable() for line in lines):
        raise ConnectFailed("a header or the URL has a control character")
    try:
        return ("\r\n".join(lines) + "\r\n").encode("latin-1")
    except UnicodeEncodeError as error:
        raise ConnectFailed("a header has a character that headers cannot have") from error


def _why(error: Exception) -> str:
    """In words for the log, without the address: that is in the provider's row."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its TLS certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved to an address that is allowed"
    return "the address cannot be reached"


@lru_cache(maxsize=256)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect_s, sock_read=None)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise TooLarge
    return body
