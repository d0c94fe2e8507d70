"""The portal put together: its home page, its addresses, and what the apps add to its navigation."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import URLPattern, URLResolver, include, path

from accounts.portal import key_budgets, navigation
from accounts.portal.context import api_base
from accounts.portal.keys import own_keys
from accounts.portal.navigation import Entry
from proxy.portal import models, playground, playground_key


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "portal/home.html", {"sections": navigation.home_sections(request)})


def start_here(request: HttpRequest) -> str:
    """What a person does here, and how many keys they have for it."""
    user: Any = request.user
    has_keys = own_keys(user).filter(disabled=False).exists()
    context = {"has_keys": has_keys, "base_url": api_base(request)}
    return render_to_string("portal/start_here.html", context)


urlpatterns: list[URLPattern | URLResolver] = [
    path("", home, name="portal_home"),
    path("", include("accounts.portal.urls")),
    path("", include("usage.portal.urls")),
    path("my-models/", models, name="portal_models"),  # /models is one of the addresses of the API
    path("playground/", playground, name="portal_playground"),
    path("playground/key/", playground_key, name="portal_playground_key"),
]


def build() -> None:
    """Called once, when every app is ready."""
    from accounts.requests import policy  # these need the models
    from policies import blocked
    from usage.own_budgets import OwnBudgets
    from usage.portal import calls
    from usage.portal.views import on_home as budgets_on_home

    key_budgets.set_budgets(OwnBudgets())
    key_budgets.set_free_amount(policy.key_threshold)
    calls.set_policy_messages(blocked.messages_of)
    navigation.add(Entry("Home", "portal_home", 0))
    navigation.add(Entry("Keys", "portal_keys", 10))
    navigation.add(Entry("Usage", "portal_usage", 20))
    navigation.add(Entry("Models", "portal_models", 30))
    navigation.add(Entry("Playground", "portal_playground", 40))
    navigation.add_home_section(10, start_here)
    navigation.add_home_section(20, budgets_on_home)
