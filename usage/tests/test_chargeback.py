"""Who pays for a month: every nano-dollar of it, once."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import Sum

from accounts.models import Team, User
from accounts.time_ids import first_id
from usage import chargeback as module
from usage.chargeback import BREAKDOWNS, BadMonth, Breakdown, Chargeback, Used, chargeback, months, parse_month, table
from usage.currency import USD, Currency
from usage.models import Adjustment, DirtyHour, UsageEvent
from usage.rollups import roll_up_all
from usage.services import insert_events, mark_hours
from usage.tests.events import add, row

pytestmark = pytest.mark.django_db

NOVEMBER = date(2026, 11, 1)
START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
EURO = Currency("EUR", Decimal("0.861234"))


def adjust(event: UsageEvent, delta_nano_usd: int, priced_calls: int = 0) -> None:
    """As a re-rating does it: with the time of the event."""
    Adjustment.objects.create(
        id=uuid.UUID(int=first_id(event.at).int | random.getrandbits(60)), event_id=event.pk, at=event.at,
        key_id=event.key_id, user_id=event.user_id, team_id=event.team_id, model=event.model,
        provider=event.provider, status=event.status, delta_nano_usd=delta_nano_usd, priced_calls=priced_calls,
    )  # fmt: skip
    mark_hours([event.at.replace(minute=0, second=0, microsecond=0)])


def lines(found: Chargeback) -> list[tuple[str, str, str, int]]:
    return [(line.cost_center, line.team, line.part, line.used.cost_nano_usd) for line in found.lines]


def test_sums_are_those_of_the_books(research: Team, alice: User) -> None:
    """Random calls around a month, some of them priced again: the month is the sum of its events and adjustments."""
    dice = random.Random(4)
    sales = Team.objects.create(name="sales")
    rows = [
        row(
            dice.choice([START, END]) + dice.randrange(-2, 3) * timedelta(hours=11, microseconds=1),
            team_id=dice.choice([research.pk, sales.pk, 4711, None]),
            user_id=dice.choice([alice.pk, None]),
            key_id=dice.choice([1, 2, None]),
            model=dice.choice(["gpt", "llama", ""]),
            status=dice.choice([200, 200, 429, 502, 499]),
            cost_nano_usd=dice.choice([None, dice.randrange(10**12)]),
            prompt_tokens=dice.randrange(10**6),
        )
        for _ in range(400)
    ]
    insert_events(rows)
    for event in UsageEvent.objects.order_by("pk")[::7]:
        adjust(event, dice.randrange(-(10**9), 10**9), priced_calls=int(event.cost_nano_usd is None))
    roll_up_all()

    month = UsageEvent.objects.filter(at__gte=START, at__lt=END)
    adjustments = Adjustment.objects.filter(at__gte=START, at__lt=END)
    own = month.aggregate(cost=Sum("cost_nano_usd"), prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens"))
    later = adjustments.aggregate(cost=Sum("delta_nano_usd"), priced=Sum("priced_calls"))
    expected = Used(
        calls=month.count(),
        unpriced_calls=month.filter(cost_nano_usd=None).count() - later["priced"],
        prompt_tokens=own["prompt"],
        completion_tokens=own["completion"],
        cost_nano_usd=own["cost"] + later["cost"],
    )
    assert expected.calls > 100
    for breakdown in BREAKDOWNS:
        found = chargeback(NOVEMBER, breakdown)
        assert found.total == expected
        assert sum((line.used for line in found.lines), Used()) == expected
        assert not found.unfinished


def test_lines_are_by_cost_centre_and_team(research: Team) -> None:
    sales = Team.objects.create(name="sales")
    for team_id, cost in ((research.pk, 5), (sales.pk, 7), (4711, 11), (None, 13)):
        add(START, team_id=team_id, cost_nano_usd=cost)
    roll_up_all()
    assert lines(chargeback(NOVEMBER)) == [
        ("4711", "research", "", 5),
        ("", "(deleted team 4711)", "", 11),
        ("", "sales", "", 7),
        ("", "(no team)", "", 13),
    ]


@pytest.mark.parametrize(
    ("breakdown", "parts"),
    [("user", ["(no user)", "alice"]), ("key", ["(no key)", "(deleted key 1)"]), ("model", ["gpt", "llama"])],
)
def test_team_can_be_broken_down(breakdown: Breakdown, parts: list[str], research: Team, alice: User) -> None:
    add(START, team_id=research.pk, cost_nano_usd=9)
    add(START, team_id=research.pk, cost_nano_usd=4, user_id=alice.pk, key_id=1, model="llama")
    roll_up_all()
    found = chargeback(NOVEMBER, breakdown)
    assert lines(found) == [("4711", "research", parts[0], 9), ("4711", "research", parts[1], 4)]


@pytest.mark.parametrize("breakdown", ["user", "key"])
def test_key_that_moved_is_charged_to_each_team_for_its_own_time(
    breakdown: Breakdown, research: Team, alice: User, bob: User, django_assert_max_num_queries: Any
) -> None:
    sales = Team.objects.create(name="sales", cost_center="4712")
    for day, team, user in ((0, research, alice), (1, research, bob), (2, sales, bob)):
        add(START + timedelta(days=day), key_id=1, team_id=team.pk, user_id=user.pk, cost_nano_usd=10**day)
    roll_up_all()
    with django_assert_max_num_queries(5) as queries:
        found = chargeback(NOVEMBER, breakdown)
    costs = [(line.team, line.used.cost_nano_usd) for line in found.lines]
    assert (
        costs
        == {
            "user": [("research", 10), ("research", 1), ("sales", 100)],
            "key": [("research", 11), ("sales", 100)],
        }[breakdown]
    )
    assert not [query for query in queries if "usage_rollup" in query["sql"]]


def test_month_is_a_calendar_month_in_utc() -> None:
    for at in (START - timedelta(microseconds=1), START, END - timedelta(microseconds=1), END):
        add(at)
    roll_up_all()
    assert [chargeback(month).total.calls for month in (date(2026, 10, 1), NOVEMBER, date(2026, 12, 1))] == [1, 2, 1]


def test_what_is_not_added_up_yet_is_said() -> None:
    add(START, count=2)
    assert (chargeback(NOVEMBER).unfinished, chargeback(date(2026, 10, 1)).unfinished) == (1, 0)
    roll_up_all()
    assert chargeback(NOVEMBER).unfinished == 0
    assert DirtyHour.objects.exists()


def test_report_takes_five_queries(research: Team, alice: User, django_assert_max_num_queries: Any) -> None:
    add(START, team_id=research.pk, user_id=alice.pk)
    roll_up_all()
    with django_assert_max_num_queries(5):
        chargeback(NOVEMBER, "user")


def test_amounts_in_another_currency_add_up_too(research: Team) -> None:
    for index in range(7):
        add(START, team_id=index + 1, cost_nano_usd=333_333_333)
    roll_up_all()
    found = chargeback(NOVEMBER)
    *_, dollars, euros = zip(*table(found, EURO), strict=True)
    assert sum(dollars) == USD.amount(found.total.cost_nano_usd)
    assert sum(euros) == EURO.amount(found.total.cost_nano_usd)


# --- months ---------------------------------------------------------------------------------------------------------
def test_month_is_a_year_and_a_number() -> None:
    assert parse_month("2026-11") == NOVEMBER


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "2026-1", "11/2026", "0001-01", "9999-12", "２０２６-11"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadMonth, match="such as 2026-11"):
        parse_month(text)


def test_months_offered_go_back_to_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_month", lambda: date(2027, 1, 1))
    assert months() == [date(2027, 1, 1)]
    add(START)
    roll_up_all()
    assert months() == [date(2027, 1, 1), date(2026, 12, 1), NOVEMBER]
