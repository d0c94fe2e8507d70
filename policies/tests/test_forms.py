"""The cards of rules: what they offer, how an answer is read, and that nothing is lost between the two."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import QueryDict
from django.template.loader import render_to_string
from django.utils.html import escape

from policies.checks.base import CHECKS
from policies.documents import RuleSpec
from policies.forms import RuleCards, RuleForm, new_rule
from policies.models import Wordlist
from policies.services import clean_rule
from policies.tests.pages import form_of

pytestmark = pytest.mark.django_db

RULES = [
    RuleSpec(check="wordlist", action="redact", settings={"wordlists": ["custom"]}, name="words", stage="reply"),
    RuleSpec(check="wordlist", block_with="answer", answer="Not\nhere.", settings={"wordlists": ["custom"]}),
    RuleSpec(check="require_user", stage="request", message="Say who you are.", timeout_ms=7, fail_open=True),
    RuleSpec(check="max_tokens", action="redact", settings={"limit": 5, "missing_counts": True}, dry_run=True),
    RuleSpec(check="max_prompt_chars", action="audit", settings={"limit": 5}, enabled=False),
    RuleSpec(check="canned_reply", settings={"replies": [{"match": "who", "reply": "me"}], "match_how": "exact"}),
    RuleSpec(check="canned_reply", settings={"replies": [{"match": "a\nb", "reply": "x => y"}]}),
    RuleSpec(check="moderation", settings={"categories": ["hate"], "thresholds": {"hate": 0.5}, "mode": "parallel"}),
    RuleSpec(check="allowed_models", settings={"models": ["gpt-*", "echo"]}),
    RuleSpec(check="system_prompt", action="redact", settings={"text": "Be kind.\n\nBe brief.", "where": "append"}),
]


@pytest.fixture(autouse=True)
def custom(db: None) -> None:
    Wordlist.objects.create(name="custom")


def card(spec: RuleSpec) -> RuleForm:
    return RuleCards([spec]).forms[0]


def drawn(form: RuleForm, position: int = 1) -> str:
    return render_to_string("admin/policies/policy/card.html", {"card": form, "position": position})


def sent(*specs: RuleSpec, **changed: Any) -> QueryDict:
    """What a browser sends of these cards. None: without the field."""
    forms = RuleCards(specs).forms
    page = "".join(drawn(form, place) for place, form in enumerate(forms, 1))
    fields = {**form_of(f'<form id="page">{page}</form>', "page"), "rules-next": [str(len(forms))], **changed}
    data = QueryDict(mutable=True)
    for name, values in fields.items():
        if values is not None:
            data.setlist(name, values)
    return data


def choices(form: RuleForm, name: str) -> list[str]:
    return [value for value, _ in form.fields[name].choices]  # type: ignore[attr-defined]


# --- what a card offers ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_check_has_a_card_that_explains_itself(check: str) -> None:
    page = drawn(card(new_rule(check)))
    assert CHECKS[check].label in page
    assert CHECKS[check].help
    for name, field in CHECKS[check].SettingsForm.base_fields.items():
        assert f"rules-0-settings-{name}" in page
        assert field.help_text, name


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_card_offers_only_what_its_check_can_do(check: str) -> None:
    form = card(new_rule(check))
    assert set(choices(form, "action")) == {action.value for action in CHECKS[check].actions}
    both = {"both", *(stage.value for stage in CHECKS[check].stages)}
    assert set(choices(form, "stage")) == (both if len(both) == 2 else {"request", "reply", "both"})


def test_changing_is_called_what_the_check_calls_it() -> None:
    form = card(new_rule("max_tokens"))
    assert ("redact", "Clamp") in form.fields["action"].choices  # type: ignore[attr-defined]


def test_new_rule_blocks_if_it_can_and_has_the_time_that_its_check_needs() -> None:
    assert (new_rule("wordlist").action, new_rule("retries").action) == ("block", "redact")
    assert new_rule("moderation").timeout_ms == CHECKS["moderation"].default_timeout_ms


def test_what_a_check_cannot_do_any_more_stays_to_be_seen() -> None:
    form = card(RuleSpec(check="moderation", action="redact"))
    assert choices(form, "action") == ["audit", "block", "redact"]
    assert "not possible here" in drawn(form)


def test_message_that_counts_when_none_is_given_is_shown() -> None:
    assert escape(CHECKS["require_user"].message) in drawn(card(new_rule("require_user")))


# --- there and back -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec", RULES, ids=lambda spec: f"{spec.check} {spec.action}")
def test_rule_comes_back_as_it_was_shown(spec: RuleSpec) -> None:
    stored = clean_rule(spec, {"custom"})
    cards = RuleCards(data=sent(stored))
    assert cards.is_valid(), cards.wrong()
    assert cards.specs() == [stored]


def test_all_rules_come_back_in_their_order() -> None:
    stored = [clean_rule(spec, {"custom"}) for spec in RULES]
    cards = RuleCards(data=sent(*stored))
    assert cards.is_valid()
    assert cards.specs() == stored


def test_wrong_rule_comes_back_as_it_was_typed() -> None:
    data = sent(RULES[3], **{"rules-0-settings-limit": ["many"], "rules-0-timeout_ms": ["soon"]})
    [form] = (cards := RuleCards(data=data)).forms
    assert cards.wrong() == ["rule 1 (Max tokens)"]
    assert form.settings is not None
    assert form.settings["limit"].value() == "many"
    assert form["timeout_ms"].value() == "soon"
    assert form["dry_run"].value() is True
    assert (list(form.errors), list(form.settings.errors)) == (["timeout_ms"], ["limit"])


def test_positions_decide_and_equal_ones_keep_their_order() -> None:
    places = {f"rules-{number}-position": [place] for number, place in enumerate(["3", "1", "1", "what"])}
    specs = [RuleSpec(check="require_user", stage="request", name=name) for name in "abcd"]
    cards = RuleCards(data=sent(*specs, **places))
    assert [form.given_name for form in cards.forms] == ["b", "c", "a", "d"]


def test_numbers_of_cards_may_have_gaps() -> None:
    data = sent(*RULES[:3], **{"rules-1-check": None})
    assert [form.number for form in RuleCards(data=data).forms] == [0, 2]


@pytest.mark.parametrize("count", [None, [""], ["-1"], ["99999999"], ["two"]])
def test_answer_without_a_count_of_its_cards_is_not_taken_for_no_rules(count: Any) -> None:
    assert not RuleCards(data=sent(RULES[0], **{"rules-next": count})).is_valid()


def test_what_only_compiling_shows_is_told_at_the_setting() -> None:
    data = sent(RuleSpec(check="wordlist", settings={"wordlists": ["bygone"]}))
    [form] = (cards := RuleCards(data=data)).forms
    assert not cards.is_valid()
    assert form.settings is not None
    assert form.settings.errors == {"wordlists": ["there is no word list bygone"]}


def test_rule_that_is_switched_off_may_wait_for_its_word_list() -> None:
    cards = RuleCards(data=sent(RuleSpec(check="wordlist", enabled=False, settings={"wordlists": ["soon"]})))
    assert cards.is_valid()
    assert cards.specs()[0].settings == {"wordlists": ["soon"]}


@pytest.mark.parametrize("name", ["action", "stage", "block_with"])
def test_choice_that_was_not_offered_is_refused(name: str) -> None:
    [form] = (cards := RuleCards(data=sent(RULES[0], **{f"rules-0-{name}": ["destroy"]}))).forms
    assert not cards.is_valid()
    assert name in form.errors
