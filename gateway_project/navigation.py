"""The admin's sidebar and its command search (Ctrl+K)."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

SECTIONS = (
    (
        "People & keys",
        (
            ("API keys", "key", "accounts.apikey"),
            ("Teams", "groups", "accounts.team"),
            ("Users", "person", "accounts.user"),
            ("Groups", "shield_person", "auth.group"),
        ),
    ),
    (
        "Providers & models",
        (
            ("Providers", "cloud", "proxy.provider"),
            ("Models", "neurology", "proxy.model"),
        ),
    ),
    (
        "Usage",
        (
            ("Events", "receipt_long", "usage.usageevent"),
            ("Prices", "payments", "usage.modelprice"),
        ),
    ),
)

SEARCHED = ("accounts.apikey", "accounts.team", "accounts.user", "proxy.provider", "proxy.model")
MAX_CANDIDATES = 100
MAX_RESULTS_EACH = 8


def sections(request: HttpRequest) -> list[dict[str, Any]]:
    """The sidebar, as unfold wants it: only what this person may look at."""
    overview = {"title": "Overview", "icon": "monitoring", "link": reverse("admin:index")}
    found: list[dict[str, Any]] = [{"title": None, "items": [overview]}]
    for title, entries in SECTIONS:
        items = [
            {"title": label, "icon": icon, "link": _list_url(model)}
            for label, icon, model in entries
            if _may_view(request, model)
        ]
        if items:
            found.append({"title": title, "separator": True, "items": items})
    return found


def search(request: HttpRequest, term: str) -> list[SearchResult]:
    """Keys, people, teams, providers and models by name: a few of each, so that one letter does not list thousands."""
    results = []
    for label in SEARCHED:
        if not _may_view(request, label):
            continue
        model = apps.get_model(label)
        model_admin = admin.site.get_model_admin(model)
        queryset, has_doubles = model_admin.get_search_results(request, model_admin.get_queryset(request), term)
        for found in _best(queryset.distinct() if has_doubles else queryset, term):
            link = reverse(f"admin:{label.replace('.', '_')}_change", args=[found.pk])
            results.append(SearchResult(str(found), str(model._meta.verbose_name), link, _icon(label)))
    return results


def _best(queryset: QuerySet[Any], term: str) -> list[Any]:
    """Those that are called so first, then those that only have to do with it."""

    def distance(found: Any) -> tuple[bool, bool]:
        name = str(found).lower()
        return not name.startswith(term), term not in name

    return sorted(queryset[:MAX_CANDIDATES], key=distance)[:MAX_RESULTS_EACH]


def _may_view(request: HttpRequest, label: str) -> bool:
    return admin.site.get_model_admin(apps.get_model(label)).has_view_permission(request)


def _list_url(label: str) -> str:
    return reverse(f"admin:{label.replace('.', '_')}_changelist")


def _icon(label: str) -> str:
    return next(icon for _, entries in SECTIONS for _, icon, model in entries if model == label)
