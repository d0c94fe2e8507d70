"""What both protocols have in common: an answer that was verified becomes allauth's SocialLogin."""

from __future__ import annotations

from typing import Any

from allauth.account.utils import get_next_redirect_url
from allauth.core.internal import ratelimit
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.base.constants import AuthProcess
from django.http import HttpRequest, HttpResponse

from accounts.models import User
from accounts.sso.identity import Attributes, Identity, read
from accounts.sso.models import IdentityProvider

# Of one address: a lecture hall may be behind it.
RATES = {"sso": "600/m/ip"}


def limited(request: HttpRequest) -> HttpResponse | None:
    """The answer for somebody who asks far too often."""
    answer: HttpResponse | None = ratelimit.consume_or_429(
        request, app="accounts.sso", action="sso", config=RATES, limit_get=True
    )
    return answer


class Begins:
    """Nothing of the caller's reaches the IdP or decides what a sign-in does, but for where it leads afterwards."""

    def get_redirect_from_request_kwargs(self, request: HttpRequest) -> dict[str, Any]:
        next_url = get_next_redirect_url(request)
        return {"process": AuthProcess.LOGIN, **({"next_url": next_url} if next_url else {})}

    def login_of(self, identity: Identity, state: dict[str, Any]) -> SocialLogin:
        account = SocialAccount(provider=self.sub_id, uid=identity.subject, extra_data={})  # type: ignore[attr-defined]
        login = SocialLogin(user=User(), account=account, provider=self)
        login.identity, login.state = identity, state
        return login


def identity_of(idp: IdentityProvider, subject: str, attributes: Attributes, session: str = "") -> Identity:
    names = {
        "username": idp.username_names,
        "email": idp.email_names,
        "first_name": idp.first_name_names,
        "last_name": idp.last_name_names,
        "affiliation": idp.affiliation_names,
        "group": idp.group_names,
    }
    return read(subject, attributes, names, session)
