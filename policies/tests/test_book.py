"""The policies in force: whom they hold for, in which order, and what is compiled when something changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError

from accounts.models import ApiKey, Team
from accounts.services import create_key
from policies import book as book_module
from policies import services
from policies.book import Holder, PolicyBook, build
from policies.documents import PolicySpec, RuleSpec
from policies.library import Library
from policies.models import Policy, PolicyVersion, Wordlist
from policies.rules import CompiledRule, NotCompiled, Uncompiled
from policies.tests import sample_checks
from policies.tests.sample_checks import SampleLimit, SampleMemory, SampleWords
from policies.types import Action, Exchange, Stage

pytestmark = pytest.mark.django_db

LIMIT = RuleSpec(check="sample_limit", settings={"limit": 5, "strict": True}, stage="request")
WORDS = RuleSpec(check="sample_words", settings={"wordlists": ["custom"]})
EXCHANGE = Exchange("chat/completions", {}, "gpt")

Chain = tuple[tuple[CompiledRule, ...], tuple[PolicySpec, ...]]
Book = PolicyBook[Chain]


@pytest.fixture(autouse=True)
def _checks() -> Iterator[None]:
    with sample_checks.registered():
        yield


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="research")


@pytest.fixture
def key(team: Team) -> ApiKey:
    return create_key("nightly", team)[0]


@pytest.fixture
def custom() -> Wordlist:
    wordlist = Wordlist.objects.create(name="custom")
    services.set_entries(wordlist, ["apollo"])
    return wordlist


def a_policy(name: str, *rules: RuleSpec, **columns: Any) -> Policy:
    """Published; for everyone unless it says `assigned=False`."""
    assigned = columns.pop("assigned", True)
    policy = Policy.objects.create(name=name, **columns)
    services.replace_rules(policy, rules)
    services.publish(policy)
    if assigned:
        services.assign(policy)
    return policy


def edit(policy: Policy, *rules: RuleSpec) -> None:
    services.replace_rules(policy, rules)
    services.publish(policy)


def opened(previous: Book | None = None) -> Book:
    return build(previous, lambda rules, policies: (rules, policies))


def kept(before: Book, after: Book) -> list[bool]:
    """For each rule, whether its check was taken over."""
    pairs = zip(before.rules_for(None, None), after.rules_for(None, None), strict=True)
    return [old.check is new.check for old, new in pairs]


def the_rule(book: Book) -> CompiledRule:
    (rule,) = book.rules_for(None, None)
    return rule


# --- what a rule is compiled to -------------------------------------------------------------------------------------
def test_rule_is_compiled_as_it_was_published() -> None:
    a_policy("default", replace(
        LIMIT, name="short", action="audit", block_with="answer", answer="No.", message="Shorter, please.",
        timeout_ms=20, fail_open=True, dry_run=True,
    ), show_flags=False)  # fmt: skip
    rule = the_rule(opened())
    assert (rule.policy, rule.version, rule.name, rule.check_name) == ("default", 1, "short", "sample_limit")
    assert (rule.action, rule.block_with, rule.answer, rule.message) == (
        Action.AUDIT, "answer", "No.", "Shorter, please.",
    )  # fmt: skip
    assert (rule.stages, rule.timeout_s, rule.fail_open, rule.dry_run, rule.shown) == (
        {Stage.REQUEST}, 0.02, True, True, False,
    )  # fmt: skip
    assert isinstance(rule.check, SampleLimit)
    assert rule.check.limit == 5


def test_rule_without_a_name_is_called_by_its_check() -> None:
    a_policy("default", LIMIT)
    assert the_rule(opened()).name == "sample_limit"


@pytest.mark.parametrize(
    ("rule", "stages"),
    [
        (replace(LIMIT, stage="both"), {Stage.REQUEST}),
        (RuleSpec(check="sample_memory", stage="both"), {Stage.REQUEST, Stage.REPLY}),
        (RuleSpec(check="sample_memory", stage="reply"), {Stage.REPLY}),
    ],
)
def test_rule_for_both_stages_looks_wherever_its_check_can(rule: RuleSpec, stages: set[Stage]) -> None:
    a_policy("default", rule)
    assert the_rule(opened()).stages == stages


def test_working_copy_is_not_in_force_before_it_is_published() -> None:
    policy = a_policy("default", LIMIT)
    services.replace_rules(policy, [])
    assert len(opened().rules_for(None, None)) == 1


@pytest.mark.parametrize("away", ["rule switched off", "policy switched off", "never published", "not assigned"])
def test_what_is_not_in_force_is_not_compiled(away: str, custom: Wordlist) -> None:
    rule = replace(WORDS, enabled=away != "rule switched off")
    policy = a_policy("default", rule, assigned=away != "not assigned")
    Policy.objects.update(
        enabled=away != "policy switched off", current=None if away == "never published" else policy.current
    )
    book = opened()
    assert book.rules_for(None, None) == ()
    assert (book.kept, book.library and book.library.compiled) == ({}, {})


# --- whom it holds for ----------------------------------------------------------------------------------------------
def test_policies_hold_in_order_everyone_then_team_then_key_by_name(team: Team, key: ApiKey) -> None:
    for_key: dict[str, Any] = {"key": key}
    for_team: dict[str, Any] = {"team": team}
    for name, whose in (
        ("b for key", for_key), ("a for key", for_key), ("d for team", for_team), ("c for team", for_team),
        ("f for all", {}), ("e for all", {}),
    ):  # fmt: skip
        services.assign(a_policy(name, LIMIT, assigned=False), **whose)
    book = opened()
    everyone, teams, keys = ["e for all", "f for all"], ["c for team", "d for team"], ["a for key", "b for key"]
    assert [spec.name for spec in book.policies_for(team.pk, key.pk)] == everyone + teams + keys
    assert [rule.policy for rule in book.rules_for(team.pk, key.pk)] == everyone + teams + keys
    assert [spec.name for spec in book.policies_for(team.pk, key.pk + 1)] == everyone + teams
    assert [spec.name for spec in book.policies_for(team.pk + 1, None)] == everyone
    assert [spec.name for spec in book.policies_for(None, None)] == everyone


def test_rules_of_a_policy_are_in_its_order() -> None:
    names = ["c", "a", "b"]
    a_policy("default", *(replace(LIMIT, name=name) for name in names))
    assert [rule.name for rule in opened().rules_for(None, None)] == names


def test_policy_set_on_two_levels_counts_once_on_the_upper_one(team: Team, key: ApiKey) -> None:
    shared, own = a_policy("z shared", LIMIT), a_policy("a own", LIMIT, assigned=False)
    services.assign(own, key=key)
    services.assign(shared, team=team)
    services.assign(shared, key=key)
    assert [rule.policy for rule in opened().rules_for(team.pk, key.pk)] == ["z shared", "a own"]


def test_nobody_else_is_bound_by_what_is_set_for_a_team(team: Team) -> None:
    services.assign(a_policy("default", LIMIT, assigned=False), team=team)
    book = opened()
    assert book.chain_for(team.pk, None) is not None
    assert book.chain_for(team.pk + 1, None) is None
    assert book.chain_for(None, None) is None


def test_policy_without_rules_holds_too_for_what_it_says_of_logging() -> None:
    a_policy("default", log_request=True)
    chain = opened().chain_for(1, 1)
    assert chain is not None
    assert (chain[0], chain[1][0].log_request) == ((), True)


def test_chains_are_made_when_the_book_is_built_once_for_each_set_of_policies(team: Team, key: ApiKey) -> None:
    a_policy("default", LIMIT)
    own = a_policy("own", LIMIT, assigned=False)
    second, _ = create_key("second", team)
    for one in (key, second):
        services.assign(own, key=one)
    made: list[int] = []
    book = build(None, lambda rules, policies: made.append(len(rules)) or tuple(rules))  # type: ignore[func-returns-value]
    assert sorted(made) == [1, 2]
    assert book.chain_for(team.pk, key.pk) is book.chain_for(team.pk, second.pk)
    assert book.chain_for(1000, 2000) is book.chain_for(3000, None)
    assert len(made) == 2


def test_looking_up_asks_no_database(team: Team, key: ApiKey, django_assert_num_queries: Any) -> None:
    services.assign(a_policy("default", LIMIT, assigned=False), key=key)
    book = opened()
    with django_assert_num_queries(0):
        assert book.chain_for(team.pk, key.pk)
        assert book.rules_for(team.pk, key.pk)
        assert book.policies_for(7, 8) == ()


def test_key_that_was_moved_to_another_team_has_its_own_policies_and_the_new_teams(team: Team, key: ApiKey) -> None:
    new_team = Team.objects.create(name="new")
    services.assign(a_policy("of the new team", LIMIT, assigned=False), team=new_team)
    services.assign(a_policy("of the key", LIMIT, assigned=False), key=key)
    book = opened()
    assert [rule.policy for rule in book.rules_for(new_team.pk, key.pk)] == ["of the new team", "of the key"]


# --- what is compiled when something changes ------------------------------------------------------------------------
def test_change_of_one_rule_compiles_that_rule_alone(custom: Wordlist) -> None:
    policy = a_policy("default", LIMIT, WORDS)
    first = opened()
    edit(policy, replace(LIMIT, settings={"limit": 6, "strict": True}), WORDS)
    assert kept(first, opened(first)) == [False, True]


@pytest.mark.parametrize(
    "changed", [{"message": "No."}, {"dry_run": True}, {"action": "audit"}, {"timeout_ms": 5}, {"name": "other"}]
)
def test_change_that_does_not_concern_the_check_compiles_nothing(changed: dict[str, Any]) -> None:
    policy = a_policy("default", LIMIT)
    first = opened()
    edit(policy, replace(LIMIT, **changed))
    second = opened(first)
    assert kept(first, second) == [True]
    assert the_rule(second).version == 2


def test_rules_with_the_same_settings_share_a_compiled_check() -> None:
    a_policy("one", LIMIT, LIMIT)
    a_policy("two", replace(LIMIT, settings={"strict": True, "limit": 5}))
    assert len({rule.check for rule in opened().rules_for(None, None)}) == 1


def test_check_that_remembers_calls_is_shared_by_no_two_rules_and_survives_other_edits() -> None:
    memory = RuleSpec(check="sample_memory")
    policy = a_policy("one", memory, memory)
    a_policy("two", memory)
    first = opened()
    checks = [rule.check for rule in first.rules_for(None, None)]
    assert len(set(checks)) == 3
    assert all(isinstance(check, SampleMemory) for check in checks)
    edit(policy, LIMIT, memory, memory)
    assert [rule.check for rule in opened(first).rules_for(None, None)[1:]] == checks


def test_list_that_changes_compiles_the_rules_that_use_it(custom: Wordlist) -> None:
    a_policy("default", LIMIT, WORDS)
    first = opened()
    services.add_entries(custom, ["hera"])
    assert kept(first, opened(first)) == [True, False]


def test_list_that_stays_is_compiled_once_whatever_else_changes(custom: Wordlist, monkeypatch: Any) -> None:
    compiled: list[str] = []
    real = Library._compile
    monkeypatch.setattr(Library, "_compile", lambda self, wanted: compiled.append(wanted.name) or real(self, wanted))
    policy = a_policy("default", WORDS, replace(WORDS, name="again", settings={"wordlists": ["custom", "custom"]}))
    book = opened()
    for number in range(3):
        edit(policy, replace(WORDS, message=f"change {number}"))
        book = opened(book)
    edit(policy, replace(WORDS, settings={"wordlists": ["custom"] * 3}))
    opened(book)
    assert compiled == ["custom"]


def test_list_that_no_rule_uses_any_more_is_let_go(custom: Wordlist) -> None:
    policy = a_policy("default", WORDS)
    first = opened()
    assert first.library is not None
    assert len(first.library.compiled) == 1
    edit(policy)
    second = opened(first)
    assert second.library is not None
    assert (second.library.compiled, second.kept) == ({}, {})


def test_list_is_compiled_anew_when_it_is_to_catch_disguises(custom: Wordlist) -> None:
    a_policy("default", WORDS)
    first = opened()
    custom.catch_disguises = False
    custom.save()
    assert kept(first, opened(first)) == [False]


def test_book_is_built_with_a_few_queries(
    team: Team, key: ApiKey, custom: Wordlist, django_assert_num_queries: Any
) -> None:
    for number in range(5):
        policy = a_policy(f"policy {number}", WORDS, LIMIT)
        services.assign(policy, team=team)
        services.assign(policy, key=key)
    with django_assert_num_queries(4):
        first = opened()
    with django_assert_num_queries(3):
        opened(first)


# --- word lists of headers ------------------------------------------------------------------------------------------
def test_lists_that_callers_may_name_in_headers_are_compiled_where_a_policy_lets_them(custom: Wordlist) -> None:
    policy = a_policy("default", LIMIT)
    with pytest.raises(LookupError):
        opened().world.wordlist("custom")
    policy.header_overrides = Policy.HeaderOverrides.TIGHTEN
    policy.save()
    services.publish(policy)
    world = opened().world
    for name in ("profanity", "adult", "dan", "custom"):
        assert world.wordlist(name)
    with pytest.raises(LookupError, match="no rule in force uses a word list other"):
        world.wordlist("other")


# --- what cannot be compiled ----------------------------------------------------------------------------------------
def broken(**changed: Any) -> None:
    """Put in force what no service would publish: a document of another release, or older than a deletion."""
    policy = a_policy("default", LIMIT)
    version = PolicyVersion.objects.get(policy=policy)
    (rule,) = version.document["rules"]
    version.document["rules"] = [rule | {"name": "broken"} | changed, rule]
    version.save()


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"check": "gone"}, "there is no check gone"),
        ({"check": "sample_words", "settings": {"wordlists": ["lost"]}}, "there is no word list lost"),
        ({"check": "sample_pattern", "action": "audit", "settings": {"pattern": "("}}, "is not a regular expression"),
        ({"settings": {}}, "limit"),
        ({"settings": None}, "TypeError"),
        ({"action": "explode"}, "sample_limit cannot explode: it can audit, block"),
        ({"stage": "reply"}, "sample_limit does not look at reply: it looks at request"),
    ],
)
def test_rule_that_cannot_be_compiled_fails_at_every_call_and_is_reported(changed: Any, problem: str) -> None:
    broken(**changed)
    book = opened()
    uncompiled, other = book.rules_for(None, None)
    assert book.problems == (f"policy default, rule broken: {problem}",)
    assert isinstance(other.check, SampleLimit), "the other rules go on"
    for moment in (lambda: uncompiled.check.inspect(EXCHANGE), lambda: uncompiled.check.for_call(EXCHANGE)):
        with pytest.raises(NotCompiled):
            moment()


def test_rule_that_cannot_be_compiled_goes_on_as_it_was_meant() -> None:
    broken(check="gone", stage="reply", action="audit", fail_open=True)
    rule = opened().rules_for(None, None)[0]
    assert (rule.stages, rule.action, rule.fail_open, rule.check_name) == ({Stage.REPLY}, Action.AUDIT, True, "gone")


def test_rule_with_an_action_that_nobody_knows_blocks() -> None:
    broken(action="explode")
    assert opened().rules_for(None, None)[0].action is Action.BLOCK


def test_check_that_is_registered_nowhere_is_no_choice() -> None:
    assert Uncompiled.name not in book_module.CHECKS


def test_rule_works_again_once_its_list_is_back(custom: Wordlist) -> None:
    a_policy("default", WORDS)
    Wordlist.objects.filter(pk=custom.pk).delete()
    first = opened()
    assert first.problems
    Wordlist.objects.create(name="custom")
    second = opened(first)
    assert second.problems == ()
    assert isinstance(the_rule(second).check, SampleWords)


def test_database_that_is_away_is_not_the_fault_of_a_rule(custom: Wordlist, monkeypatch: pytest.MonkeyPatch) -> None:
    a_policy("default", WORDS)

    def away(self: Library, name: str) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(Library, "_compile", away)
    with pytest.raises(DatabaseError):
        opened()


# --- the holder -----------------------------------------------------------------------------------------------------
def test_holder_has_no_policy_before_the_first_reading_and_then_the_last_good_book(monkeypatch: Any) -> None:
    holder = Holder(lambda rules, policies: rules)
    assert holder.current.chain_for(1, 1) is None
    a_policy("default", LIMIT)
    holder.refresh()
    good = holder.current
    assert good.chain_for(1, 1)
    monkeypatch.setattr(book_module, "Library", lambda earlier: (_ for _ in ()).throw(OperationalError("gone")))
    with pytest.raises(OperationalError):
        holder.refresh()
    assert holder.current is good


def test_holder_says_what_an_admin_has_to_mend(caplog: pytest.LogCaptureFixture) -> None:
    broken(check="gone")
    Holder(lambda rules, policies: rules).refresh()
    assert "a rule in force cannot work: policy default, rule broken: there is no check gone" in caplog.text
