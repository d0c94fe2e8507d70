"""Budgets of the keys that people make themselves (accounts.portal.key_budgets)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from django.db.models import Q

from accounts.models import ApiKey, Team, User
from accounts.portal.key_budgets import Left
from usage import budgets
from usage.display import usd
from usage.models import Budget
from usage.spending import Standing, standings

# From the shortest on. Of a longer window as much may be spent as of a shorter one within it, at the least.
WINDOWS = [str(per) for per in Budget.Per]


class OwnBudgets:
    def beyond(self, team: Team | None, user: User, amount: int, per: str) -> str:
        holds = Q(scope="user", user=user)
        if team is not None:
            holds |= Q(scope="team", team=team)
        rows = Budget.objects.filter(holds, enabled=True, unit=Budget.Unit.USD, model="").order_by("limit")
        for budget in rows:
            if WINDOWS.index(budget.per) >= WINDOWS.index(per) and amount > budget.limit:
                whose = "Your own" if budget.scope == Budget.Scope.USER else "The team's"
                return (
                    f"{whose} budget is {amount_text(budget.limit, budget.unit)} {per_text(budget)}: give the key less."
                )
        return ""

    def add(self, key: ApiKey, amount: int, per: str) -> None:
        """Raises ValidationError."""
        budgets.save_budget(Budget(scope=Budget.Scope.KEY, key=key, unit=Budget.Unit.USD, limit=amount, per=per))

    def of_keys(self, keys: Sequence[ApiKey]) -> dict[int, list[Left]]:
        rows = list(Budget.objects.filter(scope=Budget.Scope.KEY, key__in=keys, enabled=True)) if keys else []
        found: dict[int, list[Left]] = defaultdict(list)
        for standing in standings(rows) if rows else []:
            found[standing.budget.key_id or 0].append(left(standing))
        return dict(found)


def left(standing: Standing) -> Left:
    budget = standing.budget
    model = f", {budget.model}" if budget.model else ""
    amounts = f"{amount_text(standing.left, budget.unit)} left of {amount_text(standing.limit, budget.unit)}"
    return Left(f"{amounts} {per_text(budget)}{model}", part_spent(standing))


def part_spent(standing: Standing) -> float:
    """0 to 1, also of a budget that allows nothing."""
    return min(standing.spent / standing.limit, 1.0) if standing.limit else 1.0


def amount_text(amount: int, unit: str) -> str:
    """In what it was set: $50.00, 1,000,000 tokens."""
    return usd(amount) if unit == Budget.Unit.USD else f"{amount:,} tokens"


def per_text(budget: Budget) -> str:
    return "in total" if budget.per == Budget.Per.TOTAL else f"{'an' if budget.per == 'hour' else 'a'} {budget.per}"
