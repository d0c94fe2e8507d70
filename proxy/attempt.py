"""One try at one route: translate, send, read or relay, and note what was used.

What goes wrong leaves here as a GatewayError; proxy.pipeline decides whether another route may do better.
"""

from __future__ import annotations

import sys
from asyncio import CancelledError, sleep
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from policies.errors import PolicyError
from policies.types import Exchange
from proxy import books, measure, streaming
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
from proxy.passage import Guarded, Instead, Passage, too_slow
from proxy.providers.base import ErrorInReply, NonsenseReply, Target, UnsupportedRequest, UpstreamRequest, encode
from proxy.snapshot import Candidate
from proxy.upstream import Broken, ConnectFailed, ConnectTimedOut, TooLarge, UpstreamReply
from usage.pricing import Price, TokenUsage

# How long we wait for the end of a stream whose last word was said, so that its connection can be used again.
AFTER_DONE_S = 0.5
# A fast provider sends hundreds of events at once, and rules need a tenth of a millisecond or two for each: so much is
# read before other calls get their turn.
GUARDED_AT_ONCE = 4096
HANDED_ON = (b"x-ratelimit-", b"openai-processing-ms", b"openai-version", b"retry-after", b"x-should-retry")
UPSTREAM_REQUEST_IDS = (b"x-request-id", b"request-id", b"apim-request-id")


class Attempt:
    """One try at one route. Raises GatewayError; whatever was used by then is in `call.outcome`."""

    __slots__ = ("call", "candidate", "exchange", "gateway", "left_s", "own_key", "passage", "prompt_tokens")

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
        self.passage: Passage | None = call.passage

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
            return target.adapter.request(_bounded(self.exchange, target), target, credential)
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
        said = reply.body if self.passage is None else await self._reviewed(self.passage, reply.body)
        headers = [JSON, *self._our_headers(), *handed_on]
        cost = call.outcome["cost_nano_usd"]
        if cost is not None:
            headers.append((b"x-gatehouse-cost-usd", b"%d.%09d" % divmod(cost, 1_000_000_000)))
        call.expect(self.gateway.limits.write_timeout_s, client_left)
        try:
            await call.reply(200, headers, said)
        except CancelledError:
            raise call.interruption() from None

    async def _reviewed(self, passage: Passage, body: bytes) -> bytes:
        self.call.expect(passage.patience_s, too_slow)
        try:
            return await passage.reply(body)
        except NonsenseReply as error:
            raise _unavailable() from error
        except CancelledError:
            raise self.call.interruption() from None

    async def _fetch(self, request: UpstreamRequest) -> tuple[list[Header], bytes]:
        reply = await self._send(request)
        try:
            await self._raise_if_not_ok(reply)
            body = await self._read(reply)
            return self._handed_on(reply), body
        finally:
            reply.close()

    # --- streamed ---

    async def stream(self, request: UpstreamRequest | None) -> None:
        relay = self._relay()
        try:
            await (self._stream_here(relay) if request is None else self._stream(request, relay))
        except PolicyError as error:
            assert self.passage is not None
            await self._end_with(self.passage.answer_instead(error))

    async def _stream(self, request: UpstreamRequest, relay: streaming.Relay) -> None:
        """Raises PolicyError too."""
        reply: UpstreamReply | None = None
        has_left = is_blocked = False
        try:
            reply = await self._send(request)
            await self._raise_if_not_ok(reply)
            if not reply.header("content-type").lower().startswith("text/event-stream"):
                raise _unavailable()
            first = await self._first_event(reply, relay)
            if self.passage is not None:
                self.call.expect(self.passage.patience_s, too_slow)
                await self.passage.verdict()
            await self._begin(self._handed_on(reply))
            await self._relay_rest(reply, relay, first)
            await self._finish_upstream(reply)
        except (NonsenseReply, Broken) as error:
            await self._send_rest(relay)
            raise _unavailable() from error
        except PolicyError:
            is_blocked = True
            raise
        except CancelledError:
            reason = self.call.interruption()
            has_left = isinstance(reason, ClientLeft)
            raise reason from None
        finally:
            # Also when the client has left: what was produced by then is billed, and the prompt read for it.
            if self.call.streaming or has_left or is_blocked or relay.usage is not None:
                self._use(relay.usage or self._estimate(relay.relayed.tokens() * measure.ESTIMATED_BYTES_PER_TOKEN))
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
        at_once, unread = (GUARDED_AT_ONCE if isinstance(relay, Guarded) else sys.maxsize), b""
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
                if unread:
                    await sleep(0)
                chunk = unread or await next_chunk()
            except (Broken, CancelledError) as error:
                self._raise_unless_complete(relay, error)
                chunk = b""
            unread = chunk[at_once:]
            out = feed(chunk[:at_once]) if chunk else relay.end()
        call.sending = True
        await self._say_last(relay)

    async def _say_last(self, relay: streaming.Relay) -> None:
        """The end of a stream for the client, and before it what a policy has withheld until now."""
        if self.passage is not None:
            self.call.expect(self.passage.patience_s, too_slow)
            withheld = await self.passage.finish(relay)
            self.call.expect(self.gateway.limits.write_timeout_s, client_left)
            if withheld:
                await self.call.send(withheld)
        await self.call.send(b"", more=False)

    async def _send_rest(self, relay: streaming.Relay) -> None:
        """A stream breaks off: what the policies still hold of it is not lost, if they let it pass."""
        if self.call.streaming and isinstance(relay, Guarded) and (rest := relay.rest()):
            await self.call.send(rest)

    async def _end_with(self, instead: Instead) -> None:
        """A policy has blocked the stream, and ends it with a text of its own."""
        call = self.call
        assert self.passage is not None
        call.expect(self.gateway.limits.write_timeout_s, client_left)
        try:
            if not call.streaming:
                await self._begin([])
            await call.send(self.passage.events_instead(instead, call.id))
            await call.send(b"", more=False)
        except CancelledError:
            raise call.interruption() from None

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

    async def _stream_here(self, relay: streaming.Relay) -> None:
        call, adapter = self.call, self.candidate.target.adapter
        blocks = _answer_here(adapter.answer, self.exchange)  # may refuse, so before anything is said
        assert not isinstance(blocks, bytes)
        try:
            if self.passage is not None:
                await self.passage.verdict()
            await self._begin([])
            for block in blocks:
                out = relay.feed(block)
                if out:
                    call.expect(self.gateway.limits.write_timeout_s, client_left)
                    await call.send(out)
            await self._say_last(relay)
        except CancelledError:
            raise call.interruption() from None
        finally:
            if relay.begun:
                self._use(relay.usage or self._estimate(relay.relayed.tokens() * measure.ESTIMATED_BYTES_PER_TOKEN))

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
        relay: streaming.Relay
        if translator is None:
            relay = streaming.PassThrough(self.exchange.wants_usage)
        else:
            relay = streaming.Translated(translator)
        return relay if self.passage is None else self.passage.guard(relay)

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
        headers = {name.decode(): value.decode("latin-1") for name, value in self._handed_on(reply)}
        raise self._said_no(reply.status, body, headers)

    async def _read(self, reply: UpstreamReply) -> bytes:
        # Until the first byte of the body the deadline of `_send` stands: the head of an answer is not its beginning.
        call, idle_s = self.call, self.candidate.target.idle_timeout_s
        try:
            return await reply.read(self.gateway.limits.max_reply_bytes, lambda: call.expect(idle_s, _idle))
        except (Broken, TooLarge) as error:
            raise _unavailable() from error

    def _handed_on(self, reply: UpstreamReply) -> list[Header]:
        """The provider's rate limits, unless the caller has some of ours, and its own request id."""
        handed_on = _handed_on(reply)
        if self.call.admission is None or not self.call.admission.has_levels:
            return handed_on
        return [header for header in handed_on if not header[0].startswith(b"x-ratelimit-")]

    def _use(self, usage: TokenUsage) -> None:
        self.call.outcome.update(books.used(usage, self._price()))

    def _price(self) -> Price | None:
        return self.candidate.price_for((self.call.facts or {}).get("team_id"))

    def _estimate(self, text_bytes: int) -> TokenUsage:
        completion = (text_bytes + 3) // measure.ESTIMATED_BYTES_PER_TOKEN
        return TokenUsage(prompt=self.prompt_tokens, completion=completion, estimated=True)

    def _our_headers(self) -> Iterable[Header]:
        headers = _our_headers(self.candidate.target.provider, self.exchange.model)
        if self.passage is not None and (flags := self.passage.flags()):
            return (*headers, (b"x-gatehouse-flags", flags.encode()))
        return headers


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


def _bounded(exchange: Exchange, target: Target) -> Exchange:
    """What is on a budget names its longest answer, or nobody could know what it costs at most. OpenAI's newer models
    know the new name alone, everybody else the old one."""
    if exchange.max_output is None or exchange.endpoint == "embeddings":
        return exchange
    is_new = exchange.endpoint == "chat/completions" and target.kind in ("openai", "azure_openai")
    name = "max_completion_tokens" if is_new else "max_tokens"
    return exchange.with_body({**exchange.body, name: exchange.max_output})


def _handed_on(reply: UpstreamReply) -> list[Header]:
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
