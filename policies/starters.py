"""Policies to begin with: rules that a new policy may be filled with, to be looked at, changed and tried."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from policies.documents import RuleSpec


@dataclass(frozen=True, slots=True)
class Starter:
    """`slug` stands in the URL, `name` and `description` become the policy's."""

    slug: str
    icon: str
    title: str
    explanation: str
    name: str
    description: str
    rules: tuple[RuleSpec, ...]


def _rule(check: str, action: str, stage: str = "both", **fields: Any) -> RuleSpec:
    return RuleSpec(check=check, action=action, stage=stage, **fields)


_WORDS = (
    _rule("wordlist", "redact", name="profanity", settings={"wordlists": ["profanity"]}),
    _rule(
        "wordlist",
        "block",
        "request",
        name="jailbreak phrases",
        settings={"wordlists": ["dan"]},
        message="This request tries to lift the model's instructions. Ask your question without that.",
    ),
)
_LIMITS = (
    _rule("max_tokens", "redact", "request", settings={"limit": 4096, "missing_counts": True}),
    _rule("max_prompt_chars", "block", "request", settings={"limit": 100_000}),
    _rule("loop", "block", "request", settings={"repeats": 5, "within_s": 120}),
)
_SECRETS = (
    _rule("prompt_reflection", "redact", "reply", settings={"delimiter": "||"}),
    _rule("prompt_leak", "redact", "reply", settings={"window_words": 8}),
    _rule("unicode", "redact", "request", settings={"invisible": True, "bidirectional": True, "look_alikes": True}),
)

STARTERS = (
    Starter(
        "words",
        "dictionary",
        "Word lists",
        "Masks profanity in requests and replies, and refuses phrases that try to lift the model's instructions.",
        "words",
        "Keeps profanity out of requests and replies.",
        _WORDS,
    ),
    Starter(
        "limits",
        "speed",
        "Limits",
        "Caps how long prompts and replies may be, and stops an app that asks the same thing again and again.",
        "limits",
        "Keeps calls to a sensible size.",
        _LIMITS,
    ),
    Starter(
        "secrets",
        "lock",
        "Keep instructions in",
        "Masks the system prompt where a reply recites it, and takes out characters that hide instructions.",
        "instructions",
        "Keeps the system prompt out of replies.",
        _SECRETS,
    ),
    Starter(
        "watch",
        "visibility",
        "Watch first",
        "All these rules in dry run: they record what they would do, and leave every call as it is.",
        "watch",
        "What rules would find, before they do anything.",
        tuple(replace(rule, dry_run=True) for rule in (*_WORDS, *_LIMITS, *_SECRETS)),
    ),
)


def starter(slug: str) -> Starter | None:
    return next((one for one in STARTERS if one.slug == slug), None)
