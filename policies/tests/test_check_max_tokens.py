from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.tests.request_checks import (
    CHAT,
    COMPLETIONS,
    chat,
    compiled,
    completion,
    embedding,
    exchange_of,
    found,
    put_right,
    said,
)

OVER = ["over the limit"]


@pytest.mark.parametrize(("asked", "labels"), [(1, []), (99, []), (100, []), (101, OVER), (2**31 - 1, OVER)])
@pytest.mark.parametrize("make", [chat, completion])
def test_call_may_ask_for_as_many_tokens_as_the_limit(make: Any, asked: int, labels: list[str]) -> None:
    assert found(compiled("max_tokens", limit=100), make(max_tokens=asked)) == labels


def test_max_completion_tokens_counts_too() -> None:
    """Usage Panda did not know it."""
    check = compiled("max_tokens", limit=100)
    assert found(check, chat(max_completion_tokens=101)) == OVER
    assert found(check, chat(max_completion_tokens=100)) == []
    strict = compiled("max_tokens", limit=100, missing_counts=True)
    assert found(strict, chat(max_completion_tokens=100)) == []


@pytest.mark.parametrize("fields", [(50, 101), (101, 50)])
def test_of_two_numbers_neither_may_be_over(fields: tuple[int, int]) -> None:
    exchange = chat(max_tokens=fields[0], max_completion_tokens=fields[1])
    assert found(compiled("max_tokens", limit=100), exchange) == OVER


def test_llama_cpp_has_a_field_of_its_own_which_is_no_way_around() -> None:
    check = compiled("max_tokens", limit=100)
    exchange = chat(max_tokens=10, n_predict=5000)
    assert found(check, exchange) == OVER
    assert put_right(check, exchange)["n_predict"] == 100


@pytest.mark.parametrize("absent", [{}, {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": None}])
@pytest.mark.parametrize("make", [chat, completion])
def test_missing_number_counts_only_where_the_rule_says_so(make: Any, absent: dict[str, None]) -> None:
    assert found(compiled("max_tokens", limit=100), make(**absent)) == []
    assert found(compiled("max_tokens", limit=100, missing_counts=True), make(**absent)) == ["missing"]


def test_embeddings_ask_for_no_tokens() -> None:
    assert found(compiled("max_tokens", limit=100, missing_counts=True), embedding()) == []


def test_completion_of_no_tokens_is_within_every_limit() -> None:
    """It scores a prompt."""
    assert found(compiled("max_tokens", limit=1, missing_counts=True), completion(max_tokens=0, echo=True)) == []


def test_limit_of_zero_is_off() -> None:
    check = compiled("max_tokens", limit=0, missing_counts=True)
    assert found(check, chat(max_tokens=10**9)) == []
    assert found(check, chat()) == []


@pytest.mark.parametrize("value", ["5000", "1", [1], {}, -1, 2**80, 1e300])
def test_number_that_is_none_or_stands_for_no_limit_counts_as_over(value: Any) -> None:
    """Completions do not know the field, so it passes the door unread; some servers take "5000" or -1."""
    check = compiled("max_tokens", limit=100)
    exchange = completion(max_tokens=10, max_completion_tokens=value)
    assert found(check, exchange) == OVER
    assert put_right(check, exchange)["max_completion_tokens"] == 100


def test_clamp_lowers_the_fields_that_are_over_and_no_others() -> None:
    check = compiled("max_tokens", limit=100)
    body = put_right(check, chat(max_tokens=5000, temperature=0.5))
    assert body["max_tokens"] == 100
    assert "max_completion_tokens" not in body
    assert body["temperature"] == 0.5
    body = put_right(check, chat(max_tokens=50, max_completion_tokens=5000))
    assert (body["max_tokens"], body["max_completion_tokens"]) == (50, 100)


def test_inspecting_changes_nothing() -> None:
    exchange = chat(max_tokens=5000)
    found(compiled("max_tokens", limit=100), exchange)
    assert exchange.body["max_tokens"] == 5000


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ("gpt-4o-mini", "max_tokens"),
        ("claude-sonnet", "max_tokens"),
        ("deepseek-chat", "max_tokens"),
        ("mistral-large", "max_tokens"),
        ("gpt-oss-120b", "max_tokens"),
        ("gpt-35-turbo", "max_tokens"),
        ("olmo-2", "max_tokens"),
        ("o3", "max_completion_tokens"),
        ("o4-mini", "max_completion_tokens"),
        ("gpt-5", "max_completion_tokens"),
        ("gpt-5.4-mini", "max_completion_tokens"),
        ("openai/GPT-5", "max_completion_tokens"),
    ],
)
def test_clamp_writes_a_missing_limit_into_the_field_that_the_model_takes(model: str, field: str) -> None:
    check = compiled("max_tokens", limit=100, missing_counts=True)
    body = put_right(check, exchange_of(CHAT, {"messages": []}, model=model))
    assert {name: body.get(name) for name in ("max_tokens", "max_completion_tokens")} == {
        "max_tokens": None,
        "max_completion_tokens": None,
        field: 100,
    }


def test_completions_know_only_max_tokens() -> None:
    check = compiled("max_tokens", limit=100, missing_counts=True)
    body = put_right(check, exchange_of(COMPLETIONS, {"prompt": "x"}, model="gpt-5"))
    assert body == {"prompt": "x", "max_tokens": 100}


@pytest.mark.parametrize("limits", [(100, 50), (50, 100)])
@pytest.mark.parametrize("asked", [{}, {"max_tokens": 5000}, {"max_tokens": 70}])
def test_of_two_limits_the_lower_one_holds_in_either_order(limits: tuple[int, int], asked: dict[str, int]) -> None:
    exchange = chat(**asked)
    checks = [compiled("max_tokens", limit=limit, missing_counts=True) for limit in limits]
    # As the engine does it: all look first, and then all is put right.
    fixes = [one.fix for check in checks for one in list(check.inspect(exchange))]
    for fix in fixes:
        assert fix is not None
        fix()
    assert exchange.body["max_tokens"] == 50


def test_caller_is_told_the_limit() -> None:
    check = compiled("max_tokens", limit=1000, missing_counts=True)
    assert said(check, chat(max_tokens=123456)) == "Ask for at most 1000 tokens."
    assert said(check, chat()) == "Ask for at most 1000 tokens. Say so in max_tokens or max_completion_tokens."


@pytest.mark.parametrize("limit", [-1, "many", 2**31, None, 1.5])
def test_limit_is_a_whole_number(limit: Any) -> None:
    with pytest.raises(ValidationError) as error:
        compiled("max_tokens", limit=limit)
    assert set(error.value.message_dict) == {"limit"}
