"""Instructions of yours in every conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.errors import Blocked
from policies.prompts import CHAT, COMPLETIONS, tokens_in
from policies.types import Action, Exchange, Found, Stage

PREPEND, APPEND, REPLACE = "prepend", "append", "replace"
INSTRUCTING = frozenset({"system", "developer"})
# Fields in which servers other than OpenAI's take instructions too.
INSTRUCTIONS = ("system", "instructions")
GAP = "\n\n"
TOKENS = "Send the prompt as text instead of token numbers: a policy of your organisation adds instructions to it."


class SystemPromptForm(SettingsForm):
    text = forms.CharField(
        label="Text",
        max_length=50_000,
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text="The instructions, as you would write them into a system message.",
    )
    where = forms.ChoiceField(
        label="Where",
        choices=[
            (PREPEND, "Before the caller's own instructions"),
            (APPEND, "After the caller's own instructions"),
            (REPLACE, "Instead of the caller's own instructions"),
        ],
        initial=PREPEND,
        help_text="What becomes of the system and developer messages that the caller sends.",
    )

    def clean_text(self) -> str:
        return str(self.cleaned_data["text"]).replace("\r\n", "\n")


@register
class SystemPromptCheck(Check):
    """The instructions of all rules and of the caller become one message at the head of the conversation, because many
    models' chat templates take no second one. Rules add to it in their order, so what is set for everyone comes first,
    and none takes away what another has added."""

    name = "system_prompt"
    label = "System prompt"
    help = (
        "Adds instructions to every conversation, before or after those of the caller, or instead of them. "
        "Completions, which have no messages, get them before the prompt. Nothing is found and nobody is refused."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.REDACT})
    change_label = "Add"
    SettingsForm = SystemPromptForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._text: str = settings["text"]
        self._where: str = settings["where"]

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        """Instructions cannot be written in front of numbers, and the call must not go without them."""
        if exchange.endpoint == COMPLETIONS and tokens_in(exchange.body.get("prompt")):
            return (Found("token numbers", TOKENS, partial(_refuse, TOKENS)),)
        return ()

    def enforce(self, exchange: Exchange) -> None:
        body = exchange.body
        if exchange.endpoint == CHAT and isinstance(body.get("messages"), list):
            self._instruct(body)
        elif exchange.endpoint == COMPLETIONS:
            prompt = body.get("prompt")
            if isinstance(prompt, str):
                body["prompt"] = self._before(prompt)
            elif isinstance(prompt, list):
                body["prompt"] = [self._before(item) if isinstance(item, str) else item for item in prompt]

    def _instruct(self, body: dict[str, Any]) -> None:
        head, rest = _head(body["messages"])
        if self._where == REPLACE:
            head.drop_callers()
            rest = [message for message in rest if not _instructs(message)]
            for name in INSTRUCTIONS:
                body.pop(name, None)
        (head.below if self._where == APPEND else head.above).append(self._text)
        head.write()
        body["messages"] = [head, *rest]

    def _before(self, prompt: str) -> Prompt:
        """Behind what an earlier rule has put there."""
        above = prompt.above if isinstance(prompt, Prompt) else 0
        changed = Prompt(prompt[:above] + self._text + GAP + prompt[above:])
        changed.above = above + len(self._text) + len(GAP)
        return changed


class Instructions(dict[str, Any]):
    """The message at the head of a conversation: what rules put above and below the caller's own instructions."""

    def __init__(self, callers: list[dict[str, Any]]) -> None:
        super().__init__({name: value for message in callers for name, value in message.items()})
        self["role"] = callers[0]["role"].strip().lower() if callers else "system"
        self.above: list[str] = []
        self.callers = _joined([message.get("content") for message in callers])
        self.below: list[str] = []

    def drop_callers(self) -> None:
        role = self["role"]
        self.clear()
        self["role"] = role
        self.callers = ""

    def write(self) -> None:
        self["content"] = _joined([*self.above, self.callers, *self.below])


class Prompt(str):
    """A prompt whose first `above` characters are a rule's."""

    above: int


def _head(messages: list[Any]) -> tuple[Instructions, list[Any]]:
    """The instructions that a conversation begins with, as one message, and what comes after them."""
    if messages and isinstance(messages[0], Instructions):
        return messages[0], messages[1:]
    count = next((index for index, message in enumerate(messages) if not _instructs(message)), len(messages))
    return Instructions(messages[:count]), messages[count:]


def _instructs(message: Any) -> bool:
    role = message.get("role") if isinstance(message, dict) else None
    return isinstance(role, str) and role.strip().lower() in INSTRUCTING


def _joined(contents: list[Any]) -> str | list[Any]:
    """One content of several: a text where all are texts, else a list of parts."""
    contents = [content for content in contents if content and isinstance(content, str | list)]
    if all(isinstance(content, str) for content in contents):
        return GAP.join(contents)
    parts: list[Any] = []
    for content in contents:
        parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
    return parts


def _refuse(message: str) -> None:
    raise Blocked(message)
