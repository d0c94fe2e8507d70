from __future__ import annotations

import pytest

from usage.display import duration, nearly_all_within, price, share, usd


@pytest.mark.parametrize(
    ("nano", "words"),
    [
        (0, "$0.00"),
        (12_346_000_000, "$12.35"),
        (1_234_567_000_000_000, "$1,234,567.00"),
        (500_000_000, "$0.50"),
        (412_345, "$0.000412"),
        (1, "$0.000000001"),
    ],
)
def test_amount_has_the_digits_that_say_something(nano: int, words: str) -> None:
    assert usd(nano) == words


@pytest.mark.parametrize(
    ("nano", "words"),
    [(0, "$0.00"), (150_000_000, "$0.15"), (37_500_000, "$0.0375"), (10_000_000_000, "$10.00"), (1, "$0.000000001")],
)
def test_price_loses_no_digit(nano: int, words: str) -> None:
    assert price(nano) == words


@pytest.mark.parametrize(("us", "words"), [(None, "-"), (900, "1 ms"), (999_000, "999 ms"), (1_500_000, "1.5 s")])
def test_duration_is_short(us: int | None, words: str) -> None:
    assert duration(us) == words


def test_no_line_of_a_percentile_ends_between_a_number_and_its_unit() -> None:
    assert nearly_all_within(38_700_000).split(" ") == ["95\u00a0%", "within", "38.7\u00a0s"]


@pytest.mark.parametrize(
    ("part", "whole", "words"), [(0, 0, "0 %"), (0, 9, "0 %"), (1, 2, "50 %"), (1, 50, "2.0 %"), (1, 10**6, "0.1 %")]
)
def test_small_share_is_not_rounded_to_nothing(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words
