"""What keeps a ledger in Redis right beside the calls: what the books say, and what dead processes have left."""

from __future__ import annotations

import asyncio
import time
from asyncio import Task
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connection

from usage.ledger.base import Claim, LedgerAway
from usage.ledger.parts import Part
from usage.ledger.wire import Argument, script
from usage.limits import REREAD, BudgetSpec, Holder, pause_before_reread
from usage.models import UsageEvent
from usage.spending import spent_until

if TYPE_CHECKING:
    from usage.ledger.redis import RedisLedger

Result = TypeVar("Result")

ACCOUNTS_AT_ONCE = 500
# So long after its death a process's journal may still be found.
GIVE_UP_S = 3600.0


class Young:
    """An account that began in the midst of a window: calls of before `from_us` reach it through the books."""

    __slots__ = ("claim", "from_us", "next_at", "part", "since")

    def __init__(self, part: Part, claim: Claim, from_us: int) -> None:
        self.part = part
        self.claim = claim
        self.from_us = from_us
        self.since = time.monotonic()
        self.next_at = self.since + REREAD[0][1]


class Books:
    """Tells Redis what was spent before an account began, at first and for as long as such calls may still end; and of
    every account by how much its calls were priced otherwise later."""

    def __init__(self, ledger: RedisLedger, book: Holder) -> None:
        self._ledger = ledger
        self._book = book
        self._young: dict[str, Young] = {}
        self._reading: dict[str, Task[None]] = {}
        self._rerated: dict[str, datetime] = {}  # part -> the re-rating up to which its accounts are right
        self._correcting: Task[None] | None = None

    async def read(self, part: Part, found: Iterable[tuple[Claim, int]]) -> None:
        """Accounts that cannot be judged before. Raises LedgerAway when the books cannot be read."""
        for young in self.note(part, found):
            # Many calls ask at once for the same; and one that leaves does not take the answer with it.
            reading = self._reading.get(name := _name(young.claim))
            if reading is None:
                reading = self._reading[name] = asyncio.create_task(self._tell([young]))
                reading.add_done_callback(partial(self._has_read, name))
            await asyncio.shield(reading)

    def _has_read(self, name: str, reading: Task[None]) -> None:
        del self._reading[name]
        _fetch(reading)  # whoever asked may have left

    def note(self, part: Part, found: Iterable[tuple[Claim, int]]) -> list[Young]:
        """Accounts, each with its `from_us`, that are to be read again now and then."""
        young = []
        for claim, from_us in found:
            name = _name(claim)
            if name not in self._young or self._young[name].from_us != from_us:
                self._young[name] = Young(part, claim, from_us)
            young.append(self._young[name])
        return young

    def forget(self, part: Part) -> None:
        for name in [name for name, one in self._young.items() if one.part is part]:
            del self._young[name]

    async def read_again(self) -> None:
        now, due = time.monotonic(), []
        for name, one in list(self._young.items()):
            pause_s = pause_before_reread(now - one.since)
            if pause_s is None:
                del self._young[name]
            elif now >= one.next_at:
                one.next_at = now + pause_s
                due.append(one)
        if due:
            await self._tell(due)
        is_at_it = self._correcting is not None and not self._correcting.done()
        if self._book.current.rerated_at is not None and not is_at_it:
            # Beside the beats: to read the books of many budgets may take longer than a lease.
            self._correcting = asyncio.create_task(self._correct())
            self._correcting.add_done_callback(_fetch)

    async def _correct(self) -> None:
        """After a re-rating: all accounts that there are. Raises LedgerAway; then the next beat tries again."""
        book, parts = self._book.current, self._ledger.parts
        assert book.rerated_at is not None
        for part in list(parts.known.values()):
            if not part.epoch or self._rerated.get(part.name) == book.rerated_at:
                continue
            budgets = [one for one in book.budgets if not one.in_tokens and parts.name_of(one.owner) == part.name]
            for first in range(0, len(budgets), ACCOUNTS_AT_ONCE):
                begun = await self._begun(part, budgets[first : first + ACCOUNTS_AT_ONCE])
                if begun:
                    await self._tell(begun)
            self._rerated[part.name] = book.rerated_at

    async def _begun(self, part: Part, budgets: list[BudgetSpec]) -> list[Young]:
        """Those that have an account in their window of now."""
        now_us = time.time_ns() // 1000
        claims = [Claim(budget, *budget.window_us(now_us), 0, None, 0) for budget in budgets]
        _, *begun = await self._ledger.ask("begun", part, *map(_name, claims))
        return [Young(part, claim, int(from_us)) for claim, from_us in zip(claims, begun, strict=True) if from_us]

    def stop(self) -> None:
        if self._correcting is not None:
            self._correcting.cancel()

    async def _tell(self, young: list[Young]) -> None:
        read_us = time.time_ns() // 1000
        spent = await _in_thread(
            lambda: spent_until([(one.claim.budget.row, one.claim.start_us, one.from_us) for one in young])
        )
        by_part: dict[Part, list[Argument]] = defaultdict(list)
        for one, amount in zip(young, spent, strict=True):
            by_part[one.part] += [_name(one.claim), amount, read_us, one.from_us]
        for part, told in by_part.items():
            await self._ledger.ask("base", part, *told)


class Dead:
    """Settles the calls that a dead process has left, at what the books say they cost: its journal is found by another
    process, on its machine, within seconds."""

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self._since: dict[str, float] = {}

    async def settle(self, part: Part, process: str) -> None:
        """Raises LedgerAway."""
        since = self._since.setdefault(process, time.monotonic())
        left = await self._left_by(part, process)
        if not left:
            del self._since[process]
            return
        costs = await _in_thread(lambda: _costs(left))
        if time.monotonic() - since > GIVE_UP_S:
            costs = left | costs  # nobody knows what they cost: what was held for them counts as spent
        for call_id, (nano_usd, tokens) in costs.items():
            await self._ask("settle", part, process, call_id, nano_usd, tokens)

    async def _left_by(self, part: Part, process: str) -> dict[str, tuple[int, int]]:
        said = await self._ask("dead", part, process)
        left = zip(said[1::3], said[2::3], said[3::3], strict=True)
        return {call_id.decode(): (int(nano_usd), int(tokens)) for call_id, nano_usd, tokens in left}

    async def _ask(self, name: str, part: Part, process: str, *arguments: Argument) -> Any:
        said = await self._ledger.wire().ask(script(name), part.key, [part.epoch, process, *arguments])
        part.check(said)
        return said


def _fetch(task: Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # or asyncio complains that nobody has


def _name(claim: Claim) -> str:
    return f"{claim.budget.id}:{claim.start_us}"


def _costs(calls: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Nano-USD and tokens of those calls that are in the books."""
    rows = UsageEvent.objects.filter(pk__in=[UUID(call_id) for call_id in calls])
    return {
        event_id.hex: (cost or 0, sent + produced)
        for event_id, cost, sent, produced in rows.values_list(
            "pk", "cost_nano_usd", "prompt_tokens", "completion_tokens"
        )
    }


async def _in_thread(step: Callable[[], Result]) -> Result:
    """Raises LedgerAway when the database is away."""

    def run() -> Result:
        try:
            return step()
        finally:
            connection.close()

    try:
        return await asyncio.to_thread(run)
    except (DatabaseError, InterfaceError):
        raise LedgerAway("the books cannot be read") from None
