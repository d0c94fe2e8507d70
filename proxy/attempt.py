"""One try at one route: translate, send, read or relay, and note what was used.

What goes wrong leaves here as a GatewayError; proxy.pipeline decides whether another route may do better.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from policies.types import Exchange
from proxy import books, streaming
from proxy.call import JSON, Call, Header, client_left
from proxy.errors import (
    ClientLeft,
    GatewayError,
    InvalidRequest,
    ProviderError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from proxy.gateway import Gateway
from proxy.providers.base import ErrorInReply, NonsenseReply, UnsupportedRequest, UpstreamRequest, encode
from proxy.snapshot import Candidate
from proxy.upstream import Broken, ConnectFailed, ConnectTimedOut, TooLarge, UpstreamReply
from usage.pricing import TokenUsage

# How long we wait for the end of a stream whose last word was said, so that its connection can be used again.
AFTER_DONE_S = 0.5
HANDED_ON = (b"x-ratelimit-", b"openai-processing-ms", b"openai-version", b"retry-after", b"x-should-retry")
UPSTREAM_REQUEST_IDS = (b"x-request-id", b"request-id", b"apim-request-id")


class Attempt:
    """One try at one route. Raises GatewayError; whatever was used by then is in `call.outcome`."""

    __slots__ = ("call", "candidate", "exchange", "gateway", "left_s", "own_key", "prompt_tokens")

    def __init__(
        self,
        gateway: Gateway,
        call: Call,
        exchange: Exchange,
        candidate: Candidate,
        own_key: str,
        prompt_tokens: int,
        left_s: float,
    ) -> None:
        self.gateway = gateway
        self.call = call
        self.exchange = exchange
        self.candidate = candidate
        self.own_key = own_key
        self.prompt_tokens = prompt_tokens
        self.left_s = left_s

    def translate(self) -> UpstreamRequest | None:
        """None: the adapter answers in this process."""
        target = self.candidate.target
        if target.adapter.answer is not None:
            return None
        credential = target.credential
        if self.own_key:
            if not target.caller_key:
                raise InvalidRequest(
                    "This provider does not accept a key of your own. Leave x-gatehouse-provider-key out."
                )
            credential = self.own_key
        try:
            return target.adapter.request(self.exchange, target, credential)
        except UnsupportedRequest as error:
            raise InvalidRequest(error.message, param=error.param) from None

    # --- whole ---

    async def answer(self, request: UpstreamRequest | None) -> None:
        adapter = self.candidate.target.adapter
        call = self.call
        try:
            if request is None:
                handed_on: list[Header] = []
                body = _answer_here(adapter.answer, self.exchange)
                assert isinstance(body, bytes)
            else:
                handed_on, body = await self._fetch(request)
            reply = adapter.reply(self.exchange, body)
        except ErrorInReply as error:
            raise self._reported(error.said) from error
        except NonsenseReply as error:
            raise _unavailable() from error
        except CancelledError:
            reason = call.interruption()
            if isinstance(reason, ClientLeft):
                self._use(self._estimate(0))  # given up after the detached time: the prompt was read, at least
            raise reason from None
        self._use(reply.usage or self._estimate(streaming.reply_text_bytes(reply.body)))
        headers = [JSON, *self._our_headers(), *handed_on]
        cost = call.outcome["cost_nano_usd"]
        if cost is not None:
            headers.append((b"x-gatehouse-cost-usd", b"%d.%09d" % divmod(cost, 1_000_000_000)))
        call.expect(self.gateway.limits.write_timeout_s, client_left)
        try:
            await call.reply(200, headers, reply.body)
        except CancelledError:
            raise call.interruption() from None

    async def _fetch(self, request: UpstreamRequest) -> tuple[list[Header], bytes]:
        reply = await self._send(request)
        try:
            await self._raise_if_not_ok(reply)
            body = await self._read(reply)
            return _handed_on(reply), body
        finally:
            reply.close()

    # --- streamed ---

    async def stream(self, request: UpstreamRequest | None) -> None:
        if request is None:
            await self._stream_here()
            return
        relay = self._relay()
        reply: UpstreamReply | None = None
        has_left = False
        try:
            reply = await self._send(request)
            await self._raise_if_not_ok(reply)
            if not reply.header("content-type").lower().startswith("text/event-stream"):
                raise _unavailable()
            first = await self._first_event(reply, relay)
            await self._begin(_handed_on(reply))
            await self._relay_rest(reply, relay, first)
            await self._finish_upstream(reply)
        except (NonsenseReply, Broken) as error:
            raise _unavailable() from error
        except CancelledError:
            reason = self.call.interruption()
            has_left = isinstance(reason, ClientLeft)
            raise reason from None
        finally:
            # Also when the client has left: what was produced by then is billed, and the prompt read for it.
            if self.call.streaming or has_left or relay.usage is not None:
                self._use(relay.usage or self._estimate(relay.relayed.tokens() * books.ESTIMATED_BYTES_PER_TOKEN))
            if reply is not None:
                reply.close()

    async def _first_event(self, reply: UpstreamReply, relay: streaming.Relay) -> bytes:
        """Wait for the first event: only with it the answer begins, and until then another route may take over."""
        out = b""
        while not relay.begun:
            chunk = await reply.next_chunk()
            if not chunk:
                out += relay.end()
                break
            out += relay.feed(chunk)
        if relay.error is not None and b"data:" not in out:
            raise self._reported(relay.error)
        return out

    async def _relay_rest(self, reply: UpstreamReply, relay: streaming.Relay, out: bytes) -> None:
        call, next_chunk, feed, send = self.call, reply.next_chunk, relay.feed, self.call.send_message
        call.relaying(self.candidate.target.idle_timeout_s, _idle, self.gateway.limits.write_timeout_s)
        while True:
            if out:
                call.sending = True
                await send({"type": "http.response.body", "body": out, "more_body": True})
                call.sending = False
            call.progress += 1
            if relay.error is not None:
                raise self._reported(relay.error)
            if relay.done:
                break
            try:
                chunk = await next_chunk()
            except (Broken, CancelledError) as error:
                self._raise_unless_complete(relay, error)
                chunk = b""
            out = feed(chunk) if chunk else relay.end()
        call.sending = True
        await call.send(b"", more=False)

    def _raise_unless_complete(self, relay: streaming.Relay, error: BaseException) -> None:
        """A provider that falls silent or hangs up after a whole answer has only forgotten to say that it ends."""
        reason = self.call.interruption() if isinstance(error, CancelledError) else error
        if not relay.complete or isinstance(reason, ClientLeft):
            raise reason

    async def _finish_upstream(self, reply: UpstreamReply) -> None:
        """Read the end of the body, so that the connection can be used again; not waiting long for it."""
        call = self.call
        call.expect(AFTER_DONE_S, _idle)
        try:
            while await reply.next_chunk():
                pass
        except Broken:
            return
        except CancelledError:
            call.interruption()

    async def _stream_here(self) -> None:
        relay = streaming.PassThrough(self.exchange.wants_usage)
        call, adapter = self.call, self.candidate.target.adapter
        blocks = _answer_here(adapter.answer, self.exchange)  # may refuse, so before anything is said
        assert not isinstance(blocks, bytes)
        try:
            await self._begin([])
            for block in blocks:
                out = relay.feed(block)
                if out:
                    call.expect(self.gateway.limits.write_timeout_s, client_left)
                    await call.send(out)
            await call.send(b"", False)
        except CancelledError:
            raise call.interruption() from None
        finally:
            if relay.begun:
                self._use(relay.usage or self._estimate(relay.relayed.tokens() * books.ESTIMATED_BYTES_PER_TOKEN))

    async def _begin(self, handed_on: list[Header]) -> None:
        self.call.streaming = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *self._our_headers(),
            *handed_on,
        ]
        await self.call.start(200, headers)

    def _relay(self) -> streaming.Relay:
        translator = self.candidate.target.adapter.stream(self.exchange)
        if translator is None:
            return streaming.PassThrough(self.exchange.wants_usage)
        return streaming.Translated(translator)

    def _reported(self, error: dict[str, Any]) -> GatewayError:
        """An error that came without a status of its own: in a stream, or in an answer that says 200. Some gateways put
        the status into the code."""
        told = error.get("error")
        code = told.get("code") if isinstance(told, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        return self._said_no(status, encode(error), {})

    def _said_no(self, status: int, body: bytes, headers: dict[str, str]) -> GatewayError:
        """The provider's error, in OpenAI's shape, and without the key in case it quotes it."""
        error = self.candidate.target.adapter.error(status, body)
        for secret in (self.candidate.target.credential, self.own_key):
            if secret:
                error = {name: _without(secret, value) for name, value in error.items()}
        return ProviderError(status, error, headers)

    # --- both ---

    async def _send(self, request: UpstreamRequest) -> UpstreamReply:
        target, upstream = self.candidate.target, self.gateway.upstream
        self.call.expect(min(target.first_byte_timeout_s, self.left_s), _no_first_byte)
        try:
            try:
                return await upstream.send(request, target)
            except Broken as error:
                if not error.unanswered:
                    raise
                # The provider had closed a kept connection just before we used it. Once only: if it did read the
                # request and then hung up without a word, it gets it a second time, which cannot be told apart.
                return await upstream.send(request, target)
        except ConnectTimedOut as error:
            raise UpstreamTimeout("The provider could not be reached in time. Try again.") from error
        except (ConnectFailed, Broken) as error:
            raise _unavailable() from error

    async def _raise_if_not_ok(self, reply: UpstreamReply) -> None:
        if reply.status == 200:
            return
        if reply.status < 400:
            raise _unavailable()
        body = await self._read(reply)
        headers = {name.decode(): value.decode("latin-1") for name, value in _handed_on(reply)}
        raise self._said_no(reply.status, body, headers)

    async def _read(self, reply: UpstreamReply) -> bytes:
        # Until the first byte of the body the deadline of `_send` stands: the head of an answer is not its beginning.
        call, idle_s = self.call, self.candidate.target.idle_timeout_s
        try:
            return await reply.read(self.gateway.limits.max_reply_bytes, lambda: call.expect(idle_s, _idle))
        except (Broken, TooLarge) as error:
            raise _unavailable() from error

    def nothing_used(self) -> dict[str, Any]:
        return books.used(TokenUsage(), self.candidate.price)

    def _use(self, usage: TokenUsage) -> None:
        self.call.outcome.update(books.used(usage, self.candidate.price))

    def _estimate(self, text_bytes: int) -> TokenUsage:
        completion = (text_bytes + 3) // books.ESTIMATED_BYTES_PER_TOKEN
        return TokenUsage(prompt=self.prompt_tokens, completion=completion, estimated=True)

    def _our_headers(self) -> Iterable[Header]:
        return _our_headers(self.candidate.target.provider, self.exchange.model)


def _without(secret: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(secret, "***")
    if isinstance(value, list):
        return [_without(secret, item) for item in value]
    if isinstance(value, dict):
        return {_without(secret, name): _without(secret, item) for name, item in value.items()}
    return value


@lru_cache(maxsize=1024)
def _our_headers(provider: str, model: str) -> tuple[Header, ...]:
    return ((b"x-gatehouse-provider", provider.encode()), (b"x-gatehouse-model", model.encode()))


def _handed_on(reply: UpstreamReply) -> list[Header]:
    """The provider's rate limits and its own request id."""
    return [(kept, value) for name, value in reply.headers() if (kept := _handed_on_as(name)) and _is_harmless(value)]


@lru_cache(maxsize=512)
def _handed_on_as(name: bytes) -> bytes | None:
    """What a provider's header is called in our reply; None: it is not handed on."""
    name = name.lower()
    if name in UPSTREAM_REQUEST_IDS:
        return b"x-gatehouse-upstream-request-id"
    return name if name.startswith(HANDED_ON) else None


def _is_harmless(value: bytes) -> bool:
    return value.isascii() and value.decode().isprintable()


def _answer_here(answer: Any, exchange: Exchange) -> bytes | Iterable[bytes]:
    try:
        result: bytes | Iterable[bytes] = answer(exchange)
    except UnsupportedRequest as error:
        raise InvalidRequest(error.message, param=error.param) from None
    return result


def _unavailable() -> GatewayError:
    return UpstreamUnavailable("The provider could not be reached or its answer made no sense. Try again.")


def _idle() -> GatewayError:
    return UpstreamTimeout("The provider stopped in the middle of its answer. Try again.")


def _no_first_byte() -> GatewayError:
    return UpstreamTimeout("The provider did not answer in time. Try again.")
