"""Which price counts: the administrator's own, else the one that ships with genai-prices. Never asks the network.

For building a snapshot (in a thread), not for the hot path.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from usage.models import ModelPrice
from usage.pricing import Price, per_mtok

if TYPE_CHECKING:
    from genai_prices import types as genai

DAY = timedelta(days=1)


class PriceBook:
    """The prices of one moment. `valid_until`: when one of those given out so far ends, or None if none has an end."""

    def __init__(self, now: datetime, own: dict[str, Price], valid_until: datetime | None) -> None:
        self._now = now
        self._own = own
        self.valid_until = valid_until

    def find(self, model: str, prices_id: str, upstream_model: str) -> Price | None:
        """The price of a route; None if nobody knows it.

        `model` is the public name, for which a price of ours counts before any other. `prices_id` is the provider in
        genai-prices; "" means that it has no list price (self-hosted), and then it is not guessed from the name.
        """
        if model in self._own:
            return self._own[model]
        listed = _find_model(prices_id, upstream_model)
        if listed is None:
            return None
        self._expire_at(_next_change(listed, self._now))
        return _listed_price(listed, self._now)

    def _expire_at(self, moment: datetime | None) -> None:
        if moment is not None and (self.valid_until is None or moment < self.valid_until):
            self.valid_until = moment


def prices_at(now: datetime) -> PriceBook:
    """One query."""
    own: dict[str, Price] = {}
    upcoming: datetime | None = None
    for row in ModelPrice.objects.order_by("valid_from", "id"):
        if row.valid_from <= now:
            own[row.model] = price_of(row)
        elif upcoming is None:
            upcoming = row.valid_from
    return PriceBook(now, own, upcoming)


def price_of(row: ModelPrice) -> Price:
    return Price(
        input=row.input_nano_usd_per_mtok,
        output=row.output_nano_usd_per_mtok,
        cached=row.cached_nano_usd_per_mtok,
        cache_write=row.cache_write_nano_usd_per_mtok,
    )


def context_window(prices_id: str, model: str) -> int | None:
    """Tokens that the upstream model takes, as far as it is known."""
    listed = _find_model(prices_id, model)
    return listed.context_window if listed else None


def models_of(prices_id: str) -> list[str]:
    """Names of a provider's current models that are billed by the token, for a provider given without a list."""
    now = datetime.now(UTC)
    provider = _find_provider(prices_id)
    models = provider.models if provider else []
    return sorted(model.id for model in models if not model.deprecated and _listed_price(model, now))


def _providers() -> list[genai.Provider]:
    # Imported here: the package and its data take half a second, which a management command need not wait for.
    from genai_prices import data_snapshot

    return data_snapshot.get_snapshot().providers


def _find_provider(prices_id: str) -> genai.Provider | None:
    """By the exact id: genai-prices' own search would take "openai-compatible" for OpenAI."""
    return next((provider for provider in _providers() if provider.id == prices_id), None) if prices_id else None


@lru_cache(maxsize=4096)
def _find_model(prices_id: str, model: str) -> genai.ModelInfo | None:
    provider = _find_provider(prices_id)
    return provider.find_model(model, all_providers=_providers()) if provider else None


def _listed_price(model: genai.ModelInfo, now: datetime) -> Price | None:
    """None if the model is not billed by the token (per minute of audio, per page) or its price is not listed."""
    if model.id.endswith(":free"):
        return Price(0, 0)
    if not model.prices:
        return None
    rates = {name: rate for name, rate in vars(model.get_prices(now)).items() if rate is not None}
    if "input_mtok" not in rates:
        return None
    starts = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())}, reverse=True)
    # genai-prices' tiers begin above their start, ours at it.
    tiers = tuple((start + 1, _flat_price(rates, start + 1)) for start in starts)
    return _flat_price(rates, 0, tiers)


def _flat_price(
    rates: dict[str, Decimal | genai.TieredPrices], prompt_tokens: int, tiers: tuple[tuple[int, Price], ...] = ()
) -> Price:
    def rate(*names: str) -> int | None:
        for name in names:
            if name in rates:
                return per_mtok(_rate_at(rates[name], prompt_tokens))
        return None

    return Price(
        input=rate("input_mtok") or 0,
        output=rate("output_mtok") or 0,
        cached=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok", "cache_write_5m_mtok"),
        audio_input=rate("input_audio_mtok"),
        audio_output=rate("output_audio_mtok"),
        request=(rate("requests_kcount") or 0) // 1_000,
        tiers=tiers,
    )


def _rate_at(rate: Decimal | genai.TieredPrices, prompt_tokens: int) -> Decimal:
    if isinstance(rate, Decimal):
        return rate
    begun = [tier.price for tier in rate.tiers if prompt_tokens > tier.start]
    return begun[-1] if begun else rate.base


def _next_change(model: genai.ModelInfo, now: datetime) -> datetime | None:
    """When the model's listed price may next be another one: a price with a first day, or with hours of the day."""
    if not isinstance(model.prices, list):
        return None
    moments = (moment for conditional in model.prices for moment in _moments(conditional.constraint, now))
    return min((moment for moment in moments if moment > now), default=None)


def _moments(constraint: object, now: datetime) -> Iterator[datetime]:
    from genai_prices import types

    if isinstance(constraint, types.StartDateConstraint):
        yield datetime.combine(constraint.start_date, time.min, UTC)
    elif isinstance(constraint, types.TimeOfDateConstraint):
        for clock in (constraint.start_time, constraint.end_time):
            today = datetime.combine(now.astimezone(UTC).date(), clock, clock.tzinfo or UTC)
            yield from (today - DAY, today, today + DAY)
