"""Budgets of keys that people make themselves. Another app keeps them and lends them when it is ready
(gateway_project.portal): accounts imports no other app. Amounts are nano-USD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from django.core.exceptions import ValidationError

from accounts.models import ApiKey, Team, User

# Amount (None: no budget) and its window: whether such a key has to be asked for.
NeedsRequest = Callable[[int | None, str], bool]


@dataclass(frozen=True, slots=True)
class Left:
    """Of a budget: what is left in words. `part`: how much of it is spent, 0 to 1."""

    words: str
    part: float


class Budgets(Protocol):
    def beyond(self, team: Team | None, user: User, amount: int, per: str) -> str:
        """Why this is more than the team's or the person's own budget; "" when it is within."""

    def add(self, key: ApiKey, amount: int, per: str) -> None:
        """Raises ValidationError."""

    def of_keys(self, keys: Sequence[ApiKey]) -> dict[int, list[Left]]:
        """How the budgets of these keys themselves stand, by the key's id."""


NONE_HERE = "This gateway keeps no budgets."


class NoBudgets:
    def beyond(self, team: Team | None, user: User, amount: int, per: str) -> str:
        return NONE_HERE

    def add(self, key: ApiKey, amount: int, per: str) -> None:
        raise ValidationError(NONE_HERE)

    def of_keys(self, keys: Sequence[ApiKey]) -> dict[int, list[Left]]:
        return {}


def _never(amount: int | None, per: str) -> bool:
    return False


def _unlimited() -> int | None:
    return None


_budgets: list[Budgets] = [NoBudgets()]
_free_amount: list[Callable[[], int | None]] = [_unlimited]
_needs_request: list[NeedsRequest] = [_never]


def set_budgets(budgets: Budgets) -> None:
    _budgets[:] = [budgets]


def set_needs_request(judge: NeedsRequest) -> None:
    """Above which budget a key has to be asked for. Asked each time a key is made, so it may query."""
    _needs_request[:] = [judge]


def set_free_amount(source: Callable[[], int | None]) -> None:
    """How much a month a key may have that nobody has to ask for. Asked each time, so it may query."""
    _free_amount[:] = [source]


def free_amount() -> int | None:
    """None: as much as one likes."""
    return _free_amount[0]()


def budgets() -> Budgets:
    return _budgets[0]


def needs_request(amount: int | None, per: str) -> bool:
    return _needs_request[0](amount, per)
