"""How long a prompt may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.prompts import prompt_chars
from policies.types import Action, Exchange, Found, Stage


class MaxPromptCharsForm(SettingsForm):
    limit = forms.IntegerField(
        label="Limit",
        initial=32_000,
        min_value=0,
        max_value=2**31 - 1,
        help_text="Most characters of all messages of a call together, or of its prompt or input. About four are a "
        "token. 0: no limit.",
    )


@register
class MaxPromptCharsCheck(Check):
    name = "max_prompt_chars"
    label = "Max prompt characters"
    help = (
        "Finds prompts that are longer than the limit: the texts of all messages, whoever said them, the prompt of a "
        "completion, the input of an embedding. Images, files and definitions of tools do not count."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    SettingsForm = MaxPromptCharsForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._limit: int = settings["limit"]
        message = f"Send at most {self._limit} characters of text in one call, all messages together."
        self._found = (Found("over the limit", message),)

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        return self._found if self._limit and prompt_chars(exchange.body) > self._limit else ()
