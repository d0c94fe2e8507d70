"""The soak says "no difference" only when there is none."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from benchmarks import soak, soak_books
from benchmarks.soak_load import CALM, UNANSWERED, Kind, Load, Seen
from gateway_project.tests.upstream import Call

OK = {"status": 200, "error_code": "", "estimated": False, "prompt_tokens": 3, "completion_tokens": 5}
LEFT = {"status": 499, "error_code": "client_left", "estimated": True, "completion_tokens": 1}
DIED = {"status": 0, "error_code": "gateway_died", "estimated": True, "completion_tokens": 0}


def event(request_id: str, **changed: Any) -> dict[str, Any]:
    return {**OK, "request_id": request_id, "attempts": 1, "cost_nano_usd": 5, "key_label": "alice (x)", **changed}


def heard(*request_ids: str) -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = {}
    for number, request_id in enumerate(request_ids):
        call = Call(number, 1, "POST", "/v1", [], orjson.dumps({"user": request_id}), "gpt", "ok")
        call.prompt_tokens, call.completion_tokens = 3, 5
        calls.setdefault(request_id, []).append(call)
    return calls


def load(kind: Kind = Kind.WHOLE, phases: tuple[str, str] = (CALM, CALM), **statuses: int) -> Load:
    made = Load(1)
    made.asked.update({request_id: Seen(kind, status, phases) for request_id, status in statuses.items()})
    return made


def test_books_that_agree_have_no_difference() -> None:
    asked = load(a=200, b=200, refused=429, cut=UNANSWERED)
    events = [
        event("a"),
        event("b"),
        event("refused", status=429, error_code="insufficient_quota"),
        event("cut", **DIED),
    ]
    assert soak_books.differences(heard("a", "b", "cut"), events, asked) == []
    assert any("16 tokens" in fact for fact in asked.facts)


@pytest.mark.parametrize(
    ("calls", "events", "words"),
    [
        (["a", "a"], [event("a")], "made twice"),
        (["a"], [event("a"), event("a")], "booked twice"),
        (["a"], [], "not booked"),
        ([], [event("a")], "answered and not heard"),
        (["a"], [event("a"), event("b")], "asked by nobody"),
        (["a"], [event("a", completion_tokens=4)], "with other tokens"),
        (["a"], [event("a", estimated=True)], "estimated without need"),
    ],
    ids=["made twice", "booked twice", "missing", "not heard", "foreign", "tokens", "estimate"],
)
def test_every_difference_is_found(calls: list[str], events: list[dict[str, Any]], words: str) -> None:
    assert any(words in line for line in soak_books.differences(heard(*calls), events, load(a=200)))


def test_call_that_was_cut_short_may_be_an_estimate() -> None:
    assert soak_books.differences(heard("a"), [event("a", **LEFT)], load(Kind.LEAVES, a=200)) == []
    assert soak_books.differences(heard("a"), [event("a", **DIED)], load(a=UNANSWERED)) == []


@pytest.mark.parametrize(
    ("kind", "status", "phase", "is_expected"),
    [
        (Kind.WHOLE, UNANSWERED, "a worker dies", True),
        (Kind.WHOLE, UNANSWERED, "without PostgreSQL", False),
        (Kind.WHOLE, 503, "without PostgreSQL", False),
        (Kind.WHOLE, 503, "without Redis", False),
        (Kind.BUDGETED, 503, "without Redis", True),
        (Kind.BUDGETED, 503, CALM, False),
        (Kind.SPENDS, 429, CALM, True),
        (Kind.BUDGETED, 429, CALM, False),
    ],
)
def test_calls_may_fail_only_of_what_is_the_matter(kind: Kind, status: int, phase: str, is_expected: bool) -> None:
    assert (soak_books.unexpected(load(kind, (phase, phase), a=status)) == []) is is_expected


def test_memory_that_grows_is_a_difference() -> None:
    flat = [(float(number), 100 + number % 3) for number in range(50)]
    assert soak.memory_differences(flat) == []
    assert soak.memory_differences([(at, int(100 + at)) for at, _ in flat])
