from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Team
from proxy import selectors
from proxy.models import Model, Provider, Route
from usage.models import ModelPrice

pytestmark = pytest.mark.django_db


def route(model: Model, kind: str = "openai", **fields: object) -> Route:
    provider, _ = Provider.objects.get_or_create(name=kind, defaults={"kind": kind})
    return Route.objects.create(model=model, provider=provider, **fields)


def test_model_is_callable_when_it_its_route_and_the_provider_are_enabled() -> None:
    for name in ("ready", "disabled", "no-route", "route-off", "provider-off"):
        Model.objects.create(name=name, enabled=name != "disabled")
    route(Model.objects.get(name="ready"))
    route(Model.objects.get(name="ready"), upstream_model="second")
    route(Model.objects.get(name="disabled"))
    route(Model.objects.get(name="route-off"), enabled=False)
    route(Model.objects.get(name="provider-off"), kind="mistral")
    Provider.objects.filter(name="mistral").update(enabled=False)
    assert selectors.callable_models() == ["ready"]


def test_price_of_ours_counts_before_the_listed_one() -> None:
    model = Model.objects.create(name="gpt-4o-mini")
    route(model)
    assert not selectors.prices_now([model])[model.pk].own
    ModelPrice.objects.create(model=model.name, input_nano_usd_per_mtok=1, output_nano_usd_per_mtok=2)
    found = selectors.prices_now([model])[model.pk]
    assert found.own
    assert found.price is not None
    assert found.price.input == 1


def test_price_of_ours_is_known_without_any_route() -> None:
    model = Model.objects.create(name="mine")
    ModelPrice.objects.create(model="mine", input_nano_usd_per_mtok=1, output_nano_usd_per_mtok=2)
    assert selectors.prices_now([model])[model.pk].price is not None


def test_dearest_price_is_that_of_the_dearest_route_and_known_only_if_all_are() -> None:
    for name in ("gpt-4o", "partly", "unknown", "echo", "mine"):
        Model.objects.create(name=name)
    route(Model.objects.get(name="gpt-4o"))
    route(Model.objects.get(name="gpt-4o"), upstream_model="gpt-4o-mini")
    route(Model.objects.get(name="partly"), upstream_model="gpt-4o")
    route(Model.objects.get(name="partly"), kind="vllm")
    route(Model.objects.get(name="echo"), kind="echo")
    ModelPrice.objects.create(model="mine", input_nano_usd_per_mtok=1, output_nano_usd_per_mtok=2)
    assert selectors.dearest_prices() == {
        "gpt-4o": (2_500_000_000, 10_000_000_000),
        "partly": None,
        "unknown": None,
        "echo": (0, 0),
        "mine": (1, 2),
    }


def test_price_of_tomorrow_does_not_count_yet() -> None:
    later = timezone.now() + timedelta(days=1)
    ModelPrice.objects.create(model="mine", valid_from=later, input_nano_usd_per_mtok=1, output_nano_usd_per_mtok=2)
    assert selectors.own_price("mine") is None


def test_price_of_one_team_is_not_what_a_model_costs_everyone() -> None:
    team = Team.objects.create(name="research")
    model = Model.objects.create(name="mine")
    ModelPrice.objects.create(model="mine", team=team, input_nano_usd_per_mtok=1, output_nano_usd_per_mtok=2)
    assert selectors.own_price("mine") is None
    found = selectors.prices_now([model])[model.pk]
    assert (found.own, found.price) == (False, None)


def test_upstream_model_decides_the_listed_price() -> None:
    model = Model.objects.create(name="our-name")
    route(model, upstream_model="gpt-4o-mini")
    assert selectors.prices_now([model])[model.pk].price is not None


def test_kind_that_is_gone_has_no_price() -> None:
    model = Model.objects.create(name="gpt-4o-mini")
    route(model, kind="gone")
    assert selectors.prices_now([model])[model.pk].unpriced == ("gone",)


def test_every_provider_says_where_its_prices_are_listed() -> None:
    for name, kind in (("ours", "openai"), ("own machine", "vllm"), ("old", "gone")):
        Provider.objects.create(name=name, kind=kind, enabled=False)
    assert selectors.prices_ids() == {"ours": "openai", "own machine": ""}


def test_providers_models_are_named_once_each() -> None:
    model = Model.objects.create(name="a")
    first = route(model)
    route(model, upstream_model="b")
    other = Provider.objects.create(name="other", kind="openai")
    assert selectors.routes_by_provider([first.provider, other]) == {first.provider_id: ["a"], other.pk: []}
