"""What the tests of the adapters share: recorded bodies of providers, targets and exchanges to translate."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson

from policies.types import Exchange
from proxy.providers import presets
from proxy.providers.base import Target, UpstreamRequest

RECORDINGS = Path(__file__).parent / "recordings"


def recording(name: str) -> bytes:
    """The body that a provider sent: `recording("anthropic/text.json")`."""
    return (RECORDINGS / name).read_bytes()


def target_of(kind: str = "openai", **fields: Any) -> Target:
    given = {"provider": kind, "base_url": presets.default_base_url(kind), "upstream_model": "upstream-model", **fields}
    return Target(kind=kind, adapter=presets.adapter_for(kind), **given)


def chat(**body: Any) -> Exchange:
    """A chat; `stream` and `wants_usage` are read from the body, as the pipeline does."""
    body = {"model": "public-model", "messages": [{"role": "user", "content": "Hello"}], **body}
    return exchange_of("chat/completions", body)


def exchange_of(endpoint: str, body: dict[str, Any]) -> Exchange:
    return Exchange(
        endpoint=endpoint,
        body=body,
        model="public-model",
        stream=bool(body.get("stream")),
        wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def translate(exchange: Exchange, target: Target, credential: str = "sk-provider") -> UpstreamRequest:
    """The request, made twice: a retry must get the same one, and the exchange must stay as it was."""
    before = copy.deepcopy(exchange)
    first = target.adapter.request(exchange, target, credential)
    second = target.adapter.request(exchange, target, credential)
    assert exchange == before
    assert first == second
    return first


def sent(exchange: Exchange, target: Target) -> dict[str, Any]:
    """The body that the provider gets."""
    return orjson.loads(translate(exchange, target).body)


def sse_events(stream: bytes) -> list[tuple[str, bytes]]:
    """(event name, data) of each event in a recorded stream."""
    events = []
    for block in stream.decode().strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((lines.get("event", ""), lines["data"].encode()))
    return events


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream in OpenAI's shape, [DONE] left out; every event is `data: JSON` and a blank line."""
    assert stream == b"" or stream.endswith(b"\n\n")
    events = stream.split(b"\n\n")[:-1]
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    return [orjson.loads(event[6:]) for event in events if event != b"data: [DONE]"]
