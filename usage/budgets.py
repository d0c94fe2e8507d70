"""Every change of budgets, top-ups, rate limits and the settings of money.

What they write is live within a second: each save and delete bumps the version of the limits in its transaction
(usage.apps). Whoever adds a bulk write here must bump by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, cast

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import catalogue, versions
from accounts.models import User
from usage.models import Budget, Limit, MoneySettings, TopUp
from usage.pricing import NANO
from usage.spending import default_zone, window_of
from usage.windows import UnknownZone, zone_of

OWNERS = ("team", "user", "key")
# What has been counted was counted of these calls, in this unit: another budget is made instead.
FIXED = ("scope", *OWNERS, "model", "unit")
RATES = ("requests_per_minute", "tokens_per_minute", "max_parallel")
MAX_RATE = 2**31 - 1
# Far from what a 64-bit column holds, so that sums of many stay in it.
MOST = {Budget.Unit.USD: 1_000_000_000 * NANO, Budget.Unit.TOKENS: 10**15}
MONEY_ROW = 1
CURRENCY_LETTERS = 3


def limits_changed(**_kwargs: Any) -> None:
    """Signal receiver: one of these rows was saved or deleted, by whatever."""
    versions.bump(versions.LIMITS)


# --- budgets --------------------------------------------------------------------------------------------------------
def save_budget(budget: Budget) -> None:
    """Raises ValidationError."""
    check_budget(budget)
    budget.full_clean()
    budget.save()


def check_budget(budget: Budget) -> None:
    """What no single field can tell. Raises ValidationError with the field of each mistake."""
    before = Budget.objects.filter(pk=budget.pk).first() if budget.pk else None
    wrong = _wrong_owner(budget, before) | _wrong_amounts(budget) | _wrong_models(budget, before)
    if before is not None and budget.unit != before.unit:
        wrong["unit"] = "It has been counted in this unit: make another budget instead."
    if budget.timezone and (problem := zone_problem(budget.timezone)):
        wrong["timezone"] = problem
    if wrong:
        raise ValidationError(wrong)


def _wrong_amounts(budget: Budget) -> dict[str, str]:
    most = MOST.get(cast(Budget.Unit, budget.unit), 0)
    wrong = {}
    if budget.limit is not None and not 0 <= budget.limit <= most:
        wrong["limit"] = f"Must be between 0 and {_amount(most, budget.unit)}."
    if budget.soft is not None and not 0 < budget.soft < (budget.limit or 0):
        wrong["soft"] = "Must be more than 0 and less than the limit, or it would never be noticed."
    return wrong


def _wrong_models(budget: Budget, before: Budget | None) -> dict[str, str]:
    """Also tidies: a budget that refuses names no cheaper model."""
    if budget.on_exhaustion != Budget.OnExhaustion.FALL_BACK:
        budget.fallback_model = ""
    if budget.on_exhaustion == Budget.OnExhaustion.FALL_BACK and not budget.fallback_model:
        return {"fallback_model": "Name the model that calls go to."}
    if budget.fallback_model and budget.fallback_model == budget.model:
        return {"fallback_model": "Is the model of this budget itself: it is spent as well."}
    if budget.fallback_model and (before is None or budget.fallback_model != before.fallback_model):
        return _unknown_model("fallback_model", budget.fallback_model)
    return {}


# --- top-ups --------------------------------------------------------------------------------------------------------
@transaction.atomic
def top_up(budget: Budget, amount: int, reason: str, by: User | None, at: datetime | None = None) -> TopUp:
    """More for the window of `at` (default: now), in the budget's unit; a negative amount takes an earlier one back.
    Raises ValidationError."""
    # Locked: two that each leave something could together take the limit below zero.
    budget = Budget.objects.select_for_update().get(pk=budget.pk)
    window = window_of(budget, at or timezone.now(), default_zone())
    rows = budget.top_ups.filter(window_start__gte=window.start)
    given = rows if window.end is None else rows.filter(window_start__lt=window.end)
    before = budget.limit + sum(given.values_list("amount", flat=True))
    if amount == 0:
        raise ValidationError({"amount": "Must not be 0."})
    if not reason.strip():
        raise ValidationError({"reason": "Say why: it stays in the history."})
    if before + amount < 0:
        raise ValidationError({"amount": f"Takes more than there is: {_amount(max(before, 0), budget.unit)} at most."})
    if before + amount > MOST[cast(Budget.Unit, budget.unit)]:
        raise ValidationError({"amount": "Is too much: the limit would be beyond what a budget may have."})
    row = TopUp(budget=budget, amount=amount, window_start=window.start, reason=reason.strip(), by=by)
    row.clean_fields(exclude=["by"])
    row.save()
    return row


# --- rate limits ----------------------------------------------------------------------------------------------------
def save_limit(limit: Limit) -> None:
    """Raises ValidationError."""
    check_limit(limit)
    limit.full_clean()
    limit.save()


def check_limit(limit: Limit) -> None:
    """What no single field can tell. Raises ValidationError with the field of each mistake."""
    before = Limit.objects.filter(pk=limit.pk).first() if limit.pk else None
    wrong = _wrong_owner(limit, before)
    given = {name: getattr(limit, name) for name in RATES if getattr(limit, name) is not None}
    for name, rate in given.items():
        if not 1 <= rate <= MAX_RATE:
            wrong[name] = f"Must be between 1 and {MAX_RATE:,}; to stop all calls, disable the key or the team."
    if not given:
        wrong["requests_per_minute"] = "Give at least one of the three. To lift a limit, delete it."
    if limit.pk is None and not wrong and _same_limit(limit) is not None:
        wrong["scope"] = "There is a limit for this already: change that one."
    if wrong:
        raise ValidationError(wrong)


def _same_limit(limit: Limit) -> Limit | None:
    same = {"scope": limit.scope, "model": limit.model, **{f"{name}_id": _owner_ids(limit)[name] for name in OWNERS}}
    return Limit.objects.filter(**same).first()


# --- settings of money ----------------------------------------------------------------------------------------------
def money_settings() -> MoneySettings:
    """The one row; as it is by default where nobody has saved it yet."""
    return MoneySettings.objects.order_by("pk").first() or MoneySettings(pk=MONEY_ROW)


def save_money_settings(row: MoneySettings) -> None:
    """Raises ValidationError."""
    check_money_settings(row)
    row.full_clean()
    row.pk = row.pk or MONEY_ROW
    row.save()


def check_money_settings(row: MoneySettings) -> None:
    """Also tidies: currencies are written in capitals. Raises ValidationError with the field of each mistake."""
    wrong = {}
    if problem := zone_problem(row.timezone):
        wrong["timezone"] = problem
    row.currency = (row.currency or "").upper()
    if not (len(row.currency) == CURRENCY_LETTERS and row.currency.isascii() and row.currency.isalpha()):
        wrong["currency"] = "Must be three letters, such as EUR."
    if row.units_per_usd is not None and row.units_per_usd <= 0:
        wrong["units_per_usd"] = "Must be more than 0."
    elif row.currency == "USD" and row.units_per_usd != 1:
        wrong["units_per_usd"] = "One US dollar is 1 US dollar: choose another currency, or write 1."
    for name in ("default_max_tokens", "throttle_s", "blocks_to_throttle", "events_kept_days", "rollups_kept_days"):
        if getattr(row, name) == 0:
            wrong[name] = "Must be at least 1."
    if wrong:
        raise ValidationError(wrong)


# --- whom it is for -------------------------------------------------------------------------------------------------
def _wrong_owner(row: Budget | Limit, before: Budget | Limit | None) -> dict[str, str]:
    """Exactly the field that the scope names is set, its model exists, and none of it has changed."""
    owners = _owner_ids(row)
    if before is not None:
        if (row.scope, row.model, owners) != (before.scope, before.model, _owner_ids(before)):
            return {"scope": "Whose calls count cannot be changed: make another one instead."}
        return {}
    wrong = {}
    for name, owner_id in owners.items():
        if name == row.scope and owner_id is None:
            wrong[name] = "Choose whose calls count."
        elif name != row.scope and owner_id is not None:
            wrong[name] = f"Must be empty: this is for {row.get_scope_display().lower()}."
    return wrong | _unknown_model("model", row.model)


def _owner_ids(row: Budget | Limit) -> dict[str, int | None]:
    return {name: getattr(row, f"{name}_id") for name in OWNERS}


def _unknown_model(field: str, name: str) -> dict[str, str]:
    if not name or name in catalogue.model_names():
        return {}
    return {field: f"There is no model {name!r}. An alias does not do: name the model itself."}


def zone_problem(name: str) -> str:
    """Why this is no time zone; "" if it is one. Nor is a name such as `localtime`, `posixrules` or `right/UTC`, which
    only some machines know, and each as something else."""
    try:
        zone_of(name)
    except UnknownZone:
        known = False
    else:
        known = name in _zones_everywhere()
    return "" if known else f"{name!r} is no time zone. Write one such as Europe/Berlin, America/New_York or UTC."


@cache
def _zones_everywhere() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def owned_by(rows: Any, scope: str, owner_id: int | None) -> Any:
    """Of `rows` (budgets or limits) those for this owner; None: of the installation, or of each client IP."""
    return rows.filter(scope=scope, **({f"{scope}_id": owner_id} if scope in OWNERS else {}))


def delete_each(rows: Iterable[Budget | Limit]) -> None:
    for row in rows:
        row.delete()


def _amount(amount: int, unit: str) -> str:
    return f"${amount // NANO:,}" if unit == Budget.Unit.USD else f"{amount:,} tokens"
