"""The test kit of checks: verbs that say what a check finds and what its rule does, and the law that every check obeys.

    check_finds(check, "two fudges and a fudge", "fudge")       what it finds in a text, and nothing else
    check_redacts(check, "my fudge", "my ****")                 request and reply, in every field, whole and streamed
    check_blocks(check, "my fudge")                             the same, blocked
    check_passes(check, "my budget")                            the same, and nothing is found
    check_scans_lawfully(check, text)                           the law of policies.types.Scan, without the engine
    check_keeps_flowing(check, text, at_most=8)                 how much of a harmless text is held back in a stream
    check_holds(check, text)                                    everything: every split, action, endpoint and field

`made(Wordlist, wordlists=["custom"])` compiles a check as a published rule has it. `rule(check, action="redact")` is a
rule around it. Sample checks for the engine's own specs are at the end.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from policies.checks.base import Check, Moderate, Scanner, WordMatcher, World, clean_settings, reads_texts
from policies.engine import Chain, Review
from policies.errors import Blocked, CheckFailed, ModerationFailed, PolicyError
from policies.fold import Folded
from policies.record import Record
from policies.rules import CompiledRule
from policies.types import Action, Exchange, Found, Scan, Span, Stage

Json = dict[str, Any]
Result = TypeVar("Result")
REQUEST = frozenset({Stage.REQUEST})
REPLY = frozenset({Stage.REPLY})

# Where a reply's text may stand, by endpoint. "arguments": a string inside the JSON of a tool call.
FIELDS: dict[str, tuple[str, ...]] = {
    "chat/completions": ("content", "reasoning_content", "refusal", "arguments"),
    "completions": ("text",),
}
# Where a request's text may stand, by endpoint; see `request_with`.
PLACES: dict[str, tuple[str, ...]] = {
    "chat/completions": ("content", "part", "arguments", "tool result", "tool description"),
    "completions": ("prompt", "prompts"),
    "embeddings": ("input", "inputs"),
}


# --- compiling -------------------------------------------------------------------------------------------------------


class Words:
    """A World with these word lists and no others."""

    def __init__(self, **lists: Sequence[str]) -> None:
        self._lists = lists

    def wordlist(self, name: str) -> WordMatcher:
        from policies.wordlists import compile_wordlist

        if name not in self._lists:
            raise LookupError(f"there is no word list {name}")
        matcher: WordMatcher = compile_wordlist(name, list(self._lists[name]), [], builtin="", catch_disguises=True)
        return matcher


def made(check: type[Check], world: World | None = None, /, **settings: Any) -> Check:
    """The check as a published rule has it: settings checked and filled up by its form."""
    return check(clean_settings(check, settings), world or Words())


def rule(check: Check, action: Action | str = Action.BLOCK, **fields: Any) -> CompiledRule:
    """`stages` are by default all that the check can look at. The time limit is long: tests run on busy machines."""
    usual: Json = {"policy": "policy", "version": 1, "name": check.name, "check_name": check.name, "timeout_s": 30.0}
    usual["stages"] = check.stages
    return CompiledRule(check=check, action=Action(action), **(usual | fields))


def exchange_of(body: Json | None = None, endpoint: str = "", **fields: Any) -> Exchange:
    """Of any body that says what it is; without one, of a greeting."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]} if body is None else body
    if not endpoint:
        found = {"messages": "chat/completions", "prompt": "completions", "input": "embeddings"}
        endpoint = next((name for field, name in found.items() if field in body), "chat/completions")
    return Exchange(endpoint, body, str(body.get("model", "gpt-4o-mini")), stream=bool(body.get("stream")), **fields)


def request_with(text: str, place: str = "content") -> Json:
    """A request that says `text` at a place of PLACES."""
    chat: Json = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    if place == "content":
        chat["messages"][0]["content"] = text
    elif place == "part":
        chat["messages"][0]["content"] = [{"type": "text", "text": "Hello"}, {"type": "text", "text": text}]
    elif place == "arguments":
        call = {"id": "call_1", "type": "function", "function": {"name": "note", "arguments": in_arguments(text)}}
        chat["messages"].append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif place == "tool result":
        chat["messages"].append({"role": "tool", "tool_call_id": "call_1", "content": text})
    elif place == "tool description":
        chat["tools"] = [{"type": "function", "function": {"name": "note", "description": text}}]
    elif place in ("prompt", "prompts"):
        return {"model": "gpt-3.5-turbo-instruct", "prompt": text if place == "prompt" else ["Hello", text]}
    elif place in ("input", "inputs"):
        return {"model": "text-embedding-3-small", "input": text if place == "input" else ["Hello", text]}
    else:
        raise LookupError(place)
    return chat


def in_arguments(text: str) -> str:
    return json.dumps({"title": 1, "note": text}, ensure_ascii=False)


# --- replies, whole and streamed -------------------------------------------------------------------------------------


def reply_with(texts: Sequence[str], field: str = "content") -> Json:
    """A whole reply with a choice for each text, which stands in `field`; see FIELDS. `arguments` are given as JSON."""
    choices = [
        {"index": index, "finish_reason": "stop", "logprobs": None, **_said(field, text, "message")}
        for index, text in enumerate(texts)
    ]
    return {**_HEADS[field == "text"], "choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 9}}


def events_with(pieces: Sequence[Sequence[str]], field: str = "content", ending: str = "finish") -> list[Json]:
    """The events of a stream with a choice for each list of pieces, interleaved.

    ending   "finish": each choice ends with an event of its own; "with text": its last piece says so too; "none"
    """
    head = {**_HEADS[field == "text"], "object": _HEADS[field == "text"]["object"].replace(".completion", ".chunk")}
    events: list[Json] = []
    if field != "text":
        events += [_event(head, index, {"delta": _opening(field)}) for index in range(len(pieces))]
    last = {index: len(own) - 1 for index, own in enumerate(pieces)}
    for number in range(max((len(own) for own in pieces), default=0)):
        for index, own in enumerate(pieces):
            if number < len(own):
                ends = ending == "with text" and number == last[index]
                events.append(_event(head, index, _said(field, own[number], "delta"), "stop" if ends else None))
    if ending == "finish":
        silent: Json = {"text": ""} if field == "text" else {"delta": {}}
        events += [_event(head, index, copy.deepcopy(silent), "stop") for index in range(len(pieces))]
    events.append({**head, "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9}})
    return events


_HEADS: tuple[Json, Json] = (
    {"id": "chatcmpl-1", "object": "chat.completion", "created": 1767225600, "model": "gpt-4o-mini"},
    {"id": "cmpl-1", "object": "text_completion", "created": 1767225600, "model": "gpt-3.5-turbo-instruct"},
)


def _event(head: Json, index: int, said: Json, finish_reason: str | None = None) -> Json:
    return {**head, "choices": [{"index": index, **said, "logprobs": None, "finish_reason": finish_reason}]}


def _said(field: str, text: str, holder: str) -> Json:
    if field == "text":
        return {"text": text}
    if field != "arguments":
        return {holder: {"role": "assistant", field: text} if holder == "message" else {field: text}}
    call: Json = {"function": {"arguments": text}}
    if holder == "message":
        call = {"id": "call_1", "type": "function", "function": {"name": "note", "arguments": text}}
        return {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}
    return {"delta": {"tool_calls": [{"index": 0, **call}]}}


def _opening(field: str) -> Json:
    if field != "arguments":
        return {"role": "assistant", "content": ""}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "note", "arguments": ""}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def reassembled(events: Iterable[Json]) -> Json:
    """The reply that a client's SDK puts together from a stream: texts are joined, lists merged by index."""
    reply: Json = {}
    choices: dict[int, Json] = {}
    for event in events:
        for name, value in event.items():
            if name not in ("choices", "usage"):
                reply[name] = value
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            whole = choices.setdefault(choice.get("index", 0), {"index": choice.get("index", 0)})
            for name, value in choice.items():
                if name == "delta" and isinstance(value, dict):
                    _merge(whole.setdefault("message", {}), value)
                elif name == "text" and isinstance(value, str):
                    whole["text"] = whole.get("text", "") + value
                elif value is not None:
                    whole[name] = value
    return {**reply, "choices": [choices[index] for index in sorted(choices)]}


def _merge(whole: Json, delta: Json) -> None:
    for name, value in delta.items():
        if name in ("role", "type", "id", "index") or whole.get(name) is None:
            whole[name] = [] if isinstance(value, list) else copy.deepcopy(value)
        elif isinstance(value, str):
            whole[name] += value
            continue
        elif isinstance(value, dict):
            _merge(whole[name], value)
        if isinstance(value, list):
            _merge_list(whole[name], value)


def _merge_list(whole: list[Any], items: list[Any]) -> None:
    for item in items:
        same = [one for one in whole if isinstance(item, dict) and "index" in item and one["index"] == item["index"]]
        if same:
            _merge(same[0], item)
        else:
            whole.append(copy.deepcopy(item))


def texts_of(reply: Json, field: str = "content") -> list[str]:
    """What each choice says in `field`; "" when nothing."""
    return [_text_of(choice, field) for choice in reply.get("choices", ())]


def _text_of(choice: Json, field: str) -> str:
    if field == "text":
        return choice.get("text") or ""
    message = choice.get("message") or {}
    if field != "arguments":
        return message.get(field) or ""
    return "".join(call["function"].get("arguments") or "" for call in message.get("tool_calls") or ())


# --- running the engine ----------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What came of a call.

    body       the request as it is sent upstream, or as it was left when it was blocked
    reply      what the client has of the reply; of a stream what its events amount to
    error      how the call ended, if not well
    findings   how often, by (rule, stage, label, failed)
    events     those of a stream, as the client gets them
    untouched  no event was replaced, held back or changed
    """

    body: Json = dataclasses.field(default_factory=dict)
    reply: Json = dataclasses.field(default_factory=dict)
    error: PolicyError | None = None
    findings: Counter[tuple[str, Stage, str, bool]] = dataclasses.field(default_factory=Counter)
    events: list[Json] = dataclasses.field(default_factory=list)
    untouched: bool = True

    def texts(self, field: str = "content") -> list[str]:
        return texts_of(self.reply, field)

    @property
    def failed(self) -> bool:
        return isinstance(self.error, CheckFailed)

    @property
    def blocked(self) -> bool:
        return isinstance(self.error, Blocked)


async def nobody(provider: str, model: str, texts: list[str]) -> Any:
    raise ModerationFailed


async def ask(rules: Sequence[CompiledRule], exchange: Exchange, moderate: Moderate = nobody) -> Outcome:
    """The request's way through the rules."""
    review = Review(Chain(rules), exchange)
    outcome = Outcome(body=exchange.body)
    try:
        await review.request(moderate)
        await review.verdict()
    except PolicyError as error:
        outcome.error = error
    finally:
        review.close()
    outcome.findings = _counted(review.record)
    return outcome


async def answer(
    rules: Sequence[CompiledRule], reply: Json, exchange: Exchange | None = None, moderate: Moderate = nobody
) -> Outcome:
    """A whole reply's way through the rules, after its request's."""
    review = Review(Chain(rules), exchange or exchange_of())
    outcome = Outcome(body=review.exchange.body)
    try:
        await review.request(moderate)
        await review.verdict()
        await review.reply(reply, moderate)
        outcome.reply = reply
    except PolicyError as error:
        outcome.error = error
    finally:
        review.close()
    outcome.findings = _counted(review.record)
    return outcome


async def stream(
    rules: Sequence[CompiledRule], events: Iterable[Json], exchange: Exchange | None = None, moderate: Moderate = nobody
) -> Outcome:
    """A streamed reply's way through the rules, after its request's: `events` are given one by one and may be changed
    on the way. What was sent before an error stays in the outcome."""
    review = Review(Chain(rules), exchange or exchange_of())
    outcome = Outcome(body=review.exchange.body)
    try:
        await review.request(moderate)
        await review.verdict()
        await _relay(review, events, outcome, moderate)
    except PolicyError as error:
        outcome.error = error
    finally:
        review.close()
    outcome.findings = _counted(review.record)
    outcome.reply = reassembled(outcome.events)
    return outcome


async def _relay(review: Review, events: Iterable[Json], outcome: Outcome, moderate: Moderate) -> None:
    guard = review.stream()
    if guard is None:
        outcome.events += events
        return
    sent: list[Json] = [] if guard.withhold else outcome.events
    try:
        for event in events:
            came = copy.deepcopy(event)
            replaced = guard.event(event)
            outcome.untouched = outcome.untouched and replaced is None
            sent += [came] if replaced is None else replaced  # None: its very bytes go on
        rest = guard.end()
    finally:
        guard.close()
    outcome.untouched = outcome.untouched and not rest
    sent += rest
    await review.judge_stream(guard, moderate)
    if guard.withhold:
        outcome.events += sent


def _counted(record: Record) -> Counter[tuple[str, Stage, str, bool]]:
    counts: Counter[tuple[str, Stage, str, bool]] = Counter()
    for one in record.findings():
        counts[one.rule, one.stage, one.label, one.failed] += one.count
    return counts


def run(step: Coroutine[Any, Any, Result]) -> Result:
    """A step that waits for nobody but gives others their turn. Much faster than an event loop of its own."""
    try:
        while True:
            step.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result


# --- splits ----------------------------------------------------------------------------------------------------------


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def cut_at_random(text: str, dice: random.Random, longest: int = 12) -> list[str]:
    pieces, at = [], 0
    while at < len(text):
        size = dice.randint(0, longest)  # a provider may also send nothing
        pieces.append(text[at : at + size])
        at += size
    return pieces


def splits_of(text: str, random_splits: int = 3) -> Iterator[tuple[str, list[str]]]:
    """(its name, the pieces): all at once, one character at a time, two, and some at random."""
    yield "whole", [text]
    yield "one character at a time", cut(text, 1)
    yield "two characters at a time", cut(text, 2)
    yield "two characters at a time, off by one", [text[:1], *cut(text[1:], 2)]
    dice = random.Random(text.encode(errors="surrogatepass"))
    for number in range(random_splits):
        yield f"random split {number}", cut_at_random(text, dice)


# --- the oracle: what a rule is to do, by the words of the design and without the engine -----------------------------


class Hit(NamedTuple):
    start: int
    end: int
    label: str
    rule: CompiledRule


def hits_in(text: str, rules: Iterable[CompiledRule], exchange: Exchange) -> list[Hit]:
    """All that the rules' checks find in a whole text, in order."""
    found = []
    for one in rules:
        scanner = one.check.for_call(exchange) if reads_texts(type(one.check)) else None
        if scanner is not None:
            found += [Hit(*span, one) for span in scanner.scan(Folded(text), 0, True).spans]
    return sorted(found, key=lambda hit: (hit.start, -hit.end))


def masked(text: str, hits: Iterable[Hit]) -> str:
    """Whatever the hits cover is gone. Where they overlap there is one replacement: the longest one's, then a
    blocking one's."""
    out, at = [], 0
    for cluster in clusters_of(hits):
        winner = max(cluster, key=lambda hit: (hit.end - hit.start, hit.rule.action is Action.BLOCK))
        out += text[at : cluster[0].start], winner.rule.check.replacement(text[winner.start : winner.end], winner.label)
        at = max(hit.end for hit in cluster)
    return "".join([*out, text[at:]])


def clusters_of(hits: Iterable[Hit]) -> list[list[Hit]]:
    clusters: list[list[Hit]] = []
    for hit in hits:
        if clusters and hit.start < max(one.end for one in clusters[-1]):
            clusters[-1].append(hit)
        else:
            clusters.append([hit])
    return clusters


# --- verbs: one text, one check --------------------------------------------------------------------------------------


def check_finds(
    check: Check, text: str, *expected: str | tuple[str, str] | Span, exchange: Exchange | None = None
) -> None:
    """Exactly these, in order: each as the text found, (text, label) or Span. None at all: it finds nothing."""
    hits = hits_in(text, [rule(check)], exchange or exchange_of())
    found: list[Any] = []
    for number, hit in enumerate(hits):
        wanted = expected[number] if number < len(expected) else ""
        if isinstance(wanted, Span):
            found.append(Span(hit.start, hit.end, hit.label))
        elif isinstance(wanted, tuple):
            found.append((text[hit.start : hit.end], hit.label))
        else:
            found.append(text[hit.start : hit.end])
    assert found == list(expected), f"in {text!r} it finds {found}, not {list(expected)}"


def check_blocks(
    check: Check, said: str | Json, *, message: str | None = None, exchange: Exchange | None = None
) -> None:
    """Request and reply, as far as the check looks at them, whole and streamed. `said`: a text, or a request's body."""
    for where, outcome in _everywhere(check, Action.BLOCK, said, exchange):
        assert outcome.blocked, f"{where}: not blocked"
        if message is not None:
            assert outcome.error is not None and outcome.error.message == message, where
        if isinstance(said, str):
            assert outcome.error is not None and said not in outcome.error.message, f"{where}: the message quotes"


def check_redacts(check: Check, before: str | Json, after: str | Json, *, exchange: Exchange | None = None) -> None:
    """`before` becomes `after`: texts in request and reply, whole and streamed, or bodies of requests."""
    for where, outcome in _everywhere(check, Action.REDACT, before, exchange):
        assert outcome.error is None, f"{where}: {outcome.error!r}"
        assert outcome.findings, f"{where}: nothing was found"
        _check_says(outcome, after, where)


def check_passes(check: Check, said: str | Json, *, exchange: Exchange | None = None) -> None:
    """Nothing is found in it and nothing done to it, though the rule would block."""
    for where, outcome in _everywhere(check, Action.BLOCK, said, exchange):
        assert outcome.error is None, f"{where}: {outcome.error!r}"
        assert not outcome.findings, f"{where}: {outcome.findings}"
        _check_says(outcome, said, where)


def _everywhere(
    check: Check, action: Action, said: str | Json, exchange: Exchange | None
) -> Iterator[tuple[str, Outcome]]:
    """(where, outcome) of a text in a request, in a reply and in a stream; a body only in a request."""
    if isinstance(said, dict):
        body = copy.deepcopy(said)
        yield "request", run(ask([rule(check, action, stages=REQUEST)], exchange_of(body)))
        return
    if Stage.REQUEST in check.stages:
        yield "request", run(ask([rule(check, action, stages=REQUEST)], exchange_of(request_with(said))))
    if Stage.REPLY in check.stages:
        rules = [rule(check, action, stages=REPLY)]
        yield "reply", run(answer(rules, reply_with([said]), copy.deepcopy(exchange)))
        for name, pieces in splits_of(said, 1):
            outcome = run(stream(rules, events_with([pieces]), copy.deepcopy(exchange)))
            yield f"stream, {name}", outcome


def _check_says(outcome: Outcome, said: str | Json, where: str) -> None:
    if isinstance(said, dict):
        assert outcome.body == said, f"{where}: {outcome.body}"
    elif where == "request":
        assert outcome.body == request_with(said), f"{where}: {outcome.body}"
    else:
        assert outcome.texts() == [said], f"{where}: {outcome.texts()}"


# --- the law ---------------------------------------------------------------------------------------------------------


def check_scans_lawfully(check: Check, text: str, *, exchange: Exchange | None = None) -> None:
    """What policies.types.Scan says, asked of the check itself, for every prefix of the text.

    - a whole text is safe to its end; spans lie within it and are not empty
    - what is safe stays so: a match that begins before `safe_upto` is reported at its full length, and no later text
      adds, changes or removes one there
    - it is enough to see `left_context` characters before `start`
    """
    scanner = check.for_call(exchange or exchange_of())
    if scanner is None:
        return
    whole = scanner.scan(Folded(text), 0, True)
    assert whole.safe_upto == len(text), f"a whole text is safe up to {len(text)}, not {whole.safe_upto}"
    spans = sorted(set(whole.spans))
    assert len(spans) == len(whole.spans), f"found twice: {whole.spans}"
    assert all(0 <= span.start < span.end <= len(text) for span in spans), f"outside of the text: {spans}"
    for size in range(len(text) + 1):
        _check_prefix(scanner, text, size, spans)
    for start in range(len(text) + 1):
        if not any(span.start < start < span.end for span in spans):  # the engine stops in no match
            _check_context(scanner, check.left_context, text, start, spans)


def _check_prefix(scanner: Scanner, text: str, size: int, spans: list[Span]) -> None:
    scan = scanner.scan(Folded(text[:size]), 0, False)
    assert scan.safe_upto <= size, f"after {size} characters it is sure of {scan.safe_upto}"
    sure = sorted(span for span in scan.spans if span.start < scan.safe_upto)
    later = [span for span in spans if span.start < scan.safe_upto]
    assert sure == later, f"after {text[:size]!r}, sure of {scan.safe_upto}: {sure}; of the whole text: {later}"


def _check_context(scanner: Scanner, context: int, text: str, start: int, spans: list[Span]) -> None:
    left = max(0, start - context)
    scan = scanner.scan(Folded(text[left:]), start - left, True)
    seen = sorted(Span(s.start + left, s.end + left, s.label) for s in scan.spans if s.start + left >= start)
    expected = [span for span in spans if span.start >= start]
    assert seen == expected, f"from {start} with {start - left} before it: {seen}; in the whole text: {expected}"


def check_keeps_flowing(check: Check, text: str, *, at_most: int, exchange: Exchange | None = None) -> None:
    """Streamed character by character, a text in which nothing is found is never more than so far behind."""
    rules = [rule(check, Action.REDACT, stages=REPLY)]
    review = Review(Chain(rules), copy.deepcopy(exchange) if exchange else exchange_of())
    run(review.request(nobody))
    guard = review.stream()
    assert guard is not None, "nobody reads the reply"
    sent = 0
    for size, event in enumerate(events_with([cut(text, 1)], ending="none")[1:-1], 1):
        came = copy.deepcopy(event)
        replaced = guard.event(event)
        sent += len("".join(texts_of(reassembled([came] if replaced is None else replaced))))
        assert size - sent <= at_most, f"after {text[:size]!r} it is {size - sent} characters behind"


def check_holds(
    check: Check | Sequence[CompiledRule], text: str, *, exchange: Exchange | None = None, random_splits: int = 3
) -> None:
    """The whole law for a text check (or for some rules together) and a text in which something may be found.

    Every endpoint, every field, several choices interleaved, every split: what a client puts together from the stream
    is the text that it would have got whole, in every action; findings are the same; a block lets out no more than the
    safe beginning; a dry run changes no event; a check that breaks in the middle blocks and lets out nothing raw, or
    passes everything when its rule fails open.
    """
    exchange = exchange or exchange_of()
    if isinstance(check, Check):
        check_scans_lawfully(check, text, exchange=exchange)
        sets = [[rule(check, action)] for action in Action if action in check.actions]
        stages = check.stages
    else:
        sets = [list(check)]
        stages = frozenset(Stage)
    for rules in sets:
        if Stage.REQUEST in stages:
            _check_requests([replace(one, stages=REQUEST) for one in rules], text)
        if Stage.REPLY in stages:
            own = [replace(one, stages=REPLY) for one in rules]
            _check_replies(own, text, exchange, random_splits)
            _check_dry_run(own, text, exchange)
            _check_failures(own, text, exchange)


def _check_requests(rules: list[CompiledRule], text: str) -> None:
    for endpoint, places in PLACES.items():
        for place in places:
            body = request_with(text, place)
            hits = _hits(text, rules, exchange_of(body, endpoint), place == "arguments")
            outcome = run(ask(rules, exchange_of(body, endpoint)))
            where = f"{endpoint}, {place}, {rules[0].action}"
            blocks = any(_blocks(hit.rule) for hit in hits)
            assert outcome.blocked is blocks, f"{where}: {outcome.error!r}"
            if not blocks:
                expected = masked(text, [hit for hit in hits if _acts(hit.rule)])
                assert outcome.body == request_with(expected, place), f"{where}: {outcome.body}"
            dry = run(ask([replace(one, dry_run=True) for one in rules], exchange_of(request_with(text, place))))
            assert dry.error is None and dry.body == request_with(text, place), f"{where}, dry run: {dry.body}"


def _check_replies(rules: list[CompiledRule], text: str, exchange: Exchange, random_splits: int) -> None:
    for fields in FIELDS.values():
        for field in fields:
            whole = _check_whole(rules, text, field, exchange)
            raw = in_arguments(text) if field == "arguments" else text
            for name, pieces in splits_of(raw, random_splits):
                for ending in ("finish", "with text", "none"):
                    outcome = run(stream(rules, events_with([pieces], field, ending), copy.deepcopy(exchange)))
                    _check_same(rules, whole, outcome, field, f"{field}, {name}, ending {ending}")
            _check_interleaved(rules, raw, field, exchange)
    raw = text if len(text) <= 300 else ""
    whole = run(answer(rules, reply_with([text]), copy.deepcopy(exchange)))
    for at in range(1, len(raw)):
        outcome = run(stream(rules, events_with([[raw[:at], raw[at:]]]), copy.deepcopy(exchange)))
        _check_same(rules, whole, outcome, "content", f"content, cut at {at}")


def _check_whole(rules: list[CompiledRule], text: str, field: str, exchange: Exchange) -> Outcome:
    """The reply as a whole is what the design's words make of it."""
    raw = in_arguments(text) if field == "arguments" else text
    hits = _hits(text, rules, exchange, field == "arguments")
    whole = run(answer(rules, reply_with([raw], field), copy.deepcopy(exchange)))
    where = f"{field}, whole, {rules[0].action}"
    if any(_blocks(hit.rule) for hit in hits):
        assert whole.blocked, f"{where}: {whole.error!r}"
        return whole
    expected = masked(text, [hit for hit in hits if _acts(hit.rule)])
    assert whole.error is None, f"{where}: {whole.error!r}"
    assert whole.texts(field) == [in_arguments(expected) if field == "arguments" else expected], where
    found = Counter((hit.rule.name, Stage.REPLY, hit.label, False) for hit in hits)
    assert whole.findings == found, f"{where}: found {whole.findings}, not {found}"
    return whole


def _check_same(rules: list[CompiledRule], whole: Outcome, outcome: Outcome, field: str, where: str) -> None:
    """The stream comes to what the whole reply came to."""
    where = f"{where}, {', '.join(one.action for one in rules)}"
    if whole.error is None:
        assert outcome.error is None, f"{where}: {outcome.error!r}"
        assert outcome.texts(field) == whole.texts(field), where
        assert outcome.findings == whole.findings, f"{where}: found {outcome.findings}, not {whole.findings}"
        if not any(map(_acts, rules)):
            assert outcome.untouched, f"{where}: events were changed though no rule acts"
        return
    assert type(outcome.error) is type(whole.error), f"{where}: {outcome.error!r}"
    if len(rules) == 1:
        assert outcome.error is not None and outcome.error.message == whole.error.message, where


def _check_interleaved(rules: list[CompiledRule], raw: str, field: str, exchange: Exchange) -> None:
    """Three choices with the same text in different splits, and one that says something else."""
    said = in_arguments("Nothing at all.") if field == "arguments" else "Nothing at all."
    pieces = [cut(raw, 1), cut(raw, 3), cut_at_random(raw, random.Random(len(raw))), cut(said, 2)]
    whole = run(answer(rules, reply_with(["".join(own) for own in pieces], field), copy.deepcopy(exchange)))
    for ending in ("finish", "none"):
        outcome = run(stream(rules, events_with(pieces, field, ending), copy.deepcopy(exchange)))
        _check_same(rules, whole, outcome, field, f"{field}, four choices, ending {ending}")


def _check_dry_run(rules: list[CompiledRule], text: str, exchange: Exchange) -> None:
    """Nothing is held back, changed or blocked; and it finds what the rule finds when it acts."""
    dry = [replace(one, dry_run=True) for one in rules]
    found = Counter((hit.rule.name, Stage.REPLY, hit.label, False) for hit in _hits(text, dry, exchange, False))
    for name, pieces in splits_of(text, 1):
        outcome = run(stream(dry, events_with([pieces]), copy.deepcopy(exchange)))
        assert outcome.error is None and outcome.untouched, f"dry run, {name}: events were changed"
        assert outcome.texts() == [text], f"dry run, {name}"
        assert outcome.findings == found, f"dry run, {name}: found {outcome.findings}, not {found}"


def _check_failures(rules: list[CompiledRule], text: str, exchange: Exchange) -> None:
    """However far it had come: a check that breaks lets out nothing raw, or everything when its rule fails open."""
    readers = [reads_texts(type(one.check)) and one.check.for_call(exchange) is not None for one in rules]
    broken = [index for index, one in enumerate(rules) if _acts(one) and readers[index]]
    if not broken:
        return
    hits = [hit for hit in _hits(text, rules, exchange, False) if _acts(hit.rule)]
    pieces = cut(text, 3)
    for after in sorted({0, 1, len(pieces) // 2, len(pieces) - 1}):
        failing = [
            replace(one, check=BreaksAfter(one.check, after)) if index == broken[0] else one
            for index, one in enumerate(rules)
        ]
        outcome = run(stream(failing, events_with([pieces]), copy.deepcopy(exchange)))
        assert outcome.error is not None, f"broken after {after} scans: it passed"
        _check_beginning(outcome, text, hits, f"broken after {after} scans")
        if len(rules) == 1:
            opened = [replace(one, fail_open=True) for one in failing]
            outcome = run(stream(opened, events_with([pieces]), copy.deepcopy(exchange)))
            _check_opened(outcome, text, hits, f"broken after {after} scans, failing open")


def _check_beginning(outcome: Outcome, text: str, hits: list[Hit], where: str) -> None:
    """What was let out before the error is the beginning of the text as it is to be, up to the first blocking hit."""
    safe = masked(text, hits)
    first = min(
        (cluster[0].start for cluster in clusters_of(hits) if any(_blocks(hit.rule) for hit in cluster)), default=None
    )
    if first is not None:
        safe = masked(text[:first], [hit for hit in hits if hit.end <= first])
    out = "".join(outcome.texts())
    assert safe.startswith(out), f"{where}: let out {out!r} of {safe!r}"


def _check_opened(outcome: Outcome, text: str, hits: list[Hit], where: str) -> None:
    """Changed up to where the check broke, and from there on as it came; and the finding says that it failed."""
    if outcome.blocked:
        return  # before it broke
    assert outcome.error is None, f"{where}: {outcome.error!r}"
    assert any(failed for *_, failed in outcome.findings), f"{where}: no finding says that it failed"
    ends = [0, *(max(hit.end for hit in cluster) for cluster in clusters_of(hits))]
    possible = {masked(text, [hit for hit in hits if hit.end <= end]) for end in ends}
    assert "".join(outcome.texts()) in possible, f"{where}: {outcome.texts()}"


def _hits(text: str, rules: list[CompiledRule], exchange: Exchange, arguments: bool) -> list[Hit]:
    """In the arguments of `in_arguments` the number and the keys are read too."""
    if not arguments:
        return hits_in(text, rules, exchange)
    others = [hit for other in ("title", "1", "note") for hit in hits_in(other, rules, exchange)]
    assert not others, "this check finds something in the kit's own arguments; give it other settings"
    return hits_in(text, rules, exchange)


def _acts(one: CompiledRule) -> bool:
    return one.action is not Action.AUDIT and not one.dry_run


def _blocks(one: CompiledRule) -> bool:
    return one.action is Action.BLOCK and not one.dry_run


# --- sample checks ---------------------------------------------------------------------------------------------------


class Phrases(Check):
    """Finds these very characters, wherever they stand, and holds back what may become one of them: no more."""

    name = "phrases"
    label = "Phrases"
    help = "A sample."
    left_context = 0

    def __init__(self, *phrases: str, placeholder: str = "****", label: str = "") -> None:
        self._phrases = phrases
        self._placeholder = placeholder
        self._label = label

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        said = text.original
        spans = []
        for phrase in self._phrases:
            at = said.find(phrase, start)
            while at >= 0:
                spans.append(Span(at, at + len(phrase), self._label))
                at = said.find(phrase, at + 1)
        if final:
            return Scan(spans, len(said))
        longest = max(map(len, self._phrases))
        begins = range(max(start, len(said) - longest + 1), len(said))
        return Scan(spans, next((at for at in begins if self._may_begin(said[at:])), len(said)))

    def _may_begin(self, end: str) -> bool:
        return any(len(phrase) > len(end) and phrase.startswith(end) for phrase in self._phrases)

    def replacement(self, text: str, label: str) -> str:
        return self._placeholder


class BreaksAfter(Check):
    """Another check that breaks after so many scans."""

    name = "breaks"
    label = "Breaks"
    help = "A sample."

    def __init__(self, inner: Check | None = None, scans: int = 0) -> None:
        self._inner = inner or Phrases("secret")
        self._scans = scans
        self.left_context = self._inner.left_context

    def for_call(self, exchange: Exchange) -> Scanner | None:
        scanner = self._inner.for_call(exchange)
        return None if scanner is None else _Breaking(scanner, self._scans)

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        raise AssertionError("the scanner of the call is asked")

    def replacement(self, text: str, label: str) -> str:
        return self._inner.replacement(text, label)


class _Breaking:
    def __init__(self, scanner: Scanner, scans: int) -> None:
        self._scanner = scanner
        self._left = scans

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        self._left -= 1
        if self._left < 0:
            raise ZeroDivisionError(f"while reading {text.original}")
        return self._scanner.scan(text, start, final)


class Slow(Phrases):
    """Takes its time."""

    name = "slow"

    def __init__(self, *phrases: str, seconds: float = 0.005) -> None:
        super().__init__(*(phrases or ("secret",)))
        self._seconds = seconds

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        time.sleep(self._seconds)
        return super().scan(text, start, final)


class NeverSure(Check):
    """Finds nothing and is sure of nothing before the text has ended."""

    name = "never_sure"
    label = "Never sure"
    help = "A sample."

    def __init__(self) -> None:
        """Nothing to compile."""

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return Scan((), len(text.original) if final else start)


class Objects(Check):
    """Objects to the request as a whole."""

    name = "objects"
    label = "Objects"
    help = "A sample."
    stages = REQUEST

    def __init__(self, *found: Found) -> None:
        self._found = found or (Found("odd"),)

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        return self._found


class ReadsWhole(Check):
    """Objects to replies in which a word occurs."""

    name = "reads_whole"
    label = "Reads the whole reply"
    help = "A sample."
    stages = REPLY
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    needs_whole_reply = True

    def __init__(self, word: str = "secret") -> None:
        self._word = word

    def inspect_reply(self, reply: Json, exchange: Exchange) -> Iterable[Found]:
        return [Found("word", "Ask for something else.")] if self._word in json.dumps(reply) else []


class Asks(Check):
    """Asks somebody else, beside the call or before it."""

    name = "asks"
    label = "Asks"
    help = "A sample."
    actions = frozenset({Action.AUDIT, Action.BLOCK})

    def __init__(self, *, beside: bool = False) -> None:
        self.runs_beside = beside

    async def ask(self, texts: list[str], moderate: Moderate) -> Iterable[Found]:
        verdict = await moderate("provider", "model", texts)
        return [Found(label) for label in sorted(verdict.flagged)]


@dataclass
class Flagged:
    """A policies.checks.base.Verdict."""

    flagged: frozenset[str] = frozenset()
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)


def moderation(*flagged: str) -> Callable[[str, str, list[str]], Awaitable[Flagged]]:
    """A moderation endpoint that always says this; `asked` is what it was asked."""

    async def moderate(provider: str, model: str, texts: list[str]) -> Flagged:
        moderate.asked.append(texts)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        return Flagged(frozenset(flagged))

    moderate.asked = []  # type: ignore[attr-defined]
    return moderate
