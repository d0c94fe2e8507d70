"""Budgets and rate limits in words, for whoever they hold for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timeuntil

from usage.models import Budget, Limit
from usage.own_budgets import amount_text, part_spent, per_text
from usage.portal.whose import Whose, budgets_of
from usage.spending import Standing, standings
from usage.windows import UnknownZone, zone_of

SHOWN = 24
NEARLY = 0.8


@dataclass(frozen=True, slots=True)
class Card:
    """One budget. `part`: 0 to 1, for the meter. `kind`: "", near or full."""

    title: str
    left: str
    spent: str
    resets: str
    when_spent: str
    part: float
    kind: str


def cards(whose: Whose) -> list[Card]:
    """Of the budgets that hold, the fullest first. Of what holds for everybody only what is spent: how much others use
    is nobody's business."""
    budgets: list[Any] = budgets_of(whose)
    zone = (budgets[0].zone or "UTC") if budgets else ""
    found = standings(budgets, zone=zone) if budgets else []
    shown = [one for one in found if one.budget.scope != Budget.Scope.INSTALLATION or one.left == 0]
    shown.sort(key=lambda one: (-part_spent(one), ORDER.index(one.budget.scope)))
    return [_card(one, zone) for one in shown[:SHOWN]]


ORDER = ("key", "user", "team", "installation")


def _card(standing: Standing, zone: str) -> Card:
    budget, part = standing.budget, part_spent(standing)
    near = standing.spent >= (budget.soft if budget.soft is not None else NEARLY * standing.limit)
    kind = "full" if standing.left == 0 else "near" if near else ""
    if budget.scope == Budget.Scope.INSTALLATION:
        left, spent = "Nothing left", "Everybody's calls together have used it up."
    else:
        limit = amount_text(standing.limit, budget.unit)
        left = f"{amount_text(standing.left, budget.unit)} left of {limit} {per_text(budget)}"
        spent = f"{amount_text(standing.spent, budget.unit)} spent"
    return Card(title_of(budget), left, spent, resets_text(standing, zone), when_spent(standing), part, kind)


def title_of(row: Budget | Limit) -> str:
    if row.scope == "team" and row.team is not None:
        title = "Just me (personal)" if row.team.personal_of_id else f"Team {row.team}"
    elif row.scope == "key" and row.key is not None:
        title = f"Key {row.key.name}"
    elif row.scope == "user":
        title = "You, with all your keys"
    else:
        title = "Everybody here"
    return f"{title}, {row.model}" if row.model else title


def resets_text(standing: Standing, zone: str) -> str:
    end = standing.window.end
    if end is None:
        return "Does not reset: it is a total. An administrator can raise it."
    now = timezone.now()
    return f"Resets in {timeuntil(end, now, depth=1)}, on {moment_text(end, standing.budget.timezone or zone)}."


def moment_text(moment: datetime, zone: str) -> str:
    """By the clock of the budget's owner, and what that clock is."""
    try:
        return f"{date_format(moment.astimezone(zone_of(zone)), 'j M Y, H:i')} ({zone})"
    except UnknownZone:
        return f"{date_format(moment, 'j M Y, H:i')} (UTC)"


def when_spent(standing: Standing) -> str:
    budget = standing.budget
    falls_back = budget.on_exhaustion == Budget.OnExhaustion.FALL_BACK
    what = f"calls go to {budget.fallback_model}" if falls_back else "calls are refused"
    if standing.left:
        return f"When it is spent, {what}."
    return f"{'For now' if standing.window.end is None else 'Until then'} {what}."


def limit_lines(limits: list[Limit]) -> list[str]:
    """Team research: 60 calls a minute, 10,000 tokens a minute."""
    lines = []
    for limit in limits[:SHOWN]:
        rates: list[tuple[Any, str]] = [
            (limit.requests_per_minute, "calls a minute"),
            (limit.tokens_per_minute, "tokens a minute"),
            (limit.max_parallel, "calls at the same time"),
        ]
        words = ", ".join(f"{rate:,} {what}" for rate, what in rates if rate is not None)
        lines.append(f"{title_of(limit)}: {words}.")
    return lines
