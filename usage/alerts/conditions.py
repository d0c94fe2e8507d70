"""What is so at present: a rule and the moment -> conditions. Reads only, and remembers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import OuterRef, Q, Subquery, Sum

from accounts.models import ApiKey
from usage.alert_models import Alert, AlertRule, SignInFailures
from usage.alerts import sources
from usage.display import money
from usage.models import Budget, TopUp, UsageEvent
from usage.spending import Standing, standings

Severity = Alert.Severity
BUDGETS_AT_ONCE = 500
MOST_LISTED = 200
EACH = {"hour": "an hour", "day": "a day", "week": "a week", "month": "a month", "total": "in total"}
FULL = 100  # per cent
# From this share on a budget without room for a call is as good as spent.
NEARLY = 80
JUST_NOW = timedelta(minutes=2)


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
    """The highest share that is reached, a subject of its own in each window and of each limit: what was added by a
    top-up can be used up as well."""
    chosen = Budget.objects.filter(enabled=True).select_related("team", "user", "key").order_by("pk")
    if rule.team_id:
        chosen = chosen.filter(Q(team=rule.team_id) | Q(key__team=rule.team_id))
    if rule.model:
        chosen = chosen.filter(model=rule.model)
    last = 0
    while some := list(chosen.filter(pk__gt=last)[:BUDGETS_AT_ONCE]):
        last = some[-1].pk
        reached = standings(some, now)
        without_room = _last_without_room(reached) if FULL in rule.thresholds else {}
        for standing in reached:
            yield from _reached(rule, standing, without_room.get(standing.budget.pk), now)


def _last_without_room(reached: Iterable[Standing]) -> dict[int, datetime]:
    """When each of those that are not spent had, in this window and since its last top-up, no room for a call: it was
    refused, or fell back."""
    begun = {one.budget.pk: one.window.start for one in reached if one.spent < one.limit}
    events = UsageEvent.objects.filter(spent_budget_id=OuterRef("pk")).order_by("-pk")
    top_ups = TopUp.objects.filter(budget=OuterRef("pk")).order_by("-pk")
    rows = Budget.objects.filter(pk__in=list(begun)).annotate(
        last=Subquery(events.values("at")[:1]), topped_up=Subquery(top_ups.values("at")[:1])
    )
    return {
        pk: last
        for pk, last, topped_up in rows.values_list("pk", "last", "topped_up")
        if last is not None and last >= max(begun[pk], topped_up or begun[pk])
    }


def _reached(rule: AlertRule, standing: Standing, without_room: datetime | None, now: datetime) -> Iterable[Condition]:
    """`without_room`: see _last_without_room. Near its end such a budget is as good as spent, and that is told as the
    share of 100 % is. With much left it is rather the call that was too dear: a subject of its own, so that it does not
    use up the alert of the end."""
    budget, spent, limit = standing.budget, standing.spent, standing.limit
    if without_room is not None and spent * 100 >= limit * NEARLY:
        yield _exhausted(standing)
    else:
        if share := max((each for each in rule.thresholds if 0 < limit * each <= spent * 100), default=0):
            yield _share(standing, share)
        if (
            without_room is not None and now - without_room < JUST_NOW
        ):  # not for long: meanwhile its limit may be another
            yield _too_dear(standing)
    if rule.soft and budget.soft and spent >= budget.soft:
        yield Condition(
            f"{_window(standing)} soft",
            True,
            Severity.WARNING,
            f"{_owner(budget)}: the soft limit of {_budget(standing)} is reached",
            f"{_budget_text(standing)} The soft limit is {_amount(budget, budget.soft)}.",
            _budget_facts(standing, None),
        )


def _share(standing: Standing, share: int) -> Condition:
    severity = Severity.CRITICAL if share >= FULL else Severity.WARNING if share >= NEARLY else Severity.INFO
    return Condition(
        f"{_limit(standing)} {share} %",
        True,
        severity,
        f"{_owner(standing.budget)}: {share} % of {_budget(standing)} is used",
        _budget_text(standing),
        _budget_facts(standing, share),
    )


def _exhausted(standing: Standing) -> Condition:
    return Condition(
        f"{_limit(standing)} {FULL} %",
        True,
        Severity.CRITICAL,
        f"{_owner(standing.budget)}: {_budget(standing)} is exhausted",
        f"{_budget_text(standing)} What is left is less than a call may cost: calls are {_kept_out(standing.budget)}.",
        {**_budget_facts(standing, FULL), "no_room": True},
    )


def _too_dear(standing: Standing) -> Condition:
    return Condition(
        f"{_limit(standing)} too dear",
        True,
        Severity.WARNING,
        f"{_owner(standing.budget)}: a call may cost more than is left of {_budget(standing)}",
        f"{_budget_text(standing)} Such calls are {_kept_out(standing.budget)}; those that ask for less (max_tokens) "
        "are not.",
        {**_budget_facts(standing, None), "no_room": True},
    )


def _kept_out(budget: Budget) -> str:
    return "refused" if budget.on_exhaustion == Budget.OnExhaustion.REFUSE else "sent to a cheaper model"


def _window(standing: Standing) -> str:
    return f"budget {standing.budget.pk} window {standing.window.start:%Y-%m-%dT%H:%M}"


def _limit(standing: Standing) -> str:
    """With top-ups, in nano-USD or tokens."""
    return f"{_window(standing)} limit {standing.limit}"


def _budget(standing: Standing) -> str:
    """Tells an owner's budgets apart."""
    return f"the budget of {_amount(standing.budget, standing.limit)} {EACH[standing.budget.per]}"


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
