"""Conditions of the traffic: error rate, latency, providers that are down or back.

The whole traffic is read from sums by minute. Those are not split by team, model or provider; for one of these the
newest events of the time are read, through the index of it, and never more than EVENTS_READ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from accounts.keyset import distinct_values
from accounts.time_ids import first_id
from usage import histogram
from usage.alert_models import Alert, AlertRule
from usage.alerts.conditions import Condition, names_of
from usage.display import duration
from usage.models import Rollup, UsageEvent

Severity = Alert.Severity
EVENTS_READ = 2_000
# Faults of the gateway itself: they say nothing of a provider.
OUR_OWN = frozenset(
    {
        *("internal_error", "check_failed", "ledger_unavailable", "key_lookup_unavailable", "shutting_down"),
        *("gateway_stopped", "no_provider"),
    }
)
GATEWAY_DIED, CLIENT_LEFT = 0, 499
GOOD_IN_A_ROW = 3


@dataclass(slots=True)
class Calls:
    """`answered` and `failed` calls; refused ones are the caller's own fault, abandoned ones nobody's."""

    answered: int = 0
    failed: int = 0
    latencies: list[int] = field(default_factory=histogram.empty)

    @property
    def total(self) -> int:
        return self.answered + self.failed

    @property
    def failed_percent(self) -> float:
        return 100 * self.failed / self.total if self.total else 0.0


# --- error rate and latency -----------------------------------------------------------------------------------------
def error_rate(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    calls = _calls(rule, now)
    is_bad = calls.total >= (rule.at_least or 1) and calls.failed * 100 >= calls.total * (rule.percent or 0)
    yield Condition(
        _subject("error rate", rule),
        is_bad,
        Severity.CRITICAL,
        f"{calls.failed_percent:.0f} % of calls fail{_of(rule)}",
        f"{calls.failed:,} of {calls.total:,} calls failed in the last {rule.minutes} minutes.",
        {"failed": calls.failed, "calls": calls.total, "minutes": rule.minutes, **_scope(rule)},
    )


def latency(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    calls = _calls(rule, now)
    p95_us = histogram.percentile(calls.latencies, 0.95) or 0
    yield Condition(
        _subject("latency", rule),
        calls.answered >= (rule.at_least or 1) and p95_us > (rule.latency_ms or 0) * 1000,
        Severity.WARNING,
        f"Calls are slow{_of(rule)}: p95 {duration(p95_us)}",
        f"Of {calls.answered:,} calls answered in the last {rule.minutes} minutes one in twenty took longer than that.",
        {"p95_ms": p95_us // 1000, "calls": calls.answered, "minutes": rule.minutes, **_scope(rule)},
    )


def _calls(rule: AlertRule, now: datetime) -> Calls:
    since = now - timedelta(minutes=rule.minutes or 0)
    return _from_events(rule, since) if names_of(rule) else _from_minutes(since)


def _from_minutes(since: datetime) -> Calls:
    calls = Calls()
    rows = Rollup.objects.filter(grain=Rollup.Grain.MINUTE, start__gte=since)
    for outcome, count, latencies in rows.values_list("outcome", "calls", "latency_histogram"):
        if outcome == Rollup.Outcome.FAILED:
            calls.failed += count
        elif outcome == Rollup.Outcome.OK:
            calls.answered += count
            histogram.add(calls.latencies, latencies)
    return calls


def _from_events(rule: AlertRule, since: datetime) -> Calls:
    calls = Calls()
    narrowed = {"team": rule.team_id, "model": rule.model, "provider": rule.provider}
    chosen = {name: value for name, value in narrowed.items() if value}
    rows = UsageEvent.objects.filter(pk__gte=first_id(since), **chosen)
    for status, latency_us in rows.order_by("-pk").values_list("status", "latency_us")[:EVENTS_READ]:
        if status >= 500 or status == GATEWAY_DIED:
            calls.failed += 1
        elif status < 400:
            calls.answered += 1
            calls.latencies[histogram.bucket(latency_us)] += 1
    return calls


def _subject(what: str, rule: AlertRule) -> str:
    return " ".join([what, *names_of(rule)])


def _of(rule: AlertRule) -> str:
    names = ", ".join(names_of(rule))
    return f" of {names}" if names else ""


def _scope(rule: AlertRule) -> dict[str, str | None]:
    return {"team": rule.team.name if rule.team else None, "model": rule.model, "provider": rule.provider}


# --- providers ------------------------------------------------------------------------------------------------------
class Try(NamedTuple):
    """One call that a provider was asked for."""

    at: datetime
    succeeded: bool


def providers(rule: AlertRule, now: datetime) -> Iterable[Condition]:
    """Down: nearly all of the recent calls fail, or are answered by the next provider in its place. Back: the newest
    ones succeed. Without calls nobody knows."""
    minutes = rule.minutes or 0
    for name, tries in sorted(_tries(now - timedelta(minutes=minutes)).items()):
        if rule.provider not in ("", name):
            continue
        tries.sort(reverse=True)
        failed = sum(not one.succeeded for one in tries)
        newest = tries[:GOOD_IN_A_ROW]
        is_down = len(tries) >= (rule.at_least or 1) and failed * 100 >= len(tries) * (rule.percent or 0)
        is_back = all(one.succeeded for one in newest)
        if is_down and not is_back:
            yield Condition(
                f"provider {name}",
                True,
                Severity.CRITICAL,
                f"Provider {name} is down",
                f"{failed:,} of {len(tries):,} calls to it failed in the last {minutes} minutes, or were answered by "
                "another provider in its place.",
                {"provider": name, "failed": failed, "calls": len(tries), "minutes": minutes},
            )
        elif is_back:
            yield Condition(f"provider {name}", False)


def _tries(since: datetime) -> dict[str, list[Try]]:
    """By provider; the newest calls of each, so that a busy one does not hide a quiet one."""
    found: dict[str, list[Try]] = defaultdict(list)
    for at, name, failed_tries in _fallen_back(since):
        for failed in providers_of(failed_tries) - {name}:  # who has answered after all has its own say below
            found[failed].append(Try(at, False))
    for name in distinct_values(UsageEvent, "provider"):
        events = UsageEvent.objects.filter(provider=name, pk__gte=first_id(since), attempts__gte=1).order_by("-pk")
        for at, status, code in events.values_list("at", "status", "error_code")[:EVENTS_READ]:
            if status >= 500 and code not in OUR_OWN:
                found[name].append(Try(at, False))
            elif 0 < status < 500 and status != CLIENT_LEFT:
                found[name].append(Try(at, True))
    return found


def _fallen_back(since: datetime) -> Iterable[tuple[datetime, str, str]]:
    """When, who answered or was asked last, and who had failed before."""
    events = UsageEvent.objects.filter(pk__gte=first_id(since)).exclude(failed_tries="").order_by("-pk")
    return events.values_list("at", "provider", "failed_tries")[:EVENTS_READ]


def providers_of(failed_tries: str) -> set[str]:
    """Their names, without the status each has failed with."""
    tries = (one.partition(":") for one in failed_tries.split(","))
    return {name for name, colon, _ in tries if colon}  # what was too long for its column may end in half a name
