"""What each kind of rule needs to know, what it begins with, and how long all must be well until it is over."""

from __future__ import annotations

from collections.abc import Mapping
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


# Fields of a rule that only count for some kinds.
OF_SOME_KINDS = (
    *("thresholds", "soft", "percent", "latency_ms", "at_least", "minutes", "days"),
    *("team", "model", "provider"),
)
EMPTY: dict[str, Any] = {**dict.fromkeys(OF_SOME_KINDS), "thresholds": [], "soft": True, "model": "", "provider": ""}
# Of the shares of a budget at which a rule fires.
MAX_THRESHOLDS = 20
MOST_PERCENT = 1000


def counts(field: str, kind: str) -> bool:
    """Whether this field of OF_SOME_KINDS is for this kind."""
    return field in KINDS[kind].numbers or field in KINDS[kind].narrowed_by


def fitting(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """OF_SOME_KINDS as a rule of this kind has them: what is not for the kind is empty, and of what is, the empty is
    what the kind begins with."""
    fits: dict[str, Any] = {}
    for name in OF_SOME_KINDS:
        fits[name] = given.get(name, EMPTY[name]) if counts(name, kind) else EMPTY[name]
        if fits[name] in (None, [], "") and name in KINDS[kind].numbers:
            fits[name] = KINDS[kind].numbers[name]
    return fits


def calm_of(rule: AlertRule) -> timedelta:
    calm = KINDS[rule.kind].calm
    return timedelta(minutes=rule.minutes or 0) if calm is None else calm
