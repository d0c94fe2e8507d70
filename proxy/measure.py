"""How large a call is before anybody has counted its tokens: about, for estimates, and at most, for what is held.

A token is a byte at least, in every vocabulary of bytes (BPE), so the bytes of the prompt are more than its tokens.
Pictures, sounds and files are not text; what they can cost at most is in the providers' guides (OpenAI, "Images and
vision", "Audio"; Anthropic, "Vision": 1,600 tokens a picture; Google, "Token counting").
"""

from __future__ import annotations

from typing import Any

import orjson

from policies.types import Exchange

ESTIMATED_BYTES_PER_TOKEN = 4
# Roles, separators and the like, around each message.
TOKENS_PER_MESSAGE = 16
TOKENS_PER_IMAGE = 2_000
# These count every tile 33 times.
TOKENS_PER_IMAGE_OF = {"gpt-4o-mini": 50_000}
BASE64_BYTES_PER_AUDIO_TOKEN = 400  # 10 tokens a second of at least 32 kbit/s
BASE64_BYTES_PER_FILE_TOKEN = 2
# What is sent beside the prompt, and read like it.
ATTACHED = ("tools", "functions", "response_format", "tool_choice", "prediction", "suffix")


def text_bytes(exchange: Exchange) -> int:
    """Bytes of the prompt's text, as UTF-8."""
    body = exchange.body
    return _text_bytes(body.get("messages", body.get("prompt", body.get("input"))))


def estimated_tokens(size: int) -> int:
    """About four bytes of text a token. Images, audio and files are not text and are not counted here."""
    return (size + 3) // ESTIMATED_BYTES_PER_TOKEN


def most_prompt_tokens(exchange: Exchange, size: int) -> int:
    """`size`: text_bytes of the exchange."""
    body = exchange.body
    most = size + TOKENS_PER_MESSAGE
    for name in ATTACHED:
        if body.get(name):
            most += len(_as_json(body[name]))
    messages = body.get("messages")
    if isinstance(messages, list):
        most += TOKENS_PER_MESSAGE * len(messages)
        for message in messages:
            if isinstance(message, dict):
                most += _beside_text(message, exchange.model)
    return most


def most_completion_tokens(exchange: Exchange, most_of_model: int | None, default: int) -> tuple[int, bool]:
    """The most of all answers together, and whether the caller named it. `default`: the longest answer where nobody
    names one."""
    if exchange.endpoint == "embeddings":
        return 0, True
    body = exchange.body
    named = max(_count(body.get("max_completion_tokens")), _count(body.get("max_tokens")))
    most = named or default
    if most_of_model is not None and most_of_model < most:
        most = most_of_model
    answers = max(1, _count(body.get("n")), _count(body.get("best_of")))
    prompts = body.get("prompt")
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        answers *= len(prompts)
    return most * answers, named > 0


def _beside_text(message: dict[str, Any], model: str) -> int:
    most = len(_as_json(message["tool_calls"])) if message.get("tool_calls") else 0
    content = message.get("content")
    if not isinstance(content, list):
        return most
    for part in content:
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind in ("image_url", "image", "input_image"):
            most += next((most for name, most in TOKENS_PER_IMAGE_OF.items() if name in model), TOKENS_PER_IMAGE)
        elif kind == "input_audio":
            most += len(_as_json(part)) // BASE64_BYTES_PER_AUDIO_TOKEN + 10
        elif kind in ("file", "document", "input_file"):
            most += len(_as_json(part)) // BASE64_BYTES_PER_FILE_TOKEN + TOKENS_PER_IMAGE
    return most


def _count(value: Any) -> int:
    """0: no number that limits anything."""
    return value if type(value) is int and value > 0 else 0


def _as_json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # numbers beyond 64 bits, lone surrogates
        return repr(value).encode("utf-8", "replace")


def _text_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, list):
        total = 0
        for item in value:
            if isinstance(item, int):
                total += ESTIMATED_BYTES_PER_TOKEN  # the prompt is given as tokens
            elif isinstance(item, dict):
                total += _text_bytes(item.get("content", item.get("text")))
            else:
                total += _text_bytes(item)
        return total
    return 0
