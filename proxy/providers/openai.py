"""OpenAI's own API, and everybody who speaks its dialect (presets.py): almost nothing to translate.

Requests are the exchange's body with the upstream's model name, and for streams with `stream_options.include_usage`,
because the tokens of a stream are known no other way. Replies and streams go on byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from policies.types import Exchange
from proxy.providers.base import (
    Adapter,
    ErrorInReply,
    NonsenseReply,
    Reply,
    Target,
    UpstreamRequest,
    decode,
    encode,
    register,
)
from proxy.providers.presets import REFUSE_STREAM_OPTIONS
from usage.pricing import (
    AUDIO_COMPLETION,
    AUDIO_PROMPT,
    BATCH,
    CACHE_WRITE_1H,
    IMAGE_COMPLETION,
    IMAGE_PROMPT,
    IMAGES,
    NONE,
    UNITS,
    TokenUsage,
)

MAX_COUNT = 2**31 - 1  # tokens; more than that is not a count but a mistake
MAX_TEXT_CHARS = 2000  # of any string in an error
MAX_WORDS = 10  # items of a list of mistakes that are told
MAX_TOOLS = 20  # names of tools in one usage
CHEAPER_TIERS = (
    "flex",
    "batch",
)  # "Flex" costs what a batch costs: https://platform.openai.com/docs/guides/flex-processing

# What looks like a credential: by its prefix (OpenAI, Anthropic, Groq, xAI, Google and so on), or after "Bearer".
_SECRET = re.compile(
    r"\b((?:sk|rk|gsk|csk|fw|xai|nvapi|pplx|hf|tgp)[-_]|AIza)[\w*.\-]{4,}|\b([Bb]earer )[\w*.\-~+/]{8,}=*"
)


@register
class OpenAIAdapter(Adapter):
    kind = "openai"
    label = "OpenAI"
    endpoints = frozenset({"chat/completions", "completions", "embeddings"})
    default_base_url = "https://api.openai.com/v1"

    def request(self, exchange: Exchange, target: Target, credential: str) -> UpstreamRequest:
        body = {**exchange.body, "model": target.upstream_model}
        if exchange.stream:
            if target.kind in REFUSE_STREAM_OPTIONS:
                body.pop("stream_options", None)
            else:
                body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return UpstreamRequest(self.url(exchange.endpoint, target), self.headers(target, credential), encode(body))

    def reply(self, exchange: Exchange, body: bytes) -> Reply:
        answer = decode(body)
        field = "data" if exchange.endpoint == "embeddings" else "choices"
        if not isinstance(answer.get(field), list):
            raise ErrorInReply(answer) if answer.get("error") else NonsenseReply(f"no {field}")
        return Reply(body, usage_of(answer))

    def error(self, status: int, body: bytes) -> dict[str, Any]:
        return error_object(status, error_said(body))

    def probe(self, target: Target) -> UpstreamRequest:
        return UpstreamRequest(self.url("models", target), self.headers(target, target.credential), b"", method="GET")

    def url(self, endpoint: str, target: Target) -> str:
        return f"{target.base_url}/{endpoint}"

    def headers(self, target: Target, credential: str) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if credential:
            headers["authorization"] = f"Bearer {credential}"
        return add_extra_headers(headers, target)


def add_extra_headers(headers: dict[str, str], target: Target) -> dict[str, str]:
    """`headers` (lower case) with the provider's own set over them, whatever case an admin wrote those in."""
    if target.extra_headers:
        headers.update({name.lower(): value for name, value in target.extra_headers.items()})
    return headers


# --- tokens ---------------------------------------------------------------------------------------------------------


def usage_of(reply: dict[str, Any]) -> TokenUsage | None:
    """What a reply or an event of a stream reports as used; None when it reports nothing that makes sense.

    Beside OpenAI's own fields, in the words of chat completions and in those of responses and images: Groq's
    `x_groq.usage`, DeepSeek's `prompt_cache_hit_tokens`, Moonshot's `cached_tokens`, Anthropic's `cache_creation` as
    Alibaba and other gateways have it, and the searches of OpenRouter, Perplexity and xAI.
    """
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        groq = reply.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, dict) else None
        if not isinstance(usage, dict):
            images = _images(reply)
            return TokenUsage(units={IMAGES: images}) if images else None
    prompt, completion = _prompt_and_completion(usage, answers="choices" in reply)
    if prompt is None or completion is None or prompt < 0 or completion < 0:
        return None
    asked = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    made = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    cached = (
        _part(prompt, asked, "cached_tokens")
        or _part(prompt, usage, "prompt_cache_hit_tokens")
        or _part(prompt, usage, "cached_tokens")
    )
    fresh = prompt - cached
    written = (
        _part(fresh, asked, "cache_write_tokens")
        or _part(fresh, usage, "cache_creation_input_tokens")
        or _part(fresh, asked, "cache_creation_input_tokens")
    )
    unnamed = (count_of(usage.get("total_tokens")) or 0) - prompt - completion
    if unnamed <= 0:
        # Perplexity counts the tokens of its research apart from all others, and in no total.
        unnamed = count_of(usage.get("reasoning_tokens")) or 0 if "num_search_queries" in usage else 0
    # Gemini and xAI count the tokens of thinking, and bill them as output, but name them in the total only.
    completion += unnamed
    return TokenUsage(
        prompt=prompt,
        completion=completion,
        cached=cached,
        cache_write=written,
        reasoning=max(_part(completion, made, "reasoning_tokens"), unnamed),
        units=_units(reply, usage, TokenUsage(prompt, completion, cache_write=written), asked, made),
    )


def _units(
    reply: dict[str, Any], usage: dict[str, Any], tokens: TokenUsage, asked: Any, made: Any
) -> Mapping[str, int]:
    units = tools_used(usage)
    if isinstance(asked, dict):
        units[AUDIO_PROMPT] = _part(tokens.prompt, asked, "audio_tokens")
        units[IMAGE_PROMPT] = _part(tokens.prompt, asked, "image_tokens")
    if isinstance(made, dict):
        units[AUDIO_COMPLETION] = _part(tokens.completion, made, "audio_tokens")
        units[IMAGE_COMPLETION] = _part(tokens.completion, made, "image_tokens")
    if tokens.cache_write:
        units[CACHE_WRITE_1H] = _part(tokens.cache_write, usage.get("cache_creation"), "ephemeral_1h_input_tokens")
    if reply.get("service_tier") in CHEAPER_TIERS:
        units[BATCH] = 1
    if "data" in reply:
        units[IMAGES] = _images(reply)
    output = reply.get("output")
    if isinstance(output, list):
        for item in output:
            name = _TOOL_CALLS.get(item.get("type", "")) if isinstance(item, dict) else None
            if name:
                units[name] = units.get(name, 0) + 1
    return {name: count for name, count in units.items() if count} or NONE


def tools_used(usage: dict[str, Any]) -> dict[str, int]:
    """How often the provider's own tools were called, by name: `{"web_search_requests": 2}` is two of web_search."""
    used: dict[str, int] = {}
    told = usage.get("server_tool_use")
    if isinstance(told, dict):
        used = {name.removesuffix("_requests"): count_of(count) or 0 for name, count in told.items()}
    for field, name in _TOOL_COUNTS:
        if field in usage:
            used[name] = count_of(usage[field]) or 0
    # A name that means something else, or so many that it is no list of tools, is none of a provider we know.
    return {name: count for name, count in used.items() if name not in UNITS} if len(used) <= MAX_TOOLS else {}


# What a provider counts that is priced by the piece: its field, and the name by which it is priced.
_TOOL_COUNTS = (
    ("num_search_queries", "web_search"),  # Perplexity
    ("citation_tokens", "citation_tokens"),
    ("num_sources_used", "sources"),  # xAI
)
_TOOL_CALLS = {"web_search_call": "web_search", "file_search_call": "file_search"}  # items of a response's `output`


def _images(reply: dict[str, Any]) -> int:
    """Pictures that were made, as the images endpoint lists them."""
    made = reply.get("data")
    if not isinstance(made, list) or not made or not isinstance(made[0], dict) or "embedding" in made[0]:
        return 0
    return sum(1 for item in made if isinstance(item, dict) and (item.get("b64_json") or item.get("url")))


def _prompt_and_completion(usage: dict[str, Any], answers: bool) -> tuple[int | None, int | None]:
    """Either may be missing and follow from the total. `answers`: false for embeddings, which produce nothing."""
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if prompt is None and completion is None:
        prompt, completion = usage.get("input_tokens"), usage.get("output_tokens")
    prompt, completion = count_of(prompt), count_of(completion)
    total = count_of(usage.get("total_tokens"))
    if completion is None and not answers:
        completion = 0
    if total is None or (prompt is None and completion is None):
        return prompt, completion
    return (
        total - (completion or 0) if prompt is None else prompt,
        total - (prompt or 0) if completion is None else completion,
    )


def is_usage_only(event: dict[str, Any]) -> bool:
    """Whether a stream's event is the extra one that `include_usage` adds. Azure's first event, which has no choices
    either but tells what its filter thought of the prompt, is not."""
    return event.get("choices") == [] and isinstance(event.get("usage"), dict)


def count_of(value: Any) -> int | None:
    """A number of tokens, None for anything that cannot be one."""
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None


def _part(whole: int, counts: Any, name: str) -> int:
    """A part of `whole`, 0 when it is not told; never more than the whole, whatever a provider says."""
    count = counts.get(name) if isinstance(counts, dict) else None
    return min(count_of(count) or 0, whole) if count else 0


# --- errors ---------------------------------------------------------------------------------------------------------


def error_said(body: bytes) -> dict[str, Any]:
    """What the body of an error says, as far as it can be understood: the object with OpenAI's fields, possibly empty.

    Understands OpenAI's {"error": {...}}, {"error": "text"}, vLLM's {"object": "error", "message": ...}, FastAPI's
    {"detail": ...}, {"errors": [...]}, and Gemini's list around any of these.
    """
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(said, list):
        said = said[0] if said else None
    if not isinstance(said, dict):
        return {}
    error = said.get("error") or said.get("errors")
    if isinstance(error, list) and isinstance(error[0], dict):
        error = error[0]
    if isinstance(error, dict):
        return error
    return {**said, "message": error} if error else said


def error_object(status: int, said: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's error object for what `error_said` found. Quotes nothing but the provider's own message."""
    error_type, code = _text(said.get("type")), _text(said.get("code"))
    if code is None or code.isdecimal():
        # The status again, as a number or in letters. Gemini has the word we look for beside it: "INVALID_ARGUMENT".
        code = _text(said.get("status")) if type(said.get("code")) is int else None
    if not error_type:
        error_type, usual_code = usual_error(status)
        code = code or usual_code
    return {
        "message": clean(_words(said)) or f"The provider answered {status} without saying why.",
        "type": error_type,
        "param": _text(said.get("param")),
        "code": code,
    }


def usual_error(status: int) -> tuple[str, str | None]:
    """Type and code that OpenAI gives to such a status."""
    if status == 429:
        return "requests", "rate_limit_exceeded"
    return ("server_error" if status >= 500 else "invalid_request_error"), None


def clean(text: str) -> str:
    """Short, and without the credentials that some providers quote."""
    masked = _SECRET.sub(lambda found: f"{found[1] or found[2]}...", text[:MAX_TEXT_CHARS])
    return masked[:MAX_TEXT_CHARS]


def _text(value: Any) -> str | None:
    return clean(value) if isinstance(value, str) and value else None


def _words(value: Any, depth: int = 4) -> str:
    """The sentence in a message of any shape. Pydantic's lists of mistakes become "body.model: Field required"."""
    if isinstance(value, str):
        return value.strip()
    if not depth:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_words(item, depth - 1) for item in value[:MAX_WORDS])))
    if not isinstance(value, dict):
        return ""
    told = (_words(value.get(name), depth - 1) for name in ("message", "detail", "msg", "error"))
    said, where = next(filter(None, told), ""), value.get("loc")
    return f"{'.'.join(map(str, where))}: {said}" if said and isinstance(where, list) else said
