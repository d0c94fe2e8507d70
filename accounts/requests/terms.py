"""Terms that everybody has to agree to before they make keys or use the playground. Keys that are there go on working,
whatever the terms: an app cannot read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from accounts.requests.locking import lock
from accounts.requests.models import TermsAgreement, TermsVersion


def in_force() -> TermsVersion | None:
    """The newest that counts. None: there are none."""
    return _published().first()


def to_agree(user: User) -> TermsVersion | None:
    """What the person has not agreed to yet, whether it bars them or may wait. One query."""
    mine = TermsAgreement.objects.filter(user=user, version=OuterRef("pk"))
    version = _published().annotate(agreed=Exists(mine)).first()
    return None if version is None or version.agreed else version


def barring(user: User) -> TermsVersion | None:
    """What the person has to agree to before they go on; None: nothing stands in their way."""
    version = to_agree(user)
    if version is None or version.grace_until is None or timezone.now() >= version.grace_until:
        return version
    # Whoever never agreed to anything has no grace.
    return None if TermsAgreement.objects.filter(user=user).exists() else version


def agree(user: User, version_id: int) -> TermsAgreement:
    """To the version that was read, if it still is the one in force. Raises ValidationError."""
    version = in_force()
    if version is None or version.pk != version_id:
        raise ValidationError("There is a newer version by now. Please read that one.")
    with transaction.atomic():
        lock(User, user.pk)
        return TermsAgreement.objects.get_or_create(user=user, version=version)[0]


def agreements_of(user: User) -> list[TermsAgreement]:
    return list(TermsAgreement.objects.filter(user=user).select_related("version"))


def _published() -> Any:
    return TermsVersion.objects.filter(published_at__lte=timezone.now()).order_by("-published_at", "-pk")


# --- in the way of pages ---------------------------------------------------------------------------------------------
View = Callable[..., HttpResponse]


def agreed(view: View) -> View:
    """For a view of somebody who is signed in: first the terms, then back here."""

    @wraps(view)
    def barred(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user: Any = request.user
        if user.is_authenticated and barring(user) is not None:
            return _to_terms(request)
        return view(request, *args, **kwargs)

    return barred


# By the names of their addresses: the pages of keys and of the playground belong to other parts of the portal.
BARRED = ("portal_new_key", "portal_playground")


class TermsMiddleware:
    """Bars making keys and the playground until the terms are agreed to. Asks the database for these pages alone."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: View, args: Any, kwargs: Any) -> HttpResponse | None:
        match = request.resolver_match
        user: Any = request.user
        if match is None or not str(match.url_name).startswith(BARRED) or not user.is_authenticated:
            return None
        return _to_terms(request) if barring(user) is not None else None


def _to_terms(request: HttpRequest) -> HttpResponse:
    return redirect(f"{reverse('access_terms')}?{urlencode({'next': _way_back(request)})}")


def _way_back(request: HttpRequest) -> str:
    """The page that was asked for; of a form the page that it is on."""
    if request.method in ("GET", "HEAD"):
        return request.get_full_path()
    came_from = urlsplit(request.headers.get("Referer", ""))
    return came_from.path if came_from.netloc == request.get_host() else "/"
