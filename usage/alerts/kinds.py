"""What each kind of rule needs to know, what it begins with, and how long all must be well until it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from usage.alert_models import AlertRule

Kind = AlertRule.Kind


@dataclass(frozen=True, slots=True)
class KindOfRule:
    """`numbers`: the fields of a rule that count, with what they are when nothing is said.

    narrowed_by    the fields that can narrow such a rule: team, model, provider
    once           the same subject never fires again: it names the window or the day
    says_over      there is something to tell when it is over
    calm           how long all must be well; None: as long as the rule looks back
    """

    numbers: dict[str, Any]
    narrowed_by: tuple[str, ...] = ()
    once: bool = False
    says_over: bool = False
    calm: timedelta | None = field(default=timedelta(minutes=10))


KINDS: dict[str, KindOfRule] = {
    Kind.BUDGET: KindOfRule(
        {"thresholds": [50, 80, 100], "soft": True}, narrowed_by=("team", "model"), once=True, calm=timedelta(0)
    ),
    Kind.ERRORS: KindOfRule(
        {"percent": 10, "at_least": 20, "minutes": 10}, narrowed_by=("team", "model", "provider"), says_over=True
    ),
    Kind.LATENCY: KindOfRule(
        {"latency_ms": 60_000, "at_least": 20, "minutes": 15},
        narrowed_by=("team", "model", "provider"),
        says_over=True,
    ),
    # Calls that succeed are proof enough.
    Kind.PROVIDER: KindOfRule(
        {"percent": 90, "at_least": 5, "minutes": 5}, narrowed_by=("provider",), says_over=True, calm=timedelta(0)
    ),
    Kind.BLOCKS: KindOfRule({"at_least": 20, "minutes": 10}, narrowed_by=("team",), calm=None),
    Kind.SIGN_IN: KindOfRule({"at_least": 10, "minutes": 10}, calm=None),
    Kind.KEY_EXPIRY: KindOfRule({"days": 14}, narrowed_by=("team",), once=True, calm=timedelta(0)),
}


def calm_of(rule: AlertRule) -> timedelta:
    calm = KINDS[rule.kind].calm
    return timedelta(minutes=rule.minutes or 0) if calm is None else calm
