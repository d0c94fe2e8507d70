"""Nothing is lost: the gateway dies, ends, loses its database or its disk, and every call is in the books exactly once.

What the upstream counted is the measure: each call carries its request id as `user`, so that both sides name it alike.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
import orjson
import pytest

from accounts.keys import make_key, make_public_id
from gateway_project.tests import cast
from gateway_project.tests.clients import (
    RawClient,
    Stream,
    answer_text,
    body,
    call,
    check_error,
    check_estimate,
    credentials,
    new_request_id,
)
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import PostgresServer, RedisServer, wait_until
from gateway_project.tests.upstream import Upstream

TEXT = "w0 w1 w2 w3 w4 "
GRACEFUL_TIMEOUT_S = 2
PARALLEL = 32
# Through the provider that waits: a busy machine takes its time over an answer, and that is no loss.
QUICK = ("patient/ok", "unpriced-test")
MIXED = ("patient/ok", "patient/slow-first-byte", "unpriced-test", "patient/ok")
SLACK_S = 1.0  # for a machine that does other things at the same time


@pytest.fixture(scope="module")
def one_process(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    with make_gateway("sqlite", GRACEFUL_TIMEOUT_S=str(GRACEFUL_TIMEOUT_S)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def two_workers(make_gateway: Callable[..., Any]) -> Iterator[GatewayProcess]:
    with make_gateway("postgres+redis", GRACEFUL_TIMEOUT_S=str(GRACEFUL_TIMEOUT_S)) as gateway:
        yield gateway


@pytest.fixture(params=["one_process", "two_workers"])
def mortal(request: pytest.FixtureRequest, upstream: Upstream) -> GatewayProcess:
    """A gateway that a test may end: it is started again here."""
    gateway: GatewayProcess = request.getfixturevalue(request.param)
    if not gateway.is_running:
        gateway.start()
    return gateway


@pytest.fixture
def sqlite_mortal(one_process: GatewayProcess, upstream: Upstream) -> GatewayProcess:
    if not one_process.is_running:
        one_process.start()
    return one_process


@pytest.fixture
def two_mortals(two_workers: GatewayProcess, upstream: Upstream) -> GatewayProcess:
    if not two_workers.is_running:
        two_workers.start()
    return two_workers


# --- load ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Load:
    """What the clients saw: ids of the calls, of those that were answered well, and what became of the others."""

    models: tuple[str, ...] = MIXED
    asked: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    async def run(self, gateway: GatewayProcess, parallel: int, goes_on: Callable[[], bool]) -> None:
        """`parallel` callers, each one call after the other, until `goes_on` says no. Whole and streamed in turn."""
        connector = aiohttp.TCPConnector(limit=parallel)
        async with aiohttp.ClientSession(gateway.url, connector=connector, trust_env=False) as session:
            await asyncio.gather(*(self._call_on(gateway, session, goes_on) for _ in range(parallel)))

    async def _call_on(
        self, gateway: GatewayProcess, session: aiohttp.ClientSession, goes_on: Callable[[], bool]
    ) -> None:
        while goes_on():
            number = len(self.asked)
            request_id = new_request_id()
            self.asked.append(request_id)
            request = body(self.models[number % len(self.models)], stream=number % 3 == 0, user=request_id)
            headers = credentials(gateway, "alice", {"x-request-id": request_id})
            try:
                async with session.post("/v1/chat/completions", json=request, headers=headers) as response:
                    content = await response.read()
                    is_whole = content.endswith(b"}}}" if not request["stream"] else b"[DONE]\n\n")
                    if response.status == 200 and is_whole and b'"error"' not in content:
                        self.answered.add(request_id)
                    else:
                        self.failed[request_id] = f"{response.status} {content[-300:]!r}"
            except aiohttp.ClientError as error:
                self.failed[request_id] = repr(error)
                await asyncio.sleep(0.02)  # refused connections come fast


def run_calls(gateway: GatewayProcess, count: int, parallel: int) -> Load:
    load = Load(QUICK)
    asyncio.run(load.run(gateway, parallel, lambda: len(load.asked) < count))
    return load


@contextmanager
def under_load(gateway: GatewayProcess, load: Load, parallel: int = PARALLEL) -> Iterator[None]:
    """Calls go on all the time inside the block."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(load.run(gateway, parallel, lambda: not stop.is_set())))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def wait_for_answers(load: Load, count: int) -> None:
    """A busy machine needs longer for them."""
    wait_until(lambda: len(load.answered) >= count, 60, f"{count} calls are answered")


def heard_by(upstream: Upstream) -> Counter[str]:
    """By request id; calls of nobody's load count as ""."""
    return Counter(heard.json.get("user", "") for heard in upstream.calls)


def events_of(gateway: GatewayProcess, load: Load) -> list[dict[str, Any]]:
    ids = set(load.asked)
    return [event for event in gateway.events() if event["request_id"] in ids]


def check_books(gateway: GatewayProcess, upstream: Upstream, load: Load, deaths: int) -> None:
    """Every call that the upstream counted is there, none twice; those that a death cut short are marked."""
    heard = heard_by(upstream)
    assert len(heard) == upstream.received, "a call was made twice"
    wait_until(lambda: set(heard) <= {event["request_id"] for event in events_of(gateway, load)}, 60, "all are booked")
    events = events_of(gateway, load)
    by_id = {event["request_id"]: event for event in events}
    assert len(by_id) == len(events), "an event is there twice"
    orphans = {request_id for request_id, event in by_id.items() if event["error_code"] == "gateway_died"}
    for request_id in orphans:
        event = by_id[request_id]
        assert (event["status"], event["estimated"], event["completion_tokens"]) == (0, True, 0)
        assert event["prompt_tokens"] > 0
    # Written down in the moment before it was sent.
    assert set(by_id) - set(heard) <= orphans
    assert len(orphans) <= deaths * PARALLEL
    for request_id in load.answered - orphans:
        event = by_id[request_id]
        assert (event["status"], event["error_code"], event["estimated"]) == (200, "", False)
        assert (event["prompt_tokens"], event["completion_tokens"]) == (3, 5)
    assert len(load.answered) > 10 * deaths, "the load was none"


# --- it dies ---------------------------------------------------------------------------------------------------------


def test_kill_under_load_loses_no_call_and_counts_none_twice(sqlite_mortal: GatewayProcess, upstream: Upstream) -> None:
    load = Load()
    for death in range(1, 11):
        with under_load(sqlite_mortal, load):
            time.sleep(0.3)
            wait_for_answers(load, 12 * death)
            sqlite_mortal.kill()
        sqlite_mortal.start()
    check_books(sqlite_mortal, upstream, load, deaths=10)


def test_killing_workers_under_load_loses_no_call_and_counts_none_twice(
    two_mortals: GatewayProcess, upstream: Upstream
) -> None:
    """The other worker goes on; the dead one's journal is adopted, its place taken by a new one. At last all die."""
    load = Load()
    with under_load(two_mortals, load):
        for death in range(1, 6):
            time.sleep(0.5)
            wait_for_answers(load, 12 * death)
            os.kill(two_mortals.worker_pids()[0], signal.SIGKILL)
        time.sleep(0.5)
        wait_for_answers(load, 12 * 6)
        two_mortals.kill()
    two_mortals.start()
    check_books(two_mortals, upstream, load, deaths=6)
    assert len(two_mortals.worker_pids()) == 2


# --- it is told to end -----------------------------------------------------------------------------------------------


def begin_streams(gateway: GatewayProcess, stack: ExitStack, count: int, model: str, mark: bytes) -> list[RawClient]:
    clients = [stack.enter_context(RawClient(gateway)) for _ in range(count)]
    for client in clients:
        client.ask(model, stream=True)
    for client in clients:
        client.read_until(mark)
    return clients


def stream_of(client: RawClient) -> Stream:
    """The stream that a client has read, its chunks put together."""
    head, _, rest = client.received.partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    content = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        content, rest = content + rest[:length], rest[length + 2 :]
    return Stream.of(httpx.Response(200, content=content))


def test_ending_lets_calls_finish_and_loses_none(mortal: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("ok", times=4, delay_ms=110)
    load = Load()
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        streams = begin_streams(mortal, stack, 4, "patient/ok", b"w0 ")
        stack.enter_context(under_load(mortal, load))
        time.sleep(0.2)
        wait_for_answers(load, 31)
        whole = stack.enter_context(RawClient(mortal))
        whole.ask("patient/slow-first-byte", seed=4711)  # which none of the load has
        upstream.wait(lambda: any(heard.json.get("seed") == 4711 for heard in upstream.calls), 30)
        ending = threads.submit(mortal.terminate, 10)
        for client in [*streams, whole]:
            client.read_all()
        assert ending.result() in (0, -signal.SIGTERM)
    for client in streams:
        stream = stream_of(client)
        assert (stream.text, stream.done, stream.error) == (TEXT, True, None)
    assert whole.status == 200
    for client in [*streams, whole]:
        event = mortal.event_of(client.request_id)  # without a gateway: it was booked before the end
        assert (event["status"], event["completion_tokens"], event["estimated"]) == (200, 5, False)
    heard = {request_id for request_id in heard_by(upstream) if request_id}
    by_id = {event["request_id"]: event for event in events_of(mortal, load)}
    assert {by_id[request_id]["status"] for request_id in heard} == {200}
    assert heard == load.answered
    assert len(heard) > 30


def test_ending_waits_for_no_call_beyond_the_limit_and_takes_no_new_ones(
    mortal: GatewayProcess, upstream: Upstream
) -> None:
    """What is still open then ends with an error that says so, and is billed for what came."""
    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        streams = begin_streams(mortal, stack, 4, "patient/hang-midway", b"w2 ")
        whole = stack.enter_context(RawClient(mortal))
        whole.ask("patient/hang")
        upstream.wait_for_calls(5)
        started = time.monotonic()
        ending = threads.submit(mortal.terminate, 10)
        wait_until(lambda: not takes_calls(mortal), 1, "no new connection is taken")
        for client in [*streams, whole]:
            client.read_all()
        ending.result()
        assert GRACEFUL_TIMEOUT_S - 0.1 < time.monotonic() - started < GRACEFUL_TIMEOUT_S + 2 * SLACK_S
    upstream.wait_until_idle()
    assert all(ended.client_left for ended in upstream.calls)
    for client in streams:
        stream = stream_of(client)
        assert stream.text == "w0 w1 w2 "
        assert stream.error
        assert (stream.error["type"], stream.error["code"]) == ("server_error", "shutting_down")
        event = mortal.event_of(client.request_id)
        assert (event["status"], event["error_code"]) == (503, "shutting_down")
        check_estimate(event, "w0 w1 w2 ")
    assert whole.status == 503
    assert b'"shutting_down"' in whole.received
    assert mortal.event_of(whole.request_id)["error_code"] == "shutting_down"


def takes_calls(gateway: GatewayProcess) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", gateway.port)) == 0


# --- much ------------------------------------------------------------------------------------------------------------


def check_many_calls(gateway: GatewayProcess, upstream: Upstream, count: int) -> None:
    """At 64 side by side: none fails, each is booked once, and no more memory is in use afterwards."""
    booked = gateway.event_count()
    warm = run_calls(gateway, 1000, parallel=64)
    wait_until(lambda: gateway.event_count() - booked >= len(warm.asked), 30, "the first calls are booked")
    wait_until(lambda: len(events_of(gateway, warm)) == len(warm.asked), 30, "each of them is")
    before, booked = gateway.memory_bytes(), gateway.event_count()
    load = run_calls(gateway, count, parallel=64)
    assert load.failed == {}
    assert len(load.answered) == len(load.asked) >= count
    wait_until(lambda: gateway.event_count() - booked >= len(load.asked), 30, "all calls are booked")
    events = events_of(gateway, load)
    assert len(events) == len({event["request_id"] for event in events}) == len(load.asked)
    assert {(event["status"], event["completion_tokens"], event["estimated"]) for event in events} == {(200, 5, False)}
    assert upstream.received == len(warm.asked) + len(load.asked)
    assert gateway.memory_bytes() < 1.1 * before


def test_two_thousand_calls_are_answered_and_booked_in_flat_memory(
    two_mortals: GatewayProcess, upstream: Upstream
) -> None:
    check_many_calls(two_mortals, upstream, 2000)


@pytest.mark.slow
def test_ten_thousand_calls_are_answered_and_booked_in_flat_memory(
    sqlite_mortal: GatewayProcess, upstream: Upstream
) -> None:
    check_many_calls(sqlite_mortal, upstream, 10_000)


# --- the database is away --------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgres(gateway_on: Callable[[str], GatewayProcess], upstream: Upstream) -> GatewayProcess:
    return gateway_on("postgres")


def test_calls_go_on_without_the_database_and_nothing_is_lost(
    on_postgres: GatewayProcess, postgres: PostgresServer, upstream: Upstream
) -> None:
    if not postgres.can_stop:
        pytest.skip("the PostgreSQL server is not ours to stop")
    unknown = make_key(make_public_id())
    answer_text(call(on_postgres, key="alice"))
    check_error(call(on_postgres, key="expired"), 401, "invalid_request_error", "invalid_api_key")
    postgres.stop()
    try:
        responses = [call(on_postgres, key="alice", stream=number % 2 == 0) for number in range(20)]
        assert [answer_text(response) for response in responses] == [TEXT] * 20
        for key in ("research-service", unknown):  # neither let in nor called invalid: nobody knows
            refused = call(on_postgres, key=key)
            check_error(refused, 503, "server_error", "key_lookup_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            responses.append(refused)
        # Known to be bad, or bad by its looks: no database is needed for that.
        for key in ("expired", "sk-gh-nonsense"):
            check_error(call(on_postgres, key=key), 401, "invalid_request_error", "invalid_api_key")
        assert on_postgres.http.get("/healthz").status_code == 200
        assert on_postgres.http.get("/readyz").status_code == 503
    finally:
        postgres.start()
    for response in responses:
        event = on_postgres.event_of(response.headers["x-request-id"], timeout_s=10)
        assert event["status"] == response.status_code
        assert event["completion_tokens"] == (5 if response.status_code == 200 else 0)
    answer_text(call(on_postgres, key="research-service"))
    check_error(call(on_postgres, key=unknown), 401, "invalid_request_error", "invalid_api_key")
    wait_until(lambda: on_postgres.http.get("/readyz").status_code == 200, 5, "it is ready again")


def test_worker_that_dies_while_the_database_is_away_takes_nobody_with_it(
    two_mortals: GatewayProcess, postgres: PostgresServer, upstream: Upstream
) -> None:
    if not postgres.can_stop:
        pytest.skip("the PostgreSQL server is not ours to stop")
    run_calls(two_mortals, 40, parallel=8)  # both have seen the key
    failed_starts = two_mortals.log.count("Application startup failed")
    postgres.stop()
    try:
        os.kill(two_mortals.worker_pids()[0], signal.SIGKILL)
        wait_until(
            lambda: two_mortals.log.count("Application startup failed") > failed_starts,
            30,
            "its successor cannot start",
        )
        time.sleep(0.5)
        assert two_mortals.is_running
        answer_text(call(two_mortals))
    finally:
        postgres.start()
    wait_until(lambda: two_mortals.http.get("/readyz").status_code == 200, 10, "it is ready again")
    wait_until(lambda: len(two_mortals.worker_pids()) == 2, 30, "there are two again")


def test_calls_go_on_while_the_database_hangs(
    on_postgres: GatewayProcess, postgres: PostgresServer, upstream: Upstream
) -> None:
    if postgres.pid is None:
        pytest.skip("the PostgreSQL server is not ours to stop")
    answer_text(call(on_postgres))
    with frozen(postgres.pid):
        started = time.monotonic()
        responses = [call(on_postgres) for _ in range(20)]
        assert time.monotonic() - started < 2
        time.sleep(0.6)  # the flusher and the watch are stuck by now
        responses += [call(on_postgres, stream=True) for _ in range(5)]
    assert [answer_text(response) for response in responses] == [TEXT] * 25
    for response in responses:
        assert on_postgres.event_of(response.headers["x-request-id"], timeout_s=10)["completion_tokens"] == 5


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and its children stand still."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    pids = [pid, *(child for child, parent in rows if parent == pid)]
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(pids):
            os.kill(each, signal.SIGCONT)


# --- the disk is full ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit another process's files")
@pytest.mark.parametrize("room", [0, 100], ids=["nothing", "half a record"])
def test_call_that_cannot_be_written_down_is_not_made(
    sqlite_mortal: GatewayProcess, upstream: Upstream, room: int
) -> None:
    upstream.next("ok", delay_ms=60)
    answer_text_later: list[httpx.Response] = []
    slow = threading.Thread(target=lambda: answer_text_later.append(call(sqlite_mortal, "patient/ok", stream=True)))
    slow.start()
    upstream.wait(lambda: upstream.received == 1 and upstream.last.events_sent > 0)
    with full_disk(sqlite_mortal, room):
        for streamed in (False, True):
            refused = call(sqlite_mortal, stream=streamed)
            check_error(refused, 503, "server_error", "ledger_unavailable")
        slow.join()
        assert upstream.received == 1
    # The one that was open is finished, and its books are closed as soon as there is room.
    assert answer_text(answer_text_later[0]) == TEXT
    event = sqlite_mortal.event_of(answer_text_later[0].headers["x-request-id"], timeout_s=10)
    assert (event["status"], event["completion_tokens"], event["estimated"]) == (200, 5, False)
    again = call(sqlite_mortal)
    assert answer_text(again) == TEXT
    assert sqlite_mortal.event_of(again.headers["x-request-id"])["completion_tokens"] == 5


@contextmanager
def full_disk(gateway: GatewayProcess, room: int) -> Iterator[None]:
    """No file of the gateway grows beyond its journal's length and `room` bytes."""
    journal = max((gateway.data_dir / "journal").glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
    _, most = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (journal.stat().st_size + room, most))
    try:
        yield
    finally:
        resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))


# --- changes are in force within a second ----------------------------------------------------------------------------


def answered_by_all(gateway: GatewayProcess, status: int, model: str = "gpt-test", key: str = "bob") -> bool:
    """Whether every process answers so: each call on a connection of its own, so by whichever process takes it."""
    return all(status_of(gateway, model, key) == status for _ in range(1 if gateway.workers == 1 else 14))


def status_of(gateway: GatewayProcess, model: str, key: str) -> int:
    with RawClient(gateway) as client:
        content = orjson.dumps(body(model))
        client.send(client.head(len(content), key=key) + content)
        client.read_until(b"\r\n\r\n")
        return client.status


def check_in_force(since: float, *claims: Callable[[], bool]) -> None:
    for claim in claims:
        wait_until(claim, 2, "the change is in force")
    assert time.monotonic() - since < 1.0


def test_changes_are_in_force_within_a_second(mortal: GatewayProcess) -> None:
    new_key = make_key(make_public_id())
    assert answered_by_all(mortal, 200)
    assert answered_by_all(mortal, 200, "utf8")
    assert answered_by_all(mortal, 200, "cr")
    assert answered_by_all(mortal, 401, key=new_key)
    mortal.apply(
        {
            "keys": [
                {"name": "bob", "user": "bob", "team": "research", "disabled": True},
                {"name": "new", "user": "alice", "team": "research", "secret": new_key},
            ],
            "models": [{"name": "utf8", "enabled": False}, {"name": "cr", "routes": [{"provider": "nowhere"}]}],
        }
    )
    check_in_force(
        time.monotonic(),
        lambda: answered_by_all(mortal, 401),
        lambda: answered_by_all(mortal, 200, key=new_key),
        lambda: answered_by_all(mortal, 404, "utf8", key="alice"),
        lambda: answered_by_all(mortal, 502, "cr", key="alice"),
    )


def test_changes_are_in_force_within_a_second_without_redis(two_mortals: GatewayProcess, redis: RedisServer) -> None:
    """Redis only makes it faster. Calls go on, too."""
    if not redis.can_stop:
        pytest.skip("the Redis server is not ours to stop")
    redis.stop()
    try:
        assert answered_by_all(two_mortals, 200, key="charlie")
        team = {"name": "sales", "disabled": True}
        two_mortals.apply({"teams": [team]})
        check_in_force(time.monotonic(), lambda: answered_by_all(two_mortals, 401, key="charlie"))
    finally:
        redis.start()


def test_no_secret_is_in_any_file(one_process: GatewayProcess) -> None:
    """In the database, the journal and the log of a gateway that has seen everything above."""
    files = [path for path in one_process.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite3" for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in (cast.KEYS["alice"], cast.UPSTREAM_KEY, cast.BACKUP_KEY, "one two three"):
            assert secret.encode() not in content, path
