"""The watch: a thread of each web process that notices a change of the configuration and applies it, within a second.

It always polls: on SQLite `PRAGMA data_version` (no lock, a microsecond), on PostgreSQL the version rows, on its own
connection. Redis, when there is one, only wakes it up sooner.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from accounts import versions

logger = logging.getLogger(__name__)

PERIOD_S = 0.4


class Watch:
    """`on_change[part]` is called in the thread when that part has a new version; if it raises, it is called again.
    `on_confirmed`: the database says that nothing newer exists. `on_look`: in each look, before anything else;
    it may raise too. `on_looked`: after each look, good or bad.
    """

    def __init__(
        self,
        on_change: dict[str, Callable[[], None]],
        on_confirmed: Callable[[], None],
        is_due: Callable[[], bool],
        on_looked: Callable[[], None] = lambda: None,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._on_confirmed = on_confirmed
        self._on_looked = on_looked
        self._on_look = on_look
        self._is_due = is_due
        self._applied: dict[str, int] = {}
        self._data_version: object = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._failing = False
        self._threads = [threading.Thread(target=self._run, name="config-watch", daemon=True)]
        if settings.REDIS_URL:
            self._threads.append(threading.Thread(target=self._listen, name="config-listen", daemon=True))

    def load(self) -> None:
        """The first reading of everything, before the first call is taken. Raises what the database raises."""
        found = versions.current()
        for part, apply in self._on_change.items():
            apply()
            self._applied[part] = found.get(part, 0)
        self._on_confirmed()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(5)

    def look(self) -> None:
        """One look: apply what has changed. Raises what the database raises."""
        self._on_look()
        if self._nothing_was_written() and not self._is_due():
            self._on_confirmed()
            return
        found = versions.current()
        for part, apply in self._on_change.items():
            number = found.get(part, 0)
            if number != self._applied.get(part) or (part == versions.CATALOGUE and self._is_due()):
                apply()
                self._applied[part] = number
        self._on_confirmed()

    def _nothing_was_written(self) -> bool:
        """SQLite's own counter says it for nothing; elsewhere the version rows have to be read."""
        if connection.vendor != "sqlite":
            return False
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            seen = cursor.fetchone()[0]
        unchanged = seen == self._data_version and bool(self._applied)
        self._data_version = seen  # forgotten again by `_failed` when the look that follows does not succeed
        return unchanged

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(PERIOD_S)
            self._wake.clear()
            try:
                self.look()
                if self._failing:
                    logger.info("the configuration is watched again")
                self._failing = False
            except Exception as error:
                self._failed(error)
            self._on_looked()
        connection.close()

    def _failed(self, error: Exception) -> None:
        self._data_version = None
        if not self._failing:
            away = isinstance(error, DatabaseError | InterfaceError)
            logger.exception("the %s; the last good one stays", "database is away" if away else "configuration is bad")
        self._failing = True
        connection.close()

    def _listen(self) -> None:
        """Redis says that something changed. Its absence is no error: the poll goes on."""
        import redis  # here, because it takes a fifth of the start of a process that has no Redis

        while not self._stopping.is_set():
            try:
                with redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=5) as client:
                    pubsub = client.pubsub(ignore_subscribe_messages=True)
                    pubsub.subscribe(versions.CHANNEL)
                    while not self._stopping.is_set():
                        if pubsub.get_message(timeout=1.0):
                            self._wake.set()
            except (redis.RedisError, OSError):
                self._stopping.wait(1.0)
