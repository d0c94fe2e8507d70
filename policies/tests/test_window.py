"""What a text looks like when several rules have read it, and what of it may go while it still grows."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest

from policies.checks.base import Check
from policies.fold import Folded
from policies.record import Record
from policies.rules import CompiledRule
from policies.tests.tools import (
    REPLY,
    BreaksAfter,
    NeverSure,
    Outcome,
    Phrases,
    Slow,
    answer,
    ask,
    check_holds,
    check_keeps_flowing,
    check_redacts,
    cut,
    events_with,
    exchange_of,
    reply_with,
    request_with,
    rule,
    run,
    stream,
)
from policies.types import Action, Scan, Span, Stage
from policies.window import MAX_HELD_CHARS, WATCHED_AT_ONCE, Reader, TextWindow


def redact(*phrases: str, placeholder: str = "****", **fields: object) -> CompiledRule:
    return rule(Phrases(*phrases, placeholder=placeholder), "redact", **fields)


def whole(text: str, *rules: CompiledRule) -> Outcome:
    """A reply's text as the rules leave it."""
    return run(answer(of_replies(rules), reply_with([text])))


def streamed(pieces: list[str], *rules: CompiledRule) -> Outcome:
    return run(stream(of_replies(rules), events_with([pieces])))


def of_replies(rules: Iterable[CompiledRule]) -> list[CompiledRule]:
    return [replace(one, stages=REPLY) for one in rules]


class WholeWord(NeverSure):
    """Finds "secret" where it is a word of its own: one character before it counts, and one behind it."""

    name = "whole_word"
    label = "Whole word"
    help = "A sample."
    left_context = 1

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        said = text.original
        spans = [Span(*match.span()) for match in re.compile(r"(?<!\w)secret(?!\w)").finditer(said, start)]
        if final:
            return Scan(spans, len(said))
        begins = (at for at in range(max(start, len(said) - 6), len(said)) if "secret".startswith(said[at:]))
        return Scan(spans, next(begins, len(said)))


# --- several rules find something at the same place ---

OVERLAPS = [
    ("abc", [("abc", "<1>"), ("b", "<2>")], "<1>"),  # one inside the other
    ("abcd", [("ab", "<1>"), ("bcd", "<2>")], "<2>"),  # the longest wins, over all that both cover
    ("abcd", [("bc", "<1>"), ("ab", "<2>")], "<2>d"),  # as long: what stands first
    ("xaby", [("ab", "<1>"), ("ab", "<2>")], "x<1>y"),  # the very same: the first rule
    ("abc", [("ab", "<1>"), ("c", "<2>")], "<1><2>"),  # they only touch
    ("abcde", [("ab", "<1>"), ("bcd", "<2>"), ("de", "<3>")], "<2>"),  # a chain
    ("abab", [("ab", "<1>")], "<1><1>"),
    ("ababa", [("aba", "<1>")], "<1>"),  # with itself
]


@pytest.mark.parametrize(("text", "rules", "expected"), OVERLAPS)
def test_what_overlapping_matches_cover_becomes_one_mask(
    text: str, rules: list[tuple[str, str]], expected: str
) -> None:
    compiled = [redact(phrase, placeholder=placeholder, name=placeholder) for phrase, placeholder in rules]
    assert whole(text, *compiled).texts() == [expected]
    assert streamed(cut(text, 1), *compiled).texts() == [expected]
    check_holds(compiled, text)


def test_where_two_matches_are_as_long_the_blocking_rule_masks() -> None:
    """What is kept of a blocked request is kept masked."""
    blocking = rule(Phrases("ab", placeholder="<block>"), "block")
    outcome = run(ask([redact("bc", placeholder="<redact>"), blocking], exchange_of(request_with("x abc"))))
    assert outcome.blocked
    assert outcome.body == request_with("x <block>")


def test_every_match_is_counted_for_its_own_rule_and_label() -> None:
    rules = [
        rule(Phrases("aba", label="long"), "redact", name="first"),
        rule(Phrases("b", label="short"), "audit", name="second"),
    ]
    outcome = whole("ababa b", *rules)
    assert outcome.findings == {
        ("first", Stage.REPLY, "long", False): 2,
        ("second", Stage.REPLY, "short", False): 3,
    }


def test_rule_on_trial_never_weakens_another() -> None:
    """Its longer match would otherwise win, and mask nothing."""
    trial = redact("the secret is out", placeholder="<trial>", dry_run=True)
    outcome = whole("so the secret is out now", redact("secret"), trial)
    assert outcome.texts() == ["so the **** is out now"]
    check_holds([redact("secret"), trial], "so the secret is out now")


def test_rules_that_watch_never_weaken_another() -> None:
    watching = rule(Phrases("the secret is out"), "audit")
    check_holds([redact("secret"), watching], "so the secret is out now")
    assert whole("so the secret is out now", redact("secret"), watching).texts() == ["so the **** is out now"]


# --- where matches begin and end ---


def test_offsets_count_characters_of_the_text_as_sent() -> None:
    check_redacts(Phrases("geheim"), "🙂 é 👩‍👩‍👧 geheim ह🙂", "🙂 é 👩‍👩‍👧 **** ह🙂")


def test_half_a_surrogate_pair_is_a_character_like_any_other() -> None:
    check_redacts(Phrases("secret"), "\ud83d secret \ude00", "\ud83d **** \ude00")


def test_what_is_not_redacted_goes_through_as_it_came() -> None:
    text = "  fi ﬁ Ａ é e\u0301 \u202e\u200b\t\r\n\x00 İı ß  "
    assert streamed(cut(text, 1), redact("secret")).texts() == [text]
    assert whole(text, redact("secret")).texts() == [text]


def test_left_context_is_kept_when_text_has_gone() -> None:
    check_holds(WholeWord(), "a secret, nosecret, secrets; secret")
    assert whole("nosecret secret", rule(WholeWord(), "redact")).texts() == ["nosecret ****"]


class Misplaced(Phrases):
    """Says that its matches are somewhere else."""

    def __init__(self, *phrases: str, before: int, after: int) -> None:
        super().__init__(*phrases)
        self._by = before, after

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        spans, safe = super().scan(text, start, final)
        return Scan([Span(span.start + self._by[0], span.end + self._by[1]) for span in spans], safe)


def test_span_beyond_the_text_ends_with_it() -> None:
    misplaced = rule(Misplaced("secret", before=0, after=9), "redact")
    assert whole("a secret ab", misplaced).texts() == ["a ****"]
    assert streamed(cut("a secret ab", 1), misplaced).texts() == ["a ****"]


def test_empty_span_is_nothing_found() -> None:
    misplaced = rule(Misplaced("secret", before=0, after=-6), "block")
    assert whole("a secret ab", misplaced).texts() == ["a secret ab"]
    assert streamed(cut("a secret ab", 1), misplaced).texts() == ["a secret ab"]


# --- what is held back ---


def test_text_that_cannot_begin_a_match_goes_at_once() -> None:
    check_keeps_flowing(Phrases("secret"), "the quick brown fox went by", at_most=0)
    check_keeps_flowing(Phrases("secret"), "she sees seas, sec by sec", at_most=3)


def test_what_may_become_a_match_waits() -> None:
    window = TextWindow([Reader(redact("secret"), Phrases("secret"))], Record(), Stage.REPLY)
    assert [window.feed(piece) for piece in ("a s", "ec", "r", "et s", "o")] == ["a ", "", "", "**** ", "so"]
    assert window.feed("", True) == ""


def test_what_is_held_at_the_end_is_not_lost() -> None:
    window = TextWindow([Reader(redact("secret"), Phrases("secret"))], Record(), Stage.REPLY)
    assert window.feed("a secre") == "a "
    assert window.feed("", True) == "secre"


def test_the_least_sure_rule_decides_what_goes() -> None:
    window = TextWindow(
        [Reader(one, one.check) for one in (redact("secret"), redact("a secretary"))], Record(), Stage.REPLY
    )
    assert [window.feed(piece) for piece in ("say a secret", "ive", "!")] == ["say ", "a ****ive", "!"]


def test_match_waits_for_what_overlaps_it() -> None:
    """Else the first half of a cluster would be masked by another rule than the whole text's."""
    rules = [redact("ab", placeholder="<1>"), redact("bcdef", placeholder="<2>")]
    assert streamed(["xab", "cde", "fy"], *rules).texts() == ["x<2>y"]


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_rule_that_is_never_sure_fails_when_too_much_is_held(size: int) -> None:
    text = "y" * (MAX_HELD_CHARS + 1000)
    outcome = streamed(cut(text, size), rule(NeverSure(), "redact", name="never"))
    assert outcome.failed
    assert outcome.texts() in ([""], [])
    assert outcome.findings == {("never", Stage.REPLY, "held too long", True): 1}


def test_up_to_the_cap_it_is_only_slow() -> None:
    text = "y" * MAX_HELD_CHARS
    outcome = streamed(cut(text, 64), rule(NeverSure(), "redact"))
    assert outcome.error is None
    assert outcome.texts() == [text]


def test_rule_that_is_never_sure_and_fails_open_lets_all_pass() -> None:
    text = "y" * (MAX_HELD_CHARS + 1000) + " secret " + "z" * 100
    outcome = streamed(cut(text, 50), rule(NeverSure(), "redact", name="never", fail_open=True), redact("secret"))
    assert outcome.error is None
    assert outcome.texts() == [text.replace("secret", "****")]
    assert outcome.findings[("never", Stage.REPLY, "held too long", True)] == 1


def test_whether_too_much_is_held_does_not_depend_on_the_pieces() -> None:
    class FarBehind(NeverSure):
        def scan(self, text: Folded, start: int, final: bool) -> Scan:
            size = len(text.original)
            return Scan((), size if final else max(start, size - MAX_HELD_CHARS - 1))

    outcomes = [streamed(cut("y" * 20_000, size), rule(FarBehind(), "redact")) for size in (100, 10_000)]
    assert [outcome.failed for outcome in outcomes] == [True, True]


@pytest.mark.parametrize("size", [70, 1000, 20_000])
def test_cluster_without_end_is_masked_as_one_and_nothing_of_it_leaks(size: int) -> None:
    """It cannot be held to its end. What is out of it is its mask, what follows is dropped until it ends."""
    text = "begin " + "ab" * 2600 + "a end, then ab" + "ab" * 2600 + "a, aba"
    outcome = streamed(cut(text, size), redact("aba"))
    assert outcome.error is None
    assert outcome.texts() == ["begin **** end, then ****, ****"]
    assert outcome.findings == whole(text, redact("aba")).findings


def test_cluster_without_end_stays_masked_where_another_rule_takes_over() -> None:
    text = "ab" * 2100 + "abc" + "d" * 20 + " end"
    rules = [redact("aba"), redact("abc"), redact("cddddd"), redact("dd")]
    assert streamed(cut(text, 60), *rules).texts() == ["**** end"]


def test_chain_of_matches_is_read_in_linear_time() -> None:
    """ "ababab" and a rule that finds "aba": every match overlaps the next."""
    begun = time.process_time()
    outcome = run(ask([redact("aba")], exchange_of(request_with("ab" * 20_000))))
    assert outcome.body == request_with("****b")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("before", range(WATCHED_AT_ONCE - 9, WATCHED_AT_ONCE + 2))
def test_rules_that_watch_a_long_text_find_what_they_find_in_a_short_one(before: int) -> None:
    """They read in large bites; here a word, and one that only ends like it, lie across their edges."""
    watching = [rule(WholeWord(), "audit", name="word"), rule(Phrases("secret"), "audit", name="phrase")]
    text = "y" * before + "secret secret " + "y" * before + " secret"
    outcome = streamed(cut(text, 100), *watching)
    assert outcome.untouched
    assert outcome.findings == whole(text, *watching).findings
    assert sum(outcome.findings.values()) == 2 + 3


# --- checks that break ---


def test_check_that_breaks_fails_closed_and_lets_out_only_what_was_safe() -> None:
    outcome = streamed(["all is well, ", "a sec", "ret"], rule(BreaksAfter(Phrases("secret"), 2), "redact"))
    assert outcome.failed
    assert outcome.texts() == ["all is well, a "]


def test_check_that_breaks_and_fails_open_lets_the_text_pass_and_says_so() -> None:
    breaks = rule(BreaksAfter(Phrases("secret"), 2), "redact", name="broken", fail_open=True)
    outcome = streamed(["a secret, ", "a sec", "ret"], breaks)
    assert outcome.error is None
    assert outcome.texts() == ["a ****, a secret"]
    assert outcome.findings[("broken", Stage.REPLY, "ZeroDivisionError", True)] == 1


def test_check_that_has_failed_is_not_asked_again() -> None:
    check = Slow("secret", seconds=0.05)
    begun = time.perf_counter()
    streamed(cut("y" * 100, 1), rule(check, "redact", fail_open=True, timeout_s=0.001))
    assert time.perf_counter() - begun < 2.5  # a hundred times it would be five seconds


def test_other_rules_go_on_when_one_fails_open() -> None:
    breaks = rule(BreaksAfter(Phrases("nothing"), 1), "redact", fail_open=True)
    assert streamed(cut("my secret is out", 4), breaks, redact("secret")).texts() == ["my **** is out"]


def test_check_that_takes_too_long_has_failed() -> None:
    outcome = streamed(["a secret"], rule(Slow("secret", seconds=0.01), "redact", name="slow", timeout_s=0.001))
    assert outcome.failed
    assert outcome.findings == {("slow", Stage.REPLY, "timeout", True): 1}


@pytest.mark.parametrize("fields", [{"action": Action.AUDIT}, {"dry_run": True}])
@pytest.mark.parametrize(
    "check", [BreaksAfter(Phrases("secret"), 0), Slow(seconds=0.01), NeverSure()], ids=lambda check: check.name
)
def test_rule_without_power_has_none_when_it_fails_either(check: Check, fields: dict[str, object]) -> None:
    weak = replace(rule(check, timeout_s=0.001), **fields)
    text = "a secret " + "y" * 2 * MAX_HELD_CHARS
    for outcome in (whole(text, weak), streamed(cut(text, 500), weak)):
        assert outcome.error is None
        assert outcome.texts() == [text]
    assert streamed(cut(text, 500), weak).untouched


class SaysNothing(Phrases):
    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return None  # type: ignore[return-value]


def test_check_that_says_nothing_has_failed() -> None:
    assert whole("a secret", rule(SaysNothing("secret"), "redact")).failed
    assert streamed(["a secret"], rule(SaysNothing("secret"), "redact")).failed


class CannotMask(Phrases):
    def replacement(self, text: str, label: str) -> str:
        raise ZeroDivisionError


def test_check_that_cannot_say_what_stands_instead_masks_all_the_same() -> None:
    assert whole("a secret", rule(CannotMask("secret"), "redact")).texts() == ["a ****"]
    assert streamed(cut("a secret", 1), rule(CannotMask("secret"), "redact")).texts() == ["a ****"]


def test_failure_is_logged_without_the_text(caplog: pytest.LogCaptureFixture) -> None:
    """The error of the sample quotes what it was reading."""
    with caplog.at_level(logging.DEBUG):
        outcome = streamed(["my secret"], rule(BreaksAfter(Phrases("x"), 0), name="broken"))
    assert outcome.failed and outcome.error is not None
    assert "secret" not in outcome.error.message
    assert "broken" in caplog.text and "ZeroDivisionError" in caplog.text
    assert "my secret" not in caplog.text
