"""allauth's three switchboards, set the way this gateway wants them."""

from __future__ import annotations

import time
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme

from accounts.addresses import client_ip
from accounts.encryption import decrypt, encrypt
from accounts.models import User
from accounts.sso import services
from accounts.sso.models import IdentityProvider
from accounts.sso.pages import refused

PROVIDERS = {IdentityProvider.Kind.OIDC: "openid_connect", IdentityProvider.Kind.SAML: "saml"}
FRESH_S = 300
MFA_STAGE = "allauth.mfa.stages.AuthenticateStage"


def app_of(idp: IdentityProvider) -> SocialApp:
    """As allauth knows it; never saved. What its provider does is in accounts.sso.oidc and accounts.sso.saml."""
    app = SocialApp(
        provider=PROVIDERS[IdentityProvider.Kind(idp.kind)],
        provider_id=idp.slug,
        name=idp.name[:40],
        client_id=idp.client_id if idp.kind == IdentityProvider.Kind.OIDC else idp.slug,
        secret=idp.secret,
        settings={
            "server_url": idp.discovery_url,
            "oauth_pkce_enabled": True,
            "scope": ["openid", *(scope for scope in idp.scopes.split() if scope != "openid")],
            "hidden": idp.hidden,
        },
    )
    app.idp = idp
    return app


class AccountAdapter(DefaultAccountAdapter):
    """Of local accounts: nobody signs up by themselves."""

    error_messages = {
        **DefaultAccountAdapter.error_messages,
        "username_password_mismatch": "The username or the password is not correct.",
        "too_many_login_attempts": "Too many attempts that failed. Try again in a few minutes.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_safe_url(self, url: str | None) -> bool:
        """Only this very host, by https if this is: no address of a proxy, no other host we also answer to."""
        request = context.request
        return url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())

    def get_client_ip(self, request: HttpRequest) -> str:
        return client_ip(request) or "unknown"

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """By username alone: allauth counts each host name apart."""
        return f"local:{str(credentials.get('username', '')).lower()}"

    def get_login_stages(self) -> list[str]:
        """Who comes from an IdP has shown there whatever it asks for: its second factor is the one that counts."""
        stages: list[str] = super().get_login_stages()
        if getattr(context.request, "sso_identity", None) is not None:
            stages.remove(MFA_STAGE)
        return stages

    def is_reauthentication_required(self, *, app: str) -> bool:
        """Who has just signed in is not asked for the password again."""
        request = context.request
        records = get_authentication_records(request, request.user)
        is_fresh = any(time.time() - record["at"] < FRESH_S for record in records)
        return not is_fresh and bool(super().is_reauthentication_required(app=app))

    def add_message(self, *args: Any, **kwargs: Any) -> None:
        """The pages say what has happened."""


class SocialAdapter(DefaultSocialAccountAdapter):
    def list_apps(
        self, request: HttpRequest, provider: str | None = None, client_id: str | None = None
    ) -> list[SocialApp]:
        found = IdentityProvider.objects.filter(enabled=True)
        if provider:
            kinds = [kind for kind, name in PROVIDERS.items() if name == provider]
            found = found.filter(Q(slug=provider) | Q(kind__in=kinds))
        return [app for app in map(app_of, found) if not client_id or app.client_id == client_id]

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return True

    def is_auto_signup_allowed(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        return True

    def can_authenticate_by_email(self, login: SocialLogin, email: str) -> bool:
        return False

    def pre_social_login(self, request: Any, sociallogin: SocialLogin) -> None:
        idp, identity = sociallogin.provider.app.idp, sociallogin.identity
        known = sociallogin.is_existing
        user = sociallogin.user if known else services.made_for(idp, identity)
        try:
            services.check_admitted(idp, identity, user)
        except services.NotAdmitted as error:
            raise ImmediateHttpResponse(refused(request, idp, str(error), str(error), user=user)) from None
        request.sso_identity, request.sso_provider = identity, idp
        if user is not None and not known:
            services.link(user, idp, identity)
            sociallogin.lookup()
        if user is not None:
            services.renew_person(user, idp, identity)

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        user = services.make_person(sociallogin.provider.app.idp, sociallogin.identity)
        sociallogin.user = user
        return user


class MfaAdapter(DefaultMFAAdapter):
    def encrypt(self, text: str) -> str:
        return encrypt(text)

    def decrypt(self, encrypted_text: str) -> str:
        return decrypt(encrypted_text)

    def get_totp_issuer(self) -> str:
        return f"Gatehouse {self._get_site_name()}"
