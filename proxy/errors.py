"""Every way a call can fail, and what the caller is told. The only place that knows domain errors and HTTP both.

GatewayError
├── InvalidRequest        400  malformed, missing or wrong field (`param`)
├── Unauthenticated       401  no, unknown, revoked or expired key: one message for all
├── EndpointNotAllowed    403
├── AddressNotAllowed     403  the key may not be used from there
├── PolicyViolation       400  a rule blocks; the message is the rules' own
├── ModelNotFound         404  unknown, disabled, or not for this key
├── UnknownUrl            404
├── MethodNotAllowed      405
├── BodyTooSlow           408
├── BodyTooLarge          413
├── UnsupportedMediaType  415
├── RateLimited           429  too many at once or in a minute; also what other calls hold of a budget
├── BudgetSpent           429  and trying again does not help
├── UnpricedModel         400  nobody knows what it costs, and the call is on a budget
├── ClientLeft            499  nobody reads this; it is how the event is marked
├── NoProvider            503
├── KeyLookupUnavailable  503
├── LedgerUnavailable     503  the call could not be written down or held for, so it is not made
├── CheckUnavailable      503  a check broke, and its rule fails closed
├── ShuttingDown          503
├── LoopDetected          508  one of our providers is ourselves
├── ProviderError         as sent; 401 and 403 become 502
├── UpstreamUnavailable   502
├── UpstreamTimeout       504
└── (anything else)       500  internal_error
"""

from __future__ import annotations

from typing import Any

import orjson


class GatewayError(Exception):
    """`message` is for the caller: what happened and what to do; never a secret, never a prompt."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}

    def error(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class InvalidRequest(GatewayError):
    status, type, code = 400, "invalid_request_error", None


class PolicyViolation(GatewayError):
    status, type, code = 400, "invalid_request_error", "policy_violation"


class Unauthenticated(GatewayError):
    status, type, code = 401, "invalid_request_error", "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "No valid API key was given. Send one as 'Authorization: Bearer sk-gh-...'; "
            "it may also have expired or been revoked: ask whoever gave it to you."
        )


class EndpointNotAllowed(GatewayError):
    status, type, code = 403, "invalid_request_error", "endpoint_not_allowed"


class AddressNotAllowed(GatewayError):
    status, type, code = 403, "invalid_request_error", "address_not_allowed"


class UnpricedModel(GatewayError):
    status, type, code = 400, "invalid_request_error", "unpriced_model"


class RateLimited(GatewayError):
    """`kind`: requests or tokens. `wait_ms`: when to come again, milliseconds."""

    status, type, code = 429, "requests", "rate_limit_exceeded"

    def __init__(self, message: str, kind: str, wait_ms: int) -> None:
        # Whole seconds are all that HTTP knows (RFC 9110, 10.2.3); OpenAI's clients look at the milliseconds first.
        headers = {"retry-after": str(-(-wait_ms // 1000)), "retry-after-ms": str(wait_ms)}
        super().__init__(message, headers=headers)
        self.type = kind


class BudgetSpent(GatewayError):
    status, type, code = 429, "insufficient_quota", "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class ModelNotFound(GatewayError):
    status, type, code = 404, "invalid_request_error", "model_not_found"

    def __init__(self) -> None:
        super().__init__(
            "The model does not exist or this key may not use it. GET /v1/models lists the ones it may.", param="model"
        )


class UnknownUrl(GatewayError):
    status, type, code = 404, "invalid_request_error", "unknown_url"


class MethodNotAllowed(GatewayError):
    status, type, code = 405, "invalid_request_error", "method_not_allowed"


class BodyTooSlow(GatewayError):
    status, type, code = 408, "invalid_request_error", "request_timeout"


class BodyTooLarge(GatewayError):
    status, type, code = 413, "invalid_request_error", "request_too_large"


class UnsupportedMediaType(GatewayError):
    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class ClientLeft(GatewayError):
    status, type, code = 499, "server_error", "client_disconnected"


class NoProvider(GatewayError):
    status, type, code = 503, "server_error", "no_provider"


class KeyLookupUnavailable(GatewayError):
    status, type, code = 503, "server_error", "key_lookup_unavailable"


class LedgerUnavailable(GatewayError):
    status, type, code = 503, "server_error", "ledger_unavailable"


class CheckUnavailable(GatewayError):
    status, type, code = 503, "server_error", "check_failed"


class ShuttingDown(GatewayError):
    status, type, code = 503, "server_error", "shutting_down"


class LoopDetected(GatewayError):
    status, type, code = 508, "server_error", "loop_detected"


class UpstreamUnavailable(GatewayError):
    status, type, code = 502, "server_error", "upstream_unavailable"


class UpstreamTimeout(GatewayError):
    status, type, code = 504, "server_error", "upstream_timeout"


class ProviderError(GatewayError):
    """The provider said no. Its words and its status, but our key is not the caller's: 401 and 403 become 502."""

    def __init__(self, status: int, error: dict[str, Any], headers: dict[str, str]) -> None:
        ours = status in (401, 403)
        message = "The provider refused the gateway's own credentials. Tell whoever runs the gateway."
        super().__init__(message if ours else str(error.get("message")), param=error.get("param"), headers=headers)
        self.status = 502 if ours or status >= 600 else status
        self.type = "server_error" if ours else str(error.get("type"))
        self.code = "upstream_unavailable" if ours else error.get("code")
        self.upstream_status = status
        self._error = error

    def error(self) -> dict[str, Any]:
        return GatewayError.error(self) if self.upstream_status in (401, 403) else self._error


def body(error: GatewayError) -> bytes:
    return orjson.dumps({"error": error.error()})


def event(error: GatewayError) -> bytes:
    """The one error event of a stream that has begun."""
    return b"data: " + body(error) + b"\n\n"
