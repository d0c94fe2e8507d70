"""A provider inside the gateway that repeats the last message: for trying out, and for tests without a network.

Words, split at white space, count as tokens. Streams come word by word. Embeddings are made from a hash of the text:
the same text has the same vector everywhere, and that is all that they mean.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from policies.types import Exchange
from proxy.providers.base import Target, UnsupportedRequest, UpstreamRequest, encode, register
from proxy.providers.openai import OpenAIAdapter

DEFAULT_DIMENSIONS = 16
MAX_DIMENSIONS = 4096
MAX_INPUTS = 2048  # as OpenAI has it
MAX_NUMBERS = 262_144  # in all vectors of an answer together, so that nobody waits for it
MAX_CHARS = 4_000_000  # of an answer, all its choices together

_PIECE = re.compile(r"\s*\S+|\s+")
_PART_NAMES = {"image_url": "image", "input_audio": "audio"}


@register
class EchoAdapter(OpenAIAdapter):
    kind = "echo"
    label = "Echo"
    default_base_url = ""

    def request(self, exchange: Exchange, target: Target, credential: str) -> UpstreamRequest:
        _check(exchange)
        return UpstreamRequest(url="echo:", headers={}, body=b"")

    def probe(self, target: Target) -> UpstreamRequest:
        return UpstreamRequest(url="echo:", headers={}, body=b"", method="GET")

    def answer(self, exchange: Exchange) -> bytes | Iterable[bytes]:
        _check(exchange)
        if exchange.endpoint == "embeddings":
            return _embeddings(exchange)
        return _stream(exchange) if exchange.stream else _whole(exchange)


def _check(exchange: Exchange) -> None:
    """Raises UnsupportedRequest for what would take too much time or memory."""
    if exchange.endpoint == "embeddings":
        _check_embeddings(exchange.body)
    elif sum(map(len, _texts(exchange))) > MAX_CHARS:
        raise UnsupportedRequest(f"An echo is at most {MAX_CHARS} characters long, all choices together.")


# --- what is said ---------------------------------------------------------------------------------------------------


def _texts(exchange: Exchange) -> list[str]:
    """The text of each choice: the last message, or each prompt, `n` times."""
    body = exchange.body
    chat = exchange.endpoint == "chat/completions"
    texts = [_message_text(body["messages"][-1])] if chat else _inputs(body["prompt"])
    return [text for text in texts for _ in range(body.get("n") or 1)]


def _message_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(map(_part_text, content))
    return content if isinstance(content, str) else ""


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = str(part.get("type"))
    if kind in ("text", "refusal"):
        return str(part.get(kind, ""))
    return f"[{_PART_NAMES.get(kind, kind)}]"


def _inputs(value: Any) -> list[str]:
    """A prompt or an input as texts; tokens are named by their numbers."""
    if isinstance(value, str):
        return [value]
    if isinstance(value[0], int):
        return [" ".join(map(str, value))]
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in value]


def _words(text: str) -> int:
    return len(text.split())


def _limit(body: dict[str, Any]) -> int | None:
    """The most words of a choice, None for no limit."""
    longer = body.get("max_completion_tokens")
    return body.get("max_tokens") if longer is None else longer


def _pieces(text: str, limit: int | None) -> Iterator[str]:
    """`text` word by word, each with the white space before it. Joined they are the text, cut after `limit` words."""
    words = 0
    for found in _PIECE.finditer(text):
        piece = found.group()
        words += not piece.isspace()
        if limit is not None and words > limit:
            return
        yield piece


def _finish_reason(text: str, limit: int | None) -> str:
    return "stop" if limit is None or _words(text) <= limit else "length"


def _usage(exchange: Exchange, texts: list[str]) -> dict[str, int]:
    limit = _limit(exchange.body)
    if exchange.endpoint == "completions":
        prompt = sum(map(_words, _inputs(exchange.body["prompt"])))
    else:
        prompt = sum(_words(_message_text(message)) for message in exchange.body["messages"])
    completion = sum(_words(text) if limit is None else min(_words(text), limit) for text in texts)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


# --- how it is said -------------------------------------------------------------------------------------------------


def _head(exchange: Exchange, streamed: bool) -> dict[str, Any]:
    chat = exchange.endpoint == "chat/completions"
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": ("chat.completion.chunk" if streamed else "chat.completion") if chat else "text_completion",
        "created": int(time.time()),
        "model": exchange.model,
    }


def _whole(exchange: Exchange) -> bytes:
    texts, limit = _texts(exchange), _limit(exchange.body)
    chat = exchange.endpoint == "chat/completions"
    choices = []
    for index, text in enumerate(texts):
        said = "".join(_pieces(text, limit))
        content = {"message": {"role": "assistant", "content": said, "refusal": None}} if chat else {"text": said}
        choices.append(
            {"index": index, **content, "logprobs": None, "finish_reason": _finish_reason(text, limit)},
        )
    return encode({**_head(exchange, False), "choices": choices, "usage": _usage(exchange, texts)})


def _stream(exchange: Exchange) -> Iterator[bytes]:
    texts, limit = _texts(exchange), _limit(exchange.body)
    chat = exchange.endpoint == "chat/completions"
    head = _head(exchange, True)

    def event(index: int, text: str, finish_reason: str | None = None, **more: Any) -> bytes:
        if chat:
            content: dict[str, Any] = {"delta": {} if finish_reason else {**more, "content": text}}
        else:
            content = {"text": text}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}
        return b"data: " + encode({**head, "choices": [choice]}) + b"\n\n"

    for index, text in enumerate(texts):
        if chat:
            yield event(index, "", role="assistant")
        for piece in _pieces(text, limit):
            yield event(index, piece)
        yield event(index, "", _finish_reason(text, limit))
    yield b"data: " + encode({**head, "choices": [], "usage": _usage(exchange, texts)}) + b"\n\n"
    yield b"data: [DONE]\n\n"


# --- embeddings -----------------------------------------------------------------------------------------------------


def _check_embeddings(body: dict[str, Any]) -> None:
    """Raises UnsupportedRequest."""
    dimensions, inputs = _dimensions(body), len(_inputs(body["input"]))
    if dimensions > MAX_DIMENSIONS:
        raise UnsupportedRequest(f"An echo has at most {MAX_DIMENSIONS} dimensions.", "dimensions")
    if inputs > MAX_INPUTS or inputs * dimensions > MAX_NUMBERS:
        most = min(MAX_INPUTS, MAX_NUMBERS // dimensions)
        raise UnsupportedRequest(f"An echo of {dimensions} dimensions takes at most {most} inputs.", "input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise UnsupportedRequest("'encoding_format' is 'float' or 'base64'.", "encoding_format")


def _dimensions(body: dict[str, Any]) -> int:
    return body.get("dimensions") or DEFAULT_DIMENSIONS


def _embeddings(exchange: Exchange) -> bytes:
    body = exchange.body
    inputs, dimensions = _inputs(body["input"]), _dimensions(body)
    data = []
    for index, text in enumerate(inputs):
        vector: list[float] | str = _unit_vector(text, dimensions)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(map(_words, inputs))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode({"object": "list", "data": data, "model": exchange.model, "usage": usage})


def _unit_vector(text: str, dimensions: int) -> list[float]:
    """Of length 1, a function of the text alone."""
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    numbers = struct.unpack(f"<{dimensions}i", digest)
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]
