"""What was spent of a budget, by the books: from sums where they are up to date, from events where they are not."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import ApiKey, Team, User
from accounts.time_ids import to_unix_us
from usage import retention, rollups
from usage.models import Adjustment, Budget, MoneySettings, TopUp, UsageEvent
from usage.services import mark_hours, new_event_id
from usage.spending import standings
from usage.tests.events import add

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def key(alice: User, research: Team) -> ApiKey:
    return ApiKey.objects.create(name="laptop", public_id="abcdefghijkl", user=alice, team=research)


def budget(scope: str = "key", unit: str = "usd", per: str = "day", **fields: object) -> Budget:
    return Budget.objects.create(scope=scope, unit=unit, per=per, limit=10_000, counts_from=LONG_AGO, **fields)


def spent(*budgets: Budget) -> list[int]:
    return [standing.spent for standing in standings(budgets, NOW)]


def test_only_calls_of_its_owner_and_its_window_count(key: ApiKey, research: Team) -> None:
    add(NOW - HOUR, key_id=key.pk, team_id=research.pk, cost_nano_usd=100)
    add(NOW - 2 * HOUR, key_id=key.pk + 1, team_id=research.pk, cost_nano_usd=20)
    add(NOW - 24 * HOUR, key_id=key.pk, team_id=research.pk, cost_nano_usd=3)
    assert spent(
        budget(key=key), budget("team", team=research), budget("installation"), budget(key=key, per="total")
    ) == [100, 120, 120, 103]


def test_model_narrows_it(key: ApiKey) -> None:
    add(NOW, key_id=key.pk, model="gpt", cost_nano_usd=5)
    add(NOW, key_id=key.pk, model="other", cost_nano_usd=70)
    assert spent(budget(key=key, model="other"), budget(key=key)) == [70, 75]


@pytest.mark.parametrize("scope", ["installation", "team", "user", "key"])
def test_model_narrows_it_whoevers_calls_count(scope: str, key: ApiKey, research: Team, alice: User) -> None:
    """By subtotals without a model, and with one."""
    its = {"key_id": key.pk, "team_id": research.pk, "user_id": alice.pk}
    add(NOW - 3 * HOUR, model="gpt", cost_nano_usd=5, **its)
    add(NOW - 2 * HOUR, model="other", cost_nano_usd=70, **its)
    if scope != "installation":
        add(NOW - 2 * HOUR, model="other", cost_nano_usd=1_000)
    rollups.roll_up_all()
    owner = {} if scope == "installation" else {scope: {"team": research, "user": alice, "key": key}[scope]}
    narrow, wide = budget(scope, model="other", **owner), budget(scope, **owner)
    assert spent(narrow, wide, budget(scope, model="none", **owner)) == [70, 75, 0]


def test_tokens_of_prompt_and_answer_count(key: ApiKey) -> None:
    add(NOW, count=2, key_id=key.pk, prompt_tokens=100, completion_tokens=20)
    assert spent(budget(key=key, unit="tokens")) == [240]


def test_unpriced_call_costs_nothing(key: ApiKey) -> None:
    add(NOW, key_id=key.pk, cost_nano_usd=None)
    assert spent(budget(key=key)) == [0]


@pytest.mark.parametrize("rolled_up", ["nothing", "all", "then more"])
def test_sums_and_events_together_count_each_call_once(key: ApiKey, rolled_up: str) -> None:
    for hours in range(12):
        add(NOW - hours * HOUR, key_id=key.pk, cost_nano_usd=10)
    if rolled_up != "nothing":
        rollups.roll_up_all()
    late = 0
    if rolled_up == "then more":
        add(NOW - 5 * HOUR, count=3, key_id=key.pk, cost_nano_usd=10)
        late = 30
    assert spent(budget(key=key), budget(key=key, per="week")) == [120 + late, 120 + late]


def test_day_that_begins_within_an_hour_of_the_world(key: ApiKey) -> None:
    """In Kolkata, 2026-11-20 begins at 18:30 UTC of the day before."""
    began = datetime(2026, 11, 19, 18, 30, tzinfo=UTC)
    add(began - timedelta(minutes=1), key_id=key.pk, cost_nano_usd=1_000)
    add(began + timedelta(minutes=1), key_id=key.pk, cost_nano_usd=7)
    rollups.roll_up_all()
    assert spent(budget(key=key, timezone="Asia/Kolkata")) == [7]


def test_only_the_window_counts_on_the_hour_too(key: ApiKey) -> None:
    """Then there is no rest of an hour to be read from events."""
    noon = NOW.replace(minute=0)
    add(noon - 24 * HOUR, key_id=key.pk, cost_nano_usd=1_000)
    add(noon - 2 * HOUR, key_id=key.pk, cost_nano_usd=7)
    rollups.roll_up_all()
    assert [standing.spent for standing in standings([budget(key=key), budget("installation")], noon)] == [7, 7]


def test_adjustment_counts_at_the_time_of_its_event(key: ApiKey) -> None:
    add(NOW - HOUR, key_id=key.pk, cost_nano_usd=100)
    at = NOW - HOUR
    Adjustment.objects.create(
        id=new_event_id(to_unix_us(at)), event_id=new_event_id(1), at=at, key_id=key.pk, model="gpt", provider="openai",
        status=200, delta_nano_usd=-40,
    )  # fmt: skip
    mark_hours([at.replace(minute=0)])
    assert spent(budget(key=key)) == [60]
    rollups.roll_up_all()
    assert spent(budget(key=key)) == [60]


def test_top_up_raises_the_limit_of_its_window(key: ApiKey) -> None:
    of = budget(key=key)
    TopUp.objects.create(budget=of, amount=500, window_start=NOW.replace(hour=0, minute=0), reason="exam")
    TopUp.objects.create(budget=of, amount=9_000, window_start=NOW - timedelta(days=3), reason="long ago")
    (standing,) = standings([of], NOW)
    assert (standing.limit, standing.left) == (10_500, 10_500)


def test_time_zone_of_the_installation_holds_where_a_budget_names_none(key: ApiKey) -> None:
    MoneySettings.objects.create(timezone="Asia/Tokyo")
    (tokyo, berlin) = standings([budget(key=key), budget(key=key, timezone="Europe/Berlin")], NOW)
    assert (tokyo.window.start.hour, berlin.window.start.hour) == (15, 23)


@pytest.mark.parametrize("seed", range(3))
def test_every_budget_is_what_its_calls_add_up_to(seed: int, key: ApiKey, research: Team, alice: User) -> None:
    """Of random calls, some of them rolled up, some not yet, some late."""
    pick = random.Random(seed).choice
    some = [
        budget(scope, unit, per, model=model, **owner)
        for scope, owner in (("key", {"key": key}), ("team", {"team": research}), ("user", {"user": alice}),
                             ("installation", {}))
        for unit in ("usd", "tokens")
        for per in ("day", "month", "total")
        for model in ("", "gpt")
    ]  # fmt: skip
    windows = [standing.window for standing in standings(some, NOW)]
    expected = [0] * len(some)
    for _ in range(4):
        for _ in range(20):
            at = NOW - pick([0, 1, 11, 13, 100, 400, 2_000]) * HOUR - timedelta(minutes=pick([0, 7, 29, 31]))
            its: dict[str, int | None] = {
                "key_id": pick([key.pk, None]), "team_id": pick([research.pk, 99]), "user_id": pick([alice.pk, None])
            }  # fmt: skip
            cost, tokens, model = pick([None, 1, 10**15]), pick([0, 5]), pick(["gpt", "other"])
            add(at, model=model, cost_nano_usd=cost, prompt_tokens=tokens, completion_tokens=1, **its)
            for index, (of, window) in enumerate(zip(some, windows, strict=True)):
                theirs = of.scope == "installation" or its[f"{of.scope}_id"] == of.owner_id
                if theirs and of.model in ("", model) and at >= window.start:
                    expected[index] += (cost or 0) if of.unit == "usd" else tokens + 1
        pick([rollups.roll_up_all, lambda: rollups.roll_up(2), lambda: None])()
        assert spent(*some) == expected


def test_number_of_queries_does_not_grow_with_the_budgets(key: ApiKey, django_assert_max_num_queries: object) -> None:
    some = [budget(key=key) for _ in range(30)]
    with django_assert_max_num_queries(9):  # type: ignore[operator]
        standings(some, NOW)


def test_number_of_queries_does_not_grow_with_the_windows_either(
    key: ApiKey, research: Team, alice: User, django_assert_max_num_queries: object
) -> None:
    """A budget without an end begins at a moment of its own."""
    add(NOW - HOUR, key_id=key.pk, team_id=research.pk, user_id=alice.pk, cost_nano_usd=100)
    some = [
        budget(scope, per=per, **owner)
        for scope, owner in (
            ("key", {"key": key}),
            ("team", {"team": research}),
            ("user", {"user": alice}),
            ("installation", {}),
        )
        for per in ("hour", "day", "week", "month", "total")
    ]
    begun = [
        Budget(scope="key", key=key, unit="usd", per="total", limit=1, counts_from=NOW - n * HOUR) for n in range(30)
    ]
    with django_assert_max_num_queries(9):  # type: ignore[operator]
        found = [standing.spent for standing in standings([*some, *begun], NOW)]
    assert found == [0, 100, 100, 100, 100] * 4 + [0] + [100] * 29


def test_what_was_deleted_for_its_age_still_counts_on_a_total(key: ApiKey) -> None:
    """The events of a hundred days ago are gone, and so are their sums by hour; those by day stay."""
    MoneySettings.objects.create(events_kept_days=40, rollups_kept_days=60)
    now = datetime.now(UTC)
    for days in (100, 50, 1):
        add(now - timedelta(days=days), key_id=key.pk, cost_nano_usd=10)
    rollups.roll_up_all()
    of = budget(key=key, per="total")
    assert standings([of])[0].spent == 30
    retention.prune()
    assert UsageEvent.objects.count() == 1
    assert standings([of])[0].spent == 30
    add(now - timedelta(days=50), key_id=key.pk, cost_nano_usd=10)
    assert standings([of])[0].spent == 40
