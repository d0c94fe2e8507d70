"""What the pipeline asks of a ledger, whichever keeps it: one process's memory, or Redis for many.

    admit    before a call costs anything: rates, parallel calls; and what it can cost at most, as far as is known then
    hold     on the prompt as it will be sent: the most that the call can cost, on every budget that it counts on, or
             on none; nothing to do when `admit` has held just that
    settle   exactly once, however the call ended: what it cost takes the place of what was held

Amounts are nano-USD or tokens, as the budget has it; times are nanoseconds unless the name says otherwise. Rates are
GCRA, a leaky bucket in one number (ITU-T I.371, annex A): `tat`, the moment at which the bucket is empty again. A
minute's worth may come at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from usage.limits import BudgetSpec, Holding, Whose

MINUTE_NS = 60_000_000_000
# A team's bucket that is fuller than this is contended: its keys then get fair shares.
CONTENDED_NS = MINUTE_NS // 2


class Level(NamedTuple):
    """How a bucket stands: what fits in, what still does, and when it is empty again."""

    limit: int
    remaining: int
    reset_ns: int


class Refused(NamedTuple):
    """Why a call has to wait. `what`: requests, tokens or parallel. `wait_ns`: when it may come again (0: when
    another call has ended)."""

    what: str
    whose: Whose
    limit: int
    wait_ns: int


class Spent(NamedTuple):
    """Which budget has no room. `is_held`: only because of what other calls hold, so it may have some soon."""

    budget: BudgetSpec
    is_held: bool
    until_us: int  # when the window ends, unix microseconds


class Claim(NamedTuple):
    """The most that a call can take of a budget, in one window. Times in unix microseconds.

    `from_us`: since when the ledger counts the budget. `limit` of that window; None: the call goes on whatever was
    spent, and only has to be counted."""

    budget: BudgetSpec
    start_us: int
    end_us: int
    from_us: int
    limit: int | None
    amount: int


@dataclass(slots=True)
class Ticket:
    """What a call has of the ledger, to be given back at its end. `at_us`: when it came in, unix microseconds. What the
    ledger in memory keeps there itself: gates that count the call as open; others as (it, tokens a minute, what was
    charged); the account of each claim."""

    call_id: str
    key_id: int
    at_us: int
    parallel: list[Any] = field(default_factory=list)
    charged: list[tuple[Any, int, int]] = field(default_factory=list)
    claims: tuple[Claim, ...] = ()
    accounts: Sequence[Any] = ()
    requests: Level | None = None
    tokens: Level | None = None
    is_settled: bool = False


class Waits:
    """Which keys have to wait, and until when (monotonic nanoseconds). Looked at for every call, so kept at hand."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._until: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def set(self, key_id: int, wait_ns: int) -> None:
        self._until[key_id] = self._now_ns() + wait_ns

    def of(self, key_id: int) -> int:
        """Nanoseconds; 0: it need not wait."""
        until = self._until.get(key_id)
        if until is None:
            return 0
        left = until - self._now_ns()
        if left <= 0:
            del self._until[key_id]
            return 0
        return left


class LedgerAway(Exception):
    """Redis cannot be reached, or has lost what it knew and does not know it again yet."""


class Ledger(Protocol):
    """`admits_and_holds`: whether `admit` is to be told the claims already: one question costs less than two, and what
    the policies leave as it is need not be measured twice."""

    waits: Waits

    @property
    def admits_and_holds(self) -> bool: ...

    async def admit(
        self, ticket: Ticket, holding: Holding, client_ip: str, tokens: int, claims: tuple[Claim, ...] = ()
    ) -> Refused | None:
        """Counts the call and `tokens`, or nothing. Of the claims all are held if there is room for all, and then they
        are the ticket's; if not, the call is admitted without. Raises LedgerAway."""

    async def hold(self, ticket: Ticket, claims: tuple[Claim, ...]) -> Spent | None:
        """All claims in place of those that the ticket has, or none. Raises LedgerAway."""

    def settle(self, ticket: Ticket, nano_usd: int, tokens: int) -> None:
        """Gives back what the call has and books what it cost. Once; a second time does nothing. Never raises: what
        cannot be said now is said later."""

    def blocked(self, key_id: int, blocks: int, throttle_s: int) -> None:
        """A policy has blocked a call of the key. After `blocks` in ten minutes it has to wait. Never raises."""


def tightest(known: Level | None, limit: int, used_ns: int) -> Level:
    """The one with less left: what is known, or a bucket of `limit` a minute that is empty again after `used_ns`."""
    if used_ns < 0:
        used_ns = 0
    remaining = (MINUTE_NS - used_ns) * limit // MINUTE_NS
    if remaining < 0:
        remaining = 0
    return Level(limit, remaining, used_ns) if known is None or remaining < known.remaining else known
