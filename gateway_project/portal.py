"""The portal put together: its home page, its addresses, and what the apps add to its navigation."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, URLResolver, include, path

from accounts.portal import key_budgets, navigation
from accounts.portal.navigation import Entry


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/home.html", {"sections": navigation.home_sections(request)})


urlpatterns: list[URLPattern | URLResolver] = [
    path("", home, name="portal_home"),
    path("", include("accounts.portal.urls")),
    path("", include("usage.portal.urls")),
]


def build() -> None:
    """Called once, when every app is ready."""
    from policies import blocked  # these need the models
    from usage.own_budgets import OwnBudgets
    from usage.portal import calls
    from usage.portal.views import on_home as budgets_on_home

    key_budgets.set_budgets(OwnBudgets())
    calls.set_policy_messages(blocked.messages_of)
    navigation.add(Entry("Home", "portal_home", 0))
    navigation.add(Entry("Keys", "portal_keys", 10))
    navigation.add(Entry("Usage", "portal_usage", 20))
    navigation.add_home_section(20, budgets_on_home)
