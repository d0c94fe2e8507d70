"""What a provider says when all is well: OpenAI's dialect, and Anthropic's on /messages. Pure and deterministic.

The request decides as with a real provider: `n`, `tools`, `logprobs`, `response_format` and `stream_options` are
honoured. The tokens are easy to foretell: a prompt has one token per word of its texts, an answer one per piece.

Options (see behaviours.py for how they are given):

| option                | default | what                                                                          |
| --------------------- | ------- | ----------------------------------------------------------------------------- |
| `chunks`              | 5       | pieces of the answer: "w0 ", "w1 ", ...                                       |
| `text`                |         | the answer instead, a piece per word; of a tool call, its arguments           |
| `size`                |         | with `text`: so many characters a piece, instead of a word                    |
| `finish`              | stop    | finish_reason                                                                 |
| `extra`               | 0       | 1: fields that no API reference names, everywhere                             |
| `cached`, `reasoning` | 0       | that many prompt tokens were cached, completion tokens were thoughts          |
| `usage`               | asked   | see USAGES                                                                    |

A moderation finds what the text itself says: `flag:violence` is flagged for it, `score:hate=0.4` scores so unflagged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

CREATED = 1_790_000_000
VECTOR = (0.25, -0.5, 0.125)
MODERATED = ("hate", "hate/threatening", "self-harm", "self-harm/intent", "sexual", "violence")
USAGES = {
    "asked": "as OpenAI: null in each event and a last event of its own when include_usage asks for it, else nothing",
    "always": "the same, asked or not",
    "never": "the field is missing everywhere",
    "null": "null everywhere, no figures",
    "last": "in the event with the finish_reason, no event of its own",
    "each": "running totals in every event",
    "twice": "the usage event is sent twice",
    "wrong": "a text where the figures belong",
}


class Options:
    """Settings of one behaviour, as text: from the query string behind the model's name, or from the test."""

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._values = {name: str(value) for name, value in (values or {}).items()}

    @classmethod
    def parse(cls, query: str) -> Options:
        return cls(dict(parse_qsl(query, keep_blank_values=True)))

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def count(self, name: str, default: int = 0) -> int:
        return int(self._values.get(name, default))

    def seconds(self, name: str, default_ms: float = 0) -> float:
        """The option is in milliseconds."""
        return float(self._values.get(name, default_ms)) / 1000

    def as_dict(self) -> dict[str, object]:
        return dict(self._values)


@dataclass(frozen=True, slots=True)
class Event:
    """One SSE event before framing. `tokens`: what the provider has produced, and bills, by sending it."""

    data: bytes
    name: str = ""
    tokens: int = 0
    is_content: bool = False


class Answer:
    """The answer to one request. Subclasses speak a dialect."""

    done: bytes | None = None  # the data of the last event of a stream

    def __init__(self, request: dict[str, Any], options: Options) -> None:
        self.request = request
        self.options = options
        self.prompt_tokens = sum(len(text.split()) for text in texts(request))
        self.extra: dict[str, Any] = {"x_unknown": {"kept": [1, None, "ü"]}} if options.count("extra") else {}

    @property
    def streams(self) -> bool:
        return self.request.get("stream") is True

    @property
    def completion_tokens(self) -> int:
        return 0

    def whole(self) -> dict[str, Any]:
        raise NotImplementedError

    def events(self) -> Iterator[Event]:
        raise NotImplementedError


class OpenAIAnswer(Answer):
    """What chat and legacy completions share: usage, pieces, choices."""

    done = b"[DONE]"

    @property
    def choices(self) -> int:
        n = self.request.get("n")
        return n if isinstance(n, int) and n > 0 else 1

    @property
    def completion_tokens(self) -> int:
        return len(self.pieces()) * self.choices

    def pieces(self) -> list[str]:
        text = self.options.text("text")
        if text:
            size = self.options.count("size")
            return [text[start : start + size] for start in range(0, len(text), size)] if size else words(text)
        return [f"w{number} " for number in range(self.options.count("chunks", 5))]

    def usage(self, completion_tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.options.count("cached"), "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.options.count("reasoning"),
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def with_whole_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        match self.options.text("usage", "asked"):
            case "never":
                return body
            case "null":
                return {**body, "usage": None}
            case "wrong":
                return {**body, "usage": "many"}
            case _:
                return {**body, "usage": self.usage(self.completion_tokens)}

    def stream(self, deltas: Iterator[tuple[list[dict[str, Any]], int, bool]], head: dict[str, Any]) -> Iterator[Event]:
        """`deltas`: (choices, tokens, is_last). Puts the usage where the option wants it."""
        mode = self.options.text("usage", "asked")
        asked = bool((self.request.get("stream_options") or {}).get("include_usage"))
        own_event = mode in ("always", "twice") or (mode == "asked" and asked)
        sent = 0
        for choices, tokens, is_last in deltas:
            sent += tokens
            event = {**head, "choices": choices}
            if own_event or mode == "null":
                event["usage"] = None
            elif mode == "wrong":
                event["usage"] = "many"
            elif mode == "each" or (mode == "last" and is_last):
                event["usage"] = self.usage(sent)
            yield Event(compact(event), tokens=tokens, is_content=tokens > 0)
        if own_event:
            for _ in range(2 if mode == "twice" else 1):
                yield Event(compact({**head, "choices": [], "usage": self.usage(sent)}))


class ChatAnswer(OpenAIAnswer):
    def pieces(self) -> list[str]:
        if self.calls_tools and not self.options.text("text"):
            return cut(json.dumps(self.tool_arguments()), 6)
        response_format = self.request.get("response_format") or {}
        if response_format.get("type") == "json_schema":
            return cut(json.dumps(instance(response_format["json_schema"].get("schema", {}))), 6)
        return super().pieces()

    @property
    def calls_tools(self) -> bool:
        """A tool is called unless its result is already there, as a model would."""
        last = (self.request.get("messages") or [{}])[-1]
        wanted = bool(self.request.get("tools")) and self.request.get("tool_choice") != "none"
        return wanted and last.get("role") != "tool"

    def tool_arguments(self) -> Any:
        return instance(self.request["tools"][0]["function"].get("parameters", {}))

    def head(self, object_name: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-upstream",
            "object": object_name,
            "created": CREATED,
            "model": self.request.get("model"),
            "service_tier": "default",
            "system_fingerprint": "fp_upstream",
            **self.extra,
        }

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.pieces()), "refusal": None}
        finish = self.options.text("finish", "stop")
        if self.calls_tools:
            message |= {"content": None, "tool_calls": [self.tool_call("".join(self.pieces()))]}
            finish = "tool_calls"
        choices = [
            {
                "index": index,
                "message": {**message, **self.extra},
                "logprobs": self.logprobs(self.pieces()),
                "finish_reason": finish,
                **self.extra,
            }
            for index in range(self.choices)
        ]
        return self.with_whole_usage({**self.head("chat.completion"), "choices": choices})

    def events(self) -> Iterator[Event]:
        return self.stream(self._deltas(), self.head("chat.completion.chunk"))

    def _deltas(self) -> Iterator[tuple[list[dict[str, Any]], int, bool]]:
        indexes = range(self.choices)
        first: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        if self.calls_tools:
            first = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **self.tool_call("")}]}
        for index in indexes:
            yield [self._choice(index, {**first, **self.extra})], 0, False
        for piece in self.pieces():
            delta: dict[str, Any] = {"content": piece}
            if self.calls_tools:
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            for index in indexes:
                yield [self._choice(index, {**delta, **self.extra}, logprobs=self.logprobs([piece]))], 1, False
        finish = "tool_calls" if self.calls_tools else self.options.text("finish", "stop")
        for index in indexes:
            yield [self._choice(index, {}, finish=finish)], 0, index == self.choices - 1

    def _choice(self, index: int, delta: dict[str, Any], *, logprobs: Any = None, finish: str | None = None) -> Any:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def tool_call(self, arguments: str) -> dict[str, Any]:
        name = self.request["tools"][0]["function"]["name"]
        return {"id": "call_upstream", "type": "function", "function": {"name": name, "arguments": arguments}}

    def logprobs(self, pieces: list[str]) -> dict[str, Any] | None:
        if not self.request.get("logprobs"):
            return None
        content = [{"token": p, "logprob": -0.5, "bytes": list(p.encode()), "top_logprobs": []} for p in pieces]
        return {"content": content, "refusal": None}


class CompletionAnswer(OpenAIAnswer):
    @property
    def choices(self) -> int:
        prompt = self.request.get("prompt")
        prompts = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str) else 1
        return super().choices * prompts

    def head(self) -> dict[str, Any]:
        return {
            "id": "cmpl-upstream",
            "object": "text_completion",
            "created": CREATED,
            "model": self.request.get("model"),
            **self.extra,
        }

    def whole(self) -> dict[str, Any]:
        finish = self.options.text("finish", "stop")
        choices = [self._choice(index, "".join(self.pieces()), finish) for index in range(self.choices)]
        return self.with_whole_usage({**self.head(), "choices": choices})

    def events(self) -> Iterator[Event]:
        return self.stream(self._deltas(), self.head())

    def _deltas(self) -> Iterator[tuple[list[dict[str, Any]], int, bool]]:
        for piece in self.pieces():
            for index in range(self.choices):
                yield [self._choice(index, piece, None)], 1, False
        for index in range(self.choices):
            yield [self._choice(index, "", self.options.text("finish", "stop"))], 0, index == self.choices - 1

    def _choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


class EmbeddingAnswer(Answer):
    @property
    def streams(self) -> bool:
        return False

    def whole(self) -> dict[str, Any]:
        given = self.request.get("input")
        count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
        vector: Any = "AACAPgAAAL8AAAA+" if self.request.get("encoding_format") == "base64" else list(VECTOR)
        rows = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
        body = {"object": "list", "data": rows, "model": self.request.get("model"), **self.extra}
        if self.options.text("usage") == "never":
            return body
        return {**body, "usage": {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}}


class ModelsAnswer(Answer):
    def whole(self) -> dict[str, Any]:
        names = ("gpt-test", "embedding-test")
        rows = [{"id": name, "object": "model", "created": CREATED, "owned_by": "upstream"} for name in names]
        return {"object": "list", "data": rows}


class ModerationAnswer(Answer):
    """A result for each input, free of charge."""

    def __init__(self, request: dict[str, Any], options: Options) -> None:
        super().__init__(request, options)
        self.prompt_tokens = 0

    @property
    def streams(self) -> bool:
        return False

    def whole(self) -> dict[str, Any]:
        given = self.request["input"]
        results = [self._result(text) for text in (given if isinstance(given, list) else [given])]
        return {"id": "modr-upstream", "model": self.request.get("model"), "results": results, **self.extra}

    def _result(self, text: str) -> dict[str, Any]:
        flagged = set(re.findall(r"flag:([\w/-]+)", text))
        scores = dict.fromkeys(MODERATED, 0.01) | dict.fromkeys(sorted(flagged), 0.97)
        scores |= {name: float(score) for name, score in re.findall(r"score:([\w/-]+)=([\d.]+)", text)}
        return {
            "flagged": bool(flagged),
            "categories": {name: name in flagged for name in scores},
            "category_scores": scores,
            "category_applied_input_types": {name: ["text"] for name in scores},
        }


class MessagesAnswer(Answer):
    """Anthropic's dialect. Calls the first tool when there is one and no result of it yet."""

    @property
    def calls_tools(self) -> bool:
        last = (self.request.get("messages") or [{}])[-1].get("content")
        has_result = isinstance(last, list) and any(part.get("type") == "tool_result" for part in last)
        return bool(self.request.get("tools")) and not has_result

    @property
    def completion_tokens(self) -> int:
        return len(self.pieces())

    def pieces(self) -> list[str]:
        if self.calls_tools:
            return cut(json.dumps(instance(self.request["tools"][0].get("input_schema", {}))), 6)
        text = self.options.text("text")
        return words(text) if text else [f"w{number} " for number in range(self.options.count("chunks", 5))]

    def whole(self) -> dict[str, Any]:
        joined = "".join(self.pieces())
        block: dict[str, Any] = {"type": "text", "text": joined}
        if self.calls_tools:
            block = {**self.tool_use(), "input": json.loads(joined)}
        return {**self.head([block], self.stop_reason()), "usage": self.usage(self.completion_tokens)}

    def events(self) -> Iterator[Event]:
        yield self._event("message_start", message={**self.head([], None), "usage": self.usage(0)})
        block = {**self.tool_use(), "input": {}} if self.calls_tools else {"type": "text", "text": ""}
        yield self._event("content_block_start", index=0, content_block=block)
        yield self._event("ping")
        kind, field = ("input_json_delta", "partial_json") if self.calls_tools else ("text_delta", "text")
        for piece in self.pieces():
            yield self._event("content_block_delta", tokens=1, index=0, delta={"type": kind, field: piece})
        yield self._event("content_block_stop", index=0)
        delta = {"stop_reason": self.stop_reason(), "stop_sequence": None}
        yield self._event("message_delta", delta=delta, usage={"output_tokens": self.completion_tokens})
        yield self._event("message_stop")

    def _event(self, name: str, *, tokens: int = 0, **fields: Any) -> Event:
        return Event(compact({"type": name, **fields}), name, tokens, is_content=tokens > 0)

    def stop_reason(self) -> str:
        return "tool_use" if self.calls_tools else self.options.text("finish", "end_turn")

    def tool_use(self) -> dict[str, Any]:
        return {"type": "tool_use", "id": "toolu_upstream", "name": self.request["tools"][0]["name"]}

    def usage(self, output_tokens: int) -> dict[str, Any]:
        cached = self.options.count("cached")
        return {
            "input_tokens": self.prompt_tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": output_tokens,
        }

    def head(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": "msg_upstream",
            "type": "message",
            "role": "assistant",
            "model": self.request.get("model"),
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
        }


# By how the path ends, so that Azure's deployments and every base URL fit. The longest ending comes first.
DIALECTS: dict[str, type[Answer]] = {
    "/chat/completions": ChatAnswer,
    "/completions": CompletionAnswer,
    "/embeddings": EmbeddingAnswer,
    "/moderations": ModerationAnswer,
    "/messages": MessagesAnswer,
    "/models": ModelsAnswer,
}


def dialect(path: str) -> type[Answer] | None:
    return next((answer for ending, answer in DIALECTS.items() if path.endswith(ending)), None)


def texts(request: dict[str, Any]) -> Iterator[str]:
    """The texts a model reads: messages (content, parts), system, prompt, input."""
    for message in request.get("messages") or []:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
    for name in ("system", "prompt", "input"):
        value = request.get(name)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield text


def words(text: str) -> list[str]:
    """A piece per word, each but the last with the blank behind it."""
    return re.findall(r"[^ ]+ ?| ", text)


def instance(schema: dict[str, Any]) -> Any:
    """The plainest value that a JSON schema allows: first of an enum, empty of a kind, every property."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: instance(of) for name, of in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {"type": "string"}))]
    return {"string": "Zürich", "integer": 7, "number": 1.5, "boolean": True}.get(kind)


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def compact(value: Any) -> bytes:
    """As OpenAI writes it: no blanks, letters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
