"""What a policy would do with a conversation, to be seen before it counts. Nothing is called, kept or logged.

The rules run in the engine itself, on a call that is made up. Moderation is left out: it would send the text to a
provider. The texts are also read once more by each rule alone, to know what it found where.
"""

from __future__ import annotations

import asyncio
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from django.core.exceptions import ValidationError

from policies.book import Compiler
from policies.checks.base import CHECKS, Verdict, has
from policies.display import Line, action_label, check_label, rule_title
from policies.documents import PolicySpec, RuleSpec
from policies.engine import Chain, Review
from policies.errors import Blocked, CheckFailed, PolicyError, Unreadable
from policies.fold import Folded
from policies.library import Library
from policies.prompts import CHAT, COMPLETIONS, EMBEDDINGS
from policies.record import FAILED, Record
from policies.rules import CompiledRule
from policies.texts import Text, reply_texts, request_texts
from policies.types import Exchange, Finding, Span, Stage
from policies.window import Reader, scan_whole

Result = TypeVar("Result")
OnSpan = Callable[[CompiledRule, Stage, Span], None]

MAX_RUNS, TIMED_S = 50, 0.25
MAX_MARKS = 500  # in one text; more is no help to anybody
MAX_FIELD_CHARS = 500
COLOURS = 8
SAID = ("messages", "prompt", "input", "choices")  # their texts are shown as such
ENDPOINTS = {"messages": CHAT, "prompt": COMPLETIONS, "input": EMBEDDINGS}
UNTRIED = {"context_window": "The context window of the model is not known here, so this rule finds nothing."}
ASKS = "Asks a provider, and does so in real calls only: your text is sent nowhere from here."


# --- what is tried --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Conversation:
    """A request's body, and the reply to it in OpenAI's shape, if there is one."""

    endpoint: str
    body: dict[str, Any]
    reply: dict[str, Any] | None = None

    @property
    def model(self) -> str:
        return str(self.body.get("model") or "")


def read(text: str, reply: str = "", model: str = "") -> Conversation:
    """`text` and `reply` as they were pasted: plain, or JSON. Raises ValidationError, by `text` and `reply`."""
    body = _json(text, "text")
    if body is None:
        body = {"messages": [{"role": "user", "content": _lines(text)}]}
    endpoint = next((endpoint for name, endpoint in ENDPOINTS.items() if name in body), None)
    if endpoint is None:
        raise ValidationError({"text": "This JSON is no request: it has neither messages nor a prompt nor an input."})
    if model and not body.get("model"):
        body = {"model": model, **body}
    if not isinstance(body.get("model", ""), str):
        raise ValidationError({"text": "The model of a request must be a text."})
    conversation = Conversation(endpoint, body, _reply(reply, endpoint) if reply.strip() else None)
    try:
        _texts(Stage.REQUEST, conversation.body)
        _texts(Stage.REPLY, conversation.reply or {})
    except Unreadable as error:
        raise ValidationError({"text": error.message}) from None
    return conversation


def _reply(text: str, endpoint: str) -> dict[str, Any]:
    given = _json(text, "reply")
    if given is not None and "choices" not in given:
        raise ValidationError({"reply": "This JSON is no reply: it has no choices."})
    if given is not None:
        return given
    said = {"text": _lines(text)} if endpoint == COMPLETIONS else {"message": _answer(_lines(text))}
    return {"choices": [{"index": 0, **said, "finish_reason": "stop"}]}


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _json(text: str, name: str) -> dict[str, Any] | None:
    """None: it is plain text. What begins like an object but is none is more likely a slip than a prompt."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
        # Half a surrogate pair is JSON, but no page can show it.
        found = json.loads(json.dumps(found, ensure_ascii=False).encode("utf-8", "replace"))
        copy.deepcopy(found)
    except json.JSONDecodeError as error:
        raise ValidationError({name: f"This begins like JSON, but is none: see line {error.lineno}."}) from None
    except RecursionError:
        raise ValidationError({name: "This JSON is nested too deeply."}) from None
    return dict(found)


def _lines(text: str) -> str:
    """A browser sends every line of a text box with a carriage return."""
    return text.replace("\r\n", "\n")


# --- what comes of it -----------------------------------------------------------------------------------------------
class Piece(NamedTuple):
    """A piece of a text, and the numbers of the rules that found it. `ends`: (rule, label) of what ends with it."""

    text: str
    rules: tuple[int, ...] = ()
    ends: tuple[tuple[int, str], ...] = ()

    @property
    def colour(self) -> int:
        return self.rules[0] % COLOURS if self.rules else 0


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text of the conversation as it was given, cut where something begins or ends that was found."""

    where: str
    pieces: tuple[Piece, ...]
    more: int = 0

    @property
    def has_marks(self) -> bool:
        return any(piece.rules for piece in self.pieces)


class SentText(NamedTuple):
    """A text as it goes on."""

    where: str
    text: str
    is_changed: bool


@dataclass(slots=True)
class RuleResult:
    """`cost_us`: for one call, without reading the text (which is done once for all rules). None: it did nothing."""

    number: int
    title: str
    check_label: str
    action: str
    dry_run: bool
    found: list[str] = field(default_factory=list)
    note: str = ""
    cost_us: float | None = None

    @property
    def colour(self) -> int:
        return self.number % COLOURS


@dataclass(frozen=True, slots=True)
class Ending:
    """How one side of the call ends. `kind`: passes, blocked (with an error), answered, or failed. `fields`: what has
    changed of it beside its texts."""

    kind: str = "passes"
    message: str = ""
    changed: bool = False
    json: str = ""
    texts: tuple[SentText, ...] = ()
    fields: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """All there is to show. `reply` is None when no reply was given, or none would come. `problems`: why a rule cannot
    work at all."""

    rules: list[RuleResult]
    request_texts: list[MarkedText]
    reply_texts: list[MarkedText]
    request: Ending
    reply: Ending | None
    reading_us: float
    runs: int
    retries: int = 0
    problems: tuple[str, ...] = ()

    @property
    def total_us(self) -> float:
        return self.reading_us + sum(rule.cost_us or 0 for rule in self.rules)


def attempt(policy: PolicySpec, conversation: Conversation) -> Trial:
    """Try the policy, switched-off rules left out. Two queries, one for each word list, and about half a second."""
    numbered = [(number, rule) for number, rule in enumerate(policy.rules, 1) if rule.enabled]
    # Named by number, because two rules may have one name.
    spec = replace(policy, rules=tuple(replace(rule, name=str(number)) for number, rule in numbered))
    compiler = Compiler(Library())
    rules = compiler.rules(spec)
    chain = _without_askers(rules)
    results = {number: _result(number, rule) for number, rule in numbered}
    marks = _mark(chain, conversation)
    first = asyncio.run(_run(chain, conversation))
    for finding in first.record.findings():
        results[int(finding.rule)].found.append(_found_words(finding))
    times = _time(chain, conversation)
    for rule, cost in times.costs_us.items():
        results[int(rule.name)].cost_us = cost
    return Trial(
        rules=list(results.values()),
        request_texts=marks[Stage.REQUEST],
        reply_texts=marks[Stage.REPLY],
        request=first.request,
        reply=first.reply,
        reading_us=times.reading_us,
        runs=times.runs,
        retries=first.retries,
        problems=tuple(problem.replace(f"policy {policy.name}, rule", "Rule", 1) for problem in compiler.problems),
    )


def _without_askers(rules: Sequence[CompiledRule]) -> Chain:
    chain = Chain(rules)
    chain.request_askers, chain.reply_askers = [], []
    chain.clean = None  # each run is to show what a text costs that nobody has read yet
    return chain


def _result(number: int, rule: RuleSpec) -> RuleResult:
    check = CHECKS.get(rule.check)
    asks = check is not None and has(check, "ask")
    return RuleResult(
        number=number,
        title=rule_title(rule),
        check_label=check_label(rule.check),
        action=action_label(rule.check, rule.action),
        dry_run=rule.dry_run,
        note=ASKS if asks else UNTRIED.get(rule.check, ""),
    )


def _found_words(finding: Finding) -> str:
    what = f"failed ({finding.label})" if finding.failed else finding.label or "found"
    times = f" ×{finding.count}" if finding.count > 1 else ""
    return f"{what}{times} in the {finding.stage.value}"


# --- a run through the engine ---------------------------------------------------------------------------------------
class TimedRecord(Record):
    """Lets each rule scan a text twice. What the second time is spared was for all rules: folding, the words of a text.
    Logs nothing: what fails here is no incident."""

    __slots__ = ("reading_ns",)

    def __init__(self, on_span: OnSpan | None = None) -> None:
        super().__init__(on_span)
        self.reading_ns = 0

    def run(
        self, rule: CompiledRule, stage: Stage, step: Callable[[], Result], *, must_say: bool = False
    ) -> Result | None:
        if not any(isinstance(given, Folded) for given in getattr(step, "args", ())):
            return super().run(rule, stage, step, must_say=must_say)
        begun, spent = time.perf_counter_ns(), self.spent_ns.get(rule, 0)
        with suppress(Exception):  # it fails again below, and is heard there
            step()
        first = time.perf_counter_ns() - begun
        try:
            return super().run(rule, stage, step, must_say=must_say)
        finally:
            self.reading_ns += max(0, first - (self.spent_ns.get(rule, 0) - spent))

    def fail(self, rule: CompiledRule, stage: Stage, label: str, error: Exception | None = None) -> None:
        self.note(rule, stage, label, failed=True)
        self._given_up.add(rule)
        if not rule.fail_open:
            raise CheckFailed(FAILED) from error


class Run(NamedTuple):
    request: Ending
    reply: Ending | None
    record: TimedRecord
    retries: int


async def _run(chain: Chain, conversation: Conversation) -> Run:
    """One call. Its reply is looked at also when no reply would come, because its rules have a cost of their own."""
    exchange, record = _exchange(conversation), TimedRecord()
    review = Review(chain, exchange, record)
    try:
        await review.request(_nobody)
        request = _passed(Stage.REQUEST, exchange.body, conversation.body)
    except PolicyError as error:
        request = _ended(error)
    reply = await _run_reply(review, conversation)
    return Run(request, reply if request.kind == "passes" else None, record, exchange.retries)


async def _run_reply(review: Review, conversation: Conversation) -> Ending | None:
    if conversation.reply is None:
        return None
    reply = copy.deepcopy(conversation.reply)
    try:
        await review.reply(reply, _nobody)
    except PolicyError as error:
        return _ended(error)
    return _passed(Stage.REPLY, reply, conversation.reply)


def _exchange(conversation: Conversation) -> Exchange:
    body = copy.deepcopy(conversation.body)
    return Exchange(
        endpoint=conversation.endpoint,
        body=body,
        model=conversation.model,
        requested_model=conversation.model,
        stream=body.get("stream") is True,
        body_bytes=len(json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")),
        caller="try it",
    )


async def _nobody(provider: str, model: str, texts: list[str]) -> Verdict:
    raise AssertionError("nobody is asked from here")


def _texts(stage: Stage, body: dict[str, Any]) -> list[Text]:
    """Of a request, or of a reply. Raises Unreadable."""
    return list(request_texts(body)) if stage is Stage.REQUEST else [text for _, text in reply_texts(body)]


def _said(stage: Stage, body: dict[str, Any]) -> list[Text]:
    """Without the names in schemas, which nobody says."""
    return [text for text in _texts(stage, body) if not text.fixed]


def _passed(stage: Stage, body: dict[str, Any], given: dict[str, Any]) -> Ending:
    """Texts are matched by their order, as far as there are as many as before."""
    sent_json = json.dumps(body, ensure_ascii=False, indent=2)
    went = json.loads(sent_json)
    before = [text.value for text in _said(stage, given)]
    after = _said(stage, went)
    same_number = len(before) == len(after)
    sent = tuple(
        SentText(_where(text), text.value, text.value != before[index] if same_number else text.value not in before)
        for index, text in enumerate(after)
    )
    return Ending(changed=went != given, json=sent_json, texts=sent, fields=_changed_fields(given, went))


def _changed_fields(before: dict[str, Any], after: dict[str, Any]) -> tuple[Line, ...]:
    names = [name for name in (before | after) if name not in SAID and before.get(name) != after.get(name)]
    return tuple(Line(name, _field_text(before, name), _field_text(after, name)) for name in names)


def _field_text(body: dict[str, Any], name: str) -> tuple[str, ...]:
    if name not in body:
        return ()
    text = json.dumps(body[name], ensure_ascii=False)
    return (text if len(text) <= MAX_FIELD_CHARS else f"{text[:MAX_FIELD_CHARS]} …",)


def _ended(error: PolicyError) -> Ending:
    if isinstance(error, CheckFailed):
        return Ending("failed", error.message)
    if isinstance(error, Blocked) and error.answer is not None:
        return Ending("answered", error.answer)
    return Ending("blocked", error.message)


class Times(NamedTuple):
    costs_us: dict[CompiledRule, float]
    reading_us: float
    runs: int


def _time(chain: Chain, conversation: Conversation) -> Times:
    """The median of several runs; of few, when they take long."""
    records: list[TimedRecord] = []
    deadline = time.perf_counter() + TIMED_S
    while not records or (len(records) < MAX_RUNS and time.perf_counter() < deadline):
        records.append(asyncio.run(_run(chain, conversation)).record)
    worked = {rule for record in records for rule in record.spent_ns}
    costs = {rule: statistics.median(record.spent_ns.get(rule, 0) for record in records) / 1000 for rule in worked}
    return Times(costs, statistics.median(record.reading_ns for record in records) / 1000, len(records))


# --- what was found where -------------------------------------------------------------------------------------------
class _Mark(NamedTuple):
    start: int
    end: int
    rule: int
    label: str


def _mark(chain: Chain, conversation: Conversation) -> dict[Stage, list[MarkedText]]:
    exchange = _exchange(conversation)
    given = {Stage.REQUEST: exchange.body, Stage.REPLY: conversation.reply or {}}
    return {stage: _marked(chain, exchange, stage, _texts(stage, body)) for stage, body in given.items()}


def _marked(chain: Chain, exchange: Exchange, stage: Stage, texts: Iterable[Text]) -> list[MarkedText]:
    """A rule whose check fails marks nothing; that it fails is told elsewhere."""
    readers: list[Reader] = []
    for rule in chain.rules:
        alone = Chain([replace(rule, fail_open=True)])
        readers += [Reader(reader.rule, reader.scanner) for reader in alone.readers(exchange, stage, TimedRecord())]
    marked = []
    for text in texts:
        for where, value in _read_values(text):
            marks = _spans(value, readers, stage)
            if marks or (value and not text.fixed):
                marked.append(_cut(where, value, marks))
    return marked


def _spans(value: str, readers: Sequence[Reader], stage: Stage) -> list[_Mark]:
    marks: list[_Mark] = []
    record = TimedRecord(lambda rule, _, span: marks.append(_Mark(span.start, span.end, int(rule.name), span.label)))
    scan_whole(value, readers, record, stage)
    return sorted(set(marks))


def _cut(where: str, value: str, marks: list[_Mark]) -> MarkedText:
    shown = marks[:MAX_MARKS]
    edges = sorted({0, len(value), *(mark.start for mark in shown), *(mark.end for mark in shown)})
    pieces = []
    for start, end in pairwise(edges):
        over = [mark for mark in shown if mark.start < end and start < mark.end]
        ends = [(mark.rule, mark.label) for mark in over if mark.end == end]
        pieces.append(Piece(value[start:end], tuple(sorted({mark.rule for mark in over})), tuple(dict.fromkeys(ends))))
    return MarkedText(where, tuple(pieces), len(marks) - len(shown))


def _read_values(text: Text) -> Iterator[tuple[str, str]]:
    """(where, value) as rules read it: the arguments of a tool call value by value."""
    where = _where(text)
    if not text.arguments:
        yield where, text.value
        return
    try:
        arguments = json.loads(text.value)
    except (ValueError, RecursionError):
        arguments = text.value
    yield from _leaves(arguments, where)


def _leaves(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{where} → {name}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _leaves(item, f"{where}[{position}]")
    elif value is not None and not isinstance(value, bool):
        yield where, str(value)


def _where(text: Text) -> str:
    """messages[1].content"""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in text.path)
    return path.removeprefix(".")
