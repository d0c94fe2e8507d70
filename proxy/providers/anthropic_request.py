"""An OpenAI chat request as one for Anthropic's Messages API.

Sources: https://platform.claude.com/docs/en/api/messages, .../build-with-claude/{thinking,effort,structured-outputs},
.../api/versioning.

Translated: messages of every role (system and developer ones become `system`, wherever they stood), text, images, PDF
and text files, tools and their calls and results, `tool_choice`, `parallel_tool_calls`, `max_tokens` and
`max_completion_tokens` (Anthropic requires one: see DEFAULT_MAX_TOKENS), `stop`, `temperature`, `top_p`, `user`,
`safety_identifier` and `metadata.user_id`, `response_format` with a schema, `reasoning_effort`, `service_tier`.

Dropped, because Anthropic has nothing like it and an answer without it is still the answer asked for: seed,
presence_penalty, frequency_penalty, prediction, store, verbosity, prompt_cache_*, other `metadata`, names of speakers,
`detail` of images, earlier thoughts (`reasoning_content`, which Anthropic takes with its own signature only); and
`temperature`, `top_p` and `top_k` for those models that accept none (see `_takes_sampling`).

Refused, because the answer would be another one: see REFUSED, and `n` above 1, audio, JSON without a schema.

Every other field passes through untouched: `thinking`, `cache_control`, `container` and whatever comes next.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from policies.types import Exchange
from proxy.providers.base import UnsupportedRequest

# The newer version 2026-10-21 refuses temperature, top_p and top_k for every model, also for those that honour them.
API_VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096
DEFAULT_MAX_TOKENS_THINKING = 16_384  # thoughts count as output, and the answer must have room behind them
MIN_THINKING_TOKENS = 1024  # Anthropic's own minimum

DROPPED = frozenset(
    {
        "frequency_penalty",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "seed",
        "store",
        "stream_options",
        "verbosity",
    }
)
TRANSLATED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "output_config",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "stop",
        "stream",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user",
    }
)
REFUSED = {
    "audio": "Anthropic does not answer with audio.",
    "function_call": "Anthropic models take 'tool_choice' instead of 'function_call'.",
    "functions": "Anthropic models take 'tools' instead of 'functions'.",
    "logit_bias": "Anthropic models have no 'logit_bias'.",
    "logprobs": "Anthropic models tell no log probabilities.",
    "moderation": "Anthropic does not moderate on request.",
    "system": "Send a message of the role 'system' instead of the field 'system'.",
    "top_logprobs": "Anthropic models tell no log probabilities.",
    "web_search_options": "Anthropic models take a web search tool in 'tools' instead of 'web_search_options'.",
}

SERVICE_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}

TEXT_PARTS = frozenset({"text", "refusal"})
USER_PARTS = frozenset({"text", "image_url", "file"})

Block = dict[str, Any]


def messages_request(exchange: Exchange, model: str, version: str) -> dict[str, Any]:
    """The body for POST /v1/messages. Raises UnsupportedRequest."""
    body = exchange.body
    _refuse(body)
    system, turns = _conversation(body["messages"])
    if not turns:
        raise UnsupportedRequest("Anthropic needs a message of the user, beside instructions.", "messages")
    request = {
        name: value
        for name, value in body.items()
        if value is not None and name not in TRANSLATED and name not in DROPPED and name not in REFUSED
    }
    request |= {"model": model, "max_tokens": _max_tokens(body), "messages": turns}
    if system:
        request["system"] = system
    if exchange.stream:
        request["stream"] = True
    if body.get("stop"):
        request["stop_sequences"] = _stop_sequences(body["stop"])
    request |= _tools(body)
    request |= _thinking(body, request, model)
    if "thinking" not in request and _takes_sampling(model, version):
        request |= _sampling(body)
    request |= _output_config(body, model)
    request |= _identity(body)
    if body.get("service_tier") in SERVICE_TIERS:
        request["service_tier"] = SERVICE_TIERS[body["service_tier"]]
    return request


def _refuse(body: dict[str, Any]) -> None:
    for name, reason in REFUSED.items():
        if body.get(name):
            raise UnsupportedRequest(reason, name)
    if (body.get("n") or 1) != 1:
        raise UnsupportedRequest("Anthropic models give one choice: 'n' must be 1.", "n")
    if any(modality != "text" for modality in body.get("modalities") or ()):
        raise UnsupportedRequest("Anthropic models answer with text only.", "modalities")


def _max_tokens(body: dict[str, Any]) -> int:
    thinks = body.get("reasoning_effort") not in (None, "none")
    default = DEFAULT_MAX_TOKENS_THINKING if thinks else DEFAULT_MAX_TOKENS
    return body.get("max_completion_tokens") or body.get("max_tokens") or default


def _conversation(messages: list[dict[str, Any]]) -> tuple[list[Block], list[dict[str, Any]]]:
    """The system blocks, and the turns; messages of one speaker in a row are one turn."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", message["role"]
        blocks = _message_blocks(message, role, where)
        if isinstance(message.get("cache_control"), dict) and blocks:
            blocks[-1] = {**blocks[-1], "cache_control": message["cache_control"]}
        if role in ("system", "developer"):
            system += blocks
            continue
        speaker = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == speaker:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": speaker, "content": blocks})
    return system, turns


def _message_blocks(message: dict[str, Any], role: str, where: str) -> list[Block]:
    content = message.get("content")
    if role == "user":
        return _blocks(content, where, USER_PARTS)
    if role in ("system", "developer"):
        return _blocks(content, where, TEXT_PARTS)
    if role == "tool":
        return [_tool_result(message, where)]
    if role != "assistant":
        raise UnsupportedRequest("Anthropic takes messages of the roles system, user, assistant and tool.", where)
    if message.get("function_call"):
        raise UnsupportedRequest("Anthropic takes 'tool_calls' instead of 'function_call'.", f"{where}.function_call")
    refusal = message.get("refusal")
    blocks = _blocks(content or (refusal if isinstance(refusal, str) else None), where, TEXT_PARTS)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        where = f"{where}.tool_calls"
        raise UnsupportedRequest(f"Invalid value for '{where}': it must be a list.", where)
    return blocks + [_tool_use(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)]


def _blocks(content: Any, where: str, allowed: frozenset[str]) -> list[Block]:
    """Content of any shape as blocks. Anthropic refuses blocks of text without any, so they are left out."""
    if not isinstance(content, list):
        content = [content] if isinstance(content, str) else []
    blocks = (_block(part, f"{where}.content[{index}]", allowed) for index, part in enumerate(content))
    return [block for block in blocks if block.get("text") is None or block["text"].strip()]


def _block(part: Any, where: str, allowed: frozenset[str]) -> Block:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in allowed:
        raise UnsupportedRequest(f"Anthropic takes only these parts here: {', '.join(sorted(allowed))}.", where)
    if kind == "image_url":
        block = _image(part.get("image_url"), where)
    elif kind == "file":
        block = _document(part.get("file"), where)
    else:
        block = {"type": "text", "text": _string(part.get(kind), f"{where}.{kind}")}
    if isinstance(part.get("cache_control"), dict):
        block["cache_control"] = part["cache_control"]
    return block


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UnsupportedRequest(f"Invalid value for '{where}': it must be a string.", where)
    return value


def _image(image: Any, where: str) -> Block:
    url = _string(image.get("url") if isinstance(image, dict) else image, f"{where}.image_url.url")
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(url, f"{where}.image_url.url")
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _document(file: Any, where: str) -> Block:
    """A PDF or a text, from a data URL or an address. Files uploaded to another provider are not known there."""
    if not isinstance(file, dict) or not file.get("file_data"):
        raise UnsupportedRequest("Anthropic takes files as 'file_data' only.", f"{where}.file")
    url = _string(file["file_data"], f"{where}.file.file_data")
    block: Block = {"type": "document"}
    if url.startswith(("https://", "http://")):
        block["source"] = {"type": "url", "url": url}
    else:
        media_type, data = _data_url(url, f"{where}.file.file_data")
        if media_type.startswith("text/"):
            text = _decode_text(data, f"{where}.file.file_data")
            block["source"] = {"type": "text", "media_type": "text/plain", "data": text}
        elif media_type == "application/pdf":
            block["source"] = {"type": "base64", "media_type": media_type, "data": data}
        else:
            raise UnsupportedRequest("Anthropic takes files of PDF and text only.", f"{where}.file.file_data")
    if isinstance(file.get("filename"), str) and file["filename"]:
        block["title"] = file["filename"]
    return block


def _data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and base64 of data:TYPE/SUBTYPE;base64,DATA."""
    head, comma, data = url.partition(",")
    head = head.lower()
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise UnsupportedRequest("It must be an https:// address or a data: URL in base64.", where)
    return head[len("data:") :].split(";")[0], data


def _decode_text(data: str, where: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        raise UnsupportedRequest("The file is not text in UTF-8, written in base64.", where) from None


def _tool_id(value: Any) -> str:
    """Anthropic knows fewer characters in ids than others do; the same id is the same in call and result."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", str(value))


def _tool_use(call: Any, where: str) -> Block:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise UnsupportedRequest("Anthropic takes calls of functions only.", where)
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        where = f"{where}.function.arguments"
        raise UnsupportedRequest(f"Invalid value for '{where}': it must be an object, written as JSON.", where)
    return {"type": "tool_use", "id": _tool_id(call.get("id")), "name": function.get("name"), "input": arguments}


def _tool_result(message: dict[str, Any], where: str) -> Block:
    result: Block = {"type": "tool_result", "tool_use_id": _tool_id(message.get("tool_call_id"))}
    content = _blocks(message.get("content"), where, USER_PARTS)
    if content:
        result["content"] = content
    return result


def _stop_sequences(stop: str | list[str]) -> list[str]:
    sequences = [stop] if isinstance(stop, str) else stop
    if not all(sequence.strip() for sequence in sequences):
        raise UnsupportedRequest("Anthropic models cannot stop at white space alone.", "stop")
    return sequences


def _tools(body: dict[str, Any]) -> dict[str, Any]:
    """`tools` and `tool_choice`. A choice without tools means nothing, and Anthropic would refuse it."""
    tools = body.get("tools")
    if not tools:
        return {}
    translated = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    choice = _tool_choice(body.get("tool_choice"))
    if body.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    return {"tools": translated, "tool_choice": choice} if choice else {"tools": translated}


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    """A function as Anthropic describes it. Anthropic's own tools, such as web_search_20250305, go as they are."""
    if tool.get("type") == "custom" and "custom" in tool:
        raise UnsupportedRequest("Anthropic takes tools of the type 'function'.", where)
    function = tool.get("function")
    if not isinstance(function, dict):
        return tool
    parameters = function.get("parameters") or {"properties": {}}
    if not isinstance(parameters, dict):
        where = f"{where}.function.parameters"
        raise UnsupportedRequest(f"Invalid value for '{where}': it must be an object.", where)
    translated: dict[str, Any] = {
        "name": function.get("name"),
        "input_schema": {"type": "object", **parameters},
    }
    if function.get("description"):
        translated["description"] = function["description"]
    if function.get("strict"):
        translated["strict"] = True
    if isinstance(tool.get("cache_control"), dict):
        translated["cache_control"] = tool["cache_control"]
    return translated


def _tool_choice(choice: Any) -> dict[str, Any]:
    """{} when the client leaves it to the provider."""
    if choice is None:
        return {}
    if isinstance(choice, str) and choice in TOOL_CHOICES:
        return {"type": TOOL_CHOICES[choice]}
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict):
        return {"type": "tool", "name": function.get("name")}
    raise UnsupportedRequest("Anthropic takes 'auto', 'none', 'required' or one function by name.", "tool_choice")


# --- what differs from model to model -------------------------------------------------------------------------------

_CLAUDE_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2})(?!\d))?")
NEWEST = (99, 0)
FIRST_ADAPTIVE = (4, 6)  # before: thinking has a budget of tokens; from here on it has an effort
FIRST_WITHOUT_SAMPLING = (4, 7)


def _version_of(model: str) -> tuple[int, int]:
    """(4, 5) for claude-haiku-4-5. Unknown names of Claude are the newest; other models that speak this API (DeepSeek,
    Kimi and so on) speak it as the first ones did."""
    found = _CLAUDE_VERSION.search(model)
    if found is None:
        return NEWEST if "claude" in model else (0, 0)
    return int(found[1]), int(found[2] or 0)


def _takes_sampling(model: str, version: str) -> bool:
    return version == API_VERSION and _version_of(model) < FIRST_WITHOUT_SAMPLING


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    """temperature, top_p, top_k. OpenAI's temperature goes up to 2, Anthropic's to 1. A `top_p` of 1 says nothing, and
    some models refuse it beside a temperature."""
    sampling = {name: body[name] for name in ("temperature", "top_p", "top_k") if body.get(name) is not None}
    if "temperature" in sampling:
        sampling["temperature"] = min(max(sampling["temperature"], 0), 1)
    if sampling.get("top_p") == 1:
        del sampling["top_p"]
    return sampling


# reasoning_effort -> (Anthropic's effort, share of max_tokens to think with)
EFFORTS = {
    "minimal": ("low", 0.1),
    "low": ("low", 0.2),
    "medium": ("medium", 0.5),
    "high": ("high", 0.8),
    "xhigh": ("xhigh", 0.9),
    "max": ("max", 0.95),
}


def _thinking(body: dict[str, Any], request: dict[str, Any], model: str) -> dict[str, Any]:
    """`thinking`, as `reasoning_effort` asks for it; {} when the client said nothing, or gave `thinking` itself.

    From Claude 4.6 on: adaptive, and `_output_config` says the effort; "none" switches it off. Before: a budget, which
    is a share of max_tokens (that both APIs count thinking into), at least 1,024 tokens. Not where Anthropic refuses
    it: with a tool that must be called, in too few tokens, and on results of tools, when the thoughts that led to
    them would have to be sent back, which OpenAI's clients do not do.
    """
    effort = body.get("reasoning_effort")
    if effort is None or "thinking" in request:
        return {}
    if effort != "none" and effort not in EFFORTS:
        raise UnsupportedRequest(f"'reasoning_effort' is one of none, {', '.join(EFFORTS)}.", "reasoning_effort")
    forced = request.get("tool_choice", {}).get("type") in ("any", "tool")
    if _version_of(model) >= FIRST_ADAPTIVE:
        if effort == "none":
            return {"thinking": {"type": "disabled"}}
        return {} if forced else {"thinking": {"type": "adaptive"}}
    if effort == "none" or forced or body["messages"][-1]["role"] == "tool":
        return {}
    budget = max(MIN_THINKING_TOKENS, int(request["max_tokens"] * EFFORTS[effort][1]))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget < request["max_tokens"] else {}


def _output_config(body: dict[str, Any], model: str) -> dict[str, Any]:
    """The client's own `output_config`, with the effort and the schema that it asked for in OpenAI's fields."""
    own = body.get("output_config")
    config = {**own} if isinstance(own, dict) else {}
    effort = body.get("reasoning_effort")
    if effort in EFFORTS and _version_of(model) >= FIRST_ADAPTIVE:
        config["effort"] = EFFORTS[effort][0]
    schema = _schema(body.get("response_format"))
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    return {"output_config": config} if config else {}


def _schema(response_format: Any) -> dict[str, Any] | None:
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind in (None, "text"):
        return None
    if kind != "json_schema":
        raise UnsupportedRequest(
            "Anthropic models write JSON by a schema only: use the type 'json_schema'.", "response_format"
        )
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        where = "response_format.json_schema.schema"
        raise UnsupportedRequest(f"Invalid value for '{where}': it must be an object.", where)
    return schema


def _identity(body: dict[str, Any]) -> dict[str, Any]:
    """Whom the provider may hold to account: an opaque id of the caller's own making."""
    metadata = body.get("metadata") or {}
    user = metadata.get("user_id") or body.get("user") or body.get("safety_identifier")
    return {"metadata": {"user_id": user}} if isinstance(user, str) else {}
