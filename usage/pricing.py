"""Tokens to money. Pure. Money is integer nano-USD (10^-9 US dollars); prices are nano-USD per million tokens.

0.15 USD per million tokens = 150,000,000 nano-USD per million tokens = 150 nano-USD a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

NANO = 1_000_000_000
PER_MTOK = 1_000_000


class TokenUsage(NamedTuple):
    """Tokens of one call as the provider counted them.

    `prompt` includes `cached` (read from the provider's cache), `cache_write` and `audio_prompt`; `completion` includes
    `reasoning` and `audio_completion`. `estimated`: counted by us, because the provider sent nothing.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_prompt: int = 0
    audio_completion: int = 0
    estimated: bool = False


def to_usd(nano: int) -> Decimal:
    return Decimal(nano) / NANO


def to_nano(usd: Decimal) -> int:
    """Exact to the nano-dollar; finer amounts are rounded half up."""
    return int((usd * NANO).to_integral_value(rounding="ROUND_HALF_UP"))


def per_mtok(usd: Decimal) -> int:
    """A price as it is published, in US dollars per million tokens, as nano-USD per million tokens."""
    return to_nano(usd)


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in nano-USD per million tokens; `request` in nano-USD a call, on top of its tokens.

    None: such tokens cost what their plain ones do. `tiers` are (from this many prompt tokens, the whole price from
    there on), highest first: a long prompt makes every token of the call dearer, not only those above the threshold.
    """

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    request: int = 0
    tiers: tuple[tuple[int, Price], ...] = ()


def cost(usage: TokenUsage, price: Price) -> int:
    """What the call costs, in nano-USD. Exact; rounded half up once, at the end. A call without tokens is free."""
    prompt, completion = usage.prompt, usage.completion
    for from_prompt_tokens, dearer in price.tiers:
        if prompt >= from_prompt_tokens:
            price = dearer
            break
    total = completion * price.output
    special = usage.cached + usage.cache_write + usage.audio_prompt
    if special:
        total += _special_input(usage, price)
        # Cached audio counts in both, and some providers report more cached tokens than prompt tokens.
        prompt = max(prompt - special, 0)
    if usage.audio_completion and price.audio_output is not None:
        total += min(usage.audio_completion, completion) * (price.audio_output - price.output)
    total += prompt * price.input
    if price.request and (usage.prompt or completion):
        total += price.request * PER_MTOK
    return (total + PER_MTOK // 2) // PER_MTOK


def _special_input(usage: TokenUsage, price: Price) -> int:
    return (
        usage.cached * (price.input if price.cached is None else price.cached)
        + usage.cache_write * (price.input if price.cache_write is None else price.cache_write)
        + usage.audio_prompt * (price.input if price.audio_input is None else price.audio_input)
    )
