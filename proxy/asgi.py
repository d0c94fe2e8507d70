"""The door: the ASGI callable that every /v1 call comes through, and the end of every call.

It owns what Django's handler does too late or not at all: body limits while reading, the client's leaving, one error
shape, and books that are closed exactly once however a call ends. Views get a Call; none of them sees Django.
"""

from __future__ import annotations

import logging
import re
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from functools import partial

from accounts.addresses import TrustedProxies
from proxy import admission, books, errors, views
from proxy.call import JSON, Call, Header, Receive, Scope, Send
from proxy.errors import GatewayError, LoopDetected, MethodNotAllowed, ShuttingDown, UnknownUrl
from proxy.gateway import Gateway
from usage import metrics

logger = logging.getLogger(__name__)

View = Callable[[Gateway, Call], Awaitable[None]]
# Where Azure's client libraries send their calls; the model is in the body too, and that one counts.
AZURE_PATH = re.compile(
    r"/(?:openai|openai/v1|openai/deployments/.+?|v1/deployments/.+?)/(chat/completions|completions|embeddings|models)"
)
MODEL_PREFIXES = ("/v1/models/", "/models/", "/openai/models/", "/openai/v1/models/")
# "203.0.113.5:50123", "[2001:db8::1]:443", "[2001:db8::1]"
SLASHES = re.compile(r"/{2,}")
# Calls without a valid key are anybody's: beyond so many a second they are answered and counted, but not written down.
ANONYMOUS_EVENTS_PER_S = 20.0
ANONYMOUS_BURST = 2000.0

POST_VIEWS: dict[str, View] = {
    "chat/completions": views.chat_completions,
    "completions": views.completions,
    "embeddings": views.embeddings,
}
EXPOSED = (
    "x-request-id, x-gatehouse-provider, x-gatehouse-model, x-gatehouse-cost-usd, x-gatehouse-flags, "
    "x-gatehouse-upstream-request-id, "
    "retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)


class Door:
    """`gateway` is set while the process is up (see gateway_project.lifespan)."""

    def __init__(
        self, cors_origins: list[str], trusted_proxies: list[str], bind_request_id: Callable[[str], object]
    ) -> None:
        self.gateway: Gateway | None = None
        self.active = 0  # calls under way
        self._cors_origins = frozenset(origin.encode() for origin in cors_origins)
        self._any_origin = "*" in cors_origins
        self._proxies = TrustedProxies(trusted_proxies)
        self._bind_request_id = bind_request_id
        self._anonymous_left, self._anonymous_at = ANONYMOUS_BURST, 0.0  # a bucket of tokens; unix seconds

    @staticmethod
    def owns(path: str) -> bool:
        """Whether a path is the data plane's: under /v1 or /openai, or one of the known endpoints without either."""
        if path.startswith("/v1/"):
            return True
        tidy = normalise(path)
        return tidy in ("/v1", "/openai") or tidy.startswith(("/v1/", "/openai/")) or _route(tidy) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self._bind_request_id(call.request_id)
        self.active += 1
        gateway = self.gateway  # a call that has begun is settled with the journal it began with
        error: GatewayError | None = None
        try:
            await self._answer(gateway, call)
        except GatewayError as raised:
            error = raised
        except CancelledError:
            error = _interruption(call)
        except Exception:
            logger.exception("a call failed in a way nobody foresaw")
            error = GatewayError(
                "Something went wrong in the gateway. Try again; if it stays so, report the request id."
            )
        try:
            if error is not None:
                await self._fail(call, error)
        finally:
            call.end()
            self.active -= 1
            if gateway is not None and call.facts is not None:
                self._settle(gateway, call, error)

    async def _answer(self, gateway: Gateway | None, call: Call) -> None:
        if self._cors_origins and b"origin" in call.headers:
            self._allow_origin(call)
        if call.method == "OPTIONS":
            await self._preflight(call)
            return
        tidy = call.path if call.path in _ROUTES else normalise(call.path)
        name, view = _route(tidy) or ("", None)
        if gateway is None:
            raise ShuttingDown("The gateway is starting or stopping. Try again.", headers={"retry-after": "1"})
        if view is None:
            raise UnknownUrl(f"Unknown request URL: {call.method} {printable(call.path)}. See the API reference.")
        if call.headers.get(b"user-agent") == gateway.user_agent:
            raise LoopDetected("The gateway has called itself: one of its providers is this gateway.")
        call.facts = books.facts_of(call, name, self._client_ip(call))
        allowed = "GET" if name == "models" else "POST"
        if call.method != allowed:
            raise MethodNotAllowed(f"Use {allowed} for this URL.", headers={"allow": f"{allowed}, OPTIONS"})
        await view(gateway, call)

    async def _fail(self, call: Call, error: GatewayError) -> None:
        """Tell the client, if it is still there and can be told."""
        if call.client_gone or error.status == 499:
            call.abort()
            return
        try:
            if call.streaming:
                call.expect(1.0, _give_up)
                await call.send(errors.event(error))
                await call.send(b"", more=False)
            elif call.status:
                call.abort()
            else:
                headers = [JSON, *_encoded(error.headers)]
                call.expect(5.0, _give_up)
                await call.reply(error.status, headers, errors.body(error))
        except CancelledError:
            _interruption(call)
            call.abort()

    def _settle(self, gateway: Gateway, call: Call, error: GatewayError | None) -> None:
        is_anonymous = call.facts is not None and call.facts["key_id"] is None
        if is_anonymous and not self._may_write_anonymous(call.at_us / 1e6):
            metrics.UNRECORDED.inc()
            return
        admission.settle(gateway, call)
        books.settle(gateway.journal, call, error)

    def _may_write_anonymous(self, now: float) -> bool:
        refilled = self._anonymous_left + (now - self._anonymous_at) * ANONYMOUS_EVENTS_PER_S
        self._anonymous_left, self._anonymous_at = min(ANONYMOUS_BURST, refilled), now
        if self._anonymous_left < 1:
            return False
        self._anonymous_left -= 1
        return True

    # --- cross-origin ---

    def _allow_origin(self, call: Call) -> None:
        origin = call.headers[b"origin"]
        if not self._any_origin and origin not in self._cors_origins:
            return
        call.extra_headers += [
            (b"access-control-allow-origin", b"*" if self._any_origin else origin),
            (b"access-control-expose-headers", EXPOSED.encode()),
            (b"vary", b"origin"),
        ]

    async def _preflight(self, call: Call) -> None:
        headers: list[Header] = []
        if call.extra_headers:
            asked = call.headers.get(b"access-control-request-headers", b"authorization, content-type")
            headers = [
                (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
                (b"access-control-allow-headers", asked),
                (b"access-control-max-age", b"600"),
            ]
        await call.reply(200, headers, b"")

    # --- who is behind the proxies ---

    def _client_ip(self, call: Call) -> str:
        client = call.scope.get("client")
        return self._proxies.caller(client[0] if client else "", call.header(b"x-forwarded-for"))


def normalise(path: str) -> str:
    """One spelling of a path: single slashes, no slash at the end, lower case up to a model's name."""
    tidy = SLASHES.sub("/", path).rstrip("/")
    head = tidy.lower()
    azure = AZURE_PATH.fullmatch(head)
    if azure is not None:
        return f"/v1/{azure[1]}"
    for prefix in MODEL_PREFIXES:
        if head.startswith(prefix):
            return "/v1/models/" + tidy[len(prefix) :]
    return head


def printable(path: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in path[:100])


_ROUTES: dict[str, tuple[str, View]] = {}
for _name, _view in {**POST_VIEWS, "models": views.list_models}.items():
    _ROUTES[f"/v1/{_name}"] = _ROUTES[f"/{_name}"] = (_name, _view)


def _route(path: str) -> tuple[str, View] | None:
    found = _ROUTES.get(path)
    if found is not None:
        return found
    if path.startswith(MODEL_PREFIXES[0]):
        return "models", partial(views.show_model, name=path[len(MODEL_PREFIXES[0]) :])
    return None


def _encoded(headers: dict[str, str]) -> list[Header]:
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


def _interruption(call: Call) -> GatewayError:
    """What cancelled the call: a deadline, the client, or else the server, which is stopping."""
    try:
        return call.interruption()
    except CancelledError:
        return ShuttingDown("The gateway is stopping. Try again.", headers={"retry-after": "1"})


def _give_up() -> GatewayError:
    return errors.ClientLeft("The client did not read its answer.")
