"""Policies in words: what a rule does, whom a policy holds for, and what has changed between two versions of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from typing import Any

from django.forms.utils import pretty_name
from django.utils import timezone
from django.utils.timesince import timesince

from policies.book import canonical
from policies.checks.base import CHECKS
from policies.documents import POLICY_FIELDS, PolicySpec, RuleSpec
from policies.models import Assignment, Policy, Rule
from policies.types import Action

NAMES_SHOWN = 3
RULE_FIELDS_SHOWN = (
    "name", "enabled", "dry_run", "action", "block_with", "answer", "stage", "message", "timeout_ms", "fail_open",
)  # fmt: skip


# --- one rule -------------------------------------------------------------------------------------------------------
def check_label(name: str) -> str:
    """Of a check that is gone: the name that it had."""
    return CHECKS[name].label if name in CHECKS else f"{name} (no longer there)"


def rule_title(rule: RuleSpec) -> str:
    return rule.name or check_label(rule.check)


def action_label(check: str, action: str) -> str:
    """What the action is called for this check: one clamps, another strips."""
    if action == Action.REDACT:
        return CHECKS[check].change_label if check in CHECKS else "Redact"
    return {"audit": "Record only", "block": "Block"}.get(action, action)


def rule_words(rule: RuleSpec) -> str:
    """In a few words: "Word lists: redact, dry run"."""
    words = [action_label(rule.check, rule.action).lower()]
    words += ["dry run"] if rule.dry_run else []
    words += [] if rule.enabled else ["off"]
    return f"{rule_title(rule)}: {', '.join(words)}"


def rule_lines(rule: RuleSpec) -> list[tuple[str, list[str]]]:
    """(label, values) of all that the rule says, for people to read; of a rule that does not block, not how."""
    settings = [(setting_label(rule.check, name), texts(value)) for name, value in rule.settings.items()]
    unused = () if rule.action == Action.BLOCK else ("block_with", "answer", "message")
    return settings + [
        (_field_label(name), _field_texts(rule, name)) for name in RULE_FIELDS_SHOWN if name not in unused
    ]


def setting_label(check: str, name: str) -> str:
    field = CHECKS[check].SettingsForm.base_fields.get(name) if check in CHECKS else None
    return str(field.label) if field is not None and field.label else pretty_name(name)


def texts(value: Any) -> list[str]:
    """A value of a setting as lines; none for what is empty."""
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if value in (None, "", [], {}):
        return []
    if isinstance(value, list | tuple):
        return [item if isinstance(item, str) else _compact(item) for item in value]
    return str(value).splitlines() if isinstance(value, str | int | float) else [_compact(value)]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _field_label(name: str) -> str:
    label = str(Rule._meta.get_field(name).verbose_name)  # type: ignore[union-attr]
    return label[:1].upper() + label[1:]


def _field_texts(rule: RuleSpec, name: str) -> list[str]:
    value = getattr(rule, name)
    if name == "action":
        return [action_label(rule.check, value)]
    choices = {"block_with": Rule.BlockWith, "stage": Rule.AppliesTo}.get(name)
    return [str(dict(choices.choices).get(value, value))] if choices else texts(value)


# --- a policy -------------------------------------------------------------------------------------------------------
def holds_for(assignments: Iterable[Assignment]) -> str:
    """Needs their teams and keys."""
    rows = list(assignments)
    everyone = ["everyone"] if any(row.scope == Assignment.Scope.EVERYONE for row in rows) else []
    teams = sorted(f"team {row.team.name}" for row in rows if row.team is not None)
    keys = sorted(f"key {row.key.name}" for row in rows if row.key is not None)
    return few(everyone + teams + keys)


def ago(at: datetime) -> str:
    """21 minutes ago"""
    if timezone.now() - at < timedelta(minutes=1):
        return "just now"
    return f"{timesince(at, depth=1)} ago"


def few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


# --- changes --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Line:
    """One thing that reads otherwise now: what is gone, and what is there instead."""

    label: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """`kind`: "added", "removed", "changed" (with `lines`) or "moved", of a rule; "settings", of the policy itself."""

    kind: str
    title: str
    lines: tuple[Line, ...] = ()


def changes(before: PolicySpec, after: PolicySpec) -> list[Change]:
    """What turns one version into the other; none when they say the same.

    Rules have no identity in a document, so those that are alike are taken for the same: first by all that they say,
    then by check and name, then by check.
    """
    found = []
    if lines := _policy_lines(before, after):
        found.append(Change("settings", "The policy itself", lines))
    pairs = _pairs(before.rules, after.rules)
    taken = {position for position, _ in pairs}
    kept = {position: old for old, position in pairs}
    found += [
        Change("removed", rule_title(rule), _all_lines(rule, gone=True))
        for position, rule in enumerate(before.rules)
        if position not in taken
    ]
    moved = _moved(pairs)
    for position, rule in enumerate(after.rules):
        if position not in kept:
            found.append(Change("added", rule_title(rule), _all_lines(rule)))
            continue
        lines = _rule_lines(before.rules[kept[position]], rule)
        lines += (Line("Place", (str(kept[position] + 1),), (str(position + 1),)),) if position in moved else ()
        if lines:
            only_moved = len(lines) == 1 and position in moved
            found.append(Change("moved" if only_moved else "changed", rule_title(rule), lines))
    return found


def _policy_lines(before: PolicySpec, after: PolicySpec) -> tuple[Line, ...]:
    lines = []
    for name in POLICY_FIELDS:
        column: Any = Policy._meta.get_field(name)
        old, new = (
            dict(column.flatchoices).get(value, value) for value in (getattr(before, name), getattr(after, name))
        )
        if old != new:
            label = str(column.verbose_name)
            lines.append(Line(label[:1].upper() + label[1:], tuple(texts(old)), tuple(texts(new))))
    return tuple(lines)


def _rule_lines(before: RuleSpec, after: RuleSpec) -> tuple[Line, ...]:
    lines = []
    for name in (*before.settings, *(name for name in after.settings if name not in before.settings)):
        old, new = before.settings.get(name), after.settings.get(name)
        if old != new:
            lines.append(_line(setting_label(after.check, name), texts(old), texts(new)))
    for name in RULE_FIELDS_SHOWN:
        if getattr(before, name) != getattr(after, name):
            lines.append(_line(_field_label(name), _field_texts(before, name), _field_texts(after, name)))
    return tuple(lines)


def _line(label: str, before: list[str], after: list[str]) -> Line:
    """Of two lists only what is not in both, unless it is their order that differs."""
    gone = tuple(text for text in before if text not in after)
    new = tuple(text for text in after if text not in before)
    return Line(label, gone, new) if gone or new else Line(label, tuple(before), tuple(after))


def _all_lines(rule: RuleSpec, *, gone: bool = False) -> tuple[Line, ...]:
    """What differs from a rule of its kind with nothing set."""
    said = [(label, tuple(values)) for label, values in rule_lines(rule) if values]
    usual = {(label, tuple(values)) for label, values in rule_lines(RuleSpec(check=rule.check))}
    action = _field_label("action")
    return tuple(
        Line(label, values, ()) if gone else Line(label, (), values)
        for label, values in said
        if label == action or (label, values) not in usual
    )


def _pairs(before: Sequence[RuleSpec], after: Sequence[RuleSpec]) -> list[tuple[int, int]]:
    """(position before, position after) of the rules that are the same, changed or not."""
    pairs: list[tuple[int, int]] = []
    old, new = list(range(len(before))), list(range(len(after)))

    def pair(identity: Any) -> None:
        """Those of one identity in their order."""
        waiting: dict[str, list[int]] = {}
        for position in new:
            waiting.setdefault(identity(after[position]), []).append(position)
        for position in list(old):
            if found := waiting.get(identity(before[position])):
                pairs.append((position, found.pop(0)))
                old.remove(position)
                new.remove(pairs[-1][1])

    pair(lambda rule: canonical({"check": rule.check, "settings": rule.settings, "all": rule_lines(rule)}))
    pair(lambda rule: f"{rule.check} {rule.name}")
    pair(lambda rule: rule.check)
    return sorted(pairs)


def _moved(pairs: list[tuple[int, int]]) -> set[int]:
    """New positions of rules that others have not simply made room for."""
    old = [before for before, _ in pairs]
    new = [before for before, _ in sorted(pairs, key=lambda pair: pair[1])]
    stayed: set[int] = set()
    for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        stayed.update(new[block.b : block.b + block.size])
    return {after for before, after in pairs if before not in stayed}
