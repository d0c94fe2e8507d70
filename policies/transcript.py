"""A logged request or reply as people read it: who said what, and the rest as JSON.

Whatever the JSON holds: what is not known here is shown as it is. Nothing is escaped and nothing is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TEXT_TYPES = ("text", "input_text", "output_text")
# Fields that are told as turns; everything else is shown as JSON.
REQUEST_TURNS = ("system", "instructions", "messages", "prompt", "input", "suffix")
REPLY_TURNS = ("choices", "text", "output_text")
BINARY_CHARS = 200  # what is longer, in a place for bytes, is only named by its size


@dataclass(frozen=True, slots=True)
class Part:
    """`kind`: "text", or "code" for JSON and the like. `title`: what it is, when it is no plain text."""

    text: str
    kind: str = "text"
    title: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """`note`: what else is known of it, such as why it ended."""

    role: str
    parts: tuple[Part, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Transcript:
    """`rest`: what is no turn, as JSON; "" for none. `whole`: all of it, as JSON or as it was kept."""

    turns: tuple[Turn, ...]
    rest: str = ""
    whole: str = field(default="", repr=False)


def of_request(kept: str) -> Transcript:
    return _transcript(kept, _request_turns, REQUEST_TURNS)


def of_reply(kept: str) -> Transcript:
    return _transcript(kept, _reply_turns, REPLY_TURNS)


def _transcript(kept: str, turns: Callable[[dict[str, Any]], Iterator[Turn]], told: tuple[str, ...]) -> Transcript:
    try:
        body = json.loads(kept)
        if not isinstance(body, dict):
            return Transcript((), whole=pretty(body))
        rest = {name: value for name, value in body.items() if name not in told}
        return Transcript(tuple(turns(body)), pretty(rest) if rest else "", pretty(body))
    except (ValueError, RecursionError):
        # Cut off, or nested deeper than anybody reads.
        return Transcript((), whole=kept)


# --- turns ----------------------------------------------------------------------------------------------------------
def _request_turns(body: dict[str, Any]) -> Iterator[Turn]:
    for name in ("system", "instructions"):
        if body.get(name):
            yield Turn("system", _parts(body[name]))
    for message in _list(body.get("messages")):
        yield _message(message)
    for name in ("prompt", "input"):
        yield from _inputs(body.get(name))
    if body.get("suffix"):
        yield Turn("suffix", _parts(body["suffix"]))


def _inputs(value: Any) -> Iterator[Turn]:
    """A prompt is a text, several, numbers of tokens, or messages."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield from map(_message, value)
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield from (Turn("prompt", (Part(text),), f"{number} of {len(value)}") for number, text in enumerate(value, 1))
    elif value:
        yield Turn("prompt", _parts(value))


def _reply_turns(body: dict[str, Any]) -> Iterator[Turn]:
    choices = _list(body.get("choices"))
    for number, choice in enumerate(choices, 1):
        if not isinstance(choice, dict):
            yield Turn("assistant", _parts(choice))
            continue
        notes = [f"choice {number} of {len(choices)}"] if len(choices) > 1 else []
        notes += [f"ended by {choice['finish_reason']}"] if choice.get("finish_reason") else []
        said = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
        yield _message(said, ", ".join(notes), "assistant")
    for name in ("text", "output_text"):
        if body.get(name):
            yield Turn("assistant", _parts(body[name]))


def _message(message: Any, note: str = "", role: str = "unknown") -> Turn:
    if not isinstance(message, dict):
        return Turn(role, _parts(message), note)
    parts = [*_thoughts(message), *_parts(message.get("content")), *_calls(message)]
    parts += [Part(str(message["refusal"]), title="Refusal")] if message.get("refusal") else []
    if not parts:
        known = {"role", "content", "name", "tool_calls", "refusal"}
        rest = {name: value for name, value in message.items() if name not in known}
        parts = [Part(pretty(rest), "code", str(rest.get("type", "")))] if any(rest.values()) else []
    about = [str(message[name]) for name in ("name", "tool_call_id") if message.get(name)]
    return Turn(str(message.get("role") or role), tuple(parts), ", ".join([*about, *([note] if note else [])]))


def _thoughts(message: dict[str, Any]) -> Iterator[Part]:
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            yield Part(_text(message[name]), title="Reasoning")


def _calls(message: dict[str, Any]) -> Iterator[Part]:
    calls = [call.get("function") or call for call in _list(message.get("tool_calls")) if isinstance(call, dict)]
    calls += [message["function_call"]] if isinstance(message.get("function_call"), dict) else []
    for call in calls:
        yield Part(_arguments(call.get("arguments", call)), "code", f"Calls {call.get('name') or 'a tool'}")


def _parts(content: Any) -> tuple[Part, ...]:
    if content is None or content == "":
        return ()
    if isinstance(content, str):
        return (Part(content),)
    if isinstance(content, list) and all(isinstance(item, dict | str) for item in content):
        return tuple(_part(item) for item in content)
    return (Part(pretty(content), "code"),)


def _part(item: Any) -> Part:
    if isinstance(item, str):
        return Part(item)
    kind = str(item.get("type", ""))
    if kind in TEXT_TYPES and isinstance(item.get("text"), str):
        return Part(item["text"])
    if kind == "refusal":
        return Part(_text(item.get("refusal")), title="Refusal")
    if kind == "image_url" and isinstance(item.get("image_url"), dict):
        return Part(_text(_named_bytes(item["image_url"].get("url"))), title="Image")
    return Part(pretty(item), "code", kind)


def _arguments(arguments: Any) -> str:
    """Those of a tool are JSON in a text."""
    try:
        return pretty(json.loads(arguments)) if isinstance(arguments, str) else pretty(arguments)
    except (ValueError, RecursionError):
        return str(arguments)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else pretty(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# --- JSON -----------------------------------------------------------------------------------------------------------
def pretty(value: Any) -> str:
    """Raises RecursionError."""
    return json.dumps(_without_bytes(value), indent=2, ensure_ascii=False)


def _without_bytes(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _without_bytes(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_bytes(item) for item in value]
    if name in ("data", "file_data", "b64_json") and isinstance(value, str) and len(value) > BINARY_CHARS:
        return f"({_size(value)} in base64, not shown)"
    return _named_bytes(value)


def _named_bytes(value: Any) -> Any:
    """An image in a `data:` URL is named by its kind and size."""
    if isinstance(value, str) and value.startswith("data:") and len(value) > BINARY_CHARS:
        kind, _, content = value[5:].partition(",")
        return f"({kind.partition(';')[0] or 'file'}, {_size(content)}, not shown)"
    return value


def _size(base64: str) -> str:
    return f"{max(1, len(base64) * 3 // 4 // 1000):,} kB"
