"""What a web process holds for its calls, and the limits it holds them to."""

from __future__ import annotations

from dataclasses import dataclass, field

from accounts.authentication import Authenticator
from policies import book
from policies.checks.base import Moderate, Verdict
from policies.engine import Chain
from policies.errors import ModerationFailed
from proxy.snapshot import Holder
from proxy.upstream import Upstream
from usage.journal import Journal
from usage.ledger.base import Ledger
from usage.ledger.memory import MemoryLedger
from usage.limits import Holder as LimitHolder

NOBODY_IS_LIMITED = LimitHolder()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds, see docs/configuration.md."""

    max_body_bytes: int
    max_reply_bytes: int
    body_timeout_s: float
    write_timeout_s: float
    detached_limit_s: float


async def nobody_moderates(provider: str, model: str, texts: list[str]) -> Verdict:
    raise ModerationFailed("no moderation is set up")


@dataclass(slots=True)
class Gateway:
    """What a web process holds for its calls."""

    authenticator: Authenticator
    snapshots: Holder
    upstream: Upstream
    journal: Journal
    limits: Limits
    user_agent: bytes  # under which our own calls leave, the same in every process
    policies: book.Holder[Chain] = field(default_factory=lambda: book.Holder(Chain))
    moderate: Moderate = nobody_moderates
    limit_book: LimitHolder = NOBODY_IS_LIMITED
    ledger: Ledger = field(default_factory=lambda: MemoryLedger(NOBODY_IS_LIMITED))
