"""What all SCIM requests share: the token, the body, and errors in SCIM's own shape whatever goes wrong."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pydantic
from django.conf import settings
from django.core.exceptions import RequestDataTooBig, ValidationError
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from scim2_models import Error, InvalidSyntaxException, InvalidValueException, SCIMException

from accounts.audit import acting, trail
from accounts.scim import selectors, tokens
from accounts.scim.resources import POLICY
from accounts.sso.models import IdentityProvider

CONTENT_TYPE = "application/scim+json"
TAKEN = (CONTENT_TYPE, "application/json")
MAX_DEPTH = 40
logger = logging.getLogger(__name__)


class Problem(Exception):
    def __init__(self, status: int, detail: str, scim_type: str | None = None) -> None:
        super().__init__(detail)
        self.error = Error(status=status, detail=detail, scim_type=scim_type)


@method_decorator(csrf_exempt, name="dispatch")  # a token in a header: no browser sends it by itself
class ScimView(View):
    """Methods return (status, JSON) and raise SCIMException, ValidationError or Problem."""

    provider: IdentityProvider | None = None
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            token = tokens.authenticate(_bearer(request))
        except tokens.InvalidToken:
            refused = answer(401, Error(status=401, detail="A valid SCIM token is needed.").model_dump())
            refused["WWW-Authenticate"] = 'Bearer realm="scim"'
            return refused
        try:
            handler = getattr(self, (request.method or "").lower(), None)
            if handler is None or (request.method or "").lower() not in self.http_method_names:
                raise Problem(405, f"{request.method} is not possible here.")
            _check_text(dict(request.GET.lists()))
            self.provider = selectors.provider_of(token)
            with acting("scim", name=f"SCIM token {token.name}"), POLICY, transaction.atomic():
                if request.method not in ("GET", "HEAD"):
                    trail.lock()  # before the rows of people, as everywhere
                response: HttpResponse = handler(request, *args, **kwargs)
            return response
        except Exception as problem:
            error = error_of(problem)
            return answer(int(error.status or 500), error.model_dump())

    def head(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = getattr(self, "get", NothingToGet())(request, *args, **kwargs)
        return response


class NothingToGet:
    def __call__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Problem(405, "HEAD is not possible here.")


def answer(status: int, body: dict[str, Any] | None = None, etag: str = "") -> HttpResponse:
    content = b"" if body is None else orjson.dumps(body)
    response = HttpResponse(content, status=status, content_type=CONTENT_TYPE)
    response["Cache-Control"] = "no-store"
    if etag:
        response["ETag"] = etag
    return response


def body_of(request: HttpRequest) -> dict[str, Any]:
    """Raises Problem and SCIMException."""
    if request.content_type not in TAKEN:
        raise Problem(415, f"The body must be {CONTENT_TYPE}.")
    try:
        found = orjson.loads(request.body)
    except RequestDataTooBig:
        raise Problem(413, "The body is too large.") from None
    except orjson.JSONDecodeError:
        raise InvalidSyntaxException(detail="The body is no JSON in UTF-8.") from None
    if not isinstance(found, dict):
        raise InvalidSyntaxException(detail="The body must be a JSON object.")
    _check_text(found)
    return found


def base_of(request: HttpRequest) -> str:
    return f"{settings.PUBLIC_URL or request.build_absolute_uri('/')}".rstrip("/") + "/scim/v2"


def error_of(problem: Exception) -> Error:
    """What the IdP is told. Never more than what it sent itself."""
    if isinstance(problem, Problem):
        return problem.error
    if isinstance(problem, SCIMException):
        return problem.to_error()
    if isinstance(problem, pydantic.ValidationError):
        return Error.from_validation_errors(problem)[0]
    if isinstance(problem, ValidationError):
        return Error(status=400, scim_type="invalidValue", detail=" ".join(problem.messages))
    if isinstance(problem, IntegrityError):
        return Error(status=409, scim_type="uniqueness", detail="Somebody was quicker: try again.")
    if isinstance(problem, RecursionError):
        return Error(status=400, scim_type="invalidSyntax", detail="The body is nested too deeply.")
    logger.error("SCIM: a request failed (%s)", type(problem).__name__, exc_info=problem)
    return Error(status=500, detail="Something went wrong here.")


def _bearer(request: HttpRequest) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _check_text(found: Any, depth: int = 0) -> None:
    """No database takes a NUL. Raises InvalidValueException."""
    if depth > MAX_DEPTH:
        raise InvalidSyntaxException(detail="The body is nested too deeply.")
    if isinstance(found, str):
        if "\x00" in found:
            raise InvalidValueException(detail="A text has a character that cannot be kept (NUL).")
    elif isinstance(found, dict):
        _check_text(list(found), depth + 1)
        _check_text(list(found.values()), depth + 1)
    elif isinstance(found, list | tuple):
        for item in found:
            _check_text(item, depth + 1)
