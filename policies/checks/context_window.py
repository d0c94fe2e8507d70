"""Prompts that do not fit the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.prompts import EMBEDDINGS, messages_of, texts_in, tokens_in, written
from policies.types import Action, Exchange, Found, Stage

BYTES_PER_TOKEN = 4
REPLY_FIELDS = ("max_tokens", "max_completion_tokens")


class ContextWindowForm(SettingsForm):
    reserve_for_reply = forms.BooleanField(
        label="Leave room for the reply",
        required=False,
        initial=True,
        help_text="The tokens that the call asks for as a reply must fit in as well.",
    )
    share_percent = forms.IntegerField(
        label="Share of the window (%)",
        initial=100,
        min_value=1,
        max_value=100,
        help_text="So much of the model's context window may be used. Tokens are estimated: 90 leaves a margin.",
    )


@register
class ContextWindowCheck(Check):
    name = "context_window"
    label = "Context window"
    help = (
        "Finds calls that do not fit the model's context window, before a provider refuses or silently shortens them. "
        "Tokens are estimated from the length of the text: four bytes of UTF-8 are about one. The window is set at the "
        "model; where it is not, nothing is found."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    SettingsForm = ContextWindowForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._reserves: bool = settings["reserve_for_reply"]
        self._percent: int = settings["share_percent"]

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        window = exchange.context_window
        if not window:
            return ()
        limit = window * self._percent // 100
        reply_tokens = _reply_tokens(exchange.body) if self._reserves else 0
        # No JSON of so many bytes holds more text, or more numbers: the usual call is not read at all.
        if exchange.body_bytes and exchange.body_bytes // 2 + reply_tokens <= limit:
            return ()
        if _prompt_tokens(exchange) + reply_tokens <= limit:
            return ()
        both = "the prompt and the reply that it asks for" if reply_tokens else "the prompt"
        message = (
            f"The call does not fit the model: {both} may have about {limit} tokens. "
            "Shorten the conversation, or ask for fewer tokens."
        )
        return (Found("over the limit", message),)


def _reply_tokens(body: dict[str, Any]) -> int:
    return max((value for name in REPLY_FIELDS if type(value := body.get(name)) is int), default=0)


def _prompt_tokens(exchange: Exchange) -> int:
    """About so many tokens of text, calls of tools and their definitions; not of images, sound and files. Of several
    prompts the longest: the model reads each by itself."""
    body = exchange.body
    conversation = sum(map(_message_bytes, messages_of(body)))
    conversation += sum(len(written(body[name])) for name in ("tools", "functions") if body.get(name))
    prompt = body.get("input" if exchange.endpoint == EMBEDDINGS else "prompt")
    several = prompt if isinstance(prompt, list) and not all(type(item) is int for item in prompt) else [prompt]
    tokens = max((_text_bytes(item) // BYTES_PER_TOKEN + tokens_in(item) for item in several), default=0)
    return conversation // BYTES_PER_TOKEN + tokens


def _message_bytes(message: dict[str, Any]) -> int:
    calls = message.get("tool_calls") or message.get("function_call")
    return _text_bytes(message.get("content")) + (len(written(calls)) if calls else 0)


def _text_bytes(content: Any) -> int:
    return sum(
        len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts_in(content)
    )
