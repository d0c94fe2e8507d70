"""The admin's sidebar and its command search (Ctrl+K)."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from unfold.dataclasses import SearchResult

# Of each entry: its name, its icon, and the model whose list it is, or model/page: another page of that model's admin.
SECTIONS = (
    (
        "People & keys",
        (
            ("API keys", "key", "accounts.apikey"),
            ("Teams", "groups", "accounts.team"),
            ("Users", "person", "accounts.user"),
            ("Groups", "shield_person", "auth.group"),
            ("Management tokens", "vpn_key", "tokens.managementtoken"),
            ("Audit trail", "history_edu", "audit.auditevent"),
            ("Identity providers", "passkey", "sso.identityprovider"),
            ("Group rules", "diversity_3", "sso.grouprule"),
            ("SCIM tokens", "sync_lock", "scim.scimtoken"),
            ("SCIM groups", "group_work", "scim.scimgroup"),
        ),
    ),
    (
        "Requests & courses",
        (
            ("Requests", "inbox", "access.accessrequest"),
            ("Rules for requests", "rule_settings", "access.requestrule"),
            ("Settings of requests", "settings_account_box", "access.accesssettings"),
            ("Courses", "school", "access.cohort"),
            ("Terms", "contract", "access.termsversion"),
            ("Agreements", "task_alt", "access.termsagreement"),
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
        "Policies",
        (
            ("Policies", "policy", "policies.policy"),
            ("Word lists", "dictionary", "policies.wordlist"),
            ("Findings", "troubleshoot", "policies.finding"),
            ("Logged content", "forum", "policies.loggedcontent"),
            ("Looks at content", "visibility", "policies.contentview"),
        ),
    ),
    (
        "Usage",
        (
            ("Spend & usage", "bar_chart", "usage.usageevent/usage_dashboard"),
            ("Chargeback", "request_quote", "usage.usageevent/usage_chargeback"),
            ("Events", "receipt_long", "usage.usageevent"),
            ("Prices", "payments", "usage.modelprice"),
            ("Re-ratings", "price_change", "usage.rerating"),
        ),
    ),
    (
        "Limits & money",
        (
            ("Budgets", "account_balance_wallet", "usage.budget"),
            ("Rate limits", "speed", "usage.limit"),
            ("Money & limits", "tune", "usage.moneysettings"),
        ),
    ),
    (
        "Alerts",
        (
            ("Alerts", "notifications", "usage.alert"),
            ("Rules", "rule", "usage.alertrule"),
            ("Destinations", "send", "usage.alertdestination"),
        ),
    ),
)

SEARCHED = (
    *("accounts.apikey", "accounts.team", "accounts.user", "proxy.provider", "proxy.model"),
    *("policies.policy", "policies.wordlist"),
)
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
    _mark_active([item for section in found for item in section["items"]], request.path)
    return found


def _mark_active(items: list[dict[str, Any]], path: str) -> None:
    """The one whose address is most of this page's: some pages are below the list of their model."""
    within = [item for item in items[1:] if path.startswith(item["link"])]
    shown = max(within, key=lambda item: len(item["link"]), default=items[0] if path == items[0]["link"] else None)
    for item in items:
        item["active"] = item is shown


def search(request: HttpRequest, term: str) -> list[SearchResult]:
    """What has a name, by it: a few of each kind, so that one letter does not list thousands."""
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
    model, _, _ = label.partition("/")
    return admin.site.get_model_admin(apps.get_model(model)).has_view_permission(request)


def _list_url(label: str) -> str:
    model, _, page = label.partition("/")
    return reverse(f"admin:{page}" if page else f"admin:{model.replace('.', '_')}_changelist")


def _icon(label: str) -> str:
    return next(icon for _, entries in SECTIONS for _, icon, model in entries if model == label)
