"""The moderation check: its settings, whom it asks, and what of the verdict it finds."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.book import action_of
from policies.checks.base import clean_settings
from policies.checks.moderation import ModerationCheck, ThresholdsField
from policies.documents import RuleSpec
from policies.errors import ModerationFailed
from policies.moderation import Verdict
from policies.tests import tools
from policies.tests.tools import FIELDS, PLACES, Outcome
from policies.types import Action, Found, Stage

VERDICT = Verdict({"hate": 0.55, "sexual": 0.01, "violence": 0.8}, frozenset({"violence"}))
MESSAGE = "Moderation flagged this request. Rephrase it."


class Endpoint:
    """Answers with one verdict, and remembers what it was asked."""

    def __init__(self, verdict: Verdict | ModerationFailed = VERDICT) -> None:
        self.verdict = verdict
        self.asked: list[tuple[str, str, list[str]]] = []

    async def moderate(self, provider: str, model: str, texts: list[str]) -> Verdict:
        self.asked.append((provider, model, texts))
        if isinstance(self.verdict, ModerationFailed):
            raise self.verdict
        return self.verdict


def check_of(**settings: Any) -> ModerationCheck:
    return ModerationCheck(clean_settings(ModerationCheck, settings))


async def found(verdict: Verdict = VERDICT, **settings: Any) -> list[str]:
    return [one.label for one in await check_of(**settings).ask(["text"], Endpoint(verdict).moderate)]


# --- settings -------------------------------------------------------------------------------------------------------


def test_without_settings_openais_newest_model_is_asked_before_the_request_leaves() -> None:
    assert clean_settings(ModerationCheck, {}) == {
        "provider": "",
        "model": "omni-moderation-latest",
        "categories": [],
        "thresholds": {},
        "mode": "before",
    }


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ({"violence": 0.8, "self-harm/intent": 1}, {"violence": 0.8, "self-harm/intent": 1.0}),
        ("violence = 0.8\n\n self-harm/intent=1 \n", {"violence": 0.8, "self-harm/intent": 1.0}),
        ({}, {}),
        ("", {}),
        (None, {}),
        ({"hate": 0}, {"hate": 0.0}),
    ],
)
def test_thresholds_are_an_object_in_files_and_lines_in_the_admin(given: Any, cleaned: dict[str, float]) -> None:
    assert clean_settings(ModerationCheck, {"thresholds": given})["thresholds"] == cleaned


def test_thresholds_are_shown_in_the_admin_as_they_are_written_there() -> None:
    thresholds = {"violence": 0.8, "self-harm/intent": 1.0}
    shown = ThresholdsField().prepare_value(thresholds)
    assert shown == "violence = 0.8\nself-harm/intent = 1.0"
    assert ThresholdsField(required=False).clean(shown) == thresholds


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"thresholds": {"hate": 1.2}}, "thresholds", "the score of hate must be a number from 0 to 1"),
        ({"thresholds": {"hate": -1}}, "thresholds", "the score of hate must be a number from 0 to 1"),
        ({"thresholds": {"hate": True}}, "thresholds", "the score of hate must be a number from 0 to 1"),
        ({"thresholds": {"hate": float("nan")}}, "thresholds", "the score of hate must be a number from 0 to 1"),
        ({"thresholds": {"hate": None}}, "thresholds", "the score of hate must be a number from 0 to 1"),
        ({"thresholds": "hate = much"}, "thresholds", "the score of hate must be a number from 0 to 1"),
        ({"thresholds": "hate"}, "thresholds", "the score of a category must be a number from 0 to 1"),
        ({"thresholds": [0.5]}, "thresholds", "must be scores by category, such as {violence: 0.8}"),
        ({"thresholds": {"": 0.5}}, "thresholds", "nothing is no name of a category"),
        ({"thresholds": {"<b>": 0.5}}, "thresholds", "<b> is no name of a category"),
        ({"categories": ["hate", "x" * 65]}, "categories", f"{'x' * 65} is no name of a category"),
        (
            {"categories": ["hate"], "thresholds": {"violence": 0.5}},
            "thresholds",
            "violence is not among the categories that count",
        ),
        ({"mode": "after"}, "mode", "Select a valid choice. after is not one of the available choices."),
        ({"model": ""}, "model", "This field is required."),
        ({"category": ["hate"]}, "category", "is no setting of moderation"),
    ],
)
def test_wrong_setting_is_refused_by_name(settings: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        clean_settings(ModerationCheck, settings)
    assert list(refused.value.message_dict) == [field]
    assert refused.value.message_dict[field][0].startswith(said)


def test_settings_of_an_older_document_stand_at_their_defaults() -> None:
    check = ModerationCheck({})
    assert (check.provider, check.model, check.runs_beside) == ("", "omni-moderation-latest", False)


@pytest.mark.parametrize(("mode", "beside"), [("before", False), ("parallel", True)])
def test_mode_says_whether_the_request_leaves_before_the_verdict(mode: str, beside: bool) -> None:
    assert check_of(mode=mode).runs_beside is beside


def test_it_can_audit_and_block_on_both_sides_but_change_nothing() -> None:
    assert ModerationCheck.stages == frozenset(Stage)
    assert ModerationCheck.actions == {Action.AUDIT, Action.BLOCK}
    with pytest.raises(ValueError, match="moderation cannot redact"):
        action_of(RuleSpec(check="moderation", action="redact"), ModerationCheck)


def test_it_has_more_time_than_checks_that_ask_nobody() -> None:
    assert ModerationCheck.default_timeout_ms == 5000


# --- asking ---------------------------------------------------------------------------------------------------------


async def test_provider_is_asked_about_all_texts_at_once() -> None:
    endpoint = Endpoint()
    await check_of(provider="judge", model="m").ask(["one", "two"], endpoint.moderate)
    assert endpoint.asked == [("judge", "m", ["one", "two"])]


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
async def test_nobody_is_asked_about_nothing(texts: list[str]) -> None:
    endpoint = Endpoint()
    assert list(await check_of().ask(texts, endpoint.moderate)) == []
    assert endpoint.asked == []


async def test_finding_names_the_category_and_its_message_says_what_to_do() -> None:
    (only,) = await check_of().ask(["a text"], Endpoint().moderate)
    assert only == Found(label="violence", message=MESSAGE)


async def test_failure_of_the_endpoint_is_nothing_found_and_nothing_passed() -> None:
    """The engine lets it pass only where the rule fails open."""
    with pytest.raises(ModerationFailed):
        await check_of().ask(["a text"], Endpoint(ModerationFailed("no answer")).moderate)


# --- judging --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({}, ["violence"]),
        ({"categories": ["violence", "hate"]}, ["violence"]),
        ({"categories": ["hate"]}, []),
        ({"thresholds": {"hate": 0.5}}, ["hate", "violence"]),
        ({"thresholds": {"hate": 0.55}}, ["hate", "violence"]),
        ({"thresholds": {"hate": 0.56}}, ["violence"]),
        ({"thresholds": {"violence": 0.81}}, []),
        ({"thresholds": {"violence": 0.8, "sexual": 0.5}}, ["violence"]),
        ({"categories": ["hate"], "thresholds": {"hate": 0.5}}, ["hate"]),
        ({"categories": ["hate", "violence"], "thresholds": {"violence": 0.9}}, []),
        ({"thresholds": {"sexual": 0}}, ["sexual", "violence"]),
        ({"thresholds": {"violence": 1}}, []),
    ],
)
async def test_flag_counts_unless_the_category_has_a_threshold(settings: dict[str, Any], labels: list[str]) -> None:
    assert await found(**settings) == labels


@pytest.mark.parametrize("settings", [{"categories": ["hate", "vilence"]}, {"thresholds": {"vilence": 0.5}}])
async def test_category_that_the_endpoint_does_not_judge_fails_instead_of_never_being_found(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ModerationFailed, match="no category vilence"):
        await found(**settings)
    assert "has no category vilence" in caplog.text


# --- in the engine ---------------------------------------------------------------------------------------------------

TEXT = "what is judged"
RULES: dict[str, dict[str, Any]] = {
    "block": {"action": "block"},
    "dry run": {"action": "block", "dry_run": True},
    "audit": {"action": "audit"},
}
RULED = pytest.mark.parametrize("kind", RULES)
FOUND = {("moderation", "violence", False): 1}


def found_in(outcome: Outcome, stage: Stage) -> dict[tuple[str, str, bool], int]:
    assert all(at is stage for _, at, _, _ in outcome.findings)
    return {(rule, label, failed): count for (rule, _, label, failed), count in outcome.findings.items()}


def check_outcome(outcome: Outcome, kind: str, stage: Stage, endpoint: Endpoint) -> None:
    """Blocked for what was found; or not even asked about yet."""
    assert outcome.blocked is (kind == "block")
    assert found_in(outcome, stage) == (FOUND if kind == "block" else {})
    assert len(endpoint.asked) == (kind == "block")
    if outcome.error is not None:
        assert outcome.error.message == MESSAGE
        assert TEXT in " ".join(endpoint.asked[0][2])


@RULED
@pytest.mark.parametrize("mode", ["before", "parallel"])
@pytest.mark.parametrize("place", [place for places in PLACES.values() for place in places])
async def test_flagged_request_is_blocked_wherever_the_text_stands(place: str, mode: str, kind: str) -> None:
    rule = tools.rule(check_of(mode=mode), stages=tools.REQUEST, **RULES[kind])
    endpoint = Endpoint()
    outcome = await tools.ask([rule], tools.exchange_of(tools.request_with(TEXT, place)), endpoint.moderate)
    check_outcome(outcome, kind, Stage.REQUEST, endpoint)


@RULED
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("field", [field for fields in FIELDS.values() for field in fields])
async def test_flagged_reply_is_blocked_whatever_it_says_it_in(field: str, streamed: bool, kind: str) -> None:
    rule = tools.rule(check_of(), stages=tools.REPLY, **RULES[kind])
    endpoint = Endpoint()
    said = tools.in_arguments(TEXT) if field == "arguments" else TEXT
    if streamed:
        outcome = await tools.stream([rule], tools.events_with([list(said)], field), moderate=endpoint.moderate)
    else:
        outcome = await tools.answer([rule], tools.reply_with([said], field), moderate=endpoint.moderate)
    check_outcome(outcome, kind, Stage.REPLY, endpoint)
    assert outcome.texts(field) == ([] if kind == "block" else [said])


@pytest.mark.parametrize("kind", ["dry run", "audit"])
async def test_stream_that_is_only_audited_is_not_held_back(kind: str) -> None:
    rule = tools.rule(check_of(), stages=tools.REPLY, **RULES[kind])
    outcome = await tools.stream([rule], tools.events_with([list(TEXT)]), moderate=Endpoint().moderate)
    assert outcome.untouched


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("mode", ["before", "parallel"])
@pytest.mark.parametrize("stages", [tools.REQUEST, tools.REPLY], ids=["request", "reply"])
async def test_failure_blocks_unless_the_rule_fails_open(stages: frozenset[Stage], mode: str, fail_open: bool) -> None:
    rule = tools.rule(check_of(mode=mode), stages=stages, fail_open=fail_open)
    endpoint = Endpoint(ModerationFailed("no answer"))
    outcome = await tools.answer([rule], tools.reply_with([TEXT]), moderate=endpoint.moderate)
    assert outcome.failed is not fail_open
    assert outcome.texts() == ([TEXT] if fail_open else [])
    assert found_in(outcome, *stages) == {("moderation", "ModerationFailed", True): 1}
