"""Which policies use a word list: those in force, and those that would once they are published."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from policies import documents
from policies.documents import RuleSpec
from policies.models import Policy
from policies.selectors import wordlist_settings


@dataclass(frozen=True, slots=True)
class Use:
    """`rules`: titles of the rules that name the list. Not `in_force`: only the working copy names it."""

    policy: Policy
    rules: tuple[str, ...]
    in_force: bool


def uses() -> dict[str, list[Use]]:
    """By the list's name, in two queries."""
    found: dict[str, list[Use]] = defaultdict(list)
    for policy in Policy.objects.select_related("current").prefetch_related("rules").order_by("name"):
        published = documents.read(policy.current.document).rules if policy.current else ()
        in_force = _named(published)
        draft = _named(documents.specs_of(policy.rules.all()))
        for name in sorted({*in_force, *draft}):
            titles = in_force.get(name) or draft.get(name) or ()
            found[name].append(Use(policy, tuple(titles), name in in_force))
    return found


def _named(rules: list[RuleSpec] | tuple[RuleSpec, ...]) -> dict[str, list[str]]:
    """Titles of the rules that name a list, by its name."""
    found: dict[str, list[str]] = defaultdict(list)
    for rule in rules:
        for name in {name for names in wordlist_settings(rule).values() for name in names}:
            found[name].append(rule.title)
    return found
