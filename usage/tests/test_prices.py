"""Setting prices: everything that can be priced, from a day on, for everyone or for one team."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from accounts.models import Team
from usage.models import ModelPrice
from usage.price_list import prices_at
from usage.prices import COLUMNS, Tier, UsdPrice, carry_prices, check_tiers, check_tool_name, set_price, usd_of
from usage.pricing import Price

pytestmark = pytest.mark.django_db

EVERYTHING: UsdPrice = {
    "input_usd_per_mtok": Decimal("2.5"),
    "output_usd_per_mtok": Decimal(10),
    "cached_usd_per_mtok": Decimal("1.25"),
    "cache_write_usd_per_mtok": Decimal(3),
    "cache_write_1h_usd_per_mtok": Decimal(6),
    "reasoning_usd_per_mtok": Decimal(9),
    "audio_input_usd_per_mtok": Decimal(40),
    "audio_output_usd_per_mtok": Decimal(80),
    "image_input_usd_per_mtok": Decimal(12),
    "image_output_usd_per_mtok": Decimal(32),
    "request_usd": Decimal("0.005"),
    "image_usd": Decimal("0.04"),
    "tools_usd": {"web_search": Decimal("0.01")},
    "batch_percent": 50,
    "tiers": [
        {"from_prompt_tokens": 900, "input_usd_per_mtok": Decimal(20), "output_usd_per_mtok": Decimal(30)},
        {
            "from_prompt_tokens": 100,
            "input_usd_per_mtok": Decimal(5),
            "output_usd_per_mtok": Decimal(15),
            "cached_usd_per_mtok": Decimal("0.5"),
            "cache_write_1h_usd_per_mtok": Decimal(7),
            "image_input_usd_per_mtok": Decimal(13),
            "image_output_usd_per_mtok": Decimal(33),
        },
    ],
}
LONG_PROMPT: dict[str, Any] = {
    "cached": 500_000_000,
    "cache_write_1h": 7_000_000_000,
    "image_input": 13_000_000_000,
    "image_output": 33_000_000_000,
}
TOKENS_ONLY: dict[str, Any] = {"request": 5_000_000, "image": 40_000_000, "tools": {"web_search": 10_000_000}}


def usd(input_usd: str = "1", output_usd: str = "2") -> UsdPrice:
    return {"input_usd_per_mtok": Decimal(input_usd), "output_usd_per_mtok": Decimal(output_usd)}


def found(model: str = "gpt", team: Team | None = None) -> Price:
    price = prices_at(datetime.now(UTC)).find(model, "", "", team.pk if team else None)
    assert price is not None
    return price


def test_everything_that_providers_publish_can_be_set() -> None:
    assert set_price("gpt", **EVERYTHING)
    assert found() == Price(
        2_500_000_000,
        10_000_000_000,
        cached=1_250_000_000,
        cache_write=3_000_000_000,
        cache_write_1h=6_000_000_000,
        reasoning=9_000_000_000,
        audio_input=40_000_000_000,
        audio_output=80_000_000_000,
        image_input=12_000_000_000,
        image_output=32_000_000_000,
        **TOKENS_ONLY,
        batch_percent=50,
        tiers=(
            (900, Price(20_000_000_000, 30_000_000_000, **TOKENS_ONLY, batch_percent=50)),
            (100, Price(5_000_000_000, 15_000_000_000, **LONG_PROMPT, **TOKENS_ONLY, batch_percent=50)),
        ),
    )


def test_what_counts_already_is_not_written_again() -> None:
    assert set_price("gpt", **EVERYTHING)
    assert not set_price("gpt", **EVERYTHING)
    assert not set_price("gpt", request_usd=Decimal("0.0050"))
    assert set_price("gpt", request_usd=Decimal("0.006"))
    assert ModelPrice.objects.count() == 2


def test_what_is_not_given_stays_as_it_was() -> None:
    set_price("gpt", **EVERYTHING)
    set_price("gpt", **usd("3", "9"))
    now = found()
    assert (now.input, now.output, now.cached, now.tools) == (
        3_000_000_000,
        9_000_000_000,
        1_250_000_000,
        {"web_search": 10_000_000},
    )
    set_price("gpt", cached_usd_per_mtok=None, tools_usd={}, tiers=[], image_usd=None)
    now = found()
    assert (now.cached, now.tools, now.tiers, now.image) == (None, {}, (), None)


def test_a_row_says_in_dollars_what_it_was_set_to() -> None:
    set_price("gpt", **EVERYTHING)
    row = ModelPrice.objects.get()
    assert not set_price("gpt", **usd_of(row))
    assert usd_of(row)["tools_usd"] == EVERYTHING["tools_usd"]


def test_everything_that_a_price_can_say_can_be_set() -> None:
    """Whoever adds a price to one of them adds it to all."""
    of_tokens = {column.removesuffix("_nano_usd_per_mtok") for column in COLUMNS if column.endswith("_per_mtok")}
    said = {slot for slot in Price.__slots__ if slot not in ("ceilings", "request", "image", "tools", "tiers")}
    assert of_tokens == said - {"batch_percent"}
    for given in (UsdPrice, Tier):
        assert {f"{name}_usd_per_mtok" for name in of_tokens} <= given.__annotations__.keys()


def test_renamed_model_costs_what_it_did(research: Team) -> None:
    set_price("gpt", **EVERYTHING)
    set_price("gpt", team=research, **usd("3"))
    next_year = datetime.now(UTC) + timedelta(days=365)
    set_price("gpt", valid_from=next_year, **usd("9"))
    carry_prices("gpt", "gpt-renamed")
    assert found("gpt-renamed") == found("gpt")
    assert found("gpt-renamed", research) == found("gpt", research)
    later = prices_at(next_year).find("gpt-renamed", "", "")
    assert later == prices_at(next_year).find("gpt", "", "")
    carry_prices("gpt", "gpt-renamed")
    assert ModelPrice.objects.filter(model="gpt-renamed").count() == 3


def test_first_price_needs_input_and_output() -> None:
    with pytest.raises(ValueError, match="both"):
        set_price("gpt", input_usd_per_mtok=Decimal(1))
    assert not ModelPrice.objects.exists()


def test_team_has_a_price_of_its_own_beside_everyones(research: Team) -> None:
    assert set_price("gpt", **usd("1"))
    assert set_price("gpt", team=research, **usd("1"))
    assert not set_price("gpt", team=research, **usd("1"))
    set_price("gpt", **usd("5"))
    assert (found().input, found(team=research).input) == (5 * 10**9, 10**9)


def test_teams_price_starts_from_its_own_and_not_from_everyones(research: Team) -> None:
    set_price("gpt", **EVERYTHING)
    set_price("gpt", team=research, **usd("2"))
    assert found(team=research).cached is None


def test_price_of_an_earlier_day_leaves_what_came_after_it() -> None:
    now = datetime.now(UTC)
    set_price("gpt", valid_from=now - timedelta(days=5), **usd("1"))
    set_price("gpt", valid_from=now - timedelta(days=1), **usd("2"))
    assert set_price("gpt", valid_from=now - timedelta(days=3), **usd("9"))
    assert found().input == 2 * 10**9
    price = prices_at(now - timedelta(days=2)).find("gpt", "", "")
    assert price is not None
    assert price.input == 9 * 10**9


@pytest.mark.parametrize("name", ["web_search", "file_search", "sources", "code_interpreter2"])
def test_names_of_tools(name: str) -> None:
    assert check_tool_name(name) == ""


@pytest.mark.parametrize("name", ["images", "batch", "audio_prompt", "", "web search", "wéb", "_", "a" * 65])
def test_names_that_no_tool_can_have(name: str) -> None:
    assert check_tool_name(name)


def test_tiers_that_make_no_sense() -> None:
    def tiers(*starts: int) -> list[Tier]:
        return [Tier(from_prompt_tokens=start) for start in starts]

    assert check_tiers(tiers()) == check_tiers(tiers(1, 200_001)) == ""
    assert "one token" in check_tiers(tiers(0))
    assert "same length" in check_tiers(tiers(5, 6, 5))
