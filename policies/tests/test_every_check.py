"""Every check, in every action, at every stage, on every endpoint, whole and streamed. One table, and no check without
a row in it.

A sample says where its check finds something and where not; the rest follows: audit reports and changes nothing,
redact puts right, block ends the call, and on trial a rule only reports.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from policies.checks.base import CHECKS, Check, World, has, reads_texts
from policies.errors import Blocked
from policies.fold import Folded
from policies.rules import CompiledRule
from policies.tests.tools import (
    Flagged,
    Outcome,
    Words,
    answer,
    ask,
    check_holds,
    check_keeps_flowing,
    check_scans_lawfully,
    cut,
    events_with,
    exchange_of,
    made,
    reply_with,
    rule,
    run,
    stream,
)
from policies.types import Action, Exchange, Stage

Json = dict[str, Any]

CHAT, COMPLETIONS, EMBEDDINGS = "chat/completions", "completions", "embeddings"
ASKED = (CHAT, COMPLETIONS, EMBEDDINGS)
ANSWERED = (CHAT, COMPLETIONS)


class Case(NamedTuple):
    """Two requests or replies, one that the check objects to and one that it does not; and the first one put right
    (None: it cannot be)."""

    offends: Any
    harmless: Any
    put_right: Any = None


@dataclass(frozen=True)
class Sample:
    """A row of the table.

    settings    as an admin gives them
    text        for checks that read texts: one in which something is found, one in which nothing is, the first redacted
    requests    for the others, by endpoint: whole bodies
    replies     by endpoint: (what each choice's text says, or a whole reply)
    fields      of the exchange, for the offending and the harmless call
    before      so often the same call was made before
    system      what the system prompt of the call says
    enforced    what becomes of any request; for checks that find nothing
    nowhere     endpoints on which it has nothing to say, by stage
    """

    settings: Json = field(default_factory=dict)
    text: Case | None = None
    requests: Mapping[str, Case] = field(default_factory=dict)
    replies: Mapping[str, Case] = field(default_factory=dict)
    fields: tuple[Json, Json] = field(default_factory=lambda: ({}, {}))
    before: int = 0
    system: str = ""
    enforced: Callable[[Exchange], bool] | None = None
    nowhere: frozenset[tuple[Stage, str]] = frozenset()
    flagged: frozenset[str] = frozenset()


def says(endpoint: str, text: str = "Hello", **fields: Any) -> Json:
    """A request."""
    if endpoint == CHAT:
        return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}
    return {"model": "gpt-4o-mini", "prompt" if endpoint == COMPLETIONS else "input": text, **fields}


def with_fields(offends: Json, harmless: Json, put_right: Json | None = None) -> dict[str, Case]:
    """The same fields on every endpoint."""
    return {
        name: Case(
            says(name, **offends), says(name, **harmless), None if put_right is None else says(name, **put_right)
        )
        for name in ASKED
    }


def with_texts(offends: str, harmless: str, *, endpoints: tuple[str, ...] = ASKED) -> dict[str, Case]:
    return {name: Case(says(name, offends), says(name, harmless)) for name in endpoints}


def calls_tool(name: str) -> Json:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}


SHELL = {"tools": [{"type": "function", "function": {"name": "shell_run"}}]}
CLOCK = {"tools": [{"type": "function", "function": {"name": "clock"}}]}
ORDERS = "You are Ada. Always answer in rhymes, and never tell anybody the price of tea."

SAMPLES: dict[str, list[Sample]] = {
    "allowed_models": [Sample({"models": ["gpt-4o*"]}, requests=with_fields({"model": "o9"}, {}))],
    "canned_reply": [
        Sample(
            {"replies": [{"match": "Who are you?", "reply": "A gateway."}]},
            requests=with_texts("who  ARE you?", "Who are you, and why?", endpoints=ANSWERED),
            nowhere=frozenset({(Stage.REQUEST, EMBEDDINGS)}),
        )
    ],
    "context_window": [
        Sample({}, requests=with_texts("word " * 50, "Hello"), fields=({"context_window": 20}, {"context_window": 20}))
    ],
    "disabled_models": [Sample({"models": ["o9"]}, requests=with_fields({"model": "o9"}, {}))],
    "links": [
        Sample(
            {"block_domains": ["evil.example"]},
            text=Case("See https://evil.example/x now.", "See https://good.example/x now.", "See **** now."),
        )
    ],
    "loop": [
        Sample(
            {"repeats": 2},
            requests={name: Case(says(name), says(name, "Something new")) for name in ANSWERED},
            before=1,
            nowhere=frozenset({(Stage.REQUEST, EMBEDDINGS)}),
        )
    ],
    "max_prompt_chars": [Sample({"limit": 10}, requests=with_texts("Hello, hello, hello", "Hello"))],
    "max_tokens": [
        Sample({"limit": 10}, requests=with_fields({"max_tokens": 99}, {"max_tokens": 9}, {"max_tokens": 10}))
    ],
    "message_limits": [
        Sample({"max_body_bytes": 100}, requests=with_fields({}, {}), fields=({"body_bytes": 101}, {"body_bytes": 100}))
    ],
    "moderation": [
        Sample({"mode": mode}, text=Case("a violent text", "a friendly text"), flagged=frozenset({"violence"}))
        for mode in ("before", "parallel")
    ],
    "prompt_leak": [
        Sample(
            {"window_words": 5},
            text=Case(
                "I was told: ALWAYS answer\nin rhymes and... Well.",
                "I always answer in good time.",
                "I was told: ****... Well.",
            ),
            system=ORDERS,
            nowhere=frozenset({(Stage.REPLY, COMPLETIONS)}),
        )
    ],
    "prompt_reflection": [
        Sample(
            text=Case("So: the BLUE\n door!", "So: the door is blue!", "So: ****!"),
            system="Never mention ||the blue door||.",
            nowhere=frozenset({(Stage.REPLY, COMPLETIONS)}),
        )
    ],
    "reply_quality": [Sample({}, replies={name: Case("", "Hello") for name in ANSWERED})],
    "reply_schema": [
        Sample({"schema": {"type": "object"}}, replies={name: Case("[1]", '{"a": 1}') for name in ANSWERED})
    ],
    "require_user": [Sample({}, requests=with_fields({}, {"user": "ada"}))],
    "retries": [
        Sample({"count": 3}, requests=with_fields({}, {}), enforced=lambda exchange: exchange.retries == 3),
    ],
    "system_prompt": [
        Sample(
            {"text": "Be nice."},
            requests={name: Case(says(name), says(name)) for name in ANSWERED},
            enforced=lambda exchange: "Be nice." in str(exchange.body),
            nowhere=frozenset({(Stage.REQUEST, EMBEDDINGS)}),
        )
    ],
    "tools": [
        Sample(
            {"block": ["shell*"]},
            requests=with_fields(SHELL, CLOCK, {}),
            replies={CHAT: Case(calls_tool("shell_run"), calls_tool("clock"))},
            nowhere=frozenset({(Stage.REPLY, COMPLETIONS)}),
        )
    ],
    "topics": [
        Sample(
            {"keywords": ["gambling"], "patterns": [r"launch\s+codes?"]},
            text=Case("Gambling for launch  codes.", "A gamble for a launch.", "**** for ****."),
        )
    ],
    "unicode": [
        Sample({}, text=Case("a\u200b pa\u0443pal\u202e b", "हिन्दी, ไทย, 👩‍👩‍👧, при vet", "a paypal b")),
    ],
    "wordlist": [
        Sample(
            {"wordlists": ["custom"]},
            text=Case("The Secret\n project, f.u.d.g.e!", "Secretly projected judgements", "The ****, ****!"),
        )
    ],
}
# The settings of samples may name these.
WORLD: World = Words(custom=["secret project", "fudge"])


# --- the cells of the table ------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    check: str
    sample: Sample
    action: Action
    stage: Stage
    endpoint: str
    streamed: bool

    def __str__(self) -> str:
        how = " streamed" if self.streamed else ""
        return f"{self.check} {self.action} {self.stage} {self.endpoint}{how}"


def cells() -> Iterator[Cell]:
    for name, check in sorted(CHECKS.items()):
        for sample, action in itertools.product(SAMPLES.get(name, ()), sorted(check.actions)):
            for stage in sorted(check.stages):
                for endpoint in ASKED if stage is Stage.REQUEST else ANSWERED:
                    for streamed in (False, True) if stage is Stage.REPLY else (False,):
                        if (stage, endpoint) not in sample.nowhere:
                            yield Cell(name, sample, action, stage, endpoint, streamed)


def case_of(cell: Cell) -> Case:
    if cell.sample.text is not None:
        return cell.sample.text
    return (cell.sample.requests if cell.stage is Stage.REQUEST else cell.sample.replies)[cell.endpoint]


def check_of(cell: Cell) -> Check:
    return made(CHECKS[cell.check], WORLD, **cell.sample.settings)


def outcome_of(cell: Cell, said: Any, *, offends: bool, dry_run: bool = False) -> tuple[Outcome, Exchange]:
    """What comes of a call that says this at the cell's stage."""
    step = call_with(cell, said, offends, dry_run)
    return asyncio.run(step) if waits(cell) else run(step)  # a loop costs more than most checks


async def call_with(cell: Cell, said: Any, offends: bool, dry_run: bool) -> tuple[Outcome, Exchange]:
    one = rule(check_of(cell), cell.action, stages=frozenset({cell.stage}), dry_run=dry_run)
    fields = cell.sample.fields[0 if offends else 1]
    body = request_of(cell, said) if cell.stage is Stage.REQUEST else says(cell.endpoint)
    if cell.sample.system:
        body["messages"].insert(0, {"role": "system", "content": cell.sample.system})
    exchange = exchange_of(body, cell.endpoint, **fields)
    moderate = moderation_of(cell)
    for _ in range(cell.sample.before if offends else 0):
        await ask([one], copy.deepcopy(exchange), moderate)
    if cell.stage is Stage.REQUEST:
        return await ask([one], exchange, moderate), exchange
    reply = reply_of(cell, said)
    if cell.streamed:
        return await stream([one], streamed(cell, reply), exchange, moderate), exchange
    return await answer([one], reply, exchange, moderate), exchange


def moderation_of(cell: Cell) -> Any:
    async def moderate(provider: str, model: str, texts: list[str]) -> Flagged:
        offends = any(cell.sample.text is not None and cell.sample.text.offends in text for text in texts)
        scores = dict.fromkeys(("hate", "violence"), 0.1)
        return Flagged(cell.sample.flagged if offends else frozenset(), scores)

    return moderate


def request_of(cell: Cell, said: Any) -> Json:
    return says(cell.endpoint, said) if isinstance(said, str) else copy.deepcopy(said)


def reply_of(cell: Cell, said: Any) -> Json:
    reply = reply_with([said if isinstance(said, str) else ""], "content" if cell.endpoint == CHAT else "text")
    if isinstance(said, dict):
        reply["choices"][0].update(copy.deepcopy(said))
    return reply


def streamed(cell: Cell, reply: Json) -> list[Json]:
    """The events that amount to a reply."""
    if cell.endpoint == COMPLETIONS:
        return events_with([cut(reply["choices"][0]["text"], 3)], "text")
    message = reply["choices"][0]["message"]
    events = events_with([cut(message.get("content") or "", 3)])
    if calls := message.get("tool_calls"):
        events[0]["choices"][0]["delta"]["tool_calls"] = [{"index": number} | call for number, call in enumerate(calls)]
    return events


def left_as_it_was(cell: Cell, outcome: Outcome, said: Any) -> bool:
    if cell.stage is Stage.REQUEST:
        expected = request_of(cell, said)
        if cell.sample.system:
            expected["messages"].insert(0, {"role": "system", "content": cell.sample.system})
        return outcome.body == expected
    whole = reply_of(cell, said)["choices"]
    if not cell.streamed:
        return bool(outcome.reply["choices"] == whole)
    where = "content" if cell.endpoint == CHAT else "text"
    return outcome.texts(where) == [whole[0].get("text") or whole[0].get("message", {}).get("content") or ""]


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_check_has_a_sample_and_every_sample_a_check() -> None:
    assert set(SAMPLES) == set(CHECKS)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_sample_covers_every_stage_and_endpoint_of_its_check(name: str) -> None:
    check = CHECKS[name]
    for sample in SAMPLES[name]:
        for stage in check.stages:
            given = sample.requests if stage is Stage.REQUEST else sample.replies
            endpoints = ASKED if stage is Stage.REQUEST else ANSWERED
            missing = {(stage, one) for one in endpoints if sample.text is None and one not in given}
            assert missing <= sample.nowhere, f"give a case, or say that there is none: {missing}"
        if Action.REDACT in check.actions and reads_texts(check):
            assert sample.text is not None and sample.text.put_right, "say what redacting makes of the text"


@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_harmless_call_passes_as_it_came(cell: Cell) -> None:
    said = case_of(cell).harmless
    outcome, _ = outcome_of(cell, said, offends=False)
    assert outcome.error is None
    assert not outcome.findings
    if cell.sample.enforced is None:
        assert left_as_it_was(cell, outcome, said)


@pytest.mark.parametrize("cell", [one for one in cells() if one.sample.enforced is None], ids=str)
def test_offending_call_is_dealt_with_as_the_action_says(cell: Cell) -> None:
    case = case_of(cell)
    outcome, _ = outcome_of(cell, case.offends, offends=True)
    if cell.action is Action.BLOCK:
        assert isinstance(outcome.error, Blocked)
        assert outcome.error.message or outcome.error.canned
        assert outcome.findings
        return
    assert outcome.error is None
    assert outcome.findings or waits(cell)
    assert not any(failed for *_, failed in outcome.findings)
    put_right = cell.action is Action.REDACT and case.put_right is not None
    assert left_as_it_was(cell, outcome, case.put_right if put_right else case.offends)


@pytest.mark.parametrize("cell", [one for one in cells() if one.sample.enforced is None], ids=str)
def test_rule_on_trial_finds_and_does_nothing(cell: Cell) -> None:
    offends = case_of(cell).offends
    outcome, _ = outcome_of(cell, offends, offends=True, dry_run=True)
    assert outcome.error is None
    assert outcome.findings or waits(cell)
    assert left_as_it_was(cell, outcome, offends)
    if cell.streamed:
        assert outcome.untouched


@pytest.mark.parametrize("cell", [one for one in cells() if one.sample.enforced is not None], ids=str)
def test_what_a_rule_enforces_is_enforced_but_not_on_trial(cell: Cell) -> None:
    assert cell.sample.enforced is not None
    _, exchange = outcome_of(cell, case_of(cell).offends, offends=True)
    assert cell.sample.enforced(exchange)
    _, exchange = outcome_of(cell, case_of(cell).offends, offends=True, dry_run=True)
    assert not cell.sample.enforced(exchange)


def waits(cell: Cell) -> bool:
    """Whether somebody else is asked; if the rule only watches, when the call is over."""
    return has(CHECKS[cell.check], "ask")


# --- checks that read texts ------------------------------------------------------------------------------------------


READERS = [(name, sample) for name in sorted(CHECKS) if reads_texts(CHECKS[name]) for sample in SAMPLES.get(name, ())]
by_name = pytest.mark.parametrize(("name", "sample"), READERS, ids=[name for name, _ in READERS])


def call_of(sample: Sample) -> Exchange:
    messages = [{"role": "system", "content": sample.system}, {"role": "user", "content": "Hello"}]
    return exchange_of({"model": "gpt-4o-mini", "messages": messages})


@by_name
def test_check_obeys_the_law_of_the_stream(name: str, sample: Sample) -> None:
    assert sample.text is not None
    check = made(CHECKS[name], WORLD, **sample.settings)
    check_holds(check, sample.text.offends, exchange=call_of(sample))
    check_scans_lawfully(check, sample.text.harmless, exchange=call_of(sample))


@by_name
def test_check_masks_all_that_it_finds(name: str, sample: Sample) -> None:
    """In what is left nothing is found any more."""
    assert sample.text is not None
    scanner = made(CHECKS[name], WORLD, **sample.settings).for_call(call_of(sample))
    assert scanner is not None
    assert not scanner.scan(Folded(sample.text.put_right), 0, True).spans


ODD_TEXTS = {
    "nothing": "",
    "blanks": " \t\r\n\u00a0\u2028\u3000",
    "half surrogate pairs": "\ud83d \ude00\ud83d a\udfff",
    "zero": "a\x00b\x00",
    "marks": "e" + "\u0301" * 40 + "\u20dd",
    "folded longer": "İıßŉǰΐﬃﷺ",
    "emoji": "👩‍👩‍👧🏳️‍🌈🇩🇪1️⃣",
    "scripts": "日本語 العربية עברית हिन्दी ไทย ქართული",
}


@by_name
@pytest.mark.parametrize("odd", ODD_TEXTS)
def test_check_obeys_the_law_in_odd_texts_too(name: str, sample: Sample, odd: str) -> None:
    assert sample.text is not None
    check = made(CHECKS[name], WORLD, **sample.settings)
    for text in (ODD_TEXTS[odd], f"{sample.text.offends} {ODD_TEXTS[odd]}", ODD_TEXTS[odd] + sample.text.offends):
        check_scans_lawfully(check, text, exchange=call_of(sample))


PROSE = (
    "A walk through the old town takes about two hours. Begin at the northern gate, follow the river as far as the "
    "second bridge, and have a look at the mill. Then climb up to the castle: from there, on a clear day, one sees "
    "the sea! Bring good shoes, something to drink, and 12.50 in coins."
)


@by_name
def test_tokens_keep_flowing(name: str, sample: Sample) -> None:
    """A word at most waits for its end, and a little for what it may belong to."""
    check = made(CHECKS[name], WORLD, **sample.settings)
    check_keeps_flowing(check, PROSE, at_most=24, exchange=call_of(sample))


@by_name
def test_one_instance_serves_many_calls_at_once(name: str, sample: Sample) -> None:
    """Two calls whose scans alternate find what each finds alone."""
    assert sample.text is not None
    check = made(CHECKS[name], WORLD, **sample.settings)
    texts = (sample.text.offends, sample.text.harmless)
    alone = [spans_of(check, sample, text) for text in texts]
    scanners = [check.for_call(call_of(sample)) for _ in texts]
    together = [
        [scanner.scan(Folded(text), 0, True).spans for scanner, text in zip(scanners, texts, strict=True) if scanner]
        for _ in range(2)
    ]
    assert [list(map(sorted, spans)) for spans in together] == [alone, alone]


def spans_of(check: Check, sample: Sample, text: str) -> list[Any]:
    scanner = check.for_call(call_of(sample))
    assert scanner is not None
    return sorted(scanner.scan(Folded(text), 0, True).spans)


def test_all_text_checks_together_obey_the_law() -> None:
    """Their findings overlap, and each holds back in its own way."""
    rules: list[CompiledRule] = [
        rule(made(CHECKS[name], WORLD, **sample.settings), Action.REDACT, name=name)
        for name, sample in READERS
        if Action.REDACT in CHECKS[name].actions
    ]
    text = "Gam\u200bbling at https://evil.example/secret project?launch codes=fudge"
    check_holds(rules, text, exchange=exchange_of(), random_splits=1)
