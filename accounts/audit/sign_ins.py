"""Sign-ins, failed sign-ins and sign-outs, as Django's signals tell of them."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import DatabaseError
from django.http import HttpRequest

from accounts.audit import actors, trail
from accounts.models import User

SIGNED_IN, SIGN_IN_FAILED, SIGNED_OUT = "session.signed_in", "session.sign_in_failed", "session.signed_out"

logger = logging.getLogger(__name__)


def watch() -> None:
    user_logged_in.connect(_signed_in, dispatch_uid="audit signed in")
    user_login_failed.connect(_failed, dispatch_uid="audit sign-in failed")
    user_logged_out.connect(_signed_out, dispatch_uid="audit signed out")


def _signed_in(user: Any, request: HttpRequest | None = None, **_kwargs: Any) -> None:
    backend = str(getattr(user, "backend", "") or "").rsplit(".", 1)[-1]
    details = {"backend": backend} if backend else {}
    idp = getattr(request, "sso_provider", None)  # set by accounts.sso
    if idp is not None:
        details = {"identity_provider": idp.slug}
    with actors.acting(actors.current().channel if idp is None else actors.SSO, user):
        trail.record(SIGNED_IN, user, details=details or None)


def _failed(credentials: dict[str, Any], **_kwargs: Any) -> None:
    """The name is told only if somebody has it: what was typed may be a password. That it cannot be recorded lets
    nobody in, but is in the log."""
    try:
        trail.record(SIGN_IN_FAILED, _known(str(credentials.get(User.USERNAME_FIELD) or "")))
    except DatabaseError:
        logger.exception("a failed sign-in could not be recorded")


def _known(username: str) -> User | None:
    if not username or "\0" in username:
        return None
    return User.objects.filter(username=username[:150]).first()


def _signed_out(user: Any, **_kwargs: Any) -> None:
    if user is not None:
        with actors.acting(actors.current().channel, user):
            trail.record(SIGNED_OUT, user)
