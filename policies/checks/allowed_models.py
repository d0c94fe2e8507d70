"""Only these models may be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from policies.checks.base import Check, SettingsForm, World, register
from policies.checks.disabled_models import fallback_models
from policies.fields import LinesField
from policies.names import Names
from policies.types import Action, Exchange, Found, Stage

TOLD = 10  # names that a message tells


class AllowedModelsForm(SettingsForm):
    models = LinesField(
        label="Models",
        help_text="Names or aliases as callers use them, one per line; * stands for any characters, as in gpt-4o*. "
        "A model that is not listed is refused.",
    )


@register
class AllowedModelsCheck(Check):
    name = "allowed_models"
    label = "Allowed models"
    help = (
        "Finds calls of any model that is not on the list. Of several such rules all must allow a model. "
        "To hide models from a key altogether, set its allowed models instead."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    message = "This model is not allowed by a policy of your organisation. Use another one."
    SettingsForm = AllowedModelsForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        models: list[str] = settings["models"]
        self._allowed = Names(models)
        told = ", ".join(models[:TOLD]) + (" and others" if len(models) > TOLD else "")
        message = f"This model is not allowed by a policy of your organisation. Use one of these: {told}."
        self._found = (Found("not on the list", message),)

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        """A model is allowed by its name or by the alias that was used: both are names that an admin gave it."""
        allows = self._allowed.match
        if not (allows(exchange.model) or allows(exchange.requested_model)):
            return self._found
        if "models" in exchange.body and not all(map(allows, fallback_models(exchange.body))):
            return self._found
        return ()
