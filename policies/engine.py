"""The engine: takes a call through the rules that hold for it. A check finds, the rule decides, the engine acts.

    Chain    the rules of one team and key, sorted by what they have to do; made when the configuration changes
    Review   one call's way through its chain

A review goes like this; each step may raise Blocked or CheckFailed:

    await review.request(moderate)      before the provider hears of the call
    await review.verdict()              a moderation that ran beside the call; before anything of the reply is given
    await review.reply(reply, moderate)     the whole reply, changed in place
    review.stream()                     a guard for the events of a stream (policies.guard), None when nobody reads them

All rules look at the request as it came. Only then it is changed, and what was blocked says all its reasons at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from policies.arguments import ArgumentsWindow
from policies.checks.base import Check, Moderate, Scanner, has, reads_texts
from policies.clean_texts import CleanTexts, digest_of
from policies.documents import PolicySpec
from policies.errors import Blocked, CheckFailed
from policies.guard import StreamGuard, drop_copies
from policies.record import Record, acts, joined, message_of
from policies.rules import CompiledRule
from policies.texts import Text, has_tokens, reply_texts, request_texts
from policies.types import Action, Exchange, Found, Stage
from policies.window import Match, Reader, TextWindow, apply_edits, scan_whole

# A text beyond this is read in slices: with half a dozen rules one takes some 10 ms. Arguments are made of many small
# texts, which cost more.
SLICE_CHARS = 8 * 1024
ARGUMENTS_SLICE_CHARS = 512
# After so long other calls get their turn, between two texts or two slices.
TURN_S = 0.005
# So long may the rules take to read a reply. Large ones take a second of the processor, and on a busy machine many more
# pass: that is no failure of a check, each of which has a limit of its own for each look.
READING_S = 60
TOKENS = "Send the text itself instead of token numbers: a policy of your organisation has to read it."


class Pending(NamedTuple):
    """Texts that a rule which only watches wants judged, after the call."""

    rule: CompiledRule
    stage: Stage
    texts: list[str]


class Chain:
    """The rules that hold for one team and key, in order, by what they do at which stage."""

    def __init__(self, rules: Sequence[CompiledRule], policies: Sequence[PolicySpec] = ()) -> None:
        self.rules = tuple(rules)
        self.policies = tuple(policies)
        self.overridden: dict[Any, Chain] = {}  # by the headers of calls, see policies.overrides
        self.logs_requests = any(policy.log_request for policy in policies)
        self.logs_replies = any(policy.log_reply for policy in policies)
        logging = [policy.retention_days for policy in policies if policy.log_request or policy.log_reply]
        self.retention_days = max(logging, default=0)
        self.inspectors = self._that("inspect", Stage.REQUEST)
        self.enforcers = [rule for rule in self._that("enforce", None) if not rule.dry_run]
        self.request_askers = self._that("ask", Stage.REQUEST)
        self.reply_askers = self._that("ask", Stage.REPLY)
        self.reply_inspectors = self._that("inspect_reply", Stage.REPLY)
        # Those that judge a stream by each event, and those that must see all of it.
        self.event_inspectors = [rule for rule in self.reply_inspectors if not rule.check.needs_whole_reply]
        self.whole_inspectors = [rule for rule in self.reply_inspectors if rule.check.needs_whole_reply]
        # The longest that a reply may be with us: others' verdicts, and reading it in turns with all other calls.
        askers = (*self.request_askers, *self.reply_askers)
        self.patience_s = sum(rule.timeout_s for rule in askers) + READING_S
        scanners = [rule for rule in self.rules if reads_texts(type(rule.check))]
        self._request_scanners = [rule for rule in scanners if Stage.REQUEST in rule.stages]
        self._reply_scanners = [rule for rule in scanners if Stage.REPLY in rule.stages]
        # Where every verdict on a text of a request rests on that text alone.
        self.clean: CleanTexts | None = None
        if not any(has(type(rule.check), "for_call") or rule.check.remembers for rule in self._request_scanners):
            self.clean = CleanTexts()

    def _that(self, moment: str, stage: Stage | None) -> list[CompiledRule]:
        return [
            rule for rule in self.rules if (stage is None or stage in rule.stages) and has(type(rule.check), moment)
        ]

    def readers(self, exchange: Exchange, stage: Stage, record: Record) -> list[Reader]:
        """Who scans the texts of this call. Raises CheckFailed."""
        rules = self._request_scanners if stage is Stage.REQUEST else self._reply_scanners
        readers = []
        for rule in rules:
            scanner: Scanner | None = rule.check
            if has(type(rule.check), "for_call"):
                scanner = _guarded(record, rule, stage, partial(rule.check.for_call, exchange))
            if scanner is not None:
                readers.append(Reader(rule, scanner))
        return readers

    @property
    def withholds(self) -> bool:
        """Whether a stream is kept back until its last event is there."""
        return any(acts(rule) for rule in (*self.reply_askers, *self.whole_inspectors))


class Review:
    """One call's way through its chain; see the module."""

    def __init__(self, chain: Chain, exchange: Exchange, record: Record | None = None) -> None:
        self.chain = chain
        self.exchange = exchange
        self.record = Record() if record is None else record
        self.was_read = False  # the request: if not, nothing of it may be kept, because nothing is masked in it
        self.changed = False  # the request, by any rule
        self.pending: list[Pending] = []
        self._verdict: asyncio.Task[list[tuple[CompiledRule, Found]]] | None = None
        self._reply_readers: list[Reader] = []
        self._turn_began = time.perf_counter()

    # --- the request ------------------------------------------------------------------------------------------------

    async def request(self, moderate: Moderate) -> None:
        """Look at the request, ask whom it must be asked, then change it. Raises Blocked, CheckFailed."""
        chain, exchange, record = self.chain, self.exchange, self.record
        readers = chain.readers(exchange, Stage.REQUEST, record)
        reasons: list[tuple[CompiledRule, Found]] = []
        fixes: list[tuple[CompiledRule, Found]] = []
        for rule in chain.inspectors:
            self._take(rule, Stage.REQUEST, self._inspect(rule, exchange), reasons, fixes)
        changes, blocking, texts = await self._scan_texts(exchange.body, readers)
        reasons += [(match.rule, Found()) for match in blocking]
        acting = [rule for rule in (*(reader.rule for reader in readers), *chain.request_askers) if acts(rule)]
        if acting and has_tokens(exchange.body):
            record.note(acting[0], Stage.REQUEST, "token numbers")
            self._raise([], TOKENS)
        if not reasons and chain.request_askers:
            # What a rule masks does not leave the house for a verdict either.
            reasons = await self._ask(texts, moderate)
        self.was_read = True
        # Also when it is blocked: what is kept of the call is kept without what was found in it.
        for text, changed in changes:
            text.holder[text.key] = changed
        if reasons:
            self._raise(reasons)
        self.changed = bool(changes or fixes or chain.enforcers)
        self._fix(fixes, Stage.REQUEST)
        # Who knows this call must see what others add to it, and what it takes away itself.
        self._enforce(rule for rule in chain.enforcers if not has(type(rule.check), "for_call"))
        self._reply_readers = chain.readers(exchange, Stage.REPLY, record)
        self._enforce(rule for rule in chain.enforcers if has(type(rule.check), "for_call"))

    def _enforce(self, rules: Iterable[CompiledRule]) -> None:
        for rule in rules:
            _guarded(self.record, rule, Stage.REQUEST, partial(rule.check.enforce, self.exchange))

    def _inspect(self, rule: CompiledRule, exchange: Exchange) -> list[Found]:
        return _guarded(self.record, rule, Stage.REQUEST, lambda: list(rule.check.inspect(exchange))) or []

    def _take(
        self,
        rule: CompiledRule,
        stage: Stage,
        findings: Iterable[Found],
        reasons: list[tuple[CompiledRule, Found]],
        fixes: list[tuple[CompiledRule, Found]],
    ) -> None:
        """Note what was found, and sort it into reasons to block and things to put right."""
        for found in findings:
            self.record.note(rule, stage, found.label)
            if not acts(rule):
                continue
            if rule.action is Action.REDACT or rule.check.gentle:
                if found.fix is not None:
                    fixes.append((rule, found))
            else:
                reasons.append((rule, found))

    def _fix(self, fixes: list[tuple[CompiledRule, Found]], stage: Stage) -> None:
        for rule, found in fixes:
            if found.fix is not None:
                _guarded(self.record, rule, stage, found.fix)

    async def _scan_texts(
        self, body: dict[str, Any], readers: list[Reader]
    ) -> tuple[list[tuple[Text, str]], list[Match], list[str]]:
        """(changed texts, matches that block, all texts as they will be sent, if anybody is to be asked about them)."""
        changes: list[tuple[Text, str]] = []
        blocking: list[Match] = []
        said: list[str] = []
        asks = bool(self.chain.request_askers)
        if not readers and not asks:
            return changes, blocking, said
        for text in request_texts(body):
            changed, found = await self._scan_asked(text, readers) if readers else (text.value, ())
            blocking += found
            if not text.fixed:
                if changed is not text.value and changed != text.value:
                    changes.append((text, changed))
                if asks:
                    said.append(changed)
            await self._give_turn()
        return changes, blocking, said

    async def _scan_asked(self, text: Text, readers: list[Reader]) -> tuple[str, Sequence[Match]]:
        """A text of the request, read unless the same rules have read the same text and found nothing."""
        clean, record = self.chain.clean, self.record
        if clean is None or text.arguments or record.on_span is not None:
            return await self._scan_text(text, readers, Stage.REQUEST)
        digest = digest_of(text.value)
        if clean.has(digest):
            return text.value, ()
        noted = record.noted
        changed, found = await self._scan_text(text, readers, Stage.REQUEST)
        if record.noted == noted and record.is_complete:
            clean.add(digest)
        return changed, found

    async def _scan_text(self, text: Text, readers: list[Reader], stage: Stage) -> tuple[str, Sequence[Match]]:
        """(the text as the rules leave it, matches that block)."""
        value = text.value
        if not value:
            return value, ()
        if text.arguments or len(value) > SLICE_CHARS:
            return await self._scan_slices(text, readers, stage)
        edits, blocking = scan_whole(value, readers, self.record, stage)
        return apply_edits(value, edits), blocking

    async def _scan_slices(self, text: Text, readers: list[Reader], stage: Stage) -> tuple[str, list[Match]]:
        """Like `scan_whole`, through a window, with turns for other calls between two slices."""
        blocking: list[Match] = []
        kind, size = (ArgumentsWindow, ARGUMENTS_SLICE_CHARS) if text.arguments else (TextWindow, SLICE_CHARS)
        window = kind(readers, self.record, stage, blocking)
        released = []
        for position in range(0, len(text.value), size):
            final = position + size >= len(text.value)
            released.append(window.feed(text.value[position : position + size], final))
            await self._give_turn()
        return "".join(released), blocking

    async def _give_turn(self) -> None:
        """Let other calls go on when this one has had the processor for a while."""
        if time.perf_counter() - self._turn_began > TURN_S:
            await asyncio.sleep(0)
            self._turn_began = time.perf_counter()

    # --- moderation -------------------------------------------------------------------------------------------------

    async def _ask(self, said: list[str], moderate: Moderate) -> list[tuple[CompiledRule, Found]]:
        """Reasons to block that others give. Those that may run beside the call are only begun."""
        acting = self._leave_to_later(self.chain.request_askers, Stage.REQUEST, said)
        beside = [rule for rule in acting if rule.check.runs_beside]
        if beside:
            self._verdict = asyncio.create_task(self._ask_all(beside, Stage.REQUEST, said, moderate))
        first = [rule for rule in acting if not rule.check.runs_beside]
        return await self._ask_all(first, Stage.REQUEST, said, moderate)

    def _leave_to_later(self, rules: list[CompiledRule], stage: Stage, texts: list[str]) -> list[CompiledRule]:
        """The rules that act; the others ask when the call is over, so that nobody waits for them."""
        self.pending += [Pending(rule, stage, texts) for rule in rules if not acts(rule)]
        return [rule for rule in rules if acts(rule)]

    async def _ask_all(
        self, rules: list[CompiledRule], stage: Stage, texts: list[str], moderate: Moderate
    ) -> list[tuple[CompiledRule, Found]]:
        reasons: list[tuple[CompiledRule, Found]] = []
        for rule in rules:
            try:
                async with asyncio.timeout(rule.timeout_s):
                    found = list(await rule.check.ask(texts, moderate))
            except Exception as error:
                self.record.fail(rule, stage, type(error).__name__, error)
                continue
            self._take(rule, stage, found, reasons, [])
        return reasons

    async def verdict(self) -> None:
        """Wait for what was asked beside the call. Raises Blocked, CheckFailed."""
        if self._verdict is not None:
            reasons = await self._verdict
            self._verdict = None
            if reasons:
                self._raise(reasons)

    def close(self) -> None:
        """The call is over: nobody waits for a verdict any more."""
        if self._verdict is not None:
            self._verdict.cancel()
            self._verdict.add_done_callback(_forget)
            self._verdict = None

    # --- the reply --------------------------------------------------------------------------------------------------

    @property
    def reads_replies(self) -> bool:
        """Whether anybody looks at the texts of the reply, or keeps them."""
        chain = self.chain
        return bool(self._reply_readers or chain.reply_inspectors or chain.reply_askers or chain.logs_replies)

    async def reply(self, reply: dict[str, Any], moderate: Moderate) -> bool:
        """A whole reply in OpenAI's shape, changed in place. True when it was changed. Raises Blocked, CheckFailed."""
        self._turn_began = time.perf_counter()  # it was the provider's meanwhile
        texts, readers = list(reply_texts(reply)), self._reply_readers
        changes: list[tuple[dict[str, Any] | None, Text, str]] = []
        blocking: list[Match] = []
        for choice, text in texts:
            changed, found = await self._scan_text(text, readers, Stage.REPLY) if readers else (text.value, ())
            blocking += found
            if changed != text.value:
                changes.append((choice, text, changed))
            await self._give_turn()
        reasons = [(match.rule, Found()) for match in blocking]
        fixes = self._judge(self.chain.reply_inspectors, reply, reasons)
        if not reasons:
            masked = {id(text): changed for _, text, changed in changes}
            said = [masked.get(id(text), text.value) for _, text in texts]
            acting = self._leave_to_later(self.chain.reply_askers, Stage.REPLY, said)
            reasons = await self._ask_all(acting, Stage.REPLY, said, moderate)
        if reasons:
            self._raise(reasons)
        for choice, text, changed in changes:
            text.holder[text.key] = changed
            if choice is not None:
                drop_copies(choice)
        self._fix(fixes, Stage.REPLY)
        return bool(changes or fixes)

    def _judge(
        self, inspectors: list[CompiledRule], reply: dict[str, Any], reasons: list[tuple[CompiledRule, Found]]
    ) -> list[tuple[CompiledRule, Found]]:
        """Adds to `reasons`; gives what could be put right."""
        fixes: list[tuple[CompiledRule, Found]] = []
        for rule in inspectors:
            step = partial(_listed, rule.check, reply, self.exchange)
            found = _guarded(self.record, rule, Stage.REPLY, step) or []
            self._take(rule, Stage.REPLY, found, reasons, fixes)
        return fixes

    async def judge_stream(self, guard: StreamGuard, moderate: Moderate) -> None:
        """The reply that a stream amounts to; its texts were scanned as they came. Raises Blocked, CheckFailed."""
        reasons: list[tuple[CompiledRule, Found]] = []
        if guard.said is not None:
            # What has been sent in pieces cannot be put right any more.
            reasons += self._judge(self.chain.whole_inspectors, guard.said.reply(), reasons)
        if guard.released is not None and self.chain.reply_askers and not reasons:
            said = [text.value for _, text in reply_texts(guard.released.reply())]
            acting = self._leave_to_later(self.chain.reply_askers, Stage.REPLY, said)
            reasons = await self._ask_all(acting, Stage.REPLY, said, moderate)
        if reasons:
            self._raise(reasons)

    def _judge_event(self, event: dict[str, Any]) -> None:
        """One event of a stream, before any of it is given. Raises Blocked, CheckFailed."""
        choices = [choice for choice in event["choices"] if isinstance(choice, dict)]
        reply = {"choices": [{**choice, "message": choice.get("delta")} for choice in choices]}
        reasons: list[tuple[CompiledRule, Found]] = []
        reasons += self._judge(self.chain.event_inspectors, reply, reasons)
        if reasons:
            self._raise(reasons)

    def stream(self) -> StreamGuard | None:
        """For one attempt at an answer. None: nobody reads the reply, its events may pass as they are."""
        if not self.reads_replies:
            return None
        return StreamGuard(
            self._reply_readers,
            self.record,
            judge=self._judge_event if self.chain.event_inspectors else None,
            assemble=bool(self.chain.whole_inspectors),
            keep=self.chain.logs_replies or bool(self.chain.reply_askers),
            withhold=self.chain.withholds,
        )

    # --- both -------------------------------------------------------------------------------------------------------

    def _raise(self, reasons: list[tuple[CompiledRule, Found]], message: str = "") -> None:
        """One block for all reasons, in the order of the rules: an error, unless all that block would rather answer."""
        reasons = sorted(reasons, key=lambda reason: self.chain.rules.index(reason[0]))
        answers = [answer for rule, found in reasons if (answer := _answer(rule, found)) is not None]
        text = message or joined(message_of(rule, found.message) for rule, found in reasons if found.answer is None)
        if answers and len(answers) == len(reasons):
            raise Blocked(text, answers[0], canned=all(found.answer is not None for _, found in reasons))
        raise Blocked(text)


def _answer(rule: CompiledRule, found: Found) -> str | None:
    if found.answer is not None:
        return found.answer
    if rule.block_with == "answer":
        return rule.answer or message_of(rule, found.message)
    return None


def _forget(verdict: asyncio.Task[Any]) -> None:
    """A verdict that nobody waits for may have failed; its findings are in the record."""
    if not verdict.cancelled():
        verdict.exception()


def _listed(check: Check, reply: dict[str, Any], exchange: Exchange) -> list[Found]:
    return list(check.inspect_reply(reply, exchange))


def _guarded(record: Record, rule: CompiledRule, stage: Stage, step: Any) -> Any:
    """`record.run`; a rule that only watches has no power to block, not even by failing."""
    try:
        return record.run(rule, stage, step)
    except CheckFailed:
        if acts(rule):
            raise
        return None
