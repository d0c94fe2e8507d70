"""Policies in words: what a rule does, and what differs between two versions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.display import Change, Line, changes, few, rule_lines, rule_words, texts
from policies.documents import PolicySpec, RuleSpec

WORDS = RuleSpec(check="wordlist", action="redact", settings={"wordlists": ["adult", "custom"]})
TOKENS = RuleSpec(check="max_tokens", action="redact", stage="request", settings={"limit": 50})
USER = RuleSpec(check="require_user", stage="request", name="who")


def between(before: list[RuleSpec], after: list[RuleSpec]) -> list[Change]:
    return changes(PolicySpec(rules=tuple(before)), PolicySpec(rules=tuple(after)))


def kinds(found: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.title) for change in found]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (WORDS, "Word lists: redact"),
        (TOKENS, "Max tokens: clamp"),
        (USER, "who: block"),
        (replace(USER, dry_run=True, enabled=False), "who: block, dry run, off"),
        (RuleSpec(check="bygone", action="audit"), "bygone (no longer there): record only"),
    ],
)
def test_rule_in_a_few_words(rule: RuleSpec, words: str) -> None:
    assert rule_words(rule) == words


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (True, ["yes"]),
        (False, ["no"]),
        ("", []),
        ([], []),
        (None, []),
        (0, ["0"]),
        ("a\nb", ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        ([{"match": "ü"}], ['{"match": "ü"}']),
        ({"hate": 0.5}, ['{"hate": 0.5}']),
    ],
)
def test_value_of_a_setting_in_lines(value: object, lines: list[str]) -> None:
    assert texts(value) == lines


def test_long_lists_of_names_are_cut() -> None:
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_rule_that_does_not_block_says_nothing_of_blocking() -> None:
    labels = [label for label, _ in rule_lines(WORDS)]
    assert labels == ["Word lists", "Name", "Enabled", "Dry run", "Action", "Stage", "Time limit (ms)", "Fail open"]
    assert "Message for the caller" in [label for label, _ in rule_lines(USER)]


# --- changes --------------------------------------------------------------------------------------------------------
def test_nothing_changed_is_no_change() -> None:
    assert between([WORDS, TOKENS], [WORDS, TOKENS]) == []


def test_added_and_removed_rules_say_what_they_say() -> None:
    [removed, added] = between([TOKENS], [USER])
    assert (removed.kind, removed.title, added.kind, added.title) == ("removed", "Max tokens", "added", "who")
    assert Line("Limit", ("50",), ()) in removed.lines
    assert Line("Name", (), ("who",)) in added.lines
    assert "Time limit (ms)" not in [line.label for line in added.lines]


def test_changed_setting_is_shown_with_its_label_before_and_after() -> None:
    assert between([TOKENS], [replace(TOKENS, settings={"limit": 60})]) == [
        Change("changed", "Max tokens", (Line("Limit", ("50",), ("60",)),))
    ]


def test_of_a_changed_list_only_what_differs_is_shown() -> None:
    [change] = between([WORDS], [replace(WORDS, settings={"wordlists": ["custom", "dan"]})])
    assert change.lines == (Line("Word lists", ("adult",), ("dan",)),)


def test_list_in_another_order_is_shown_whole() -> None:
    [change] = between([WORDS], [replace(WORDS, settings={"wordlists": ["custom", "adult"]})])
    assert change.lines == (Line("Word lists", ("adult", "custom"), ("custom", "adult")),)


def test_fields_are_shown_in_the_words_of_the_form() -> None:
    [change] = between([WORDS], [replace(WORDS, action="block", stage="reply", dry_run=True)])
    assert change.lines == (
        Line("Dry run", ("no",), ("yes",)),
        Line("Action", ("Redact",), ("Block",)),
        Line("Stage", ("Requests and replies",), ("Replies",)),
    )


def test_rule_that_moved_is_told_once() -> None:
    [change] = between([WORDS, TOKENS, USER], [TOKENS, USER, WORDS])
    assert (change.kind, change.title, change.lines) == ("moved", "Word lists", (Line("Place", ("1",), ("3",)),))


def test_rules_that_make_room_have_not_moved() -> None:
    assert kinds(between([WORDS, TOKENS], [USER, WORDS, TOKENS])) == [("added", "who")]


def test_rules_of_one_check_are_told_apart_by_what_they_say_then_by_name() -> None:
    strict, mild = replace(TOKENS, name="strict"), replace(TOKENS, name="mild")
    assert kinds(between([strict, mild], [mild])) == [("removed", "strict")]
    [change] = between([strict, mild], [strict, replace(mild, settings={"limit": 9})])
    assert (change.kind, change.title) == ("changed", "mild")


def test_change_of_the_policy_itself_comes_first() -> None:
    before = PolicySpec(rules=(WORDS,))
    after = PolicySpec(header_overrides="tighten", log_reply=True, retention_days=7)
    assert changes(before, after)[0] == Change(
        "settings",
        "The policy itself",
        (
            Line("X-usagepanda-* headers", ("Ignored",), ("May only make the policy stricter",)),
            Line("Log replies", ("no",), ("yes",)),
            Line("Keep logged texts for (days)", ("30",), ("7",)),
        ),
    )
