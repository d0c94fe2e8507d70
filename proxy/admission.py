"""A call and the ledger: whether it may begin now, what is held for it, and what it is told about its limits.

admit    when key and model are known, before anything costs
hold     when the policies have seen the request, on the prompt as it will be sent
settle   at the very end, once, however the call ended
"""

from __future__ import annotations

from asyncio import CancelledError
from datetime import UTC, datetime

from accounts.authentication import Principal
from policies.types import Exchange
from proxy import measure
from proxy.call import Call, Header
from proxy.errors import BudgetSpent, GatewayError, LedgerUnavailable, RateLimited, UnpricedModel
from proxy.gateway import Gateway
from proxy.snapshot import ModelEntry
from usage.ledger.base import Claim, LedgerAway, Level, Refused, Spent, Ticket
from usage.limits import BudgetSpec, Holding, LimitBook
from usage.pricing import cost_at_most

# How long we wait for Redis before the call is judged without it.
LEDGER_TIMEOUT_S = 5.0
# A budget that is only held may have room as soon as some call has ended; which and when nobody knows.
HELD_WAIT_MS = 1_000

WORDS = {
    "requests": "{limit} requests a minute for {whose}",
    "tokens": "{limit} tokens a minute for {whose}",
    "parallel": "{limit} calls at the same time for {whose}",
}
# As usage events have them.
IN_BOOKS = {
    "requests": "requests per minute of {whose}: {limit}",
    "tokens": "tokens per minute of {whose}: {limit}",
    "parallel": "parallel calls of {whose}: {limit}",
}
BLOCKED_TOO_OFTEN = "wait of a key that policies have blocked again and again"


class Admission:
    """What holds for one call, and what it has of the ledger. `most_completion`: tokens of the longest answer that is
    held for, 0 where the call is on no budget."""

    __slots__ = ("book", "holding", "most_completion", "principal", "ticket")

    def __init__(self, book: LimitBook, holding: Holding, principal: Principal, ticket: Ticket) -> None:
        self.book = book
        self.holding = holding
        self.most_completion = 0
        self.principal = principal
        self.ticket = ticket

    @property
    def has_levels(self) -> bool:
        """Whether the caller is told of limits of ours."""
        return self.ticket.requests is not None or self.ticket.tokens is not None


async def admit(
    gateway: Gateway, call: Call, principal: Principal, exchange: Exchange, model: ModelEntry
) -> ModelEntry:
    """Gives the model that answers: another one when a budget is spent that names a cheaper one. That is settled before
    rates and policies are asked, because they judge the model that answers.

    Raises RateLimited, BudgetSpent, UnpricedModel, LedgerUnavailable."""
    if gateway.ledger.waits and (wait_ns := gateway.ledger.waits.of(principal.key_id)):
        _note_refused(call, BLOCKED_TOO_OFTEN)
        raise RateLimited(
            "Policies have blocked this key again and again, so it has to wait. Look at what is being sent.",
            "requests",
            -(-wait_ns // 1_000_000),
        )
    book = gateway.limit_book.current
    if not book.limits_anybody:
        return model
    holding = book.holding(principal.key_id, principal.user_id, principal.team_id, exchange.model)
    ticket = Ticket(call.id, principal.key_id, call.at_us)
    call.admission = admission = Admission(book, holding, principal, ticket)
    if holding.falls_back:
        model = await _affordable(gateway, call, exchange, model, admission)
        holding = admission.holding
    claims: tuple[Claim, ...] = ()
    if holding.budgets and not ticket.claims and gateway.ledger.admits_and_holds:
        claims = _claims(call, exchange, model, admission)
    tokens = measure.asked_tokens(exchange) if holding.counts_tokens else 0
    client_ip = call.facts["client_ip"] if call.facts is not None else ""
    call.expect(LEDGER_TIMEOUT_S, _ledger_is_slow)
    try:
        refused = await gateway.ledger.admit(ticket, holding, client_ip, tokens, claims)
    except LedgerAway:
        return model  # nobody can count now; what is on a budget is judged where it is held for
    except CancelledError:
        raise call.interruption() from None
    call.extra_headers += levels(ticket.requests, ticket.tokens)
    if refused is not None:
        raise _rate_limited(call, refused)
    return model


async def hold(gateway: Gateway, call: Call, exchange: Exchange, model: ModelEntry) -> None:
    """Hold the most that the call can cost, as the policies have left it.

    Raises BudgetSpent, RateLimited, UnpricedModel, LedgerUnavailable."""
    admission: Admission | None = call.admission
    if admission is None or not admission.holding.budgets:
        return
    if admission.ticket.claims and (call.passage is None or not call.passage.review.changed):
        return  # held when the call was admitted
    spent = await _try_to_hold(gateway, call, exchange, model, admission)
    if spent is not None:
        _note_spent(call, spent)
        raise _no_room(call, spent)


async def _affordable(
    gateway: Gateway, call: Call, exchange: Exchange, model: ModelEntry, admission: Admission
) -> ModelEntry:
    """Held for. Raises BudgetSpent, RateLimited, UnpricedModel, LedgerUnavailable."""
    spent = await _try_to_hold(gateway, call, exchange, model, admission)
    if spent is None:
        return model
    _note_spent(call, spent)
    # What others only hold may come back: then the dearer model can be had in a moment.
    cheaper = None if spent.is_held else _cheaper(gateway, admission.principal, spent.budget, model)
    if cheaper is None:
        raise _no_room(call, spent)
    exchange.model = cheaper.name
    exchange.context_window = cheaper.context_window
    if call.facts is not None:
        call.facts["model"] = cheaper.name
    principal = admission.principal
    admission.holding = admission.book.holding(principal.key_id, principal.user_id, principal.team_id, cheaper.name)
    spent = await _try_to_hold(gateway, call, exchange, cheaper, admission)
    if spent is not None:
        _note_spent(call, spent)
        raise _no_room(call, spent)
    return cheaper


def settle(gateway: Gateway, call: Call) -> None:
    """Before the books are closed: says there when a call has cost more than was held for it. Never raises."""
    if call.passage is not None and call.passage.was_blocked and call.facts is not None:
        rules = gateway.limit_book.current.rules
        if rules.blocks_to_throttle is not None:
            gateway.ledger.blocked(call.facts["key_id"], rules.blocks_to_throttle, rules.throttle_s)
    admission: Admission | None = call.admission
    if admission is None:
        return
    used = call.outcome
    nano_usd = used.get("cost_nano_usd") or 0
    tokens = used.get("prompt_tokens", 0) + used.get("completion_tokens", 0)
    ticket = admission.ticket
    for claim in ticket.claims:
        if (tokens if claim.budget.in_tokens else nano_usd) > claim.amount:
            used["above_hold"] = True
    gateway.ledger.settle(ticket, nano_usd, tokens)


def levels(requests: Level | None, tokens: Level | None) -> list[Header]:
    """The x-ratelimit-* headers, as OpenAI names them."""
    headers: list[Header] = []
    for kind, level in ((b"requests", requests), (b"tokens", tokens)):
        if level is not None:
            headers += [
                (b"x-ratelimit-limit-" + kind, b"%d" % level.limit),
                (b"x-ratelimit-remaining-" + kind, b"%d" % level.remaining),
                (b"x-ratelimit-reset-" + kind, duration(level.reset_ns).encode()),
            ]
    return headers


def duration(ns: int) -> str:
    """As OpenAI writes it: 120ms, 1.5s, 6m0s. To the millisecond, rounded up."""
    ms = -(-ns // 1_000_000)
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    seconds = f"{ms / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


# --- holding --------------------------------------------------------------------------------------------------------
async def _try_to_hold(
    gateway: Gateway, call: Call, exchange: Exchange, model: ModelEntry, admission: Admission
) -> Spent | None:
    claims = _claims(call, exchange, model, admission)
    if claims == admission.ticket.claims:
        return None  # what the policies have changed makes no difference
    call.expect(LEDGER_TIMEOUT_S, _ledger_is_slow)
    try:
        return await gateway.ledger.hold(admission.ticket, claims)
    except LedgerAway:
        if admission.book.rules.serve_without_ledger:
            return None
        raise _ledger_is_slow() from None
    except CancelledError:
        raise call.interruption() from None


def _claims(call: Call, exchange: Exchange, model: ModelEntry, admission: Admission) -> tuple[Claim, ...]:
    """Raises UnpricedModel."""
    book, budgets = admission.book, admission.holding.budgets
    default = book.rules.default_max_tokens
    completion, is_named = measure.most_completion_tokens(exchange, model.max_output_tokens, default)
    if not is_named:
        exchange.max_output = min(default, model.max_output_tokens or default)
    admission.most_completion = completion
    prompt = measure.most_prompt_tokens(exchange, measure.most_bytes(exchange))
    cost = 0
    if admission.holding.counts_money:
        cost = _most_cost(model, prompt, completion, admission.principal.team_id)
    claims = []
    for budget in budgets:
        start_us, end_us = budget.window_us(call.at_us)
        limit = None if model.name == budget.fallback_model else budget.limit_at(start_us, end_us)
        amount = prompt + completion if budget.in_tokens else cost
        claims.append(Claim(budget, start_us, end_us, book.counted_from.get(budget.id, 0), limit, amount))
    return tuple(claims)


def _most_cost(model: ModelEntry, prompt: int, completion: int, team_id: int) -> int:
    """By the dearest route: which one answers is not known yet."""
    most = 0
    for candidate in model.candidates:
        price = candidate.price_for(team_id)
        if price is None and candidate.target.adapter.answer is not None:
            continue  # nobody is asked, nobody bills
        if price is None:
            raise UnpricedModel(
                f"What {model.name} costs is not known, so it cannot be used on a budget. Use another model, or ask "
                "whoever runs the gateway to set its price.",
                param="model",
            )
        most = max(most, cost_at_most(prompt, completion, price))
    return most


def _cheaper(gateway: Gateway, principal: Principal, budget: BudgetSpec, model: ModelEntry) -> ModelEntry | None:
    if not budget.fallback_model or budget.fallback_model == model.name:
        return None
    entry = gateway.snapshots.current.find(budget.fallback_model)
    if entry is None or (principal.models is not None and entry.name not in principal.models):
        return None
    return entry


def _note_spent(call: Call, spent: Spent) -> None:
    """In the books, so that whoever looks after the budget hears of it."""
    if call.facts is not None and not spent.is_held:
        call.facts["spent_budget_id"] = spent.budget.id


# --- refusing -------------------------------------------------------------------------------------------------------
def _note_refused(call: Call, limit: str) -> None:
    if call.facts is not None:
        call.facts["refused_by"] = limit


def _rate_limited(call: Call, refused: Refused) -> RateLimited:
    count = f"{refused.limit:,}"
    _note_refused(call, IN_BOOKS[refused.what].format(limit=count, whose=refused.whose.named))
    wait_ms = max(-(-refused.wait_ns // 1_000_000), 1)
    if refused.what == "parallel":
        wait_ms = HELD_WAIT_MS
    limit = WORDS[refused.what].format(limit=count, whose=refused.whose.told)
    return RateLimited(
        f"Rate limit reached: {limit}. Try again in {duration(wait_ms * 1_000_000)}.",
        "tokens" if refused.what == "tokens" else "requests",
        wait_ms,
    )


def _no_room(call: Call, spent: Spent) -> GatewayError:
    budget = spent.budget
    per, whose = budget.windows[0], budget.whose.told
    held = "; what is left is held by calls under way" if spent.is_held else ""
    window = "in total" if per == "total" else f"per {per}"
    _note_refused(call, f"budget of {budget.whose.named} {window}{held}")
    if not budget.limit and not budget.top_ups:
        return BudgetSpent(f"The budget of {whose} is 0: it pays for no call. Ask whoever looks after it.")
    if spent.is_held:
        return RateLimited(
            f"Other calls that are under way have taken what is left of the budget of {whose}. Try again when "
            "they have ended.",
            "requests",
            HELD_WAIT_MS,
        )
    again = ""
    if per != "total":
        ends = datetime.fromtimestamp(spent.until_us / 1e6, UTC)
        again = f" The next {per} begins at {ends:%Y-%m-%d %H:%M} UTC."
    return BudgetSpent(
        f"The budget of {whose} has no room for this call.{again} Ask for less (max_tokens), or ask whoever "
        "looks after the budget for more."
    )


def _ledger_is_slow() -> GatewayError:
    return LedgerUnavailable(
        "The gateway cannot tell right now what is left of a budget, so calls on it are not made. Try again soon.",
        headers={"retry-after": "2"},
    )
