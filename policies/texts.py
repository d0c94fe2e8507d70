"""Where the texts of a request and of a reply are: one table for all endpoints.

Whatever is a string may carry text, so everything is a text but what is named here: a field that nobody has thought of
is scanned too. Keys are never texts, but for the names in a tool's schema, which models read. A text is given with the
place where it stands, so that it can be changed there.

    requests   message contents and parts of every role, `name`, tool definitions and schemas, arguments and results of
               tool calls, legacy prompts, `input`, `suffix`, `metadata`, `prediction`, response formats
    replies    content, reasoning, refusal, transcripts, arguments of tool calls, `text` of completions
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from policies.errors import Unreadable

# Strings under these names say what something is, not what somebody says.
NO_TEXT = frozenset(
    {
        "role", "type", "id", "object", "tool_call_id", "call_id", "file_id", "detail", "status", "finish_reason",
        "mime_type", "media_type", "format",
    }
)  # fmt: skip
LABEL_CHARS = 64  # and no blank: what is longer is no such label, whatever its name
# Base64 of images, sounds and files, where it stands under these.
BINARY = frozenset({"data", "file_data", "b64_json"})
BINARY_HOLDERS = frozenset({"input_audio", "audio", "file", "source", "inline_data", "image", "input_image"})
# Of the body of a request: settings, and who asks.
REQUEST_SETTINGS = frozenset(
    {
        "model", "user", "safety_identifier", "prompt_cache_key", "service_tier", "reasoning_effort", "verbosity",
        "encoding_format", "modalities", "tool_choice", "function_call", "stream_options", "logit_bias", "truncation",
    }
)  # fmt: skip
REPLY_FACTS = frozenset(
    {
        "id", "object", "model", "created", "system_fingerprint", "service_tier", "provider", "usage", "x_groq", "data",
        "prompt_filter_results", "prompt_annotations",
    }
)  # fmt: skip
CHOICE_FACTS = frozenset(
    {
        "index", "finish_reason", "logprobs", "stop_reason", "native_finish_reason", "content_filter_results",
        "content_filter_result", "content_filter_offsets",
    }
)  # fmt: skip
# Sealed by a provider, who wants it back as it was; no text as long as it looks like nothing.
SEALED = frozenset({"signature", "thought_signature", "encrypted_content"})
SEAL = re.compile(r"[\w+/=:.-]*", re.ASCII)
# Models read the names of a tool's parameters, so a rule may block them; changing them would break the tool.
SCHEMAS = frozenset({"tools", "functions", "response_format"})
# Their own words; what a caller does not choose says nothing.
SCHEMA_WORDS = frozenset(
    {
        "type", "function", "custom", "name", "description", "parameters", "strict", "properties", "required", "items",
        "enum", "const", "default", "examples", "additionalProperties", "anyOf", "oneOf", "allOf", "not", "format",
        "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "pattern", "title",
        "json_schema", "schema", "$schema", "$ref", "$defs", "definitions", "input_schema", "cache_control", "nullable",
    }
)  # fmt: skip
PLAIN_MESSAGE = frozenset({"role", "content"})
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_DEPTH = 64
# The name of a function comes whole, and a call without its name is no call: it is never held back.
WHOLE = frozenset({"name"})

Path = tuple[str | int, ...]


class Text(NamedTuple):
    """`holder[key]` is the text. `arguments`: JSON of a tool call, see policies.arguments. `path`: from where the walk
    began; in lists the element's own `index` counts, as in a stream's deltas. `fixed`: a name, which cannot be changed.
    """

    value: str
    holder: Any
    key: str | int
    path: Path
    arguments: bool
    fixed: bool = False


def request_texts(body: dict[str, Any]) -> Iterator[Text]:
    """Raises Unreadable."""
    for name, value in body.items():
        if name not in REQUEST_SETTINGS:
            if value.__class__ is str:
                yield Text(value, body, name, (name,), False)
            elif name == "messages" and value.__class__ is list and (plain := _plain_messages(value)) is not None:
                yield from plain
            elif value.__class__ is list or value.__class__ is dict:
                yield from walk(value, (name,), names=name in SCHEMAS)


def _plain_messages(messages: list[Any]) -> list[Text] | None:
    """What `walk` finds in messages that are a role and a text each, as most are; None: in others."""
    texts = []
    for index, message in enumerate(messages):
        if message.__class__ is not dict or message.keys() != PLAIN_MESSAGE:
            return None
        text = message["content"]
        if text.__class__ is not str or message["role"] not in ROLES:
            return None
        texts.append(Text(text, message, "content", ("messages", index, "content"), False))
    return texts


def has_tokens(body: dict[str, Any]) -> bool:
    """Whether a prompt or an input comes as numbers, which no rule can read."""
    for name in ("prompt", "input"):
        value = body.get(name)
        if isinstance(value, list) and any(not isinstance(item, str | dict) for item in value):
            return True
    return False


def reply_texts(reply: dict[str, Any]) -> Iterator[tuple[dict[str, Any] | None, Text]]:
    """(the choice it belongs to, the text) for all texts of a whole reply or of one event of a stream."""
    for name, value in reply.items():
        if name == "choices" and isinstance(value, list):
            for choice in value:
                if isinstance(choice, dict):
                    for text in choice_texts(choice):
                        yield choice, text
        elif name not in REPLY_FACTS and isinstance(value, str | list | dict):
            for text in _under(value, reply, name, ()):
                yield None, text


def choice_texts(choice: dict[str, Any]) -> Iterator[Text]:
    """The paths of `message` and `delta` begin below them, so that both name a text the same."""
    for name, value in choice.items():
        if name in ("message", "delta") and isinstance(value, dict):
            yield from walk(value, ())
        elif name not in CHOICE_FACTS and isinstance(value, str | list | dict):
            yield from _under(value, choice, name, ())


def walk(value: Any, path: Path, *, names: bool = False) -> Iterator[Text]:
    """All texts inside a list or an object; with `names` those of its fields too. Of each object first its own texts,
    then those of what is in it, in order. Raises Unreadable."""
    waiting: list[tuple[Any, Path]] = [(value, path)]
    while waiting:
        holder, inside = waiting.pop()
        is_list = holder.__class__ is list
        inner: list[tuple[Any, Path]] = []
        for key, item in enumerate(holder) if is_list else holder.items():
            if names and not is_list and key not in SCHEMA_WORDS:
                yield Text(str(key), holder, key, (*inside, key), False, fixed=True)
            if item.__class__ is str:
                if is_list or key not in _NOT_READ or not _is_no_text(key, item, inside):
                    yield Text(item, holder, key, (*inside, key), key == "arguments" and _is_arguments(inside))
            elif item.__class__ is dict or item.__class__ is list:
                index = item.get("index") if is_list and item.__class__ is dict else None
                inner.append((item, (*inside, index if type(index) is int else key)))
        if inner:
            if len(inner[0][1]) > MAX_DEPTH:
                raise Unreadable("The JSON is nested more deeply than policies can read. Nest it less.")
            inner.reverse()
            waiting += inner


def _under(value: Any, holder: Any, name: str, path: Path) -> Iterator[Text]:
    if isinstance(value, str):
        yield Text(value, holder, name, (*path, name), False)
    else:
        yield from walk(value, (*path, name))


_NOT_READ = NO_TEXT | BINARY | SEALED | {"url"}


def _is_no_text(name: str, value: str, path: Path) -> bool:
    if path and path[0] == "metadata":
        return False
    if name in NO_TEXT:
        return len(value) <= LABEL_CHARS and " " not in value
    if name in SEALED:
        return SEAL.fullmatch(value) is not None
    if name in BINARY:
        return bool(path) and path[-1] in BINARY_HOLDERS
    return value.startswith("data:")


def _is_arguments(path: Path) -> bool:
    return bool(path) and path[-1] in ("function", "function_call")


def build(path: Path, text: str) -> dict[str, Any]:
    """A delta with nothing but this text at this path."""
    value: Any = text
    for step in reversed(path):
        if isinstance(step, int):
            value = [{"index": step, **value}] if isinstance(value, dict) else [value]
        else:
            value = {step: value}
    return value  # type: ignore[no-any-return]
