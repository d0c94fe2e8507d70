"""The pages of those who manage a team: its members, keys, budgets and use. Another team is not there: 404."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import services
from accounts.key_states import with_membership
from accounts.models import ApiKey, Membership, Team
from accounts.portal import states
from accounts.portal.context import api_base
from accounts.requests import money, teams
from accounts.requests.fields import add_errors
from accounts.requests.pages import signed_in
from accounts.requests.team_forms import BudgetAmountForm, MemberForm, ServiceKeyForm

SHOWN = 300
PERIODS = {"7": 7, "30": 30, "90": 90}


@login_required
@require_safe
def team_list(request: HttpRequest) -> HttpResponse:
    found = list(teams.of_manager(signed_in(request)))
    if len(found) == 1:
        return redirect("access_team", found[0].pk)
    return render(request, "portal/team/list.html", {"teams": found})


# --- members ---------------------------------------------------------------------------------------------------------
@login_required
@require_safe
def members(request: HttpRequest, pk: int) -> HttpResponse:
    team = _team(request, pk)
    rows = Membership.objects.filter(team=team).select_related("user").order_by("user__username")
    context = {"team": team, "rows": rows[:SHOWN], "form": MemberForm(), "current": "members"}
    return render(request, "portal/team/members.html", context)


@login_required
@require_POST
def add_member(request: HttpRequest, pk: int) -> HttpResponse:
    team, form = _team(request, pk), MemberForm(request.POST)
    if form.is_valid():
        try:
            membership = teams.add_member(team, form.cleaned_data["person"], form.cleaned_data["role"])
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
        else:
            messages.success(request, f"{membership.user} is in the team.")
    else:
        messages.error(request, "Give a username or an e-mail address.")
    return redirect("access_team", pk)


@login_required
@require_POST
def change_member(request: HttpRequest, pk: int, user_id: int) -> HttpResponse:
    """`role`: the new one, or "remove"."""
    team, role = _team(request, pk), request.POST.get("role", "")
    try:
        if role == "remove":
            teams.remove_member(team, user_id)
            messages.success(request, "Removed. Their keys in this team are refused from now on.")
        else:
            membership = teams.set_role(team, user_id, role)
            messages.success(request, f"{membership.user} is now a {membership.get_role_display().lower()}.")
    except Membership.DoesNotExist:
        raise Http404 from None
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
    if not teams.of_manager(signed_in(request)).filter(pk=pk).exists():
        return redirect("portal_home")  # of oneself, which may be
    return redirect("access_team", pk)


# --- keys ------------------------------------------------------------------------------------------------------------
@login_required
@require_safe
def keys(request: HttpRequest, pk: int) -> HttpResponse:
    team = _team(request, pk)
    found = list(with_membership(teams.keys_of(team)).select_related("team")[:SHOWN])
    rows = [{"key": key, "state": states.in_words(key)} for key in found]
    return render(request, "portal/team/keys.html", {"team": team, "rows": rows, "current": "keys"})


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def new_key(request: HttpRequest, pk: int) -> HttpResponse:
    team = _team(request, pk)
    form = ServiceKeyForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            key, secret = teams.make_service_key(
                team,
                given["name"],
                amount=given["amount"],
                per=given["per"],
                models=given["models"],
                expires_at=given["expires_at"],
            )
        except ValidationError as error:
            add_errors(form, error)
        else:
            context = {"team": team, "key": key, "secret": secret, "base_url": api_base(request)}
            response = render(request, "portal/team/secret.html", context)
            response["Cache-Control"] = "no-store"
            return response
    context = {"team": team, "form": form, "current": "keys"}
    return render(request, "portal/team/new_key.html", context, status=422 if form.errors else 200)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def revoke_key(request: HttpRequest, pk: int, public_id: str) -> HttpResponse:
    team = _team(request, pk)
    key = get_object_or_404(ApiKey.objects.select_related("user"), team=team, public_id=public_id)
    if request.method != "POST":
        return render(request, "portal/team/revoke_key.html", {"team": team, "key": key})
    services.revoke_key(key)
    messages.success(request, f"{key.name} is revoked: calls with it are refused from now on.")
    return redirect("access_team_keys", pk)


# --- budgets ---------------------------------------------------------------------------------------------------------
@login_required
@require_safe
def budgets(request: HttpRequest, pk: int) -> HttpResponse:
    team = _team(request, pk)
    context = {"team": team, "rows": teams.budgets_of(team), "current": "budgets"}
    return render(request, "portal/team/budgets.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def change_budget(request: HttpRequest, pk: int, budget_id: int) -> HttpResponse:
    team = _team(request, pk)
    budget = next((row for row in teams.budgets_of(team) if row.id == budget_id), None)
    if budget is None:
        raise Http404
    form = BudgetAmountForm(request.POST if request.method == "POST" else None, initial={"amount": budget.limit})
    if request.method == "POST" and form.is_valid():
        try:
            teams.set_budget(team, budget_id, form.cleaned_data["amount"], signed_in(request))
        except teams.BudgetNotThere:
            raise Http404 from None
        except ValidationError as error:
            add_errors(form, error)
        else:
            messages.success(request, "Changed. It holds in about a second.")
            return redirect("access_team_budgets", pk)
    context = {"team": team, "budget": budget, "form": form, "current": "budgets"}
    return render(request, "portal/team/change_budget.html", context, status=422 if form.errors else 200)


# --- use -------------------------------------------------------------------------------------------------------------
@login_required
@require_safe
def usage(request: HttpRequest, pk: int) -> HttpResponse:
    team = _team(request, pk)
    period = request.GET.get("days", "30")
    days = PERIODS.get(period, 30)
    since = timezone.now() - timedelta(days=days - 1)
    tables: list[dict[str, Any]] = []
    for title, by in (("By member", "user"), ("By key", "key"), ("By model", "model")):
        tables.append({"title": title, "rows": money.source().used(team.pk, by, since)})
    rows = tables[-1]["rows"]
    total = {
        "cost": money.usd(sum(row.cost for row in rows)),
        "calls": sum(row.calls for row in rows),
        "tokens": sum(row.tokens for row in rows),
    }
    periods = [{"days": one, "is_current": days == int(one)} for one in PERIODS]
    context = {"team": team, "tables": tables, "total": total, "periods": periods, "days": days, "current": "usage"}
    return render(request, "portal/team/usage.html", context)


def _team(request: HttpRequest, pk: int) -> Team:
    return get_object_or_404(teams.of_manager(signed_in(request)), pk=pk)
