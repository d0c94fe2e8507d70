"""SAML 2.0: the pages between the browser and the IdP."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from allauth.account.internal.decorators import login_not_required
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import complete_social_login
from allauth.socialaccount.internal import statekit
from allauth.socialaccount.providers.base.constants import AuthProcess
from allauth.socialaccount.providers.saml.provider import SAMLProvider
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.sso import documents, saml_logout, saml_messages, services, tokens
from accounts.sso.models import IdentityProvider
from accounts.sso.oidc import AWAY
from accounts.sso.pages import refused, unanswered
from accounts.sso.provider import Begins, limited

COOKIE = "saml_answer"
COOKIE_S = 300


class SamlProvider(Begins, SAMLProvider):
    def redirect(
        self, request: HttpRequest, process: str, next_url: str | None = None, data: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """Raises documents.Unusable."""
        target, request_id = saml_messages.begin(request, self.app.idp)
        self.stash_redirect_state(request, process, next_url, data, state_id=request_id)
        return HttpResponseRedirect(target)


provider_classes = [SamlProvider]


def _idp(slug: str) -> IdentityProvider:
    return get_object_or_404(IdentityProvider, slug=slug, kind=IdentityProvider.Kind.SAML, enabled=True)


@login_not_required
@require_GET
@never_cache
def login(request: HttpRequest, organization_slug: str) -> HttpResponse:
    idp = _idp(organization_slug)
    if answer := limited(request):
        return answer
    provider = get_adapter().get_provider(request, idp.slug)
    try:
        response: HttpResponse = provider.redirect_from_request(request)
    except documents.Unusable as error:
        return refused(request, idp, str(error), AWAY, status=502)
    return response


@csrf_exempt
@login_not_required
@require_POST
@never_cache
def acs(request: HttpRequest, organization_slug: str) -> HttpResponse:
    """The IdP's page posts from another site, so the browser does not send the session: the message is put aside, and
    `finish` reads it with the session at hand."""
    idp = _idp(organization_slug)
    if answer := limited(request):
        return answer
    message = request.POST.get("SAMLResponse", "")
    try:
        saml_messages.parse(message)
    except saml_messages.Malformed:
        return _malformed()
    store = _session_store()
    store["saml"] = {"slug": idp.slug, "message": message}
    store.set_expiry(COOKIE_S)
    store.create()
    target = reverse("saml_finish_acs", args=[idp.slug])
    response = HttpResponseRedirect(target)
    response.set_cookie(
        COOKIE,
        store.session_key,
        max_age=COOKIE_S,
        path=target,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
    return response


@login_not_required
@require_GET
@never_cache
def finish(request: HttpRequest, organization_slug: str) -> HttpResponse:
    idp = _idp(organization_slug)
    if answer := limited(request):
        return answer
    message = _put_aside(request, idp.slug)
    if message is None:
        return unanswered(request, idp)
    provider = get_adapter().get_provider(request, idp.slug)
    try:
        told = saml_messages.Answer(request, idp, message)
        if told.in_response_to:
            state = statekit.unstash_state(request, provider_id=provider.sub_id, state_id=told.in_response_to)
        else:
            state = {"process": AuthProcess.LOGIN} if idp.allow_idp_initiated else None
        if state is None:
            return unanswered(request, idp)
        identity = told.identity()
    except saml_messages.Malformed:
        return _malformed()
    except tokens.Refused as error:
        return refused(request, idp, str(error))
    except documents.Unusable as error:
        return refused(request, idp, str(error), AWAY, status=502)
    response: HttpResponse = complete_social_login(request, provider.login_of(identity, state))
    response.delete_cookie(COOKIE, path=request.path)
    return response


def _put_aside(request: HttpRequest, slug: str) -> str | None:
    """The message, once."""
    key = request.COOKIES.get(COOKIE, "")
    if not key:
        return None
    store = _session_store(key)
    found = store.get("saml")
    store.delete()
    return found["message"] if isinstance(found, dict) and found.get("slug") == slug else None


def _session_store(key: str | None = None) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def _malformed() -> HttpResponse:
    return HttpResponse("This is no SAML message.", status=400, content_type="text/plain")


@csrf_exempt
@login_not_required
@require_http_methods(["GET", "POST"])
@never_cache
def sls(request: HttpRequest, organization_slug: str) -> HttpResponse:
    """The IdP logs somebody out, through their browser or not: the sessions end, whoever's browser this is."""
    idp = _idp(organization_slug)
    if answer := limited(request):
        return answer
    given = request.POST if request.method == "POST" else request.GET
    if "SAMLRequest" not in given:
        return redirect("account_login") if "SAMLResponse" in given else _malformed()
    try:
        asked = saml_logout.read(request, idp)
    except saml_messages.Malformed:
        return _malformed()
    except (tokens.Refused, documents.Unusable) as error:
        return HttpResponse(f"Refused: {error}", status=400, content_type="text/plain")
    for session in asked.sessions or ("",):
        services.end_sessions(idp, asked.name_id, session)
    return HttpResponseRedirect(asked.answer_to or reverse("account_login"))


@login_not_required
@require_GET
def metadata(request: HttpRequest, organization_slug: str) -> HttpResponse:
    """What the IdP's administrators load."""
    return HttpResponse(
        saml_messages.own_metadata(request, _idp(organization_slug)), content_type="application/samlmetadata+xml"
    )
