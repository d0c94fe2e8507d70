"""The golden table: what providers report for real calls, and what those cost, worked out by hand.

Payloads are as the providers' documentation shows them or as they were recorded; prices are the ones published at the
time, in US dollars per million tokens (`request` a call, `image` a picture, `tools` a call of a tool). The arithmetic
stands beside each cost, in nano-USD: a token at 1.00 USD per million costs 1000. Nothing here is computed by the code
that it is held against.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from usage.pricing import Price

Payload = dict[str, Any]


class Golden(NamedTuple):
    """`shape`: where the payload stands. "chat", "completion", "embeddings" and "message" are the `usage` of such a
    reply; "event" is the `usage` of the last event of a stream; "reply" is a whole reply."""

    name: str
    payload: Payload
    price: Price
    cost: int
    shape: str = "chat"


def usd(input_usd: str, output_usd: str = "0", *, tools: dict[str, str] | None = None, **more: Any) -> Price:
    """A price as it is published."""
    kept = {name: more.pop(name) for name in ("batch_percent", "tiers") if name in more}
    rates = {name: nano(value) for name, value in more.items()}
    tool_prices = {name: nano(value) for name, value in (tools or {}).items()}
    return Price(nano(input_usd), nano(output_usd), **rates, tools=tool_prices, **kept)


def nano(dollars: str) -> int:
    exact = Decimal(dollars) * 10**9
    assert exact == int(exact)
    return int(exact)
