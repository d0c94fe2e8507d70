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

import asyncio
import ipaddress
import socket
import ssl
import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from proxy.providers.base import Target, UpstreamRequest
from proxy.ssrf import is_public_address

# Sent with every request; what an adapter sets comes on top.
HEADERS = {"accept": "*/*", "accept-encoding": "identity"}
MAX_LINE = 64 * 1024
MAX_HEADERS = 256
READ_BUFFER = 256 * 1024
KEEPALIVE_S = 60
INFLATE_BYTES = 1024 * 1024
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

    def __init__(self, user_agent: str) -> None:
        self._user_agent = user_agent
        self._open = _connector(None)
        self._guarded = _connector(PublicResolver())
        # Connections that have served a call before.
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    async def send(self, request: UpstreamRequest, target: Target) -> AiohttpReply:
        address = _address(request.url, target.ssl)
        head = _head(request.method, request.url, self._user_agent, tuple(request.headers.items()))
        connector = self._open if target.private_network else self._guarded
        connection = await self._connect(connector, address, target)
        protocol = connection.protocol
        is_reused = protocol in self._used
        try:
            self._write(protocol, head, request.body)
            message, content = await protocol.read()
            while 100 <= message.code < 200 and message.code != 101:
                message, content = await protocol.read()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            connection.close()
            if isinstance(error, HttpProcessingError):
                raise Broken("what came is not HTTP") from error
            if is_reused:
                self._drop_idle(connector, address)
            raise Broken("no answer came", unanswered=is_reused and not protocol.heard) from error
        except BaseException:
            connection.close()
            raise
        if not is_reused:
            self._used.add(protocol)
        return AiohttpReply(connection, message, content)

    async def close(self) -> None:
        await self._open.close()
        await self._guarded.close()

    async def _connect(self, connector: Any, address: _Address, target: Target) -> Any:
        try:
            connection = await connector.connect(address, traces=[], timeout=_timeout(target.connect_timeout_s))
        except TimeoutError as error:
            raise ConnectTimedOut("connecting took too long") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectFailed(_why(error)) from error
        return connection

    def _drop_idle(self, connector: Any, address: _Address) -> None:
        """When one kept connection turns out dead, the others to the same place are likely to be dead as well."""
        for protocol, _ in connector._conns.pop(address.connection_key, ()):
            protocol.close()

    def _write(self, protocol: Any, head: bytes, body: bytes) -> None:
        """Raises ConnectionResetError: the connection died in the pool."""
        if protocol.exception() is not None:
            raise ConnectionResetError("something came after the last answer")
        protocol.set_response_params(
            read_until_eof=True,
            auto_decompress=False,  # see _Inflated
            read_bufsize=READ_BUFFER,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        protocol.heard = False
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

    __slots__ = ("_connection", "_content", "_inflated", "_message", "status")

    def __init__(self, connection: Connection, message: Any, content: aiohttp.StreamReader) -> None:
        self._connection: Connection | None = connection
        self._message = message
        self._content = content
        self._inflated = _Inflated(content, message.compression) if message.compression else None
        self.status: int = message.code
        content.on_eof(self._release)

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        raw: Iterable[tuple[bytes, bytes]] = self._message.raw_headers
        return raw

    def header(self, name: str) -> str:
        value: str = self._message.headers.get(name, "")
        return value

    async def read(self, limit: int, progress: Callable[[], None]) -> bytes:
        chunk = await self.next_chunk()
        if self._content.at_eof() and self._inflated is None:
            return _within(chunk, limit)
        chunks, size = [], 0
        while chunk:
            size += len(chunk)
            if size > limit:
                raise TooLarge
            chunks.append(chunk)
            progress()
            chunk = await self.next_chunk()
        return b"".join(chunks)

    async def next_chunk(self) -> bytes:
        try:
            if self._inflated is not None:
                return await self._inflated.next_chunk()
            return await self._content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError, zlib.error) as error:
            raise Broken("the answer broke off") from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


class _Inflated:
    """A packed body, unpacked in steps: aiohttp would unpack a bomb in one go while all other calls wait.

    We ask for `identity`, so this is for providers that do not listen. gzip and deflate, as RFC 9110, 8.4.1 has them.
    """

    def __init__(self, content: aiohttp.StreamReader, encoding: str) -> None:
        self._content = content
        self._unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # finds out by itself which of the two
        self._packed = b""
        self._is_known = encoding in ("gzip", "deflate")

    async def next_chunk(self) -> bytes:
        """At most INFLATE_BYTES; b"" at the end. Raises zlib.error, and what reading raises."""
        if not self._is_known:
            raise zlib.error("a packing that nobody asked for")
        while True:
            if self._packed:
                await asyncio.sleep(0)
                out = self._unpack.decompress(self._packed, INFLATE_BYTES)
                self._packed = self._unpack.unconsumed_tail
                if out:
                    return out
            self._packed = self._packed or await self._content.readany()
            if not self._packed:
                if not self._unpack.eof:
                    raise zlib.error("the packed body is cut off")
                return b""


class _Handler(ResponseHandler):
    """aiohttp's, but an answer that stops being HTTP in its middle breaks off at once, not when it times out; and it
    knows whether anything came since the last request: `heard`."""

    heard = False

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        content = self._payload
        if content is not None and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the rest of the answer is not HTTP"))
        super().set_exception(exc, *cause)


def _connector(resolver: AbstractResolver | None) -> aiohttp.TCPConnector:
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE_S, resolver=resolver)
    loop = asyncio.get_running_loop()
    connector._factory = partial(_Handler, loop=loop)  # type: ignore[assignment]
    return connector


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
def _head(method: str, url: str, user_agent: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Request line and headers, all but the length of the body and the blank line. Raises ConnectFailed."""
    parsed = URL(url, encoded=True)
    given = {name.lower(): value for name, value in headers}
    fields = {"host": parsed.host_port_subcomponent or "", "user-agent": user_agent, **HEADERS, **given}
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
