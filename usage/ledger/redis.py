"""The ledger of many web processes: in Redis, one script a step, everything of one turn of the event loop in one write.

A script is atomic and stays within one part of the ledger (usage.ledger.parts). What cannot be judged in one part is
held in each, and given back when one refuses.

    account   one budget in one window: what is held; what calls have spent that came in since `from` (own), and before
              it (early); what the books say of those before it, and of re-ratings of those since (base)
    call      what it has, kept under its process: given back by `settle`, or when the process has died by whoever sees
              that its lease is over, at what the books say the call cost (usage.ledger.upkeep)
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from asyncio import Future, Task
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from usage.ledger import upkeep
from usage.ledger.base import Claim, Ledger, LedgerAway, Refused, Spent, Ticket, Waits
from usage.ledger.gates import NO_GATES, NS_PER_US, Gate, Gates, gates_of, read_answer
from usage.ledger.parts import CLOSED_US, PATIENCE_S, WHOLE, Part, Parts
from usage.ledger.upkeep import Books
from usage.ledger.wire import CLUSTER, Argument, Ready, Wire, open_wire, script
from usage.limits import Holder, Holding

logger = logging.getLogger(__name__)

BEAT_S = 0.5
LEASE_US = 15_000_000
DAY_S = 86_400


class Charge(NamedTuple):
    """What a call has taken of a bucket. `is_refused`: it is given back, because another part had no room."""

    part: Part
    gate: Gate
    amount: int
    is_refused: bool


class CallHere:
    """What a call of this process has in Redis. `is_held`: False while it is not certain that its claims are held; a
    call that is served all the same is counted later. `is_asked`: it is being settled."""

    __slots__ = ("charged", "claims", "has_parallel", "is_asked", "is_held", "nano_usd", "parts", "ticket", "tokens")

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.parts: dict[str, Part] = {}
        self.claims: dict[str, list[Claim]] = {}
        self.is_asked = False
        self.is_held = False
        self.has_parallel = False
        self.charged: list[Charge] = []
        self.nano_usd = self.tokens = 0

    def take(self, claims: Iterable[Claim]) -> None:
        """In place of those that it has. By the owner of their budget."""
        self.is_held = False
        self.claims = defaultdict(list)
        for claim in claims:
            self.claims[claim.budget.owner].append(claim)


class RedisLedger(Ledger):
    """`start` and `stop` from the event loop. `book`: which budgets and limits there are."""

    def __init__(self, url: str, book: Holder, *, closed_us: int = CLOSED_US) -> None:
        self.waits = Waits(time.monotonic_ns)
        self.process = f"{os.getpid()}.{secrets.token_hex(6)}"
        self.parts = Parts(self.wire, self._place_again, self._sign_on, closed_us)
        self._url = url
        self._book = book
        self._wire: Wire | None = None
        self._calls: dict[str, CallHere] = {}
        self._ended: dict[str, CallHere] = {}  # and not settled yet
        self._books = Books(self, book)
        self._dead = upkeep.Dead(self)
        self._strays: dict[str, set[str]] = {}
        self._tasks: set[Task[None]] = set()
        self._beating: Task[None] | None = None

    async def start(self) -> None:
        """Connects, or goes on trying beside the calls."""
        try:
            await self._connect()
            if self.wire().run_id != CLUSTER:
                await self.parts.of("")
        except LedgerAway as error:
            logger.error("the ledger in Redis is away (%s): calls on a budget are not made until it is there", error)
        self._beating = asyncio.create_task(self._keep_beating())

    async def stop(self) -> None:
        """Settles what has ended; the rest is settled by others when the lease is over."""
        for _ in range(20):
            if not self._ended:
                break
            await asyncio.sleep(0.05)
        for task in (self._beating, *self._tasks):
            if task is not None:
                task.cancel()
        self._books.stop()
        if self._wire is not None:
            await self._wire.close()

    def wire(self) -> Wire:
        """Raises LedgerAway."""
        if self._wire is None:
            raise LedgerAway("not connected")
        return self._wire

    async def ask(self, name: str, part: Part, *arguments: Argument) -> Any:
        """A script's answer. Raises LedgerAway."""
        said = await self.wire().ask(script(name), part.key, [part.epoch, self.process, *arguments])
        part.check(said)
        return said

    # --- rates ------------------------------------------------------------------------------------------------------
    @property
    def admits_and_holds(self) -> bool:
        """Where one part judges all."""
        return self._wire is not None and self._wire.run_id != CLUSTER

    async def admit(
        self, ticket: Ticket, holding: Holding, client_ip: str, tokens: int, claims: tuple[Claim, ...] = ()
    ) -> Refused | None:
        if not self.admits_and_holds:
            claims = ()
        if not holding.limits and not claims:
            return None
        call = self._calls.setdefault(ticket.call_id, CallHere(ticket))
        call.has_parallel = any(limit.parallel is not None for limit in holding.limits)
        if claims:
            call.take(claims)
        asked = []
        for name, gates in (self._gates_of(holding, client_ip) or {WHOLE: NO_GATES}).items():
            part = call.parts[name] = self.parts.known_open(name) or await self.parts.of(name)
            about = (ticket.call_id, ticket.key_id, ticket.at_us, tokens, gates.told)
            asked.append((part, gates, self._ask(part, "admit", *about, *_told(part, claims))))
        refused: Refused | None = None
        away: LedgerAway | None = None
        taken: list[tuple[Part, Gates]] = []
        for part, gates, answer in asked:
            try:
                said = await answer
                part.check(said)
            except LedgerAway as error:
                away = error
                continue
            found = read_answer(ticket, gates.all, said)
            if found is None:
                taken.append((part, gates))
                self._note_held(call, part, claims, said[2 + len(gates.all) :])
            elif refused is None or found.wait_ns > refused.wait_ns:
                refused = found
        is_in = refused is None and away is None
        call.charged = [
            Charge(part, gate, gate.amount(tokens), not is_in)
            for part, gates in taken
            for gate in (gates.counting if is_in else gates.charging)
        ]
        if claims and not call.is_held and away is None:
            call.take(())
        if refused is None and away is not None:
            raise away
        return refused

    def _note_held(self, call: CallHere, part: Part, claims: tuple[Claim, ...], said: list[Any]) -> None:
        """What hold.lua says at the end of what admit.lua says. When it has not held, `hold` asks again."""
        if said and said[0] == b"ok":
            call.is_held = True
            call.ticket.claims = claims
            self._books.note(part, _found(claims, said))

    def _gates_of(self, holding: Holding, client_ip: str) -> dict[str, Gates]:
        """By the part that judges them; worked out once for all calls of a key to a model."""
        if holding.gates is None or holding.gates[0] != (self, self.wire().run_id):
            own: dict[str, list[Gate]] = defaultdict(list)
            for limit in holding.limits:
                if limit.owner:
                    own[self.parts.name_of(limit.owner)] += gates_of(limit, limit.name)
            holding.gates = (self, self.wire().run_id), {name: Gates(some) for name, some in own.items()}
        gates: dict[str, Gates] = holding.gates[1]
        if holding.by_address:
            name = self.parts.name_of(f"ip:{client_ip}")
            of_address = [limit for limit in holding.limits if not limit.owner]
            here = [gate for limit in of_address for gate in gates_of(limit, f"{limit.name}/{client_ip}")]
            gates = {**gates, name: Gates([*gates.get(name, NO_GATES).all, *here])}
        return gates

    def blocked(self, key_id: int, blocks: int, throttle_s: int) -> None:
        self._spawn(self._blocked(key_id, blocks, throttle_s))

    async def _blocked(self, key_id: int, blocks: int, throttle_s: int) -> None:
        said = await self.ask("blocked", await self.parts.of("w"), key_id, blocks, throttle_s * 1_000_000)
        if said[1]:
            self.waits.set(key_id, throttle_s * 1_000_000_000)

    # --- money ------------------------------------------------------------------------------------------------------
    async def hold(self, ticket: Ticket, claims: tuple[Claim, ...]) -> Spent | None:
        ticket.claims = claims
        call = self._calls.setdefault(ticket.call_id, CallHere(ticket))
        call.take(claims)
        pending = await self._parts_of(call)
        until = time.monotonic() + PATIENCE_S
        refused: Spent | None = None
        while pending and refused is None:
            if time.monotonic() > until:
                raise LedgerAway("the books cannot be read")
            asked = [(part, some, self._ask_to_hold(part, ticket, some)) for part, some in pending]
            pending = []
            for part, some, answer in asked:
                said = await answer
                part.check(said)
                found = _found(some, said) if said[0] != b"spent" else []
                if said[0] == b"spent":
                    claim = some[said[1] - 1]
                    refused = Spent(claim.budget, bool(said[2]), claim.end_us)
                elif said[0] == b"base":
                    await self._books.read(part, found)
                    pending.append((part, some))
                elif found:
                    self._books.note(part, found)
        if refused is not None:
            call.take(())
            ticket.claims = ()
            if len(call.parts) > 1:
                for part in call.parts.values():
                    await self.ask("release", part, ticket.call_id)
        call.is_held = refused is None
        return refused

    async def _parts_of(self, call: CallHere) -> list[tuple[Part, list[Claim]]]:
        """Which part has to judge which claims. Raises LedgerAway."""
        by_part: dict[Part, list[Claim]] = defaultdict(list)
        for owner, claims in call.claims.items():
            by_part[self.parts.known_open(self.parts.name_of(owner)) or await self.parts.of(owner)] += claims
        call.parts |= {part.name: part for part in by_part}
        return list(by_part.items())

    def settle(self, ticket: Ticket, nano_usd: int, tokens: int) -> None:
        if ticket.is_settled:
            return
        ticket.is_settled = True
        call = self._calls.pop(ticket.call_id, None)
        if call is None:
            return
        if not (call.claims or call.charged or call.has_parallel):
            return
        call.nano_usd, call.tokens = nano_usd, tokens
        self._ended[ticket.call_id] = call
        if (call.is_held or not call.claims) and all(part.epoch for part in call.parts.values()):
            self._give_back(ticket.call_id, call)
        # Else with the next beat.

    async def _settle(self, call_id: str, call: CallHere) -> None:
        """What could not be settled at once. Tried again with each beat until it is done."""
        if call.is_asked:
            return
        if not call.is_held and (call.nano_usd or call.tokens):
            for part, claims in await self._parts_of(call):
                part.check(await self._ask_to_hold(part, call.ticket, claims, part.epoch))
            call.is_held = True
        for part in call.parts.values():
            if not part.epoch:
                raise LedgerAway("it is being read from the books")
        self._give_back(call_id, call)

    def _give_back(self, call_id: str, call: CallHere) -> None:
        """Nobody waits for the answers; what fails is tried again."""
        call.is_asked = True
        pending = len(call.parts)

        def note(part: Part, answer: Future[Any]) -> None:
            nonlocal pending
            pending -= 1
            if not pending:
                call.is_asked = False
            if answer.cancelled() or answer.exception() is not None:
                return
            try:
                part.check(answer.result())
            except LedgerAway:
                return
            call.parts.pop(part.name, None)
            if not call.parts:
                self._ended.pop(call_id, None)

        for part in list(call.parts.values()):
            corrections: list[Argument] = []
            for where, gate, amount, is_refused in call.charged:
                used = call.tokens if gate.kind == "t" and not is_refused else 0
                if where is part and used != amount:
                    corrections += [gate.bucket, gate.rate, used - amount]
            answer = self._ask(part, "settle", call_id, call.nano_usd, call.tokens, *corrections)
            answer.add_done_callback(partial(note, part))

    def _ask(self, part: Part, name: str, *arguments: Argument) -> Future[Any]:
        return self.wire().ask(script(name), part.key, [self._signed(part), *arguments])

    def _signed(self, part: Part) -> Ready:
        """What every script is told first: the epoch that we know, and who asks."""
        if part.signed is None or part.signed.arguments != (part.epoch, self.process):
            part.signed = Ready(part.epoch, self.process)
        return part.signed

    def _ask_to_hold(self, part: Part, ticket: Ticket, claims: list[Claim], epoch: str = "") -> Future[Any]:
        """`epoch`: one that is still closed, to hold whatever was spent."""
        arguments: list[Argument] = [epoch or part.epoch, self.process, ticket.call_id, ticket.at_us, int(bool(epoch))]
        return self.wire().ask(script("hold"), part.key, [*arguments, *_told(part, claims)])

    async def _place_again(self, part: Part, epoch: str) -> None:
        """A new epoch knows nothing: hold what this process has under way. What has ended is in the books, from which
        the epoch begins."""
        self._books.forget(part)
        for call_id, call in list(self._ended.items()):
            call.parts.pop(part.name, None)
            if not call.parts:
                del self._ended[call_id]
        asked = [
            self._ask_to_hold(part, call.ticket, claims, epoch)
            for call in self._calls.values()
            if call.is_held
            for owner, claims in call.claims.items()
            if self.parts.name_of(owner) == part.name
        ]
        for answer in asked:
            await answer

    async def _sign_on(self, part: Part, epoch: str) -> None:
        """Before anything is held: what a process holds that has no lease would be nobody's when it dies."""
        await self.wire().ask(script("beat"), part.key, [epoch, self.process, LEASE_US])

    # --- beside the calls -------------------------------------------------------------------------------------------
    async def _connect(self) -> None:
        if self._wire is None:
            self._wire = await open_wire(self._url, self.parts.close_all)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._beat()
            except LedgerAway:
                continue
            except Exception:
                logger.exception("the upkeep of the ledger failed; it goes on")

    async def _beat(self) -> None:
        await self._connect()
        for call_id, call in list(self._ended.items()):
            await self._settle(call_id, call)
        for part in list(self.parts.known.values()):
            if not part.epoch:
                await self.parts.open(part)
            _, ids, dead, *waits = await self.ask("beat", part, LEASE_US)
            for key_id, wait_us in zip(waits[::2], waits[1::2], strict=True):
                self.waits.set(int(key_id), int(wait_us) * NS_PER_US)
            await self._release_strays(part, {call_id.decode() for call_id in ids})
            if dead:
                await self._dead.settle(part, dead.decode())
        await self._books.read_again()

    async def _release_strays(self, part: Part, there: set[str]) -> None:
        """A script that was asked when the line broke may have run after its call was given up: what Redis has and we
        have not, two beats long, is given back."""
        unknown = there - self._calls.keys() - self._ended.keys()
        for call_id in unknown & self._strays.get(part.name, set()):
            await self.ask("settle", part, call_id, 0, 0)
        self._strays[part.name] = unknown

    def _spawn(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_quietly(step))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _told(part: Part, claims: Iterable[Claim]) -> list[Argument]:
    """The claims as hold.lua wants to have them."""
    arguments: list[Argument] = []
    for claim in claims:
        budget, rests_on = claim.budget, (part.began_us, *claim[1:5])
        if budget.told is None or budget.told[0] != rests_on:
            is_whole = part.began_us < claim.start_us and 0 < claim.from_us <= claim.start_us
            limit = "" if claim.limit is None else claim.limit
            forget_s = claim.end_us // 1_000_000 + DAY_S
            told = Ready(account_of(claim), forget_s, limit, int(budget.in_tokens), int(is_whole))
            budget.told = rests_on, told
        arguments += (budget.told[1], claim.amount)
    return arguments


def _found(claims: Sequence[Claim], said: list[Any]) -> list[tuple[Claim, int]]:
    """Accounts that hold.lua names, each with since when it counts (unix microseconds)."""
    return [(claims[index - 1], int(from_us)) for index, from_us in zip(said[1::2], said[2::2], strict=True)]


def account_of(claim: Claim) -> str:
    return f"{claim.budget.id}:{claim.start_us}"


async def _quietly(step: Coroutine[Any, Any, None]) -> None:
    """What fails for want of Redis is done later."""
    try:
        await step
    except LedgerAway:
        return
