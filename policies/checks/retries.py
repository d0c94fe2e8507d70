"""How often a failed try is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.types import Action, Exchange, Stage


class RetriesForm(SettingsForm):
    count = forms.IntegerField(
        label="Repetitions",
        initial=2,
        min_value=0,
        max_value=5,
        help_text="How often a try at one route is repeated when the provider cannot be reached, answers 429 or 5xx or "
        "is late, before the next route is tried.",
    )


@register
class RetriesCheck(Check):
    name = "retries"
    label = "Retries"
    help = (
        "Repeats a failed try at a provider. Only before the first token has reached the caller, and within the "
        "model's time budget. Of several such rules the highest number counts."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.REDACT})
    change_label = "Set"
    SettingsForm = RetriesForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._count: int = settings["count"]

    def enforce(self, exchange: Exchange) -> None:
        exchange.retries = max(exchange.retries, self._count)
