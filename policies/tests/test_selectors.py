from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.exceptions import ValidationError

from accounts import catalogue
from policies import selectors
from policies.documents import RuleSpec
from policies.models import Policy, Wordlist
from policies.services import publish, replace_rules
from policies.tests import sample_checks

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _checks() -> Iterator[None]:
    with sample_checks.registered():
        yield


def policy_with(name: str, *rules: RuleSpec) -> Policy:
    policy = Policy.objects.create(name=name)
    replace_rules(policy, rules)
    publish(policy)
    return policy


def test_word_lists_of_a_rule_are_known_by_the_setting_that_names_them() -> None:
    rule = RuleSpec(check="sample_words", settings={"wordlists": ["custom", "dan"]})
    assert selectors.wordlist_settings(rule) == {"wordlists": ["custom", "dan"]}


@pytest.mark.parametrize("check", ["sample_limit", "no such check"])
def test_rule_without_word_lists_names_none(check: str) -> None:
    assert selectors.wordlist_settings(RuleSpec(check=check, settings={"wordlists": ["custom"]})) == {}


def test_policies_that_use_a_list_are_those_whose_published_rules_do() -> None:
    for name in ("custom", "other"):
        Wordlist.objects.create(name=name)
    rule = RuleSpec(check="sample_words", settings={"wordlists": ["custom"]})
    policy_with("uses it", RuleSpec(check="sample_limit", settings={"limit": 1}), rule)
    switched_off = policy_with("a switched off one", rule)
    Policy.objects.filter(pk=switched_off.pk).update(enabled=False)
    policy_with("uses another", RuleSpec(check="sample_words", settings={"wordlists": ["other"]}))
    replace_rules(Policy.objects.create(name="never published"), [rule])
    replace_rules(policy_with("only in its draft"), [rule])
    assert selectors.policies_using("custom") == ["a switched off one", "uses it"]


def test_working_copy_is_compared_with_what_is_in_force() -> None:
    policy = Policy.objects.create(name="default")
    assert selectors.has_unpublished_changes(policy)
    publish(policy)
    assert not selectors.has_unpublished_changes(policy)
    policy.description = "Only for us."
    assert not selectors.has_unpublished_changes(policy)
    replace_rules(policy, [RuleSpec(check="sample_limit", settings={"limit": 1})])
    assert selectors.has_unpublished_changes(policy)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one provider there is."""
    monkeypatch.setattr(catalogue, "provider_names", lambda: ["judge"])


def test_policy_that_asks_a_provider_is_known_by_it(judge: None) -> None:
    policy_with("careful", RuleSpec(check="moderation", settings={"provider": "judge"}))
    assert selectors.policies_asking("judge") == ["careful"]
    assert selectors.policies_asking("another") == []


def test_rule_that_asks_a_provider_that_is_not_there_is_not_published(judge: None) -> None:
    """Every call would be blocked for want of a verdict."""
    with pytest.raises(ValidationError, match="there is no provider nobody"):
        policy_with("careful", RuleSpec(check="moderation", settings={"provider": "nobody"}))
