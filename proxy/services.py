"""Writes providers and models. The signals of proxy.apps tell the data plane, which has them within a second."""

from __future__ import annotations

from django.core.exceptions import ValidationError

from policies import selectors as policies
from proxy.models import Model, Provider
from proxy.selectors import owners_of_names


def save_provider(
    provider: Provider, *, credential: str | None = None, extra_headers: dict[str, str] | None = None
) -> None:
    """Save it with its secrets, given in the clear. None keeps what is stored; "" and {} remove it."""
    if credential is not None:
        provider.set_credential(credential)
    if extra_headers is not None:
        provider.set_extra_headers(extra_headers)
    provider.save()


def check_model_names(name: str, aliases: list[str], model: Model) -> None:
    """Raises ValidationError (by field) when a caller could mean two models by one of the names `model` is to have."""
    errors: dict[str, str] = {}
    taken = owners_of_names([name, *aliases], model)
    if name in taken:
        errors["name"] = f"{name} is already a name of the model {taken[name]}."
    if name in aliases or len(set(aliases)) < len(aliases):
        errors["aliases"] = "Each name only once; the model's own name is no alias."
    elif others := sorted(taken.keys() & set(aliases)):
        errors["aliases"] = " ".join(f"{alias} is already a name of the model {taken[alias]}." for alias in others)
    if errors:
        raise ValidationError(errors)


def policies_asking(provider: str) -> str:
    """Which policies have rules in force that ask the provider, in words; "": none."""
    names = policies.policies_asking(provider)
    return f"{'policy' if len(names) == 1 else 'the policies'} {', '.join(names)}" if names else ""
