"""What the client that calls providers promises, and what must hold when aiohttp's pinned version moves."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway_project.tests.upstream import Upstream
from proxy.providers.base import Target, UpstreamRequest
from proxy.snapshot import ssl_context
from proxy.tests.recorded import target_of
from proxy.upstream import AiohttpUpstream, Broken, ConnectFailed, ConnectTimedOut, PublicResolver, TooLarge

CHAT = orjson.dumps({"model": "gpt-test", "messages": [{"role": "user", "content": "one two three"}]})
STREAM = orjson.dumps({**orjson.loads(CHAT), "stream": True})
MEGABYTE = 1024 * 1024


@pytest.fixture
async def client() -> AsyncIterator[AiohttpUpstream]:
    client = AiohttpUpstream(user_agent="gatehouse/1")
    yield client
    await client.close()


def to(upstream: Upstream, body: bytes = CHAT, **headers: str) -> UpstreamRequest:
    return UpstreamRequest(f"{upstream.url}/chat/completions", {"content-type": "application/json", **headers}, body)


def target(**fields: Any) -> Target:
    return target_of(**{"private_network": True, "connect_timeout_s": 2, **fields})


def nothing() -> None: ...


async def fetched(client: AiohttpUpstream, request: UpstreamRequest, limit: int = MEGABYTE) -> bytes:
    reply = await client.send(request, target())
    try:
        return await reply.read(limit, nothing)
    finally:
        reply.close()


async def streamed(client: AiohttpUpstream, request: UpstreamRequest) -> bytes:
    reply = await client.send(request, target())
    try:
        chunks = []
        while chunk := await reply.next_chunk():
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        reply.close()


# --- a call ----------------------------------------------------------------------------------------------------------


async def test_request_is_sent_as_the_adapter_made_it(client: AiohttpUpstream, upstream: Upstream) -> None:
    await fetched(client, to(upstream, authorization="Bearer sk-1", **{"X-Org": "42"}))
    call = upstream.last
    assert (call.method, call.path, call.body) == ("POST", "/v1/chat/completions", CHAT)
    assert (call.header("authorization"), call.header("x-org")) == ("Bearer sk-1", "42")
    assert call.header("content-type") == "application/json"
    assert call.header("content-length") == str(len(CHAT))
    assert call.header("host") == upstream.origin.removeprefix("http://")


async def test_nothing_is_sent_that_nobody_asked_for(client: AiohttpUpstream, upstream: Upstream) -> None:
    await fetched(client, to(upstream))
    names = sorted(name.lower() for name, _ in upstream.last.headers)
    assert names == ["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"]
    assert upstream.last.header("accept-encoding") == "identity"
    assert upstream.last.header("user-agent") == "gatehouse/1"


async def test_adapters_header_replaces_ours(client: AiohttpUpstream, upstream: Upstream) -> None:
    await fetched(client, to(upstream, **{"User-Agent": "mine"}))
    assert upstream.last.header("user-agent") == "mine"


async def test_get_has_no_body(client: AiohttpUpstream, upstream: Upstream) -> None:
    body = await fetched(client, UpstreamRequest(f"{upstream.url}/models?limit=5", {}, b"", method="GET"))
    assert orjson.loads(body)["object"] == "list"
    assert (upstream.last.method, upstream.last.path) == ("GET", "/v1/models?limit=5")
    assert upstream.last.header("content-length") is None


async def test_path_is_sent_as_it_is_written(client: AiohttpUpstream, upstream: Upstream) -> None:
    url = f"{upstream.origin}/openai/deployments/my%20model%2F2/chat/completions?api-version=2024-10-21&a=%2B"
    await fetched(client, UpstreamRequest(url, {}, CHAT))
    assert upstream.last.path == "/openai/deployments/my%20model%2F2/chat/completions?api-version=2024-10-21&a=%2B"


@pytest.mark.parametrize("size", [10, 60_000, 70_000, 3 * MEGABYTE])
async def test_body_of_any_size_arrives(client: AiohttpUpstream, upstream: Upstream, size: int) -> None:
    body = orjson.dumps({**orjson.loads(CHAT), "padding": "x" * size})
    await fetched(client, to(upstream, body))
    assert upstream.last.body == body


async def test_answer_comes_with_status_and_headers(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("error", status=429, retry_after=7)
    reply = await client.send(to(upstream), target())
    assert reply.status == 429
    assert (reply.header("Retry-After"), reply.header("content-type"), reply.header("x-none")) == (
        "7",
        "application/json",
        "",
    )
    assert (b"x-ratelimit-reset-tokens", b"2s") in list(reply.headers())
    assert orjson.loads(await reply.read(MEGABYTE, nothing))["error"]["code"] == "rate_limit_exceeded"
    reply.close()


async def test_stream_comes_as_it_is_made(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("hang-midway")
    reply = await client.send(to(upstream, STREAM), target())
    seen = b""
    while b'"w2 "' not in seen:
        seen += await reply.next_chunk()
    assert upstream.last.ended is None
    reply.close()
    await asyncio.to_thread(upstream.wait_for_end, upstream.last, 2)
    assert upstream.last.client_left


async def test_end_of_a_stream_is_an_empty_chunk_as_often_as_it_is_asked_for(
    client: AiohttpUpstream, upstream: Upstream
) -> None:
    reply = await client.send(to(upstream, STREAM), target())
    while await reply.next_chunk():
        pass
    assert await reply.next_chunk() == b""
    reply.close()


async def test_progress_is_told_while_a_long_answer_comes(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("huge-body", mb=2)
    told = []
    reply = await client.send(to(upstream), target())
    await reply.read(3 * MEGABYTE, lambda: told.append(True))
    reply.close()
    assert len(told) > 2


async def test_interim_answers_are_not_the_answer(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("interim")
    assert b"chat.completion" in await fetched(client, to(upstream))


@pytest.mark.parametrize("behaviour", ["gzip", "until-close", "byte-by-byte"])
async def test_answer_is_understood_however_it_is_sent(
    client: AiohttpUpstream, upstream: Upstream, behaviour: str
) -> None:
    upstream.next(behaviour)
    assert b"chat.completion" in await fetched(client, to(upstream))


# --- the pool --------------------------------------------------------------------------------------------------------


async def test_connection_is_used_again(client: AiohttpUpstream, upstream: Upstream) -> None:
    for body in (CHAT, STREAM, CHAT):
        await streamed(client, to(upstream, body))
    assert len({call.connection for call in upstream.calls}) == 1


async def test_connection_of_an_answer_that_was_not_read_is_closed(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("hang-midway")
    reply = await client.send(to(upstream), target())
    reply.close()
    reply.close()
    await fetched(client, to(upstream))
    assert len({call.connection for call in upstream.calls}) == 2


async def test_calls_side_by_side_have_connections_of_their_own(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("slow-first-byte", delay_ms=50, times=20)
    await asyncio.gather(*(fetched(client, to(upstream)) for _ in range(20)))
    assert len({call.connection for call in upstream.calls}) == 20


async def test_waiting_call_that_is_cancelled_leaves_no_connection(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("hang")
    task = asyncio.create_task(fetched(client, to(upstream)))
    await asyncio.to_thread(upstream.wait_for_calls, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await asyncio.to_thread(upstream.wait_for_end, upstream.last, 2)).client_left


async def test_different_tls_settings_share_no_connection(client: AiohttpUpstream, upstream: Upstream) -> None:
    for tls in (True, ssl_context(False, "")):
        reply = await client.send(to(upstream), target(ssl=tls))
        await reply.read(MEGABYTE, nothing)
        reply.close()
    assert len({call.connection for call in upstream.calls}) == 2


async def test_cookies_are_not_kept(client: AiohttpUpstream, upstream: Upstream) -> None:
    for _ in range(2):
        await fetched(client, to(upstream))
    assert upstream.last.header("cookie") is None


async def test_redirect_is_not_followed(client: AiohttpUpstream, upstream: Upstream) -> None:
    upstream.next("redirect")
    reply = await client.send(to(upstream), target())
    assert reply.status == 302
    reply.close()
    assert upstream.received == 1


async def test_proxies_of_the_environment_are_not_used(
    client: AiohttpUpstream, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert b"chat.completion" in await fetched(client, to(upstream))


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", ["close-before-head", "reset-before-head", "close-in-head"])
async def test_connection_that_breaks_before_an_answer(
    client: AiohttpUpstream, upstream: Upstream, behaviour: str
) -> None:
    upstream.next(behaviour)
    with pytest.raises(Broken) as caught:
        await client.send(to(upstream), target())
    assert not caught.value.unanswered, "a new connection: the provider may have read the request"


@pytest.mark.parametrize("reset", [0, 1])
async def test_kept_connection_that_died_is_told_from_a_provider_that_fails(
    client: AiohttpUpstream, upstream: Upstream, reset: int
) -> None:
    upstream.next("dies-on-reuse", reset=reset)
    await fetched(client, to(upstream))
    with pytest.raises(Broken) as caught:
        await client.send(to(upstream), target())
    assert caught.value.unanswered
    await fetched(client, to(upstream))


@pytest.mark.parametrize("behaviour", ["bad-status-line", "bad-header", "huge-header", "many-headers"])
async def test_what_is_no_http_is_broken(client: AiohttpUpstream, upstream: Upstream, behaviour: str) -> None:
    upstream.next(behaviour, kb=200)
    with pytest.raises(Broken):
        await client.send(to(upstream), target())
    await fetched(client, to(upstream))


@pytest.mark.parametrize("behaviour", ["close-midway", "reset-midway", "bad-chunk", "gzip-lie"])
@pytest.mark.parametrize("read", [fetched, streamed], ids=["whole", "streamed"])
async def test_answer_that_breaks_off_is_broken(
    client: AiohttpUpstream, upstream: Upstream, behaviour: str, read: Callable[..., Any]
) -> None:
    upstream.next(behaviour)
    with pytest.raises(Broken):
        await read(client, to(upstream, STREAM if read is streamed else CHAT))
    await fetched(client, to(upstream))


@pytest.mark.parametrize("behaviour", ["huge-body", "gzip-bomb"])
async def test_answer_that_is_too_large_is_given_up(
    client: AiohttpUpstream, upstream: Upstream, behaviour: str
) -> None:
    upstream.next(behaviour, mb=20)
    with pytest.raises(TooLarge):
        await fetched(client, to(upstream), limit=MEGABYTE)
    await asyncio.to_thread(upstream.wait_until_idle)
    assert upstream.last.bytes_sent < 15 * MEGABYTE


async def test_small_answer_is_measured_too(client: AiohttpUpstream, upstream: Upstream) -> None:
    with pytest.raises(TooLarge):
        await fetched(client, to(upstream), limit=10)


async def test_nobody_at_the_address(client: AiohttpUpstream, upstream: Upstream) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await client.send(UpstreamRequest("http://127.0.0.1:1/v1/models", {}, b""), target())
    assert not isinstance(caught.value, ConnectTimedOut)


async def test_address_that_never_answers(client: AiohttpUpstream, gateway_configuration: Any) -> None:
    unreachable = next(row for row in gateway_configuration["providers"] if row["name"] == "unreachable")
    with pytest.raises(ConnectTimedOut):
        await client.send(UpstreamRequest(unreachable["base_url"], {}, CHAT), target(connect_timeout_s=0.1))


@pytest.mark.parametrize(
    "url", ["http://no-such-host.invalid/v1", "ftp://127.0.0.1/", "http://", "nonsense", "http://[::1/"]
)
async def test_address_that_is_none(client: AiohttpUpstream, url: str) -> None:
    with pytest.raises(ConnectFailed):
        await client.send(UpstreamRequest(url, {}, CHAT), target())


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-1\r\nx-injected: 1"},
        {"authorization": "Bearer sk-1\n"},
        {"x-nul": "a\x00b"},
        {"x-injected: 1\r\nx-other": "a"},
        {"x-emoji": "👋"},
    ],
    ids=str,
)
async def test_header_that_would_break_the_request_is_not_sent(
    client: AiohttpUpstream, upstream: Upstream, headers: dict[str, str]
) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await client.send(to(upstream, **headers), target())
    assert "sk-1" not in str(caught.value)
    assert upstream.received == 0


async def test_line_break_in_the_address_makes_no_header(client: AiohttpUpstream, upstream: Upstream) -> None:
    reply = await client.send(UpstreamRequest(f"{upstream.url}/models\r\nx-injected: 1", {}, CHAT), target())
    reply.close()
    assert upstream.last.header("x-injected") is None


# --- addresses that are nobody's business ----------------------------------------------------------------------------


class Names:
    """Stands in for the system's resolver."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": host_ip, "port": port} for host_ip in self._addresses]

    async def close(self) -> None: ...


INSIDE = [
    *("127.0.0.1", "10.0.0.7", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("::1", "fe80::1%2", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
]


@pytest.mark.parametrize("address", INSIDE)
async def test_name_that_leads_inside_is_not_resolved(address: str) -> None:
    resolver = PublicResolver()
    await resolver.close()
    resolver._resolver = Names(address)
    with pytest.raises(OSError, match="public"):
        await resolver.resolve("evil.example", 443)


async def test_only_the_public_addresses_of_a_name_are_used() -> None:
    resolver = PublicResolver()
    await resolver.close()
    resolver._resolver = Names("127.0.0.1", "93.184.215.14", "::1", "2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    found = await resolver.resolve("example.org", 443)
    assert [result["host"] for result in found] == ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]


async def test_guarded_provider_is_not_reached_inside(client: AiohttpUpstream, upstream: Upstream) -> None:
    url = upstream.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConnectFailed):
        await client.send(UpstreamRequest(f"{url}/chat/completions", {}, CHAT), target(private_network=False))
    assert upstream.received == 0


async def test_private_provider_is_reached_by_its_name(client: AiohttpUpstream, upstream: Upstream) -> None:
    url = upstream.url.replace("127.0.0.1", "localhost")
    assert b"chat.completion" in await fetched(client, UpstreamRequest(f"{url}/chat/completions", {}, CHAT))


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    """(certificate, key) as PEM, signed by itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), private


@asynccontextmanager
async def tls_provider(certificate: tuple[bytes, bytes], tmp_path: Any) -> AsyncIterator[str]:
    """The base URL of an https server that answers anything with {}."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    files = [tmp_path / "certificate.pem", tmp_path / "key.pem"]
    for file, pem in zip(files, certificate, strict=True):
        file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_certificate_that_nobody_vouches_for_is_refused(
    client: AiohttpUpstream, certificate: tuple[bytes, bytes], tmp_path: Any
) -> None:
    async with tls_provider(certificate, tmp_path) as url:
        with pytest.raises(ConnectFailed, match="certificate"):
            await client.send(UpstreamRequest(f"{url}/v1/models", {}, b"", method="GET"), target())


@pytest.mark.parametrize("how", ["our own authority", "not verified"])
async def test_certificate_is_accepted_where_the_provider_says_so(
    client: AiohttpUpstream, certificate: tuple[bytes, bytes], tmp_path: Any, how: str
) -> None:
    tls = ssl_context(True, certificate[0].decode()) if how == "our own authority" else ssl_context(False, "")
    async with tls_provider(certificate, tmp_path) as url:
        request = UpstreamRequest(f"{url}/v1/models", {}, b"", method="GET")
        reply = await client.send(request, target(ssl=tls))
        assert await reply.read(100, nothing) == b"{}"
        reply.close()


async def test_certificate_of_another_host_is_refused(
    client: AiohttpUpstream, certificate: tuple[bytes, bytes], tmp_path: Any
) -> None:
    tls = ssl_context(True, certificate[0].decode())
    async with tls_provider(certificate, tmp_path) as url:
        request = UpstreamRequest(f"{url}/v1/models".replace("127.0.0.1", "localhost"), {}, b"", method="GET")
        with pytest.raises(ConnectFailed, match="certificate"):
            await client.send(request, target(ssl=tls))


async def test_plain_http_at_an_https_port_is_no_provider(client: AiohttpUpstream, upstream: Upstream) -> None:
    url = upstream.url.replace("http://", "https://")
    with pytest.raises(ConnectFailed):
        await client.send(UpstreamRequest(f"{url}/models", {}, b"", method="GET"), target(connect_timeout_s=0.2))
