"""`manage.py apply`: word lists and policies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from accounts import versions
from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from gateway_project.apply import NotApplied, apply
from policies import documents, services
from policies.book import build
from policies.documents import PolicySpec, RuleSpec
from policies.models import Policy, PolicyVersion, Rule, Wordlist, WordlistEntry
from policies.tests import sample_checks

pytestmark = pytest.mark.django_db

WHOLE = """
teams:
  - {name: research}
keys:
  - {name: nightly, team: research}
wordlists:
  - {name: custom, words: [secret project, 'fu*'], allow: [fuji], description: Ours., catch_disguises: false}
policies:
  - name: default
    description: For all of us.
    scope: everyone
    show_flags: false
    header_overrides: tighten
    log_request: true
    log_reply: true
    retention_days: 7
    rules:
      - {check: sample_words, action: block, stage: both, settings: {wordlists: [custom]}}
      - name: short
        check: sample_limit
        action: audit
        settings: {limit: 5}
        message: Shorter, please.
        block_with: answer
        answer: No.
        timeout_ms: 20
        fail_open: true
        dry_run: true
        enabled: false
  - name: exams
    scope: [{team: research}, {key: nightly}]
"""
MINIMAL = "policies: [{name: default, scope: everyone, rules: [{check: sample_limit, settings: {limit: 5}}]}]"


@pytest.fixture(autouse=True)
def _checks() -> Iterator[None]:
    with sample_checks.registered():
        yield


def run(text: str, *, dry_run: bool = False) -> list[str]:
    return [str(change) for change in apply(text.encode(), dry_run=dry_run)]


def check_refused(text: str, *expected: tuple[int, str, str]) -> None:
    """Exactly these mistakes (line, field, words of the message), and nothing is applied."""
    kinds = (Policy, Rule, PolicyVersion, Wordlist, WordlistEntry)
    counts = [kind._default_manager.count() for kind in kinds]
    with pytest.raises(NotApplied) as caught:
        run(text)
    mistakes = caught.value.mistakes
    assert [(mistake.line, mistake.field) for mistake in mistakes] == [one[:2] for one in expected], mistakes
    for mistake, (_, _, words) in zip(mistakes, expected, strict=True):
        assert words in mistake.message
    assert counts == [kind._default_manager.count() for kind in kinds]


def in_force(name: str = "default") -> PolicySpec:
    version = Policy.objects.get(name=name).current
    assert version is not None
    return documents.read(version.document, name, version.number)


def words_of(name: str) -> list[tuple[str, bool]]:
    return sorted(WordlistEntry.objects.filter(wordlist__name=name).values_list("text", "allow"))


# --- the whole ------------------------------------------------------------------------------------------------------
def test_everything_the_file_names_is_made_and_listed() -> None:
    changes = run(WHOLE)
    assert [change.partition(": ")[0] for change in changes] == [
        "+ team research",
        "+ key nightly",
        "+ word list custom",
        "+ policy default",
        "+ policy exams",
    ]


def test_what_the_file_says_is_published_and_in_force() -> None:
    run(WHOLE)
    limit = RuleSpec(
        name="short", check="sample_limit", action="audit", stage="request", settings={"limit": 5, "strict": True},
        message="Shorter, please.", block_with="answer", answer="No.", timeout_ms=20, fail_open=True, dry_run=True,
        enabled=False,
    )  # fmt: skip
    words = RuleSpec(check="sample_words", settings={"wordlists": ["custom"]})
    assert in_force() == PolicySpec("default", 1, False, "tighten", True, True, 7, (words, limit))
    assert words_of("custom") == [("fu*", False), ("fuji", True), ("secret project", False)]
    research, nightly = Team.objects.get(name="research"), ApiKey.objects.get()
    book = build(None, lambda rules, policies: [spec.name for spec in policies])
    assert book.problems == ()
    assert book.chain_for(None, None) == ["default"]
    assert book.chain_for(research.pk, nightly.pk) == ["default", "exams"]


def test_second_run_changes_nothing_and_wakes_no_worker() -> None:
    run(WHOLE)
    before = versions.current()
    assert run(WHOLE) == []
    assert (versions.current(), PolicyVersion.objects.count()) == (before, 2)


def test_dry_run_tells_the_same_and_writes_nothing() -> None:
    assert "+ policy default" in run(WHOLE, dry_run=True)
    assert not Policy.objects.exists()
    assert not Wordlist.objects.filter(name="custom").exists()


def test_version_says_that_a_file_was_applied() -> None:
    run(MINIMAL)
    assert PolicyVersion.objects.get().published_as == "manage.py apply"


# --- what changes ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "listed"),
    [
        ("rules: []", "~ policy default: rules, version 2"),
        ("rules: [{check: sample_limit, settings: {limit: 6}}]", "~ policy default: rules, version 2"),
        ("log_request: true", "~ policy default: log_request, version 2"),
        ("show_flags: false, retention_days: 3", "~ policy default: show_flags, retention_days, version 2"),
        ("enabled: false", "~ policy default: enabled"),
        ("description: Ours.", "~ policy default: description"),
        ("scope: []", "~ policy default: scope"),
        ("scope: everyone", ""),
        ("rules: [{check: sample_limit, action: block, settings: {limit: 5, strict: true}}]", ""),
    ],
)
def test_change_is_listed_and_published_if_it_concerns_what_is_published(changed: str, listed: str) -> None:
    run(MINIMAL)
    assert run(f"policies: [{{name: default, {changed}}}]") == ([listed] if listed else [])
    assert PolicyVersion.objects.count() == (2 if "version" in listed else 1)


def test_what_the_file_does_not_name_stays() -> None:
    run(WHOLE)
    run("policies: [{name: default, rules: []}]")
    assert in_force() == PolicySpec("default", 2, False, "tighten", True, True, 7, ())
    policy = Policy.objects.get(name="default")
    assert (policy.description, policy.assignments.count(), policy.rules.count()) == ("For all of us.", 1, 0)


def test_rules_that_somebody_is_working_on_are_not_published_by_the_way() -> None:
    run(MINIMAL)
    policy = Policy.objects.get()
    services.replace_rules(policy, [])
    assert run(MINIMAL) == []
    run("policies: [{name: default, log_reply: true}]")
    assert [rule.check for rule in in_force().rules] == ["sample_limit"]
    assert not policy.rules.exists()


def test_rules_of_the_file_become_the_working_copy() -> None:
    run(MINIMAL)
    run(MINIMAL.replace("5", "6"))
    assert documents.specs_of(Policy.objects.get().rules.all()) == list(in_force().rules)


def test_policy_that_was_never_published_is_when_a_file_names_it() -> None:
    Policy.objects.create(name="default", log_reply=True)
    assert run(MINIMAL) == ["~ policy default: scope, rules, version 1"]
    assert in_force().log_reply


def test_list_is_replaced_as_far_as_the_file_names_it() -> None:
    run("wordlists: [{name: custom, words: [a1, b1], allow: [c1]}]")
    assert run("wordlists: [{name: custom, words: [b1, d1]}]") == ["~ word list custom: words"]
    assert words_of("custom") == [("b1", False), ("c1", True), ("d1", False)]
    assert run("wordlists: [{name: custom, allow: []}]") == ["~ word list custom: allow"]
    assert run("wordlists: [{name: custom, words: [D1, b1, b1]}]") == []
    assert words_of("custom") == [("b1", False), ("d1", False)]


def test_list_that_ships_with_gatehouse_can_be_given_words_of_your_own() -> None:
    assert run("wordlists: [{name: dan, words: [do it anyway]}]") == ["~ word list dan: words"]
    assert Wordlist.objects.get(name="dan").builtin == "dan"


def test_setting_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROJECT", "apollo")
    run("policies: [{name: p, scope: [], rules: [{check: sample_pattern, settings: {pattern: '${PROJECT}.*'}}]}]")
    assert in_force("p").rules[0].settings == {"pattern": "apollo.*"}


# --- what a rule says that does not say it --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "action", "stage"),
    [
        ("{check: sample_memory}", "block", "both"),
        ("{check: sample_limit, settings: {limit: 1}}", "block", "request"),
        ("{check: sample_pattern, settings: {pattern: a}}", "audit", "both"),
    ],
)
def test_rule_looks_wherever_its_check_can_and_blocks_if_it_can(rule: str, action: str, stage: str) -> None:
    run(f"policies: [{{name: p, scope: [], rules: [{rule}]}}]")
    (spec,) = in_force("p").rules
    assert (spec.action, spec.stage) == (action, stage)


def test_rule_has_as_much_time_as_its_check_usually_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_checks.SampleMemory, "default_timeout_ms", 5000)
    run("policies: [{name: p, scope: [], rules: [{check: sample_memory}, {check: sample_memory, timeout_ms: 7}]}]")
    assert [rule.timeout_ms for rule in in_force("p").rules] == [5000, 7]


# --- whom it holds for ----------------------------------------------------------------------------------------------
@pytest.fixture
def held() -> dict[str, Any]:
    research = Team.objects.create(name="research")
    keys = {name: create_key(name, research)[0] for name in ("nightly", "laptop")}
    create_key("laptop", Team.objects.create(name="other"))
    return {"research": research, **keys}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("everyone", ["everyone"]),
        ("[]", []),
        ("{team: research}", ["team research"]),
        ("{key: nightly}", ["key nightly"]),
        ("{key: ID}", ["key laptop"]),
        ("[everyone, {team: research}, {key: nightly}, {key: nightly}]", ["everyone", "key nightly", "team research"]),
    ],
)
def test_policy_holds_for_whom_the_file_says(held: dict[str, Any], scope: str, expected: list[str]) -> None:
    scope = scope.replace("ID", held["laptop"].public_id)
    run(f"policies: [{{name: p, scope: {scope}}}]")
    found = [str(one).partition(" (")[0] for one in Policy.objects.get().assignments.all()]
    assert sorted(found) == expected
    assert run(f"policies: [{{name: p, scope: {scope}}}]") == []


@pytest.mark.parametrize(
    ("scope", "field", "message"),
    [
        ("nobody", "policies[0].scope", "must be everyone, {team: NAME} or {key: PUBLIC-ID-OR-NAME}"),
        ("{team: research, key: nightly}", "policies[0].scope", "must be everyone"),
        ("{}", "policies[0].scope", "must be everyone"),
        ("[everyone, {team: reserch}]", "policies[0].scope[1].team", "did you mean research?"),
        ("{key: nihgtly}", "policies[0].scope.key", "did you mean nightly?"),
        ("{key: laptop}", "policies[0].scope.key", "is the name of several keys: give the public id"),
        ("{user: alice}", "policies[0].scope.user", "is unknown"),
    ],
)
def test_whom_it_cannot_hold_for_is_refused(held: dict[str, Any], scope: str, field: str, message: str) -> None:
    check_refused(f"policies:\n- name: p\n  scope: {scope}\n", (3, field, message))


def test_new_policy_says_whom_it_holds_for() -> None:
    check_refused("policies: [{name: p}]", (1, "policies[0].scope", "is missing: a new policy must be everyone"))


# --- mistakes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "line", "field", "message"),
    [
        ("{check: sample_limt}", 5, "check", "did you mean sample_limit?"),
        ("{settings: {}}", 5, "check", "is missing"),
        ("{check: sample_limit}", 5, "settings.limit", "This field is required."),
        ("{check: sample_limit,\n     settings: {limit:\n     0}}", 7, "settings.limit", "greater than or equal to 1"),
        ("{check: sample_limit,\n     settings: {limit: 1, size: 2}}", 6, "settings.size", "is no setting of"),
        ("{check: sample_limit, settings: {limit: 1},\n     stage: reply}", 6, "stage", "it looks at request"),
        ("{check: sample_limit, settings: {limit: 1}, action: redact}", 5, "action", "it can audit, block"),
        ("{check: sample_memory, timeout_ms: 60001}", 5, "timeout_ms", "less than or equal to 60000"),
        ("{check: sample_memory, colour: red}", 5, "colour", "is unknown"),
        ("{check: sample_words, settings: {wordlists: [custm]}}", 5, "settings.wordlists", "no word list custm"),
        ("{check: sample_pattern, settings: {pattern: '('}}", 5, "settings", "is not a regular expression"),
        ("{check: sample_pattern, settings: {pattern: ${NOPE}}}", 5, "settings.pattern", "NOPE is not set"),
        ("{check: sample_memory, settings: [1]}", 5, "settings", "must be a mapping"),
    ],
)
def test_rule_that_cannot_work_is_refused_at_its_line_and_field(rule: str, line: int, field: str, message: str) -> None:
    text = f"policies:\n- name: p\n  scope: []\n  rules: [{{check: sample_memory}},\n    {rule}]\n"
    check_refused(text, (line, f"policies[0].rules[1].{field}", message))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("header_overrides: sometimes", "not a valid choice"),
        ("retention_days: 0", "greater than or equal to 1"),
        ("log_request: 1", "must be true or false"),
        ("budgets: []", "is unknown"),
    ],
)
def test_policy_that_cannot_be_is_refused(field: str, message: str) -> None:
    check_refused(f"policies:\n- name: p\n  scope: []\n  {field}\n", (4, f"policies[0].{field.split(':')[0]}", message))


def test_entry_that_cannot_be_is_refused_at_its_line() -> None:
    check_refused(
        "wordlists:\n- name: custom\n  words:\n  - fine\n  - '*'\n  allow: ['']\n",
        (5, "wordlists[0].words[1]", ""),
        (6, "wordlists[0].allow[0]", ""),
    )


def test_list_whose_name_cannot_be_read_is_one_mistake_not_two() -> None:
    check_refused(
        "wordlists:\n- name: [custom]\npolicies:\n- name: p\n  scope: []\n"
        "  rules: [{check: sample_words, settings: {wordlists: [custom]}}]\n",
        (2, "wordlists[0].name", "must be a text"),
    )


def test_list_of_the_same_file_may_be_used() -> None:
    run(
        "wordlists: [{name: new, words: [a1]}]\n"
        "policies: [{name: p, scope: [], rules: [{check: sample_words, settings: {wordlists: [new]}}]}]"
    )
    assert in_force("p").rules[0].settings == {"wordlists": ["new"]}


def test_policy_whose_rules_do_not_work_any_more_is_not_published_with_another_setting() -> None:
    run(WHOLE)
    WordlistEntry.objects.all().delete()
    Wordlist.objects.filter(name="custom").delete()
    check_refused(
        "policies: [{name: default, log_reply: false}]",
        (1, "policies[0].rules", "Rule 1 (sample_words), settings.wordlists: there is no word list custom"),
    )


def test_same_policy_twice_is_a_mistake() -> None:
    check_refused(
        "policies:\n- {name: p, scope: []}\n- {name: p}\n", (3, "policies[1].name", "is already in this file")
    )


def test_applying_is_nobodys_publication(alice: User) -> None:
    run(MINIMAL)
    assert PolicyVersion.objects.get().published_by is None
