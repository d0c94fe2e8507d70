"""How policies and word lists are changed: what is published, what is refused, and who hears of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError

from accounts import versions
from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from policies import documents, selectors, services
from policies.documents import RuleSpec
from policies.models import Assignment, Policy, PolicyVersion, Rule, Wordlist, WordlistEntry
from policies.services import InvalidRules, publish, replace_rules, roll_back
from policies.tests import sample_checks

pytestmark = pytest.mark.django_db

LIMIT = RuleSpec(check="sample_limit", settings={"limit": 5, "strict": True}, stage="request")
WORDS = RuleSpec(check="sample_words", settings={"wordlists": ["custom"]})


@pytest.fixture(autouse=True)
def _checks() -> Iterator[None]:
    with sample_checks.registered():
        yield


@pytest.fixture
def policy() -> Policy:
    return Policy.objects.create(name="default")


@pytest.fixture
def custom() -> Wordlist:
    return Wordlist.objects.create(name="custom")


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="research")


def heard() -> int:
    """How often the data plane was told."""
    return versions.current().get(versions.POLICIES, 0)


def rules_of(policy: Policy) -> list[RuleSpec]:
    return documents.specs_of(policy.rules.all())


def mistakes(rule: RuleSpec) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as raised:
        services.clean_rule(rule, {"custom"})
    return raised.value.message_dict


# --- rules ----------------------------------------------------------------------------------------------------------
def test_rule_is_stored_with_its_settings_checked_and_completed() -> None:
    given = RuleSpec(check="sample_limit", settings={"limit": "5"})
    assert services.clean_rule(given, ()).settings == {"limit": 5, "strict": True}


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"check": "nonsense"}, "check", "there is no check nonsense"),
        ({"settings": {}}, "settings.limit", "This field is required."),
        ({"settings": {"limit": 0}}, "settings.limit", "Ensure this value is greater than or equal to 1."),
        ({"settings": {"limit": 1, "limits": 2}}, "settings.limits", "is no setting of sample_limit"),
        ({"stage": "reply"}, "stage", "sample_limit does not look at reply: it looks at request"),
        ({"stage": "always"}, "stage", "not a valid choice"),
        ({"action": "redact"}, "action", "sample_limit cannot redact: it can audit, block"),
        ({"action": "explode"}, "action", "not a valid choice"),
        ({"block_with": "silence"}, "block_with", "not a valid choice"),
        ({"timeout_ms": 0}, "timeout_ms", "greater than or equal to 1"),
        ({"message": "x" * 501}, "message", "at most 500 characters"),
        ({"name": "x" * 101}, "name", "at most 100 characters"),
        ({"check": "sample_words", "settings": {"wordlists": ["lost"]}}, "settings.wordlists", "no word list lost"),
        ({"check": "sample_pattern", "action": "audit", "settings": {"pattern": "("}}, "settings", "is not a regular"),
    ],
)
def test_rule_that_cannot_work_is_refused_by_field(changed: dict[str, Any], field: str, said: str) -> None:
    found = mistakes(replace(LIMIT, **changed))
    assert list(found) == [field]
    assert said in found[field][0]


def test_all_that_is_wrong_with_a_rule_is_told_at_once() -> None:
    assert set(mistakes(replace(LIMIT, action="redact", timeout_ms=0, settings={}))) == {
        "action", "timeout_ms", "settings.limit",
    }  # fmt: skip


def test_rule_for_both_stages_looks_wherever_its_check_can() -> None:
    assert services.clean_rule(replace(LIMIT, stage="both"), ()).stage == "both"


def test_rules_are_replaced_in_order_and_keep_their_rows(policy: Policy) -> None:
    replace_rules(policy, [LIMIT, WORDS, LIMIT])
    first = policy.rules.first()
    replace_rules(policy, [WORDS, replace(LIMIT, name="short")])
    assert rules_of(policy) == [WORDS, replace(LIMIT, name="short")]
    assert policy.rules.first() == first


def test_rules_of_the_working_copy_are_nobodys_business_before_they_are_published(policy: Policy) -> None:
    before = heard()
    replace_rules(policy, [replace(WORDS, check="half done")])
    assert heard() == before


# --- publishing -----------------------------------------------------------------------------------------------------
def test_publishing_puts_the_working_copy_in_force_as_a_version(policy: Policy, alice: User) -> None:
    replace_rules(policy, [LIMIT])
    before = heard()
    version = publish(policy, alice, "first try")
    assert Policy.objects.get().current == policy.current == version
    assert (version.number, version.published_by, version.published_as, version.note) == (
        1,
        alice,
        "alice",
        "first try",
    )
    assert documents.read(version.document).rules == (LIMIT,)
    assert heard() > before


def test_publishing_without_a_change_makes_no_version(policy: Policy) -> None:
    first = publish(policy)
    before = heard()
    assert publish(policy) == first
    assert (PolicyVersion.objects.count(), heard()) == (1, before)


@pytest.mark.parametrize(
    "change", [{"show_flags": False}, {"log_request": True}, {"retention_days": 3}, {"header_overrides": "loosen"}]
)
def test_every_setting_of_a_policy_is_published_with_it(policy: Policy, change: dict[str, Any]) -> None:
    publish(policy)
    Policy.objects.update(**change)
    assert publish(policy).document.items() >= change.items()
    assert policy.current.number == 2


def test_publishing_completes_the_rules_of_the_working_copy(policy: Policy) -> None:
    replace_rules(policy, [replace(LIMIT, settings={"limit": "5"})])
    publish(policy)
    assert rules_of(policy) == [LIMIT]
    assert not selectors.has_unpublished_changes(policy)


def test_rule_that_cannot_work_keeps_the_policy_from_being_published(policy: Policy) -> None:
    good = publish(policy)
    replace_rules(policy, [LIMIT, replace(WORDS, name="names")])
    with pytest.raises(InvalidRules) as raised:
        publish(policy)
    assert raised.value.messages == ["Rule 2 (names), settings.wordlists: there is no word list custom"]
    assert list(raised.value.by_rule) == [1]
    assert Policy.objects.get().current == good


def test_rule_that_is_switched_off_may_be_half_done(policy: Policy) -> None:
    replace_rules(policy, [replace(WORDS, enabled=False)])
    assert documents.read(publish(policy).document).rules == (replace(WORDS, enabled=False),)


def test_version_published_by_nobody_says_what_did_it(policy: Policy) -> None:
    assert publish(policy, published_as="apply").published_as == "apply"


def test_long_note_is_cut(policy: Policy) -> None:
    assert len(publish(policy, note="x" * 400).note) == 300


def test_rolling_back_publishes_the_earlier_version_again(policy: Policy, alice: User) -> None:
    replace_rules(policy, [LIMIT])
    first = publish(policy)
    replace_rules(policy, [])
    Policy.objects.update(log_request=True)
    publish(policy)
    third = roll_back(policy, first, alice)
    assert (third.number, third.note, third.document) == (3, "Back to version 1", first.document)
    assert policy.current == Policy.objects.get().current == third


def test_rolling_back_makes_the_earlier_version_the_working_copy(policy: Policy) -> None:
    replace_rules(policy, [LIMIT, LIMIT])
    first = publish(policy)
    replace_rules(policy, [])
    Policy.objects.update(retention_days=2)
    publish(policy)
    roll_back(policy, first)
    assert rules_of(policy) == [LIMIT, LIMIT]
    assert Policy.objects.get().retention_days == policy.retention_days == 30
    assert not selectors.has_unpublished_changes(policy)


def test_rolling_back_to_what_cannot_work_any_more_changes_nothing(policy: Policy, custom: Wordlist) -> None:
    replace_rules(policy, [WORDS])
    first = publish(policy)
    replace_rules(policy, [])
    second = publish(policy)
    custom.delete()
    with pytest.raises(InvalidRules, match="there is no word list custom"):
        roll_back(policy, first)
    assert Policy.objects.get().current == second
    assert rules_of(policy) == []


def test_version_of_another_policy_is_refused(policy: Policy) -> None:
    other = publish(Policy.objects.create(name="other"))
    with pytest.raises(ValidationError, match="another policy"):
        roll_back(policy, other)


# --- who hears of it ------------------------------------------------------------------------------------------------
def test_data_plane_hears_of_a_policy_that_is_switched_off(policy: Policy) -> None:
    before = heard()
    policy.enabled = False
    policy.save()
    assert heard() > before


@pytest.mark.parametrize("gone", ["team", "key", "policy"])
def test_data_plane_hears_of_an_assignment_that_goes_with_its_team_key_or_policy(policy: Policy, gone: str) -> None:
    team = Team.objects.create(name="research")
    key, _ = create_key("nightly", team)
    services.assign(policy, team=team)
    services.assign(policy, key=key)
    before = heard()
    {"team": team, "key": key, "policy": policy}[gone].delete()
    assert heard() > before
    assert Assignment.objects.count() == {"team": 0, "key": 1, "policy": 0}[gone]


# --- assignment -----------------------------------------------------------------------------------------------------
def test_policy_is_assigned_once_to_each(policy: Policy, team: Team) -> None:
    key, _ = create_key("nightly", team)
    for _ in range(2):
        services.assign(policy)
        services.assign(policy, team=team)
        services.assign(policy, key=key)
    assert sorted(map(str, policy.assignments.all())) == sorted(["everyone", "team research", f"key {key}"])


def test_assignments_are_brought_to_what_is_wanted(policy: Policy, team: Team) -> None:
    other = Team.objects.create(name="other")
    services.set_assignments(policy, everyone=True, teams=[other])
    assert services.set_assignments(policy, teams=[team, other])
    assert sorted(map(str, policy.assignments.all())) == ["team other", "team research"]
    before = heard()
    assert not services.set_assignments(policy, teams=[other, team])
    assert heard() == before


def test_assignment_names_a_team_or_a_key_not_both(policy: Policy, team: Team) -> None:
    key, _ = create_key("nightly", team)
    with pytest.raises(ValueError, match="not both"):
        services.assign(policy, team=team, key=key)
    with pytest.raises(IntegrityError):
        Assignment.objects.create(policy=policy, scope="team", key=ApiKey.objects.get())


# --- word lists -----------------------------------------------------------------------------------------------------
def entries_of(wordlist: Wordlist) -> list[tuple[str, bool]]:
    return sorted(wordlist.entries.values_list("text", "allow"))


def test_entries_are_brought_to_what_is_wanted(custom: Wordlist) -> None:
    services.set_entries(custom, ["apollo", "Zeus"], ["apollo theatre"])
    changed = services.set_entries(custom, ["apollo", "hera"])
    assert entries_of(custom) == [("apollo", False), ("hera", False)]
    assert (changed.added, changed.removed, changed.duplicates) == (1, 2, [])


def test_entries_are_added_to_those_that_are_there(custom: Wordlist) -> None:
    services.add_entries(custom, ["apollo"])
    changed = services.add_entries(custom, ["hera", "Apollo"], ["apollo theatre"])
    assert entries_of(custom) == [("apollo", False), ("apollo theatre", True), ("hera", False)]
    assert (changed.added, changed.duplicates) == (2, ["Apollo"])


def test_entries_are_removed_however_they_are_spelled(custom: Wordlist) -> None:
    services.add_entries(custom, ["Secret Project", "hera"])
    assert services.remove_entries(custom, ["secret  project", "nobody"]).removed == 1
    assert entries_of(custom) == [("hera", False)]


def test_entry_that_is_given_twice_is_there_once_and_reported(custom: Wordlist) -> None:
    changed = services.set_entries(custom, ["Apollo", "  ", "apollo", "APOLLO", "hera"])
    assert changed.duplicates == ["apollo", "APOLLO"]
    assert entries_of(custom) == [("Apollo", False), ("hera", False)]


def test_word_may_be_listed_and_excepted(custom: Wordlist) -> None:
    assert services.set_entries(custom, ["apollo"], ["apollo"]).duplicates == []
    assert custom.entry_count == 2


def test_entries_that_cannot_be_are_named_and_nothing_is_changed(custom: Wordlist) -> None:
    with pytest.raises(ValidationError) as raised:
        services.set_entries(custom, ["apollo", "...", *["?"] * 30])
    assert raised.value.messages[0].startswith("'...': ")
    assert raised.value.messages[-1] == "and 11 more"
    assert not custom.entries.exists()


def test_list_counts_its_entries_and_knows_its_content_by_a_hash(custom: Wordlist) -> None:
    services.set_entries(custom, ["hera", "apollo"])
    there = Wordlist.objects.get(pk=custom.pk)
    assert there.entry_count == 2
    services.add_entries(custom, ["zeus"])
    assert custom.content_hash != there.content_hash
    services.remove_entries(custom, ["zeus"])
    assert custom.content_hash == there.content_hash


def test_exception_has_another_hash_than_an_entry(custom: Wordlist) -> None:
    services.set_entries(custom, ["apollo"])
    before = custom.content_hash
    services.set_entries(custom, [], ["apollo"])
    assert custom.content_hash != before


def test_data_plane_hears_of_entries_that_change_and_of_nothing_else(custom: Wordlist) -> None:
    before = heard()
    services.set_entries(custom, ["apollo"])
    changed = heard()
    assert changed > before
    services.set_entries(custom, ["apollo"])
    services.remove_entries(custom, ["nobody"])
    assert heard() == changed


def test_entry_that_is_saved_or_deleted_by_itself_counts_too(custom: Wordlist) -> None:
    entry = WordlistEntry.objects.create(wordlist=custom, text="apollo", folded="apollo")
    with_it = Wordlist.objects.get(pk=custom.pk)
    assert (with_it.entry_count, bool(with_it.content_hash)) == (1, True)
    before = heard()
    entry.delete()
    without_it = Wordlist.objects.get(pk=custom.pk)
    assert (without_it.entry_count, without_it.content_hash) == (0, "")
    assert heard() > before


def test_hundred_thousand_entries_are_written_in_seconds(custom: Wordlist) -> None:
    begun = time.process_time()
    services.set_entries(custom, [f"word number {number}" for number in range(100_000)])
    assert custom.entry_count == 100_000
    assert time.process_time() - begun < 10


def test_list_that_a_published_rule_uses_is_not_deleted(policy: Policy, custom: Wordlist) -> None:
    replace_rules(policy, [WORDS])
    publish(policy)
    with pytest.raises(ValidationError, match="custom is used by the policy default"):
        services.delete_wordlist(custom)
    replace_rules(policy, [])
    publish(policy)
    services.delete_wordlist(custom)
    assert not Wordlist.objects.filter(name="custom").exists()


def test_list_that_a_published_rule_uses_keeps_its_name(policy: Policy, custom: Wordlist) -> None:
    replace_rules(policy, [WORDS])
    publish(policy)
    custom.name = "other"
    with pytest.raises(ValidationError, match="It is used as custom by the policy default"):
        services.save_wordlist(custom)
    replace_rules(policy, [])
    publish(policy)
    services.save_wordlist(custom)
    assert Wordlist.objects.filter(name="other").exists()


def test_lists_that_ship_with_gatehouse_are_there_and_stay() -> None:
    builtin = Wordlist.objects.exclude(builtin="")
    assert {"profanity", "adult", "dan", "profanity-de", "profanity-fr"} <= {row.name for row in builtin}
    wordlist = builtin.get(name="profanity")
    with pytest.raises(ValidationError, match="ships with Gatehouse"):
        services.delete_wordlist(wordlist)
    wordlist.name = "rude"
    with pytest.raises(ValidationError, match="ships with Gatehouse"):
        services.save_wordlist(wordlist)


def test_deleting_a_list_deletes_its_entries(custom: Wordlist) -> None:
    services.set_entries(custom, ["apollo"])
    services.delete_wordlist(custom)
    assert not WordlistEntry.objects.exists()


def test_rule_that_is_edited_keeps_its_row_in_the_database(policy: Policy) -> None:
    replace_rules(policy, [LIMIT, WORDS])
    before = list(Rule.objects.values_list("pk", flat=True))
    replace_rules(policy, [replace(LIMIT, timeout_ms=7), WORDS])
    assert list(Rule.objects.values_list("pk", flat=True)) == before
