"""One call, top to bottom, in the order things happen.

    key -> body -> exchange -> model -> [ journal open -> route -> provider ] per candidate -> reply -> settle

Retry and fallback live here and nowhere else. A later route is tried on a connect error, a timeout, 429 or 5xx, and
only before the first token; the request is translated again from the exchange. All attempts share one budget of time.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec

from accounts.authentication import InvalidKey, LookupUnavailable, Principal
from policies.types import Exchange
from proxy import books, router
from proxy.attempt import Attempt
from proxy.call import Call
from proxy.endpoints import Endpoint
from proxy.errors import (
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
from proxy.snapshot import ModelEntry

logger = logging.getLogger(__name__)

BEARER = b"Bearer "
# With less of the time budget left a provider would be asked, and would bill, for an answer that nobody waits for.
LEAST_TRY_S = 0.05

decode_json = msgspec.json.Decoder().decode


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
    """Raises the last provider's failure; when none could be asked, why the last one could not."""
    prompt_tokens = books.estimate_prompt_tokens(exchange)
    own_key = caller_provider_key(call)
    attempts = 0
    failed: GatewayError | None = None
    unable: GatewayError = InvalidRequest(
        f"The model does not support {exchange.endpoint}. Choose another model.", param="model"
    )
    for candidate in router.candidates(model, exchange.endpoint):
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
    raise failed or unable


def _moves_on(error: GatewayError) -> bool:
    """Whether another route may do better: not reached, late, nonsense, too many requests, the provider's own fault."""
    if isinstance(error, ProviderError):
        return error.upstream_status == 429 or error.upstream_status >= 500
    return isinstance(error, UpstreamTimeout | UpstreamUnavailable)
