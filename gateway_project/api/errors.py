"""What goes wrong, in the one shape that errors of the gateway have (docs/errors.md)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from django.core import exceptions as django
from django.db import DataError, IntegrityError, OperationalError
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

logger = logging.getLogger(__name__)

NON_FIELD = ("__all__", "non_field_errors", "detail")


class Problem(exceptions.APIException):
    """Any of those below; `param` names the field or parameter that it is about."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, self.default_code)
        self.param = param


class BadRequest(Problem):
    status_code = status.HTTP_400_BAD_REQUEST
    default_code = ""


class InvalidToken(Problem):
    status_code = status.HTTP_401_UNAUTHORIZED
    default_code = "invalid_token"


class OtherNetwork(Problem):
    status_code = status.HTTP_403_FORBIDDEN
    default_code = "address_not_allowed"


class ScopeMissing(Problem):
    status_code = status.HTTP_403_FORBIDDEN
    default_code = "insufficient_scope"


class Conflict(Problem):
    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class UnderWay(Problem):
    status_code = status.HTTP_409_CONFLICT
    default_code = "request_under_way"


class Changed(Problem):
    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_code = "precondition_failed"


class TooLarge(Problem):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "request_too_large"


class KeyReused(Problem):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "idempotency_key_reused"


class Unavailable(Problem):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"


CODES = {
    "not_authenticated": "invalid_token",
    "authentication_failed": "invalid_token",
    "throttled": "rate_limit_exceeded",
}
CREDENTIAL_WANTED = "Send a management token as 'Authorization: Bearer gh-mt-...', or sign in."


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """For DRF. None: it is nobody's fault but ours, and becomes a 500."""
    error = _translated(error)
    response = exception_handler(error, context)
    if response is None or not isinstance(error, exceptions.APIException):
        return response
    response.data = body(error)
    if isinstance(error, Unavailable):
        response["Retry-After"] = "2"
    return response


def body(error: exceptions.APIException) -> dict[str, Any]:
    param, message = getattr(error, "param", None), str(error.detail)
    if isinstance(error, exceptions.ValidationError):
        param, message = first(error.detail)
    if isinstance(error, exceptions.NotAuthenticated):
        message = CREDENTIAL_WANTED
    code = str(getattr(error, "default_code", "") or "")
    return shaped(error.status_code, message, param, None if error.status_code == 400 else CODES.get(code, code))


def shaped(status_code: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status_code >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def first(detail: Any) -> tuple[str | None, str]:
    """The first of many mistakes, and where it is: rules.0.check"""
    for path, message in _mistakes(detail):
        return ".".join(path) or None, message
    return None, "This cannot be."


def _mistakes(detail: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _mistakes(inner, path if name in NON_FIELD else (*path, str(name)))
    elif isinstance(detail, list | tuple):
        for index, inner in enumerate(detail):
            yield from _mistakes(inner, (*path, str(index)) if isinstance(inner, Mapping) else path)
    else:
        yield path, str(detail)


def _translated(error: Exception) -> Exception:
    """What Django and its database raise, as what it means for the caller."""
    if isinstance(error, django.ValidationError):
        detail = error.message_dict if hasattr(error, "error_dict") else error.messages
        return exceptions.ValidationError(detail)
    if isinstance(error, ProtectedError | RestrictedError):
        return Conflict("Something else refers to it, so it cannot be deleted.")
    if isinstance(error, IntegrityError):
        return Conflict("Somebody else has just changed the same thing, or it exists already. Read it again.")
    if isinstance(error, DataError):
        return BadRequest("A value is too long, or too large, to be stored.")
    if isinstance(error, OperationalError):
        logger.error("the management API cannot reach the database (%s)", type(error).__name__)
        return Unavailable("The gateway cannot reach its database right now. Try again in a moment.")
    if isinstance(error, django.RequestDataTooBig):
        return TooLarge("The body is too large.")
    if isinstance(error, django.SuspiciousOperation | MultiPartParserError):
        return BadRequest("The request makes no sense.")
    if isinstance(error, Http404):
        return exceptions.NotFound("There is nothing here.")
    if isinstance(error, django.PermissionDenied):
        return exceptions.PermissionDenied(str(error) or "You may not do that.")
    return error


@csrf_exempt
def unknown_url(request: HttpRequest) -> JsonResponse:
    said = shaped(404, "There is no such address in the management API. See /api/v1/docs/.", None, "unknown_url")
    return JsonResponse(said, status=404)
