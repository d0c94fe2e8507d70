"""Replies of the gateway's own making, in OpenAI's shape: canned ones, and those that stand in for a blocked one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from policies.types import Exchange
from proxy.providers.base import encode
from proxy.streaming import DONE

NOTHING_USED = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def can_answer(exchange: Exchange) -> bool:
    """Whether the endpoint's reply is a text. There is no polite embedding."""
    return exchange.endpoint in ("chat/completions", "completions")


def whole(exchange: Exchange, text: str, finish_reason: str, reply_id: str, usage: Any = None) -> bytes:
    choice = {"index": 0, **_said(exchange, text), "logprobs": None, "finish_reason": finish_reason}
    return encode({**_head(exchange, reply_id), "choices": [choice], "usage": usage or NOTHING_USED})


def stream(exchange: Exchange, text: str, finish_reason: str, reply_id: str) -> bytes:
    """All events of a stream that says this and nothing else."""
    out = events(exchange, text, finish_reason, reply_id, [0])
    if exchange.wants_usage:
        out += _event({**_head(exchange, reply_id), "choices": [], "usage": NOTHING_USED})
    return out + DONE


def events(exchange: Exchange, text: str, finish_reason: str, reply_id: str, indexes: Iterable[int]) -> bytes:
    """The events that end these choices of a stream with a text."""
    head = _head(exchange, reply_id)
    out = b""
    for index in indexes:
        said = {"delta": {"role": "assistant", "content": text}} if _is_chat(exchange) else {"text": text}
        out += _event({**head, "choices": [{"index": index, **said, "logprobs": None, "finish_reason": None}]})
        ended: dict[str, Any] = {"delta": {}} if _is_chat(exchange) else {"text": ""}
        out += _event(
            {**head, "choices": [{"index": index, **ended, "logprobs": None, "finish_reason": finish_reason}]}
        )
    return out


def _head(exchange: Exchange, reply_id: str) -> dict[str, Any]:
    kind = ("chat.completion.chunk" if exchange.stream else "chat.completion") if _is_chat(exchange) else None
    return {
        "id": f"{'chatcmpl' if kind else 'cmpl'}-{reply_id}",
        "object": kind or "text_completion",
        "created": int(time.time()),
        "model": exchange.model,
    }


def _said(exchange: Exchange, text: str) -> dict[str, Any]:
    if _is_chat(exchange):
        return {"message": {"role": "assistant", "content": text, "refusal": None}}
    return {"text": text}


def _is_chat(exchange: Exchange) -> bool:
    return exchange.endpoint == "chat/completions"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + encode(value) + b"\n\n"
