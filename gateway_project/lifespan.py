"""Start and stop of a web process: what must be right before the first call, and not be lost after the last."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import hashlib
import logging
import os
import sys
import time
from asyncio import to_thread
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from django.conf import settings
from django.db import connection

from accounts import versions
from accounts.authentication import Authenticator
from accounts.keys import Peppers
from accounts.sso import environment as identity_providers
from gateway_project import checks, environment_providers
from policies import book, recording
from policies.engine import Chain
from proxy.asgi import Door
from proxy.call import Receive, Send
from proxy.gateway import Gateway, Limits
from proxy.moderation import Moderator
from proxy.snapshot import Holder
from proxy.upstream import AiohttpUpstream
from proxy.watch import Watch
from usage import metrics
from usage.flusher import Flusher
from usage.journal import Journal
from usage.ledger.base import Ledger
from usage.ledger.memory import MemoryLedger
from usage.limits import Holder as LimitHolder

if TYPE_CHECKING:
    from usage.ledger.redis import RedisLedger

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# The process before this one may be finishing its last streams.
LOCK_TRIES = 20
LOCK_PAUSE_S = 0.1
LAST_CALLS_S = 3.0
POSTGRES_LOCK = 0x6761746568  # "gateh"


class Refused(Exception):
    """The process must not serve; the message says why and what to do."""


class Lifespan:
    """Answers ASGI's lifespan scope: opens everything and hands it to the door, and closes it in the other order."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._closers: list[Callable[[], object]] = []
        self.holder = Holder()
        self.policies = book.Holder(Chain)
        self.limits = LimitHolder(reads_books=not settings.REDIS_URL)
        self._ledger: RedisLedger | None = None

    async def __call__(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            if not isinstance(error, Refused):
                logger.exception("the gateway cannot start")
            await self.stop()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Raises Refused, and whatever the database raises."""
        problems = await to_thread(_in_thread, checks.run_start_checks)
        if problems:
            raise Refused("; ".join(problems))
        if not settings.REDIS_URL:
            self._closers.append(await to_thread(_in_thread, be_the_only_one))
        await to_thread(_in_thread, environment_providers.sync)
        await to_thread(_in_thread, identity_providers.sync)
        peppers = Peppers(settings.KEY_PEPPERS)
        authenticator = Authenticator(peppers, settings.KEY_CACHE_SIZE)
        self._closers.append(authenticator.close)
        watch = Watch(
            {
                versions.IDENTITY: authenticator.refresh,
                versions.CATALOGUE: self.holder.refresh,
                versions.POLICIES: self.policies.refresh,
                versions.LIMITS: self.limits.refresh,
            },
            on_confirmed=lambda: self._confirm(authenticator),
            on_looked=lambda: metrics.SNAPSHOT_AGE.set(self.holder.age_s),
            is_due=lambda: self.holder.is_due,
            on_look=self.limits.reread,
        )
        journal = Journal(settings.DATA_DIR / "journal")
        flusher = Flusher(journal, also=recording.record)
        # Budgets begin where the books are, and the books with what a process before us has left.
        await to_thread(_in_thread, flusher.adopt)
        await to_thread(_in_thread, watch.load)
        watch.start()
        self._closers.append(watch.stop)
        flusher.start()
        self._closers.append(flusher.stop)
        user_agent = f"gatehouse/{installation_id()}"
        upstream = AiohttpUpstream(user_agent)
        self._upstream = upstream
        self._door.gateway = Gateway(
            authenticator,
            self.holder,
            upstream,
            journal,
            limits(),
            user_agent.encode(),
            self.policies,
            Moderator(self.holder, upstream).moderate,
            self.limits,
            await self._open_ledger(),
        )
        settle_down()

    async def stop(self) -> None:
        if self._door.gateway is not None:
            self._door.gateway = None
            await self._wait_for_calls()
            await self._upstream.close()
            if self._ledger is not None:
                await self._ledger.stop()
        for close in reversed(self._closers):
            await to_thread(close)
        self._closers.clear()

    async def _open_ledger(self) -> Ledger:
        """In memory where there is one web process, in Redis where there may be more."""
        if not settings.REDIS_URL:
            return MemoryLedger(self.limits)
        from usage.ledger.redis import RedisLedger  # here: a process without Redis need not load its client

        self._ledger = RedisLedger(settings.REDIS_URL, self.limits)
        await self._ledger.start()
        return self._ledger

    async def _wait_for_calls(self) -> None:
        """The server has cancelled what took too long; let those calls say goodbye and close their books."""
        until = time.monotonic() + LAST_CALLS_S
        while self._door.active and time.monotonic() < until:  # noqa: ASYNC110 - once, at the very end
            await asyncio.sleep(0.02)

    def _confirm(self, authenticator: Authenticator) -> None:
        authenticator.confirm()
        self.holder.confirm()


def settle_down() -> None:
    """Keep the helpers of the event loop out of its way.

    What is loaded now stays, so the garbage collector need not walk it again and again (a full walk stops all calls for
    tens of milliseconds); and a background thread gives the interpreter back after 1 ms, not after 5.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    sys.setswitchinterval(0.001)


def installation_id() -> str:
    """Says nothing to anybody, and is the same in every process: a call that comes in under it is our own."""
    return hashlib.sha256(b"gatehouse installation:" + settings.SECRET_KEY.encode()).hexdigest()[:16]


def limits() -> Limits:
    return Limits(
        max_body_bytes=settings.MAX_BODY_BYTES,
        max_reply_bytes=settings.MAX_REPLY_BYTES,
        body_timeout_s=settings.BODY_TIMEOUT_S,
        write_timeout_s=settings.CLIENT_WRITE_TIMEOUT_S,
        detached_limit_s=settings.DETACHED_LIMIT_S,
    )


def be_the_only_one() -> Callable[[], None]:
    """Without Redis, limits and revocations hold in one web process only: refuse to be the second one.

    Gives the function that lets go. Raises Refused.
    """
    descriptor = _lock_file(settings.DATA_DIR / "web.lock")
    message = "Another web process is running without REDIS_URL. Set REDIS_URL to run more than one, or stop the other."
    if descriptor is None:
        raise Refused(message)
    if connection.vendor != "postgresql":
        return lambda: os.close(descriptor)
    held = connection.copy()
    with held.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [POSTGRES_LOCK])
        row = cursor.fetchone()
    if not row or not row[0]:
        held.close()
        os.close(descriptor)
        raise Refused(message)

    def release() -> None:
        held.close()
        os.close(descriptor)

    # Held by this thread's copy, closed by another's.
    held.inc_thread_sharing()
    return release


def _lock_file(path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            time.sleep(LOCK_PAUSE_S)
    os.close(descriptor)
    return None


def _in_thread(step: Callable[[], Result]) -> Result:
    """Run a step that queries, and leave no connection behind in the thread of the pool."""
    try:
        return step()
    finally:
        connection.close()
