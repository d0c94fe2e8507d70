"""The only place from which calls leave: one aiohttp session per kind of network, behind a small protocol.

    Upstream.send(request, target) -> UpstreamReply -> read() | chunks via next_chunk() -> close()

Deadlines for the first byte and for silence are the caller's (proxy.call.Call.deadline): one timer for a whole call is
cheaper than one per read. Redirects are not followed, cookies not kept, proxies of the environment not used.
"""

from __future__ import annotations

import ipaddress
import socket
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_writer import StreamWriter
from yarl import URL

from proxy.providers.base import Target, UpstreamRequest
from proxy.ssrf import is_public_address

# All of what aiohttp would add by itself, so that it has nothing to add.
HEADERS = {"user-agent": "gatehouse", "accept": "*/*", "accept-encoding": "identity"}
MAX_LINE = 64 * 1024
KEEPALIVE_S = 60


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
        self._open = _session(_Connector(limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE_S))
        self._guarded = _session(
            _Connector(limit=0, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE_S, resolver=PublicResolver())
        )

    async def send(self, request: UpstreamRequest, target: Target) -> AiohttpReply:
        session = self._open if target.private_network else self._guarded
        _reused.set(False)
        try:
            # `request` is `_request` in a context manager that we have no use for.
            response = await session._request(
                request.method,
                _url(request.url),
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                timeout=_timeout(target.connect_timeout_s),
                ssl=target.ssl,
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimedOut("connecting took too long") from error
        except aiohttp.ClientConnectorError as error:
            raise ConnectFailed("the address cannot be reached") from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError) as error:
            raise Broken("the connection broke before an answer", unanswered=_reused.get()) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Broken("what came is not HTTP") from error
        return AiohttpReply(response)

    async def close(self) -> None:
        await self._open.close()
        await self._guarded.close()


class AiohttpReply:
    __slots__ = ("_content", "_response", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        return self._response.raw_headers

    def header(self, name: str) -> str:
        return self._response.headers.get(name, "")

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
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Broken("the answer broke off") from error

    async def next_chunk(self) -> bytes:
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Broken("the stream broke off") from error

    def close(self) -> None:
        if not self._response.closed:
            self._response.close()


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


# Set in the task of the call when its connection had served another call before.
_reused: ContextVar[bool] = ContextVar("reused", default=False)


class _Connector(aiohttp.TCPConnector):
    """Tells whether a connection was taken from the pool: one that dies unanswered had died before, and the same
    request may go out again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, *args: Any, **options: Any) -> Any:
        connection = await super().connect(*args, **options)
        if connection.protocol in self._seen:
            _reused.set(True)
        else:
            self._seen.add(connection.protocol)
        return connection


class _Request(aiohttp.ClientRequest):
    """aiohttp's request, but head and body leave in one write.

    aiohttp 3.14 starts a task for the body of each request and wraps it three times, a fifth of the price of a call
    (docs/adr/0006). Bodies here are whole bytes, so there is nothing to wait for. Rests on aiohttp's insides, whose
    version is pinned; proxy/tests/test_upstream.py says what must hold.
    """

    _bytes = b""

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        if body:
            self._bytes = body
            self.headers[aiohttp.hdrs.CONTENT_LENGTH] = str(len(body))

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        writer = StreamWriter(conn.protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write_eof(self._bytes)
        conn.protocol.start_timeout()
        self.response = self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=[],
            loop=self.loop,
            session=self._session,
            stream_writer=writer,
        )
        return self.response


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=_Request,
        headers=HEADERS,
        trust_env=False,
        auto_decompress=True,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        read_bufsize=2**18,
    )


@lru_cache(maxsize=1024)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=256)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect_s, sock_read=None)


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise TooLarge
    return body
