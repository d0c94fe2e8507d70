"""A text in which the rules found nothing is not read again; everything else is, each time."""

from __future__ import annotations

from typing import Any

import pytest

from policies.checks.base import Check
from policies.clean_texts import KEPT, CleanTexts, digest_of
from policies.engine import Chain, Review
from policies.errors import Blocked
from policies.fold import Folded
from policies.tests.tools import Phrases, exchange_of, nobody, request_with, rule, run
from policies.types import Action, Scan

SAID = "Say hello to the nice people."


class Counting(Phrases):
    """`read`: what it was given to read. `fails`: it breaks at its first look."""

    def __init__(self, *phrases: str, fails: bool = False) -> None:
        super().__init__(*phrases)
        self.read: list[str] = []
        self._fails = fails

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        self.read.append(text.original)
        if self._fails and len(self.read) == 1:
            raise ValueError
        return super().scan(text, start, final)


def ask(chain: Chain, text: str = SAID) -> tuple[str, list[str]]:
    """(the text as it is sent, names of the rules that found something)"""
    exchange = exchange_of(request_with(text))
    review = Review(chain, exchange)
    run(review.request(nobody))
    return exchange.body["messages"][-1]["content"], [found.rule for found in review.record.findings()]


def chain_of(check: Check, action: Action = Action.REDACT, **fields: Any) -> Chain:
    return Chain([rule(check, action, name="it", **fields)])


def test_same_text_is_read_once() -> None:
    check = Counting("secret")
    chain = chain_of(check)
    ask(chain)
    ask(chain)
    assert check.read.count(SAID) == 1


def test_other_text_is_read() -> None:
    check = Counting("secret")
    chain = chain_of(check)
    ask(chain)
    assert ask(chain, SAID + " secret")[0] == SAID + " ****"


def test_text_that_is_redacted_is_redacted_each_time() -> None:
    chain = chain_of(Counting("nice"))
    assert [ask(chain)[0] for _ in range(3)] == ["Say hello to the **** people."] * 3


def test_text_that_is_blocked_is_blocked_each_time() -> None:
    chain = chain_of(Counting("nice"), Action.BLOCK)
    for _ in range(3):
        with pytest.raises(Blocked):
            ask(chain)


@pytest.mark.parametrize("how", [{"action": Action.AUDIT}, {"dry_run": True}])
def test_what_is_only_noted_is_noted_each_time(how: dict[str, Any]) -> None:
    chain = chain_of(Counting("nice"), **how)
    assert [ask(chain)[1] for _ in range(3)] == [["it"]] * 3


def test_text_that_a_failed_check_has_not_read_is_read_the_next_time() -> None:
    chain = chain_of(Counting("nice", fails=True), fail_open=True)
    assert ask(chain)[0] == SAID
    assert ask(chain)[0] == "Say hello to the **** people."


def test_texts_after_a_failure_are_read_the_next_time() -> None:
    """The rule that failed open says nothing more in that call, so these it has not read."""
    chain = chain_of(Counting("nice", fails=True), fail_open=True)
    body = request_with(SAID)
    body["messages"].insert(0, {"role": "system", "content": "You are brief."})
    exchange = exchange_of(body)
    run(Review(chain, exchange).request(nobody))
    assert ask(chain)[0] == "Say hello to the **** people."


def test_other_rules_read_it_again() -> None:
    ask(chain_of(Counting("secret")))
    assert ask(chain_of(Counting("nice")))[0] == "Say hello to the **** people."


def test_long_text_is_read_once() -> None:
    check = Counting("secret")
    chain = chain_of(check)
    ask(chain, SAID * 2_000)
    pieces = len(check.read)
    ask(chain, SAID * 2_000)
    assert len(check.read) - pieces < 5  # the short ones beside it, not its slices


def test_as_many_are_kept_as_are_said_to_be() -> None:
    texts = CleanTexts(kept=10)
    digests = [digest_of(str(number)) for number in range(1_000)]
    for digest in digests:
        texts.add(digest)
    known = [digest for digest in reversed(digests) if texts.has(digest)]
    assert known[:10] == digests[:-11:-1]
    assert len(known) <= 20


def test_text_that_comes_again_and_again_stays() -> None:
    texts = CleanTexts(kept=10)
    prompt = digest_of("You are brief.")
    texts.add(prompt)
    for number in range(1_000):
        texts.add(digest_of(str(number)))
        assert texts.has(prompt)


def test_nothing_of_the_text_is_kept() -> None:
    assert len(digest_of(SAID * KEPT)) == 16
    assert digest_of("half a character: \ud83d") != digest_of("half a character: ")
