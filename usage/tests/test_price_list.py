"""Which price counts: ours before the published one, dated, and never a guess."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data_snapshot, types

from accounts.models import Team
from usage import price_list
from usage.models import ModelPrice
from usage.price_list import context_window, models_of, prices_at
from usage.pricing import Price, TokenUsage, cost

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)

pytestmark = pytest.mark.django_db


def own_price(model: str, valid_from: datetime, dollars: int, **more: Any) -> ModelPrice:
    nano = dollars * 10**9
    return ModelPrice.objects.create(
        model=model, valid_from=valid_from, input_nano_usd_per_mtok=nano, output_nano_usd_per_mtok=2 * nano, **more
    )


def usd(text: str) -> Decimal:
    return Decimal(text)


def listed(name: str, prices: object, **more: object) -> types.ModelInfo:
    return types.ModelInfo(id=name, match=types.ClauseEquals(name), prices=prices, **more)  # type: ignore[arg-type]


@pytest.fixture
def published() -> Iterator[None]:
    """A small price list of our own instead of the bundled one, whose figures change with the package."""
    models = [
        listed("flat", types.ModelPrice(input_mtok=usd("1"), output_mtok=usd("2"), cache_read_mtok=usd("0.1"))),
        listed(
            "tiered",
            types.ModelPrice(
                input_mtok=types.TieredPrices(usd("1"), [types.Tier(100, usd("2")), types.Tier(500, usd("4"))]),
                output_mtok=types.TieredPrices(usd("3"), [types.Tier(100, usd("6"))]),
            ),
        ),
        listed(
            "off-peak",
            [
                types.ConditionalPrice(prices=types.ModelPrice(input_mtok=usd("2"))),
                types.ConditionalPrice(
                    types.TimeOfDateConstraint(time(22, tzinfo=UTC), time(6, tzinfo=UTC)),
                    prices=types.ModelPrice(input_mtok=usd("1")),
                ),
            ],
        ),
        listed(
            "dated",
            [
                types.ConditionalPrice(prices=types.ModelPrice(input_mtok=usd("1"))),
                types.ConditionalPrice(
                    types.StartDateConstraint(date(2026, 12, 1)), prices=types.ModelPrice(input_mtok=usd("5"))
                ),
            ],
        ),
        listed(
            "researching",
            types.ModelPrice(
                input_mtok=usd("2"),
                output_mtok=usd("8"),
                output_reasoning_mtok=usd("3"),
                output_citation_mtok=usd("2"),
                web_searches_kcount=usd("5"),
            ),
        ),
        listed("searching", types.ModelPrice(input_mtok=usd("1"), output_mtok=usd("1"), requests_kcount=usd("12"))),
        listed("speech", types.ModelPrice(audio_hours=usd("1"))),
        listed("gone", types.ModelPrice(input_mtok=usd("1")), deprecated=True),
        listed("gift:free", types.ModelPrice()),
        listed("riddle", types.ModelPrice()),
        listed("wide", types.ModelPrice(input_mtok=usd("1")), context_window=128_000),
    ]
    provider = types.Provider(id="openai", name="", api_pattern="", models=models)
    price_list._find_model.cache_clear()
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([provider], from_auto_update=False))
    yield
    data_snapshot.set_custom_snapshot(None)
    price_list._find_model.cache_clear()


# --- our own prices -------------------------------------------------------------------------------------------------
def test_own_price_counts_before_the_published_one(published: None) -> None:
    own_price("flat", NOW - DAY, 9)
    assert prices_at(NOW).find("flat", "openai", "flat") == Price(9 * 10**9, 18 * 10**9)


def test_newest_own_price_that_has_begun_counts() -> None:
    for days, dollars in ((-9, 1), (-2, 2), (-5, 3), (1, 4)):
        own_price("ours", NOW + days * DAY, dollars)
    price = prices_at(NOW).find("ours", "", "anything")
    assert price and price.input == 2 * 10**9


def test_price_begins_to_count_in_its_first_moment() -> None:
    own_price("ours", NOW, 1)
    assert prices_at(NOW).find("ours", "", "") is not None
    assert prices_at(NOW - timedelta(microseconds=1)).find("ours", "", "") is None


def test_of_two_prices_with_one_beginning_the_later_written_counts() -> None:
    own_price("ours", NOW - DAY, 1)
    own_price("ours", NOW - DAY, 2)
    price = prices_at(NOW).find("ours", "", "")
    assert price and price.input == 2 * 10**9


def test_book_is_valid_until_the_next_own_price_begins() -> None:
    own_price("ours", NOW + 2 * DAY, 1)
    own_price("other", NOW + DAY, 1)
    assert prices_at(NOW).valid_until == NOW + DAY


def test_book_without_dated_prices_is_valid_for_ever(published: None) -> None:
    own_price("ours", NOW - DAY, 1)
    book = prices_at(NOW)
    book.find("flat", "openai", "flat")
    assert book.valid_until is None


def test_everything_that_a_price_can_say_counts() -> None:
    own_price(
        "ours",
        NOW - DAY,
        1,
        cached_nano_usd_per_mtok=1,
        cache_write_nano_usd_per_mtok=2,
        reasoning_nano_usd_per_mtok=3,
        audio_input_nano_usd_per_mtok=4,
        audio_output_nano_usd_per_mtok=5,
        cache_write_1h_nano_usd_per_mtok=9,
        image_input_nano_usd_per_mtok=12,
        image_output_nano_usd_per_mtok=13,
        request_nano_usd=6,
        image_nano_usd=7,
        tools_nano_usd={"web_search": 8},
        batch_percent=50,
        tiers=[
            {"from_prompt_tokens": 100, "input": 10, "output": 11},
            {"from_prompt_tokens": 900, "input": 20, "output": 21, "cached": 22, "reasoning": 23},
        ],
    )
    apiece: dict[str, Any] = {"request": 6, "image": 7, "tools": {"web_search": 8}, "batch_percent": 50}
    assert prices_at(NOW).find("ours", "", "") == Price(
        10**9,
        2 * 10**9,
        cached=1,
        cache_write=2,
        reasoning=3,
        audio_input=4,
        audio_output=5,
        cache_write_1h=9,
        image_input=12,
        image_output=13,
        **apiece,
        tiers=((900, Price(20, 21, cached=22, reasoning=23, **apiece)), (100, Price(10, 11, **apiece))),
    )


# --- a team's own price ---------------------------------------------------------------------------------------------
@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="research")


def dollars(price: Price | None) -> int | None:
    return price.input // 10**9 if price else None


def test_a_teams_own_price_counts_before_the_price_for_everyone_and_that_before_the_list(
    published: None, team: Team
) -> None:
    book = prices_at(NOW)
    assert dollars(book.find("flat", "openai", "flat", team.pk)) == 1
    own_price("flat", NOW - DAY, 5)
    assert dollars(prices_at(NOW).find("flat", "openai", "flat", team.pk)) == 5
    own_price("flat", NOW - 2 * DAY, 3, team=team)
    book = prices_at(NOW)
    assert dollars(book.find("flat", "openai", "flat", team.pk)) == 3
    assert dollars(book.find("flat", "openai", "flat")) == 5
    assert dollars(book.find("flat", "openai", "flat", team.pk + 1)) == 5


def test_a_teams_price_prices_what_nobody_else_has_a_price_for(team: Team) -> None:
    own_price("ours", NOW - DAY, 3, team=team)
    book = prices_at(NOW)
    assert dollars(book.find("ours", "", "", team.pk)) == 3
    assert book.find("ours", "", "") is None


def test_book_says_which_teams_have_prices_of_their_own(team: Team) -> None:
    own_price("ours", NOW - DAY, 1, team=team)
    own_price("ours", NOW - timedelta(hours=1), 2, team=team)
    own_price("ours", NOW + DAY, 3, team=team)
    own_price("ours", NOW - DAY, 4)
    book = prices_at(NOW)
    assert {team_id: dollars(price) for team_id, price in book.team_prices("ours").items()} == {team.pk: 2}
    assert book.team_prices("flat") == {}
    assert book.valid_until == NOW + DAY


# --- published prices -----------------------------------------------------------------------------------------------
def test_published_price_is_found_by_provider_and_upstream_model(published: None) -> None:
    assert prices_at(NOW).find("my-name-for-it", "openai", "flat") == Price(
        10**9, 2 * 10**9, cached=10**8, batch_percent=50
    )


@pytest.mark.parametrize(
    ("prices_id", "model"), [("", "flat"), ("vllm", "flat"), ("openai-like", "flat"), ("openai", "x")]
)
def test_price_is_never_guessed(published: None, prices_id: str, model: str) -> None:
    assert prices_at(NOW).find(model, prices_id, model) is None


def test_model_that_is_not_billed_by_the_token_has_no_price(published: None) -> None:
    assert prices_at(NOW).find("speech", "openai", "speech") is None


def test_model_without_published_figures_has_no_price_unless_it_says_that_it_is_free(published: None) -> None:
    assert prices_at(NOW).find("riddle", "openai", "riddle") is None
    assert prices_at(NOW).find("gift:free", "openai", "gift:free") == Price(0, 0)


def test_tiers_begin_above_the_published_threshold_and_apply_to_all_tokens(published: None) -> None:
    price = prices_at(NOW).find("tiered", "openai", "tiered")
    assert price
    for prompt, input_usd, output_usd in ((100, 1, 3), (101, 2, 6), (500, 2, 6), (501, 4, 6)):
        expected = prompt * input_usd * 1000 + 7 * output_usd * 1000
        assert cost(TokenUsage(prompt=prompt, completion=7), price) == expected


def test_fee_per_request_is_part_of_the_price(published: None) -> None:
    price = prices_at(NOW).find("searching", "openai", "searching")
    assert price and price.request == 12_000_000


def test_searches_citations_and_reasoning_have_their_published_price(published: None) -> None:
    price = prices_at(NOW).find("researching", "openai", "researching")
    assert price and price.reasoning == 3 * 10**9
    assert price.tools == {"web_search": 5_000_000, "citation_tokens": 2_000}


@pytest.mark.parametrize(("hour", "dollars", "change_in"), [(12, 2, 10), (23, 1, 7), (5, 1, 1), (6, 2, 16)])
def test_price_by_the_time_of_day(published: None, hour: int, dollars: int, change_in: int) -> None:
    now = NOW.replace(hour=hour)
    book = prices_at(now)
    price = book.find("off-peak", "openai", "off-peak")
    assert price and price.input == dollars * 10**9
    assert book.valid_until == now + timedelta(hours=change_in)


def test_price_from_a_day_on(published: None) -> None:
    book = prices_at(NOW)
    before = book.find("dated", "openai", "dated")
    assert before and before.input == 10**9
    assert book.valid_until == datetime(2026, 12, 1, tzinfo=UTC)
    after = prices_at(book.valid_until).find("dated", "openai", "dated")
    assert after and after.input == 5 * 10**9


def test_context_window_is_known_or_none(published: None) -> None:
    assert context_window("openai", "wide") == 128_000
    assert context_window("openai", "flat") is None
    assert context_window("", "wide") is None


def test_models_of_a_provider_are_the_current_ones_that_are_billed_by_the_token(published: None) -> None:
    assert models_of("openai") == [
        *("dated", "flat", "gift:free", "off-peak", "researching", "searching", "tiered", "wide")
    ]
    assert models_of("unknown") == []


# --- the bundled list -----------------------------------------------------------------------------------------------
def test_bundled_list_knows_the_usual_models_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    book = prices_at(NOW)
    assert book.find("gpt-4o-mini", "openai", "gpt-4o-mini") == Price(
        150_000_000,
        600_000_000,
        cached=75_000_000,
        tools={"web_search": 10_000_000, "file_search": 2_500_000},
        batch_percent=50,
    )
    sonnet = book.find("x", "anthropic", "claude-sonnet-4-5-20250929")
    assert sonnet and (sonnet.cache_write, sonnet.cache_write_1h) == (3_750_000_000, 6_000_000_000)
    assert book.find("x", "azure", "gpt-4o-mini") is not None
    assert "gpt-4o-mini" in models_of("openai")


def test_our_cost_agrees_with_the_price_lists_own_arithmetic() -> None:
    """Every model of the usual providers, short and long prompts. (Theirs refuses more cached tokens than prompt.)"""
    for provider_id in ("openai", "anthropic", "google"):
        provider = price_list._find_provider(provider_id)
        assert provider
        for model in provider.models:
            price = price_list._listed_price(model, NOW)
            if price is None or price.audio_input is not None:
                continue
            for prompt in (1_000, 300_000):
                theirs = model.get_prices(NOW).calc_price(
                    types.Usage(input_tokens=prompt, cache_read_tokens=600, output_tokens=77)
                )
                ours = cost(TokenUsage(prompt=prompt, cached=600, completion=77), price)
                assert abs(ours - theirs["total_price"] * 10**9) <= 1, model.id
