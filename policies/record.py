"""What the rules found in one call, what failed, and what each of them cost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from policies.errors import Blocked, CheckFailed, PolicyError
from policies.rules import CompiledRule
from policies.types import Action, Finding, Span, Stage

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

FAILED = (
    "A check of this call could not be completed, so it was not let through. "
    "Try again; if it stays so, tell whoever runs this gateway."
)


class Record:
    """The findings of one call, and the failure of a check: it blocks the call unless its rule fails open.

    `spent_ns`: by rule, what its check has used of its time so far. `noted`: how many times anything was found or
    failed.
    """

    __slots__ = ("_counts", "_given_up", "noted", "on_span", "spent_ns")

    def __init__(self, on_span: Callable[[CompiledRule, Stage, Span], None] | None = None) -> None:
        self._counts: dict[tuple[CompiledRule, Stage, str, bool], int] = {}
        self._given_up: set[CompiledRule] = set()
        self.noted = 0
        self.spent_ns: dict[CompiledRule, int] = {}
        self.on_span = on_span

    def note(self, rule: CompiledRule, stage: Stage, label: str, *, failed: bool = False) -> None:
        self.noted += 1
        counted = (rule, stage, label, failed)
        self._counts[counted] = self._counts.get(counted, 0) + 1

    def run(
        self, rule: CompiledRule, stage: Stage, step: Callable[[], Result], *, must_say: bool = False
    ) -> Result | None:
        """`step()` of the rule's check, within its time; None when it has failed and the rule fails open.

        `must_say`: a check that says None has failed.
        A check cannot be interrupted in its work, so its time is judged after each step. Raises CheckFailed.
        """
        if rule in self._given_up:
            return None
        begun = time.perf_counter_ns()
        try:
            result = step()
        except PolicyError:
            raise  # what the check says to the caller itself
        except Exception as error:
            self.fail(rule, stage, type(error).__name__, error)
            return None
        spent = time.perf_counter_ns() - begun
        self.spent_ns[rule] = self.spent_ns.get(rule, 0) + spent
        if spent > rule.timeout_s * 1e9:
            self.fail(rule, stage, "timeout")
            return None
        if result is None and must_say:
            self.fail(rule, stage, "said nothing")
        return result

    def fail(self, rule: CompiledRule, stage: Stage, label: str, error: Exception | None = None) -> None:
        """Raises CheckFailed unless the rule fails open; then it has nothing more to say in this call."""
        self.note(rule, stage, label, failed=True)
        # The error's own text may quote what the check was reading.
        logger.error("the check of rule %s failed: %s", rule.name, label, extra={"policy": rule.policy})
        self._given_up.add(rule)
        if not rule.fail_open:
            raise CheckFailed(FAILED) from error

    def has_given_up(self, rule: CompiledRule) -> bool:
        return rule in self._given_up

    @property
    def is_complete(self) -> bool:
        """Whether every rule that was asked has answered."""
        return not self._given_up

    def findings(self) -> list[Finding]:
        return [
            Finding(
                policy=rule.policy,
                version=rule.version,
                rule=rule.name,
                check=rule.check_name,
                stage=stage,
                action=rule.action,
                label=label,
                count=count,
                dry_run=rule.dry_run,
                failed=failed,
                shown=rule.shown,
            )
            for (rule, stage, label, failed), count in self._counts.items()
        ]

    def flags(self) -> list[str]:
        """Names of the checks that found something and may be named to the caller."""
        return sorted({rule.check_name for rule, *_ in self._counts if rule.shown})

    def __bool__(self) -> bool:
        return bool(self._counts)


def acts(rule: CompiledRule) -> bool:
    """Whether the rule may change or end the call."""
    return rule.action is not Action.AUDIT and not rule.dry_run


def blocks(rule: CompiledRule) -> bool:
    return rule.action is Action.BLOCK and not rule.dry_run


def message_of(rule: CompiledRule, found: str = "") -> str:
    return rule.message or found or rule.check.message


def blocked_by(blocking: Iterable[CompiledRule]) -> Blocked:
    """To be raised: what the caller of a call gets that these rules block, each counted once. An error, unless all
    would rather answer."""
    rules = list(dict.fromkeys(blocking))
    answering = all(rule.block_with == "answer" for rule in rules)
    first = rules[0]
    return Blocked(joined(map(message_of, rules)), (first.answer or message_of(first)) if answering else None)


def joined(messages: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(messages))


def as_json(finding: Finding) -> dict[str, Any]:
    """As it travels in the journal."""
    return {
        "policy": finding.policy,
        "version": finding.version,
        "rule": finding.rule,
        "check": finding.check,
        "stage": finding.stage.value,
        "action": finding.action.value,
        "label": finding.label,
        "count": finding.count,
        "dry_run": finding.dry_run,
        "failed": finding.failed,
    }
