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

MAX_ADDRESSES = 100_000
MAX_KEYS = 100_000
MAX_ACCOUNTS = 50_000
BLOCKS_WITHIN_NS = 10 * MINUTE_NS
# A call of before the boundary, once settled, is in the books within this; then what was read of them includes it.
IN_THE_BOOKS_US = 2_000_000


class Account:
    """One budget in one window. `own`: spent by calls since the boundary; `early`: by calls before it that the books
    may not show yet, as (when settled, amount), and `early_sum` by all of them."""

    __slots__ = ("early", "early_sum", "end_us", "held", "own")

    def __init__(self, end_us: int) -> None:
        self.own = 0
        self.held = 0
        self.early: deque[tuple[int, int]] = deque()
        self.early_sum = 0
        self.end_us = end_us


class Gate:
    """How one row of limits stands, for its owner or for one address: the ends of its two buckets (monotonic
    nanoseconds) and how many calls are open. `shares`: of the keys of a team."""

    __slots__ = ("parallel", "requests", "shares", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.parallel = 0
        self.shares: Shares | None = None


class Shares:
    """Who has used a team's bucket: by key, when it last came and the end of its own bucket."""

    __slots__ = ("seen", "tats")

    def __init__(self) -> None:
        self.seen: OrderedDict[int, int] = OrderedDict()
        self.tats: dict[int, int] = {}

    def note(self, key_id: int, now: int) -> int:
        """How many keys came in the last minute, this one included."""
        seen = self.seen
        seen[key_id] = now
        if len(seen) > 1:
            seen.move_to_end(key_id)
            while next(iter(seen.values())) <= now - MINUTE_NS:
                self.tats.pop(seen.popitem(last=False)[0], None)
        return len(seen)


Gates = list[tuple[LimitSpec, Gate]]


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
        self._gates: dict[str, Gate] = {}  # by row
        self._of_addresses: dict[tuple[str, str], Gate] = {}
        self._blocks: OrderedDict[int, deque[int]] = OrderedDict()

    # --- rates ------------------------------------------------------------------------------------------------------
    admits_and_holds = True

    async def admit(
        self, ticket: Ticket, holding: Holding, client_ip: str, tokens: int, claims: tuple[Claim, ...] = ()
    ) -> Refused | None:
        refused = self._admit(ticket, holding, client_ip, tokens)
        if refused is None and claims:
            await self.hold(ticket, claims)
        return refused

    def _admit(self, ticket: Ticket, holding: Holding, client_ip: str, tokens: int) -> Refused | None:
        now = self._now_ns()
        if holding.gates is None or holding.gates[0] is not self:
            holding.gates = self, self._gates_of(holding)
        gates: Gates = holding.gates[1]
        if holding.by_address:
            gates = gates + self._gates_of_address(holding, client_ip, now)
        refused: Refused | None = None
        taken: list[tuple[int, int]] = []
        for limit, gate in gates:
            found = self._judge(ticket, limit, gate, tokens, now, taken)
            if found is not None and (refused is None or found.wait_ns > refused.wait_ns):
                refused = found
        if refused is not None:
            ticket.charged.clear()
            return refused
        for (limit, gate), (requests_end, tokens_end) in zip(gates, taken, strict=True):
            gate.requests, gate.tokens = requests_end, tokens_end
            if limit.parallel is not None:
                gate.parallel += 1
                ticket.parallel.append(gate)
            if limit.per_key and limit.requests:
                self._take_share(limit, gate, ticket.key_id, now)
        return None

    def _gates_of(self, holding: Holding) -> Gates:
        return [(limit, self._gates.setdefault(limit.name, Gate())) for limit in holding.limits if limit.owner]

    def _gates_of_address(self, holding: Holding, client_ip: str, now: int) -> Gates:
        known = self._of_addresses
        if len(known) > MAX_ADDRESSES:
            self._of_addresses = known = {
                name: gate for name, gate in known.items() if gate.parallel or max(gate.requests, gate.tokens) > now
            }
        names = [(limit, (limit.name, client_ip)) for limit in holding.limits if not limit.owner]
        return [(limit, known.get(name) or known.setdefault(name, Gate())) for limit, name in names]

    def _judge(
        self, ticket: Ticket, limit: LimitSpec, gate: Gate, tokens: int, now: int, taken: list[tuple[int, int]]
    ) -> Refused | None:
        """Adds to `taken` where the buckets would end."""
        refused: Refused | None = None
        if limit.parallel is not None and gate.parallel >= limit.parallel:
            refused = Refused("parallel", limit.whose, limit.parallel, 0)
        requests_end, tokens_end = gate.requests, gate.tokens
        if limit.requests is not None:
            wait, end = _fit(requests_end, limit.requests, 1, now)
            if limit.per_key and limit.requests:
                wait = max(wait, self._share_wait(limit, gate, ticket.key_id, now))
            if wait:
                refused = Refused("requests", limit.whose, limit.requests, wait)
            else:
                requests_end = end
            ticket.requests = tightest(ticket.requests, limit.requests, requests_end - now)
        if limit.tokens is not None:
            amount = tokens if tokens < limit.tokens else limit.tokens
            wait, end = _fit(tokens_end, limit.tokens, amount, now)
            if wait:
                refused = Refused("tokens", limit.whose, limit.tokens, wait)
            else:
                tokens_end = end
                ticket.charged.append((gate, limit.tokens, amount))
            ticket.tokens = tightest(ticket.tokens, limit.tokens, tokens_end - now)
        taken.append((requests_end, tokens_end))
        return refused

    def _share_wait(self, limit: LimitSpec, gate: Gate, key_id: int, now: int) -> int:
        """Of a team's bucket that is half full a key gets no more than its share; from one that is not, whatever it
        wants. So nobody is held back while there is enough, and nobody is starved when there is not."""
        assert limit.requests
        if gate.shares is None:
            gate.shares = Shares()
        shares = gate.shares
        keys = shares.note(key_id, now)
        if keys < 2 or gate.requests - now < CONTENDED_NS:
            return 0
        tat = max(shares.tats.get(key_id, now), now) + keys * MINUTE_NS // limit.requests
        return max(tat - now - MINUTE_NS, 0)

    def _take_share(self, limit: LimitSpec, gate: Gate, key_id: int, now: int) -> None:
        shares = gate.shares
        assert shares is not None
        assert limit.requests
        step = len(shares.seen) * MINUTE_NS // limit.requests
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
        elif len(self._blocks) > MAX_KEYS:
            self._blocks.popitem(last=False)

    # --- money ------------------------------------------------------------------------------------------------------
    async def hold(self, ticket: Ticket, claims: tuple[Claim, ...]) -> Spent | None:
        for claim, account in zip(ticket.claims, ticket.accounts, strict=True):
            account.held -= claim.amount
        ticket.claims = ticket.accounts = ()
        accounts = [self._account(claim) for claim in claims]
        for claim, account in zip(claims, accounts, strict=True):
            if claim.limit is None or not claim.amount:  # what costs nothing fits into any budget
                continue
            spent = account.own + self._earlier(claim, account)
            if spent + account.held + claim.amount > claim.limit:
                return Spent(claim.budget, spent + claim.amount <= claim.limit, claim.end_us)
        for claim, account in zip(claims, accounts, strict=True):
            account.held += claim.amount
        ticket.claims, ticket.accounts = claims, accounts
        return None

    def settle(self, ticket: Ticket, nano_usd: int, tokens: int) -> None:
        if ticket.is_settled:
            return
        ticket.is_settled = True
        for gate in ticket.parallel:
            gate.parallel -= 1
        for gate, limit, charged in ticket.charged:
            if tokens != charged:
                gate.tokens = (gate.tokens or self._now_ns()) + (tokens - charged) * MINUTE_NS // limit
        for claim, account in zip(ticket.claims, ticket.accounts, strict=True):
            account.held -= claim.amount
            amount = tokens if claim.budget.in_tokens else nano_usd
            if ticket.at_us < claim.from_us:
                account.early.append((self._now_us(), amount))
                account.early_sum += amount
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
        bases = self._book.current.bases
        base = bases.get((claim.budget.id, claim.start_us)) if bases else None
        if base is None:
            return 0
        if not account.early:
            return base.spent
        while account.early and account.early[0][0] + IN_THE_BOOKS_US < base.read_us:
            account.early_sum -= account.early.popleft()[1]
        return base.spent + account.early_sum

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


def _fit(end: int, limit: int, amount: int, now: int) -> tuple[int, int]:
    """(how long until `amount` fits into a bucket that is empty again at `end`, 0: now; the bucket's end with it)"""
    if not limit:
        return MINUTE_NS, now
    if end < now:
        end = now
    end += amount * MINUTE_NS // limit
    wait = end - now - MINUTE_NS
    return (wait if wait > 0 else 0), end
