"""Reads providers and models for the control plane. The data plane has its snapshot."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.models import Model, Provider, Route


def owners_of_names(names: Iterable[str], other_than: Model) -> dict[str, str]:
    """Which of `names` are already the name or an alias of another model: {name: that model's name}."""
    wanted = set(names)
    rows = Model.objects.exclude(pk=other_than.pk).values_list("name", "aliases")
    return {taken: name for name, aliases in rows for taken in wanted.intersection([name, *aliases])}


def callable_models() -> list[str]:
    """Names of the models a call can be answered for: enabled, with an enabled route to an enabled provider."""
    usable = Route.objects.filter(enabled=True, provider__enabled=True)
    return list(Model.objects.filter(enabled=True, routes__in=usable).distinct().values_list("name", flat=True))


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
