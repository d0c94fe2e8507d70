"""What has to be known of sessions that began at an IdP. The audit trail hears of sign-ins by itself."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.http import HttpRequest

from accounts.sso.models import SsoSession

SESSION_MARK = "sso"


def connect() -> None:
    user_logged_in.connect(_signed_in, dispatch_uid="sso signed in")
    user_logged_out.connect(_signed_out, dispatch_uid="sso signed out")


def _signed_in(request: HttpRequest | None = None, user: Any = None, **_kwargs: Any) -> None:
    from accounts.sso.services import remember_session

    identity, idp = getattr(request, "sso_identity", None), getattr(request, "sso_provider", None)
    if request is None or identity is None or idp is None:
        return
    request.session[SESSION_MARK] = idp.slug
    request.session.set_expiry(int(settings.SSO_SESSION_HOURS * 3600))
    # The key is a new one since a moment ago (django.contrib.auth.login), and stays.
    remember_session(str(request.session.session_key), user, idp, identity)


def _signed_out(request: HttpRequest | None = None, **_kwargs: Any) -> None:
    if request is not None and request.session.session_key:
        SsoSession.objects.filter(session_key=request.session.session_key).delete()
