"""What is written down of sign-ins and sign-outs, by password or through an IdP."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from accounts.audit import acting, record
from accounts.models import User
from accounts.sso.models import SsoSession

SESSION_MARK = "sso"


def connect() -> None:
    user_logged_in.connect(_signed_in, dispatch_uid="sso signed in")
    user_logged_out.connect(_signed_out, dispatch_uid="sso signed out")
    user_login_failed.connect(_failed, dispatch_uid="sso failed")


def _signed_in(request: HttpRequest | None = None, user: Any = None, **_kwargs: Any) -> None:
    from accounts.sso.services import remember_session

    identity, idp = getattr(request, "sso_identity", None), getattr(request, "sso_provider", None)
    if request is None or identity is None or idp is None:
        record("session.signed_in", target=user, details={"by": "password"})
        return
    request.session[SESSION_MARK] = idp.slug
    request.session.set_expiry(int(settings.SSO_SESSION_HOURS * 3600))
    # The key is a new one since a moment ago (django.contrib.auth.login), and stays.
    remember_session(str(request.session.session_key), user, idp, identity)
    with acting("sso", user=user):
        record("session.signed_in", target=user, details={"by": idp.slug})


def _signed_out(request: HttpRequest | None = None, user: Any = None, **_kwargs: Any) -> None:
    if request is not None and request.session.session_key:
        SsoSession.objects.filter(session_key=request.session.session_key).delete()
    if user is not None and user.is_authenticated:
        record("session.signed_out", target=user)


def _failed(credentials: dict[str, Any] | None = None, **_kwargs: Any) -> None:
    """Names are kept only of accounts there are: what is nobody's name may be a password in the wrong field."""
    username = str((credentials or {}).get("username") or "")[:150].replace("\0", "")
    user = User.objects.filter(username=username).first() if username else None
    if user is not None:
        record("session.refused", target=user, details={"by": "password"})
