"""How long a reply may be asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.prompts import CHAT, COMPLETIONS
from policies.types import Exchange, Found, Stage

FIELDS = ("max_tokens", "max_completion_tokens")
LLAMA_CPP = "n_predict"  # its own field, which wins there over the other two
MOST = 2**31 - 1
# OpenAI's models that refuse `max_tokens` in chats. Others take the newer field for the same, or ignore it (DeepSeek),
# or refuse it (Mistral).
TAKES_NEWER_FIELD = re.compile(r"(?:.*/)?(?:o[1-9]|gpt-[5-9])(?!\d)", re.DOTALL)


class MaxTokensForm(SettingsForm):
    limit = forms.IntegerField(
        label="Limit",
        initial=4096,
        min_value=0,
        max_value=MOST,
        help_text="Most tokens that a call may ask for, for each of its replies. 0: no limit.",
    )
    missing_counts = forms.BooleanField(
        label="Not asking counts too",
        required=False,
        initial=False,
        help_text="A call that names no limit of its own leaves it to the provider, which may go on for very long. "
        "On: such a call counts as over the limit.",
    )


@register
class MaxTokensCheck(Check):
    name = "max_tokens"
    label = "Max tokens"
    help = (
        "Finds calls that ask for a longer reply than the limit, by max_tokens or by max_completion_tokens. "
        "“Clamp” lowers the number to the limit instead of refusing the call."
    )
    stages = frozenset({Stage.REQUEST})
    change_label = "Clamp"
    SettingsForm = MaxTokensForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._limit: int = settings["limit"]
        self._missing_counts: bool = settings["missing_counts"]
        ask = f"Ask for at most {self._limit} tokens."
        self._over_message = ask
        self._missing_message = f"{ask} Say so in max_tokens or max_completion_tokens."

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        limit, body = self._limit, exchange.body
        if not limit:
            return ()
        if _over(body, limit):
            return (Found("over the limit", self._over_message, partial(self._clamp, exchange)),)
        if self._missing_counts and exchange.endpoint in (CHAT, COMPLETIONS) and _is_missing(body):
            return (Found("missing", self._missing_message, partial(self._clamp, exchange)),)
        return ()

    def _clamp(self, exchange: Exchange) -> None:
        """Another rule may have lowered the number, or set it, in the meantime: what is within the limit stays."""
        body = exchange.body
        for name in _over(body, self._limit):
            body[name] = self._limit
        if self._missing_counts and _is_missing(body):
            body[_field_for(exchange)] = self._limit


def _over(body: dict[str, Any], limit: int) -> list[str]:
    return [name for name in (*FIELDS, LLAMA_CPP) if not _is_within(body.get(name), limit)]


def _is_within(value: Any, limit: int) -> bool:
    """What is no number is not: some providers read "5000" as one. Nor is a negative one: it stands for no limit."""
    return value is None or (isinstance(value, int | float) and 0 <= value <= limit)


def _is_missing(body: dict[str, Any]) -> bool:
    return all(body.get(name) is None for name in FIELDS)


def _field_for(exchange: Exchange) -> str:
    names = (exchange.model, exchange.requested_model)
    if exchange.endpoint == CHAT and any(TAKES_NEWER_FIELD.match(name.lower()) for name in names):
        return "max_completion_tokens"
    return "max_tokens"
