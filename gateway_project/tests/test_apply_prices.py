"""Prices in a configuration file: every kind, dated, for everyone and for single teams."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from accounts.models import Team
from gateway_project.apply import NotApplied, apply
from usage.models import ModelPrice
from usage.price_list import prices_at
from usage.pricing import Price
from usage.tests.events import add

pytestmark = pytest.mark.django_db

EVERYTHING = """
models:
  - name: gpt
    input_usd_per_mtok: 2.50
    output_usd_per_mtok: 10
    cached_input_usd_per_mtok: 1.25
    cache_write_usd_per_mtok: 3
    reasoning_usd_per_mtok: 9
    audio_input_usd_per_mtok: 40
    audio_output_usd_per_mtok: 80
    cache_write_1h_usd_per_mtok: 6
    image_input_usd_per_mtok: 12
    image_output_usd_per_mtok: 32
    request_usd: 0.005
    image_usd: 0.04
    tools_usd: {web_search: 0.01, file_search: 0.0025}
    batch_percent: 50
    tiers:
      - {from_prompt_tokens: 1000000, input_usd_per_mtok: 20, output_usd_per_mtok: 30}
      - {from_prompt_tokens: 200001, input_usd_per_mtok: 5, output_usd_per_mtok: 15, cached_input_usd_per_mtok: 0.5}
"""
PLAIN = "models: [{name: gpt, input_usd_per_mtok: 1, output_usd_per_mtok: 2}]\n"
APIECE: dict[str, Any] = {
    "request": 5_000_000,
    "image": 40_000_000,
    "tools": {"web_search": 10_000_000, "file_search": 2_500_000},
    "batch_percent": 50,
}


def run(text: str) -> list[str]:
    return [str(change) for change in apply(text.encode())]


def mistakes(text: str) -> list[tuple[int, str, str]]:
    before = list(ModelPrice.objects.values())
    with pytest.raises(NotApplied) as refused:
        run(text)
    assert list(ModelPrice.objects.values()) == before
    return [(mistake.line, mistake.field, mistake.message) for mistake in refused.value.mistakes]


def found(team: str = "", at: datetime | None = None) -> Price | None:
    team_id = Team.objects.get(name=team).pk if team else None
    return prices_at(at or datetime.now(UTC)).find("gpt", "", "", team_id)


def dollars(team: str = "", at: datetime | None = None) -> int | None:
    price = found(team, at)
    return price.input // 10**9 if price else None


# --- models ---------------------------------------------------------------------------------------------------------
def test_everything_that_providers_publish_can_be_declared() -> None:
    run(EVERYTHING)
    assert found() == Price(
        2_500_000_000,
        10_000_000_000,
        cached=1_250_000_000,
        cache_write=3_000_000_000,
        reasoning=9_000_000_000,
        audio_input=40_000_000_000,
        audio_output=80_000_000_000,
        cache_write_1h=6_000_000_000,
        image_input=12_000_000_000,
        image_output=32_000_000_000,
        **APIECE,
        tiers=(
            (1_000_000, Price(20_000_000_000, 30_000_000_000, **APIECE)),
            (200_001, Price(5_000_000_000, 15_000_000_000, cached=500_000_000, **APIECE)),
        ),
    )


def test_second_run_changes_nothing() -> None:
    run(EVERYTHING)
    assert run(EVERYTHING) == []
    assert ModelPrice.objects.count() == 1


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ("tools_usd: {web_search: 0.02}", "tools_usd"),
        ("tools_usd: {}", "tools_usd"),
        ("tiers: []", "tiers"),
        ("batch_percent: 100", "batch_percent"),
        ("request_usd: 0", "request_usd"),
        ("image_usd: null", "image_usd"),
        ("reasoning_usd_per_mtok: null", "reasoning_usd_per_mtok"),
        ("cache_write_1h_usd_per_mtok: null", "cache_write_1h_usd_per_mtok"),
        ("image_output_usd_per_mtok: 33", "image_output_usd_per_mtok"),
        ("cached_input_usd_per_mtok: 0", "cached_input_usd_per_mtok"),
    ],
)
def test_what_is_changed_is_told_and_the_rest_stays(changed: str, field: str) -> None:
    run(EVERYTHING)
    assert run(f"models: [{{name: gpt, {changed}}}]") == [f"~ model gpt: {field}"]
    newest, before = ModelPrice.objects.order_by("-pk")
    kept = {"input_nano_usd_per_mtok", "audio_input_nano_usd_per_mtok", "cache_write_nano_usd_per_mtok"}
    assert all(getattr(newest, column) == getattr(before, column) for column in kept)


def test_price_counts_from_the_first_moment_of_its_day() -> None:
    run(PLAIN)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    declared = f"models: [{{name: gpt, input_usd_per_mtok: 7, prices_from: {tomorrow}}}]"
    assert run(declared) == ["~ model gpt: input_usd_per_mtok"]
    assert run(declared) == []
    midnight = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC)
    assert dollars(at=midnight - timedelta(microseconds=1)) == 1
    assert dollars(at=midnight) == 7
    assert ModelPrice.objects.latest("valid_from").valid_from == midnight


def test_price_of_the_past_is_for_calls_that_are_priced_again() -> None:
    run("models: [{name: gpt, input_usd_per_mtok: 3, output_usd_per_mtok: 2, prices_from: 2026-01-01}]")
    run(PLAIN)
    assert (dollars(at=datetime(2026, 1, 1, tzinfo=UTC)), dollars()) == (3, 1)


def test_price_of_the_past_says_what_it_replaces_and_how_calls_are_priced_again() -> None:
    run("models: [{name: gpt, input_usd_per_mtok: 3, output_usd_per_mtok: 2, prices_from: 2026-01-01}]")
    add(datetime(2026, 3, 1, tzinfo=UTC))
    late = "models: [{name: gpt, input_usd_per_mtok: 4, prices_from: 2026-02-01}]"
    assert [change.notes for change in apply(late.encode())] == [
        [
            "The price of gpt replaces that of 1 Jan 2026 from 1 Feb 2026 on. Calls since then keep what they cost "
            "until they are priced again: manage.py rerate --from 2026-02-01T00:00 --model gpt --reason TEXT"
        ]
    ]
    assert apply(late.encode()) == []


def test_command_prints_what_a_price_of_the_past_replaces(tmp_path: Path) -> None:
    run("models: [{name: gpt, input_usd_per_mtok: 3, output_usd_per_mtok: 2, prices_from: 2026-01-01}]")
    path, out = tmp_path / "prices.yaml", io.StringIO()
    path.write_text("models: [{name: gpt, input_usd_per_mtok: 4, prices_from: 2026-02-01}]")
    call_command("apply", str(path), stdout=out)
    assert out.getvalue() == (
        "~ model gpt: input_usd_per_mtok\n  The price of gpt replaces that of 1 Jan 2026 from 1 Feb 2026 on.\n"
    )


def test_price_of_a_team_says_so_too(research: Team) -> None:
    run(PLAIN)
    ModelPrice.objects.update(valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    add(datetime(2026, 3, 1, tzinfo=UTC))
    prices = "[{model: gpt, input_usd_per_mtok: 4, output_usd_per_mtok: 2, prices_from: 2026-02-01}]"
    (change,) = apply(f"teams: [{{name: research, prices: {prices}}}]".encode())
    assert change.notes[0].startswith("The price of gpt for team research counts from 1 Feb 2026 on. Calls since then")


@pytest.mark.parametrize("declared", [PLAIN, PLAIN.replace("}", ", prices_from: 2026-01-01}")], ids=["now", "unused"])
def test_price_that_changes_no_call_says_nothing(declared: str) -> None:
    assert [change.notes for change in apply(declared.encode())] == [[]]


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        ("prices_from: 2026-01-01", "models[0].prices_from", "no price is given"),
        ("prices_from: soon", "models[0].prices_from", "must be a date"),
        ("tools_usd: {batch: 1}", "models[0].tools_usd.batch", "is no tool"),
        ("tools_usd: {web search: 1}", "models[0].tools_usd.web search", "letters, digits and _"),
        ("tools_usd: {web_search: free}", "models[0].tools_usd.web_search", "US dollars"),
        ("tools_usd: [web_search]", "models[0].tools_usd", "must be a mapping"),
        ("batch_percent: 150", "models[0].batch_percent", "between 0 and 100"),
        ("request_usd: null", "models[0].request_usd", "US dollars"),
        ("tiers: [{from_prompt_tokens: 9, input_usd_per_mtok: 1}]", "models[0].tiers[0].output_usd_per_mtok",
         "is missing"),
        ("tiers: [{from_prompt_tokens: 0, input_usd_per_mtok: 1, output_usd_per_mtok: 1}]",
         "models[0].tiers[0].from_prompt_tokens", "between 1 and"),
        ("tiers: [{from_prompt_tokens: 9, input_usd_per_mtok: 1, output_usd_per_mtok: 1}, "
         "{from_prompt_tokens: 9, input_usd_per_mtok: 1, output_usd_per_mtok: 1}]", "models[0].tiers", "same length"),
    ],
)  # fmt: skip
def test_mistakes_name_their_line_and_field(fields: str, where: str, said: str) -> None:
    run(PLAIN)
    ((line, field, message),) = mistakes(f"models:\n- name: gpt\n  {fields}\n")
    assert (line, field) == (3, where)
    assert said in message


# --- teams ----------------------------------------------------------------------------------------------------------
def teams(prices: str) -> str:
    return f"{PLAIN}teams: [{{name: research, prices: [{prices}]}}]"


def test_team_pays_a_price_of_its_own() -> None:
    declared = teams("{model: gpt, input_usd_per_mtok: 5, output_usd_per_mtok: 6, tools_usd: {web_search: 0.01}}")
    run(declared)
    assert (dollars(), dollars("research")) == (1, 5)
    price = found("research")
    assert price is not None
    assert price.tools == {"web_search": 10_000_000}
    assert run(declared) == []


def test_change_of_a_teams_price_is_told_as_one_of_the_team() -> None:
    run(teams("{model: gpt, input_usd_per_mtok: 5, output_usd_per_mtok: 6}"))
    assert run("teams: [{name: research, prices: [{model: gpt, input_usd_per_mtok: 4}]}]") == [
        "~ team research: prices"
    ]
    assert (dollars(), dollars("research")) == (1, 4)


def test_model_that_is_not_listed_any_more_costs_the_team_what_it_costs_everyone() -> None:
    run(teams("{model: gpt, input_usd_per_mtok: 5, output_usd_per_mtok: 6}"))
    assert run("teams: [{name: research}]") == []
    assert dollars("research") == 5
    assert run("teams: [{name: research, prices: []}]") == ["~ team research: prices"]
    assert dollars("research") == 1
    assert run("teams: [{name: research, prices: []}]") == []


@pytest.mark.parametrize(
    ("prices", "where", "said"),
    [
        ("{model: gtp, input_usd_per_mtok: 1, output_usd_per_mtok: 1}", "teams[0].prices[0].model", "did you mean gpt"),
        ("{input_usd_per_mtok: 1, output_usd_per_mtok: 1}", "teams[0].prices[0].model", "is missing"),
        ("{model: gpt, input_usd_per_mtok: 1}", "teams[0].prices[0].output_usd_per_mtok", "needs both"),
        ("{model: gpt}", "teams[0].prices[0]", "names no price"),
        ("{model: gpt, input_usd_per_mtok: 1, output_usd_per_mtok: 1}, {model: gpt, input_usd_per_mtok: 2}",
         "teams[0].prices[1]", "listed twice"),
    ],
)  # fmt: skip
def test_mistakes_in_a_teams_prices_are_told(prices: str, where: str, said: str) -> None:
    ((line, field, message),) = mistakes(teams(prices))
    assert (line, field) == (2, where)
    assert said in message
