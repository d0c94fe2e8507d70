"""The contract of every ledger: in memory, in Redis, and in a cluster of three nodes."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from accounts.models import Team, User
from gateway_project.tests.services import Running
from usage.ledger import upkeep
from usage.ledger.base import Claim, Ledger, Refused, Spent, Ticket
from usage.ledger.memory import MemoryLedger
from usage.ledger.redis import RedisLedger
from usage.limits import BudgetSpec, Holder, Holding, LimitSpec
from usage.models import Budget

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ids = itertools.count(1)
CLOSED_US = 30_000  # there is nobody else who would have something under way
MakeLedger = Callable[[], Awaitable[Ledger]]


Books = list[tuple[int, int, int]]


@pytest.fixture(autouse=True)
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    """What reaches the books: of each call, when it came in, a budget, and what it took of it."""
    booked: Books = []
    settle = RedisLedger.settle

    def settle_and_book(self: RedisLedger, ticket: Ticket, nano_usd: int, tokens: int) -> None:
        if not ticket.is_settled:
            for claim in ticket.claims:
                booked.append((ticket.at_us, claim.budget.id, tokens if claim.budget.in_tokens else nano_usd))
        settle(self, ticket, nano_usd, tokens)

    def spent_until(wanted: list[tuple[Budget, int, int]]) -> list[int]:
        return [
            sum(amount for at_us, budget_id, amount in booked if budget_id == row.pk and start_us <= at_us < until_us)
            for row, start_us, until_us in wanted
        ]

    monkeypatch.setattr(RedisLedger, "settle", settle_and_book)
    monkeypatch.setattr(upkeep, "spent_until", spent_until)
    return booked


@pytest.fixture(params=["memory", "redis", "cluster"])
async def make_ledger(request: pytest.FixtureRequest, running_services: Running) -> AsyncIterator[MakeLedger]:
    """A ledger that begins empty; called again, the same one as another process sees it."""
    book = Holder()
    async with AsyncExitStack() as stack:
        url = ""
        if request.param == "redis":
            url = running_services.redis().database()
        elif request.param == "cluster":
            url = running_services.redis_cluster().empty()
        memory = MemoryLedger(book)

        async def make() -> Ledger:
            if not url:
                return memory
            ledger = RedisLedger(url, book, closed_us=CLOSED_US)
            await ledger.start()
            stack.push_async_callback(ledger.stop)
            return ledger

        yield make


@pytest.fixture
async def ledger(make_ledger: MakeLedger) -> Ledger:
    return await make_ledger()


OWNERS: dict[str, Any] = {"team": Team, "user": User}


def budget(limit: int, *, tokens: bool = False, scope: str = "team", owner: int = 7, fallback: str = "") -> BudgetSpec:
    unit = Budget.Unit.TOKENS if tokens else Budget.Unit.USD
    row = Budget(pk=next(ids), scope=scope, unit=unit, limit=limit, per="total", counts_from=LONG_AGO)
    if scope in OWNERS:
        setattr(row, scope, OWNERS[scope](pk=owner))
    return BudgetSpec(row, "UTC")


def claim(of: BudgetSpec, amount: int, *, counted_from: int = 1) -> Claim:
    start_us, end_us = of.window_us(now_us())
    return Claim(of, start_us, end_us, counted_from, of.limit, amount)


def now_us() -> int:
    return time.time_ns() // 1000


def ticket(key_id: int = 1) -> Ticket:
    return Ticket(f"{next(ids):032x}", key_id, now_us())


def limit(owner: str = "t7", **rates: Any) -> LimitSpec:
    fields = {"model": "", "requests": None, "tokens": None, "parallel": None, "per_key": False, "whose": "your team"}
    scope = owner or "ip"
    return LimitSpec(owner=owner, name=f"{scope}/{next(ids)}", **{**fields, **rates})


async def admit(
    ledger: Ledger, *limits: LimitSpec, tokens: int = 0, ip: str = "192.0.2.1", key: int = 1
) -> Refused | Ticket:
    asked = ticket(key)
    refused = await ledger.admit(asked, Holding((), limits), ip, tokens)
    if refused is not None:
        ledger.settle(asked, 0, 0)
        return refused
    return asked


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 10
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def fits(ledger: Ledger, of: BudgetSpec, amount: int) -> bool:
    asked = ticket()
    refused = await ledger.hold(asked, (claim(of, amount),))
    ledger.settle(asked, 0, 0)
    return refused is None


# --- budgets ---------------------------------------------------------------------------------------------------------


async def test_budget_is_never_exceeded_by_calls_side_by_side(ledger: Ledger) -> None:
    of = budget(1_000)
    refused = await asyncio.gather(*(ledger.hold(ticket(), (claim(of, 50),)) for _ in range(200)))
    assert refused.count(None) == 20
    assert all(one is None or one.is_held for one in refused)


async def test_two_processes_share_a_budget(make_ledger: MakeLedger) -> None:
    one, two = await make_ledger(), await make_ledger()
    of = budget(1_000)
    calls = (ledger.hold(ticket(), (claim(of, 50),)) for ledger in (one, two) for _ in range(100))
    refused = await asyncio.gather(*calls)
    assert refused.count(None) == 20


async def test_what_a_call_did_not_use_is_free_again(ledger: Ledger) -> None:
    of, call = budget(100), ticket()
    assert await ledger.hold(call, (claim(of, 100),)) is None
    assert not await fits(ledger, of, 61)
    ledger.settle(call, 40, 0)
    await until(lambda: fits(ledger, of, 60))
    assert not await fits(ledger, of, 61)


async def test_spent_money_is_told_from_held_money(ledger: Ledger) -> None:
    of, call = budget(100), ticket()
    await ledger.hold(call, (claim(of, 60),))
    held = await ledger.hold(ticket(), (claim(of, 60),))
    assert isinstance(held, Spent)
    assert held.is_held
    ledger.settle(call, 60, 0)

    async def is_spent() -> bool:
        refused = await ledger.hold(ticket(), (claim(of, 60),))
        return refused is not None and not refused.is_held

    await until(is_spent)


async def test_call_is_settled_once(ledger: Ledger) -> None:
    of, call = budget(100), ticket()
    await ledger.hold(call, (claim(of, 50),))
    for _ in range(3):
        ledger.settle(call, 50, 0)
    await until(lambda: fits(ledger, of, 50))
    assert not await fits(ledger, of, 51)


async def test_cost_above_the_hold_is_booked_in_full(ledger: Ledger) -> None:
    of, call = budget(100), ticket()
    await ledger.hold(call, (claim(of, 10),))
    ledger.settle(call, 95, 0)

    async def has_no_room() -> bool:
        return not await fits(ledger, of, 6)

    await until(has_no_room)
    await until(lambda: fits(ledger, of, 5))


async def test_all_budgets_or_none(ledger: Ledger) -> None:
    """In a cluster these three are in three parts."""
    wide = budget(1_000, scope="user", owner=3), budget(1_000, tokens=True, scope="installation")
    narrow = budget(10)
    refused = await ledger.hold(ticket(), (claim(wide[0], 50), claim(narrow, 50), claim(wide[1], 50)))
    assert refused is not None
    assert refused.budget is narrow
    for one in wide:
        assert await fits(ledger, one, 1_000)


async def test_tokens_and_money_are_settled_each_with_its_own(ledger: Ledger) -> None:
    money, tokens, call = budget(100), budget(100, tokens=True), ticket()
    await ledger.hold(call, (claim(money, 50), claim(tokens, 50)))
    ledger.settle(call, 30, 20)
    await until(lambda: fits(ledger, money, 70))
    await until(lambda: fits(ledger, tokens, 80))
    assert not await fits(ledger, money, 71)
    assert not await fits(ledger, tokens, 81)


async def test_claim_without_a_limit_is_counted_all_the_same(ledger: Ledger) -> None:
    of, call = budget(100), ticket()
    free = claim(of, 500)._replace(limit=None)
    assert await ledger.hold(call, (free,)) is None
    ledger.settle(call, 300, 0)

    async def is_spent() -> bool:
        refused = await ledger.hold(ticket(), (claim(of, 1),))
        return refused is not None and not refused.is_held

    await until(is_spent)


async def test_what_costs_nothing_fits_into_a_budget_that_is_overdrawn(ledger: Ledger) -> None:
    of = budget(100)
    call = ticket()
    assert await ledger.hold(call, (claim(of, 100),)) is None
    ledger.settle(call, 150, 0)
    assert await fits(ledger, of, 0)
    assert not await fits(ledger, of, 1)


async def admit_with(ledger: Ledger, *claims: Claim) -> Ticket:
    asked = ticket()
    assert await ledger.admit(asked, Holding((), (limit(requests=100),)), "192.0.2.1", 0, claims) is None
    return asked


async def test_what_was_held_with_the_admission_is_not_held_again(ledger: Ledger) -> None:
    of = budget(100)
    call = await admit_with(ledger, claim(of, 60))
    assert await ledger.hold(call, (claim(of, 60),)) is None
    assert await fits(ledger, of, 40)
    assert not await fits(ledger, of, 41)


@pytest.mark.parametrize(("first", "then"), [(80, 30), (30, 80)])
async def test_what_the_policies_have_changed_is_held_instead(ledger: Ledger, first: int, then: int) -> None:
    of = budget(100)
    call = await admit_with(ledger, claim(of, first))
    assert await ledger.hold(call, (claim(of, then),)) is None
    assert await fits(ledger, of, 100 - then)
    assert not await fits(ledger, of, 101 - then)
    ledger.settle(call, 25, 0)
    assert await fits(ledger, of, 75)
    assert not await fits(ledger, of, 76)


async def test_call_without_room_is_admitted_and_told_when_it_holds(ledger: Ledger) -> None:
    of = budget(100)
    call = await admit_with(ledger, claim(of, 101))
    assert call.claims == ()
    assert await ledger.hold(call, (claim(of, 101),)) is not None
    assert await fits(ledger, of, 100)


async def test_call_that_has_become_too_large_holds_nothing_any_more(ledger: Ledger) -> None:
    of = budget(100)
    call = await admit_with(ledger, claim(of, 60))
    assert await ledger.hold(call, (claim(of, 101),)) is not None
    assert await fits(ledger, of, 100)
    ledger.settle(call, 0, 0)
    assert await fits(ledger, of, 100)


async def test_call_that_the_rates_refuse_holds_nothing(ledger: Ledger) -> None:
    of, asked = budget(100), ticket()
    refused = await ledger.admit(asked, Holding((), (limit(requests=0),)), "192.0.2.1", 0, (claim(of, 60),))
    assert isinstance(refused, Refused)
    assert await fits(ledger, of, 100)
    ledger.settle(asked, 0, 0)
    assert await fits(ledger, of, 100)


# --- rates -----------------------------------------------------------------------------------------------------------


async def test_minutes_worth_of_requests_may_come_at_once_and_no_more(ledger: Ledger) -> None:
    rate = limit(requests=30)
    found = [await admit(ledger, rate) for _ in range(31)]
    assert [isinstance(one, Ticket) for one in found] == [True] * 30 + [False]
    refused = found[-1]
    assert isinstance(refused, Refused)
    assert refused.what == "requests"
    assert 0 < refused.wait_ns <= 2_000_000_000  # one of thirty a minute


async def test_call_fits_again_when_the_wait_is_over(ledger: Ledger) -> None:
    rate = limit(requests=600)
    while isinstance(refused := await admit(ledger, rate), Ticket):
        pass
    await asyncio.sleep(refused.wait_ns / 1e9 + 0.002)
    assert isinstance(await admit(ledger, rate), Ticket)


async def test_levels_say_what_is_left(ledger: Ledger) -> None:
    rate = limit(requests=60, tokens=1_000)
    first = await admit(ledger, rate, tokens=400)
    second = await admit(ledger, rate, tokens=400)
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    assert first.requests is not None
    assert second.requests is not None
    assert second.tokens is not None
    assert (first.requests.limit, first.requests.remaining) == (60, 59)
    assert second.requests.remaining == 58
    assert (second.tokens.limit, second.tokens.remaining) == (1_000, pytest.approx(200, abs=20))
    assert 1_000_000_000 < second.requests.reset_ns <= 2_000_000_000


async def test_tokens_that_were_not_used_come_back_and_those_above_are_charged(ledger: Ledger) -> None:
    rate = limit(tokens=6_000)
    call = await admit(ledger, rate, tokens=6_000)
    assert isinstance(call, Ticket)
    assert isinstance(await admit(ledger, rate, tokens=3_000), Refused)
    ledger.settle(call, 0, 1_000)

    async def has_room() -> bool:
        return isinstance(await admit(ledger, rate, tokens=3_000), Ticket)

    await until(has_room)


async def test_prompt_larger_than_the_limit_waits_for_an_empty_bucket_only(ledger: Ledger) -> None:
    rate = limit(tokens=100)
    assert isinstance(await admit(ledger, rate, tokens=5_000), Ticket)
    assert isinstance(await admit(ledger, rate, tokens=5_000), Refused)


async def test_parallel_calls_are_counted_down_at_their_end(ledger: Ledger) -> None:
    rate = limit(parallel=2)
    one, two = await admit(ledger, rate), await admit(ledger, rate)
    refused = await admit(ledger, rate)
    assert isinstance(one, Ticket)
    assert isinstance(two, Ticket)
    assert isinstance(refused, Refused)
    assert refused.what == "parallel"
    ledger.settle(one, 0, 0)

    async def has_room() -> bool:
        return isinstance(await admit(ledger, rate), Ticket)

    await until(has_room)


async def test_refused_call_takes_nothing_anywhere(ledger: Ledger) -> None:
    wide, narrow = limit("i", requests=10, parallel=5), limit("t7", requests=1)
    assert isinstance(await admit(ledger, wide, narrow), Ticket)
    for _ in range(5):
        assert isinstance(await admit(ledger, wide, narrow), Refused)
    other = limit("t8", requests=100)

    async def nine_are_left() -> bool:
        seen = await admit(ledger, wide, other)
        if not isinstance(seen, Ticket):
            return False  # what the refused ones took is given back beside them
        ledger.settle(seen, 0, 0)
        return seen.requests is not None and seen.requests.remaining >= 5

    await until(nine_are_left)


async def test_nothing_fits_into_a_limit_of_zero(ledger: Ledger) -> None:
    for rate in (limit(requests=0), limit(tokens=0), limit(parallel=0)):
        assert isinstance(await admit(ledger, rate, tokens=1), Refused)


async def test_each_address_has_a_bucket_of_its_own(ledger: Ledger) -> None:
    rate = limit("", requests=1)
    assert isinstance(await admit(ledger, rate, ip="192.0.2.1"), Ticket)
    assert isinstance(await admit(ledger, rate, ip="192.0.2.1"), Refused)
    assert isinstance(await admit(ledger, rate, ip="2001:db8::1"), Ticket)


async def test_greedy_key_does_not_starve_the_others_of_its_team(ledger: Ledger) -> None:
    """Both ask all the time; the bucket is full, and what trickles in is shared."""
    rate = limit(requests=1_200, per_key=True)
    while isinstance(await admit(ledger, rate, key=1), Ticket):
        pass
    admitted = {1: 0, 2: 0}
    ends = time.monotonic() + 10
    while sum(admitted.values()) < 20 and time.monotonic() < ends:
        for key in (1, 1, 1, 1, 2):
            admitted[key] += isinstance(await admit(ledger, rate, key=key), Ticket)
        await asyncio.sleep(0.005)
    assert admitted[2] >= admitted[1]
    assert admitted[2] >= 10


async def test_key_alone_gets_all_of_its_team(ledger: Ledger) -> None:
    rate = limit(requests=40, per_key=True)
    assert [isinstance(await admit(ledger, rate), Ticket) for _ in range(41)] == [True] * 40 + [False]


async def test_key_that_is_blocked_again_and_again_has_to_wait(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.blocked(5, 3, 30)

    async def has_to_wait() -> bool:
        return ledger.waits.of(5) > 0

    await until(has_to_wait)
    assert 28e9 < ledger.waits.of(5) <= 30e9
    assert ledger.waits.of(6) == 0


async def test_one_block_is_no_pattern(ledger: Ledger) -> None:
    ledger.blocked(5, 3, 30)
    ledger.blocked(5, 3, 30)
    await asyncio.sleep(0.05)
    assert ledger.waits.of(5) == 0
