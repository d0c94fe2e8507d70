"""Which routes are tried, and in which order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from proxy.router import candidates
from proxy.snapshot import Candidate, ModelEntry
from proxy.tests.recorded import target_of


@pytest.fixture(autouse=True)
def same_dice() -> Iterator[None]:
    state = random.getstate()
    random.seed(4711)
    yield
    random.setstate(state)


def route(name: str, weight: int = 1, kind: str = "openai") -> Candidate:
    return Candidate(target_of(kind, provider=name, weight=weight), None)


def model(*tiers: list[Candidate]) -> ModelEntry:
    return ModelEntry("m", tuple(map(tuple, tiers)), time_budget_s=600, created=0, context_window=None)


def order(entry: ModelEntry, endpoint: str = "chat/completions") -> list[str]:
    return [candidate.target.provider for candidate in candidates(entry, endpoint)]


def first_ones(entry: ModelEntry, calls: int) -> Counter[str]:
    return Counter(order(entry)[0] for _ in range(calls))


def test_routes_are_tried_in_order() -> None:
    assert order(model([route("a")], [route("b")], [route("c")])) == ["a", "b", "c"]


def test_routes_of_one_order_come_before_those_of_the_next() -> None:
    entry = model([route("a"), route("b")], [route("c"), route("d")])
    for _ in range(50):
        tried = order(entry)
        assert (set(tried[:2]), set(tried[2:])) == ({"a", "b"}, {"c", "d"})


def test_calls_are_shared_by_weight() -> None:
    shares = first_ones(model([route("a", 1), route("b", 3), route("c", 6)]), 10_000)
    assert shares["a"] / 10_000 == pytest.approx(0.1, abs=0.02)
    assert shares["b"] / 10_000 == pytest.approx(0.3, abs=0.02)
    assert shares["c"] / 10_000 == pytest.approx(0.6, abs=0.02)


def test_calls_of_a_route_that_fails_are_shared_by_weight_too() -> None:
    entry = model([route("a", 8), route("b", 1), route("c", 1)])
    seconds = Counter(tried[1] for tried in (order(entry) for _ in range(10_000)) if tried[0] == "a")
    assert seconds["b"] / seconds.total() == pytest.approx(0.5, abs=0.03)


def test_largest_weights_are_still_told_apart() -> None:
    shares = first_ones(model([route("a", 65_535), route("b", 21_845)]), 4_000)
    assert shares["a"] / 4_000 == pytest.approx(0.75, abs=0.03)


def test_weight_of_zero_is_for_when_the_others_fail() -> None:
    entry = model([route("spare", 0), route("a", 1), route("b", 1)])
    assert all(order(entry)[-1] == "spare" for _ in range(200))


def test_routes_that_all_have_no_weight_share_alike() -> None:
    shares = first_ones(model([route("a", 0), route("b", 0)]), 4_000)
    assert shares["a"] / 4_000 == pytest.approx(0.5, abs=0.03)


def test_every_route_is_tried_once() -> None:
    entry = model([route("a"), route("b", 0), route("c", 7)], [route("d")])
    assert all(sorted(order(entry)) == ["a", "b", "c", "d"] for _ in range(50))


def test_route_that_cannot_answer_the_endpoint_is_left_out() -> None:
    entry = model([route("claude", kind="anthropic")], [route("claude-2", kind="anthropic"), route("a")])
    assert order(entry, "embeddings") == ["a"]
    assert order(entry)[0] == "claude"


def test_model_without_a_route_for_the_endpoint_has_none_to_try() -> None:
    assert order(model([route("claude", kind="anthropic")]), "embeddings") == []
    assert order(model()) == []


def test_next_route_is_only_chosen_when_it_is_asked_for() -> None:
    chosen = candidates(model([route("a")], [route("b")]), "chat/completions")
    assert next(chosen).target.provider == "a"
    assert next(chosen).target.provider == "b"
    assert next(chosen, None) is None
