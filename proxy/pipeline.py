"""One call, top to bottom, in the order things happen.

    key -> body -> exchange -> model -> rates -> policies -> budgets -> [ journal open -> route -> provider ] per
        candidate -> policies -> reply -> settle

Retry and fallback live here and nowhere else. A later route is tried on a connect error, a timeout, 429 or 5xx, and
only before the first token; the request is translated again from the exchange. All attempts share one budget of time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

import msgspec

from accounts.authentication import InvalidKey, LookupUnavailable, Principal
from policies.types import Exchange
from proxy import admission, answers, books, measure, router
from proxy.attempt import Attempt
from proxy.call import JSON, Call, client_left
from proxy.endpoints import Endpoint
from proxy.errors import (
    AddressNotAllowed,
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
from proxy.gateway import Gateway
from proxy.passage import Instead, Passage, begin, too_slow
from proxy.snapshot import Candidate, ModelEntry

logger = logging.getLogger(__name__)

BEARER = b"Bearer "
# With less of the time budget left a provider would be asked, and would bill, for an answer that nobody waits for.
LEAST_TRY_S = 0.05
FIRST_PAUSE_S = 0.5  # before a failed route is tried again; twice as long each time

decode_json = msgspec.json.Decoder().decode


# --- 1. who calls ---------------------------------------------------------------------------------------------------


async def authenticate(gateway: Gateway, call: Call) -> Principal:
    """Raises Unauthenticated, KeyLookupUnavailable, AddressNotAllowed."""
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
        if not principal.admits(call.facts["client_ip"]):
            raise AddressNotAllowed(
                "This API key may not be used from your network. Call from an allowed one, or ask whoever gave the "
                "key to you."
            )
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
        requested_model=body["model"],
        body_bytes=len(raw),
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
    exchange.caller = principal.public_id
    exchange.context_window = model.context_window
    model = await admission.admit(gateway, call, principal, exchange, model)
    call.passage = passage = begin(gateway, call, principal, exchange)
    if passage is None:
        await _try_routes(gateway, call, exchange, model)
        return
    try:
        answer = await _ask_policies(passage, call, model)
        if answer is None:
            await _try_routes(gateway, call, exchange, model)
        else:
            await _answer(gateway, call, exchange, answer)
    finally:
        passage.close()


async def _ask_policies(passage: Passage, call: Call, model: ModelEntry) -> Instead | None:
    """What a rule answers; None: a provider is to answer. Raises PolicyViolation, CheckUnavailable."""
    call.expect(model.time_budget_s, too_slow)
    try:
        answer = await passage.request()
    except CancelledError:
        raise call.interruption() from None
    if call.facts is not None and passage.review.record:
        call.facts["findings"] = passage.findings()  # in the journal before the provider hears of the call
    return answer


async def _answer(gateway: Gateway, call: Call, exchange: Exchange, instead: Instead) -> None:
    """A reply of our own: nobody was asked, nothing is billed."""
    headers = [(b"x-gatehouse-model", exchange.model.encode()), (b"x-gatehouse-flags", call.passage.flags().encode())]
    call.expect(gateway.limits.write_timeout_s, client_left)
    try:
        if exchange.stream:
            call.streaming = True
            await call.start(200, [(b"content-type", b"text/event-stream; charset=utf-8"), *headers])
            await call.send(answers.stream(exchange, *instead, call.id), more=False)
        else:
            await call.reply(200, [JSON, *headers], answers.whole(exchange, *instead, call.id))
    except CancelledError:
        raise call.interruption() from None


async def _try_routes(gateway: Gateway, call: Call, exchange: Exchange, model: ModelEntry) -> None:
    """Raises the last provider's failure; when none could be asked, why the last one could not."""
    await admission.hold(gateway, call, exchange, model)
    prompt_tokens = measure.estimated_tokens(measure.text_bytes(exchange))
    own_key = caller_provider_key(call)
    attempts = 0
    failed_tries = ""
    failed: GatewayError | None = None
    unable: GatewayError = InvalidRequest(
        f"The model does not support {exchange.endpoint}. Choose another model.", param="model"
    )
    for candidate, pause_s in _tries(model, exchange):
        if pause_s:
            await _pause(call, pause_s)
        left_s = model.time_budget_s - call.elapsed_us() / 1e6
        if left_s < LEAST_TRY_S:
            failed = failed or UpstreamTimeout("No provider answered in time. Try again.")
            break
        attempt = Attempt(gateway, call, exchange, candidate, own_key, prompt_tokens, left_s)
        try:
            request = attempt.translate()
        except InvalidRequest as error:
            unable = error  # this provider cannot express it; another may
            continue
        books.open_call(gateway.journal, call, call.facts or {}, candidate, prompt_tokens)
        attempts += 1
        call.outcome = {
            **books.NOTHING_USED,
            "provider": candidate.target.provider,
            "upstream_model": candidate.target.upstream_model,
            "attempts": attempts,
        }
        if failed_tries:
            call.outcome["failed_tries"] = failed_tries
        try:
            await (attempt.stream(request) if exchange.stream else attempt.answer(request))
            return
        except GatewayError as error:
            if not _moves_on(error) or call.status or call.client_gone:
                raise
            failed = error
            failed_tries = books.note_failure(gateway.journal, call, failed_tries, candidate, error)
            logger.info("route %s failed with %s: %s", candidate.target.provider, error.status, error.__cause__ or "")
    raise failed or unable


def _tries(model: ModelEntry, exchange: Exchange) -> Iterator[tuple[Candidate, float]]:
    """Each route, as often as a rule wants it repeated, with the seconds to wait before a repetition."""
    for candidate in router.candidates(model, exchange.endpoint):
        yield candidate, 0.0
        for repetition in range(exchange.retries):
            yield candidate, FIRST_PAUSE_S * 2**repetition


async def _pause(call: Call, seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
    except CancelledError:
        raise call.interruption() from None


def _moves_on(error: GatewayError) -> bool:
    """Whether another route may do better: not reached, late, nonsense, too many requests, the provider's own fault."""
    if isinstance(error, ProviderError):
        return error.upstream_status == 429 or error.upstream_status >= 500
    return isinstance(error, UpstreamTimeout | UpstreamUnavailable)
