"""Budgets and rate limits as the data plane holds them: immutable, found without a lock or a query.

`build` runs in the watch thread when something has changed. It also reads what was spent before this process began to
count, so that a budget which is made, or found at the start, begins where the books are: see `Base`.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db.models import Max

from accounts.time_ids import to_unix_us
from usage.models import Budget, Limit, MoneySettings, Rerating, TopUp
from usage.spending import spent_until
from usage.windows import UnknownZone, window_at_us, zone_of

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 20_000
# How often the books are read again (seconds) for a budget that is counted from the midst of a window, by how long ago
# that was (seconds): calls of before may still end, and reach the books.
REREAD = ((20.0, 2.0), (900.0, 30.0))
SWAP_US = 500_000


class Whose(NamedTuple):
    """Whose a budget or limit is. `told`: to the caller, without a name that is not theirs to know; `named`: in the
    books, for whoever looks after it."""

    told: str
    named: str


class BudgetSpec:
    """One budget. `owner`: which part of the ledger it is in, such as "t7"; `limit` in nano-USD or tokens. `told`: how
    a ledger in Redis told it last, and what that rests on."""

    __slots__ = (
        "_end_us", "_start_us", "fallback_model", "id", "in_tokens", "limit", "model", "owner", "row", "told",
        "top_ups", "whose", "windows",
    )  # fmt: skip

    def __init__(self, row: Budget, zone: str, top_ups: tuple[tuple[int, int], ...] = ()) -> None:
        self.id = row.pk
        self.row = row
        self.owner = owner_of(row)
        self.model = row.model
        self.in_tokens = row.unit == Budget.Unit.TOKENS
        self.limit = row.limit
        self.windows = (str(row.per), row.timezone or zone, row.counts_from)
        self.fallback_model = row.fallback_model if row.on_exhaustion == Budget.OnExhaustion.FALL_BACK else ""
        self.top_ups = top_ups  # (start of the window in unix microseconds, amount)
        self.whose = whose(row)
        self.told: Any = None
        self._start_us = self._end_us = 0

    def window_us(self, at_us: int) -> tuple[int, int]:
        """Start and end of the window of `at_us`."""
        if not self._start_us <= at_us < self._end_us:
            per, zone, counts_from = self.windows
            self._start_us, self._end_us = window_at_us(per, zone, at_us, counts_from)
        return self._start_us, self._end_us

    def limit_at(self, start_us: int, end_us: int) -> int:
        """The limit of a window, top-ups included."""
        if not self.top_ups:
            return self.limit
        return max(self.limit + sum(amount for at, amount in self.top_ups if start_us <= at < end_us), 0)


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One row of rate limits. `owner`: which part of the ledger it is in; "" for client IPs: each address has its own.
    `name` tells it apart within that part. `per_key`: the keys that share it get fair shares."""

    owner: str
    name: str
    model: str
    requests: int | None
    tokens: int | None
    parallel: int | None
    per_key: bool
    whose: Whose


@dataclass(slots=True)
class Holding:
    """What holds for a call of one key and model. `gates`: what a ledger in memory has found for it,
    and which one."""

    budgets: tuple[BudgetSpec, ...]
    limits: tuple[LimitSpec, ...]
    counts_tokens: bool = field(init=False)
    counts_money: bool = field(init=False)
    by_address: bool = field(init=False)
    falls_back: bool = field(init=False)
    gates: Any = field(init=False, default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.counts_tokens = any(limit.tokens is not None for limit in self.limits)
        self.counts_money = any(not budget.in_tokens for budget in self.budgets)
        self.by_address = any(not limit.owner for limit in self.limits)
        self.falls_back = any(budget.fallback_model for budget in self.budgets)


@dataclass(frozen=True, slots=True)
class Base:
    """What was spent in a window by calls that came in before `from_us`: as the books said at `read_us` (both in unix
    microseconds). Later calls the ledger has counted itself: of these only what re-ratings have changed is in it. For
    as long as earlier ones may still be under way, the books are read again."""

    spent: int
    from_us: int
    read_us: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What an admin sets for all budgets and limits. Times in seconds; None: never."""

    serve_without_ledger: bool = False
    default_max_tokens: int = 4096
    blocks_to_throttle: int | None = None
    throttle_s: int = 60


class LimitBook:
    """Which budgets and limits hold for whom. `bases` by (budget, start of the window in unix microseconds);
    `counted_from`: when (likewise) the ledger began to count a budget, as it stands now; `rerated_at`: when calls were
    last priced again, so that the books have to be read anew."""

    def __init__(
        self,
        budgets: Iterable[BudgetSpec] = (),
        limits: Iterable[LimitSpec] = (),
        rules: Rules | None = None,
        bases: dict[tuple[int, int], Base] | None = None,
        counted_from: dict[int, int] | None = None,
        problems: tuple[str, ...] = (),
        rerated_at: datetime | None = None,
    ) -> None:
        self.budgets = tuple(budgets)
        self.rules = rules or Rules()
        self.bases = bases or {}
        self.counted_from = counted_from or {}
        self.problems = problems
        self.rerated_at = rerated_at
        self._budgets: dict[str, list[BudgetSpec]] = defaultdict(list)
        self._limits: dict[str, list[LimitSpec]] = defaultdict(list)
        for budget in self.budgets:
            self._budgets[scope_of(budget.row.scope, budget.row.owner_id)].append(budget)
        for limit in limits:
            self._limits[limit.name.partition("/")[0]].append(limit)
        self.limits_anybody = bool(self.budgets or self._limits)
        self._known: dict[tuple[int, str], Holding] = {}

    def holding(self, key_id: int, user_id: int | None, team_id: int, model: str) -> Holding:
        """What holds for calls of this key to this model. A key's user and team do not change while a book is in
        force: the key is read again with it."""
        found = self._known.get((key_id, model))
        if found is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            found = self._known[key_id, model] = self._find(key_id, user_id, team_id, model)
        return found

    def _find(self, key_id: int, user_id: int | None, team_id: int, model: str) -> Holding:
        scopes = ["i", "ip", f"t{team_id}", f"k{key_id}"]
        if user_id is not None:
            scopes.insert(2, f"u{user_id}")
        return Holding(
            tuple(one for scope in scopes for one in self._budgets.get(scope, ()) if one.model in ("", model)),
            tuple(one for scope in scopes for one in self._limits.get(scope, ()) if one.model in ("", model)),
        )


class Holder:
    """The book in force. `refresh` runs in the watch thread; the event loop only reads `current`."""

    def __init__(self, *, reads_books: bool = True) -> None:
        """`reads_books`: whether bases are wanted; a ledger in Redis reads them itself."""
        self.current = LimitBook()
        self._reads_books = reads_books
        self._built_at = 0.0
        self._reread_at = 0.0

    def refresh(self) -> None:
        """Build and swap. Raises what the database raises; then the last good one stays."""
        self.current = build(self.current, reads_books=self._reads_books)
        self._built_at = time.monotonic()
        self._reread_at = self._built_at + REREAD[0][1]
        for problem in self.current.problems:
            logger.error("left out of the limits: %s", problem)

    def reread(self) -> None:
        """Read again what earlier calls have spent, now and then, for as long as some may reach the books. Raises what
        the database raises."""
        book, now = self.current, time.monotonic()
        pause_s = pause_before_reread(now - self._built_at)
        if not book.bases or pause_s is None or now < self._reread_at:
            return
        self._reread_at = now + pause_s
        book.bases = read_bases(book.budgets, book.counted_from)


def build(previous: LimitBook | None = None, *, reads_books: bool = True) -> LimitBook:
    """Read and compile everything: five queries, and those of what was spent of budgets already."""
    row = MoneySettings.objects.first() or MoneySettings()
    given: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for budget_id, start, amount in TopUp.objects.values_list("budget_id", "window_start", "amount"):
        given[budget_id].append((to_unix_us(start), amount))
    budgets, problems = [], []
    for budget in Budget.objects.filter(enabled=True).select_related("team", "user", "key"):
        try:
            zone_of(budget.timezone or row.timezone)
        except UnknownZone as error:
            # Without its zone its days begin with the world's; to drop the budget would let every call by.
            problems.append(f"budget {budget.pk}: {error}; it is counted in UTC")
            budget.timezone = "UTC"
        budgets.append(BudgetSpec(budget, row.timezone, tuple(given.get(budget.pk, ()))))
    limits = [_limit(limit) for limit in Limit.objects.select_related("team", "user", "key")]
    rules = Rules(
        serve_without_ledger=row.when_redis_is_away == MoneySettings.WhenAway.SERVE,
        default_max_tokens=row.default_max_tokens,
        blocks_to_throttle=row.blocks_to_throttle,
        throttle_s=row.throttle_s,
    )
    counted_from = _counted_from(budgets, previous)
    # Before the books: what is priced again meanwhile is news for the next one.
    rerated_at = Rerating.objects.aggregate(last=Max("ended_at"))["last"]
    bases = read_bases(budgets, counted_from) if reads_books else {}
    return LimitBook(budgets, limits, rules, bases, counted_from, tuple(problems), rerated_at)


def _counted_from(budgets: Iterable[BudgetSpec], previous: LimitBook | None) -> dict[int, int]:
    """A budget whose windows have changed is counted anew, from when this book is in force for certain."""
    before = {budget.id: budget for budget in previous.budgets} if previous else {}
    soon_us = to_unix_us(datetime.now(UTC)) + SWAP_US
    return {
        budget.id: previous.counted_from[budget.id]
        if previous and budget.id in before and before[budget.id].windows == budget.windows
        else soon_us
        for budget in budgets
    }


def pause_before_reread(age_s: float) -> float | None:
    """Seconds; None: no more."""
    return next((pause_s for upto_s, pause_s in REREAD if age_s < upto_s), None)


def read_bases(budgets: Iterable[BudgetSpec], counted_from: dict[int, int]) -> dict[tuple[int, int], Base]:
    """What was spent, in their windows of now, before the budgets were counted here. Windows that have begun since need
    none, unless their calls were priced again: all of them are counted."""
    now_us = to_unix_us(datetime.now(UTC))
    wanted = [(budget.row, budget.window_us(now_us)[0], counted_from[budget.id]) for budget in budgets]
    return {
        (budget.pk, start_us): Base(spent, from_us, now_us)
        for (budget, start_us, from_us), spent in zip(wanted, spent_until(wanted), strict=True)
        if spent or start_us < from_us
    }


def _limit(row: Limit) -> LimitSpec:
    return LimitSpec(
        owner="" if row.scope == Limit.Scope.CLIENT_IP else owner_of(row),
        name=f"{scope_of(row.scope, row.owner_id)}/{row.pk}",
        model=row.model,
        requests=row.requests_per_minute,
        tokens=row.tokens_per_minute,
        parallel=row.max_parallel,
        per_key=row.scope == Limit.Scope.TEAM,
        whose=whose(row),
    )


def scope_of(scope: str, owner_id: int | None) -> str:
    """i, ip, t7, u3 or k12."""
    letters = {"installation": "i", "client_ip": "ip", "team": f"t{owner_id}", "user": f"u{owner_id}"}
    return letters.get(scope, f"k{owner_id}")


def owner_of(row: Budget | Limit) -> str:
    """The part of the ledger: a key's is its team's, so that one step can judge both."""
    return f"t{row.key.team_id}" if row.key is not None else scope_of(row.scope, row.owner_id)


def whose(row: Budget | Limit) -> Whose:
    told, named = {
        "installation": ("the whole installation", "the whole installation"),
        "client_ip": ("your address", "each client IP"),
        "team": ("your team", f"team {row.owner_name}"),
        "user": ("you", f"user {row.owner_name}"),
        "key": ("this API key", f"API key {row.owner_name}"),
    }[row.scope]
    model = f", model {row.model}" if row.model else ""
    return Whose(told + model, named + model)
