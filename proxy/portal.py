"""The portal's pages of models: those that a person may use, and the playground. Of the control plane, as the admin is:
the calls themselves go through the same door as everybody's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_POST, require_safe

from accounts.models import User
from accounts.portal.choices import TeamChoice, choices_of
from accounts.portal.playground import LIFETIME, lend_key
from proxy.models import Model
from proxy.providers import presets
from proxy.selectors import answered_here, price_on_route
from usage.display import price as price_text
from usage.display import usd
from usage.price_list import PriceBook, context_window, prices_at
from usage.pricing import Price


# --- models ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PriceRow:
    """`teams`: whose price it is, where it is not everybody's. Texts per million tokens."""

    teams: str
    input: str
    output: str
    more: str


@dataclass(frozen=True, slots=True)
class ModelRow:
    name: str
    aliases: list[str]
    description: str
    context_window: int | None
    max_output_tokens: int | None
    teams: list[str]
    prices: list[PriceRow]


@login_required
@require_safe
def models(request: HttpRequest) -> HttpResponse:
    choices = choices_of(_user(request))
    term = request.GET.get("q", "").strip()
    usable = {name for choice in choices for name in choice.models}
    found = [model for model in _models(usable) if _matches(model, term)]
    book = prices_at(datetime.now(UTC)) if found else None
    context = {
        "rows": [_row(model, choices, book) for model in found] if book is not None else [],
        "term": term,
        "has_models": bool(usable),
        "requests_url": _requests_url(),
    }
    return render(request, "portal/models/models.html", context)


def _models(names: Iterable[str]) -> list[Model]:
    return list(Model.objects.filter(name__in=names, enabled=True).prefetch_related("routes__provider"))


def _matches(model: Model, term: str) -> bool:
    return all(
        word in f"{model.name} {' '.join(model.aliases)} {model.description}".lower() for word in term.lower().split()
    )


def _row(model: Model, choices: list[TeamChoice], book: PriceBook) -> ModelRow:
    allowing = [choice for choice in choices if model.name in choice.models]
    window = model.context_window or _listed_window(model)
    return ModelRow(
        name=model.name,
        aliases=model.aliases,
        description=model.description,
        context_window=window,
        max_output_tokens=model.max_output_tokens,
        teams=[choice.label for choice in allowing],
        prices=_prices(model, allowing, book),
    )


def _prices(model: Model, allowing: list[TeamChoice], book: PriceBook) -> list[PriceRow]:
    """Of everybody, where one of the person's teams pays it, and of each team with a price of its own."""
    own = book.team_prices(model.name)
    with_own = [(choice.label, own[choice.team.pk]) for choice in allowing if choice.team and choice.team.pk in own]
    rows = [_price_row(label, price) for label, price in with_own]
    if len(with_own) < len(allowing):
        routes = [route for route in model.routes.all() if route.enabled and route.provider.enabled]
        known = (price_on_route(model, route, book) or answered_here(route) for route in routes)
        price = next((price for price in known if price is not None), None)
        if price is not None:
            rows.insert(0, _price_row("", price))
    return rows


def _price_row(teams: str, price: Price) -> PriceRow:
    more = []
    if price.cached is not None:
        more.append(f"{price_text(price.cached)} cached")
    if price.request:
        more.append(f"{usd(price.request)} a call")
    if price.image is not None:
        more.append(f"{usd(price.image)} a picture")
    if price.tiers:
        more.append("dearer for long prompts")
    return PriceRow(teams, price_text(price.input), price_text(price.output), ", ".join(more))


def _listed_window(model: Model) -> int | None:
    for route in model.routes.all():
        kind = route.provider.kind
        if kind in presets.PRESETS and (
            found := context_window(presets.prices_id(kind), route.upstream_model or model.name)
        ):
            return found
    return None


def _requests_url() -> str:
    try:
        return reverse("access_requests")
    except NoReverseMatch:
        return ""


# --- playground -----------------------------------------------------------------------------------------------------
@login_required
@require_safe
def playground(request: HttpRequest) -> HttpResponse:
    choices = [choice for choice in choices_of(_user(request)) if choice.models]
    names = sorted({name for choice in choices for name in choice.models})
    offered = [(name, " ".join(choice.value for choice in choices if name in choice.models)) for name in names]
    context = {
        "choices": choices,
        "models": offered,
        "chosen": request.GET.get("model", ""),
        "requests_url": _requests_url(),
    }
    return render(request, "portal/models/playground.html", context)


@login_required
@require_POST
def playground_key(request: HttpRequest) -> HttpResponse:
    """For the page's script, which keeps it in memory only."""
    try:
        lent = lend_key(_user(request), request.POST.get("team", ""))
    except ValidationError as error:
        answer = JsonResponse({"error": " ".join(error.messages)}, status=403)
    else:
        answer = JsonResponse(
            {"key": lent.secret, "live_in_s": lent.live_in_s, "expires_in_s": int(LIFETIME.total_seconds())}
        )
    answer["Cache-Control"] = "no-store"
    return answer


def _user(request: HttpRequest) -> User:
    user: Any = request.user
    return user  # type: ignore[no-any-return]
