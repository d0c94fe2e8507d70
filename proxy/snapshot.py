"""The configuration as the data plane sees it: immutable, compiled once per change, read without a lock.

`build` reads the database (in a thread); `Holder` keeps the last good one. A row that cannot be used (a credential that
does not decrypt, a kind that is gone) is left out and reported; it does not keep the others from working.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from accounts.encryption import Undecryptable
from proxy import models
from proxy.providers import presets
from proxy.providers.base import Target
from proxy.ssrf import is_public_address
from usage.price_list import NOBODYS, PriceBook, context_window, prices_at
from usage.pricing import Price

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One route of a model: where it goes, and what it costs there (None: not known).

    `team_prices`: what it costs teams that have a price of their own, by their id."""

    target: Target
    price: Price | None
    team_prices: Mapping[int, Price] = field(default_factory=lambda: NOBODYS)

    def price_for(self, team_id: int | None) -> Price | None:
        return self.team_prices.get(team_id, self.price) if team_id is not None else self.price


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """`tiers`: routes that share the calls by weight, in the order in which they are tried. `created`: unix seconds."""

    name: str
    tiers: tuple[tuple[Candidate, ...], ...]
    time_budget_s: float
    created: int
    context_window: int | None
    max_output_tokens: int | None = None

    @property
    def candidates(self) -> Iterator[Candidate]:
        return (candidate for tier in self.tiers for candidate in tier)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`models` by public name and by alias; `entries` once each, in order of name. `providers` by name, with no model:
    for what is asked of them beside calls."""

    models: dict[str, ModelEntry]
    entries: tuple[ModelEntry, ...]
    has_providers: bool
    built_at: float  # time.monotonic()
    stale_at: datetime | None = None  # when a dated price begins to count
    problems: tuple[str, ...] = field(default=())
    providers: dict[str, Target] = field(default_factory=dict)

    def find(self, name: str) -> ModelEntry | None:
        return self.models.get(name)


EMPTY = Snapshot({}, (), False, 0.0)


class Holder:
    """The snapshot in force. `refresh` runs in the watch thread; the event loop only reads `current`."""

    def __init__(self) -> None:
        self.current = EMPTY
        self._confirmed = 0.0

    def refresh(self) -> None:
        """Build and swap. Raises what the database raises; then the last good one stays."""
        self.current = build()
        self.confirm()
        for problem in self.current.problems:
            logger.warning("left out of the configuration: %s", problem)

    def confirm(self) -> None:
        """The watch has just seen that nothing newer exists."""
        self._confirmed = time.monotonic()

    @property
    def is_due(self) -> bool:
        """True when a price with a date has begun to count since the snapshot was built."""
        return self.current.stale_at is not None and datetime.now(UTC) >= self.current.stale_at

    @property
    def age_s(self) -> float:
        """Seconds since it was last known to be what the database says. Infinite before the first one."""
        return time.monotonic() - self._confirmed if self._confirmed else float("inf")


def build() -> Snapshot:
    """Read and compile everything. Three queries and the prices."""
    now = datetime.now(UTC)
    prices = prices_at(now)
    problems: list[str] = []
    providers = {row.pk: row for row in models.Provider.objects.filter(enabled=True)}
    kept = {pk: provider for pk, row in providers.items() if (provider := _provider(row, problems))}
    routes: dict[int, list[models.Route]] = defaultdict(list)
    for route in models.Route.objects.filter(enabled=True, provider_id__in=kept):
        routes[route.model_id].append(route)
    entries: list[ModelEntry] = []
    by_name: dict[str, ModelEntry] = {}
    aliases: dict[str, ModelEntry] = {}
    for row in models.Model.objects.filter(enabled=True):
        entry = _entry(row, routes[row.pk], kept, prices)
        if not entry.tiers:
            problems.append(f"model {row.name} has no usable route")
            continue
        entries.append(entry)
        by_name[row.name] = entry
        aliases.update(dict.fromkeys(row.aliases, entry))
    by_name = aliases | by_name  # a model's own name counts before another's alias
    targets = {settings["provider"]: Target(**settings, upstream_model="") for settings in kept.values()}
    return Snapshot(by_name, tuple(entries), bool(kept), time.monotonic(), prices.valid_until, tuple(problems), targets)


def _entry(
    row: models.Model, routes: Iterable[models.Route], providers: dict[int, dict[str, Any]], prices: PriceBook
) -> ModelEntry:
    candidates = []
    window = row.context_window
    for route in sorted(routes, key=lambda route: (route.order, route.pk)):
        settings = providers[route.provider_id]
        upstream_model = route.upstream_model or row.name
        target = Target(**settings, upstream_model=upstream_model, order=route.order, weight=route.weight)
        prices_id = presets.prices_id(target.kind)
        price = prices.find(row.name, prices_id, upstream_model)
        candidates.append(Candidate(target, price, prices.team_prices(row.name)))
        window = window or context_window(prices_id, upstream_model)
    tiers = tuple(tuple(tier) for _, tier in groupby(candidates, key=lambda candidate: candidate.target.order))
    return ModelEntry(
        row.name, tiers, row.time_budget_s, int(row.created_at.timestamp()), window, row.max_output_tokens
    )


def _provider(row: models.Provider, problems: list[str]) -> dict[str, Any] | None:
    """The provider's part of a Target, or None with the reason added to `problems`."""
    try:
        base_url = (row.base_url or presets.default_base_url(row.kind)).rstrip("/")
        adapter = presets.adapter_for(row.kind)
        if adapter.answer is None:
            _check_literal_address(base_url, row.private_network)
        return {
            "provider": row.name,
            "kind": row.kind,
            "adapter": adapter,
            "base_url": base_url,
            "credential": row.read_credential(),
            "extra_headers": row.read_extra_headers(),
            "api_version": row.api_version or adapter.default_api_version,
            "connect_timeout_s": row.connect_timeout_s,
            "first_byte_timeout_s": row.first_byte_timeout_s,
            "idle_timeout_s": row.idle_timeout_s,
            "ssl": ssl_context(row.tls_verify, row.tls_ca),
            "private_network": row.private_network,
            "caller_key": row.caller_key,
        }
    except (Undecryptable, LookupError, ValueError, ssl.SSLError) as error:
        problems.append(f"provider {row.name}: {error}")
        return None


def _check_literal_address(base_url: str, private_network: bool) -> None:
    """The resolver of the upstream client never sees a literal address, so it is judged here. Raises ValueError."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("its base URL is not an http(s) URL")
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return
    if not private_network and not is_public_address(address):
        raise ValueError("its base URL is in the private network, which is not switched on for it")


@lru_cache(maxsize=64)
def ssl_context(verify: bool, ca_pem: str) -> ssl.SSLContext | bool:
    """True: the usual authorities. Cached, because loading them takes milliseconds."""
    if verify and not ca_pem:
        return True
    context = ssl.create_default_context(cadata=ca_pem or None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
