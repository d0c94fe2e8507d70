"""GET /api/v1/me/usage, with an API key itself: what holds for it, and what it has used.

So an app can see its own budget before it is refused. It learns the numbers of its key, its owner and its team; of what
holds for everybody only whether it is spent.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import Error as DatabaseProblem  # the root of DatabaseError and InterfaceError
from django.db import connection
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, exception_handler

from accounts.addresses import client_ip
from accounts.authentication import InvalidKey, Principal, check_now
from accounts.services import peppers
from usage.key_usage import KeyUsage, Used, usage_of
from usage.models import Budget, Limit
from usage.pricing import to_usd
from usage.spending import Standing
from usage.windows import UnknownZone, zone_of

logger = logging.getLogger(__name__)

BEARER = "Bearer "


class Refused(APIException):
    """`code` as in the table of errors (docs/errors.md), for the same things as on /v1."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code)
        self.status_code = status


INVALID_KEY = (
    "No valid API key was given. Send one as 'Authorization: Bearer sk-gh-...'; "
    "it may also have expired or been revoked: ask whoever gave it to you."
)
OTHER_NETWORK = (
    "This API key may not be used from your network. Call from an allowed one, or ask whoever gave the key to you."
)
UNAVAILABLE = "The gateway cannot check API keys right now. Try again in a moment."


class ByKey(BaseAuthentication):
    """`request.auth` is the Principal. Nobody is signed in by a key: `request.user` stays anonymous."""

    def authenticate(self, request: Request) -> tuple[Any, Principal]:
        try:
            principal = check_now(given_key(request), peppers())
        except InvalidKey:
            raise Refused(401, "invalid_api_key", INVALID_KEY) from None
        if not principal.admits(client_ip(request)):
            raise Refused(403, "address_not_allowed", OTHER_NETWORK)
        return AnonymousUser(), principal


def given_key(request: Request) -> str:
    """From the first of the places where clients put one, as on /v1; "" when there is none."""
    headers = request.headers
    own = headers.get("x-usagepanda-api-key")
    if own is None:
        authorization = headers.get("authorization")
        if authorization is None:
            return headers.get("x-api-key") or headers.get("api-key") or ""
        own = authorization.removeprefix(BEARER) if authorization.startswith(BEARER) else ""
    return str(own)


class AlwaysJson(BaseContentNegotiation):
    """Whatever Accept says, as /v1 does."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class WithKey(BasePermission):
    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.auth, Principal)


class MyUsageView(APIView):
    authentication_classes = (ByKey,)
    permission_classes = (WithKey,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = AlwaysJson

    def get(self, request: Request) -> Response:
        principal: Any = request.auth
        return Response(as_json(principal, usage_of(principal)))

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"] = "no-store"
        return response

    def get_exception_handler(self) -> Any:
        return as_gateway_error


def as_gateway_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """In the one shape that errors of the gateway have."""
    if isinstance(error, DatabaseProblem):
        connection.close()
        logger.error("usage of a key cannot be read (%s)", type(error).__name__)
        error = Refused(503, "key_lookup_unavailable", UNAVAILABLE)
    response = exception_handler(error, context)
    if response is None or not isinstance(error, APIException):
        return response
    kind = "server_error" if response.status_code >= 500 else "invalid_request_error"
    code = error.get_codes()
    response.data = {"error": {"message": str(error.detail), "type": kind, "param": None, "code": code}}
    if response.status_code == 503:
        response["Retry-After"] = "2"
    return response


# --- as JSON --------------------------------------------------------------------------------------------------------
def as_json(principal: Principal, found: KeyUsage) -> dict[str, Any]:
    """Money is text, exact to the nano-dollar: a JSON number would become a float wherever it is read."""
    name = principal.key_label.removesuffix(f" ({principal.public_id})")
    return {
        "as_of": _time(found.as_of, "UTC"),
        "key": {"name": name, "public_id": principal.public_id},
        "budgets": [_budget(standing, standing.budget.timezone or found.zone) for standing in found.standings],
        "limits": [_limit(limit) for limit in found.limits],
        "usage": {"timezone": found.zone, "today": _used(found.today), "this_month": _used(found.this_month)},
    }


def _budget(standing: Standing, zone: str) -> dict[str, Any]:
    budget, (start, end) = standing.budget, standing.window
    falls_back = budget.on_exhaustion == Budget.OnExhaustion.FALL_BACK
    said: dict[str, Any] = {
        "scope": budget.scope,
        "model": budget.model or None,
        "unit": budget.unit,
        "per": budget.per,
        "exhausted": standing.spent >= standing.limit,
        "timezone": zone,
        "window_start": _time(start, zone),
        "resets_at": None if end is None else _time(end, zone),
        "when_spent": budget.on_exhaustion,
        "fallback_model": budget.fallback_model if falls_back else None,
    }
    if budget.scope == Budget.Scope.INSTALLATION:
        return said
    amounts = {"limit": standing.limit, "spent": standing.spent, "remaining": standing.left, "soft": budget.soft}
    return said | {name: _amount(amount, budget.unit) for name, amount in amounts.items()}


def _amount(amount: int | None, unit: str) -> str | int | None:
    if amount is None or unit == Budget.Unit.TOKENS:
        return amount
    return _usd(amount)


def _usd(nano: int) -> str:
    return f"{to_usd(nano).normalize():f}"


def _limit(limit: Limit) -> dict[str, Any]:
    return {
        "scope": limit.scope,
        "model": limit.model or None,
        "requests_per_minute": limit.requests_per_minute,
        "tokens_per_minute": limit.tokens_per_minute,
        "max_parallel": limit.max_parallel,
    }


def _used(used: Used) -> dict[str, Any]:
    return {
        "calls": used.calls,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cost_usd": _usd(used.cost_nano_usd),
    }


def _time(moment: datetime, zone: str) -> str:
    """ISO 8601 by the clock of that zone."""
    try:
        return moment.astimezone(zone_of(zone)).isoformat(timespec="seconds")
    except UnknownZone:
        return moment.isoformat(timespec="seconds")
