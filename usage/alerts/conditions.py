"""What is so at present: a rule and the moment -> conditions. Reads only, and remembers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, Sum

from accounts.models import ApiKey
from usage.alert_models import Alert, AlertRule, SignInFailures
from usage.alerts import sources
from usage.display import money
from usage.models import Budget
from usage.spending import Standing, standings

Severity = Alert.Severity
BUDGETS_AT_ONCE = 500
MOST_LISTED = 200


@dataclass(frozen=True, slots=True)
class Condition:
    """`subject` says what is meant, and is the same each time; it has to fit into 400 characters.

    is_bad    worth an alert. False: there is proof that all is well. What is not mentioned is simply not known to be
              bad, which of most kinds is as good; a provider that nobody calls may still be down.
    facts     for webhooks: plain JSON
    """

    subject: str
    is_bad: bool
    severity: str = Severity.WARNING
    title: str = ""
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


Watch = Callable[[AlertRule, datetime], Iterable[Condition]]


# --- budgets --------------------------------------------------------------------------------------------------------
def budgets(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    """Each share that is reached is a subject of its own, in each window."""
    chosen = Budget.objects.filter(enabled=True).select_related("team", "user", "key").order_by("pk")
    if rule.team_id:
        chosen = chosen.filter(Q(team=rule.team_id) | Q(key__team=rule.team_id))
    if rule.model:
        chosen = chosen.filter(model=rule.model)
    last = 0
    while some := list(chosen.filter(pk__gt=last)[:BUDGETS_AT_ONCE]):
        last = some[-1].pk
        for standing in standings(some, now):
            yield from _reached(rule, standing)


def _reached(rule: AlertRule, standing: Standing) -> Iterable[Condition]:
    budget, spent, limit = standing.budget, standing.spent, standing.limit
    window = f"budget {budget.pk} window {standing.window.start:%Y-%m-%dT%H:%M}"
    for threshold in rule.thresholds:
        if limit > 0 and spent * 100 >= limit * threshold:
            severity = Severity.CRITICAL if threshold >= 100 else Severity.WARNING
            yield Condition(
                f"{window} {threshold} %",
                True,
                Severity.INFO if threshold < 80 else severity,
                f"{_owner(budget)}: {threshold} % of the budget is used",
                _budget_text(standing),
                _budget_facts(standing, threshold),
            )
    if rule.soft and budget.soft and spent >= budget.soft:
        yield Condition(
            f"{window} soft",
            True,
            Severity.WARNING,
            f"{_owner(budget)}: the soft limit of the budget is reached",
            f"{_budget_text(standing)} The soft limit is {_amount(budget, budget.soft)}.",
            _budget_facts(standing, None),
        )


def _owner(budget: Budget) -> str:
    kind = "" if budget.scope == Budget.Scope.INSTALLATION else f"{budget.scope.capitalize()} "
    model = f", model {budget.model}" if budget.model else ""
    return f"{kind}{budget.owner_name}{model}"


def _budget_text(standing: Standing) -> str:
    budget, window = standing.budget, standing.window
    when = f"since {window.start:%Y-%m-%d %H:%M}"
    if window.end is not None:
        when = f"from {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M}"
    spent, limit = _amount(budget, standing.spent), _amount(budget, standing.limit)
    share = f", {100 * standing.spent // standing.limit} %" if standing.limit else ""
    text = f"{spent} of {limit}{share}, {when} UTC."
    if standing.spent < standing.limit:
        return text
    return f"{text} {'Its calls are refused.' if budget.on_exhaustion == 'refuse' else 'Its calls fall back.'}"


def _amount(budget: Budget, amount: int) -> str:
    return money(amount) if budget.unit == Budget.Unit.USD else f"{amount:,} tokens"


def _budget_facts(standing: Standing, threshold: int | None) -> dict[str, Any]:
    """Amounts in nano-USD or tokens, as `unit` says."""
    budget, window = standing.budget, standing.window
    return {
        "budget_id": budget.pk,
        "scope": budget.scope,
        "owner": budget.owner_name,
        "model": budget.model,
        "unit": "nano_usd" if budget.unit == Budget.Unit.USD else "tokens",
        "threshold_percent": threshold,
        "spent": standing.spent,
        "limit": standing.limit,
        "soft": budget.soft,
        "per": budget.per,
        "window_start": window.start.isoformat(),
        "window_end": window.end.isoformat() if window.end else None,
    }


# --- blocks, sign-ins, keys -----------------------------------------------------------------------------------------
def repeated_blocks(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    minutes, at_least = rule.minutes or 0, rule.at_least or 1
    for found in sources.repeated_blocks(now - timedelta(minutes=minutes), at_least)[:MOST_LISTED]:
        if rule.team_id in (None, found.team_id):
            yield Condition(
                f"blocks of key {found.key_id}",
                True,
                Severity.WARNING,
                f"Key {found.key_label} is blocked again and again",
                f"Policies blocked {found.blocks:,} of its calls in the last {minutes} minutes.",
                {"key_id": found.key_id, "key": found.key_label, "blocks": found.blocks, "minutes": minutes},
            )


def failed_sign_ins(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    """From one address, or on one account from wherever."""
    minutes = rule.minutes or 0
    recent = SignInFailures.objects.filter(minute__gt=now - timedelta(minutes=minutes))
    for column, words in (("client_ip", "from {}"), ("account", "on the account {}")):
        sums = recent.exclude(**{column: ""}).values(column).annotate(failures=Sum("count"))
        many = sums.filter(failures__gte=rule.at_least or 1).order_by("-failures", column)
        for name, failures in many.values_list(column, "failures")[:MOST_LISTED]:
            yield Condition(
                f"sign-ins {words.format(name)}",
                True,
                Severity.WARNING,
                f"Failed sign-ins {words.format(name)}",
                f"{failures:,} in the last {minutes} minutes.",
                {column: name, "failures": failures, "minutes": minutes},
            )


def expiring_keys(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    """Each key once for each end date that it has had."""
    soon = ApiKey.objects.filter(
        disabled=False, expires_at__gt=now, expires_at__lte=now + timedelta(days=rule.days or 0)
    )
    if rule.team_id:
        soon = soon.filter(team=rule.team_id)
    soon = soon.filter(team__disabled=False).select_related("team", "user").order_by("expires_at", "pk")
    for key in soon:
        assert key.expires_at is not None
        whose = f"team {key.team}" if key.user is None else f"{key.user} in team {key.team}"
        yield Condition(
            f"key {key.pk} expires {key.expires_at:%Y-%m-%dT%H:%M}",
            True,
            Severity.WARNING,
            f"Key {key} expires soon",
            f"It belongs to {whose} and is refused from {key.expires_at:%Y-%m-%d %H:%M} UTC on.",
            {
                "key_id": key.pk,
                "key": str(key),
                "team": key.team.name,
                "user": key.user.username if key.user else None,
                "expires_at": key.expires_at.isoformat(),
            },
        )


def names_of(rule: AlertRule) -> Sequence[str]:
    """What narrows the rule, in words: "team research"."""
    parts = [("team", rule.team and rule.team.name), ("model", rule.model), ("provider", rule.provider)]
    return [f"{what} {name}" for what, name in parts if name]
