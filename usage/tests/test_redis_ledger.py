"""What only a ledger in Redis can lose: Redis itself, and processes that share it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import redis as redis_client

from gateway_project.tests.services import RedisServer, Running
from usage.ledger import redis as redis_module
from usage.ledger import upkeep
from usage.ledger.base import LedgerAway, Ticket
from usage.ledger.redis import RedisLedger
from usage.limits import Holder, Holding
from usage.tests.test_ledger import admit, budget, claim, fits, limit, ticket, until

LEASE_US = 600_000


@pytest.fixture
def server(running_services: Running) -> RedisServer:
    return running_services.redis()


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What the books say was spent, by budget."""
    spent: dict[int, int] = {}
    monkeypatch.setattr(upkeep, "spent_until", lambda wanted: [spent.get(row.pk, 0) for row, _, _ in wanted])
    return spent


@pytest.fixture
async def make(
    server: RedisServer, books: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    monkeypatch.setattr(redis_module, "LEASE_US", LEASE_US)
    monkeypatch.setattr(redis_module, "BEAT_S", 0.1)
    url = server.database()
    async with AsyncExitStack() as stack:

        async def make(closed_us: int = 200_000) -> RedisLedger:
            ledger = RedisLedger(url, Holder(), closed_us=closed_us)
            await ledger.start()
            stack.push_async_callback(ledger.stop)
            return ledger

        yield make


def empty(ledger: RedisLedger) -> None:
    with redis_client.Redis.from_url(ledger._url) as client:
        client.flushdb()


async def die(ledger: RedisLedger) -> None:
    """As after kill -9: no word of farewell, and no more beats."""
    assert ledger._beating is not None
    ledger._beating.cancel()
    for task in list(ledger._tasks):
        task.cancel()
    await ledger.wire().close()


@contextmanager
def cut_off(ledger: RedisLedger) -> Iterator[None]:
    """The line is broken, and there is no new one inside the block."""

    async def refuse() -> None:
        raise LedgerAway("refused")

    wire: Any = ledger.wire()
    wire.connect = refuse
    wire._connection._writer.transport.abort()
    yield
    del wire.connect


async def test_emptied_redis_knows_again_what_the_books_say_and_what_is_under_way(
    make: Callable[..., Any], books: dict[int, int]
) -> None:
    one, two = await make(), await make()
    of = budget(100)
    here, there = ticket(), ticket()
    assert await one.hold(here, (claim(of, 30),)) is None
    assert await two.hold(there, (claim(of, 20),)) is None
    books[of.id] = 40
    empty(one)
    await until(lambda: told(one, of))
    assert not await fits(one, of, 11)
    assert await fits(one, of, 10)
    one.settle(here, 0, 0)
    await until(lambda: fits(two, of, 40))


async def told(ledger: RedisLedger, of: Any) -> bool:
    try:
        return not await fits(ledger, of, 60)
    except LedgerAway:
        return False


async def test_nothing_is_held_while_it_is_being_read(make: Callable[..., Any]) -> None:
    ledger = await make(closed_us=300_000)
    of = budget(100)
    assert await fits(ledger, of, 100)
    empty(ledger)
    ledger.parts.close_all()
    with pytest.raises(LedgerAway):
        await asyncio.wait_for(asyncio.shield(hold_at_once(ledger, of)), 0.15)


async def hold_at_once(ledger: RedisLedger, of: Any) -> None:
    try:
        async with asyncio.timeout(0.1):
            await ledger.hold(ticket(), (claim(of, 1),))
    except TimeoutError:
        raise LedgerAway("still closed") from None


async def test_books_that_cannot_be_read_keep_the_budget_closed(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    def away(wanted: object) -> list[int]:
        raise OperationalError

    ledger = await make()
    monkeypatch.setattr(upkeep, "spent_until", away)
    with pytest.raises(LedgerAway):
        await ledger.hold(ticket(), (claim(budget(100), 1),))


async def test_what_a_dead_process_held_is_settled_at_what_the_books_say(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, living = await make(), await make()
    of, call, lane = budget(100), ticket(), limit(parallel=1)
    assert await dying.hold(call, (claim(of, 80),)) is None
    assert not isinstance(await admit(dying, lane), tuple)
    in_the_books: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(
        upkeep, "_costs", lambda calls: {one: in_the_books[one] for one in calls if one in in_the_books}
    )
    await die(dying)
    await asyncio.sleep(LEASE_US / 1e6 + 0.3)
    assert not await fits(living, of, 21), "its journal is not found yet"
    in_the_books[call.call_id] = (50, 0)
    await until(lambda: fits(living, of, 50))
    assert not await fits(living, of, 51)


async def test_living_process_keeps_what_it_holds(make: Callable[..., Any]) -> None:
    one, two = await make(), await make()
    of, call = budget(100), ticket()
    assert await one.hold(call, (claim(of, 80),)) is None
    await asyncio.sleep(2 * LEASE_US / 1e6)
    assert not await fits(two, of, 21)


async def test_call_that_ended_while_redis_was_away_is_settled_later(
    make: Callable[..., Any], server: RedisServer
) -> None:
    ledger = await make()
    of, call = budget(100), ticket()
    assert await ledger.hold(call, (claim(of, 80),)) is None
    with cut_off(ledger):
        await asyncio.sleep(0.01)
        ledger.settle(call, 30, 0)
        await asyncio.sleep(0.05)
    await until(lambda: fits_or_not(ledger, of, 70))
    assert not await fits(ledger, of, 71)


async def fits_or_not(ledger: RedisLedger, of: Any, amount: int) -> bool:
    try:
        return await fits(ledger, of, amount)
    except LedgerAway:
        return False


async def test_what_was_served_without_a_hold_is_counted_when_redis_is_back(make: Callable[..., Any]) -> None:
    ledger = await make()
    of, call = budget(100), ticket()
    assert await fits(ledger, of, 100)
    with cut_off(ledger):
        await asyncio.sleep(0.01)
        with pytest.raises(LedgerAway):
            await ledger.hold(call, (claim(of, 80),))
        ledger.settle(call, 60, 0)
    await until(lambda: fits_or_not(ledger, of, 40))
    await asyncio.sleep(0.3)
    assert not await fits(ledger, of, 41)
    assert await fits(ledger, of, 40)


async def test_scripts_that_redis_has_forgotten_are_taught_again(make: Callable[..., Any]) -> None:
    ledger = await make()
    with redis_client.Redis.from_url(ledger._url) as client:
        client.script_flush()
    assert await fits(ledger, budget(100), 100)


async def test_no_redis_at_the_start_is_no_reason_not_to_start(books: dict[int, int]) -> None:
    ledger = RedisLedger("redis://127.0.0.1:1/0", Holder())
    await ledger.start()
    with pytest.raises(LedgerAway):
        await ledger.hold(ticket(), (claim(budget(100), 1),))
    await ledger.stop()


async def test_tokens_are_charged_once_though_the_upkeep_looks_while_they_are_being_told(
    make: Callable[..., Any],
) -> None:
    ledger = await make()
    rate = limit(tokens=6_000)
    call = await admit(ledger, rate, tokens=100)
    assert isinstance(call, Ticket)
    ledger.settle(call, 0, 2_000)
    await ledger._beat()
    seen = await admit(ledger, rate)
    assert isinstance(seen, Ticket)
    assert seen.tokens is not None
    assert 4_000 <= seen.tokens.remaining < 4_300


async def test_call_asks_once_before_and_once_after(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await make()
    of, lane, call = budget(100), limit(requests=10, tokens=1_000, parallel=5), ticket()
    assert await fits(ledger, of, 100)
    asked: list[str] = []
    ask = ledger.wire().ask
    monkeypatch.setattr(ledger.wire(), "ask", lambda script, *rest: (asked.append(script.name), ask(script, *rest))[1])
    assert await ledger.admit(call, Holding((), (lane,)), "192.0.2.1", 10, (claim(of, 60),)) is None
    assert call.claims
    ledger.settle(call, 50, 10)
    assert [name for name in asked if name != "beat"] == ["admit", "settle"]
    assert not await fits(ledger, of, 51)
