"""The pages that end a sign-in that did not succeed."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts.audit import acting, record
from accounts.models import User
from accounts.sso.models import IdentityProvider

logger = logging.getLogger(__name__)
TRY_AGAIN = "The answer of the identity provider could not be verified. Please try to sign in once more."


def refused(
    request: HttpRequest,
    idp: IdentityProvider,
    why: str,
    told: str = TRY_AGAIN,
    *,
    user: User | None = None,
    status: int = 403,
) -> HttpResponse:
    """`why` goes to the log and the audit trail, `told` to the person."""
    logger.warning("sign-in through %s refused: %s", idp.slug, why)
    with acting("sso", name=idp.name):
        record("session.refused", target=user or idp, details={"identity_provider": idp.slug, "why": why[:300]})
    return unanswered(request, idp, told, status)


def unanswered(request: HttpRequest, idp: IdentityProvider, told: str = TRY_AGAIN, status: int = 403) -> HttpResponse:
    """The same without a record: for what anybody may send who never began to sign in."""
    response = render(request, "account/refused.html", {"idp": idp, "told": told}, status=status)
    response["Cache-Control"] = "no-store"
    return response
