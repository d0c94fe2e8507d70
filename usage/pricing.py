"""Tokens to money. Pure. Money is integer nano-USD (10^-9 US dollars); prices are nano-USD per million tokens.

0.15 USD per million tokens = 150,000,000 nano-USD per million tokens = 150 nano-USD a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

NANO = 1_000_000_000
PER_MTOK = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenUsage:
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
