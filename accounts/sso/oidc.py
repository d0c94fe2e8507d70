"""OpenID Connect, stricter than allauth's: nonce, PKCE, the id_token's signature, RFC 9207, no word of the caller's."""

from __future__ import annotations

import secrets
from typing import Any

from allauth.account.internal.decorators import login_not_required
from allauth.core.internal.httpkit import add_query_params
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import complete_social_login
from allauth.socialaccount.internal import statekit
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from requests import RequestException

from accounts.sso import documents, services, tokens
from accounts.sso.identity import Attributes, Identity, short_subject
from accounts.sso.models import IdentityProvider
from accounts.sso.pages import refused, unanswered
from accounts.sso.provider import Begins, identity_of, limited

AWAY = "The identity provider cannot be reached at the moment. Please try again later."
MAX_LOGOUT_TOKEN = 16 * 1024


class Adapter(OpenIDConnectOAuth2Adapter):
    @property
    def openid_config(self) -> dict[str, Any]:
        """Raises documents.Unusable."""
        return documents.discovery(self.get_provider().app.settings["server_url"])


class OidcProvider(Begins, OpenIDConnectProvider):
    oauth2_adapter_class = Adapter

    def redirect(
        self, request: HttpRequest, process: str, next_url: str | None = None, data: Any = None, **kwargs: Any
    ) -> HttpResponse:
        nonce = secrets.token_urlsafe(32)
        config = self.get_oauth2_adapter(request).openid_config
        response: HttpResponse = super().redirect(
            request, process, next_url, data, auth_params={"nonce": nonce}, nonce=nonce, issuer=config["issuer"]
        )
        return response


provider_classes = [OidcProvider]


def _idp(slug: str) -> IdentityProvider:
    return get_object_or_404(IdentityProvider, slug=slug, kind=IdentityProvider.Kind.OIDC, enabled=True)


@login_not_required
@require_GET
@never_cache
def login(request: HttpRequest, provider_id: str) -> HttpResponse:
    idp = _idp(provider_id)
    if answer := limited(request):
        return answer
    provider = get_adapter().get_provider(request, idp.slug)
    try:
        return provider.redirect_from_request(request)
    except documents.Unusable as error:
        return refused(request, idp, str(error), AWAY, status=502)


@login_not_required
@require_GET
@never_cache
def callback(request: HttpRequest, provider_id: str) -> HttpResponse:
    idp = _idp(provider_id)
    if answer := limited(request):
        return answer
    provider = get_adapter().get_provider(request, idp.slug)
    state = statekit.unstash_state(request, provider_id=provider.sub_id, state_id=request.GET.get("state", ""))
    if state is None:
        return unanswered(request, idp)
    try:
        _check_answer(request, state, provider.get_oauth2_adapter(request).openid_config)
        identity = _identity(request, provider, state)
    except Cancelled:
        return HttpResponseRedirect(add_query_params(reverse("socialaccount_login_cancelled"), {}))
    except tokens.Refused as error:
        return refused(request, idp, str(error))
    except (documents.Unusable, OAuth2Error, RequestException) as error:
        why = str(error) if isinstance(error, documents.Unusable) else f"{type(error).__name__} at the token endpoint"
        return refused(request, idp, why, AWAY, status=502)
    response: HttpResponse = complete_social_login(request, provider.login_of(identity, state))
    return response


class Cancelled(Exception):
    """By the person, at the IdP."""


def _check_answer(request: HttpRequest, state: dict[str, Any], config: dict[str, Any]) -> None:
    """That it comes from whom we sent them to (RFC 9207), and holds a code. Raises Refused, Cancelled."""
    issuer = request.GET.get("iss")
    if config["issuer"] != state.get("issuer"):
        raise tokens.Refused("the issuer has changed since the sign-in began")
    if issuer is None and config.get("authorization_response_iss_parameter_supported"):
        raise tokens.Refused("the answer does not say whose it is (iss)")
    if issuer is not None and issuer != config["issuer"]:
        raise tokens.Refused("the answer is another issuer's (iss)")
    if request.GET.get("error") == "access_denied":
        raise Cancelled
    if "error" in request.GET:
        raise tokens.Refused(f"the identity provider answered: {request.GET['error'][:100]}")
    if not request.GET.get("code"):
        raise tokens.Refused("the answer holds no code")


def _identity(request: HttpRequest, provider: OidcProvider, state: dict[str, Any]) -> Identity:
    """Raises Refused, Unusable, OAuth2Error, RequestException."""
    adapter, app = provider.get_oauth2_adapter(request), provider.app
    config = adapter.openid_config
    client = adapter.get_client(request, app)
    answer = client.get_access_token(request.GET["code"], pkce_code_verifier=state["pkce_code_verifier"])
    if not isinstance(answer.get("id_token"), str) or not isinstance(answer.get("access_token"), str):
        raise tokens.Refused("the identity provider gave no id_token")
    claims = tokens.verify_id_token(
        answer["id_token"],
        lambda fresh: documents.signing_keys(config["jwks_uri"], fresh=fresh),
        config["issuer"],
        app.client_id,
        str(state.get("nonce") or ""),
        answer["access_token"],
    )
    everything: Attributes = {**claims, **_userinfo(config, answer["access_token"], claims["sub"])}
    _check_groups_are_there(everything)
    return identity_of(app.idp, claims["sub"], everything, str(claims.get("sid") or ""))


def _userinfo(config: dict[str, Any], access_token: str, subject: str) -> Attributes:
    url = config.get("userinfo_endpoint")
    if not url:
        return {}
    found = documents.as_json(documents.fetch(url, {"Authorization": f"Bearer {access_token}"}), url)
    if found.get("sub") != subject:
        raise tokens.Refused("userinfo tells of somebody else")
    return found


def _check_groups_are_there(claims: Attributes) -> None:
    """Entra ID sends a link instead of more than 200 groups: to take that for none would take every team away."""
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict) and "groups" in elsewhere:
        raise tokens.Refused("too many groups for the token: let the IdP send only the groups assigned to this app")


@csrf_exempt
@login_not_required
@require_POST
@never_cache
def backchannel_logout(request: HttpRequest, provider_id: str) -> HttpResponse:
    """OpenID Connect Back-Channel Logout 1.0: the IdP itself calls."""
    idp = _idp(provider_id)
    if answer := limited(request):
        return answer
    token = request.POST.get("logout_token", "")
    try:
        if not token or len(token) > MAX_LOGOUT_TOKEN:
            raise tokens.Refused("no log-out token")
        config = documents.discovery(idp.discovery_url)
        subject, session = tokens.verify_logout_token(
            token,
            lambda fresh: documents.signing_keys(config["jwks_uri"], fresh=fresh),
            config["issuer"],
            idp.client_id,
        )
    except (tokens.Refused, documents.Unusable) as error:
        return HttpResponse(f"Refused: {error}", status=400, content_type="text/plain")
    services.end_sessions(idp, short_subject(subject) if subject else "", session)
    return HttpResponse(status=200)
