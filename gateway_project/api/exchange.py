"""POST /api/v1/token-exchange: a token of the IdP for an API key that lives for hours (RFC 8693)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.conf import settings
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException, Throttled
from rest_framework.parsers import FormParser
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle

from accounts.addresses import client_ip
from accounts.audit import record
from accounts.tokens.exchange import LONGEST_LIFE, SHORTEST_LIFE, USUAL_LIFE, Refused, exchange
from gateway_project.api import errors
from gateway_project.api.base import ApiView
from gateway_project.api.bodies import check

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
KINDS = ("id_token", "access_token", "jwt")
SUBJECT_TYPES = tuple(f"urn:ietf:params:oauth:token-type:{kind}" for kind in KINDS)
ISSUED = "urn:ietf:params:oauth:token-type:access_token"


class ByAddress(SimpleRateThrottle):
    """Of each address."""

    scope = "token-exchange"
    rate = "30/min"

    def get_cache_key(self, request: Any, view: Any) -> str:
        return f"token-exchange:{client_ip(request)}"


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A key in a team",
            value={
                "grant_type": GRANT, "subject_token": "eyJhbGciOi...", "subject_token_type": SUBJECT_TYPES[0],
                "team": "research", "scope": "gpt-4o-mini",
            },
            request_only=True,
        )
    ]
)  # fmt: skip
class ExchangeSerializer(serializers.Serializer):
    grant_type = serializers.CharField(help_text=GRANT)
    subject_token = serializers.CharField(help_text="An id_token, or an access token that is a JWT, for our client.")
    subject_token_type = serializers.CharField(help_text=", ".join(SUBJECT_TYPES))
    requested_token_type = serializers.CharField(required=False, help_text=ISSUED)
    audience = serializers.CharField(required=False, help_text="The gateway's own address, or nothing.")
    scope = serializers.CharField(
        required=False, allow_blank=True, help_text="Models, with blanks between. Empty: all."
    )
    team = serializers.CharField(required=False, allow_blank=True, help_text="Its name. Empty: the personal one.")
    expires_in = serializers.IntegerField(
        required=False,
        default=int(USUAL_LIFE.total_seconds()),
        min_value=int(SHORTEST_LIFE.total_seconds()),
        max_value=int(LONGEST_LIFE.total_seconds()),
        help_text="Seconds that the key lives.",
    )


class ExchangedSerializer(serializers.Serializer):
    access_token = serializers.CharField(help_text="An API key.")
    issued_token_type = serializers.CharField()
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField()
    scope = serializers.CharField(required=False)


class OAuthError(serializers.Serializer):
    error = serializers.CharField(help_text="As RFC 6749 and 8693 have it.")
    error_description = serializers.CharField()


class TokenExchange(ApiView):
    """A token of the IdP for a short-lived API key of the same person. Errors are as OAuth has them."""

    authentication_classes: Any = ()
    permission_classes = (AllowAny,)
    parser_classes = (FormParser,)
    throttle_classes = (ByAddress,)
    tag_name = "token exchange"
    repeats = False

    def _run(self, request: Any, handler: Any) -> Any:
        """Without a transaction around it: the IdP is asked first, and nothing is locked meanwhile."""
        return handler()

    @extend_schema(
        operation_id="token_exchange",
        request=ExchangeSerializer,
        responses={
            200: ExchangedSerializer, 400: OAuthError, 413: OAuthError, 415: OAuthError, 429: OAuthError,
            503: OAuthError,
        },
    )  # fmt: skip
    def post(self, request: Any) -> Response:
        given = {name: request.data.get(name) for name in request.data}
        check(given)
        if any(len(request.data.getlist(name)) > 1 for name in request.data):
            raise Refused("invalid_request", "Give each parameter once.")
        if given.get("grant_type") != GRANT:
            raise Refused("unsupported_grant_type", f"grant_type must be {GRANT}.")
        judge = ExchangeSerializer(data=given)
        if not judge.is_valid():
            param, message = errors.first(judge.errors)
            raise Refused("invalid_request", f"{param}: {message}")
        asked = judge.validated_data
        _check_kinds(asked, request)
        scope = asked.get("scope", "").split()
        made = exchange(
            asked["subject_token"],
            team=asked.get("team", ""),
            models=scope,
            life=timedelta(seconds=asked["expires_in"]),
        )
        reply = {
            "access_token": made.secret,
            "issued_token_type": ISSUED,
            "token_type": "Bearer",
            "expires_in": int(made.life.total_seconds()),
            **({"scope": " ".join(scope)} if scope else {}),
        }
        return Response(reply, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})

    def get_exception_handler(self) -> Any:
        return _as_oauth_error


def _check_kinds(asked: dict[str, Any], request: Any) -> None:
    if asked["subject_token_type"] not in SUBJECT_TYPES:
        raise Refused("invalid_request", f"subject_token_type must be one of {', '.join(SUBJECT_TYPES)}.")
    if asked.get("requested_token_type", ISSUED) != ISSUED:
        raise Refused("invalid_request", f"requested_token_type can only be {ISSUED}.")
    own = {settings.PUBLIC_URL.rstrip("/"), request.build_absolute_uri("/").rstrip("/")}
    if asked.get("audience") and asked["audience"].rstrip("/") not in own:
        raise Refused("invalid_target", "The audience must be the gateway's own address.")


def _as_oauth_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """RFC 6749, 5.2."""
    if isinstance(error, Refused):
        # Outside of the transaction, which is undone.
        record("apikey.exchange_refused", details={"error": error.code, "why": str(error)[:200]})
        status = 503 if error.code == "temporarily_unavailable" else 400
        return Response({"error": error.code, "error_description": str(error)}, status=status)
    response = errors.handle(error, context)
    if response is None:
        return None
    code = "temporarily_unavailable" if response.status_code in (429, 503) else "invalid_request"
    response.data = {"error": code, "error_description": _said(error, response)}
    return response


def _said(error: Exception, response: Response) -> str:
    if isinstance(error, Throttled):
        return "Too many requests from your address. Try again later."
    if isinstance(error, APIException):
        return str(error.detail)
    return str(cast(Any, response.data)["error"]["message"])
