"""Tokens to money, to the nano-dollar."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.pricing import (
    Price,
    TokenUsage,
    cost,
    cost_at_most,
    event_columns,
    per_mtok,
    to_nano,
    to_usd,
    usage_of_event,
)
from usage.services import EVENT_COLUMNS

# 0.15 and 0.60 dollars per million tokens.
MINI = Price(input=150_000_000, output=600_000_000)
CACHING = Price(input=100_000_000, output=200_000_000, cached=10_000_000, cache_write=125_000_000)
AUDIO = Price(input=1_000_000, output=2_000_000, audio_input=40_000_000, audio_output=80_000_000)
LONG = Price(input=4_000_000, output=18_000_000)
TIERED = Price(input=2_000_000, output=12_000_000, tiers=((200_001, LONG),))


def check_cost(price: Price, expected: int, units: dict[str, int] | None = None, **tokens: int) -> None:
    assert cost(TokenUsage(**tokens, units=units or {}), price) == expected


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
    units = {"audio_prompt": 40, "audio_completion": 15}
    check_cost(AUDIO, 60 * 1 + 40 * 40 + 5 * 2 + 15 * 80, units, prompt=100, completion=20)


def test_audio_without_a_price_costs_as_much_as_text() -> None:
    check_cost(MINI, 100 * 150 + 20 * 600, {"audio_prompt": 40, "audio_completion": 15}, prompt=100, completion=20)


def test_more_audio_than_completion_is_taken_as_all_audio() -> None:
    check_cost(AUDIO, 10 * 80, {"audio_completion": 99}, completion=10)


def test_reasoning_is_part_of_the_completion() -> None:
    check_cost(MINI, 500 * 600, completion=500, reasoning=400)


def test_reasoning_has_its_own_price_where_there_is_one() -> None:
    check_cost(replace(MINI, reasoning=100_000_000), 100 * 600 + 400 * 100, completion=500, reasoning=400)
    check_cost(replace(MINI, reasoning=100_000_000), 5 * 100, completion=5, reasoning=400)


def test_tokens_cached_for_an_hour_have_their_own_price_and_else_that_of_five_minutes() -> None:
    units = {"cache_write_1h": 40}
    check_cost(CACHING, 100 * 125, units, prompt=100, cache_write=100)
    check_cost(replace(CACHING, cache_write_1h=200_000_000), 60 * 125 + 40 * 200, units, prompt=100, cache_write=100)


def test_cached_audio_is_charged_once_as_cached() -> None:
    price = replace(AUDIO, cached=500_000)
    check_cost(price, round(80 * 0.5) + 20 * 40, {"audio_prompt": 60}, prompt=100, cached=80)


def test_image_tokens_have_their_own_price() -> None:
    price = replace(MINI, image_input=10_000_000, image_output=40_000_000)
    units = {"image_prompt": 30, "image_completion": 20}
    check_cost(price, 70 * 150 + 30 * 10 + 30 * 600 + 20 * 40, units, prompt=100, completion=50)


def test_pictures_are_billed_by_the_piece_on_top_of_their_tokens() -> None:
    check_cost(replace(MINI, image=40_000_000), 10 * 150 + 3 * 40_000_000, {"images": 3}, prompt=10)
    check_cost(replace(MINI, image=40_000_000, request=5), 40_000_005, {"images": 1})
    check_cost(MINI, 0, {"images": 3})


def test_each_tool_of_the_provider_has_its_price_and_one_without_a_price_costs_nothing() -> None:
    price = replace(MINI, tools={"web_search": 10_000_000, "file_search": 2_500_000})
    check_cost(price, 10 * 150 + 2 * 10_000_000 + 2_500_000, {"web_search": 2, "file_search": 1, "x": 9}, prompt=10)


def test_batch_costs_its_share_of_everything_but_the_tools() -> None:
    price = replace(CACHING, batch_percent=50, image=1000, request=500, tools={"web_search": 7})
    units = {"batch": 1, "web_search": 2, "images": 2}
    check_cost(price, (10 * 100 + 20 * 200 + 2000 + 500) // 2 + 14, units, prompt=10, completion=20)
    check_cost(replace(price, batch_percent=100), 10 * 100 + 500, {"batch": 1}, prompt=10)


def test_half_price_is_rounded_with_everything_else() -> None:
    price = Price(input=1_000_000, output=1_000_000, batch_percent=50)
    check_cost(price, 1, {"batch": 1}, prompt=1)
    check_cost(price, 1, {"batch": 1}, prompt=1, completion=1)


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


# --- the most a call can cost ----------------------------------------------------------------------------------------
def test_call_costs_at_most_its_plain_tokens_where_nothing_is_dearer() -> None:
    assert cost_at_most(1000, 500, MINI) == cost(TokenUsage(1000, 500), MINI)


def test_most_takes_the_dearest_kind_of_token_on_either_side() -> None:
    price = replace(CACHING, reasoning=900_000_000, audio_input=50_000_000, request=7)
    assert cost_at_most(1000, 500, price) == 1000 * 125 + 500 * 900 + 7


def test_most_takes_the_dearest_tier_that_the_prompt_can_reach() -> None:
    assert cost_at_most(200_000, 1, TIERED) == 200_000 * 2 + 12
    assert cost_at_most(200_001, 1, TIERED) == 200_001 * 4 + 18
    # A prompt that turns out shorter than was thought may fall into a tier that is dearer.
    cheaper_when_long = Price(2_000_000, 0, tiers=((100, Price(1_000_000, 0)),))
    assert cost_at_most(150, 0, cheaper_when_long) == 150 * 2


rates = st.integers(0, 10**12)
kinds = st.fixed_dictionaries(
    {"input": rates, "output": rates, "request": rates, "batch_percent": st.integers(0, 120)},
    optional=dict.fromkeys(
        ("cached", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input",
         "image_output"),
        rates,
    ),
)  # fmt: skip


@st.composite
def prices(draw: st.DrawFn) -> Price:
    thresholds = sorted(draw(st.sets(st.integers(1, 2000), max_size=3)), reverse=True)
    return Price(**draw(kinds), tiers=tuple((threshold, Price(**draw(kinds))) for threshold in thresholds))


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """As an adapter gives them: no part is larger than what it is a part of, but parts may overlap."""
    prompt, completion = draw(st.integers(0, 3000)), draw(st.integers(0, 3000))
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    most = {
        "cache_write_1h": written, "audio_prompt": prompt, "image_prompt": prompt, "audio_completion": completion,
        "image_completion": completion, "batch": 1,
    }  # fmt: skip
    units = {name: draw(st.integers(0, count)) for name, count in most.items() if draw(st.booleans())}
    return TokenUsage(prompt, completion, cached, written, draw(st.integers(0, completion)), units=units)


@given(usages(), prices())
def test_no_call_costs_more_than_the_most(usage: TokenUsage, price: Price) -> None:
    assert 0 <= cost(usage, price) <= cost_at_most(usage.prompt, usage.completion, price)


# --- an event's columns -----------------------------------------------------------------------------------------------
@given(usages(), prices())
def test_a_stored_event_costs_what_its_call_cost(usage: TokenUsage, price: Price) -> None:
    stored = orjson.loads(orjson.dumps(event_columns(usage)))
    assert usage_of_event(stored) == usage
    assert cost(usage_of_event(stored), price) == cost(usage, price)


def test_columns_are_those_of_a_usage_event() -> None:
    assert event_columns(TokenUsage()).keys() <= set(EVENT_COLUMNS)
