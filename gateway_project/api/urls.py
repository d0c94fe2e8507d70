"""Where the resources are."""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from gateway_project.api import asked, catalogue, errors, keys, money, people, rules, trail, usage, words
from gateway_project.api.access import AUTHENTICATION
from gateway_project.api.exchange import TokenExchange
from gateway_project.api.me import Me

router = SimpleRouter(trailing_slash=False)
RESOURCES: dict[str, Any] = {
    "users": people.Users,
    "teams": people.Teams,
    "memberships": people.Memberships,
    "groups": people.Groups,
    "keys": keys.Keys,
    "tokens": keys.Tokens,
    "providers": catalogue.Providers,
    "models": catalogue.Models,
    "prices": catalogue.Prices,
    "policies": rules.Policies,
    "wordlists": words.Wordlists,
    "budgets": money.Budgets,
    "limits": money.Limits,
    "usage/events": usage.UsageEvents,
    "requests": asked.Requests,
    "audit": trail.Audit,
}
for name, resource in RESOURCES.items():
    router.register(name, resource, basename=f"api-{name.replace('/', '-')}")

urlpatterns = [
    *router.urls,
    path("usage/sums", usage.UsageSums.as_view(), name="api-usage-sums"),
    path("usage/chargeback", usage.ChargebackView.as_view(), name="api_chargeback"),
    path("token-exchange", TokenExchange.as_view(), name="api-token-exchange"),
    path("me", Me.as_view(), name="api-me"),
    path("schema/", SpectacularAPIView.as_view(authentication_classes=AUTHENTICATION), name="api-schema"),
    path("docs/", TemplateView.as_view(template_name="api/docs.html"), name="api-docs"),
    re_path(r"^[\s\S]*$", errors.unknown_url),
]
