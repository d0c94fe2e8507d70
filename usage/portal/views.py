"""My usage: what is left, what was used, and how my recent calls ended."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.http import require_safe

from usage.portal import figures as drawn
from usage.portal.calls import calls_of
from usage.portal.figures import DAYS, MEASURES, SPLITS
from usage.portal.standings import Card, cards, limit_lines
from usage.portal.whose import Whose, choose, limits_of

ON_HOME = 4


@login_required
@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    given = request.GET
    whose, offered = _whose(request)
    days = next((days for days in DAYS if str(days) == given.get("days")), 30)
    measure: Any = given.get("measure") if given.get("measure") in MEASURES else "spend"
    split = given["by"] if given.get("by") in SPLITS else "model"
    # Without what is as always, so that addresses stay short.
    query = {"of": whose.value if whose.team else "", "key": whose.key.public_id if whose.key else ""}
    query |= {"days": str(days) if days != 30 else "", "measure": measure if measure != "spend" else ""}
    query |= {"by": split if split != "model" else ""}
    context = {
        "whose": whose,
        "whose_links": _links(query, "of", {one.value: one.label for one in offered}, whose.value, forget=("key",)),
        "day_links": _links(query, "days", {str(days): f"{days} days" for days in DAYS}, str(days)),
        "measure_links": _links(query, "measure", MEASURES, measure),
        "split_links": _links(query, "by", SPLITS, split),
        "all_keys_url": _url({**query, "key": ""}),
        "budgets": cards(whose),
        "limits": limit_lines(limits_of(whose)),
        "figures": drawn.figures(whose, days, measure, split),
        "days": days,
        "measure": MEASURES[measure],
        "tabs": _tabs("portal_usage", query),
        "calls_url": reverse("portal_calls") + _url({name: query[name] for name in ("of", "key")}),
        "key_query": urlencode({"of": whose.value} if whose.team else {}),
    }
    return render(request, "portal/usage/usage.html", context)


@login_required
@require_safe
def calls(request: HttpRequest) -> HttpResponse:
    whose, offered = _whose(request)
    only_failed = request.GET.get("show") == "refused"
    page = calls_of(whose, request.GET.get("before", ""), request.GET.get("after", ""), only_failed=only_failed)
    query = {"of": whose.value if whose.team else "", "key": whose.key.public_id if whose.key else ""}
    query |= {"show": "refused" if only_failed else ""}
    context = {
        "whose": whose,
        "whose_links": _links(query, "of", {one.value: one.label for one in offered}, whose.value, forget=("key",)),
        "show_links": _links(query, "show", {"": "All", "refused": "Not answered"}, query["show"]),
        "all_keys_url": _url({**query, "key": ""}),
        "tabs": _tabs("portal_calls", query),
        "calls": page,
        "only_failed": only_failed,
        "newest_url": _url(query) if page.newer else "",
        "newer_url": _url({**query, "after": page.newer}) if page.newer else "",
        "older_url": _url({**query, "before": page.older}) if page.older else "",
    }
    return render(request, "portal/usage/calls.html", context)


def on_home(request: HttpRequest) -> str:
    """The fullest of the budgets that hold for me."""
    user: Any = request.user
    whose = Whose(user)
    found: list[Card] = cards(whose)
    return render_to_string("portal/usage/on_home.html", {"budgets": found[:ON_HOME], "more": len(found) > ON_HOME})


def _whose(request: HttpRequest) -> tuple[Whose, list[Whose]]:
    user: Any = request.user
    return choose(user, request.GET.get("of", ""), request.GET.get("key", ""))


def _tabs(shown: str, query: dict[str, str]) -> list[tuple[str, str, bool]]:
    kept = _url({name: query[name] for name in ("of", "key")})
    pages = {"portal_usage": "Budgets and use", "portal_calls": "Calls"}
    return [(words, reverse(name) + kept, name == shown) for name, words in pages.items()]


def _links(
    query: dict[str, str], name: str, choices: Any, chosen: str, forget: tuple[str, ...] = ()
) -> list[tuple[str, str, bool]]:
    """(words, URL, whether it is the one shown)."""
    kept = {**query, **dict.fromkeys(forget, "")}
    return [(words, _url({**kept, name: value}), value == chosen) for value, words in choices.items()]


def _url(query: dict[str, str]) -> str:
    return "?" + urlencode({name: value for name, value in query.items() if value})
