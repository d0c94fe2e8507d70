"""Tokens to money, to the nano-dollar."""

from __future__ import annotations

from decimal import Decimal

import pytest

from usage.pricing import Price, TokenUsage, cost, per_mtok, to_nano, to_usd

# 0.15 and 0.60 dollars per million tokens.
MINI = Price(input=150_000_000, output=600_000_000)
CACHING = Price(input=100_000_000, output=200_000_000, cached=10_000_000, cache_write=125_000_000)
AUDIO = Price(input=1_000_000, output=2_000_000, audio_input=40_000_000, audio_output=80_000_000)
LONG = Price(input=4_000_000, output=18_000_000)
TIERED = Price(input=2_000_000, output=12_000_000, tiers=((200_001, LONG),))


def check_cost(price: Price, expected: int, **tokens: int) -> None:
    assert cost(TokenUsage(**tokens), price) == expected


def test_published_price_is_kept_exactly() -> None:
    assert per_mtok(Decimal("0.15")) == 150_000_000
    assert per_mtok(Decimal("0.0833333333333")) == 83_333_333


def test_nano_dollars_become_dollars_and_back() -> None:
    assert to_usd(1_500_000_000) == Decimal("1.5")
    assert to_nano(Decimal("0.0000000015")) == 2


def test_prompt_and_completion_have_their_own_price() -> None:
    check_cost(MINI, 1000 * 150 + 500 * 600, prompt=1000, completion=500)


def test_call_without_tokens_is_free() -> None:
    check_cost(MINI, 0)


def test_cost_is_rounded_half_up_once() -> None:
    half = Price(input=500_000, output=0)
    check_cost(half, 1, prompt=1)
    check_cost(half, 1, prompt=2)
    check_cost(half, 2, prompt=3)
    # Rounded one by one, prompt and completion would make two.
    check_cost(Price(input=500_000, output=500_000), 1, prompt=1, completion=1)


def test_short_embedding_does_not_cost_nothing() -> None:
    check_cost(Price(input=20_000_000, output=0), 60, prompt=3)


def test_huge_call_is_exact() -> None:
    check_cost(MINI, 150 * 10**15 + 600 * 10**15, prompt=10**15, completion=10**15)


def test_cached_and_written_tokens_have_their_own_price_and_are_not_billed_as_prompt() -> None:
    check_cost(CACHING, 200 * 100 + 700 * 10 + 100 * 125, prompt=1000, cached=700, cache_write=100)


def test_cached_tokens_without_a_price_cost_as_much_as_input() -> None:
    check_cost(MINI, 1000 * 150, prompt=1000, cached=400, cache_write=200)


def test_more_cached_tokens_than_prompt_tokens_never_make_a_call_cheaper_than_they_cost() -> None:
    check_cost(CACHING, 900 * 10, prompt=500, cached=900)


def test_audio_tokens_have_their_own_price() -> None:
    check_cost(
        AUDIO, 60 * 1 + 40 * 40 + 5 * 2 + 15 * 80, prompt=100, audio_prompt=40, completion=20, audio_completion=15
    )


def test_audio_without_a_price_costs_as_much_as_text() -> None:
    check_cost(MINI, 100 * 150 + 20 * 600, prompt=100, audio_prompt=40, completion=20, audio_completion=15)


def test_more_audio_than_completion_is_taken_as_all_audio() -> None:
    check_cost(AUDIO, 10 * 80, completion=10, audio_completion=99)


def test_reasoning_is_part_of_the_completion() -> None:
    check_cost(MINI, 500 * 600, completion=500, reasoning=400)


@pytest.mark.parametrize(("prompt", "expected"), [(200_000, 200_000 * 2 + 12), (200_001, 200_001 * 4 + 18)])
def test_long_prompt_makes_every_token_dearer(prompt: int, expected: int) -> None:
    check_cost(TIERED, expected, prompt=prompt, completion=1)


def test_tier_is_chosen_by_the_whole_prompt_cached_tokens_included() -> None:
    check_cost(TIERED, 300_000 * 4, prompt=300_000, cached=250_000)


def test_highest_tier_reached_counts() -> None:
    price = Price(1_000_000, 0, tiers=((1000, Price(3_000_000, 0)), (100, Price(2_000_000, 0))))
    check_cost(price, 99, prompt=99)
    check_cost(price, 200, prompt=100)
    check_cost(price, 3000, prompt=1000)


def test_fee_per_request_is_added_to_a_call_that_used_tokens_only() -> None:
    price = Price(input=1_000_000, output=1_000_000, request=12_000_000)
    check_cost(price, 12_000_010, prompt=10)
    check_cost(price, 0)
