"""The ledger of an installation with one web process: in its memory.

Nothing here waits, so nothing comes between looking and taking: the event loop is the lock. After a restart it begins
where the books are (usage.limits reads what was spent); whatever was held is over, because its process is.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from usage.ledger.base import (
    CONTENDED_NS,
    MINUTE_NS,
    Claim,
    Ledger,
    Refused,
    Spent,
    Ticket,
    Waits,
    tightest,
)
from usage.limits import Holder, Holding, LimitSpec

MAX_BUCKETS = 100_000
MAX_ACCOUNTS = 50_000
BLOCKS_WITHIN_NS = 10 * MINUTE_NS
# A call of before the boundary, once settled, is in the books within this; then what was read of them includes it.
IN_THE_BOOKS_US = 2_000_000


class Account:
    """One budget in one window. `own`: spent by calls since the boundary; `early`: by calls before it that the books
    may not show yet, as (when settled, amount)."""

    __slots__ = ("early", "end_us", "held", "own")

    def __init__(self, end_us: int) -> None:
        self.own = 0
        self.held = 0
        self.early: deque[tuple[int, int]] = deque()
        self.end_us = end_us


class Shares:
    """Who has used a team's bucket: by key, when it last came and the end of its own bucket."""

    __slots__ = ("seen", "tats")

    def __init__(self) -> None:
        self.seen: OrderedDict[int, int] = OrderedDict()
        self.tats: dict[int, int] = {}

    def note(self, key_id: int, now: int) -> int:
        """How many keys came in the last minute, this one included."""
        self.seen[key_id] = now
        self.seen.move_to_end(key_id)
        while self.seen and next(iter(self.seen.values())) <= now - MINUTE_NS:
            self.tats.pop(self.seen.popitem(last=False)[0], None)
        return len(self.seen)


class MemoryLedger(Ledger):
    """`book`: which budgets and limits there are. `now_ns` rises evenly; `now_us` is unix time."""

    def __init__(
        self,
        book: Holder,
        now_ns: Callable[[], int] = time.monotonic_ns,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._book = book
        self._now_ns = now_ns
        self._now_us = now_us
        self.waits = Waits(now_ns)
        self._accounts: dict[tuple[int, int, int], Account] = {}
        self._tats: dict[str, int] = {}
        self._parallel: dict[str, int] = {}
        self._shares: dict[str, Shares] = {}
        self._blocks: OrderedDict[int, deque[int]] = OrderedDict()

    # --- rates ------------------------------------------------------------------------------------------------------
    async def admit(self, ticket: Ticket, holding: Holding, client_ip: str, tokens: int) -> Refused | None:
        now = self._now_ns()
        refused: Refused | None = None
        taken: list[tuple[str, int]] = []
        for limit in holding.limits:
            bucket = limit.name if limit.owner else f"{limit.name}/{client_ip}"
            found = self._judge(ticket, limit, bucket, tokens, now, taken)
            if found is not None and (refused is None or found.wait_ns > refused.wait_ns):
                refused = found
        if refused is not None:
            ticket.charged.clear()
            return refused
        self._tats.update(taken)
        if len(self._tats) > MAX_BUCKETS:
            self._tats = {bucket: tat for bucket, tat in self._tats.items() if tat > now}
        for limit in holding.limits:
            if limit.parallel is not None:
                bucket = limit.name if limit.owner else f"{limit.name}/{client_ip}"
                self._parallel[bucket] = self._parallel.get(bucket, 0) + 1
                ticket.parallel.append(bucket)
            if limit.per_key and limit.requests:
                self._take_share(limit, ticket.key_id, now)
        return None

    def _judge(
        self, ticket: Ticket, limit: LimitSpec, bucket: str, tokens: int, now: int, taken: list[tuple[str, int]]
    ) -> Refused | None:
        refused: Refused | None = None
        if limit.parallel is not None and self._parallel.get(bucket, 0) >= limit.parallel:
            refused = Refused("parallel", limit.whose, limit.parallel, 0)
        if limit.requests is not None:
            name = bucket + "/r"
            wait, tat = self._fit(name, limit.requests, 1, now)
            if limit.per_key and limit.requests:
                wait = max(wait, self._share_wait(limit, ticket.key_id, now))
            if wait:
                refused = Refused("requests", limit.whose, limit.requests, wait)
                tat = self._tats.get(name, now)
            else:
                taken.append((name, tat))
            ticket.requests = tightest(ticket.requests, limit.requests, tat - now)
        if limit.tokens is not None:
            name = bucket + "/t"
            amount = tokens if tokens < limit.tokens else limit.tokens
            wait, tat = self._fit(name, limit.tokens, amount, now)
            if wait:
                refused = Refused("tokens", limit.whose, limit.tokens, wait)
                tat = self._tats.get(name, now)
            else:
                taken.append((name, tat))
                ticket.charged.append((name, limit.tokens, amount))
            ticket.tokens = tightest(ticket.tokens, limit.tokens, tat - now)
        return refused

    def _fit(self, name: str, limit: int, amount: int, now: int) -> tuple[int, int]:
        """(how long until it fits, 0: now; the bucket's end with it)"""
        if not limit:
            return MINUTE_NS, now
        tat = self._tats.get(name, now)
        if tat < now:
            tat = now
        tat += amount * MINUTE_NS // limit
        wait = tat - now - MINUTE_NS
        return wait if wait > 0 else 0, tat

    def _share_wait(self, limit: LimitSpec, key_id: int, now: int) -> int:
        """Of a team's bucket that is half full a key gets no more than its share; from one that is not, whatever it
        wants. So nobody is held back while there is enough, and nobody is starved when there is not."""
        assert limit.requests
        shares = self._shares.setdefault(limit.name, Shares())
        keys = shares.note(key_id, now)
        if keys < 2 or self._tats.get(f"{limit.name}/r", now) - now < CONTENDED_NS:
            return 0
        tat = max(shares.tats.get(key_id, now), now) + keys * MINUTE_NS // limit.requests
        return max(tat - now - MINUTE_NS, 0)

    def _take_share(self, limit: LimitSpec, key_id: int, now: int) -> None:
        shares = self._shares[limit.name]
        step = len(shares.seen) * MINUTE_NS // (limit.requests or 1)
        shares.tats[key_id] = max(shares.tats.get(key_id, now), now) + step

    def blocked(self, key_id: int, blocks: int, throttle_s: int) -> None:
        now = self._now_ns()
        times = self._blocks.setdefault(key_id, deque())
        self._blocks.move_to_end(key_id)
        times.append(now)
        while times[0] <= now - BLOCKS_WITHIN_NS:
            times.popleft()
        if len(times) >= blocks:
            self.waits.set(key_id, throttle_s * 1_000_000_000)
            del self._blocks[key_id]
        elif len(self._blocks) > MAX_BUCKETS:
            self._blocks.popitem(last=False)

    # --- money ------------------------------------------------------------------------------------------------------
    async def hold(self, ticket: Ticket, claims: tuple[Claim, ...]) -> Spent | None:
        accounts = [self._account(claim) for claim in claims]
        for claim, account in zip(claims, accounts, strict=True):
            if claim.limit is None:
                continue
            spent = account.own + self._earlier(claim, account)
            if spent + account.held + claim.amount > claim.limit:
                return Spent(claim.budget, spent + claim.amount <= claim.limit, claim.end_us)
        for claim, account in zip(claims, accounts, strict=True):
            account.held += claim.amount
        ticket.claims = claims
        return None

    def settle(self, ticket: Ticket, nano_usd: int, tokens: int) -> None:
        if ticket.is_settled:
            return
        ticket.is_settled = True
        for bucket in ticket.parallel:
            left = self._parallel[bucket] - 1
            if left:
                self._parallel[bucket] = left
            else:
                del self._parallel[bucket]
        for name, limit, charged in ticket.charged:
            if tokens != charged:
                self._tats[name] = self._tats.get(name, self._now_ns()) + (tokens - charged) * MINUTE_NS // limit
        for claim in ticket.claims:
            account = self._account(claim)
            account.held -= claim.amount
            amount = tokens if claim.budget.in_tokens else nano_usd
            if ticket.at_us < claim.from_us:
                account.early.append((self._now_us(), amount))
            else:
                account.own += amount

    def standing(self, claim: Claim) -> tuple[int, int]:
        """What is spent and what is held of a budget in the claim's window."""
        account = self._account(claim)
        return account.own + self._earlier(claim, account), account.held

    def held(self) -> int:
        """How many budgets have something held."""
        return sum(1 for account in self._accounts.values() if account.held)

    def _earlier(self, claim: Claim, account: Account) -> int:
        """What calls of before the boundary have spent."""
        base = self._book.current.bases.get((claim.budget.id, claim.start_us))
        if base is None:
            return 0
        while account.early and account.early[0][0] + IN_THE_BOOKS_US < base.read_us:
            account.early.popleft()
        return base.spent + sum(amount for _, amount in account.early)

    def _account(self, claim: Claim) -> Account:
        # A budget that was switched off and on again, or whose windows have changed, is counted anew.
        name = (claim.budget.id, claim.start_us, claim.from_us)
        account = self._accounts.get(name)
        if account is None:
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._forget_ended()
            account = self._accounts[name] = Account(claim.end_us)
        return account

    def _forget_ended(self) -> None:
        now_us = self._now_us()
        ended = [name for name, one in self._accounts.items() if one.end_us <= now_us and not one.held]
        for name in ended:
            del self._accounts[name]
