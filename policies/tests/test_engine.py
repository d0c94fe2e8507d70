"""A call's way through the rules that hold for it: what is found, what is done about it, what when a check fails."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from policies.checks.base import Check, Scanner
from policies.engine import Chain, Review
from policies.errors import Blocked, CheckFailed, ModerationFailed
from policies.rules import CompiledRule, Uncompiled
from policies.tests.tools import (
    REPLY,
    REQUEST,
    Asks,
    BreaksAfter,
    NeverSure,
    Objects,
    Outcome,
    Phrases,
    ReadsWhole,
    Slow,
    answer,
    ask,
    events_with,
    exchange_of,
    in_arguments,
    moderation,
    nobody,
    reply_with,
    request_with,
    rule,
    run,
    stream,
)
from policies.types import Action, Exchange, Finding, Found, Stage

Json = dict[str, Any]


def asked(text_or_body: str | Json, *rules: CompiledRule) -> Outcome:
    """What comes of a request."""
    body = request_with(text_or_body) if isinstance(text_or_body, str) else text_or_body
    return run(ask(rules, exchange_of(body)))


def message_of(outcome: Outcome) -> str:
    assert outcome.error is not None
    return outcome.error.message


# --- what a block says ---


def test_call_that_is_blocked_hears_all_reasons_at_once_in_the_order_of_the_rules() -> None:
    """Those of rules that look at the request as a whole, and of rules that read its texts."""
    outcome = asked(
        "one two",
        rule(Phrases("two"), message="Not two."),
        rule(Objects(), message="Not so."),
        rule(Phrases("three"), message="Not three."),
        rule(Phrases("one"), message="Not one."),
    )
    assert message_of(outcome) == "Not two. Not so. Not one."


@pytest.mark.parametrize("place", ["content", "arguments", "tool description"])
@pytest.mark.parametrize("length", [0, 40_000])
def test_all_reasons_are_told_wherever_they_stand(place: str, length: int) -> None:
    text = "one two" + " " * length
    rules = [rule(Phrases("one"), message="Not one.", name="one"), rule(Phrases("two"), message="Not two.", name="two")]
    outcome = run(ask(rules, exchange_of(request_with(text, place))))
    assert message_of(outcome) == "Not one. Not two."
    assert outcome.findings == {
        ("one", Stage.REQUEST, "", False): 1,
        ("two", Stage.REQUEST, "", False): 1,
    }


def test_same_message_is_told_once() -> None:
    rules = [rule(Phrases("one"), message="No."), rule(Phrases("two"), message="No.")]
    assert message_of(asked("one two one", *rules)) == "No."


def test_message_is_the_rules_then_the_findings_then_the_checks() -> None:
    found = Found("odd", message="The finding's own.")
    assert message_of(asked("Hi", rule(Objects(found), message="The rule's."))) == "The rule's."
    assert message_of(asked("Hi", rule(Objects(found)))) == "The finding's own."
    assert message_of(asked("Hi", rule(Objects(Found("odd"))))) == Check.message


def test_block_with_an_answer_gives_the_answer() -> None:
    outcome = asked("secret", rule(Phrases("secret"), block_with="answer", answer="Let us talk of something else."))
    assert isinstance(outcome.error, Blocked)
    assert outcome.error.answer == "Let us talk of something else."
    assert not outcome.error.canned


def test_block_with_an_answer_that_is_empty_answers_with_the_message() -> None:
    outcome = asked("secret", rule(Phrases("secret"), block_with="answer", message="Not this."))
    assert isinstance(outcome.error, Blocked)
    assert outcome.error.answer == "Not this."


ANSWERS = rule(Phrases("secret"), block_with="answer", answer="Let us talk of something else.", name="answers")
REFUSES = rule(Phrases("secret"), message="Not this.", name="refuses")


@pytest.mark.parametrize("rules", [[ANSWERS, REFUSES], [REFUSES, ANSWERS]], ids=["answer first", "error first"])
def test_answer_is_given_only_when_all_that_block_would_answer(rules: list[CompiledRule]) -> None:
    replied = run(answer([replace(one, stages=REPLY) for one in rules], reply_with(["a secret"])))
    streamed = run(stream([replace(one, stages=REPLY) for one in rules], events_with([["a secret "]])))
    for outcome in (asked("secret", *rules), replied, streamed):
        assert isinstance(outcome.error, Blocked)
        assert outcome.error.answer is None
        assert "Not this." in outcome.error.message


def test_canned_answer_needs_no_provider() -> None:
    outcome = asked("Hi", rule(Objects(Found("greeting", answer="Hello yourself."))))
    assert isinstance(outcome.error, Blocked)
    assert (outcome.error.answer, outcome.error.canned) == ("Hello yourself.", True)


def test_canned_answer_opens_no_way_around_a_rule_that_blocks() -> None:
    canned = rule(Objects(Found("greeting", answer="Hello yourself.")), name="canned")
    outcome = asked("secret", canned, rule(Phrases("secret"), message="Not this."))
    assert isinstance(outcome.error, Blocked)
    assert (outcome.error.answer, outcome.error.message) == (None, "Not this.")


# --- what is done ---


class Clamps(Check):
    """A number that may be too large."""

    name = "clamps"
    label = "Clamps"
    help = "A sample."
    stages = REQUEST

    def __init__(self, *, gentle: bool = False) -> None:
        self.gentle = gentle

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        if exchange.body.get("max_tokens", 0) > 10:
            yield Found("max_tokens", "Ask for at most 10 tokens.", fix=lambda: exchange.body.update(max_tokens=10))


@pytest.mark.parametrize(
    ("action", "dry_run", "max_tokens", "blocked"),
    [
        ("audit", False, 99, False),
        ("redact", False, 10, False),
        ("block", False, 99, True),
        ("redact", True, 99, False),
        ("block", True, 99, False),
    ],
)
def test_action_decides_what_is_done_about_a_finding(
    action: str, dry_run: bool, max_tokens: int, blocked: bool
) -> None:
    outcome = asked(request_with("Hi") | {"max_tokens": 99}, rule(Clamps(), action, dry_run=dry_run))
    assert outcome.body["max_tokens"] == max_tokens
    assert outcome.blocked is blocked
    assert outcome.findings == {("clamps", Stage.REQUEST, "max_tokens", False): 1}


def test_gentle_check_puts_right_instead_of_blocking() -> None:
    outcome = asked(request_with("Hi") | {"max_tokens": 99}, rule(Clamps(gentle=True), "block"))
    assert outcome.error is None
    assert outcome.body["max_tokens"] == 10


def test_finding_that_cannot_be_put_right_is_only_reported() -> None:
    outcome = asked("Hi", rule(Objects(Found("odd")), "redact"))
    assert outcome.error is None and outcome.body == request_with("Hi")
    assert outcome.findings == {("objects", Stage.REQUEST, "odd", False): 1}


def test_nothing_is_put_right_in_a_request_that_is_blocked() -> None:
    outcome = asked(request_with("secret") | {"max_tokens": 99}, rule(Clamps(), "redact"), rule(Phrases("secret")))
    assert outcome.blocked
    assert outcome.body["max_tokens"] == 99


def test_all_rules_look_at_the_request_as_it_came() -> None:
    """The order of rules decides whose mask stands, not what the next one can read."""
    outcome = asked("my secret", rule(Phrases("secret"), "redact"), rule(Phrases("my secret"), message="Not this."))
    assert message_of(outcome) == "Not this."


class Adds(Check):
    """Changes whatever comes."""

    name = "adds"
    label = "Adds"
    help = "A sample."
    stages = REQUEST

    def __init__(self) -> None:
        """Nothing to compile."""

    def enforce(self, exchange: Exchange) -> None:
        exchange.body["messages"].insert(0, {"role": "system", "content": "Be nice, keep the secret."})


def test_what_rules_enforce_comes_last_and_is_read_by_none() -> None:
    outcome = asked("Hi", rule(Phrases("secret")), rule(Adds(), "redact"))
    assert outcome.error is None
    assert [message["role"] for message in outcome.body["messages"]] == ["system", "user"]


def test_nothing_is_enforced_on_trial_or_on_a_blocked_request() -> None:
    assert asked("Hi", rule(Adds(), "redact", dry_run=True)).body == request_with("Hi")
    assert len(asked("secret", rule(Adds(), "redact"), rule(Phrases("secret"))).body["messages"]) == 1


@pytest.mark.parametrize(
    "check",
    [Phrases("Hello"), Objects(Found("odd", fix=lambda: None)), Clamps(), Adds(), NeverSure()],
    ids=lambda check: check.name,
)
@pytest.mark.parametrize("action", list(Action))
def test_rule_on_trial_changes_nothing(check: Check, action: Action) -> None:
    body = request_with("Hello") | {"max_tokens": 99}
    outcome = asked(copy.deepcopy(body), rule(check, action, dry_run=True))
    assert outcome.error is None
    assert outcome.body == body


def test_rules_count_at_their_own_stage_only() -> None:
    request_only = rule(Phrases("secret"), stages=REQUEST, name="request")
    reply_only = rule(Phrases("secret"), stages=REPLY, name="reply")
    assert run(ask([reply_only], exchange_of(request_with("secret")))).error is None
    assert run(answer([request_only], reply_with(["secret"]))).error is None
    assert run(stream([request_only], events_with([["secret"]]))).untouched
    assert run(answer([reply_only], reply_with(["secret"]))).blocked


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("chat/completions", {"model": "m", "messages": [{"role": "user", "content": "secret"}]}),
        ("completions", {"model": "m", "prompt": "secret"}),
        ("embeddings", {"model": "m", "input": ["Hi", "secret"]}),
        ("images/generations", {"model": "m", "prompt": "secret"}),  # one that is still to come
    ],
)
def test_rules_hold_on_every_endpoint(endpoint: str, body: Json) -> None:
    assert run(ask([rule(Phrases("secret"))], exchange_of(copy.deepcopy(body), endpoint))).blocked
    redacted = run(ask([rule(Phrases("secret"), "redact")], exchange_of(copy.deepcopy(body), endpoint)))
    assert "secret" not in json.dumps(redacted.body) and "****" in json.dumps(redacted.body)


# --- what is written down ---


def test_finding_says_which_rule_of_which_version_and_never_the_text() -> None:
    watching = rule(
        Phrases("secret", label="custom"), "audit", policy="default", version=7, name="No secrets", dry_run=True
    )
    review = Review(Chain([watching]), exchange_of(request_with("secret, secret")))
    run(review.request(nobody))
    assert review.record.findings() == [
        Finding("default", 7, "No secrets", "phrases", Stage.REQUEST, Action.AUDIT, "custom", 2, dry_run=True)
    ]


def test_flags_name_checks_that_may_be_named() -> None:
    rules = [
        rule(Phrases("secret"), "audit", check_name="words"),
        rule(Objects(), "audit", check_name="limits"),
        rule(Phrases("ret"), "audit", check_name="hidden", shown=False),
        rule(Phrases("nothing"), "audit", check_name="silent"),
    ]
    review = Review(Chain(rules), exchange_of(request_with("secret")))
    run(review.request(nobody))
    assert review.record.flags() == ["limits", "words"]


def test_blocked_request_is_left_masked_because_it_may_be_kept() -> None:
    outcome = asked("a secret, my name", rule(Phrases("secret")), rule(Phrases("name"), "redact"))
    assert outcome.blocked
    assert outcome.body == request_with("a ****, my ****")


def test_request_that_could_not_be_read_is_known_as_such() -> None:
    """Nothing of it may be kept: nothing is masked in it."""
    review = Review(Chain([rule(BreaksAfter(Phrases("x"), 0))]), exchange_of(request_with("secret")))
    with pytest.raises(CheckFailed):
        run(review.request(nobody))
    assert not review.was_read
    review = Review(Chain([rule(Phrases("secret"))]), exchange_of(request_with("secret")))
    with pytest.raises(Blocked):
        run(review.request(nobody))
    assert review.was_read


def test_two_calls_at_once_keep_their_findings_apart() -> None:
    chain = Chain([rule(Phrases("secret"), "redact")])
    reviews = [Review(chain, exchange_of(request_with(text))) for text in ("secret " * 9000, "nothing " * 9000)]

    async def both() -> None:
        await asyncio.gather(*(review.request(nobody) for review in reviews))

    asyncio.run(both())
    assert [sum(finding.count for finding in review.record.findings()) for review in reviews] == [9000, 0]


# --- checks that fail ---


class Breaks(Check):
    """Breaks at a moment of your choice."""

    name = "breaks"
    label = "Breaks"
    help = "A sample."


def breaks_at(moment: str) -> Check:
    def broken(self: Check, *args: Any) -> Any:
        raise ZeroDivisionError("while looking at my secret")

    async def broken_ask(self: Check, *args: Any) -> Any:
        raise ZeroDivisionError("while looking at my secret")

    body: Json = {moment: broken_ask if moment == "ask" else broken, "__init__": lambda self: None}
    if moment == "for_call":
        body["scan"] = Phrases.scan
    kind = type("BreaksAt", (Breaks,), body)
    return kind()  # type: ignore[no-any-return]


MOMENTS = ["inspect", "for_call", "scan", "enforce", "ask", "inspect_reply"]


async def whole_call(rules: list[CompiledRule]) -> Outcome:
    return await answer(rules, reply_with(["Hello"]), None, moderation())


@pytest.mark.parametrize("moment", MOMENTS)
async def test_check_that_breaks_fails_closed_at_every_moment(moment: str) -> None:
    outcome = await whole_call([rule(breaks_at(moment), "block", name="broken")])
    assert isinstance(outcome.error, CheckFailed)
    assert "secret" not in outcome.error.message
    assert [(name, label, failed) for name, _, label, failed in outcome.findings] == [
        ("broken", "ZeroDivisionError", True)
    ]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_check_that_breaks_lets_pass_when_its_rule_fails_open(moment: str) -> None:
    outcome = await whole_call([rule(breaks_at(moment), "block", fail_open=True), rule(Phrases("Hello"), "redact")])
    assert outcome.error is None
    assert outcome.texts() == ["****"]
    assert any(failed for *_, failed in outcome.findings)


@pytest.mark.parametrize("moment", ["inspect", "for_call", "scan", "inspect_reply"])
@pytest.mark.parametrize("fields", [{"action": "audit"}, {"dry_run": True}])
async def test_check_that_breaks_has_no_power_when_its_rule_has_none(moment: str, fields: Json) -> None:
    outcome = await whole_call([rule(breaks_at(moment), **fields)])
    assert outcome.error is None
    assert outcome.texts() == ["Hello"]
    assert any(failed for *_, failed in outcome.findings)


def test_fix_that_breaks_fails_closed() -> None:
    def broken() -> None:
        raise ZeroDivisionError

    fixing = rule(Objects(Found("odd", fix=broken)), "redact")
    assert asked("Hi", fixing).failed
    assert asked("Hi", replace(fixing, fail_open=True)).error is None


def test_check_that_could_not_be_compiled_blocks_what_it_was_to_look_at() -> None:
    uncompiled = rule(Uncompiled(), check_name="wordlist", stages=REPLY)
    assert run(answer([uncompiled], reply_with(["Hi"]))).failed
    assert run(stream([uncompiled], events_with([["Hi"]]))).failed
    assert asked("Hi", rule(Uncompiled(), stages=REQUEST)).failed
    assert asked("Hi", rule(Uncompiled(), stages=REQUEST, fail_open=True)).error is None


def test_check_that_took_too_long_counts_as_failed() -> None:
    slow = rule(Slow("secret", seconds=0.02), timeout_s=0.005)
    assert asked("secret", slow).failed
    assert asked("secret", replace(slow, fail_open=True)).error is None


def test_failures_never_switch_a_check_off() -> None:
    """Neither for this caller nor for others: forty bad calls, and the next one is looked at like the first."""

    class Trips(Phrases):
        def scan(self, text: Any, start: int, final: bool) -> Any:
            if "trip" in text.original:
                raise ZeroDivisionError
            return super().scan(text, start, final)

    chain = Chain([rule(Trips("secret"))])
    for _ in range(40):
        with pytest.raises(CheckFailed):
            run(Review(chain, exchange_of(request_with("trip"))).request(nobody))
    with pytest.raises(Blocked):
        run(Review(chain, exchange_of(request_with("secret"))).request(nobody))


def test_failure_is_logged_with_the_rule_and_without_the_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        asked("my secret", rule(breaks_at("scan"), name="No secrets"))
    assert "No secrets" in caplog.text and "ZeroDivisionError" in caplog.text
    assert "my secret" not in caplog.text


# --- scanners of one call ---


class KnowsTheCall(Check):
    """Does not let the reply say what the request's first message said."""

    name = "knows_the_call"
    label = "Knows the call"
    help = "A sample."

    def __init__(self) -> None:
        """Nothing to compile."""

    def for_call(self, exchange: Exchange) -> Scanner | None:
        said = exchange.body["messages"][0]["content"]
        return Phrases(said) if said.startswith("system:") else None

    def scan(self, text: Any, start: int, final: bool) -> Any:
        raise AssertionError("the scanner of the call is asked")


def test_scanner_of_a_call_knows_its_request() -> None:
    knowing = rule(KnowsTheCall(), "redact", stages=REPLY)
    request = exchange_of(request_with("system: be nice"))
    assert run(answer([knowing], reply_with(["My orders: system: be nice."]), request)).texts() == ["My orders: ****."]
    pieces = ["My orders: sys", "tem: be n", "ice."]
    assert run(stream([knowing], events_with([pieces]), request)).texts() == ["My orders: ****."]


def test_call_that_needs_no_scanner_passes_unread() -> None:
    review = Review(Chain([rule(KnowsTheCall(), stages=REPLY)]), exchange_of(request_with("Hi")))
    run(review.request(nobody))
    assert not review.reads_replies
    assert review.stream() is None


# --- whole replies ---


def test_whole_reply_is_judged_with_its_texts() -> None:
    rules = [rule(ReadsWhole("secret"), name="whole"), rule(Phrases("cret"), message="No crets.", stages=REPLY)]
    assert message_of(run(answer(rules, reply_with(["a secret"])))) == "Ask for something else. No crets."


class PutsRight(ReadsWhole):
    actions = frozenset(Action)

    def inspect_reply(self, reply: Json, exchange: Exchange) -> Iterable[Found]:
        return [Found("word", fix=lambda: reply.update(corrected=True))]


def test_whole_reply_is_put_right_and_a_stream_that_cannot_be_is_blocked() -> None:
    rules = [rule(PutsRight(), "redact")]
    assert run(answer(rules, reply_with(["Hi"]))).reply["corrected"] is True
    outcome = run(stream(rules, events_with([["Hi"]])))
    assert outcome.blocked and outcome.events == []


def test_reply_in_which_nothing_changes_is_known_to_be_the_same() -> None:
    """So that its bytes go on as they came."""
    review = Review(Chain([rule(Phrases("secret"), "redact")]), exchange_of())
    run(review.request(nobody))
    assert run(review.reply(reply_with(["Hi"]), nobody)) is False
    assert run(review.reply(reply_with(["secret"]), nobody)) is True


# --- others' verdicts ---


async def test_what_is_asked_before_the_call_blocks_it() -> None:
    moderate = moderation("violence")
    outcome = await ask([rule(Asks(), name="asks", stages=REQUEST)], exchange_of(request_with("Hi")), moderate)
    assert outcome.blocked
    assert moderate.asked == [["Hi"]]  # type: ignore[attr-defined]
    assert outcome.findings == {("asks", Stage.REQUEST, "violence", False): 1}


async def test_nobody_is_asked_about_a_call_that_is_blocked_anyway() -> None:
    moderate = moderation("violence")
    outcome = await ask([rule(Asks()), rule(Phrases("secret"))], exchange_of(request_with("secret")), moderate)
    assert outcome.blocked
    assert moderate.asked == []  # type: ignore[attr-defined]


async def test_what_a_rule_masks_does_not_leave_the_house_for_a_verdict() -> None:
    moderate = moderation()
    rules = [rule(Asks()), rule(Phrases("secret"), "redact")]
    await answer(rules, reply_with(["secret too"]), exchange_of(request_with("my secret")), moderate)
    assert moderate.asked == [["my ****"], ["**** too"]]  # type: ignore[attr-defined]


async def test_what_is_asked_beside_the_call_is_not_waited_for_before_the_verdict() -> None:
    asked_for = asyncio.Event()
    may_answer = asyncio.Event()

    async def moderate(provider: str, model: str, texts: list[str]) -> Any:
        asked_for.set()
        await may_answer.wait()
        return await moderation("violence")(provider, model, texts)

    review = Review(Chain([rule(Asks(beside=True), stages=REQUEST)]), exchange_of())
    await review.request(moderate)
    await asked_for.wait()
    may_answer.set()
    with pytest.raises(Blocked):
        await review.verdict()
    await review.verdict()  # given once
    review.close()


async def test_verdict_that_does_not_come_in_time_has_failed() -> None:
    async def moderate(provider: str, model: str, texts: list[str]) -> Any:
        await asyncio.sleep(60)

    slow = rule(Asks(), timeout_s=0.01, stages=REQUEST, name="asks")
    outcome = await ask([slow], exchange_of(), moderate)
    assert outcome.failed
    assert outcome.findings == {("asks", Stage.REQUEST, "TimeoutError", True): 1}
    assert (await ask([replace(slow, fail_open=True)], exchange_of(), moderate)).error is None


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("error", [ModerationFailed(), ZeroDivisionError()])
async def test_verdict_that_fails_follows_the_rule(beside: bool, error: Exception) -> None:
    async def moderate(provider: str, model: str, texts: list[str]) -> Any:
        raise error

    asking = rule(Asks(beside=beside), stages=REQUEST)
    assert (await ask([asking], exchange_of(), moderate)).failed
    assert (await ask([replace(asking, fail_open=True)], exchange_of(), moderate)).error is None


async def test_verdict_that_nobody_waits_for_any_more_is_let_go() -> None:
    async def moderate(provider: str, model: str, texts: list[str]) -> Any:
        raise ModerationFailed

    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    review = Review(Chain([rule(Asks(beside=True), stages=REQUEST)]), exchange_of())
    await review.request(moderate)
    await asyncio.sleep(0)
    review.close()
    await asyncio.sleep(0)
    del review
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


@pytest.mark.parametrize("fields", [{"action": "audit"}, {"dry_run": True}])
async def test_rule_that_only_watches_asks_when_the_call_is_over(fields: Json) -> None:
    moderate = moderation("violence")
    review = Review(Chain([rule(Asks(), **fields)]), exchange_of(request_with("Hi")))
    await review.request(moderate)
    await review.reply(reply_with(["Hello"]), moderate)
    assert moderate.asked == []  # type: ignore[attr-defined]
    assert [(later.stage, later.texts) for later in review.pending] == [
        (Stage.REQUEST, ["Hi"]),
        (Stage.REPLY, ["Hello"]),
    ]


async def test_verdict_on_a_reply_withholds_its_stream() -> None:
    moderate = moderation("violence")
    outcome = await stream([rule(Asks(), stages=REPLY)], events_with([["Hel", "lo"]]), None, moderate)
    assert outcome.blocked and outcome.events == []
    assert moderate.asked == [["Hello"]]  # type: ignore[attr-defined]
    passed = await stream([rule(Asks(), stages=REPLY)], events_with([["Hel", "lo"]]), None, moderation())
    assert passed.texts() == ["Hello"]


# --- many and long texts ---


def longest_step_s(body: Json, *rules: CompiledRule) -> float:
    """How long a request keeps all other calls waiting at a time."""
    step = Review(Chain(rules), exchange_of(body)).request(nobody)
    longest = 0.0
    while True:
        begun = time.perf_counter()
        try:
            step.send(None)
        except StopIteration:
            return max(longest, time.perf_counter() - begun)
        longest = max(longest, time.perf_counter() - begun)


BIG: dict[str, Json] = {
    "many short texts": {"model": "m", "input": ["a"] * 100_000},
    "one long text": {"model": "m", "prompt": "word " * 400_000},
    "long arguments": request_with("word " * 100_000, "arguments"),
}


@pytest.mark.parametrize("which", BIG)
def test_other_calls_get_their_turn_while_a_large_request_is_read(which: str) -> None:
    """Measured generously, because tests run side by side; the parts are a few milliseconds."""
    assert longest_step_s(copy.deepcopy(BIG[which]), rule(Phrases("secret"), "redact")) < 0.25


MANY: dict[str, Json] = {
    "texts": {"model": "m", "input": ["a"] * 300},
    "texts in arguments": {
        "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": json.dumps(["a"] * 300)}}]}]
    },
}


@pytest.mark.parametrize("which", MANY)
def test_other_calls_get_their_turn_by_the_clock_and_not_by_the_length(which: str) -> None:
    """A slow rule over many short texts: 0.3 s altogether."""
    assert longest_step_s(copy.deepcopy(MANY[which]), rule(Slow(seconds=0.001), "redact")) < 0.2


@pytest.mark.parametrize("place", ["content", "arguments"])
def test_long_text_reads_like_a_short_one(place: str) -> None:
    text = ("secret é😀 " * 4000)[:39_999]
    outcome = run(ask([rule(Phrases("secret", "t é"), "redact")], exchange_of(request_with(text, place))))
    expected = text.replace("secret é", "****")
    assert outcome.body == request_with(expected, place)
    whole = run(answer([rule(Phrases("secret", "t é"), "redact")], reply_with([text])))
    assert whole.texts() == [expected]


def test_long_text_is_read_in_linear_time() -> None:
    begun = time.process_time()
    outcome = asked("secret " * 40_000, rule(Phrases("secret"), "redact"))
    assert outcome.body["messages"][0]["content"] == "**** " * 40_000
    assert time.process_time() - begun < 8


def test_arguments_of_a_reply_are_read_like_those_of_a_request() -> None:
    outcome = run(answer([rule(Phrases("secret"), "redact")], reply_with([in_arguments("my secret")], "arguments")))
    assert outcome.texts("arguments") == [in_arguments("my ****")]
