"""Budgets in force after a re-rating: what a ledger has counted itself and what it reads of the books stay one sum."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone

from accounts import versions
from accounts.models import Team
from accounts.time_ids import EPOCH, MICROSECOND
from gateway_project.tests.services import Running
from usage import rerating
from usage.ledger.base import Claim, Ledger, Spent, Ticket
from usage.ledger.memory import MemoryLedger
from usage.ledger.redis import RedisLedger
from usage.limits import Holder
from usage.models import Budget, Rerating
from usage.prices import set_price
from usage.services import new_event_id
from usage.spending import standings
from usage.tests.events import add

pytestmark = pytest.mark.django_db(transaction=True)

# One call of usage.tests.events: 100 tokens in, 20 out, written down as 1000 nano-USD; at a dollar a million 120,000.
WRITTEN, RERATED = 1_000, 120_000
TOKENS = 120
LIMIT = 10**9
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerating, "_prices_ids", lambda: {"openai": "openai"})


class Process:
    """A web process with its ledger, as far as budgets go. There is one budget."""

    def __init__(self, holder: Holder, ledger: Ledger) -> None:
        self.holder = holder
        self.ledger = ledger

    async def look(self) -> None:
        """As the watch does when the version of the limits has changed."""
        await sync_to_async(self.holder.refresh)()

    def claim(self, amount: int) -> Claim:
        (spec,) = self.holder.current.budgets
        start_us, end_us = spec.window_us(time.time_ns() // 1000)
        return Claim(spec, start_us, end_us, self.holder.current.counted_from[spec.id], spec.limit, amount)

    async def call(self, team: Team) -> None:
        """One that is held, settled at what calls cost before they are priced again, and soon in the books."""
        at_us = time.time_ns() // 1000
        ticket = Ticket(new_event_id(at_us), 1, at_us)
        assert await self.ledger.hold(ticket, (self.claim(1),)) is None
        self.ledger.settle(ticket, WRITTEN, TOKENS)
        await sync_to_async(add)(EPOCH + at_us * MICROSECOND, team_id=team.pk, cost_nano_usd=WRITTEN)

    async def spent(self) -> int:
        """What the ledger takes for spent: by the largest call that it would let begin."""
        low, high = 0, LIMIT + 1
        while low + 1 < high:
            middle = (low + high) // 2
            asked = Ticket(new_event_id(time.time_ns() // 1000), 1, time.time_ns() // 1000)
            refused = await self.ledger.hold(asked, (self.claim(middle),))
            self.ledger.settle(asked, 0, 0)
            if isinstance(refused, Spent) and not refused.is_held:  # a settlement may be on its way to Redis
                high = middle
            else:
                low = middle
        return LIMIT - low

    async def says(self, amount: int) -> None:
        """It does within a few seconds, and so do the books."""
        deadline = time.monotonic() + 5
        while (spent := await self.spent()) != amount and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            await sync_to_async(self.holder.reread)()
        assert spent == amount == await sync_to_async(by_the_books)()


def by_the_books() -> int:
    return standings(Budget.objects.all())[0].spent


def rerate(dollars: int) -> None:
    """Every call, to so many dollars a million tokens."""
    usd, now = Decimal(dollars), timezone.now()
    set_price("gpt", valid_from=now - 300 * DAY, input_usd_per_mtok=usd, output_usd_per_mtok=usd)
    rerating.rerate(now - 400 * DAY, now + DAY, reason="test")


@pytest.fixture(params=["memory", "redis", "cluster"])
async def start(request: pytest.FixtureRequest, running_services: Running) -> AsyncIterator[Any]:
    """Starts a process; those of one test share their Redis."""
    url = ""
    if request.param == "redis":
        url = running_services.redis().database()
    elif request.param == "cluster":
        url = running_services.redis_cluster().empty()
    async with AsyncExitStack() as stack:

        async def start() -> Process:
            holder = Holder(reads_books=not url)
            await sync_to_async(holder.refresh)()
            if not url:
                return Process(holder, MemoryLedger(holder))
            ledger = RedisLedger(url, holder, closed_us=30_000)
            await ledger.start()
            stack.push_async_callback(ledger.stop)
            return Process(holder, ledger)

        yield start
    await sync_to_async(lambda: connection.close())()  # of its own thread


def budget(team: Team, **changed: Any) -> Budget:
    return Budget.objects.create(**({"scope": "team", "team": team, "limit": LIMIT, "per": "month"} | changed))


async def test_calls_of_before_and_after_the_ledger_began_cost_what_they_do_by_now(start: Any, research: Team) -> None:
    await sync_to_async(budget)(research)
    await sync_to_async(add)(timezone.now() - timedelta(seconds=1), 3, team_id=research.pk, cost_nano_usd=WRITTEN)
    process = await start()
    await process.call(research)
    await asyncio.sleep(1.7)  # from then on the ledger counts them itself
    await process.call(research)
    await process.says(5 * WRITTEN)
    for dollars in (1, 7, 0):
        await sync_to_async(rerate)(dollars)
        await process.look()
        await process.says(5 * dollars * RERATED)
    await process.call(research)
    await process.says(WRITTEN)


async def test_window_that_the_ledger_has_counted_from_its_start_is_right_too(start: Any, research: Team) -> None:
    await sync_to_async(budget)(research)
    process = await start()
    (spec,) = process.holder.current.budgets
    process.holder.current.counted_from[spec.id] = 1
    if isinstance(process.ledger, RedisLedger):
        (await process.ledger.parts.of(spec.owner)).began_us = 1
    await process.call(research)
    await process.says(WRITTEN)
    await sync_to_async(rerate)(1)
    await process.look()
    await process.says(RERATED)


async def test_budget_of_tokens_stays_as_it_is(start: Any, research: Team) -> None:
    await sync_to_async(budget)(research, unit="tokens")
    process = await start()
    await process.call(research)
    await sync_to_async(rerate)(1)
    await process.look()
    await process.says(TOKENS)


async def test_process_that_starts_after_a_rerating_knows_of_it(start: Any, research: Team) -> None:
    await sync_to_async(budget)(research)
    first = await start()
    await first.call(research)
    await asyncio.sleep(1.7)
    await first.call(research)
    await sync_to_async(rerate)(1)
    await (await start()).says(2 * RERATED)


def test_rerating_tells_every_process_at_its_end(research: Team) -> None:
    before = versions.current().get(versions.LIMITS, 0)
    rerating.rerate(timezone.now() - DAY, timezone.now(), reason="test", dry_run=True)
    assert versions.current().get(versions.LIMITS, 0) == before
    rerating.rerate(timezone.now() - DAY, timezone.now(), reason="test")
    assert versions.current()[versions.LIMITS] == before + 1
    assert Rerating.objects.get().ended_at


def test_other_budgets_stay_as_they_are(research: Team) -> None:
    """Of another team, and of a model whose calls were not priced again."""
    of_sales = budget(Team.objects.create(name="sales"))
    of_model = budget(research, model="other")
    of_everybody = Budget.objects.create(scope="installation", limit=LIMIT, per="month")
    holder = Holder()
    holder.refresh()
    time.sleep(0.6)
    add(timezone.now(), team_id=research.pk, cost_nano_usd=WRITTEN)
    rerate(1)
    holder.refresh()
    # Of the call itself the books say nothing here: that the ledger has counted.
    bases = {budget_id: base.spent for (budget_id, _), base in holder.current.bases.items()}
    assert bases == {of_sales.pk: 0, of_model.pk: 0, of_everybody.pk: RERATED - WRITTEN}
