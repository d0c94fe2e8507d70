"""What a web process holds for its calls, and the limits it holds them to."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.authentication import Authenticator
from proxy.snapshot import Holder
from proxy.upstream import Upstream
from usage.journal import Journal


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds, see docs/configuration.md."""

    max_body_bytes: int
    max_reply_bytes: int
    body_timeout_s: float
    write_timeout_s: float
    detached_limit_s: float


@dataclass(slots=True)
class Gateway:
    """What a web process holds for its calls."""

    authenticator: Authenticator
    snapshots: Holder
    upstream: Upstream
    journal: Journal
    limits: Limits
    user_agent: bytes  # under which our own calls leave, the same in every process
