"""Where the resources are."""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from gateway_project.api import errors, keys, people
from gateway_project.api.access import AUTHENTICATION
from gateway_project.api.me import Me

router = SimpleRouter(trailing_slash=False)
RESOURCES: dict[str, Any] = {
    "users": people.Users,
    "teams": people.Teams,
    "memberships": people.Memberships,
    "groups": people.Groups,
    "keys": keys.Keys,
    "tokens": keys.Tokens,
}
for name, resource in RESOURCES.items():
    router.register(name, resource, basename=f"api-{name}")

urlpatterns = [
    *router.urls,
    path("me", Me.as_view(), name="api-me"),
    path("schema/", SpectacularAPIView.as_view(authentication_classes=AUTHENTICATION), name="api-schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    re_path(r"^(?P<rest>.*)$", errors.unknown_url),
]
