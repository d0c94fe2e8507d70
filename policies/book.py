"""The policies in force, as the data plane holds them: compiled, immutable, found without a lock or a query.

`build` runs in the watch thread when the configuration has changed. It takes over what has not changed: a check is
compiled anew when its settings or a word list that it uses have changed, and only then, so what checks remember of
earlier calls outlives the edit of another rule.

A rule that cannot be compiled does not switch itself off: it fails at every call, which blocks unless it fails open.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import DatabaseError, InterfaceError

from policies import documents
from policies.checks.base import CHECKS, Check, WordMatcher, World
from policies.documents import PolicySpec, RuleSpec
from policies.library import Fingerprint, Library, Shelf
from policies.models import Assignment, Policy
from policies.rules import CompiledRule, Uncompiled
from policies.types import Action, Stage

logger = logging.getLogger(__name__)

Chain = TypeVar("Chain")
MakeChain = Callable[[tuple[CompiledRule, ...], tuple[PolicySpec, ...]], Chain]

# Those that callers may name in x-usagepanda-* headers, where a policy lets them.
WORDLISTS_OF_HEADERS = ("profanity", "adult", "dan", "custom")


class CheckKey(NamedTuple):
    """What a compiled check is kept by. `owner` is empty unless the check remembers calls: then no two rules share it,
    because each would count the other's."""

    check: str
    settings: str
    owner: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class KeptCheck:
    check: Check
    wordlists: tuple[Fingerprint, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy with its rules, those that are switched on."""

    spec: PolicySpec
    rules: tuple[CompiledRule, ...]


class PolicyBook(Generic[Chain]):
    """Which rules hold for whom: those for everyone, then the team's, then the key's; within each by policy name.

    A chain is made (by `make_chain`, in the thread that builds) for each set of policies that holds for somebody.
    `problems`: what an admin has to mend. `world`: the word lists that are compiled.
    """

    def __init__(
        self,
        make_chain: MakeChain[Chain],
        policies: dict[int, InForce],
        assignments: Iterable[Assignment],
        *,
        library: Library | None = None,
        kept: dict[CheckKey, KeptCheck] | None = None,
        problems: tuple[str, ...] = (),
    ) -> None:
        self._make_chain = make_chain
        self._policies = policies
        self._everyone: list[int] = []
        self._teams: dict[int, list[int]] = defaultdict(list)
        self._keys: dict[int, list[int]] = defaultdict(list)
        self._sets: dict[tuple[int | None, int | None], tuple[int, ...]] = {}
        self._chains: dict[tuple[int, ...], Chain] = {}
        self.library = library
        self.kept = kept or {}
        self.problems = problems
        self.world: World = Shelf(library.compiled.items() if library else ())
        self._assign(assignments)

    def chain_for(self, team_id: int | None, key_id: int | None) -> Chain | None:
        """None: no policy holds for this key."""
        chosen = self._chosen(team_id, key_id)
        return self._chain(chosen) if chosen else None

    def rules_for(self, team_id: int | None, key_id: int | None) -> tuple[CompiledRule, ...]:
        return self._rules(self._chosen(team_id, key_id))

    def policies_for(self, team_id: int | None, key_id: int | None) -> tuple[PolicySpec, ...]:
        return self._specs(self._chosen(team_id, key_id))

    def _assign(self, assignments: Iterable[Assignment]) -> None:
        rows = [row for row in assignments if row.policy_id in self._policies]
        rows.sort(key=lambda row: self._policies[row.policy_id].spec.name)
        for row in rows:
            if row.key_id is not None:
                self._keys[row.key_id].append(row.policy_id)
            elif row.team_id is not None:
                self._teams[row.team_id].append(row.policy_id)
            else:
                self._everyone.append(row.policy_id)
        for team_id, key_id in self._who(rows):
            self.chain_for(team_id, key_id)

    def _who(self, rows: Iterable[Assignment]) -> Iterator[tuple[int | None, int | None]]:
        """(team, key) of everybody for whom something of their own is set, and nobody in particular."""
        yield None, None
        for row in rows:
            if row.key is not None:
                yield row.key.team_id, row.key_id
            elif row.team_id is not None:
                yield row.team_id, None

    def _chosen(self, team_id: int | None, key_id: int | None) -> tuple[int, ...]:
        """The policies that hold, in order. Remembered by those who have some of their own, so never by many."""
        who = (team_id if team_id in self._teams else None, key_id if key_id in self._keys else None)
        chosen = self._sets.get(who)
        if chosen is None:
            levels = (self._everyone, self._teams.get(who[0] or 0, ()), self._keys.get(who[1] or 0, ()))
            # A policy that is set on two levels counts once, on the upper one.
            chosen = self._sets[who] = tuple(dict.fromkeys(pk for level in levels for pk in level))
        return chosen

    def _chain(self, chosen: tuple[int, ...]) -> Chain:
        chain = self._chains.get(chosen)
        if chain is None:
            chain = self._chains[chosen] = self._make_chain(self._rules(chosen), self._specs(chosen))
        return chain

    def _rules(self, chosen: tuple[int, ...]) -> tuple[CompiledRule, ...]:
        return tuple(rule for pk in chosen for rule in self._policies[pk].rules)

    def _specs(self, chosen: tuple[int, ...]) -> tuple[PolicySpec, ...]:
        return tuple(self._policies[pk].spec for pk in chosen)


class Holder(Generic[Chain]):
    """The book in force. `refresh` runs in the watch thread; the event loop only reads `current`."""

    def __init__(self, make_chain: MakeChain[Chain]) -> None:
        self._make_chain = make_chain
        self.current: PolicyBook[Chain] = PolicyBook(make_chain, {}, ())

    def refresh(self) -> None:
        """Build and swap. Raises what the database raises; then the last good one stays."""
        self.current = build(self.current, self._make_chain)
        for problem in self.current.problems:
            logger.error("a rule in force cannot work: %s", problem)


def build(previous: PolicyBook[Chain] | None, make_chain: MakeChain[Chain]) -> PolicyBook[Chain]:
    """Read and compile what is in force: published, switched on, and assigned to somebody. Three queries, and one for
    each word list that has changed."""
    rows = Policy.objects.filter(enabled=True, current__isnull=False, assignments__isnull=False)
    policies = {policy.pk: policy for policy in rows.select_related("current").distinct()}
    assignments = list(Assignment.objects.filter(policy__in=policies).select_related("key"))
    compiler = Compiler(Library(previous.library if previous else None), previous.kept if previous else {})
    in_force = {pk: compiler.policy(policy) for pk, policy in policies.items()}
    if any(policy.spec.header_overrides != Policy.HeaderOverrides.NEVER for policy in in_force.values()):
        compiler.compile_wordlists_of_headers()
    compiler.library.forget_earlier()
    return PolicyBook(
        make_chain,
        in_force,
        assignments,
        library=compiler.library,
        kept=compiler.kept,
        problems=tuple(compiler.problems),
    )


class Compiler:
    """Compiles rules, taking over from `earlier` what has not changed."""

    def __init__(self, library: Library, earlier: dict[CheckKey, KeptCheck] | None = None) -> None:
        self.library = library
        self.kept: dict[CheckKey, KeptCheck] = {}
        self.problems: list[str] = []
        self._earlier = earlier or {}

    def policy(self, policy: Policy) -> InForce:
        version = policy.current
        if version is None:
            return InForce(PolicySpec(policy.name), ())
        spec = documents.read(version.document, policy.name, version.number)
        return InForce(spec, self.rules(spec, policy.pk))

    def rules(self, spec: PolicySpec, owner: int = 0) -> tuple[CompiledRule, ...]:
        """Those that are switched on. `owner`: the policy's id, or any number that is no other policy's."""
        seen: Counter[tuple[str, str]] = Counter()
        compiled = []
        for rule in spec.rules:
            if rule.enabled:
                twin = (rule.check, canonical(rule.settings))
                compiled.append(self._rule(rule, spec, (owner, seen[twin])))
                seen[twin] += 1
        return tuple(compiled)

    def compile_wordlists_of_headers(self) -> None:
        for name in WORDLISTS_OF_HEADERS:
            if self.library.fingerprint(name):
                self.library.wordlist(name)

    def _rule(self, rule: RuleSpec, policy: PolicySpec, owner: tuple[int, int]) -> CompiledRule:
        check, stages, action = self._usable(rule, policy, owner)
        return CompiledRule(
            policy=policy.name,
            version=policy.version,
            name=rule.title,
            check=check,
            check_name=rule.check,
            action=action,
            block_with=rule.block_with,
            answer=rule.answer,
            stages=stages,
            message=rule.message,
            timeout_s=rule.timeout_ms / 1000,
            fail_open=rule.fail_open,
            dry_run=rule.dry_run,
            shown=policy.show_flags,
        )

    def _usable(
        self, rule: RuleSpec, policy: PolicySpec, owner: tuple[int, int]
    ) -> tuple[Check, frozenset[Stage], Action]:
        """Or, with the reason added to `problems`, a check that fails wherever the rule says that it looks."""
        try:
            kind = known_check(rule.check)
            return self._check(kind, rule, owner), stages_of(rule, kind), action_of(rule, kind)
        except (DatabaseError, InterfaceError):
            raise  # not the rule's fault: the book before this one stays
        except Exception as error:
            said = str(error.args[0]) if isinstance(error, LookupError | ValueError) and error.args else ""
            self.problems.append(f"policy {policy.name}, rule {rule.title}: {said or type(error).__name__}")
            return Uncompiled(), _asked_stages(rule.stage), _asked_action(rule.action)

    def _check(self, kind: type[Check], rule: RuleSpec, owner: tuple[int, int]) -> Check:
        key = CheckKey(kind.name, canonical(rule.settings), owner if kind.remembers else None)
        kept = self.kept.get(key) or self._earlier.get(key)
        if kept is None or any(self.library.fingerprint(used.name) != used for used in kept.wordlists):
            world = _Watched(self.library)
            kept = KeptCheck(kind(rule.settings, world), tuple(world.used))
        for used in kept.wordlists:
            self.library.wordlist(used.name)  # so that the next book finds it here
        self.kept[key] = kept
        return kept.check


class _Watched:
    """A world that notes what is asked of it."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.used: list[Fingerprint] = []

    def wordlist(self, name: str) -> WordMatcher:
        matcher = self._library.wordlist(name)
        if fingerprint := self._library.fingerprint(name):
            self.used.append(fingerprint)
        return matcher


def known_check(name: str) -> type[Check]:
    """Raises LookupError."""
    try:
        return CHECKS[name]
    except KeyError:
        raise LookupError(f"there is no check {name}") from None


def stages_of(rule: RuleSpec, kind: type[Check]) -> frozenset[Stage]:
    """Where the rule looks: "both" is wherever its check can. Raises ValueError when that is nowhere."""
    stages = _asked_stages(rule.stage) & kind.stages
    if not stages:
        raise ValueError(f"{kind.name} does not look at {rule.stage}: it looks at {' and '.join(sorted(kind.stages))}")
    return stages


def action_of(rule: RuleSpec, kind: type[Check]) -> Action:
    """Raises ValueError."""
    if rule.action not in kind.actions:
        raise ValueError(f"{kind.name} cannot {rule.action}: it can {', '.join(sorted(kind.actions))}")
    return Action(rule.action)


def canonical(settings: Any) -> str:
    """The same text for the same settings."""
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def _asked_stages(stage: str) -> frozenset[Stage]:
    return frozenset(one for one in Stage if stage in (one, "both")) or frozenset(Stage)


def _asked_action(action: str) -> Action:
    return Action(action) if action in frozenset(Action) else Action.BLOCK
