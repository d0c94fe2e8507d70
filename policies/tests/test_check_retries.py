from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from policies.tests.request_checks import chat, compiled


def test_rule_says_how_often_a_failed_try_is_repeated() -> None:
    exchange = chat()
    compiled("retries", count=3).enforce(exchange)
    assert exchange.retries == 3


@pytest.mark.parametrize("counts", [(1, 4), (4, 1)])
def test_of_several_rules_the_highest_number_counts(counts: tuple[int, int]) -> None:
    exchange = chat()
    for count in counts:
        compiled("retries", count=count).enforce(exchange)
    assert exchange.retries == 4


@pytest.mark.parametrize("count", [-1, 6, "often"])
def test_nobody_repeats_more_than_five_times(count: object) -> None:
    with pytest.raises(ValidationError):
        compiled("retries", count=count)
