"""Trying a policy: what is found where, what goes on, what the caller gets, and what it costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies import fold, try_it
from policies.checks.base import CHECKS, Check
from policies.display import Line
from policies.documents import PolicySpec, RuleSpec
from policies.fold import Folded
from policies.models import Wordlist, WordlistEntry
from policies.services import add_entries
from policies.try_it import Trial, attempt
from policies.types import Scan, Span

pytestmark = pytest.mark.django_db

WORDS = RuleSpec(check="wordlist", action="redact", settings={"wordlists": ["fruit"]})
TOOLS = {"allow": ["ls"], "block": [], "on_block": "strip"}
BLOCK = RuleSpec(check="wordlist", settings={"wordlists": ["fruit"]}, message="No fruit, please.")


@pytest.fixture(autouse=True)
def fruit(db: None) -> None:
    add_entries(Wordlist.objects.create(name="fruit", catch_disguises=False), ["plum", "plum cake", "cake tin"])


@pytest.fixture(autouse=True)
def _few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(try_it, "TIMED_S", 0.0)


def tried(text: str, *rules: RuleSpec, reply: str = "", model: str = "gpt-test") -> Trial:
    return attempt(PolicySpec(rules=rules), try_it.read(text, reply, model))


def marked(trial: Trial, side: str = "request") -> list[str]:
    """Each text with its marks: what is found in brackets, with the rules and labels that end there."""
    texts = trial.request_texts if side == "request" else trial.reply_texts
    return [
        "".join(
            f"[{piece.text}|{','.join(f'{rule} {label}' for rule, label in piece.ends)}]" if piece.rules else piece.text
            for piece in text.pieces
        )
        for text in texts
    ]


class Broken(Check):
    """Fails as soon as it reads."""

    name, label, help = "broken", "Broken", "For tests."

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        raise RuntimeError(text.original)


class Greedy(Check):
    """Finds every other character."""

    name, label, help = "greedy", "Greedy", "For tests."

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return Scan([Span(at, at + 1) for at in range(start, len(text.original), 2)], len(text.original))


@pytest.fixture
def odd_checks() -> Iterator[None]:
    CHECKS.update(broken=Broken, greedy=Greedy)
    yield
    del CHECKS["broken"], CHECKS["greedy"]


# --- what can be pasted ---------------------------------------------------------------------------------------------
def test_plain_text_is_one_message_of_a_user() -> None:
    conversation = try_it.read("Hello\r\nthere", "", "gpt-test")
    assert conversation.endpoint == "chat/completions"
    assert conversation.body == {"model": "gpt-test", "messages": [{"role": "user", "content": "Hello\nthere"}]}


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        ({"messages": []}, "chat/completions"),
        ({"prompt": "Hello"}, "completions"),
        ({"input": ["Hello"]}, "embeddings"),
    ],
)
def test_json_is_a_request_of_its_endpoint(body: dict[str, Any], endpoint: str) -> None:
    conversation = try_it.read(json.dumps(body), "", "gpt-test")
    assert (conversation.endpoint, conversation.body) == (endpoint, {"model": "gpt-test", **body})


def test_model_of_the_json_wins() -> None:
    assert try_it.read('{"model": "own", "messages": []}', "", "gpt-test").model == "own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"messages": [}', "begins like JSON, but is none: see line 1."),
        ('{"model": "x"}', "neither messages nor a prompt nor an input"),
        ('{"model": 5, "messages": []}', "model of a request must be a text"),
        ('{"messages": ' + "[" * 100 + "]" * 100 + "}", "nested more deeply than policies can read"),
        ('{"messages": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
    ],
)
def test_what_is_no_request_is_told_at_the_request(text: str, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        try_it.read(text)
    assert said in raised.value.message_dict["text"][0]


@pytest.mark.parametrize(("reply", "said"), [('{"a": 1}', "has no choices"), ('{"choices"', "begins like JSON")])
def test_what_is_no_reply_is_told_at_the_reply(reply: str, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        try_it.read("Hello", reply)
    assert said in raised.value.message_dict["reply"][0]


def test_half_a_character_can_be_tried_and_shown() -> None:
    trial = tried('{"messages": [{"role": "user", "content": "\\ud83d plum"}]}', WORDS)
    assert trial.request.json.encode()
    assert marked(trial) == ["? [plum|1 fruit]"]


# --- what is found --------------------------------------------------------------------------------------------------
def test_everything_that_is_found_is_marked_where_it_stands() -> None:
    assert marked(tried("A plum, a PLUM.", WORDS)) == ["A [plum|1 fruit], a [PLUM|1 fruit]."]


def test_marks_that_overlap_are_cut_where_each_begins_and_ends() -> None:
    assert marked(tried("plum cake tin", WORDS)) == ["[plum|1 fruit][ |][cake|1 fruit][ tin|1 fruit]"]


def test_two_rules_that_find_the_same_are_both_named() -> None:
    [text] = tried("plum", WORDS, BLOCK).request_texts
    assert text.pieces[0].rules == (1, 2)


def test_rules_that_only_record_or_run_dry_are_marked_too() -> None:
    audit = RuleSpec(check="wordlist", action="audit", settings={"wordlists": ["fruit"]})
    dry = RuleSpec(check="wordlist", dry_run=True, settings={"wordlists": ["fruit"]})
    trial = tried("plum", audit, dry)
    assert marked(trial) == ["[plum|1 fruit,2 fruit]"]
    assert (trial.request.kind, trial.request.changed) == ("passes", False)
    assert [rule.found for rule in trial.rules] == [["fruit in the request"], ["fruit in the request"]]


def test_arguments_of_tools_are_read_value_by_value() -> None:
    arguments = json.dumps({"query": "plum \u00e9", "list": ["a", "plum"], "count": 3, "flag": True})
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": arguments}}
    trial = tried(json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}]}), WORDS)
    place = "messages[0].tool_calls[0].function"
    assert [text.where for text in trial.request_texts if text.has_marks] == [
        f"{place}.arguments → query",
        f"{place}.arguments → list[1]",
    ]
    [sent] = [text for text in trial.request.texts if text.is_changed]
    assert sent.text == '{"query": "**** \\u00e9", "list": ["a", "****"], "count": 3, "flag": true}'


def test_arguments_that_are_no_json_are_read_as_they_are() -> None:
    call = {"function": {"name": "find", "arguments": "{plum"}}
    trial = tried(json.dumps({"messages": [{"role": "assistant", "tool_calls": [call]}]}), WORDS)
    assert marked(trial)[-1] == "{[plum|1 fruit]"


def test_findings_are_counted_by_rule_and_side() -> None:
    [rule] = tried("plum plum", WORDS, reply="A plum.").rules
    assert rule.found == ["fruit ×2 in the request", "fruit in the reply"]


def test_what_is_no_text_is_found_too() -> None:
    limit = RuleSpec(
        check="max_tokens", action="redact", stage="request", settings={"limit": 10, "missing_counts": False}
    )
    trial = tried('{"messages": [], "max_tokens": 500}', limit)
    assert trial.rules[0].found == ["over the limit in the request"]
    assert json.loads(trial.request.json)["max_tokens"] == 10
    assert trial.request.fields == (Line("max_tokens", ("500",), ("10",)),)


def test_marks_beyond_what_anybody_reads_are_only_counted(odd_checks: None) -> None:
    [text] = tried("x" * 1200, RuleSpec(check="greedy", action="audit")).request_texts
    assert (sum(bool(piece.rules) for piece in text.pieces), text.more) == (500, 100)


# --- what comes of it -----------------------------------------------------------------------------------------------
def test_what_goes_to_the_provider_is_shown_as_text_and_as_json() -> None:
    trial = tried("A plum.", WORDS)
    assert (trial.request.kind, trial.request.changed) == ("passes", True)
    assert [(sent.where, sent.text, sent.is_changed) for sent in trial.request.texts] == [
        ("messages[0].content", "A ****.", True)
    ]
    assert json.loads(trial.request.json)["messages"] == [{"role": "user", "content": "A ****."}]


def test_field_that_a_rule_strips_is_shown() -> None:
    tools = [{"type": "function", "function": {"name": "rm"}}]
    strip = RuleSpec(check="tools", action="redact", stage="request", settings=TOOLS)
    trial = tried(json.dumps({"messages": [{"role": "user", "content": "Hi"}], "tools": tools}), strip)
    assert trial.request.fields == (Line("tools", (json.dumps(tools),), ()),)


def test_text_that_a_rule_adds_is_shown_as_changed() -> None:
    prompt = RuleSpec(
        check="system_prompt", action="redact", stage="request", settings={"text": "Be kind.", "where": "prepend"}
    )
    trial = tried("Hello", prompt)
    assert [(sent.text, sent.is_changed) for sent in trial.request.texts] == [("Be kind.", True), ("Hello", False)]


def test_blocked_request_shows_what_the_caller_reads_and_no_reply() -> None:
    trial = tried("A plum.", BLOCK, reply="Also a plum.")
    assert (trial.request.kind, trial.request.message) == ("blocked", "No fruit, please.")
    assert trial.reply is None
    assert marked(trial, "reply") == ["Also a [plum|1 fruit]."]


def test_answer_instead_of_an_error_is_shown_as_one() -> None:
    answer = RuleSpec(check="wordlist", block_with="answer", answer="Ask me else.", settings={"wordlists": ["fruit"]})
    trial = tried("A plum.", answer)
    assert (trial.request.kind, trial.request.message) == ("answered", "Ask me else.")


def test_reply_is_redacted_or_blocked_as_it_would_be() -> None:
    assert tried("Hello", WORDS, reply="A plum.").reply.texts[0].text == "A ****."
    ending = tried("Hello", BLOCK, reply="A plum.").reply
    assert (ending.kind, ending.message) == ("blocked", "No fruit, please.")


def test_reply_as_json_keeps_its_shape() -> None:
    reply = {"id": "r", "choices": [{"index": 0, "message": {"role": "assistant", "content": "A plum."}}]}
    trial = tried("Hello", WORDS, reply=json.dumps(reply))
    assert json.loads(trial.reply.json)["choices"][0]["message"]["content"] == "A ****."
    assert json.loads(trial.reply.json)["id"] == "r"


def test_rule_that_is_switched_off_is_left_out() -> None:
    off = RuleSpec(check="wordlist", enabled=False, settings={"wordlists": ["fruit"]})
    trial = tried("A plum.", off, WORDS)
    assert [rule.number for rule in trial.rules] == [2]
    assert marked(trial) == ["A [plum|2 fruit]."]


def test_check_that_fails_blocks_and_is_neither_logged_nor_quoted(
    odd_checks: None, caplog: pytest.LogCaptureFixture
) -> None:
    trial = tried("my own secret", RuleSpec(check="broken"), WORDS)
    assert trial.request.kind == "failed"
    assert trial.rules[0].found == ["failed (RuntimeError) in the request"]
    assert "secret" not in trial.request.message
    assert caplog.text == ""


def test_check_that_fails_open_lets_pass(odd_checks: None) -> None:
    trial = tried("A plum.", RuleSpec(check="broken", fail_open=True), WORDS)
    assert trial.request.texts[0].text == "A ****."


def test_rule_that_cannot_be_compiled_blocks_as_it_would() -> None:
    trial = tried("Hello", RuleSpec(check="wordlist", settings={"wordlists": ["bygone"]}))
    assert trial.request.kind == "failed"
    assert trial.problems == ("Rule 1: there is no word list bygone",)


def test_moderation_is_not_asked_and_says_so() -> None:
    trial = tried("Hello", RuleSpec(check="moderation", settings={"provider": "openai"}), reply="Hi")
    assert (trial.request.kind, trial.reply.kind) == ("passes", "passes")
    assert "in real calls only" in trial.rules[0].note


def test_repetitions_that_a_rule_sets_are_told() -> None:
    assert tried("Hello", RuleSpec(check="retries", action="redact", settings={"count": 3})).retries == 3


def test_rule_that_remembers_starts_afresh_with_each_try() -> None:
    loop = RuleSpec(check="loop", stage="request", settings={"repeats": 2, "within_s": 60})
    for _ in range(3):
        assert tried("Hello", loop).request.kind == "passes"


# --- what it costs --------------------------------------------------------------------------------------------------
class Slow(Check):
    """Takes twenty milliseconds for a text, whatever the rest of the machine does."""

    name, label, help = "slow", "Slow", "For tests."

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        time.sleep(0.02)
        return Scan((), len(text.original))


def test_each_rule_has_its_own_cost_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "slow", Slow)
    slow, words = tried("Hello", RuleSpec(check="slow", stage="request"), WORDS, reply="Hi").rules
    assert slow.cost_us is not None and words.cost_us is not None
    assert slow.cost_us >= 20_000 > words.cost_us


def test_reading_the_text_is_told_apart_from_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(text: str) -> str:
        time.sleep(0.02)
        return text.lower()

    monkeypatch.setattr(fold, "fold", slowly)
    trial = tried("Héllo", WORDS, BLOCK)
    assert trial.reading_us >= 20_000 > max(rule.cost_us or 0 for rule in trial.rules)


def test_rule_with_nothing_to_do_costs_nothing() -> None:
    trial = tried("Hello", RuleSpec(check="wordlist", stage="reply", settings={"wordlists": ["fruit"]}))
    assert trial.rules[0].cost_us is None


def test_trying_writes_nothing_and_asks_once_for_each_list(django_assert_num_queries: Any) -> None:
    conversation = try_it.read("A plum.", "", "gpt-test")
    with django_assert_num_queries(2):
        attempt(PolicySpec(rules=(WORDS, BLOCK)), conversation)
    assert WordlistEntry.objects.count() == 3
