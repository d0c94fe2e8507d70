"""Reads providers and models for the control plane. The data plane has its snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from proxy.models import Model, Provider, Route
from proxy.providers import presets
from usage.models import ModelPrice
from usage.price_list import PriceBook, price_of, prices_at
from usage.pricing import Price


def owners_of_names(names: Iterable[str], other_than: Model) -> dict[str, str]:
    """Which of `names` are already the name or an alias of another model: {name: that model's name}."""
    wanted = set(names)
    rows = Model.objects.exclude(pk=other_than.pk).values_list("name", "aliases")
    return {taken: name for name, aliases in rows for taken in wanted.intersection([name, *aliases])}


def callable_models() -> list[str]:
    """Names of the models a call can be answered for: enabled, with an enabled route to an enabled provider."""
    usable = Route.objects.filter(enabled=True, provider__enabled=True)
    return list(Model.objects.filter(enabled=True, routes__in=usable).distinct().values_list("name", flat=True))


def provider_names() -> list[str]:
    """Every provider that is switched on."""
    return list(Provider.objects.filter(enabled=True).values_list("name", flat=True))


def model_names() -> list[str]:
    """Every model's name, whether callable at the moment or not."""
    return list(Model.objects.values_list("name", flat=True))


def routes_by_provider(providers: Iterable[Provider]) -> dict[int, list[str]]:
    """Names of the models that each provider answers for: {provider's pk: [name, ...]}."""
    found: dict[int, list[str]] = {provider.pk: [] for provider in providers}
    rows = Route.objects.filter(provider__in=found).order_by("model__name").values_list("provider_id", "model__name")
    for provider_id, name in rows.distinct():
        found[provider_id].append(name)
    return found


@dataclass(frozen=True, slots=True)
class PriceNow:
    """What a model costs everyone at this moment. `own`: set here, not from the list that ships with the gateway.

    `price` is that of the first route with one (None: of no route); `unpriced`: provider names of routes without.
    """

    price: Price | None
    own: bool
    unpriced: tuple[str, ...]


def own_price(name: str) -> ModelPrice | None:
    """The price set here that counts now for the model of this name, for every team without one of its own."""
    begun = ModelPrice.objects.filter(model=name, team=None, valid_from__lte=datetime.now(UTC))
    return begun.order_by("-valid_from", "-id").first()


def prices_now(models: Iterable[Model]) -> dict[int, PriceNow]:
    """By pk, for models with their routes and providers prefetched. Two queries."""
    now = datetime.now(UTC)
    book = prices_at(now)
    own_names = set(ModelPrice.objects.filter(team=None, valid_from__lte=now).values_list("model", flat=True))
    return {model.pk: _price_now(model, book, model.name in own_names) for model in models}


def dearest_prices() -> dict[str, tuple[int, int] | None]:
    """Of every model, in nano-USD per million tokens: the most that input and output cost on its routes. None: on one
    of them nobody knows. What the gateway answers itself costs nothing, if nothing else is set."""
    book = prices_at(datetime.now(UTC))
    found: dict[str, tuple[int, int] | None] = {}
    for model in Model.objects.prefetch_related("routes__provider"):
        routes = [route for route in model.routes.all() if route.enabled and route.provider.enabled]
        prices = [price_on_route(model, route, book) or answered_here(route) for route in routes]
        prices = prices or [book.find(model.name, "", "")]
        known = [price for price in prices if price is not None]
        all_known = len(known) == len(prices)
        found[model.name] = (
            (max(price.input for price in known), max(price.output for price in known)) if all_known else None
        )
    return found


def answered_here(route: Route) -> Price | None:
    kind = route.provider.kind
    return Price(0, 0) if kind in presets.PRESETS and presets.adapter_for(kind).answer is not None else None


def prices_ids() -> dict[str, str]:
    """Of each provider by its name: where its prices are listed, "" for none. Not of a kind that is gone."""
    rows = Provider.objects.values_list("name", "kind")
    return {name: presets.prices_id(kind) for name, kind in rows if kind in presets.PRESETS}


def _price_now(model: Model, book: PriceBook, own: bool) -> PriceNow:
    found = [(route.provider.name, price_on_route(model, route, book)) for route in model.routes.all()]
    prices = [price for _, price in found if price is not None]
    if own and not prices:
        row = own_price(model.name)
        prices = [price_of(row)] if row else []
    unpriced = tuple(provider for provider, price in found if price is None)
    return PriceNow(prices[0] if prices else None, own, unpriced)


def price_on_route(model: Model, route: Route, book: PriceBook) -> Price | None:
    try:
        prices_id = presets.prices_id(route.provider.kind)
    except KeyError:
        prices_id = ""
    return book.find(model.name, prices_id, route.upstream_model or model.name)


def has_enabled_provider() -> bool:
    return Provider.objects.filter(enabled=True).exists()
