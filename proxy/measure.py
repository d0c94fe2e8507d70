"""How large a call is before anybody has counted its tokens: about, for estimates, and at most, for what is held.

A token is a byte at least, in every vocabulary of bytes (BPE), so a request has no more tokens than its texts have
bytes, wherever they stand: of what is not known to be no prompt, all of its JSON counts. Pictures, sounds and files are
not text; what they can cost at most is in the providers' guides (OpenAI, "Images and vision", "Audio"; Anthropic,
"Vision": 1,600 tokens a picture, "Tool use": up to 700 tokens for having tools at all; Google, "Token counting").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from policies.types import Exchange

ESTIMATED_BYTES_PER_TOKEN = 4
# Roles, separators and the like, around each message; and what providers say to a model that has tools.
TOKENS_PER_MESSAGE = 16
TOKENS_FOR_TOOLS = 700
TOKENS_PER_IMAGE = 2_000
# These count every tile 33 times.
TOKENS_PER_IMAGE_OF = {"gpt-4o-mini": 50_000}
BASE64_BYTES_PER_AUDIO_TOKEN = 400  # 10 tokens a second of at least 32 kbit/s
BASE64_BYTES_PER_FILE_TOKEN = 2
PROMPTS = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}
# Settings of a call, and who asks: no model reads them.
NO_PROMPT = frozenset(
    {
        "model", "user", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p",
        "top_k", "n", "best_of", "stop", "seed", "logprobs", "top_logprobs", "logit_bias", "presence_penalty",
        "frequency_penalty", "service_tier", "store", "metadata", "safety_identifier", "prompt_cache_key",
        "parallel_tool_calls", "modalities", "reasoning_effort", "verbosity", "encoding_format", "dimensions", "echo",
    }
)  # fmt: skip
TEXT_PART = frozenset({"type", "text"})
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
# Of a part by its type: where it has what is no text, and how that begins.
BINARY = {
    "image_url": ("url", "data:image/"),
    "input_audio": ("data", ""),
    "file": ("file_data", "data:application/pdf"),
}
# A request with so much beside the text that we know is estimated by all of it.
UNKNOWN_BYTES = 4_000


def text_bytes(exchange: Exchange) -> int:
    """Bytes of the prompt's text, as UTF-8."""
    return _text_bytes(exchange.body.get(PROMPTS[exchange.endpoint]))


def most_bytes(exchange: Exchange) -> int:
    """Bytes of all that a model may be given to read, but for pictures, sounds and files."""
    body, prompt = exchange.body, PROMPTS[exchange.endpoint]
    most = sum(len(_as_json(value)) for name, value in body.items() if name != prompt and name not in NO_PROMPT)
    if prompt != "messages":
        return most + _text_bytes(body.get(prompt))
    messages = body.get("messages")
    return most + (sum(map(_message_bytes, messages)) if isinstance(messages, list) else len(_as_json(messages)))


def estimated_tokens(size: int) -> int:
    """About four bytes of text a token. Images, audio and files are not text and are not counted here."""
    return (size + 3) // ESTIMATED_BYTES_PER_TOKEN


def asked_tokens(exchange: Exchange) -> int:
    """About how many tokens of a rate limit the call will take: its prompt, and the answer if its length is named. What
    it really took is put right at its end."""
    size = text_bytes(exchange)
    if exchange.body_bytes > 2 * size + UNKNOWN_BYTES:  # pictures, tools, or text where nobody looks for it
        size = max(size, most_bytes(exchange))
    most, is_named = most_completion_tokens(exchange, None, 0)
    return estimated_tokens(size) + (most if is_named else 0)


def most_prompt_tokens(exchange: Exchange, most: int) -> int:
    """`most`: most_bytes of the exchange."""
    messages = exchange.body.get("messages")
    most += TOKENS_PER_MESSAGE * (1 + (len(messages) if isinstance(messages, list) else 0))
    if exchange.body.get("tools") or exchange.body.get("functions"):
        most += TOKENS_FOR_TOOLS
    for part in _parts(exchange):
        kind = part.get("type")
        if kind in ("image_url", "image", "input_image"):
            of_model = (tokens for name, tokens in TOKENS_PER_IMAGE_OF.items() if name in exchange.model)
            most += next(of_model, TOKENS_PER_IMAGE)
        elif kind == "input_audio":
            most += len(_binary(part)) // BASE64_BYTES_PER_AUDIO_TOKEN + 10
        elif kind in ("file", "document", "input_file"):
            most += len(_binary(part)) // BASE64_BYTES_PER_FILE_TOKEN + TOKENS_PER_IMAGE
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


def _parts(exchange: Exchange) -> Iterator[dict[str, Any]]:
    """The parts of messages that are not plain texts."""
    messages = exchange.body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and part.get("type") != "text":
                    yield part


def _message_bytes(message: Any) -> int:
    if not isinstance(message, dict):
        return len(_as_json(message))
    total = 0
    for name, value in message.items():
        if name == "content" and isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
        elif name == "content" and isinstance(value, list):
            total += sum(map(_part_bytes, value))
        elif value is not None and not (name == "role" and isinstance(value, str) and value in ROLES):
            total += len(_as_json(value))
    return total


def _part_bytes(part: Any) -> int:
    if isinstance(part, dict) and part.keys() == TEXT_PART and isinstance(part["text"], str):
        return len(part["text"].encode("utf-8", "replace"))
    return len(_as_json(part)) - (len(_binary(part)) if isinstance(part, dict) else 0)


def _binary(part: dict[str, Any]) -> str:
    """What is no text of a part, because the provider reads it as a picture, a sound or a PDF: its base64; else ""."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in BINARY:
        return ""
    name, beginning = BINARY[kind]
    holder = part.get(kind)
    found = holder.get(name) if isinstance(holder, dict) else None
    return found if isinstance(found, str) and found.startswith(beginning) else ""


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
