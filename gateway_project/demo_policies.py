"""The invented company's policies and what they found. They hold for its own teams only, whose keys nobody can use, so
they never touch a real call."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from accounts.models import Team
from policies.documents import RuleSpec
from policies.models import Policy, PolicyVersion
from policies.services import publish, replace_rules, set_assignments

WORDS = "house rules"
LIMITS = "agents"
_RULES = {
    WORDS: (
        RuleSpec("wordlist", "profanity", "redact", settings={"wordlists": ["profanity"]}),
        RuleSpec(
            "wordlist",
            "jailbreak phrases",
            "block",
            stage="request",
            settings={"wordlists": ["dan"]},
            message="This request tries to lift the model's instructions. Ask your question without that.",
        ),
    ),
    LIMITS: (
        RuleSpec("max_tokens", "long answers", "redact", stage="request", settings={"limit": 4096}),
        RuleSpec("loop", "going in circles", "block", stage="request", settings={"repeats": 5}, dry_run=True),
    ),
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is found now and then: in so many of a thousand answered calls."""

    share: float
    policy: str
    rule: str
    stage: str = "request"
    label: str = ""
    failed: bool = False


_KINDS = (
    _Kind(12, WORDS, "profanity", label="profanity"),
    _Kind(4, WORDS, "profanity", "reply", "profanity"),
    _Kind(25, LIMITS, "long answers", label="over the limit"),
    _Kind(6, LIMITS, "going in circles", label="repeated"),
    _Kind(0.5, WORDS, "profanity", label="timeout", failed=True),
)
_BLOCKED = _Kind(0, WORDS, "jailbreak phrases", label="dan")
_WITHOUT_TEXT = "embeddings"


class Findings:
    """`versions`: number of the version in force, by policy."""

    def __init__(self, versions: dict[str, int]) -> None:
        self._versions = versions
        self._rules = {(name, rule.title): rule for name, rules in _RULES.items() for rule in rules}

    def in_call(self, rng: random.Random, event: dict[str, Any]) -> list[dict[str, Any]]:
        """The call's record with what was found in it, for policies.recording; nothing in most calls."""
        found = list(self._kinds(rng, event))
        return [event | {"findings": [self._finding(rng, kind) for kind in found]}] if found else []

    def _kinds(self, rng: random.Random, event: dict[str, Any]) -> Sequence[_Kind]:
        if event["error_code"] == "policy_violation":
            return [_BLOCKED]
        if event["status"] != 200 or event["endpoint"] == _WITHOUT_TEXT:
            return []
        return [kind for kind in _KINDS if rng.random() * 1000 < kind.share]

    def _finding(self, rng: random.Random, kind: _Kind) -> dict[str, Any]:
        rule = self._rules[kind.policy, kind.rule]
        return {
            "policy": kind.policy,
            "version": self._versions[kind.policy],
            "rule": kind.rule,
            "check": rule.check,
            "stage": kind.stage,
            "action": rule.action,
            "label": kind.label,
            "count": 1 + (rng.random() < 0.2),
            "dry_run": rule.dry_run,
            "failed": kind.failed,
        }


def make(teams: Collection[Team], start: datetime) -> Findings:
    """Published at `start` for `teams`. A policy of one of their names is left as it is."""
    for name, rules in _RULES.items():
        defaults = {"description": "For the demo.", "created_at": start}
        policy, made = Policy.objects.get_or_create(name=name, defaults=defaults)
        if made:
            replace_rules(policy, rules)
            set_assignments(policy, teams=teams)
            version = publish(policy, published_as="manage.py seed_demo")
            PolicyVersion.objects.filter(pk=version.pk).update(published_at=start)
    rows = Policy.objects.filter(name__in=_RULES).select_related("current")
    return Findings({row.name: row.current.number if row.current else 0 for row in rows})
