"""Whether the model that a spent budget leads to is cheaper: prices are known to the app that knows the routes."""

from __future__ import annotations

from accounts import catalogue
from accounts.catalogue import PerMtok
from usage.models import Budget

TOLD = 3


def lacks_price(budget: Budget) -> bool:
    """A budget in money could not pay for calls of such a model: they would be refused. Not of one that is gone."""
    return budget.unit == Budget.Unit.USD and catalogue.prices().get(budget.fallback_model, ()) is None


def saves_nothing(budget: Budget) -> str:
    """Which models, of those whose calls count on the budget, cost no more than the one that it leads to, in words; ""
    when every call gets cheaper, or nobody knows."""
    prices = catalogue.prices()
    price = prices.get(budget.fallback_model)
    if budget.on_exhaustion != Budget.OnExhaustion.FALL_BACK or price is None:
        return ""
    replaced = {budget.model: prices.get(budget.model)} if budget.model else prices
    others = sorted(
        name
        for name, old in replaced.items()
        if name != budget.fallback_model and old is not None and not _is_lower(price, old)
    )
    more = f" and {len(others) - TOLD} more" if len(others) > TOLD else ""
    return ", ".join(others[:TOLD]) + more


def _is_lower(price: PerMtok, old: PerMtok) -> bool:
    return price != old and price[0] <= old[0] and price[1] <= old[1]
