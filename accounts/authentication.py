"""API key -> Principal, through a bounded cache in front of the database.

A key is cached by its public id (a key of a replaced system: by its digest) together with the digests it must fit. So
a call costs no look-up, a wrong secret is refused without one, and no key stays in memory.

    cached         in the event loop, on every call: no I/O
    authenticate   in the event loop, when `cached` knows nothing: one look-up in a thread, shared by all who wait
    check_now      anywhere, without the cache: for pages that are asked for with a key, but are no calls
    refresh        in the configuration watch's thread, after every change: reads all cached keys again
    confirm        in the same thread, as long as nothing changes: what is cached is as good as new

With the database away known keys go on working for KNOWN_FOR_S; unknown ones are neither let in nor called invalid.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db import Error as DatabaseProblem  # the root of DatabaseError and InterfaceError
from django.db import connection

from accounts import keys, selectors
from accounts.keys import Digest, Peppers
from accounts.networks import AllowedNetworks, allowed_networks
from accounts.selectors import Caller

KNOWN_FOR_S = 60 * 60.0  # since the database last confirmed it
UNKNOWN_FOR_S = 60.0  # `refresh` makes a new key known at once; this is for a write that forgot to bump the version
LOOK_UP_TIMEOUT_S = 5.0
LOOK_UP_TRIES = 3  # when a refresh begins in the middle
LOOK_UP_THREADS = 4
MAX_WAITING = 256  # look-ups in the queue: some tenths of a second of work for the threads

logger = logging.getLogger(__name__)
Value = TypeVar("Value")


class InvalidKey(Exception):
    """Malformed, unknown, expired, disabled, wrong secret, team disabled, owner inactive or no longer in the team.
    Which of them it is, the caller must not learn."""


class LookupUnavailable(Exception):
    """The key is not cached, and the database did not answer or too many look-ups wait for it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as of the look-up."""

    key_id: int
    public_id: str
    key_label: str  # "name (public id)"
    user_id: int | None  # None: a service key
    team_id: int
    endpoints: frozenset[str] | None  # None: all
    models: frozenset[str] | None  # None: all enabled ones; else those that team, user and key all allow
    expires_at: float | None  # unix seconds
    networks: AllowedNetworks | None = None  # None: from anywhere; else what the team's and the key's list both admit

    def admits(self, client_ip: str) -> bool:
        """Whether the key may be used from there. "" is nowhere."""
        return self.networks is None or self.networks.admit(client_ip)


@dataclass(frozen=True, slots=True)
class _Secret:
    """A digest that the key may fit, and until when (unix seconds; None: as long as the key).

    Without a digest: a key of a replaced system. It was found by its digest, so nothing is left to compare."""

    digest: Digest | None
    until: float | None


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    secrets: tuple[_Secret, ...]
    found_by: str  # its public id or its imported digest, as stored
    read_at: float  # monotonic seconds, before the query


@dataclass(frozen=True, slots=True)
class _Question:
    """What to look up: a public id, or an old key by its digest under each pepper."""

    public_id: str
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    caller: Caller | None
    has_imported_keys: bool | None  # None: not asked


class Authenticator:
    """One for each process. `size` bounds the known keys and, apart from them, the unknown ones; the oldest go first.

    Both maps are written under the lock and read without it: a `get` is one step to every other thread.
    """

    def __init__(
        self,
        peppers: Peppers,
        size: int,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peppers = peppers
        self._size = size
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()  # until when (monotonic seconds)
        self._has_imported_keys = True  # until the database says otherwise
        self._generation = 0  # counts the refreshes begun: answers to older questions may be out of date
        self._refreshed = 0  # the generation of the last refresh that succeeded
        self._confirmed_at = float("-inf")
        self._flights: dict[str, asyncio.Task[_Entry | None]] = {}
        self._readers = _Readers()
        self._failing = False

    def cached(self, key: str) -> Principal | None:
        """None: a look-up is needed. Raises InvalidKey."""
        name = self._name(key)
        entry = self._known.get(name)
        if entry is not None:
            known_since = max(entry.read_at, self._confirmed_at)
            return self._admit(entry, key) if self._monotonic() - known_since < KNOWN_FOR_S else None
        unknown_until = self._unknown.get(name)
        if unknown_until is not None and self._monotonic() < unknown_until:
            raise InvalidKey
        return None

    async def authenticate(self, key: str) -> Principal:
        """Raises InvalidKey, LookupUnavailable."""
        principal = self.cached(key)
        if principal is not None:
            return principal
        name = self._name(key)
        flight = self._flights.get(name) or self._take_off(name, key)
        # Shielded: others wait for the same look-up when this caller leaves.
        entry = await asyncio.shield(flight)
        if entry is None:
            raise InvalidKey
        return self._admit(entry, key)

    def refresh(self) -> None:
        """Reads every cached key again, and forgets the unknown ones. Raises what the database raises: then the old
        entries go on working, and the caller tries again."""
        started = self._monotonic()
        with self._lock:
            self._generation += 1
            generation = self._generation
            self._unknown = OrderedDict()
            before = self._known.copy()
        try:
            ids = list({entry.principal.key_id for entry in before.values()})
            callers = {caller.id: caller for caller in selectors.callers_by_id(ids)}
            has_imported_keys = selectors.has_imported_keys()
        except DatabaseProblem:
            connection.close()  # so that the next try gets one that works
            raise
        after = {
            name: _entry(callers.get(entry.principal.key_id), entry.found_by, started) for name, entry in before.items()
        }
        with self._lock:
            if self._generation != generation:
                return  # another refresh has begun, and what it reads is newer
            self._has_imported_keys = has_imported_keys
            self._swap(after)
            self._refreshed = generation

    def confirm(self) -> None:
        """The database has just been asked, and nothing has changed since the last refresh."""
        if self._refreshed == self._generation:
            self._confirmed_at = self._monotonic()

    def close(self) -> None:
        """Ends the look-up threads when they have answered what they were asked; later look-ups are refused with
        LookupUnavailable. Waits for them for a second at most."""
        self._readers.close()

    def _name(self, key: str) -> str:
        """What the key is cached by. Raises InvalidKey."""
        try:
            return keys.public_id(key)
        except keys.MalformedKey:
            if not self._has_imported_keys:
                raise InvalidKey from None
        try:
            return self._peppers.digest(keys.old_key_sha256(key)).value
        except keys.MalformedKey:
            raise InvalidKey from None

    def _admit(self, entry: _Entry, key: str) -> Principal:
        """Raises InvalidKey."""
        return _admitted(entry, key, self._peppers, self._now())

    # --- look-ups ---------------------------------------------------------------------------------------------------
    def _take_off(self, name: str, key: str) -> asyncio.Task[_Entry | None]:
        """Raises LookupUnavailable when too many wait."""
        if self._readers.waiting() >= MAX_WAITING or self._readers.closed:
            raise LookupUnavailable
        flight = asyncio.create_task(self._look_up(name, _question(key, self._peppers)))
        self._flights[name] = flight
        flight.add_done_callback(lambda done: self._land(name, done))
        return flight

    def _land(self, name: str, flight: asyncio.Task[_Entry | None]) -> None:
        del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # fetched, or asyncio complains when everybody who waited has left

    async def _look_up(self, name: str, question: _Question) -> _Entry | None:
        """None: no such key, or not in force. Raises LookupUnavailable."""
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                for _ in range(LOOK_UP_TRIES):
                    generation, read_at = self._generation, self._monotonic()
                    answer = await asyncio.wrap_future(self._readers.ask(question))
                    entry = _entry(answer.caller, _found_by(answer.caller, question), read_at)
                    if self._store(name, entry, answer.has_imported_keys, generation):
                        break
                # Else changes follow each other faster than look-ups: the last answer serves, but is not kept.
                self._log_outage(None)
                return entry
        except (TimeoutError, DatabaseProblem) as error:
            self._log_outage(error)
            raise LookupUnavailable from None

    def _store(self, name: str, entry: _Entry | None, has_imported_keys: bool | None, generation: int) -> bool:
        """False: a refresh has begun since the question, so the answer may be older than what it reads."""
        with self._lock:
            if self._generation != generation:
                return False
            if has_imported_keys is not None:
                self._has_imported_keys = has_imported_keys
            if entry is None:
                self._known.pop(name, None)
                self._forget(name)
            else:
                _put(self._known, name, entry, self._size)
            return True

    def _swap(self, after: dict[str, _Entry | None]) -> None:
        """Puts what was read in place. What a look-up has stored meanwhile is as new, and stays."""
        known: OrderedDict[str, _Entry] = OrderedDict()
        for name, entry in self._known.items():
            renewed = after.get(name, entry)
            if renewed is None:
                self._forget(name)
            else:
                known[name] = renewed
        self._known = known

    def _forget(self, name: str) -> None:
        _put(self._unknown, name, self._monotonic() + UNKNOWN_FOR_S, self._size)

    def _log_outage(self, error: Exception | None) -> None:
        """One line when look-ups begin to fail and one when they work again, however many fail in between."""
        if error is not None and not self._failing:
            logger.error("API keys cannot be looked up (%s); only known ones work", type(error).__name__)
        if error is None and self._failing:
            logger.info("API keys are looked up again")
        self._failing = error is not None


def check_now(key: str, peppers: Peppers) -> Principal:
    """Whose key it is, by one look-up. Raises InvalidKey, and what the database raises."""
    try:
        question = _question(key, peppers)
    except keys.MalformedKey:
        raise InvalidKey from None
    if question.digests:
        caller = selectors.caller_by_imported_digest(question.digests)
    else:
        caller = selectors.caller_by_public_id(question.public_id)
    entry = _entry(caller, _found_by(caller, question), 0)
    if entry is None:
        raise InvalidKey
    return _admitted(entry, key, peppers, time.time())


def _question(key: str, peppers: Peppers) -> _Question:
    """Raises MalformedKey."""
    try:
        return _Question(keys.public_id(key))
    except keys.MalformedKey:
        return _Question("", tuple(peppers.all_digests(keys.old_key_sha256(key))))


def _found_by(caller: Caller | None, question: _Question) -> str:
    return (caller.imported_digest if caller and question.digests else None) or question.public_id


def _admitted(entry: _Entry, key: str, peppers: Peppers, now: float) -> Principal:
    """Raises InvalidKey: expired, or not the secret of this entry."""
    expires_at = entry.principal.expires_at
    if expires_at is not None and now >= expires_at:
        raise InvalidKey
    for secret in entry.secrets:
        if secret.until is not None and now >= secret.until:
            continue
        if secret.digest is None or peppers.verify(key, secret.digest):
            return entry.principal
    raise InvalidKey


class _Readers:
    """Threads that answer questions, each on a database connection of its own.

    Not an executor: its threads have no last act in which to close their connection, and one that hangs in a dead
    connection would keep the process from ending."""

    def __init__(self) -> None:
        self.closed = False
        self._jobs: queue.SimpleQueue[tuple[Future[_Answer], _Question] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def ask(self, question: _Question) -> Future[_Answer]:
        # Started by the first question: threads do not survive a fork.
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._serve, name=f"key-look-up-{number}", daemon=True)
                for number in range(LOOK_UP_THREADS)
            ]
            for thread in self._threads:
                thread.start()
        future: Future[_Answer] = Future()
        self._jobs.put((future, question))
        return future

    def waiting(self) -> int:
        return self._jobs.qsize()

    def close(self) -> None:
        self.closed = True
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + 1
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, question = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(_answer(question))
            except Exception as error:
                future.set_exception(error)
        connection.close()


def _answer(question: _Question) -> _Answer:
    """Raises what the database raises."""
    had_connection = connection.connection is not None
    try:
        return _read(question)
    except DatabaseProblem:
        connection.close()
        if not had_connection:
            raise
    # An idle connection may have been closed by the other side; a new one says whether the database is away.
    try:
        return _read(question)
    except DatabaseProblem:
        connection.close()
        raise


def _read(question: _Question) -> _Answer:
    if not question.digests:
        return _Answer(selectors.caller_by_public_id(question.public_id), None)
    caller = selectors.caller_by_imported_digest(question.digests)
    return _Answer(caller, caller is not None or selectors.has_imported_keys())


def _entry(caller: Caller | None, found_by: str, read_at: float) -> _Entry | None:
    """None: not in force, or no longer to be found by that."""
    if caller is None or not caller.in_force or found_by not in (caller.public_id, caller.imported_digest):
        return None
    secrets = _own_secrets(caller) if found_by == caller.public_id else _old_secret(caller)
    principal = Principal(
        key_id=caller.id,
        public_id=caller.public_id,
        key_label=f"{caller.name} ({caller.public_id})",
        user_id=caller.user_id,
        team_id=caller.team_id,
        endpoints=_names(caller.endpoints_allowed),
        models=_common(caller.team__models_allowed, caller.user__models_allowed, caller.models_allowed),
        expires_at=_unix(caller.expires_at),
        networks=allowed_networks(caller.team__networks_allowed, caller.networks_allowed),
    )
    return _Entry(principal, secrets, found_by, read_at)


def _own_secrets(caller: Caller) -> tuple[_Secret, ...]:
    """The secret, and for the time of an overlap the one before the rotation."""
    current = _Secret(Digest(caller.digest, caller.pepper), None)
    if not caller.previous_digest or caller.previous_until is None:
        return (current,)
    return (current, _Secret(Digest(caller.previous_digest, caller.previous_pepper), _unix(caller.previous_until)))


def _old_secret(caller: Caller) -> tuple[_Secret, ...]:
    """An old key works until a rotation gives it a secret of ours; then for the overlap."""
    if not caller.digest:
        return (_Secret(None, None),)
    return (_Secret(None, _unix(caller.previous_until)),) if caller.previous_until else ()


def _put(cache: OrderedDict[str, Value], name: str, value: Value, size: int) -> None:
    cache[name] = value
    if len(cache) > size:
        cache.popitem(last=False)


def _common(*allowed: Any) -> frozenset[str] | None:
    """What all of them allow; None: none of them says anything."""
    limits = [names for names in map(_names, allowed) if names is not None]
    return frozenset.intersection(*limits) if limits else None


def _names(allowed: Any) -> frozenset[str] | None:
    """JSON as it was saved. Anything but null and a list of names allows nothing: nobody can have meant `all`."""
    if allowed is None:
        return None
    return frozenset(name for name in allowed if isinstance(name, str)) if isinstance(allowed, list) else frozenset()


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
