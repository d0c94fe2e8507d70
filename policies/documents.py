"""The document of a PolicyVersion: what a policy said when it was published, as JSON and as frozen values.

    {"show_flags": true, "header_overrides": "never", "log_request": false, "log_reply": false, "retention_days": 30,
     "rules": [{"name": "", "check": "wordlist", "action": "block", "block_with": "error", "answer": "",
                "stage": "both", "settings": {"wordlists": ["custom"]}, "message": "", "timeout_ms": 1000,
                "fail_open": false, "dry_run": false, "enabled": true}, ...]}

Documents are kept for years, so a reader takes what is missing at its default and leaves alone what it does not know.
The policy's name and whether it is switched on are not in it: they hold for all its versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from policies.models import Policy, Rule


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One rule as it is written. The words of `action`, `block_with` and `stage` are those of policies.models.Rule."""

    check: str = ""
    name: str = ""
    action: str = "block"
    block_with: str = "error"
    answer: str = ""
    stage: str = "both"
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    message: str = ""
    timeout_ms: int = 1000
    fail_open: bool = False
    dry_run: bool = False
    enabled: bool = True

    @property
    def title(self) -> str:
        """How findings name it."""
        return self.name or self.check


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A published policy. `rules` in order, those that are switched off too."""

    name: str = ""
    version: int = 0
    show_flags: bool = True
    header_overrides: str = "never"
    log_request: bool = False
    log_reply: bool = False
    retention_days: int = 30
    rules: tuple[RuleSpec, ...] = ()


RULE_FIELDS = tuple(one.name for one in fields(RuleSpec))
# Those of the document that are columns of Policy.
POLICY_FIELDS = ("show_flags", "header_overrides", "log_request", "log_reply", "retention_days")


def document_of(policy: Policy) -> dict[str, Any]:
    """The working copy, as it would be published."""
    document: dict[str, Any] = {name: getattr(policy, name) for name in POLICY_FIELDS}
    return document | {"rules": [asdict(spec) for spec in specs_of(policy.rules.all())]}


def specs_of(rules: Iterable[Rule]) -> list[RuleSpec]:
    return [
        RuleSpec(check=rule.check_name, **{name: getattr(rule, name) for name in RULE_FIELDS if name != "check"})
        for rule in rules
    ]


def read(document: Mapping[str, Any], name: str = "", version: int = 0) -> PolicySpec:
    """The document of a version, whichever release of Gatehouse has written it."""
    rules = tuple(RuleSpec(**_known(rule, RULE_FIELDS)) for rule in document.get("rules", ()))
    return PolicySpec(name=name, version=version, **_known(document, POLICY_FIELDS), rules=rules)


def say_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return read(one) == read(other)


def _known(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}
