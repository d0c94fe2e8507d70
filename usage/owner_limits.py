"""Budgets and rate limits on the page of the team, person or key that they are for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.db.models import Model
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from accounts.admin_pages import change_url
from accounts.models import ApiKey, Team, User
from usage import budget_admin
from usage.budget_admin import add_standings, bar, limit_text, resets_text
from usage.limit_admin import rate_text
from usage.models import Budget, Limit

SCOPES: dict[type[Model], str] = {Team: "team", User: "user", ApiKey: "key"}
SHOWN = 50


def of_owner(request: HttpRequest, owner: Model) -> str:
    """As HTML; "" for those who may see neither."""
    scope = SCOPES[type(owner)]
    may = {name: request.user.has_perm(f"usage.{name}") for name in PERMISSIONS}
    if not may["view_budget"] and not may["view_limit"]:
        return ""
    query = urlencode({"scope": scope, scope: owner.pk})
    context = {
        "whose": budget_admin.OWNER_WORDS[scope].lower() if scope != "key" else "API key",
        "show_budgets": may["view_budget"],
        "show_limits": may["view_limit"],
        "budgets": budget_rows(scope, owner) if may["view_budget"] else [],
        "limits": limit_rows(scope, owner) if may["view_limit"] else [],
        "add_budget": f"{reverse('admin:usage_budget_add')}?{query}" if may["add_budget"] else "",
        "add_limit": f"{reverse('admin:usage_limit_add')}?{query}" if may["add_limit"] else "",
    }
    return render_to_string("admin/usage/budget/of_owner.html", context, request)


PERMISSIONS = ("view_budget", "view_limit", "add_budget", "add_limit")


def budget_rows(scope: str, owner: Model) -> list[dict[str, Any]]:
    rows: list[Any] = list(Budget.objects.filter(**{"scope": scope, scope: owner})[:SHOWN])
    add_standings(rows)
    now = timezone.now()
    return [
        {
            "url": change_url(row),
            "limit": limit_text(row),
            "model": row.model or "Every model",
            "bar": bar(row.standing),
            "resets": resets_text(row.standing, now) if row.enabled else "switched off",
        }
        for row in rows
    ]


def limit_rows(scope: str, owner: Model) -> list[dict[str, Any]]:
    return [
        {
            "url": change_url(row),
            "model": row.model or "Every model",
            "requests": rate_text(row.requests_per_minute) or "-",
            "tokens": rate_text(row.tokens_per_minute) or "-",
            "parallel": rate_text(row.max_parallel) or "-",
        }
        for row in Limit.objects.filter(**{"scope": scope, scope: owner})[:SHOWN]
    ]
