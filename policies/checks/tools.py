"""Which tools a model may be given, and may call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.fields import LinesField
from policies.names import Names
from policies.types import Exchange, Found

STRIP, BLOCK = "strip", "block"

# Where the tools are, and who says which of them is to be called.
TOOLS = {"tools": "tool_choice", "functions": "function_call"}
# Fields that give the model a tool without listing it.
IMPLIED = {"web_search_options": "web_search", "mcp_servers": "mcp"}
# Types that say of what kind a tool, or a choice of one, is; every other type is a tool of the provider's own.
KINDS = frozenset({"function", "custom", "tool", "allowed_tools", "auto", "any", "none", "required"})
MAX_NAME_CHARS = 256  # no provider takes longer ones

NOT_ALLOWED = "not on the list"
IN_REPLY = "The model called a tool that a policy of your organisation does not allow. Ask it to do without that tool."


class ToolsForm(SettingsForm):
    allow = LinesField(
        label="Allowed tools",
        required=False,
        help_text="Names of functions, or types of a provider's own tools such as web_search; one per line, * stands "
        "for any characters. Empty: all that are not blocked. Otherwise every other tool counts as blocked.",
    )
    block = LinesField(
        label="Blocked tools",
        required=False,
        help_text="In the same way: shell, delete_*, web_search*. Wins over the allowed ones.",
    )
    on_block = forms.ChoiceField(
        label="“Block” means",
        choices=[(BLOCK, "Refuse the call"), (STRIP, "Take the tool away and go on")],
        initial=BLOCK,
        help_text="What happens to a call with such a tool when the rule blocks. Taken away, the model never hears of "
        "it.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors and not (cleaned["allow"] or cleaned["block"]):
            raise forms.ValidationError("must name at least one tool, allowed or blocked")
        return cleaned


@register
class ToolsCheck(Check):
    name = "tools"
    label = "Tools"
    help = (
        "Finds tools that are not allowed, by name: in requests those that the model is given, in replies those that "
        "it calls. “Strip” takes them out of the request and goes on; in replies nothing can be stripped."
    )
    change_label = "Strip"
    message = "This call uses a tool that a policy of your organisation does not allow. Send it without that tool."
    SettingsForm = ToolsForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self.gentle = settings["on_block"] == STRIP
        self._allowed = Names(settings["allow"])
        self._blocked = Names(settings["block"])

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        """One finding a tool, labelled with the entry of the list. Each fix takes all of them away."""
        labels = [label for tool in _given(exchange.body) if (label := self._why_not(tool))]
        return [Found(label, fix=partial(self._strip, exchange)) for label in labels]

    def inspect_reply(self, reply: dict[str, Any], exchange: Exchange) -> Iterable[Found]:
        """A call without a name is no call, so it is not one that is missing on the list."""
        return [Found(label, IN_REPLY) for call in _called(reply) if _names(call) and (label := self._why_not(call))]

    def _why_not(self, tool: dict[str, Any]) -> str:
        """A finding's label; "" for a tool that is allowed. All of its names must be: it is not known by which of them
        a provider goes."""
        names = _names(tool)
        for name in names:
            if len(name) > MAX_NAME_CHARS:
                return "name too long"
            if entry := self._blocked.match(name):
                return entry
        if self._allowed and not (names and all(map(self._allowed.match, names))):
            return NOT_ALLOWED
        return ""

    def _strip(self, exchange: Exchange) -> None:
        body = exchange.body
        for field, choice in TOOLS.items():
            tools = body.get(field)
            kept = self._allowed_of(tools)
            if not isinstance(tools, list) or len(kept) == len(tools):
                continue
            if kept:
                body[field] = kept
                self._mend_choice(body, choice)
                continue
            for name in (field, choice, *(["parallel_tool_calls"] if field == "tools" else [])):
                body.pop(name, None)
        for field, name in IMPLIED.items():
            if field in body and self._why_not({"type": name}):
                del body[field]

    def _mend_choice(self, body: dict[str, Any], choice: str) -> None:
        """A choice must not name what is gone: without it, the model chooses among the tools that are left."""
        chosen = body.get(choice)
        if not isinstance(chosen, dict):
            return
        listed = chosen.get("allowed_tools")
        if isinstance(listed, dict):
            kept = self._allowed_of(listed.get("tools"))
            # The caller wanted none but these: when none of them is left, there is none to call.
            body[choice] = {**chosen, "allowed_tools": {**listed, "tools": kept}} if kept else "none"
        elif _names(chosen) and self._why_not(chosen):
            del body[choice]

    def _allowed_of(self, tools: Any) -> list[Any]:
        if not isinstance(tools, list):
            return []
        return [tool for tool in tools if not (isinstance(tool, dict) and self._why_not(tool))]


def _given(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tools of a request."""
    for field in TOOLS:
        tools = body.get(field)
        if isinstance(tools, list):
            yield from (tool for tool in tools if isinstance(tool, dict))
    for field, name in IMPLIED.items():
        if body.get(field) is not None:
            yield {"type": name}


def _called(reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The calls of tools in a reply."""
    choices = reply.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            calls = message.get("tool_calls")
            for call in (*(calls if isinstance(calls, list) else ()), message.get("function_call")):
                if isinstance(call, dict):
                    yield call


def _names(tool: dict[str, Any]) -> list[str]:
    """What a tool goes by: the name of a function or a custom tool, and the type of a provider's own."""
    names = []
    for holder in (tool, tool.get("function"), tool.get("custom")):
        if isinstance(holder, dict) and isinstance(name := holder.get("name"), str):
            names.append(name)
    kind = tool.get("type")
    if isinstance(kind, str) and kind not in KINDS:
        names.append(kind)
    return names
