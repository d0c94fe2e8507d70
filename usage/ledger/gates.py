"""What lua/admit.lua is asked of a call, and what it answers."""

from __future__ import annotations

from typing import Any, NamedTuple

from usage.ledger.base import Refused, Ticket, tightest
from usage.ledger.wire import Ready
from usage.limits import LimitSpec, Whose

NS_PER_US = 1_000


class Gate(NamedTuple):
    """One question of lua/admit.lua. `kind`: p parallel, f fair share, r requests, t tokens."""

    kind: str
    bucket: str
    rate: int
    whose: Whose

    def amount(self, tokens: int) -> int:
        """How much of its bucket a call of so many tokens takes."""
        return min(tokens, self.rate) if self.kind == "t" else 1


class Gates:
    """What one part judges of a call. `told`: as admit.lua wants to have them."""

    __slots__ = ("all", "charging", "counting", "told")

    def __init__(self, gates: list[Gate]) -> None:
        self.all = gates
        self.charging = [gate for gate in gates if gate.kind in "rt"]
        self.counting = [gate for gate in gates if gate.kind == "t"]
        self.told = Ready(len(gates), *(fact for gate in gates for fact in gate[:3]))


NO_GATES = Gates([])


def gates_of(limit: LimitSpec, bucket: str) -> list[Gate]:
    """`bucket`: its name in Redis begins so."""
    gates = []
    if limit.parallel is not None:
        gates.append(Gate("p", f"{bucket}/p", limit.parallel, limit.whose))
    if limit.requests is not None:
        if limit.per_key and limit.requests:
            gates.append(Gate("f", bucket, limit.requests, limit.whose))
        gates.append(Gate("r", f"{bucket}/r", limit.requests, limit.whose))
    if limit.tokens is not None:
        gates.append(Gate("t", f"{bucket}/t", limit.tokens, limit.whose))
    return gates


WHAT = {"p": "parallel", "f": "requests", "r": "requests", "t": "tokens"}


def read_answer(ticket: Ticket, gates: list[Gate], said: list[Any]) -> Refused | None:
    """Notes how the buckets stand."""
    refused, wait_us = said[:2]
    for gate, used_us in zip(gates, map(int, said[2 : 2 + len(gates)]), strict=True):
        if gate.kind in "rt":
            if gate.kind == "r":
                ticket.requests = tightest(ticket.requests, gate.rate, used_us * NS_PER_US)
            else:
                ticket.tokens = tightest(ticket.tokens, gate.rate, used_us * NS_PER_US)
    if not refused:
        return None
    gate = gates[refused - 1]
    return Refused(WHAT[gate.kind], gate.whose, gate.rate, int(wait_us) * NS_PER_US)
