"""Model -> the routes to try, in order. What moves on to the next route is decided in proxy.pipeline."""

from __future__ import annotations

import random
from collections.abc import Iterator

from proxy.snapshot import Candidate, ModelEntry


def candidates(model: ModelEntry, endpoint: str) -> Iterator[Candidate]:
    """The routes that can answer this endpoint: tier by tier, inside a tier shuffled by weight."""
    for tier in model.tiers:
        if len(tier) == 1:
            if endpoint in tier[0].target.adapter.endpoints:
                yield tier[0]
            continue
        able = [candidate for candidate in tier if endpoint in candidate.target.adapter.endpoints]
        # Efraimidis and Spirakis: sorting by u^(1/w) draws without replacement in proportion to the weights.
        yield from sorted(able, key=_lot, reverse=True)


def _lot(candidate: Candidate) -> float:
    weight = candidate.target.weight
    return random.random() ** (1 / weight) if weight else -random.random()  # noqa: S311 - balancing, not secrecy
