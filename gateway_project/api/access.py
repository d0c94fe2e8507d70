"""Who calls, and whether they may: a management token or a session; Django's permissions, narrowed by scopes."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.addresses import client_ip
from accounts.tokens import scopes, services
from accounts.tokens.models import ManagementToken
from gateway_project.api.errors import InvalidToken, OtherNetwork, ScopeMissing

BEARER = "bearer "
WRONG = (
    "No valid management token was given. Send one as 'Authorization: Bearer gh-mt-...'; "
    "it may also have expired or been revoked, or its owner may no longer be active."
)


class ByToken(BaseAuthentication):
    """`request.auth` is the token, `request.user` its owner."""

    def authenticate(self, request: Request) -> tuple[Any, ManagementToken] | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        given = header[len(BEARER) :].strip() if header[: len(BEARER)].lower() == BEARER else ""
        try:
            token = services.authenticate(given, client_ip(request))
        except services.InvalidToken:
            raise InvalidToken(WRONG) from None
        except services.OtherNetwork:
            raise OtherNetwork("This token may not be used from your network.") from None
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="Gatehouse management API"'


AUTHENTICATION = (ByToken, SessionAuthentication)


class SignedIn(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user and request.user.is_authenticated)


class MayDo(SignedIn):
    """For views with `resource` (of the scopes), `model` and `right()`: view, add, change, delete, or a permission by
    its full name. Asks the admin's class of the model, where there is one: it knows exceptions."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        if view.is_unknown_method():
            return True  # it is going to be a 405
        right = view.right()
        check_scope(request, view.resource, view.reads())
        if not has_right(request, view.model, right):
            raise PermissionDenied(f"This needs the permission to {in_words(view.model, right)}.")
        return True


def check_scope(request: Request, resource: str, reads: bool) -> None:
    """Raises ScopeMissing. A session has no scopes: it may what its person may."""
    if not isinstance(request.auth, ManagementToken):
        return
    what = scopes.READ if reads else scopes.WRITE
    if not scopes.covers(request.auth.scopes, resource, what):
        raise ScopeMissing(f"The token lacks the scope {resource}:{what}.")


def is_reading(request: Request) -> bool:
    return request.method in SAFE_METHODS


def has_right(request: Any, model: type[Model], right: str, row: Model | None = None) -> bool:
    """With `row`: for this one. `right` is view, add, change, delete, or the full name of a permission."""
    if "." in right:
        return bool(request.user.has_perm(right))
    opts = model._meta
    registered = admin.site.is_registered(model)
    if right in ("view", "change", "delete") and registered:
        judge = getattr(admin.site.get_model_admin(model), f"has_{right}_permission")
        return bool(judge(request, row) if row is not None else judge(request))
    if right == "add" and registered:
        return bool(admin.site.get_model_admin(model).has_add_permission(request))
    return bool(request.user.has_perm(f"{opts.app_label}.{right}_{opts.model_name}"))


def in_words(model: type[Model], right: str) -> str:
    if "." in right:
        return right.partition(".")[2].replace("_", " ")
    return f"{right} {model._meta.verbose_name_plural}"
