"""Usage Panda's request headers: a caller changes the rules of its own call, where a policy says that callers may.

A policy with `tighten` only takes what makes it stricter: the caller's rules are added to its own. One with `loosen` is
replaced in what the header is about. Policies that allow neither stay as they are, so nobody loosens what was set for
somebody above. Names and value formats are Usage Panda's (its documentation, "Policies").

    x-usagepanda-max-tokens, -max-prompt-chars     a number; 0 is off
    x-usagepanda-enforce-user-ids, -auto-moderate  true, anything else is off
    x-usagepanda-request-wordlists, -response-wordlists     name:action, ... with profanity, adult, dan, custom and
                                                            audit, redact, block
    x-usagepanda-prompt-reflection                 none, audit, redact, block
    x-usagepanda-retry-count                       0 to 5; more counts as 5
    x-usagepanda-log-request, -log-response        true, anything else is off
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError

from policies.book import WORDLISTS_OF_HEADERS
from policies.checks.base import CHECKS, World, clean_settings
from policies.documents import PolicySpec
from policies.engine import Chain
from policies.rules import CompiledRule
from policies.types import Action, Stage

PREFIX = b"x-usagepanda-"
MOST_RETRIES = 5
KEPT = 256  # sets of headers per chain whose rules are kept

Given = tuple[tuple[str, str], ...]  # name without the prefix, value as sent; in order of name


class BadOverride(Exception):
    """A header cannot be understood. The message is for the caller."""

    def __init__(self, header: str, wanted: str) -> None:
        super().__init__(f"The header x-usagepanda-{header} must be {wanted}.")


class Wanted(NamedTuple):
    """What one header asks for: a check at a stage with these settings. `settings` None: that there be none."""

    check: str
    stages: frozenset[Stage]
    action: Action
    settings: dict[str, object] | None


BOTH, REQUEST, REPLY = frozenset(Stage), frozenset({Stage.REQUEST}), frozenset({Stage.REPLY})


def given(headers: Mapping[bytes, bytes]) -> Given:
    """The headers that are about rules; () for nearly every call."""
    if NAMES.isdisjoint(headers):
        return ()
    return tuple(
        sorted(
            (name[len(PREFIX) :].decode(), headers[name].decode("latin-1").strip().lower())
            for name in NAMES.intersection(headers)
        )
    )


def overridden(chain: Chain, asked: Given, world: World) -> Chain:
    """The chain with the caller's wishes, as far as its policies allow them. Raises BadOverride."""
    if not any(policy.header_overrides != "never" for policy in chain.policies):
        return chain
    known = chain.overridden.get(asked)
    if known is None:
        if len(chain.overridden) >= KEPT:
            chain.overridden.clear()
        known = chain.overridden[asked] = _override(chain, asked, world)
    return known


def _override(chain: Chain, asked: Given, world: World) -> Chain:
    wishes = [(header, wish) for header, value in asked if header in READERS for wish in READERS[header](header, value)]
    rules = list(chain.rules)
    policies = list(chain.policies)
    for place, policy in enumerate(policies):
        if policy.header_overrides == "never":
            continue
        loosens = policy.header_overrides == "loosen"
        if loosens:
            rules = [kept for rule in rules if (kept := _left_of(rule, policy, wishes)) is not None]
        rules += [_compile(header, wish, policy, world) for header, wish in wishes if wish.settings is not None]
        policies[place] = replace(policy, **_logging(policy, asked, loosens))
    return Chain(rules, policies)


def _left_of(rule: CompiledRule, policy: PolicySpec, wishes: list[tuple[str, Wanted]]) -> CompiledRule | None:
    """What the headers are not about: a rule for both sides goes on looking at the other one."""
    about = [wish.stages for _, wish in wishes if wish.check == rule.check_name and rule.policy == policy.name]
    stages = rule.stages.difference(*about)
    if stages == rule.stages:
        return rule
    return replace(rule, stages=stages) if stages else None


def _logging(policy: PolicySpec, asked: Given, loosens: bool) -> dict[str, Any]:
    """Keeping texts may always be asked for; only where callers may loosen may they ask that nothing be kept."""
    changes: dict[str, Any] = {}
    for header, value in asked:
        field = LOGGING.get(header)
        if field is not None and (loosens or value == "true"):
            changes[field] = value == "true"
    return changes


def _compile(header: str, wish: Wanted, policy: PolicySpec, world: World) -> CompiledRule:
    kind = CHECKS[wish.check]
    try:
        check = kind(clean_settings(kind, wish.settings or {}), world)
    except (ValidationError, LookupError) as error:
        raise BadOverride(header, "something that is set up here: ask whoever runs this gateway") from error
    return CompiledRule(
        policy=policy.name,
        version=policy.version,
        name=f"x-usagepanda-{header}",
        check=check,
        check_name=wish.check,
        action=wish.action,
        stages=wish.stages & kind.stages,
        timeout_s=kind.default_timeout_ms / 1000,
        shown=policy.show_flags,
    )


# --- what the headers say -------------------------------------------------------------------------------------------


def _limit(check: str) -> Callable[[str, str], list[Wanted]]:
    def read(header: str, value: str) -> list[Wanted]:
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            raise BadOverride(header, "a whole number; 0 switches it off")
        limit = int(value)
        extra = {"missing_counts": True} if check == "max_tokens" else {}
        return [Wanted(check, REQUEST, Action.BLOCK, {"limit": limit, **extra} if limit else None)]

    return read


def _switch(check: str) -> Callable[[str, str], list[Wanted]]:
    def read(header: str, value: str) -> list[Wanted]:
        return [Wanted(check, REQUEST, Action.BLOCK, {} if value == "true" else None)]

    return read


def _wordlists(stages: frozenset[Stage]) -> Callable[[str, str], list[Wanted]]:
    def read(header: str, value: str) -> list[Wanted]:
        found = []
        for item in filter(None, (part.strip() for part in value.split(","))):
            name, _, action = (part.strip() for part in item.partition(":"))
            if name not in WORDLISTS_OF_HEADERS or action not in frozenset(Action):
                names = ", ".join(WORDLISTS_OF_HEADERS)
                raise BadOverride(
                    header, f"like 'profanity:block, custom:audit', with {names} and audit, redact, block"
                )
            found.append(Wanted("wordlist", stages, Action(action), {"wordlists": [name]}))
        return found or [Wanted("wordlist", stages, Action.BLOCK, None)]

    return read


def _reflection(header: str, value: str) -> list[Wanted]:
    if value == "none":
        return [Wanted("prompt_reflection", BOTH, Action.BLOCK, None)]
    if value not in frozenset(Action):
        raise BadOverride(header, "none, audit, redact or block")
    return [Wanted("prompt_reflection", BOTH, Action(value), {})]


def _retries(header: str, value: str) -> list[Wanted]:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise BadOverride(header, "a whole number from 0 to 5")
    count = min(int(value), MOST_RETRIES)
    return [Wanted("retries", REQUEST, Action.REDACT, {"count": count} if count else None)]


READERS: dict[str, Callable[[str, str], list[Wanted]]] = {
    "max-tokens": _limit("max_tokens"),
    "max-prompt-chars": _limit("max_prompt_chars"),
    "enforce-user-ids": _switch("require_user"),
    "auto-moderate": _switch("moderation"),
    "request-wordlists": _wordlists(REQUEST),
    "response-wordlists": _wordlists(REPLY),
    "prompt-reflection": _reflection,
    "retry-count": _retries,
}
LOGGING = {"log-request": "log_request", "log-response": "log_reply"}
NAMES = frozenset(PREFIX + name.encode() for name in (*READERS, *LOGGING))
