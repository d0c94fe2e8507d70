"""How long the prompt of a request is, as limits count it.

The prompt is what all messages say (texts, and the texts of their parts), `prompt` and `input`. Images, sound and files
have no length here. Any JSON is taken: what is no text counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

CHAT = "chat/completions"
COMPLETIONS = "completions"
EMBEDDINGS = "embeddings"

# A prompt may come as numbers of tokens, each of which stands for about so much text. Nobody is to get around a limit
# on text by sending numbers.
CHARS_PER_TOKEN = 4


def messages_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def texts_in(content: Any) -> Iterator[str]:
    """The texts of a content of any shape, in order: of the string that it is, or of its parts, however deep."""
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting.extend(reversed(item))
        elif isinstance(item, dict):
            waiting.extend((item.get("content"), item.get("refusal"), item.get("text")))


def tokens_in(value: Any) -> int:
    """How many numbers of tokens there are in a prompt or an input."""
    if not isinstance(value, list):
        return 0
    return sum(len(item) if isinstance(item, list) else type(item) is int for item in value)


def chars_in(content: Any) -> int:
    """Characters (code points) of a content."""
    return len(content) if isinstance(content, str) else sum(map(len, texts_in(content)))


def prompt_chars(body: dict[str, Any]) -> int:
    chars = sum(chars_in(message.get("content")) for message in messages_of(body))
    for name in ("prompt", "input"):
        if name in body:
            chars += chars_in(body[name]) + CHARS_PER_TOKEN * tokens_in(body[name])
    return chars


def written(value: Any) -> bytes:
    """The value as JSON; nothing for one that is nested too deeply to be written."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits, halves of surrogate pairs, deep nesting: more than orjson writes.
        try:
            return json.dumps(value).encode()
        except (ValueError, RecursionError):
            return b""
