"""Anthropic's Messages API, used as if it were OpenAI's chat/completions. The request is in anthropic_request.py.

Sources: https://platform.claude.com/docs/en/api/messages, .../build-with-claude/streaming, .../api/errors.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from policies.types import Exchange
from proxy.providers.anthropic_request import API_VERSION, messages_request
from proxy.providers.base import (
    Adapter,
    NonsenseReply,
    Reply,
    Target,
    UnsupportedRequest,
    UpstreamRequest,
    decode,
    encode,
    register,
)
from proxy.providers.openai import add_extra_headers, count_of, error_object, error_said, tools_used
from usage.pricing import BATCH, CACHE_WRITE_1H, NONE, TokenUsage

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

# Anthropic's error types -> OpenAI's (type, code). https://platform.claude.com/docs/en/api/errors
ERRORS: dict[str, tuple[str, str | None]] = {
    "invalid_request_error": ("invalid_request_error", None),
    "authentication_error": ("invalid_request_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("invalid_request_error", "permission_denied"),
    "not_found_error": ("invalid_request_error", "model_not_found"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("requests", "rate_limit_exceeded"),
    "timeout_error": ("server_error", "timeout"),
    "overloaded_error": ("server_error", "overloaded"),
    "api_error": ("server_error", None),
}
STREAM_ERROR_STATUS = {"rate_limit_error": 429, "invalid_request_error": 400, "overloaded_error": 529}


@register
class AnthropicAdapter(Adapter):
    kind = "anthropic"
    label = "Anthropic"
    endpoints = frozenset({"chat/completions"})
    default_base_url = "https://api.anthropic.com/v1"
    default_api_version = API_VERSION

    def request(self, exchange: Exchange, target: Target, credential: str) -> UpstreamRequest:
        body = messages_request(exchange, target.upstream_model, target.api_version or API_VERSION)
        return UpstreamRequest(_url(target, "messages"), _headers(target, credential), encode(body))

    def reply(self, exchange: Exchange, body: bytes) -> Reply:
        message = decode(body, exact=True)
        try:
            completion, usage = _completion(message)
            return Reply(encode(completion), usage)
        except (KeyError, TypeError, AttributeError, UnsupportedRequest) as error:
            raise NonsenseReply("not a message") from error

    def stream(self, exchange: Exchange) -> MessageStream:
        return MessageStream(exchange.wants_usage)

    def error(self, status: int, body: bytes) -> dict[str, Any]:
        return _error(status, error_said(body))

    def probe(self, target: Target) -> UpstreamRequest:
        return UpstreamRequest(_url(target, "models"), _headers(target, target.credential), b"", method="GET")


def _url(target: Target, path: str) -> str:
    """Anthropic's own clients are given a base URL without the version, ours mostly with it: both work."""
    base = target.base_url
    return f"{base}/{path}" if base.endswith("/v1") else f"{base}/v1/{path}"


def _headers(target: Target, credential: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "anthropic-version": target.api_version or API_VERSION}
    if credential:
        headers["x-api-key"] = credential
    return add_extra_headers(headers, target)


# --- the reply ------------------------------------------------------------------------------------------------------


def _completion(message: dict[str, Any]) -> tuple[dict[str, Any], TokenUsage | None]:
    """OpenAI's chat.completion. Raises KeyError, TypeError, AttributeError when it is not a message."""
    if message["type"] != "message":
        raise TypeError
    text, thoughts, calls = [], [], []
    for block in message["content"]:
        if block["type"] == "text":
            text.append(block["text"])
        elif block["type"] == "thinking":
            thoughts.append(block["thinking"])
        elif block["type"] == "tool_use":
            function = {"name": block["name"], "arguments": encode(block["input"]).decode()}
            calls.append({"id": block["id"], "type": "function", "function": function})
    said = "".join(text)
    answer: dict[str, Any] = {"role": "assistant", "content": said or (None if calls else ""), "refusal": None}
    if any(thoughts):
        answer["reasoning_content"] = "".join(thoughts)
    if calls:
        answer["tool_calls"] = calls
    usage = _usage(message.get("usage"))
    finish_reason = FINISH_REASONS.get(message.get("stop_reason") or "", "stop")
    completion = {
        "id": message["id"],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": message["model"],
        "choices": [{"index": 0, "message": answer, "logprobs": None, "finish_reason": finish_reason}],
    }
    if usage:
        completion["usage"] = _usage_object(usage)
    return completion, usage


def _usage(usage: Any) -> TokenUsage | None:
    """Anthropic counts what it read from its cache and wrote there apart from `input_tokens`; OpenAI counts it in."""
    if not isinstance(usage, dict):
        return None
    fresh, output = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    if fresh is None or output is None:
        return None
    read = count_of(usage.get("cache_read_input_tokens")) or 0
    written = count_of(usage.get("cache_creation_input_tokens")) or 0
    details = usage.get("output_tokens_details")
    thinking = count_of(details.get("thinking_tokens")) if isinstance(details, dict) else None
    return TokenUsage(
        prompt=fresh + read + written,
        completion=output,
        cached=read,
        cache_write=written,
        reasoning=min(thinking or 0, output),
        units=_units(usage, written),
    )


def _units(usage: dict[str, Any], written: int) -> Mapping[str, int]:
    units = tools_used(usage)
    kept = usage.get("cache_creation")
    if written and isinstance(kept, dict):
        units[CACHE_WRITE_1H] = min(count_of(kept.get("ephemeral_1h_input_tokens")) or 0, written)
    if usage.get("service_tier") == "batch":
        units[BATCH] = 1
    return {name: count for name, count in units.items() if count} or NONE


def _usage_object(usage: TokenUsage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


# --- the stream -----------------------------------------------------------------------------------------------------


class MessageStream:
    """Message events to chunks. https://platform.claude.com/docs/en/build-with-claude/streaming

    Text, thoughts and the arguments of tools pass as they come; signatures, citations, pings and what Anthropic's own
    tools do on the server have no place in OpenAI's chunks.
    """

    def __init__(self, wants_usage: bool) -> None:
        self.usage: TokenUsage | None = None
        self.finished = False
        self.error: dict[str, Any] | None = None
        self._wants_usage = wants_usage
        self._head: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        self._told_why = False
        self._tools: dict[int, int] = {}  # index of the block -> index of the call
        self._arguments: dict[int, str] = {}  # index of the block -> arguments to send if no delta does

    def feed(self, event: str, data: bytes) -> bytes:
        if not data or self.finished or self.error:
            return b""
        payload = decode(data)
        try:
            return self._translate(payload.get("type") or event, payload)
        except (KeyError, TypeError, AttributeError, UnsupportedRequest) as error:
            raise NonsenseReply("not an event of a message") from error

    def end(self) -> bytes:
        if not self.finished:
            return b""
        usage = b""
        if self._wants_usage and self.usage:
            usage = _event({**self._head, "choices": [], "usage": _usage_object(self.usage)})
        return usage + b"data: [DONE]\n\n"

    def _translate(self, kind: str, payload: dict[str, Any]) -> bytes:
        if kind == "message_start":
            return self._start(payload["message"])
        if kind == "error":
            said = payload["error"]
            self.error = _error(STREAM_ERROR_STATUS.get(said.get("type"), 500), said)
        if not self._head:
            return b""  # a ping
        if kind == "content_block_delta":
            return self._delta(payload["index"], payload["delta"])
        if kind == "content_block_start":
            return self._block_start(payload["index"], payload["content_block"])
        if kind == "content_block_stop":
            return self._block_stop(payload["index"])
        if kind == "message_delta":
            return self._message_delta(payload)
        if kind == "message_stop":
            self.finished = True
            return b"" if self._told_why else self._chunk({}, "stop")
        return b""

    def _start(self, message: dict[str, Any]) -> bytes:
        self._head = {
            "id": message["id"],
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": message["model"],
        }
        self._counts = {**(message.get("usage") or {})}
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _block_start(self, index: int, block: dict[str, Any]) -> bytes:
        if block["type"] == "tool_use":
            call = self._tools[index] = len(self._tools)
            self._arguments[index] = encode(block.get("input") or {}).decode()
            function = {"name": block["name"], "arguments": ""}
            started = {"index": call, "id": block["id"], "type": "function", "function": function}
            return self._chunk({"tool_calls": [started]})
        if block["type"] == "text" and block.get("text"):
            return self._chunk({"content": block["text"]})
        if block["type"] == "thinking" and block.get("thinking"):
            return self._chunk({"reasoning_content": block["thinking"]})
        return b""

    def _delta(self, index: int, delta: dict[str, Any]) -> bytes:
        kind = delta["type"]
        if kind == "text_delta":
            return self._chunk({"content": delta["text"]}) if delta["text"] else b""
        if kind == "thinking_delta":
            return self._chunk({"reasoning_content": delta["thinking"]}) if delta["thinking"] else b""
        if kind == "input_json_delta" and index in self._tools and delta["partial_json"]:
            self._arguments.pop(index, None)
            return self._arguments_chunk(index, delta["partial_json"])
        return b""

    def _block_stop(self, index: int) -> bytes:
        arguments = self._arguments.pop(index, None)
        return self._arguments_chunk(index, arguments) if arguments is not None else b""

    def _arguments_chunk(self, index: int, arguments: str) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._tools[index], "function": {"arguments": arguments}}]})

    def _message_delta(self, payload: dict[str, Any]) -> bytes:
        counts = payload.get("usage") or {}
        self._counts |= {name: value for name, value in counts.items() if value is not None}
        self.usage = _usage(self._counts)
        reason = payload["delta"].get("stop_reason")
        if not reason:
            return b""
        self._told_why = True
        return self._chunk({}, FINISH_REASONS.get(reason, "stop"))

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**self._head, "choices": [choice]})


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"


# --- errors ---------------------------------------------------------------------------------------------------------


def _error(status: int, said: dict[str, Any]) -> dict[str, Any]:
    """Anthropic's errors have no code; one that has is of somebody in between, or translated already."""
    error = error_object(status, said)
    if error["type"] in ERRORS and not error["code"]:
        error["type"], error["code"] = ERRORS[error["type"]]
    if error["message"].startswith("prompt is too long"):
        error["code"] = "context_length_exceeded"  # what OpenAI's clients look for
    return error
