"""The async views of /v1: each answers one call through the pipeline. The door finds them by path."""

from __future__ import annotations

from typing import Any

import orjson

from proxy import pipeline
from proxy.call import JSON, Call
from proxy.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, MODELS
from proxy.errors import ModelNotFound, NoProvider
from proxy.gateway import Gateway
from proxy.snapshot import ModelEntry


async def chat_completions(gateway: Gateway, call: Call) -> None:
    await pipeline.generate(gateway, call, CHAT)


async def completions(gateway: Gateway, call: Call) -> None:
    await pipeline.generate(gateway, call, COMPLETIONS)


async def embeddings(gateway: Gateway, call: Call) -> None:
    await pipeline.generate(gateway, call, EMBEDDINGS)


async def list_models(gateway: Gateway, call: Call) -> None:
    """Exactly the names that this key may call, aliases included."""
    models = await _callable_models(gateway, call)
    data = [_card(name, entry) for name, entry in sorted(models.items())]
    await call.reply(200, [JSON], orjson.dumps({"object": "list", "data": data}))


async def show_model(gateway: Gateway, call: Call, name: str) -> None:
    models = await _callable_models(gateway, call)
    if name not in models:
        raise ModelNotFound
    await call.reply(200, [JSON], orjson.dumps(_card(name, models[name])))


async def _callable_models(gateway: Gateway, call: Call) -> dict[str, ModelEntry]:
    principal = await pipeline.authenticate(gateway, call)
    pipeline.check_endpoint(principal, MODELS)
    snapshot = gateway.snapshots.current
    if not snapshot.has_providers:
        raise NoProvider("No provider is set up yet. Whoever runs this gateway can add one under /admin/.")
    allowed = principal.models
    return {name: entry for name, entry in snapshot.models.items() if allowed is None or entry.name in allowed}


def _card(name: str, entry: ModelEntry) -> dict[str, Any]:
    card: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": entry.created,
        "owned_by": entry.tiers[0][0].target.provider,
    }
    if entry.context_window:
        card["context_window"] = entry.context_window
    return card
