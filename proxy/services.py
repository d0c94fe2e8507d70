"""Writes providers and models. The signals of proxy.apps tell the data plane, which has them within a second."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction

from accounts.services import rename_allowed
from policies import selectors as policies
from policies.models import Policy
from proxy.models import Model, Provider
from proxy.selectors import owners_of_names
from usage import renames


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


def check_rename(model: str, renamed: str) -> None:
    """Raises ValidationError where something that names the model cannot go along, and would then hold no more."""
    wrong = []
    if limits := renames.in_the_way(model, renamed):
        wrong.append(f"There are rate limits under this name already, and others under {model}. Delete one of each: "
                     f"{'; '.join(limits)}.")  # fmt: skip
    if disabling := policies.policies_naming(model, renamed, "disabled_models"):
        names = ", ".join(policy.name for policy in disabling)
        wrong.append(
            f"Rules disable {model} by name, and would let {renamed} by. Add {renamed} to the disabled models of "
            f"{names}, publish, and then rename it."
        )
    if wrong:
        raise ValidationError({"name": wrong})


@transaction.atomic
def rename_model(model: str, renamed: str) -> dict[str, int]:
    """Let everything that names it name it so: prices, budgets, limits, alert rules, lists of allowed models. Gives how
    many of each kind. Published policies stay as they are: see `policies_allowing`."""
    carried = renames.carry(model, renamed)
    if lists := rename_allowed(model, renamed):
        carried["lists of allowed models"] = lists
    return carried


def policies_allowing(model: str, renamed: str) -> list[Policy]:
    """Whose rules in force allow the model by the name it had, and refuse it under the new one."""
    return policies.policies_naming(model, renamed, "allowed_models")


def policies_asking(provider: str) -> str:
    """Which policies have rules in force that ask the provider, in words; "": none."""
    names = policies.policies_asking(provider)
    return f"{'policy' if len(names) == 1 else 'the policies'} {', '.join(names)}" if names else ""
