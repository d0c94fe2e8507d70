"""Which price counts: the administrator's own, else the one that ships with genai-prices. Never asks the network.

For building a snapshot (in a thread), not for the hot path.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from usage.models import ModelPrice
from usage.pricing import PER_MTOK, Price, per_mtok

if TYPE_CHECKING:
    from genai_prices import types as genai

DAY = timedelta(days=1)


# What a call in a batch costs, in per cent, at the providers in genai-prices that say so for all of their models.
BATCH_PERCENT = {"openai": 50, "azure": 50, "anthropic": 50, "google": 50, "mistral": 50, "groq": 50}
NOBODYS: Mapping[int, Price] = MappingProxyType({})


class PriceBook:
    """The prices of one moment. `valid_until`: when one of those given out so far ends, or None if none has an end.

    `own` are the prices set here by model, `teams` those of single teams by model and team id.
    """

    def __init__(
        self,
        now: datetime,
        own: dict[str, Price],
        valid_until: datetime | None,
        teams: dict[str, dict[int, Price]] | None = None,
    ) -> None:
        self._now = now
        self._own = own
        self._teams = teams or {}
        self.valid_until = valid_until

    def find(self, model: str, prices_id: str, upstream_model: str, team_id: int | None = None) -> Price | None:
        """The price of a route; None if nobody knows it.

        `model` is the public name, for which a price of ours counts before any other, and the team's own before that.
        `prices_id` is the provider in genai-prices; "" means that it has no list price (self-hosted), and then it is
        not guessed from the name.
        """
        if team_id is not None and team_id in self.team_prices(model):
            return self._teams[model][team_id]
        if model in self._own:
            return self._own[model]
        found = listed_price(prices_id, upstream_model, self._now)
        if found.until is not None and (self.valid_until is None or found.until < self.valid_until):
            self.valid_until = found.until
        return found.price

    def team_prices(self, model: str) -> Mapping[int, Price]:
        """What the model costs teams that have a price of their own, by their id."""
        return self._teams.get(model, NOBODYS)


class PriceHistory:
    """The prices of all times, for pricing calls again."""

    def __init__(self, rows: Iterable[ModelPrice]) -> None:
        """`rows` in the order in which they begin."""
        self._own: dict[tuple[str, int | None], tuple[list[datetime], list[Price]]] = {}
        for row in rows:
            starts, prices = self._own.setdefault((row.model, row.team_id), ([], []))
            starts.append(row.valid_from)
            prices.append(price_of(row))
        # By provider and model: from when to when the listed price counts that was asked for last.
        self._listed: dict[tuple[str, str], tuple[datetime, Listed]] = {}

    def own(self, model: str, team_id: int | None, at: datetime) -> Price | None:
        """What was set here: the team's own price, or else everyone's. None: neither had begun."""
        own = self._began(model, team_id, at) if team_id is not None else None
        return own or self._began(model, None, at)

    def listed(self, prices_id: str, upstream_model: str, at: datetime) -> Price | None:
        """What the list that ships with the gateway says. Quick for calls in the order of their time."""
        since, found = self._listed.get((prices_id, upstream_model), (None, None))
        if since is None or found is None or at < since or (found.until is not None and at >= found.until):
            found = listed_price(prices_id, upstream_model, at)
            self._listed[prices_id, upstream_model] = at, found
        return found.price

    def _began(self, model: str, team_id: int | None, at: datetime) -> Price | None:
        starts, prices = self._own.get((model, team_id), ((), ()))
        begun = bisect_right(starts, at)
        return prices[begun - 1] if begun else None


def price_history() -> PriceHistory:
    """One query."""
    return PriceHistory(ModelPrice.objects.order_by("valid_from", "id"))


def prices_at(now: datetime) -> PriceBook:
    """One query."""
    own: dict[str, Price] = {}
    teams: dict[str, dict[int, Price]] = {}
    upcoming: datetime | None = None
    for row in ModelPrice.objects.order_by("valid_from", "id"):
        if row.valid_from > now:
            upcoming = row.valid_from
            break
        if row.team_id is None:
            own[row.model] = price_of(row)
        else:
            teams.setdefault(row.model, {})[row.team_id] = price_of(row)
    return PriceBook(now, own, upcoming, teams)


def price_of(row: ModelPrice) -> Price:
    plain = {
        "request": row.request_nano_usd,
        "image": row.image_nano_usd,
        "tools": row.tools_nano_usd,
        "batch_percent": row.batch_percent,
    }
    tiers = sorted(row.tiers, key=itemgetter("from_prompt_tokens"), reverse=True)
    return Price(
        input=row.input_nano_usd_per_mtok,
        output=row.output_nano_usd_per_mtok,
        cached=row.cached_nano_usd_per_mtok,
        cache_write=row.cache_write_nano_usd_per_mtok,
        cache_write_1h=row.cache_write_1h_nano_usd_per_mtok,
        reasoning=row.reasoning_nano_usd_per_mtok,
        audio_input=row.audio_input_nano_usd_per_mtok,
        audio_output=row.audio_output_nano_usd_per_mtok,
        image_input=row.image_input_nano_usd_per_mtok,
        image_output=row.image_output_nano_usd_per_mtok,
        **plain,
        tiers=tuple(
            (tier["from_prompt_tokens"], Price(**{name: tier.get(name) for name in TIER_RATES}, **plain))
            for tier in tiers
        ),
    )


# What a tier of a ModelPrice may say, nano-USD per million tokens; input and output always. The rest of the price is
# that of the row.
TIER_RATES = (
    *("input", "output", "cached", "cache_write", "cache_write_1h", "reasoning"),
    *("audio_input", "audio_output", "image_input", "image_output"),
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


class Listed(NamedTuple):
    """The price that ships with the gateway. None: not known. `until`: when it may be another one; None: never."""

    price: Price | None
    until: datetime | None


def listed_price(prices_id: str, upstream_model: str, at: datetime) -> Listed:
    """What the provider's model cost at that time, as far as the list knows."""
    model = _find_model(prices_id, upstream_model)
    if model is None:
        return Listed(None, None)
    return Listed(_listed_price(model, at, BATCH_PERCENT.get(prices_id, 100)), _next_change(model, at))


def _listed_price(model: genai.ModelInfo, now: datetime, batch_percent: int = 100) -> Price | None:
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
    tiers = tuple((start + 1, _flat_price(rates, start + 1, batch_percent)) for start in starts)
    return _flat_price(rates, 0, batch_percent, tiers)


def _flat_price(
    rates: dict[str, Decimal | genai.TieredPrices],
    prompt_tokens: int,
    batch_percent: int,
    tiers: tuple[tuple[int, Price], ...] = (),
) -> Price:
    def rate(*names: str) -> int | None:
        for name in names:
            if name in rates:
                return per_mtok(_rate_at(rates[name], prompt_tokens))
        return None

    def apiece(name: str) -> int:
        return (rate(name) or 0) // 1_000

    tools = {name: nano for name, listed in LISTED_TOOLS.items() if (nano := apiece(listed))}
    citations = (rate("output_citation_mtok") or 0) // PER_MTOK
    return Price(
        input=rate("input_mtok") or 0,
        output=rate("output_mtok") or 0,
        cached=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok", "cache_write_5m_mtok"),
        cache_write_1h=rate("cache_write_1h_mtok"),
        reasoning=rate("output_reasoning_mtok"),
        audio_input=rate("input_audio_mtok"),
        audio_output=rate("output_audio_mtok"),
        image_input=rate("input_image_mtok"),
        image_output=rate("output_image_mtok"),
        request=apiece("requests_kcount"),
        tools={**tools, "citation_tokens": citations} if citations else tools,
        batch_percent=batch_percent,
        tiers=tiers,
    )


# Tools as the adapters name them, and how genai-prices names the price of a thousand calls.
LISTED_TOOLS = {"web_search": "web_searches_kcount", "file_search": "storage_searches_kcount"}


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
