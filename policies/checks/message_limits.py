"""How many messages, how long a message, how large a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.prompts import chars_in, messages_of
from policies.types import Action, Exchange, Found, Stage


class MessageLimitsForm(SettingsForm):
    max_messages = forms.IntegerField(
        label="Messages",
        initial=0,
        min_value=0,
        max_value=2**31 - 1,
        help_text="Most messages in one call, whoever said them. 0: no limit.",
    )
    max_message_chars = forms.IntegerField(
        label="Characters of a message",
        initial=0,
        min_value=0,
        max_value=2**31 - 1,
        help_text="Most characters of a single message. 0: no limit.",
    )
    max_body_bytes = forms.IntegerField(
        label="Bytes of a request",
        initial=0,
        min_value=0,
        max_value=2**31 - 1,
        help_text="Most bytes of the whole request as it comes, images, files and tools included; on every endpoint. "
        "0: no limit but the installation's own (MAX_BODY_BYTES).",
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors and not any(cleaned.values()):
            raise forms.ValidationError("must set at least one limit above 0")
        return cleaned


@register
class MessageLimitsCheck(Check):
    name = "message_limits"
    label = "Message limits"
    help = (
        "Finds calls with too many messages, with a message that is too long, or that are too large as a whole. Each "
        "limit counts by itself."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    SettingsForm = MessageLimitsForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._max_messages: int = settings["max_messages"]
        self._max_chars: int = settings["max_message_chars"]
        self._max_bytes: int = settings["max_body_bytes"]
        self._too_many = Found("too many messages", f"Send at most {self._max_messages} messages in one call.")
        self._too_long = Found(
            "message too long", f"A message may have at most {self._max_chars} characters. Shorten it."
        )
        self._too_large = Found(
            "request too large", f"Send at most {self._max_bytes} bytes in one call, images and tools included."
        )

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        found = []
        if self._max_messages or self._max_chars:
            messages, most = messages_of(exchange.body), self._max_chars
            if self._max_messages and len(messages) > self._max_messages:
                found.append(self._too_many)
            if most and any(chars_in(message.get("content")) > most for message in messages):
                found.append(self._too_long)
        if self._max_bytes and exchange.body_bytes > self._max_bytes:
            found.append(self._too_large)
        return found
