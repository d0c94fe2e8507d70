"""Pricing calls again: every call costs what its model and team cost at its time, and no event is touched."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from genai_prices import data_snapshot, types

from accounts.models import Team, User
from usage import price_list, rerating, rollups
from usage.models import Adjustment, DirtyHour, Rerating, Rollup, UsageEvent
from usage.prices import set_price
from usage.rerating import rerate
from usage.tests.events import NOON, add

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# One call of usage.tests.events: 100 tokens in, 20 out, written down as 1000 nano-USD.
WRITTEN = 1000

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def providers(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"openai": "openai", "own machine": ""}
    monkeypatch.setattr(rerating, "_prices_ids", lambda: ids)


def price(dollars: int, begins: datetime = NOON - 30 * DAY, model: str = "gpt", team: Team | None = None) -> None:
    """So many dollars per million tokens, in and out: thousands of nano-USD a token."""
    usd = Decimal(dollars)
    set_price(model, team=team, valid_from=begins, input_usd_per_mtok=usd, output_usd_per_mtok=usd)


def run(start: datetime = NOON - 9 * DAY, end: datetime = NOON + 9 * DAY, **more: Any) -> rerating.Rerated:
    return rerate(start, end, **{"reason": "test", **more})


def costs() -> list[int | None]:
    """What each call costs by now, the oldest first; None: not known."""
    found = []
    for event in UsageEvent.objects.order_by("id"):
        adjustments = Adjustment.objects.filter(event_id=event.pk)
        sums = adjustments.aggregate(delta=Sum("delta_nano_usd", default=0), priced=Sum("priced_calls", default=0))
        is_priced = (event.cost_nano_usd is not None) + sums["priced"]
        assert is_priced in (0, 1)
        found.append((event.cost_nano_usd or 0) + sums["delta"] if is_priced else None)
    return found


# --- what a call costs then -----------------------------------------------------------------------------------------
def test_call_costs_what_its_model_cost_at_its_time() -> None:
    price(1, NOON - 10 * DAY)
    price(2, NOON)
    for at in (NOON - DAY, NOON, NOON + DAY):
        add(at)
    run()
    assert costs() == [120_000, 240_000, 240_000]


def test_event_itself_stays_as_it_was_written() -> None:
    add()
    before = UsageEvent.objects.values().get()
    price(1)
    run()
    assert UsageEvent.objects.values().get() == before
    adjustment = Adjustment.objects.get()
    assert adjustment.delta_nano_usd == 120_000 - WRITTEN
    assert (adjustment.event_id, adjustment.at, adjustment.model, adjustment.provider, adjustment.status) == (
        before["id"],
        NOON,
        "gpt",
        "openai",
        200,
    )


def test_adjustment_stands_at_the_time_of_its_call() -> None:
    add(NOON - DAY)
    add(NOON)
    price(1)
    run()
    assert [str(one.pk)[:13] for one in Adjustment.objects.order_by("pk")] == [
        str(event.pk)[:13] for event in UsageEvent.objects.order_by("pk")
    ]


def test_second_run_changes_nothing() -> None:
    add(count=3)
    add(cost_nano_usd=None)
    price(1)
    assert run().changed == 4
    again = run()
    assert (again.events, again.changed, again.delta_nano_usd) == (4, 0, 0)
    assert Adjustment.objects.count() == 4


def test_later_correction_starts_from_the_one_before() -> None:
    add()
    price(1)
    run()
    price(3)
    assert run().delta_nano_usd == 240_000
    assert costs() == [360_000]
    price(0)
    assert run().delta_nano_usd == -360_000
    assert costs() == [0]


def test_call_whose_price_was_not_known_becomes_priced() -> None:
    add(cost_nano_usd=None)
    price(0)
    rerated = run()
    assert (rerated.changed, rerated.became_priced, rerated.delta_nano_usd) == (1, 1, 0)
    assert costs() == [0]
    price(1)
    rerated = run()
    assert (rerated.changed, rerated.became_priced) == (1, 0)
    assert costs() == [120_000]


def test_teams_own_price_counts_for_its_calls(research: Team) -> None:
    price(1)
    price(5, team=research)
    add(NOON, team_id=research.pk)
    add(NOON + HOUR, team_id=research.pk + 1)
    add(NOON + 2 * HOUR)
    run()
    assert costs() == [600_000, 120_000, 120_000]


def test_everything_that_was_used_is_priced_again() -> None:
    add(
        prompt_tokens=1000,
        completion_tokens=100,
        cached_tokens=400,
        cache_write_tokens=100,
        reasoning_tokens=40,
        units={"web_search": 2, "audio_prompt": 200, "batch": 1},
    )
    rates = {"cached": 1, "cache_write": 5, "reasoning": 6, "audio_input": 7}
    set_price(
        "gpt",
        valid_from=NOON - DAY,
        input_usd_per_mtok=Decimal(2),
        output_usd_per_mtok=Decimal(4),
        **{f"{name}_usd_per_mtok": Decimal(usd) for name, usd in rates.items()},  # type: ignore[arg-type]
        tools_usd={"web_search": Decimal("0.01")},
        batch_percent=50,
    )
    run()
    tokens = 300 * 2 + 400 * 1 + 100 * 5 + 200 * 7 + 60 * 4 + 40 * 6
    assert costs() == [tokens * 1000 // 2 + 20_000_000]


def test_call_that_used_nothing_stays_free() -> None:
    add(prompt_tokens=0, completion_tokens=0, cost_nano_usd=0, status=429, error_code="rate_limit_exceeded")
    set_price("gpt", input_usd_per_mtok=Decimal(1), output_usd_per_mtok=Decimal(1), request_usd=Decimal(1))
    rerated = run()
    assert (rerated.events, rerated.changed) == (1, 0)


# --- the list that ships --------------------------------------------------------------------------------------------
@pytest.fixture
def listed() -> Iterator[None]:
    """`gpt-2026` of OpenAI costs 1 dollar, and 2 from the 20th on."""
    prices = [
        types.ConditionalPrice(prices=types.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1))),
        types.ConditionalPrice(
            types.StartDateConstraint(NOON.date()),
            prices=types.ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(2)),
        ),
    ]
    model = types.ModelInfo(id="gpt-2026", match=types.ClauseEquals("gpt-2026"), prices=prices)
    provider = types.Provider(id="openai", name="", api_pattern="", models=[model])
    price_list._find_model.cache_clear()
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([provider], from_auto_update=False))
    yield
    data_snapshot.set_custom_snapshot(None)
    price_list._find_model.cache_clear()


def test_without_a_price_of_ours_the_list_counts_as_it_was_at_that_time(listed: None) -> None:
    midnight = NOON.replace(hour=0)
    for at in (midnight - DAY, midnight - HOUR, midnight, NOON):
        add(at)
    run()
    assert costs() == [120_000, 120_000, 240_000, 240_000]


def test_price_of_ours_counts_before_the_list(listed: None) -> None:
    price(7, NOON)
    add(NOON - HOUR)
    add(NOON)
    run()
    assert costs() == [240_000, 840_000]


def test_call_of_a_provider_that_is_gone_keeps_its_cost_and_is_counted(listed: None) -> None:
    add(provider="sold")
    add(NOON + HOUR, provider="sold", cost_nano_usd=None)
    rerated = run()
    assert (rerated.changed, rerated.provider_gone, rerated.price_unknown) == (0, 2, 0)
    assert costs() == [WRITTEN, None]


def test_call_of_a_provider_that_is_gone_is_priced_by_a_price_of_ours() -> None:
    price(1)
    add(provider="sold")
    assert run().provider_gone == 0
    assert costs() == [120_000]


def test_call_that_nobody_has_a_price_for_keeps_its_cost_and_is_counted(listed: None) -> None:
    add(upstream_model="unheard-of")
    add(provider="own machine")
    rerated = run()
    assert (rerated.changed, rerated.provider_gone, rerated.price_unknown) == (0, 0, 2)


# --- the run --------------------------------------------------------------------------------------------------------
def test_only_calls_of_the_time_and_the_model_are_looked_at() -> None:
    price(1)
    price(1, model="other")
    add(NOON - timedelta(microseconds=1))
    add(NOON)
    add(NOON + HOUR - timedelta(microseconds=1), model="other")
    add(NOON + HOUR)
    assert run(NOON, NOON + HOUR).events == 2
    assert costs() == [WRITTEN, 120_000, 120_000, WRITTEN]
    assert run(NOON - DAY, NOON + DAY, model="other").events == 1


def test_run_is_written_down_with_its_sums(alice: User) -> None:
    price(1)
    add(count=2)
    add(NOON + HOUR, prompt_tokens=0, completion_tokens=0, cost_nano_usd=0)
    run(reason=" The price was entered late. ", by=alice)
    row = Rerating.objects.get()
    assert (row.reason, row.by, row.model) == ("The price was entered late.", alice, "")
    assert (row.events, row.changed, row.delta_nano_usd) == (3, 2, 2 * (120_000 - WRITTEN))
    assert row.adjustments.count() == 2


def test_dry_run_says_the_same_and_writes_nothing() -> None:
    price(1)
    add(count=2)
    add(NOON + HOUR, model="gpt", cost_nano_usd=None)
    marks = list(DirtyHour.objects.order_by("hour").values())
    dry = run(dry_run=True)
    assert dry.run is None
    assert not Rerating.objects.exists()
    assert not Adjustment.objects.exists()
    assert list(DirtyHour.objects.order_by("hour").values()) == marks
    wet = run()
    wet.run = None
    assert wet == dry
    assert dry.by_model == {"gpt": (3, 360_000 - 2 * WRITTEN)}


def test_many_calls_are_read_in_pages_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerating, "EVENTS_AT_ONCE", 3)
    price(1)
    for number in range(10):
        add(NOON + number * timedelta(minutes=20))
    rerated = run()
    assert (rerated.events, rerated.changed) == (10, 10)
    assert Rerating.objects.get().events == 10
    assert costs() == [120_000] * 10
    assert run().changed == 0


def test_run_that_is_cut_off_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerating, "EVENTS_AT_ONCE", 3)
    price(1)
    for number in range(10):
        add(NOON + number * timedelta(minutes=20))
    write, pages = rerating._write, iter(range(2))

    def dies(*arguments: Any) -> None:
        if next(pages, None) is None:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(rerating, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert Rerating.objects.get().changed == Adjustment.objects.count() == 6
    monkeypatch.setattr(rerating, "_write", write)
    assert run().changed == 4
    assert costs() == [120_000] * 10


def test_page_costs_the_same_few_queries_however_many_calls_are_in_it() -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            run(dry_run=True)
        return len(seen)

    price(1)
    add()
    one = queries()
    add(count=50)
    assert queries() == one <= 5


def test_hours_that_change_are_rolled_up_again_and_others_are_not() -> None:
    price(1)
    for at in (NOON, NOON + HOUR):
        add(at)
    add(NOON + 2 * HOUR, cost_nano_usd=120_000)
    rollups.roll_up_all()
    run()
    dirty = [row.hour for row in DirtyHour.objects.order_by("hour") if row.marks > row.rolled_up]
    assert dirty == [NOON, NOON + HOUR]


def test_sums_are_those_of_the_calls_as_they_cost_by_now() -> None:
    price(1)
    add(count=3)
    add(cost_nano_usd=None)
    rollups.roll_up_all()
    run()
    rollups.roll_up_all()
    sums = Rollup.objects.filter(grain="hour").aggregate(Sum("cost_nano_usd"), Sum("unpriced_calls"), Sum("calls"))
    assert sums == {"cost_nano_usd__sum": 4 * 120_000, "unpriced_calls__sum": 0, "calls__sum": 4}


@pytest.mark.parametrize(
    ("wrong", "message"), [({"end": NOON - 9 * DAY}, "begin before"), ({"reason": "  "}, "Say why")]
)
def test_run_that_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**wrong)
    assert not Rerating.objects.exists()


# --- the command ----------------------------------------------------------------------------------------------------
def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("rerate", *arguments, "--reason", "entered late", stdout=out)
    return out.getvalue()


@pytest.mark.parametrize(
    "time", [["--from", "1960-01-01"], ["--from", "0001-01-01T00:00+14:00", "--to", "9999-12-31T23:59-14:00"]]
)
def test_command_may_begin_before_all_calls_and_end_after_them(time: list[str]) -> None:
    price(10)
    add(NOON)
    assert command(*time).startswith("Looked at 1 call: the cost of 1 changed")


def test_command_prices_whole_days_and_says_what_changed() -> None:
    price(10)
    add(datetime(2026, 11, 1, tzinfo=UTC), cost_nano_usd=None)
    add(datetime(2026, 11, 2, 23, 59, tzinfo=UTC), cost_nano_usd=12_000_000)
    add(datetime(2026, 11, 3, tzinfo=UTC))
    out = command("--from", "2026-11-01", "--to", "2026-11-02")
    assert out.splitlines() == [
        "Looked at 2 calls: the cost of 2 changed, by -$0.0096 in all.",
        "  gpt: 2 calls, -$0.0096",
        "1 call had no cost before.",
    ]
    assert costs() == [1_200_000, 1_200_000, WRITTEN]
    assert Rerating.objects.get().reason == "entered late"


def test_command_can_only_look() -> None:
    price(10)
    add(provider="sold", model="unpriced")
    add(provider="own machine", model="unpriced")
    add()
    out = command("--from", "2026-11-20T00:00", "--dry-run")
    assert out.splitlines() == [
        "Looked at 3 calls: the cost of 1 would change, by +$0.0012 in all.",
        "  gpt: 1 call, +$0.0012",
        "1 call kept the cost they have: their provider is not there any more.",
        "1 call kept the cost they have: nobody knows a price for them.",
    ]
    assert not Adjustment.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "yesterday"), "is not a day"),
        (("--from", "2026-11-40"), "is not a day"),
        (("--from", "2026-11-02", "--to", "2026-11-01"), "begin before"),
        (("--from", "2026-11-01", "--model", "gtp"), "no call of a model named 'gtp'"),
    ],
)
def test_command_says_what_is_wrong(arguments: tuple[str, ...], message: str) -> None:
    add()
    with pytest.raises(CommandError, match=message):
        command(*arguments)
