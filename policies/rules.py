"""A rule ready for work: what the engine reads. Made by policies.book when the configuration changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policies.checks.base import Check, Scanner
from policies.fold import Folded
from policies.types import Action, Exchange, Found, Scan, Stage


@dataclass(frozen=True, slots=True, eq=False)
class CompiledRule:
    """One rule of a published version. Each is only equal to itself: engines count by it.

    policy, version   names for the record
    name              the rule's own, or else its check's
    check             the compiled instance; rules with the same settings may share it
    check_name        what findings, metrics and x-gatehouse-flags call it (also when there is no such check)
    block_with        "error" or "answer"
    answer            the text of that answer; "": the message
    stages            where it looks; never empty, always places where its check can look
    message           for the caller of a blocked call; "": the finding's or the check's own
    timeout_s         more time than this for one look at a text, and the check has failed
    shown             its check may be named to the caller
    """

    policy: str
    version: int
    name: str
    check: Check
    check_name: str
    action: Action = Action.BLOCK
    block_with: str = "error"
    answer: str = ""
    stages: frozenset[Stage] = frozenset(Stage)
    message: str = ""
    timeout_s: float = 1.0
    fail_open: bool = False
    dry_run: bool = False
    shown: bool = True


class NotCompiled(Exception):
    """A rule in force whose check cannot work: it is gone, or a word list that it needs is."""


class Uncompiled(Check):
    """Stands for a check that could not be compiled. Fails at every moment, so that the call is blocked unless the rule
    fails open, in the stages of the rule and nowhere else."""

    name = "uncompiled"
    label = "Not compiled"
    help = "The check of this rule cannot be used."

    def __init__(self) -> None:
        """Nothing to compile."""

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        raise NotCompiled

    def for_call(self, exchange: Exchange) -> Scanner | None:
        raise NotCompiled

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        raise NotCompiled
