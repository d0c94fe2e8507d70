"""Arguments of tool calls are read as the texts that the tool will get, and go on as the JSON that they were."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from policies.arguments import ArgumentsWindow
from policies.errors import Blocked
from policies.record import Record
from policies.rules import CompiledRule
from policies.tests.tools import (
    Phrases,
    answer,
    ask,
    cut,
    events_with,
    exchange_of,
    in_arguments,
    reply_with,
    request_with,
    rule,
    run,
    stream,
)
from policies.types import Stage
from policies.window import MAX_HELD_CHARS, Match, Reader


def redact(*phrases: str) -> CompiledRule:
    return rule(Phrases(*phrases), "redact")


def block(*phrases: str, **fields: Any) -> CompiledRule:
    return rule(Phrases(*phrases), "block", **fields)


def passed(arguments: str, *rules: CompiledRule, size: int = 0) -> str:
    """The arguments as they go on, in fragments of `size` (0: whole). Raises Blocked."""
    window = ArgumentsWindow([Reader(one, one.check) for one in rules], Record(), Stage.REPLY)
    fragments = cut(arguments, size) if size else [arguments]
    return "".join([window.feed(fragment) for fragment in fragments]) + window.feed("", True)


def check_changes(arguments: str, expected: str, *rules: CompiledRule) -> None:
    """Whole, in any fragments, in requests and in replies."""
    for size in (0, 1, 2, 3, 5):
        assert passed(arguments, *rules, size=size) == expected, f"in fragments of {size}"
    window = ArgumentsWindow([Reader(one, one.check) for one in rules], Record(), Stage.REPLY)
    assert window.feed(arguments, True) == expected, "at once"


def check_refuses(arguments: str, *rules: CompiledRule) -> None:
    for size in (0, 1, 2, 3, 5):
        with pytest.raises(Blocked):
            passed(arguments, *rules, size=size)
    window = ArgumentsWindow([Reader(one, one.check) for one in rules], Record(), Stage.REPLY)
    with pytest.raises(Blocked):
        window.feed(arguments, True)


# --- what is read ---

VALUES = [
    ('{"a": "my secret"}', '{"a": "my ****"}'),
    ('{"a": {"b": ["x", {"c": "secret"}]}}', '{"a": {"b": ["x", {"c": "****"}]}}'),
    ('["secret", "secret"]', '["****", "****"]'),
    ('"secret"', '"****"'),  # a string is JSON too
    ('  {\n\t"a" : "secret" }\r\n', '  {\n\t"a" : "****" }\r\n'),
    ('{"a": "s\\u0065cret"}', '{"a": "****"}'),
    ('{"a": "\\u0073\\u0065\\u0063\\u0072\\u0065\\u0074!"}', '{"a": "****!"}'),
    ('{"a": "se", "b": "cret"}', '{"a": "se", "b": "cret"}'),  # texts of their own
    ('{"a": ""}', '{"a": ""}'),
    ("{}", "{}"),
    ("", ""),
]


@pytest.mark.parametrize(("arguments", "expected"), VALUES)
def test_each_string_value_is_a_text(arguments: str, expected: str) -> None:
    check_changes(arguments, expected, redact("secret"))


ESCAPES = [
    ("caf\\u00e9", "café"),
    ("caf\\u00E9", "café"),
    ("\\ud83d\\ude00 smile", "😀 smile"),
    ('say \\"please\\"', 'say "please"'),
    ("one\\ntwo\\tthree", "one\ntwo\tthree"),
    ("back\\\\slash\\/", "back\\slash/"),
    ("\\b\\f\\r", "\b\f\r"),
    ("lone \\ud83d half", "lone \ud83d half"),
    ("other \\ude00 half", "other \ude00 half"),
    ("\\ud83d\\ud83d\\ude00", "\ud83d😀"),  # a half, then a pair
]


@pytest.mark.parametrize(("written", "read"), ESCAPES)
def test_rules_read_what_an_escape_stands_for(written: str, read: str) -> None:
    assert json.loads(f'"{written}"') == read
    check_changes(f'{{"a": "x{written}y"}}', '{"a": "x****y"}', redact(read))
    check_refuses(f'{{"a": "x{written}y"}}', block(read))


@pytest.mark.parametrize(("written", "read"), ESCAPES)
def test_what_is_not_redacted_keeps_its_escapes(written: str, read: str) -> None:
    check_changes(f'{{"a": "{written} secret {written}"}}', f'{{"a": "{written} **** {written}"}}', redact("secret"))


def test_mask_is_escaped_like_any_text() -> None:
    quoting = rule(Phrases("secret", placeholder='"\\\n'), "redact")
    check_changes('{"a": "secret"}', '{"a": "\\"\\\\\\n"}', quoting)
    check_changes('{"a": "secret"}', '{"a": "█"}', rule(Phrases("secret", placeholder="█"), "redact"))


def test_match_that_begins_inside_an_escape_of_two_halves_counts_characters() -> None:
    check_changes('{"a": "\\ud83d\\ude00secret"}', '{"a": "\\ud83d\\ude00****"}', redact("secret"))


def test_number_that_is_redacted_becomes_a_string() -> None:
    check_changes('{"pin": 1234, "n": 12}', '{"pin": "****", "n": 12}', redact("1234"))
    check_changes('{"pin": -1.234e5}', '{"pin": "-****e5"}', redact("1.234"))
    check_refuses('{"pin": 1234}', block("1234"))


@pytest.mark.parametrize("word", ["true", "false", "null"])
def test_words_of_json_are_no_texts(word: str) -> None:
    check_changes(f'{{"a": {word}}}', f'{{"a": {word}}}', redact(word), block(word))


def test_json_inside_a_string_is_read_as_the_text_that_it_is() -> None:
    inner = json.dumps({"note": "my secret", "more": '"quoted"'})
    outer = json.dumps({"payload": inner})
    check_changes(outer, json.dumps({"payload": inner.replace("secret", "****")}), redact("secret"))


# --- keys ---


def test_keys_are_never_redacted() -> None:
    check_changes('{"secret": "a secret"}', '{"secret": "a ****"}', redact("secret"))
    check_changes('{"a": {"secret": 1}, "secret": {}}', '{"a": {"secret": 1}, "secret": {}}', redact("secret"))


def test_keys_can_block() -> None:
    check_refuses('{"secret": 1}', block("secret"))
    check_refuses('{"a": [{"s\\u0065cret": 1}]}', block("secret"))


def test_key_of_arguments_that_break_off_blocks_too() -> None:
    check_refuses('{"a": 1, "my secret', block("secret"))


def test_strings_in_lists_are_no_keys() -> None:
    check_changes('{"a": ["secret", "secret"], "b": 1}', '{"a": ["****", "****"], "b": 1}', redact("secret"))


# --- what is no JSON ---


def test_input_that_is_no_json_is_one_text() -> None:
    """A custom tool's input."""
    check_changes("SELECT my secret, 'x' FROM t", "SELECT my ****, 'x' FROM t", redact("secret"))
    check_changes("  my secret", "  ****", redact("my secret"))
    check_changes(" my secret", "****", redact(" my secret"))
    check_changes("42 is my secret", "**** is my ****", redact("42", "secret"))


INVALID = [
    "{two words",
    "{two words}",
    '{"a": two words, "b": 1}',
    '["x", two words',
    '{"a": 1} two words',
    '"a" two words',
    "{'a': 'two words'}",
    '{"a": "two words',
    '{"a": "two words"]]]}}}',
]


@pytest.mark.parametrize("arguments", INVALID)
def test_words_between_strings_that_are_no_json_are_read_as_one_text(arguments: str) -> None:
    """A model may be talked into writing them, and callers may write what they like."""
    check_changes(arguments, arguments.replace("two words", "****"), redact("two words"))
    check_refuses(arguments, block("two words"))


def test_strings_are_still_unescaped_behind_words_that_are_no_json() -> None:
    check_changes('{"a": None, "b": "s\\u0065cret"}', '{"a": None, "b": "****"}', redact("secret"))


def test_numbers_one_after_the_other_are_one_text_outside_of_json() -> None:
    check_changes('{"a": 1} 4111 1111', '{"a": 1} ****', redact("4111 1111"))


INVALID_ESCAPES = ["\\x", "\\u12", "\\u12g4", "\\uZZZZ", "\\", "\\ud83d\\", "\\ud83d\\u", "\\ud83d\\u12", "\\ud83d\\n"]


@pytest.mark.parametrize("escape", INVALID_ESCAPES)
def test_invalid_escapes_go_on_as_they_are(escape: str) -> None:
    check_changes(f'{{"a": "secret{escape}', f'{{"a": "****{escape}', redact("secret"))
    check_changes(f'{{"a": "{escape}z secret"}}', f'{{"a": "{escape}z ****"}}', redact("secret"))


def test_invalid_escape_does_not_hide_the_end_of_a_string() -> None:
    check_changes('{"a": "\\u00", "b": "secret"}', '{"a": "\\u00", "b": "****"}', redact("secret"))


@pytest.mark.parametrize(
    "arguments", ['{"a": "secre', '{"a": "x\\u00', '{"a": 12', '{"a', '{"a": "\\ud83d', "  ", "[tru"]
)
def test_nothing_is_lost_of_arguments_that_break_off(arguments: str) -> None:
    check_changes(arguments, arguments, redact("secret"))


@pytest.mark.parametrize("arguments", ["{sec", "sec", '{"a": 1} sec', '["sec'])
def test_what_is_held_of_arguments_that_break_off_is_not_lost(arguments: str) -> None:
    check_changes(arguments, arguments, redact("secret"))


# --- in streams ---


def test_text_of_a_value_goes_while_the_rest_is_still_to_come() -> None:
    window = ArgumentsWindow([Reader(redact("secret"), Phrases("secret"))], Record(), Stage.REPLY)
    said = [window.feed(fragment) for fragment in ('{"no', 'te": "Dear ', "Bob, your sec", 'ret is"', "}")]
    assert said == ['{"', 'note": "Dear ', "Bob, your ", '**** is"', "}"]


def test_only_what_is_needed_of_an_escape_is_held() -> None:
    window = ArgumentsWindow([Reader(redact("secret"), Phrases("secret"))], Record(), Stage.REPLY)
    assert window.feed('["x\\n') == '["x\\n'
    assert [window.feed(fragment) for fragment in ('", "x\\', "u00", "e9\\ud83d", "\\ude", "00")][1:] == [
        "",
        "\\u00e9",
        "",
        "\\ud83d\\ude00",
    ]


def test_very_long_key_is_not_held_for_ever() -> None:
    key = "k" * (3 * MAX_HELD_CHARS)
    window = ArgumentsWindow([Reader(redact("secret"), Phrases("secret"))], Record(), Stage.REPLY)
    said = "".join(window.feed(fragment) for fragment in cut('{"' + key, 64))
    assert len(said) > MAX_HELD_CHARS
    assert said + window.feed('": 1}', True) == f'{{"{key}": 1}}'


@pytest.mark.parametrize("number", ["7" * (2 * MAX_HELD_CHARS), "x" * (2 * MAX_HELD_CHARS)])
def test_very_long_word_is_not_held_for_ever(number: str) -> None:
    window = ArgumentsWindow([Reader(redact("secret"), Phrases("secret"))], Record(), Stage.REPLY)
    said = "".join(window.feed(fragment) for fragment in cut('{"a": ' + number, 64))
    assert len(said) > MAX_HELD_CHARS
    assert said + window.feed("}", True) == f'{{"a": {number}}}'


@pytest.mark.parametrize("fields", [{"action": "audit"}, {"action": "block", "dry_run": True}])
def test_rules_without_power_hold_nothing_back(fields: dict[str, Any]) -> None:
    raw = '{"secret": "a s\\u0065cret", "n": 12, "secret'
    weak = rule(Phrases("secret"), name="weak", **fields)
    outcome = run(stream([weak], events_with([cut(raw, 1)], "arguments")))
    assert outcome.untouched
    assert outcome.findings == {("weak", Stage.REPLY, "", False): 3}


def test_block_in_arguments_ends_the_call() -> None:
    raw = in_arguments("my secret")
    request = run(ask([block("secret")], exchange_of(request_with("my secret", "arguments"))))
    whole = run(answer([block("secret")], reply_with([raw], "arguments")))
    streamed = run(stream([block("secret")], events_with([cut(raw, 3)], "arguments")))
    assert [outcome.blocked for outcome in (request, whole, streamed)] == [True] * 3
    assert streamed.texts("arguments") == [raw[: raw.index("secret")]]


def test_blocked_request_is_left_without_what_was_found_in_its_arguments() -> None:
    """It may be kept."""
    outcome = run(ask([block("secret"), redact("note")], exchange_of(request_with("my secret note", "arguments"))))
    assert outcome.blocked
    assert "secret" not in json.dumps(outcome.body)


def test_windows_can_collect_what_blocks() -> None:
    """So that all reasons of a whole text are told together."""
    blocking: list[Match] = []
    rules = [block("one", name="first"), block("two", name="second"), redact("three")]
    window = ArgumentsWindow([Reader(one, one.check) for one in rules], Record(), Stage.REQUEST, blocking)
    assert window.feed('{"one": "one two three", "n": two}', True) == '{"one": "**** **** ****", "n": ****}'
    assert [match.rule.name for match in blocking] == ["first", "first", "second", "second"]


def test_arguments_are_read_in_linear_time() -> None:
    arguments = json.dumps({"numbers": list(range(30_000)), "words": ["w"] * 10_000, "text": "\\" * 30_000})
    begun = time.process_time()
    assert passed(arguments, redact("secret")) == arguments
    assert time.process_time() - begun < 5
