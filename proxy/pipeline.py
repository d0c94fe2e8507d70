"""One call, top to bottom, in the order things happen.

    key -> body -> exchange -> model -> [ journal open -> route -> provider ] per candidate -> reply -> settle

Retry and fallback live here and nowhere else. A later route is tried on a connect error, a timeout, 429 or 5xx, and
only before the first token; the request is translated again from the exchange. All attempts share one budget of time.
"""

from __future__ import annotations

import json
import logging
from asyncio import CancelledError
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from accounts.authentication import Authenticator, InvalidKey, LookupUnavailable, Principal
from policies.types import Exchange
from proxy import books, router, streaming
from proxy.call import Call, Header, client_left
from proxy.endpoints import Endpoint
from proxy.errors import (
    ClientLeft,
    EndpointNotAllowed,
    GatewayError,
    InvalidRequest,
    KeyLookupUnavailable,
    ModelNotFound,
    NoProvider,
    ProviderError,
    Unauthenticated,
    UnsupportedMediaType,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from proxy.providers.base import ErrorInReply, NonsenseReply, UnsupportedRequest, UpstreamRequest, encode
from proxy.snapshot import Candidate, Holder, ModelEntry
from proxy.upstream import Broken, ConnectFailed, ConnectTimedOut, TooLarge, Upstream, UpstreamReply
from usage.journal import Journal
from usage.pricing import TokenUsage

logger = logging.getLogger(__name__)

BEARER = b"Bearer "
JSON: Header = (b"content-type", b"application/json")
# How long we wait for the end of a stream whose last word was said, so that its connection can be used again.
AFTER_DONE_S = 0.5
HANDED_ON = (b"x-ratelimit-", b"openai-processing-ms", b"openai-version", b"retry-after", b"x-should-retry")
UPSTREAM_REQUEST_IDS = (b"x-request-id", b"request-id", b"apim-request-id")

decode_json = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds, see docs/configuration.md."""

    max_body_bytes: int
    max_reply_bytes: int
    body_timeout_s: float
    write_timeout_s: float
    detached_limit_s: float


@dataclass(slots=True)
class Gateway:
    """What a web process holds for its calls."""

    authenticator: Authenticator
    snapshots: Holder
    upstream: Upstream
    journal: Journal
    limits: Limits
    user_agent: bytes  # under which our own calls leave, the same in every process


# --- 1. who calls ---------------------------------------------------------------------------------------------------


async def authenticate(gateway: Gateway, call: Call) -> Principal:
    """Raises Unauthenticated, KeyLookupUnavailable."""
    key = given_key(call)
    try:
        principal = gateway.authenticator.cached(key)
        if principal is None:
            principal = await gateway.authenticator.authenticate(key)
    except InvalidKey:
        raise Unauthenticated from None
    except LookupUnavailable:
        raise KeyLookupUnavailable(
            "The gateway cannot check API keys right now. Try again in a moment.", headers={"retry-after": "2"}
        ) from None
    if call.facts is not None:
        books.add_principal(call.facts, principal)
    return principal


def given_key(call: Call) -> str:
    """The Gatehouse key, from the first of the places where clients put one; "" when there is none."""
    headers = call.headers
    own = headers.get(b"x-usagepanda-api-key")
    if own is None:
        authorization = headers.get(b"authorization")
        if authorization is not None:
            own = authorization[len(BEARER) :] if authorization.startswith(BEARER) else b""
        else:
            own = headers.get(b"x-api-key") or headers.get(b"api-key") or b""
    return own.decode("latin-1")


def caller_provider_key(call: Call) -> str:
    """The caller's own key for the provider, where it brings one."""
    own = call.headers.get(b"x-gatehouse-provider-key")
    if own is not None:
        return own.decode("latin-1")
    if b"x-usagepanda-api-key" in call.headers:
        return call.headers.get(b"authorization", b"").removeprefix(BEARER).decode("latin-1")
    return ""


def check_endpoint(principal: Principal, endpoint: Endpoint) -> None:
    if principal.endpoints is not None and endpoint.name not in principal.endpoints:
        raise EndpointNotAllowed(
            f"This API key may not call {endpoint.name}. Ask for a key that may, or use one of its own endpoints."
        )


# --- 2. what is asked -----------------------------------------------------------------------------------------------


async def read_exchange(gateway: Gateway, call: Call, endpoint: Endpoint) -> Exchange:
    """Raises InvalidRequest and the errors of reading a body."""
    headers = call.headers
    kind = headers.get(b"content-type", b"").lower()
    if not kind.startswith(b"application/json"):
        raise UnsupportedMediaType("Send the request as JSON, with 'content-type: application/json'.")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise UnsupportedMediaType("Send the request without a content-encoding.")
    raw = await call.read_body(gateway.limits.max_body_bytes, gateway.limits.body_timeout_s)
    try:
        body = read_json(raw)
    except (ValueError, RecursionError):
        raise InvalidRequest("The request body is not valid JSON. Send one JSON object in UTF-8.") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    endpoint.check(body)
    return Exchange(
        endpoint=endpoint.name,
        body=body,
        model=body["model"],
        stream=endpoint.streams and body.get("stream") is True,
        wants_usage=endpoint.streams and bool((body.get("stream_options") or {}).get("include_usage")),
    )


def read_json(raw: bytes) -> Any:
    """Integers of any length stay exact; of a name given twice the last one counts, for us and for the provider alike.

    What the fast reader refuses is read again by the slow one, which takes halves of surrogate pairs, as clients that
    cut a text in the middle of an emoji send them. Raises ValueError, RecursionError.
    """
    try:
        return decode_json(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(raw.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number that is too large")
    return number


def find_model(gateway: Gateway, principal: Principal, name: str) -> ModelEntry:
    """Raises NoProvider, ModelNotFound."""
    snapshot = gateway.snapshots.current
    if not snapshot.has_providers:
        raise NoProvider("No provider is set up yet. Whoever runs this gateway can add one under /admin/.")
    entry = snapshot.find(name)
    if entry is None or (principal.models is not None and entry.name not in principal.models):
        raise ModelNotFound
    return entry


# --- 3. who answers -------------------------------------------------------------------------------------------------


async def generate(gateway: Gateway, call: Call, endpoint: Endpoint) -> None:
    """Answer chat/completions, completions and embeddings, streamed or not. Raises GatewayError."""
    principal = await authenticate(gateway, call)
    check_endpoint(principal, endpoint)
    exchange = await read_exchange(gateway, call, endpoint)
    facts = call.facts or {}
    books.add_exchange(facts, exchange)
    if b"x-gatehouse-tags" in call.headers:
        facts["tags"] = books.read_tags(books.read_text(call.headers[b"x-gatehouse-tags"]))
    model = find_model(gateway, principal, exchange.model)
    exchange.model = facts["model"] = model.name
    if not exchange.stream:
        call.detached_limit_s = gateway.limits.detached_limit_s
    await _try_routes(gateway, call, exchange, model)


async def _try_routes(gateway: Gateway, call: Call, exchange: Exchange, model: ModelEntry) -> None:
    prompt_tokens = books.estimate_prompt_tokens(exchange)
    budget_s = model.time_budget_s
    own_key = caller_provider_key(call)
    attempts = 0
    failed: GatewayError | None = None
    for candidate in router.candidates(model, exchange.endpoint):
        left_s = budget_s - call.elapsed_us() / 1e6
        if left_s <= 0:
            break
        attempt = _Attempt(gateway, call, exchange, candidate, own_key, prompt_tokens, left_s)
        # Translated before the call is opened: what the provider cannot express never was a call.
        request = attempt.translate()
        books.open_call(gateway.journal, call, call.facts or {}, candidate, prompt_tokens)
        attempts += 1
        call.outcome = {
            **attempt.nothing_used(),
            "provider": candidate.target.provider,
            "upstream_model": candidate.target.upstream_model,
            "attempts": attempts,
        }
        try:
            await (attempt.stream(request) if exchange.stream else attempt.answer(request))
            return
        except GatewayError as error:
            if not _moves_on(error) or call.status or call.client_gone:
                raise
            failed = error
            logger.info("route %s failed with %s: %s", candidate.target.provider, error.status, error.__cause__ or "")
    if failed is not None:
        raise failed
    if attempts == 0 and model.tiers and budget_s > 0:
        raise InvalidRequest(f"The model does not support {exchange.endpoint}. Choose another model.", param="model")
    raise UpstreamTimeout("No provider answered in time. Try again.")


def _moves_on(error: GatewayError) -> bool:
    """Whether another route may do better: not reached, late, nonsense, too many requests, the provider's own fault."""
    if isinstance(error, ProviderError):
        return error.upstream_status == 429 or error.upstream_status >= 500
    return isinstance(error, UpstreamTimeout | UpstreamUnavailable)


class _Attempt:
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
            raise call.interruption() from None
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
            call.expect(self.gateway.limits.write_timeout_s, client_left)
            for block in blocks:
                out = relay.feed(block)
                if out:
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
