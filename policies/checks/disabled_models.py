"""These models, and these sizes of images, may not be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from policies.checks.base import Check, SettingsForm, World, register
from policies.fields import LinesField
from policies.names import Names
from policies.types import Action, Exchange, Found, Stage

SIZE = "Images of this size are disabled by a policy of your organisation. Ask for another size."


class DisabledModelsForm(SettingsForm):
    models = LinesField(
        label="Models",
        help_text="Names or aliases as callers use them, one per line; * stands for any characters, as in gpt-4*. "
        "Sizes of images may be listed too, such as 1024x1024.",
    )


@register
class DisabledModelsCheck(Check):
    name = "disabled_models"
    label = "Disabled models"
    help = (
        "Finds calls of a model on the list, by its name or by an alias, and of images of a size on the list. "
        "All other models may be used."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    message = "This model is disabled by a policy of your organisation. Use another one."
    SettingsForm = DisabledModelsForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._disabled = Names(settings["models"])

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        """One finding for the model and one for the size of images, each labelled with its entry of the list."""
        match, body = self._disabled.match, exchange.body
        entry = match(exchange.model) or match(exchange.requested_model)
        if entry is None and "models" in body:
            entry = next(filter(None, map(match, fallback_models(body))), None)
        found = [] if entry is None else [Found(entry)]
        size = body.get("size")
        if isinstance(size, str) and (entry := match(size)):
            found.append(Found(entry, SIZE))
        return found


def fallback_models(body: dict[str, Any]) -> list[str]:
    """Models that a provider which routes by itself (OpenRouter) may take instead of the one asked for."""
    models = body.get("models")
    return [model for model in models if isinstance(model, str)] if isinstance(models, list) else []
