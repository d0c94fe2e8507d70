"""Budgets, limits and use of teams, people and keys, as another app keeps them. It lends them when it is ready
(`set_source`): accounts imports no other app. Amounts are nano-USD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from accounts.models import User

NANO = 1_000_000_000
# How much of each window a month can have: rather too many, so that nothing gets past "up to so much a month".
IN_A_MONTH = {"hour": 744, "day": 31, "week": 5, "month": 1, "total": 1}
MOST = 1_000_000 * NANO


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget in money, and how it stands in its window. `window_limit`: with what was given for this window only."""

    id: int
    scope: str  # team, user or key
    owner_id: int
    owner_name: str
    model: str
    per: str
    limit: int
    window_limit: int
    spent: int
    resets_at: datetime | None

    @property
    def amount_text(self) -> str:
        return amount_text(self.limit, self.per)

    @property
    def spent_text(self) -> str:
        return usd(self.spent)

    @property
    def window_limit_text(self) -> str:
        return usd(self.window_limit)

    @property
    def percent(self) -> int:
        return min(100, 100 * self.spent // self.window_limit) if self.window_limit else 100


@dataclass(frozen=True, slots=True)
class UsedRow:
    """What one person, key or model used."""

    id: int | None
    name: str
    calls: int
    tokens: int
    cost: int

    @property
    def cost_text(self) -> str:
        return usd(self.cost)


class Money(Protocol):
    """Every write raises ValidationError."""

    def budgets(self, owners: Sequence[tuple[str, int]]) -> list[BudgetView]:
        """Of owners such as ("team", 7): what is enabled and counted in money. A few queries, however many."""

    def budget(self, budget_id: int) -> BudgetView | None: ...

    def set_budget(self, budget_id: int, amount: int) -> None: ...

    def top_up_to(self, budget_id: int, amount: int, reason: str, by: User | None) -> None:
        """Makes this window's limit `amount`."""

    def add_budget(self, scope: str, owner_id: int, amount: int, per: str) -> None: ...

    def set_own_limits(self, key_id: int, amount: int | None, per: str, requests_per_minute: int | None) -> None:
        """Makes these the only budget in money and the rate limit of a key that count every model."""

    def used(self, team_id: int, by: str, since: datetime) -> list[UsedRow]:
        """By "user", "key" or "model", the dearest first."""


_source: list[Money] = []


def set_source(money: Money) -> None:
    _source[:] = [money]


def source() -> Money:
    return _source[0]


# --- in words --------------------------------------------------------------------------------------------------------
def usd(nano: int) -> str:
    amount = Decimal(nano) / NANO
    if amount == amount.quantize(Decimal("0.01")) or amount >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.9f}".rstrip("0")


def amount_text(nano: int | None, per: str) -> str:
    """$5.00 a month."""
    if nano is None:
        return ""
    return f"{usd(nano)} in total" if per == "total" else f"{usd(nano)} {'an' if per == 'hour' else 'a'} {per}"


def per_month(nano: int, per: str) -> int:
    return nano * IN_A_MONTH[per]
