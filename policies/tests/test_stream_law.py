"""The law of the stream: however a provider splits what it says, clients read what they would have read whole.

`masked` is the oracle: the words of the design, done without the engine.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import engine
from policies.arguments import ArgumentsWindow
from policies.errors import Blocked
from policies.record import Record
from policies.rules import CompiledRule
from policies.tests.tools import (
    REPLY,
    BreaksAfter,
    Outcome,
    Phrases,
    answer,
    ask,
    check_holds,
    check_scans_lawfully,
    clusters_of,
    events_with,
    exchange_of,
    hits_in,
    masked,
    reply_with,
    rule,
    run,
    stream,
)
from policies.types import Stage
from policies.window import Reader

FEW = settings(deadline=None, max_examples=60)
# Few letters, so that matches overlap; and what is easily cut in two: surrogate pairs, combining marks, escapes.
LETTERS = 'aaabbc é😀"\\\n\u0301'
TEXTS = st.text(LETTERS, max_size=30)
PHRASES = st.lists(st.text('aaabbcé😀"', min_size=1, max_size=4), min_size=1, max_size=3, unique=True)


@st.composite
def some_rules(draw: st.DrawFn, *, blocking: bool = True) -> list[CompiledRule]:
    """One to four, each with a mask of its own."""
    actions = ["audit", "redact", "redact", *(["block"] if blocking else [])]
    return [
        rule(
            Phrases(*draw(PHRASES), placeholder=f"<{number}>", label=f"label {number}"),
            draw(st.sampled_from(actions)),
            name=f"rule {number}",
            stages=REPLY,
            dry_run=draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 4)))
    ]


@st.composite
def splits(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def whole(rules: list[CompiledRule], raw: str, field: str = "content") -> Outcome:
    return run(answer(rules, reply_with([raw], field)))


def in_force(rules: list[CompiledRule]) -> list[CompiledRule]:
    return [one for one in rules if one.action != "audit" and not one.dry_run]


# --- the engine ---


@FEW
@given(st.data(), some_rules(blocking=False), TEXTS)
def test_every_split_reads_like_the_whole(data: st.DataObject, rules: list[CompiledRule], text: str) -> None:
    expected = masked(text, hits_in(text, in_force(rules), exchange_of()))
    reply = whole(rules, text)
    assert reply.texts() == [expected]
    ending = data.draw(st.sampled_from(["finish", "with text", "none"]))
    outcome = run(stream(rules, events_with([data.draw(splits(text))], ending=ending)))
    assert outcome.error is None
    assert outcome.texts() == [expected]
    assert outcome.findings == reply.findings


@FEW
@given(st.data(), some_rules(), TEXTS)
def test_block_lets_out_no_more_than_the_safe_beginning(
    data: st.DataObject, rules: list[CompiledRule], text: str
) -> None:
    hits = hits_in(text, in_force(rules), exchange_of())
    outcome = run(stream(rules, events_with([data.draw(splits(text))])))
    blocking = [cluster[0].start for cluster in clusters_of(hits) if any(hit.rule.action == "block" for hit in cluster)]
    assert outcome.blocked is bool(blocking)
    assert outcome.blocked is whole(rules, text).blocked
    if blocking:
        safe = masked(text[: blocking[0]], [hit for hit in hits if hit.end <= blocking[0]])
        assert safe.startswith("".join(outcome.texts()))


@FEW
@given(st.data(), some_rules(blocking=False), st.lists(TEXTS, min_size=2, max_size=4))
def test_choices_do_not_touch_each_other(data: st.DataObject, rules: list[CompiledRule], texts: list[str]) -> None:
    outcome = run(stream(rules, events_with([data.draw(splits(text)) for text in texts])))
    said = outcome.texts() + [""] * (len(texts) - len(outcome.texts()))
    assert said == [masked(text, hits_in(text, in_force(rules), exchange_of())) for text in texts]


@FEW
@given(st.data(), some_rules(blocking=False), TEXTS, st.booleans())
def test_text_in_arguments_reads_like_any_text(
    data: st.DataObject, rules: list[CompiledRule], text: str, escaped: bool
) -> None:
    raw = json.dumps({"1": text}, ensure_ascii=escaped)
    reply = whole(rules, raw, "arguments")
    expected = masked(text, hits_in(text, in_force(rules), exchange_of()))
    assert json.loads(reply.texts("arguments")[0]) == {"1": expected}
    outcome = run(stream(rules, events_with([data.draw(splits(raw))], "arguments")))
    assert outcome.texts("arguments") == reply.texts("arguments")
    assert outcome.findings == reply.findings


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyé\\", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@FEW
@given(st.data(), some_rules(blocking=False), st.dictionaries(st.sampled_from("xyz"), JSON_VALUES, max_size=3))
def test_arguments_of_any_shape_stay_json(data: st.DataObject, rules: list[CompiledRule], value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 2])))
    said = whole(rules, raw, "arguments").texts("arguments")[0]
    assert json.loads(said) == changed(value, in_force(rules))
    assert run(stream(rules, events_with([data.draw(splits(raw))], "arguments"))).texts("arguments") == [said]


def changed(value: Any, rules: list[CompiledRule]) -> Any:
    """Each text in a JSON value as the rules leave it."""
    if isinstance(value, str):
        return masked(value, hits_in(value, rules, exchange_of()))
    if isinstance(value, list):
        return [changed(item, rules) for item in value]
    if isinstance(value, dict):
        return {key: changed(item, rules) for key, item in value.items()}
    return value


NONSENSE = st.text('{}[]":,\\u0dD8e9abab 1-t\n', max_size=40)


@settings(deadline=None, max_examples=150)
@given(st.data(), NONSENSE)
def test_arguments_that_are_no_json_read_the_same_however_they_come(data: st.DataObject, raw: str) -> None:
    rules = [rule(Phrases("ab", "a b", "b:"), "redact"), rule(Phrases("1"), "audit", name="watch")]
    record, pieces = Record(), data.draw(splits(raw))
    window = ArgumentsWindow([Reader(one, one.check) for one in rules], record, Stage.REPLY)
    said = "".join([window.feed(piece) for piece in pieces]) + window.feed("", True)
    at_once = Record()
    assert said == ArgumentsWindow([Reader(one, one.check) for one in rules], at_once, Stage.REPLY).feed(raw, True)
    assert sorted(map(str, record.findings())) == sorted(map(str, at_once.findings()))


@settings(deadline=None, max_examples=100)
@given(st.data(), NONSENSE)
def test_nothing_of_arguments_is_lost_or_changed_when_nothing_is_found(data: st.DataObject, raw: str) -> None:
    window = ArgumentsWindow([Reader(one, one.check) for one in [rule(Phrases("Q"), "redact")]], Record(), Stage.REPLY)
    assert "".join([window.feed(piece) for piece in data.draw(splits(raw))]) + window.feed("", True) == raw


@settings(deadline=None, max_examples=100)
@given(st.data(), NONSENSE)
def test_arguments_that_are_no_json_block_however_they_come(data: st.DataObject, raw: str) -> None:
    rules = [rule(Phrases("ab", "a b", "b:"))]

    def blocks(pieces: list[str]) -> bool:
        window = ArgumentsWindow([Reader(one, one.check) for one in rules], Record(), Stage.REPLY)
        try:
            for piece in pieces:
                window.feed(piece)
            window.feed("", True)
        except Blocked:
            return True
        return False

    assert blocks(data.draw(splits(raw))) is blocks([raw])


@FEW
@given(st.data(), some_rules(blocking=False), TEXTS, st.integers(0, 8))
def test_nothing_raw_gets_out_when_a_check_breaks(
    data: st.DataObject, rules: list[CompiledRule], text: str, scans: int
) -> None:
    breaking = rule(BreaksAfter(Phrases("ab", placeholder="<broken>"), scans), "redact", stages=REPLY)
    unbroken = rule(Phrases("ab", placeholder="<broken>"), "redact")
    safe = masked(text, hits_in(text, [*in_force(rules), unbroken], exchange_of()))
    outcome = run(stream([*rules, breaking], events_with([data.draw(splits(text))])))
    assert safe.startswith("".join(outcome.texts()))
    assert outcome.error is None or outcome.failed


@FEW
@given(some_rules(), TEXTS)
def test_request_and_reply_read_the_same(rules: list[CompiledRule], text: str) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
    asked = run(ask([replace(one, stages=frozenset({Stage.REQUEST})) for one in rules], exchange_of(body)))
    replied = whole(rules, text)
    assert asked.blocked is replied.blocked
    if not asked.blocked:
        assert [body["messages"][0]["content"]] == replied.texts()


@settings(deadline=None, max_examples=20)
@given(PHRASES, st.integers(1, 60), st.integers(0, 1000))
def test_long_text_read_in_slices_reads_the_same(phrases: list[str], slice_chars: int, seed: int) -> None:
    """Slices of 8 KB in earnest; here they are short, so that many fall into matches."""
    text = "".join(random.Random(seed).choices(LETTERS, k=400))
    rules = [rule(Phrases(*phrases), "redact", stages=frozenset({Stage.REQUEST}))]
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SLICE_CHARS", slice_chars)
        outcome = run(ask(rules, exchange_of(body)))
    hits = hits_in(text, rules, exchange_of())
    assert outcome.body["messages"][0]["content"] == masked(text, hits)
    assert sum(outcome.findings.values()) == len(hits)


# --- the kit itself ---


def test_kit_holds_a_check_that_obeys() -> None:
    check_holds(Phrases("secret", "secrets out", "aba", "é😀"), "the secrets out of ababa, é😀 secret\nabab")


class Careless(Phrases):
    """Lets everything go at once."""

    def scan(self, text: Any, start: int, final: bool) -> Any:
        return super().scan(text, start, final)._replace(safe_upto=len(text.original))


class Forgetful(Phrases):
    """Judges by what stood further left than it says."""

    def scan(self, text: Any, start: int, final: bool) -> Any:
        scan = super().scan(text, start, final)
        return scan._replace(spans=[span for span in scan.spans if "!" not in text.original[: span.start]])


class Timid(Phrases):
    """Never lets the end of a whole text go."""

    def scan(self, text: Any, start: int, final: bool) -> Any:
        return super().scan(text, start, False)


def test_kit_finds_checks_that_break_the_law() -> None:
    for lawless, text in [
        (Careless("secret"), "a secret"),
        (Forgetful("secret"), "! a secret"),
        (Timid("secret"), "a sec"),
    ]:
        with pytest.raises(AssertionError):
            check_scans_lawfully(lawless, text)
    with pytest.raises(AssertionError):
        check_holds(Careless("secret"), "a secret")
