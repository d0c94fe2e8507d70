"""What a call used, in money. Pure. Money is integer nano-USD (10^-9 US dollars), prices nano-USD per million tokens.

0.15 USD per million tokens = 150,000,000 nano-USD per million tokens = 150 nano-USD a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

NANO = 1_000_000_000
PER_MTOK = 1_000_000
_HALF = PER_MTOK // 2

NONE: Mapping[str, int] = MappingProxyType({})

# Names in `TokenUsage.units` that are no tool of the provider's.
CACHE_WRITE_1H = "cache_write_1h"
AUDIO_PROMPT, AUDIO_COMPLETION = "audio_prompt", "audio_completion"
IMAGE_PROMPT, IMAGE_COMPLETION = "image_prompt", "image_completion"
IMAGES = "images"
BATCH = "batch"
UNITS = frozenset({CACHE_WRITE_1H, AUDIO_PROMPT, AUDIO_COMPLETION, IMAGE_PROMPT, IMAGE_COMPLETION, IMAGES, BATCH})


class TokenUsage(NamedTuple):
    """What one call used, as the provider counted it.

    `prompt` includes `cached` (read from the provider's cache) and `cache_write`; `completion` includes `reasoning`.
    `estimated`: counted by us, because the provider sent nothing. `units` is what few calls have, each above 0:

        cache_write_1h                      part of `cache_write`: tokens to be kept for an hour
        audio_prompt, image_prompt          parts of `prompt`
        audio_completion, image_completion  parts of `completion`
        images                              pictures made
        batch                               1: part of a batch
        any other name                      calls of a tool of the provider's, such as web_search
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False
    units: Mapping[str, int] = NONE


def event_columns(usage: TokenUsage) -> dict[str, Any]:
    """The columns of a usage event that say what was used."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "reasoning_tokens": usage.reasoning,
        "estimated": usage.estimated,
        "units": {**usage.units},
    }


def usage_of_event(columns: Mapping[str, Any]) -> TokenUsage:
    """The way back: what an event's columns say was used, so that it can be priced again."""
    return TokenUsage(
        columns["prompt_tokens"],
        columns["completion_tokens"],
        columns["cached_tokens"],
        columns["cache_write_tokens"],
        columns["reasoning_tokens"],
        columns["estimated"],
        columns["units"],
    )


def to_usd(nano: int) -> Decimal:
    return Decimal(nano) / NANO


def to_nano(usd: Decimal) -> int:
    """Exact to the nano-dollar; finer amounts are rounded half up."""
    return int((usd * NANO).to_integral_value(rounding="ROUND_HALF_UP"))


def per_mtok(usd: Decimal) -> int:
    """A price as it is published, in US dollars per million tokens, as nano-USD per million tokens."""
    return to_nano(usd)


class Ceiling(NamedTuple):
    """The dearest that a prompt of so many tokens and more can be charged, nano-USD per million tokens and a call."""

    from_prompt_tokens: int
    input: int
    output: int
    request: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in nano-USD: the first ones per million tokens, `request` a call on top of its tokens,
    `image` a picture made, `tools` a call of a tool by its name. None: such tokens cost what their plain ones do.

    `batch_percent` is what a call in a batch costs of it, but for its tools. `tiers` are (from this many prompt tokens,
    the whole price from there on), highest first: a long prompt makes every token of the call dearer, not only those
    above the threshold.
    """

    input: int
    output: int
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None  # None: as cache_write
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    request: int = 0
    image: int | None = None
    tools: Mapping[str, int] = field(default_factory=lambda: NONE, hash=False)
    batch_percent: int = 100
    tiers: tuple[tuple[int, Price], ...] = ()
    # Worked out once, when the price is loaded; see `cost_at_most`. Highest first, and the last one begins at 0.
    ceilings: tuple[Ceiling, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ceilings", tuple(_ceilings(self))[::-1])


def cost(usage: TokenUsage, price: Price) -> int:
    """What the call costs, in nano-USD. Exact; rounded half up once, at the end. A call that used nothing is free."""
    prompt, completion, cached, cache_write, reasoning, _, units = usage
    for from_prompt_tokens, dearer in price.tiers:
        if prompt >= from_prompt_tokens:
            price = dearer
            break
    total = completion * price.output
    if price.request and (prompt or completion or units):
        total += price.request * PER_MTOK
    if cached or cache_write:
        total += cached * (price.input if price.cached is None else price.cached)
        total += cache_write * (price.input if price.cache_write is None else price.cache_write)
        prompt = max(prompt - cached - cache_write, 0)  # some providers report more cached tokens than prompt tokens
    total += prompt * price.input
    if reasoning and price.reasoning is not None:
        total += min(reasoning, completion) * (price.reasoning - price.output)
    if units:
        return _cost_of_units(total, prompt, usage, price)
    return (total + _HALF) // PER_MTOK


def _cost_of_units(total: int, fresh: int, usage: TokenUsage, price: Price) -> int:
    """`total` is what the tokens cost if nothing were special about them; `fresh` the prompt without what was cached.

    A token is charged once: one that is cached audio is charged as cached.
    """
    units = usage.units
    if price.cache_write_1h is not None:
        written = price.input if price.cache_write is None else price.cache_write
        total += min(units.get(CACHE_WRITE_1H, 0), usage.cache_write) * (price.cache_write_1h - written)
    for name, special in ((AUDIO_PROMPT, price.audio_input), (IMAGE_PROMPT, price.image_input)):
        count = min(units.get(name, 0), fresh)
        fresh -= count
        if special is not None:
            total += count * (special - price.input)
    made = max(usage.completion - usage.reasoning, 0)
    for name, special in ((AUDIO_COMPLETION, price.audio_output), (IMAGE_COMPLETION, price.image_output)):
        count = min(units.get(name, 0), made)
        made -= count
        if special is not None:
            total += count * (special - price.output)
    total += units.get(IMAGES, 0) * (price.image or 0) * PER_MTOK
    percent = price.batch_percent if units.get(BATCH) else 100
    tools = sum(count * price.tools.get(name, 0) for name, count in units.items() if name not in UNITS)
    return (total * percent + tools * PER_MTOK * 100 + _HALF * 100) // (PER_MTOK * 100)


def cost_at_most(prompt_tokens: int, completion_tokens: int, price: Price) -> int:
    """The most that a call of at most so many tokens can cost, in nano-USD, whatever kind of tokens they turn out to be
    and whichever tier they reach. Pictures and the calls of a provider's tools, which are no tokens, are not in it."""
    for ceiling in price.ceilings:
        if prompt_tokens >= ceiling.from_prompt_tokens:
            break
    total = prompt_tokens * ceiling.input + completion_tokens * ceiling.output + ceiling.request * PER_MTOK
    return (total + _HALF) // PER_MTOK


def _ceilings(price: Price) -> Iterator[Ceiling]:
    """Lowest first; each includes the ones below it, because a prompt may turn out shorter than was thought."""
    ceiling = Ceiling(0, 0, 0, 0)
    for from_prompt_tokens, tier in ((0, price), *reversed(price.tiers)):
        percent = max(100, tier.batch_percent)
        inputs = (tier.input, tier.cached, tier.cache_write, tier.cache_write_1h, tier.audio_input, tier.image_input)
        outputs = (tier.output, tier.reasoning, tier.audio_output, tier.image_output)
        ceiling = Ceiling(
            from_prompt_tokens,
            max(ceiling.input, _dearest(inputs, percent)),
            max(ceiling.output, _dearest(outputs, percent)),
            max(ceiling.request, _dearest((tier.request,), percent)),
        )
        yield ceiling


def _dearest(rates: tuple[int | None, ...], percent: int) -> int:
    return -(-max(rate for rate in rates if rate is not None) * percent // 100)
