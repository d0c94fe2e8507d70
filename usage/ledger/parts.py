"""The parts of a ledger in Redis, and their epochs.

A part is what one script can judge: on one server all of it, in a cluster a team with its keys, a user, an address, or
the installation. What Redis knows can be lost, so a part has an epoch (lua/open.lua): a new one stays closed for a
moment, in which every process holds again what it has under way.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Awaitable, Callable
from typing import Any

from usage.ledger.base import LedgerAway
from usage.ledger.wire import CLUSTER, Ready, Wire, script

CLOSED_US = 1_500_000
LEAST_PAUSE_S = 0.05
PATIENCE_S = 4.0
WHOLE = "0"


class Part:
    """One part as this process knows it. `epoch`: "" until it is open; `began_us`: unix microseconds. `signed`: what
    every script is told first."""

    __slots__ = ("began_us", "epoch", "key", "name", "opening", "signed")

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = f"gh:{{{name}}}:epoch"
        self.epoch = ""
        self.began_us = 0
        self.opening: Task[None] | None = None
        self.signed: Ready | None = None

    def check(self, said: Any) -> None:
        """Raises LedgerAway when a script found that another epoch has begun."""
        if said[0] == b"closed":
            self.epoch = ""
            raise LedgerAway("it is being read from the books")


class Parts:
    """`on_new_epoch(part, epoch)`: before a part opens, to hold again what is under way; `on_open(part, epoch)`: before
    anything is asked of it. `closed_us`: how long other processes have for that, microseconds."""

    def __init__(
        self,
        wire: Callable[[], Wire],
        on_new_epoch: Callable[[Part, str], Awaitable[None]],
        on_open: Callable[[Part, str], Awaitable[None]],
        closed_us: int = CLOSED_US,
    ) -> None:
        self._closed_us = closed_us
        self._wire = wire
        self._on_new_epoch = on_new_epoch
        self._on_open = on_open
        self.known: dict[str, Part] = {}

    def name_of(self, owner: str) -> str:
        """Raises LedgerAway."""
        return owner if self._wire().run_id == CLUSTER else WHOLE

    def known_open(self, name: str) -> Part | None:
        part = self.known.get(name)
        return part if part is not None and part.epoch else None

    async def of(self, owner: str) -> Part:
        """The part, open. Raises LedgerAway when it does not open in time."""
        name = self.name_of(owner)
        part = self.known.get(name)
        if part is None:
            part = self.known[name] = Part(name)
        if not part.epoch:
            await self.open(part)
        return part

    async def open(self, part: Part) -> None:
        """Raises LedgerAway."""
        if part.opening is None or part.opening.done():
            part.opening = asyncio.create_task(self._open(part))
            part.opening.add_done_callback(_fetch)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(part.opening)
        except TimeoutError:
            raise LedgerAway("it is being read from the books") from None

    def close_all(self) -> None:
        """The server is another one: what it says it knows may be older than what it said before."""
        for part in self.known.values():
            part.epoch = ""

    async def _open(self, part: Part) -> None:
        epoch = ""
        while True:
            wire = self._wire()
            state, said, wait_us = await wire.ask(script("open"), part.key, [wire.run_id, self._closed_us])
            if said.decode() != epoch:
                epoch = said.decode()
                part.began_us = int(epoch.split(":")[1])
                await self._on_new_epoch(part, epoch)
            if state == b"open":
                await self._on_open(part, epoch)
                part.epoch = epoch
                return
            await asyncio.sleep(max(wait_us / 1e6, LEAST_PAUSE_S))


def _fetch(task: Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # or asyncio complains when everybody who waited has left
