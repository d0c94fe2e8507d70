"""What every page of the portal shows around its content. Lazy: a page that is none of the portal's asks nothing."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, reverse

from accounts.portal import navigation


class Portal:
    def __init__(self, request: HttpRequest) -> None:
        self.request = request

    @cached_property
    def links(self) -> list[navigation.Link]:
        return navigation.links(self.request)

    @cached_property
    def admin_url(self) -> str:
        """Empty for whoever may not open the admin."""
        user: Any = self.request.user
        return reverse("admin:index") if user.is_staff else ""

    @cached_property
    def sign_in_url(self) -> str:
        return resolve_url(settings.LOGIN_URL)

    @cached_property
    def sign_out_url(self) -> str:
        """Asked by POST."""
        try:
            return reverse("account_logout")
        except NoReverseMatch:
            return reverse("admin:logout")

    @cached_property
    def base_url(self) -> str:
        """Where clients find the API."""
        return api_base(self.request)


def portal(request: HttpRequest) -> dict[str, Any]:
    return {"portal": Portal(request)}


def api_base(request: HttpRequest) -> str:
    """https://gateway.example.org/v1"""
    return f"{settings.PUBLIC_URL.rstrip('/')}/v1" if settings.PUBLIC_URL else request.build_absolute_uri("/v1")
