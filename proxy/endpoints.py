"""The endpoints of /v1: where each is, what its body must hold. Field types as in OpenAI's API reference (2026-10).

A field that is not listed passes through untouched; `null` counts as absent, as OpenAI has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxy.errors import InvalidRequest

Claim = tuple[str, Callable[[Any], bool]]  # what the value must be, and whether it is


def _is_int(value: Any) -> bool:
    return type(value) is int


STRING: Claim = ("a string", lambda v: isinstance(v, str))
NAME: Claim = ("a non-empty string of at most 200 characters", lambda v: isinstance(v, str) and 0 < len(v) <= 200)
BOOLEAN: Claim = ("true or false", lambda v: isinstance(v, bool))
OBJECT: Claim = ("an object", lambda v: isinstance(v, dict))
LIST: Claim = ("a list", lambda v: isinstance(v, list))
NUMBER: Claim = ("a number", lambda v: type(v) in (int, float))
INTEGER: Claim = ("a 64-bit integer", lambda v: _is_int(v) and -(2**63) <= v < 2**63)
COUNT: Claim = ("an integer between 1 and 2147483647", lambda v: _is_int(v) and 0 < v < 2**31)
# Completions take 0: with `echo` and `logprobs` it scores a prompt without going on.
COUNT_OR_ZERO: Claim = ("an integer between 0 and 2147483647", lambda v: _is_int(v) and 0 <= v < 2**31)
CHOICES: Claim = ("an integer between 1 and 128", lambda v: _is_int(v) and 0 < v <= 128)
STOP: Claim = ("a string or a list of strings", lambda v: isinstance(v, str) or _all(v, str))
MESSAGES: Claim = ("a non-empty list of messages, each an object with a role", lambda v: _are_messages(v))
PROMPT: Claim = ("a string, a list of strings or a list of tokens", lambda v: _is_prompt(v))
OBJECTS: Claim = ("a list of objects", lambda v: _all(v, dict))


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _are_messages(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return False
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list) or not all(isinstance(part, dict | str) for part in content):
            return False
    return True


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if not isinstance(value, list) or not value:
        return False
    first = type(value[0])
    if first is list:
        return all(isinstance(item, list) and item and all(_is_int(token) for token in item) for item in value)
    return first in (str, int) and all(type(item) is first for item in value)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`name` is the path under /v1 and what keys are allowed by; `required` fields must be there."""

    name: str
    required: tuple[str, ...]
    fields: dict[str, Claim]
    streams: bool = False

    def check(self, body: dict[str, Any]) -> None:
        """Raises InvalidRequest that names the first wrong field."""
        for name in self.required:
            if body.get(name) is None:
                raise InvalidRequest(f"Missing required parameter: '{name}'.", param=name)
        fields = self.fields
        for name, value in body.items():
            if value is None:
                continue
            claim = fields.get(name)
            if claim is not None and not claim[1](value):
                raise InvalidRequest(f"Invalid value for '{name}': it must be {claim[0]}.", param=name)
        options = body.get("stream_options") if self.streams else None
        if options is not None and not isinstance(options.get("include_usage"), bool | None):
            raise InvalidRequest(
                "Invalid value for 'stream_options.include_usage': it must be true or false.",
                param="stream_options.include_usage",
            )


_SAMPLING: dict[str, Claim] = {
    "model": NAME,
    "stream": BOOLEAN,
    "stream_options": OBJECT,
    "max_tokens": COUNT,
    "n": CHOICES,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "seed": INTEGER,
    "stop": STOP,
    "logit_bias": OBJECT,
    "user": STRING,
}

CHAT = Endpoint(
    "chat/completions",
    required=("model", "messages"),
    fields={
        **_SAMPLING,
        "messages": MESSAGES,
        "max_completion_tokens": COUNT,
        "logprobs": BOOLEAN,
        "top_logprobs": INTEGER,
        "tools": OBJECTS,
        "functions": OBJECTS,
        "parallel_tool_calls": BOOLEAN,
        "response_format": OBJECT,
        "modalities": LIST,
        "audio": OBJECT,
        "metadata": OBJECT,
        "store": BOOLEAN,
        "reasoning_effort": STRING,
        "service_tier": STRING,
    },
    streams=True,
)
COMPLETIONS = Endpoint(
    "completions",
    required=("model", "prompt"),
    fields={
        **_SAMPLING,
        "max_tokens": COUNT_OR_ZERO,
        "prompt": PROMPT,
        "logprobs": INTEGER,
        "best_of": CHOICES,
        "echo": BOOLEAN,
        "suffix": STRING,
    },
    streams=True,
)
EMBEDDINGS = Endpoint(
    "embeddings",
    required=("model", "input"),
    fields={"model": NAME, "input": PROMPT, "encoding_format": STRING, "dimensions": COUNT, "user": STRING},
)
MODELS = Endpoint("models", required=(), fields={})

ENDPOINTS: dict[str, Endpoint] = {endpoint.name: endpoint for endpoint in (CHAT, COMPLETIONS, EMBEDDINGS, MODELS)}
