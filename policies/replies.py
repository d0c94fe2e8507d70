"""The choices of a whole reply, as checks of replies read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Said(NamedTuple):
    """One choice. `text`: its content, or a completion's text; `calls`: it calls tools; `refusal`: the field of that
    name; `ending`: its finish reason."""

    text: str
    calls: bool
    refusal: str
    ending: str


def choices_of(reply: dict[str, Any]) -> Iterator[Said]:
    choices = reply.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield _said(choice)


def _said(choice: dict[str, Any]) -> Said:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    refusal, ending = message.get("refusal"), choice.get("finish_reason")
    return Said(
        text=_text_of(choice.get("text", message.get("content"))),
        calls=bool(message.get("tool_calls") or message.get("function_call") or message.get("audio")),
        refusal=refusal if isinstance(refusal, str) else "",
        ending=ending if isinstance(ending, str) else "",
    )


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
