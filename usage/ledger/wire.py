"""The ledger's line to Redis: one connection, everything that one turn of the event loop asks in one write.

It says whose memory it talks to: `run_id` changes when Redis was started anew, which may have lost what it knew (with
AOF the last second of it), and in a cluster, where no one server could tell, it is always "cluster".
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, Protocol

import hiredis
from redis.asyncio import ConnectionPool, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from usage.ledger.base import LedgerAway

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "lua"
CONNECT_TIMEOUT_S = 0.5
ANSWER_TIMEOUT_S = 1.0
RETRY_S = 0.2
CLUSTER_CONNECTIONS = 64
CLUSTER = "cluster"
READ_BYTES = 64 * 1024
NOTHING_YET = object()


class Ready:
    """Arguments that are asked with one call after the other, as they go over the wire."""

    __slots__ = ("arguments", "packed")

    def __init__(self, *arguments: str | int) -> None:
        self.arguments = arguments
        self.packed = b"".join(map(_bulk, arguments))


Argument = str | int | Ready


class Script:
    """A file of lua/, with what all of them begin with before it."""

    def __init__(self, name: str) -> None:
        before = [] if name == "open" else ["begin"]
        if name in ("admit", "hold", "release"):
            before.append("holding")
        self.name = name
        self.text = "".join([(FOLDER / f"{part}.lua").read_text() for part in (*before, name)])
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str) -> Script:
    return Script(name)


class Wire(Protocol):
    run_id: str

    def ask(self, script: Script, key: str, arguments: list[Argument]) -> Future[Any]:
        """The script's answer. It may fail with LedgerAway."""

    async def connect(self) -> None:
        """Raises LedgerAway."""

    async def close(self) -> None: ...


class ServerWire:
    """To one server. `on_new_server` is called when the one that answers is not the one that did before."""

    def __init__(self, url: str, on_new_server: Callable[[], None] = lambda: None) -> None:
        self.run_id = ""
        self._on_new_server = on_new_server
        self._pool = ConnectionPool.from_url(
            url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=None, health_check_interval=0
        )
        self._connection: Any = None
        self._reader: Task[None] | None = None
        self._keeper: Task[None] | None = None
        self._asked: deque[tuple[Future[Any], Script, str, list[Argument]]] = deque()
        self._unsent: list[tuple[Future[Any], Script, str, list[Argument]]] = []
        self._oldest_at = 0.0

    def ask(self, script: Script, key: str, arguments: list[Argument]) -> Future[Any]:
        loop = asyncio.get_running_loop()
        answer: Future[Any] = loop.create_future()
        if self._connection is None:
            self._keep_trying()
            answer.set_exception(LedgerAway("not connected"))
            return answer
        if not self._unsent:
            loop.call_soon(self._send)
        self._unsent.append((answer, script, key, arguments))
        return answer

    async def connect(self) -> None:
        if self._connection is not None:
            return
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await connection.connect()
                info = await _ask(connection, "INFO", "server")
                facts = dict(line.partition(":")[::2] for line in _text(info).splitlines())
                for name in ("open", "admit", "hold", "settle", "beat", "base", "begun", "blocked", "dead", "release"):
                    await _ask(connection, "SCRIPT", "LOAD", script(name).text)
        except (RedisError, OSError, TimeoutError) as error:
            await _disconnect(connection)
            raise LedgerAway(type(error).__name__) from None
        if facts.get("redis_mode") == CLUSTER:
            await _disconnect(connection)
            raise WrongKind
        self._connection = connection
        self._reader = asyncio.create_task(self._read(connection))
        before, self.run_id = self.run_id, facts.get("run_id", "")
        if before and before != self.run_id:
            self._on_new_server()

    async def close(self) -> None:
        for task in (self._keeper, self._reader):
            if task is not None:
                task.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            await _disconnect(connection)
        self._fail("closed")

    def _send(self) -> None:
        batch, self._unsent = self._unsent, []
        connection = self._connection
        if connection is None:
            for answer, *_ in batch:
                _refuse(answer, "not connected")
            return
        if not self._asked:
            self._oldest_at = asyncio.get_running_loop().time()
        self._asked.extend(batch)
        # Its own methods await a drain, and hold a lock meanwhile; a few kilobytes need neither.
        connection._writer.write(
            b"".join([_packed("EVALSHA", script.sha, 1, key, *arguments) for _, script, key, arguments in batch])
        )

    async def _read(self, connection: Any) -> None:
        """What has come is taken apart at once, with a reader of our own: nobody else reads from the connection now,
        and its own method takes a timer and three coroutines for each answer."""
        loop, stream = asyncio.get_running_loop(), connection._reader
        replies = hiredis.Reader(notEnoughData=NOTHING_YET)
        watch = asyncio.create_task(self._watch(connection))
        try:
            while data := await stream.read(READ_BYTES):
                replies.feed(data)
                while (said := replies.gets(False)) is not NOTHING_YET:
                    if not isinstance(said, hiredis.PushNotification):
                        self._take(said)
                self._oldest_at = loop.time()
            self._lost(connection, "the connection was closed")
        except (OSError, hiredis.HiredisError, IndexError) as error:
            self._lost(connection, type(error).__name__)
        finally:
            watch.cancel()
            await _disconnect(connection)

    def _take(self, said: Any) -> None:
        """The answer to the oldest question. Raises IndexError: nobody has asked."""
        answer, script, key, arguments = self._asked.popleft()
        if not isinstance(said, hiredis.ReplyError):
            if not answer.done():
                answer.set_result(said)
        elif str(said).startswith("NOSCRIPT"):
            self._ask_with_text(answer, script, key, arguments)
        else:
            logger.error("the ledger's script %s failed: %s", script.name, said)
            _refuse(answer, "its script failed")

    def _ask_with_text(self, answer: Future[Any], script: Script, key: str, arguments: list[Argument]) -> None:
        """Redis has forgotten its scripts (SCRIPT FLUSH): EVAL teaches it this one again."""
        self._asked.append((answer, script, key, arguments))
        self._connection._writer.write(_packed("EVAL", script.text, 1, key, *arguments))

    async def _watch(self, connection: Any) -> None:
        """A server that hangs is as good as none."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(ANSWER_TIMEOUT_S / 4)
            if self._asked and loop.time() - self._oldest_at > ANSWER_TIMEOUT_S:
                self._lost(connection, "no answer in time")
                return

    def _lost(self, connection: Any, why: str) -> None:
        if self._connection is not connection:
            return
        logger.error("the ledger in Redis is away (%s)", why)
        self._connection = None
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
        self._fail(why)
        writer = connection._writer
        if writer is not None:
            writer.transport.abort()
        self._keep_trying()

    def _fail(self, why: str) -> None:
        lost, self._asked = self._asked, deque()
        for answer, *_ in (*lost, *self._unsent):
            _refuse(answer, why)
        self._unsent = []

    def _keep_trying(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        while self._connection is None:
            try:
                await self.connect()
                logger.info("the ledger in Redis is there again")
            except LedgerAway:
                await asyncio.sleep(RETRY_S)


class WrongKind(Exception):
    """The server is a node of a cluster: see ClusterWire."""


class ClusterWire:
    """To a cluster: each script goes to the node that has its slot."""

    run_id = CLUSTER

    def __init__(self, url: str) -> None:
        self._client = RedisCluster.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            max_connections=CLUSTER_CONNECTIONS,
            retry=Retry(NoBackoff(), 1),
        )
        self._tasks: set[Task[Any]] = set()
        self._turns = asyncio.Semaphore(CLUSTER_CONNECTIONS // 2)

    def ask(self, script: Script, key: str, arguments: list[Argument]) -> Future[Any]:
        task = asyncio.ensure_future(self._ask(script, key, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # fetched: whoever asked may have left

    async def connect(self) -> None:
        try:
            await self._client.initialize()
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerAway(type(error).__name__) from None

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, script: Script, key: str, arguments: list[Argument]) -> Any:
        plain = list(_plain(arguments))
        try:
            async with self._turns:
                try:
                    return await self._client.evalsha(script.sha, 1, key, *plain)
                except NoScriptError:
                    return await self._client.eval(script.text, 1, key, *plain)
        except ResponseError as error:
            logger.error("the ledger's script %s failed: %s", script.name, error)
            raise LedgerAway("its script failed") from None
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerAway(type(error).__name__) from None


async def open_wire(url: str, on_new_server: Callable[[], None]) -> Wire:
    """The kind of line that fits the server. Raises LedgerAway when there is none."""
    wire = ServerWire(url, on_new_server)
    try:
        await wire.connect()
    except WrongKind:
        await wire.close()
        cluster = ClusterWire(url)
        await cluster.connect()
        return cluster
    return wire


def _packed(*command: Argument) -> bytes:
    """As Redis reads a command (RESP, "Sending commands to a Redis server")."""
    count = 0
    pieces = []
    for argument in command:
        if type(argument) is Ready:
            count += len(argument.arguments)
            pieces.append(argument.packed)
        else:
            count += 1
            pieces.append(_bulk(argument))  # type: ignore[arg-type]
    return b"*%d\r\n%b" % (count, b"".join(pieces))


def _bulk(argument: str | int) -> bytes:
    data = str(argument).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _plain(arguments: Iterable[Argument]) -> Iterator[str | int]:
    for argument in arguments:
        if isinstance(argument, Ready):
            yield from argument.arguments
        else:
            yield argument


async def _ask(connection: Any, *command: str) -> Any:
    await connection.send_command(*command)
    return await connection.read_response(disable_decoding=True)


async def _disconnect(connection: Any) -> None:
    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError):
        return


def _refuse(answer: Future[Any], why: str) -> None:
    if not answer.done():
        answer.set_exception(LedgerAway(why))
        answer.exception()  # fetched: whoever asked may have left


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
