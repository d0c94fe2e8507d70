"""Sign-in. What allauth has beyond this (signing up, passwords by mail, e-mail addresses) is not offered here."""

from __future__ import annotations

from allauth.account import views as account
from django.urls import include, path
from django.views.generic import TemplateView

from accounts.sso import local, oidc, saml

cancelled = TemplateView.as_view(template_name="account/cancelled.html")

urlpatterns = [
    path("login/", local.sign_in, name="account_login"),
    path("logout/", account.logout, name="account_logout"),
    path("inactive/", account.account_inactive, name="account_inactive"),
    path("reauthenticate/", account.reauthenticate, name="account_reauthenticate"),
    path(
        "cancelled/", TemplateView.as_view(template_name="account/cancelled.html"), name="socialaccount_login_cancelled"
    ),
    path("2fa/", include("allauth.mfa.urls")),
    path("oidc/<slug:provider_id>/login/", oidc.login, name="openid_connect_login"),
    path("oidc/<slug:provider_id>/login/callback/", oidc.callback, name="openid_connect_callback"),
    path("oidc/<slug:provider_id>/backchannel-logout/", oidc.backchannel_logout, name="oidc_backchannel_logout"),
    path("saml/<slug:organization_slug>/login/", saml.login, name="saml_login"),
    path("saml/<slug:organization_slug>/acs/", saml.acs, name="saml_acs"),
    path("saml/<slug:organization_slug>/acs/finish/", saml.finish, name="saml_finish_acs"),
    path("saml/<slug:organization_slug>/sls/", saml.sls, name="saml_sls"),
    path("saml/<slug:organization_slug>/metadata/", saml.metadata, name="saml_metadata"),
]
