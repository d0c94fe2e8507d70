"""Budgets, limits and use as the pages of requests, courses and teams want them (accounts.requests.money): only what is
counted in money and switched on. Every write raises ValidationError."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db.models import Q, QuerySet, Sum
from django.utils import timezone

from accounts.models import User
from accounts.requests.money import BudgetView, UsedRow
from usage import budgets as rows
from usage import reports
from usage.models import Budget, Limit, Rollup
from usage.rollups import floor_day
from usage.spending import default_zone, standings, window_of

COLUMNS = {"user": "user_id", "key": "key_id", "model": "model"}
ROWS = 200


# --- budgets ---------------------------------------------------------------------------------------------------------
def budgets(owners: Sequence[tuple[str, int]]) -> list[BudgetView]:
    """In the order of their kinds: of the team, the person, the keys."""
    of_them = Q(pk__in=())
    for scope in ("team", "user", "key"):
        ids = [owner for of, owner in owners if of == scope]
        if ids:
            of_them |= Q(**{"scope": scope, f"{scope}__in": ids})
    found = _counted().filter(of_them).select_related("team", "user", "key")
    order = {"team": 0, "user": 1, "key": 2}
    return _views(sorted(found, key=lambda row: (order[row.scope], row.pk)))


def budget(budget_id: int) -> BudgetView | None:
    found = _counted().filter(pk=budget_id).exclude(scope="installation").select_related("team", "user", "key")
    return next(iter(_views(list(found))), None)


def _counted() -> QuerySet[Budget]:
    return Budget.objects.filter(enabled=True, unit=Budget.Unit.USD)


def _views(found: list[Budget]) -> list[BudgetView]:
    if not found:
        return []
    return [
        BudgetView(
            id=standing.budget.pk,
            scope=standing.budget.scope,
            owner_id=standing.budget.owner_id or 0,
            owner_name=standing.budget.owner_name,
            model=standing.budget.model,
            per=standing.budget.per,
            limit=standing.budget.limit,
            window_limit=standing.limit,
            spent=standing.spent,
            resets_at=standing.window.end,
        )
        for standing in standings(found)
    ]


def set_budget(budget_id: int, amount: int) -> None:
    row = _locked(budget_id)
    row.limit = amount
    if row.soft is not None and row.soft >= amount:
        row.soft = None  # above the limit it would never be noticed
    rows.save_budget(row)


def top_up_to(budget_id: int, amount: int, reason: str, by: User | None) -> None:
    row = _locked(budget_id)
    window = window_of(row, timezone.now(), default_zone())
    given = row.top_ups.filter(window_start__gte=window.start)
    if window.end is not None:
        given = given.filter(window_start__lt=window.end)
    there = row.limit + sum(given.values_list("amount", flat=True))
    rows.top_up(row, amount - there, reason, by)


def add_budget(scope: str, owner_id: int, amount: int, per: str) -> None:
    row = Budget(scope=scope, limit=amount, per=per)
    setattr(row, f"{scope}_id", owner_id)
    rows.save_budget(row)


def _locked(budget_id: int) -> Budget:
    return Budget.objects.select_for_update().get(pk=budget_id)


def set_own_limits(key_id: int, amount: int | None, per: str, requests_per_minute: int | None) -> None:
    """What is right already is left alone, so that nothing is counted anew."""
    own = list(_counted().filter(scope="key", key=key_id, model=""))
    kept = next((row for row in own if row.per == per), None) if amount is not None else None
    for row in own:
        if row is not kept:
            row.delete()
    if amount is not None and kept is None:
        add_budget("key", key_id, amount, per)
    elif kept is not None and amount is not None and kept.limit != amount:
        kept.limit = amount
        rows.save_budget(kept)
    _set_rate(key_id, requests_per_minute)


def _set_rate(key_id: int, requests_per_minute: int | None) -> None:
    row = Limit.objects.filter(scope="key", key=key_id, model="").first()
    if requests_per_minute is None:
        if row is not None:
            row.delete()
        return
    row = row or Limit(scope=Limit.Scope.KEY, key_id=key_id)
    if row.requests_per_minute != requests_per_minute:
        row.requests_per_minute = requests_per_minute
        rows.save_limit(row)


# --- use -------------------------------------------------------------------------------------------------------------
def used(team_id: int, by: str, since: datetime) -> list[UsedRow]:
    """In whole days (UTC), that of `since` included: from the rollups alone. Two queries."""
    column = COLUMNS[by]
    found = (
        Rollup.objects.filter(grain=Rollup.Grain.DAY, team_id=team_id, start__gte=floor_day(since))
        .order_by()
        .values_list(column)
        .annotate(
            calls=Sum("calls"),
            prompt=Sum("prompt_tokens"),
            completion=Sum("completion_tokens"),
            cost=Sum("cost_nano_usd"),
        )
        .order_by("-cost", "-calls", column)[:ROWS]
    )
    groups = list(found)
    names = reports.names_of(by, [row[0] for row in groups])
    return [
        UsedRow(None if by == "model" else row[0], names.get(row[0], "(nobody)"), row[1], row[2] + row[3], row[4])
        for row in groups
    ]
