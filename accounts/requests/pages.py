"""The portal's pages of requests: one's own, and those that one decides. What is not yours is not there: 404."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import User
from accounts.portal.views import show_once
from accounts.requests import money, policy, services
from accounts.requests.fields import add_errors
from accounts.requests.forms import FORMS, AskForm, DecideForm
from accounts.requests.models import AccessRequest, Kind
from accounts.requests.notices import words
from accounts.requests.services import AlreadyDecided, NotYours
from accounts.requests.terms import agreed

SHOWN = 100
State = AccessRequest.State
RELATED = ("requester", "team", "key", "cohort", "decided_by")
BADGES = {"open": "badge-info", "approved": "badge-good", "declined": "badge-bad"}
UNKNOWN_KEY = "This key could not be made"


def signed_in(request: HttpRequest) -> User:
    user: Any = request.user
    return user


# --- one's own -------------------------------------------------------------------------------------------------------
@login_required
@require_safe
def own_list(request: HttpRequest) -> HttpResponse:
    rows = [shown(row) for row in _own(request)[:SHOWN]]
    context = {"rows": rows, "kinds": [(kind, kind.label) for kind in FORMS], **_tabs(request, "own")}
    return render(request, "portal/requests/list.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def ask(request: HttpRequest) -> HttpResponse:
    kind = request.GET.get("kind", Kind.BUDGET)
    if kind not in FORMS:
        raise Http404
    form = FORMS[Kind(kind)](signed_in(request), request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid() and (asked := _asked(form)) is not None:
        if asked.state == State.APPROVED:
            messages.success(request, f"Granted at once: {words(asked)}.")
        else:
            messages.success(request, "Your request is on its way. You are told when it is decided.")
        return redirect("access_request", asked.pk)
    tabs = [{"label": one.label, "value": one, "is_current": one == kind} for one in FORMS]
    context = {"form": form, "tabs": tabs, "kind": Kind(kind)}
    return render(request, "portal/requests/new.html", context, status=422 if form.errors else 200)


def _asked(form: AskForm) -> AccessRequest | None:
    try:
        return services.ask(form.request())
    except ValidationError as error:
        add_errors(form, error)
        return None


@login_required
@require_safe
def own(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(_own(request), pk=pk)
    context = {"row": shown(row), "lapsed": services.lapsed(row)}
    return render(request, "portal/requests/own.html", context)


@login_required
@require_POST
def withdraw(request: HttpRequest, pk: int) -> HttpResponse:
    try:
        services.withdraw(pk, signed_in(request))
    except (NotYours, AccessRequest.DoesNotExist):
        raise Http404 from None
    except AlreadyDecided:
        messages.warning(request, "It was decided meanwhile.")
    else:
        messages.success(request, "The request is withdrawn.")
    return redirect("access_request", pk)


@login_required
@never_cache
@require_POST
@agreed
def collect(request: HttpRequest, pk: int) -> HttpResponse:
    """The only page that ever shows the key, to the one who asked for it."""
    try:
        key, secret = services.collect(pk, signed_in(request))
    except (NotYours, AccessRequest.DoesNotExist):
        raise Http404 from None
    except AlreadyDecided:
        messages.warning(request, "The key has been made already: it is under your keys. Rotate it for a new secret.")
        return redirect("access_request", pk)
    except ValidationError as error:
        messages.error(request, f"{UNKNOWN_KEY}: {' '.join(error.messages)}")
        return redirect("access_request", pk)
    return show_once(request, key, secret, "Your new key")


def _own(request: HttpRequest) -> QuerySet[AccessRequest]:
    return AccessRequest.objects.filter(requester=signed_in(request)).select_related(*RELATED)


# --- those of others -------------------------------------------------------------------------------------------------
@login_required
@require_safe
def decide_list(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    if not may_decide_any(user):
        raise Http404
    rows = policy.decidable_by(user).select_related(*RELATED)
    context = {
        "waiting": [shown(row) for row in rows.filter(state=State.OPEN).order_by("id")[:SHOWN]],
        "decided": [shown(row) for row in rows.exclude(state=State.OPEN)[:SHOWN]],
        **_tabs(request, "decide"),
    }
    return render(request, "portal/requests/decide_list.html", context)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    user = signed_in(request)
    row = get_object_or_404(policy.decidable_by(user).select_related(*RELATED), pk=pk)
    form = DecideForm(row, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            decided = _decide(user, pk, request.POST.get("decision", ""), form.cleaned_data)
        except AlreadyDecided:
            messages.warning(request, "It was decided meanwhile. Nothing was done twice.")
            return redirect("access_decide", pk)
        except NotYours:
            raise Http404 from None
        except ValidationError as error:
            add_errors(form, error)
        else:
            messages.success(request, f"{decided.get_state_display()}: {words(decided)}.")
            return redirect("access_decide_list")
    context = {"row": shown(row), "form": form, "budgets": _budgets_beside(row)}
    return render(request, "portal/requests/decide.html", context, status=422 if form.errors else 200)


def _decide(user: User, pk: int, decision: str, given: dict[str, Any]) -> AccessRequest:
    if decision == "approve":
        return services.approve(pk, user, given.get("amount"), given["reason"])
    if decision == "decline":
        return services.decline(pk, user, given["reason"])
    raise ValidationError("Approve or decline.")


def _budgets_beside(row: AccessRequest) -> list[money.BudgetView]:
    """How the budgets stand that the request has to do with."""
    if row.kind not in (Kind.BUDGET, Kind.KEY) or not row.is_open:
        return []
    owners = [("user", row.requester_id)]
    owners += [("team", row.team_id)] if row.team_id else []
    owners += [("key", row.key_id)] if row.key_id else []
    return money.source().budgets(owners)


def may_decide_any(user: User) -> bool:
    return user.has_perm(policy.DECIDE) or policy.managed_teams(user).exists()


# --- shared ----------------------------------------------------------------------------------------------------------
def shown(row: AccessRequest) -> dict[str, Any]:
    granted = "" if row.granted_amount in (None, row.amount) else money.amount_text(row.granted_amount, row.per)
    return {
        "request": row,
        "words": words(row),
        "badge": BADGES.get(row.state, ""),
        "amount": money.amount_text(row.amount, row.per),
        "granted": granted,
    }


def _tabs(request: HttpRequest, current: str) -> dict[str, Any]:
    user = signed_in(request)
    may = may_decide_any(user)
    return {"current": current, "may_decide": may, "waiting_count": policy.waiting_for(user) if may else 0}


def home_section(request: HttpRequest) -> str:
    """What waits for this person, or has been decided for them."""
    user = signed_in(request)
    waiting = policy.waiting_for(user)
    ready = AccessRequest.objects.filter(requester=user, kind=Kind.KEY, state=State.APPROVED, collected_at=None).count()
    if not waiting and not ready:
        return ""
    return render_to_string("portal/requests/home.html", {"waiting": waiting, "ready": ready}, request)
