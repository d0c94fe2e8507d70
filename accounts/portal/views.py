"""The pages of a person's own keys. Another person's key is not there: 404."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts import catalogue, services
from accounts.key_states import generation_of, state_of
from accounts.models import ApiKey, User
from accounts.portal import key_budgets, states
from accounts.portal.choices import allowed
from accounts.portal.context import api_base
from accounts.portal.forms import NewKeyForm, RotateOwnKeyForm
from accounts.portal.keys import make_own_key, own_keys
from accounts.portal.snippets import snippets

SHOWN = 200


@login_required
@require_safe
def key_list(request: HttpRequest) -> HttpResponse:
    keys = list(own_keys(_user(request))[:SHOWN])
    budgets = key_budgets.budgets().of_keys(keys)
    rows: list[dict[str, Any]] = [
        {"key": key, "state": states.in_words(key), "budgets": budgets.get(key.pk, [])} for key in keys
    ]
    rows.sort(key=lambda row: not row["state"].works)  # the newest first, and what works before what does not
    return render(request, "portal/keys/list.html", {"rows": rows, "is_cut": len(keys) == SHOWN})


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def new_key(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    form = NewKeyForm(user, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            key, secret = make_own_key(
                user,
                form.cleaned_data["team"],
                form.cleaned_data["name"],
                models=form.models_allowed,
                endpoints=form.cleaned_data["endpoints"],
                expires_at=form.expires_at,
                budget=form.budget,
            )
        except ValidationError as error:
            _add_errors(form, error)
        else:
            return show_once(request, key, secret, "Your new key")
    context = {"form": form, "choices": list(form.choices_by_value.values())}
    return render(request, "portal/keys/new.html", context, status=422 if form.errors else 200)


@login_required
@require_safe
def key_page(request: HttpRequest, public_id: str) -> HttpResponse:
    key = _key(request, public_id)
    names = catalogue.callable_names() if key.models_allowed is None else key.models_allowed
    context = {
        "key": key,
        "state": states.in_words(key),
        "models": allowed(names, key.team.models_allowed, _user(request)),
        "budgets": key_budgets.budgets().of_keys([key]).get(key.pk, []),
        "may_rotate": _may_rotate(key),
    }
    return render(request, "portal/keys/key.html", context)


@login_required
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def rotate(request: HttpRequest, public_id: str) -> HttpResponse:
    key = _key(request, public_id)
    if not _may_rotate(key):
        messages.warning(request, "Only a key that works can be rotated.")
        return redirect("portal_key", public_id)
    generation = generation_of(key)
    form = RotateOwnKeyForm(request.POST if request.method == "POST" else None, initial={"generation": generation})
    if not form.is_valid():
        return render(request, "portal/keys/rotate.html", {"key": key, "form": form})
    if form.cleaned_data["generation"] != generation:
        messages.warning(
            request,
            "The key was rotated already, so nothing was done now: a secret is shown only once. "
            "If you do not have the new one, rotate again.",
        )
        return redirect("portal_key", public_id)
    secret = services.rotate_key(key, form.overlap_from_now)
    return show_once(request, key, secret, "The new secret of your key")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def revoke(request: HttpRequest, public_id: str) -> HttpResponse:
    key = _key(request, public_id)
    if key.disabled:
        return redirect("portal_key", public_id)
    if request.method != "POST":
        return render(request, "portal/keys/revoke.html", {"key": key})
    services.revoke_key(key)
    messages.success(request, f"{key.name} is revoked: calls with it are refused from now on.")
    return redirect("portal_keys")


def show_once(request: HttpRequest, key: ApiKey, secret: str, title: str) -> HttpResponse:
    """The only page that ever holds the key: the answer to the POST that made it, kept by nobody on the way. Its script
    puts the key's own address in its place, so that neither a reload nor the back button brings it again."""
    owner: Any = key.user or _user(request)
    names = catalogue.callable_names() if key.models_allowed is None else key.models_allowed
    usable = allowed(names, key.team.models_allowed, owner)
    base_url = api_base(request)
    shown = snippets(base_url, secret, next(iter(usable), "MODEL"), catalogue.endpoint_names())
    old_until = key.previous_until if key.previous_until and key.previous_until > timezone.now() else None
    context = {
        "key": key,
        "secret": secret,
        "heading": title,
        "base_url": base_url,
        "snippets": shown,
        "models": usable,
        "old_until": old_until,
    }
    response = render(request, "portal/keys/secret.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _user(request: HttpRequest) -> User:
    user: Any = request.user
    return user


def _key(request: HttpRequest, public_id: str) -> ApiKey:
    return get_object_or_404(own_keys(_user(request)), public_id=public_id)


def _may_rotate(key: ApiKey) -> bool:
    return state_of(key) in ("active", "rotating")


def _add_errors(form: NewKeyForm, error: ValidationError) -> None:
    """To the fields that have them; what another part says of fields that are not here, above all."""
    if not hasattr(error, "error_dict"):
        form.add_error(None, error)
        return
    for field, found in error.error_dict.items():
        form.add_error(field if field in form.fields else None, found)
