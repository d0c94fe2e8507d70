"""A web process starts when everything is right, alone where it must be, and ends without losing anything."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from accounts import services
from accounts.models import User
from gateway_project import lifespan as lifespan_module
from gateway_project.lifespan import Lifespan
from gateway_project.tests.gateway_process import ROOT, GatewayProcess
from proxy import models
from proxy.asgi import Door
from usage.models import UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)

OTHER_RUNS = "Another web process is running without REDIS_URL"


class Process:
    """One web process without its server: sends ASGI's lifespan messages and calls."""

    def __init__(self) -> None:
        self.door = Door([], [], lambda request_id: None)
        self.lifespan = Lifespan(self.door)
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """What it says to the server: complete, or failed with a message."""
        self._task = asyncio.create_task(self.lifespan(self._inbox.get, self._outbox.put))
        await self._inbox.put({"type": "lifespan.startup"})
        return await self._outbox.get()

    async def stop(self) -> dict[str, Any]:
        await self._inbox.put({"type": "lifespan.shutdown"})
        said = await self._outbox.get()
        assert self._task is not None
        await self._task
        return said

    async def call(self, key: str, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of one call of the model `echo`."""
        content = orjson.dumps({"model": "echo", "messages": [{"role": "user", "content": "one two"}], **body})
        messages = [{"type": "http.request", "body": content, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
        headers.append((b"content-length", str(len(content)).encode()))
        await self.door({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
        return sent[0]["status"], orjson.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture(autouse=True)
def own_folder(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A data folder of the test's own, and the tests' process as it was before, but for what was frozen: to thaw it is
    to walk all the tests that are loaded, over and over."""
    settings.DATA_DIR, settings.REDIS_URL = tmp_path, ""
    monkeypatch.setattr(lifespan_module, "LOCK_TRIES", 2)
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.fixture
def key(alice: User) -> str:
    echo = models.Provider.objects.create(name="echo", kind="echo")
    models.Route.objects.create(model=models.Model.objects.create(name="echo"), provider=echo)
    return services.create_key("laptop", alice.teams.get(), alice)[1]


def our_threads() -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith(("config-", "usage-", "journal-", "key-look-up"))}


# --- start and stop --------------------------------------------------------------------------------------------------


async def test_calls_are_answered_between_startup_and_shutdown(key: str) -> None:
    process = Process()
    assert (await process.start())["type"] == "lifespan.startup.complete"
    status, answer = await process.call(key)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "one two")
    assert (await process.stop())["type"] == "lifespan.shutdown.complete"


async def test_call_before_the_startup_or_after_the_shutdown_is_asked_to_try_again(key: str) -> None:
    process = Process()
    for _ in range(2):
        status, answer = await process.call(key)
        assert (status, answer["error"]["code"]) == (503, "shutting_down")
        await process.start()
        await process.stop()


async def test_usage_is_in_the_database_when_the_process_has_stopped(key: str, tmp_path: Path) -> None:
    process = Process()
    await process.start()
    for _ in range(20):
        await process.call(key)
    await process.stop()
    assert await asyncio.to_thread(UsageEvent.objects.count) == 20
    assert list((tmp_path / "journal").iterdir()) == []


async def test_usage_that_a_dead_process_left_is_taken_over(key: str, tmp_path: Path) -> None:
    dead = Process()
    await dead.start()
    assert dead.door.gateway is not None
    journal = dead.door.gateway.journal
    await dead.call(key)
    await dead.stop()
    await asyncio.to_thread(UsageEvent.objects.all().delete)
    # As a process leaves it that was killed: its segment is there, its lock is free.
    (tmp_path / "journal" / f"{journal.owner}-000001.jsonl").write_bytes(_segment_of_one_call())
    process = Process()
    await process.start()
    await _until(UsageEvent.objects.count, 1)
    await process.stop()
    event = await asyncio.to_thread(UsageEvent.objects.get)
    assert (event.error_code, event.estimated) == ("gateway_died", True)


async def test_nothing_of_the_process_is_left_running(key: str) -> None:
    process = Process()
    await process.start()
    await process.call(key)
    assert our_threads() >= {"config-watch", "usage-flusher", "journal-sync"}
    await process.stop()
    assert our_threads() == set()


async def test_process_may_start_again(key: str) -> None:
    for _ in range(2):
        process = Process()
        assert (await process.start())["type"] == "lifespan.startup.complete"
        assert (await process.call(key))[0] == 200
        await process.stop()


# --- what keeps it from starting -------------------------------------------------------------------------------------


async def test_failed_check_refuses_the_start_and_says_why(settings: Any) -> None:
    settings.SECRET_KEY = "short"
    said = await Process().start()
    assert said["type"] == "lifespan.startup.failed"
    assert "SECRET_KEY" in said["message"]
    assert our_threads() == set()


async def test_start_that_fails_half_way_leaves_nothing_behind(
    key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(lifespan_module, "Journal", broken)
        said = await Process().start()
    assert said == {"type": "lifespan.startup.failed", "message": "[Errno 28] No space left on device"}
    assert "the gateway cannot start" in caplog.text
    assert our_threads() == set()
    process = Process()
    assert (await process.start())["type"] == "lifespan.startup.complete", "the lock must be free again"
    await process.stop()


async def test_second_process_in_the_same_folder_is_refused_and_the_first_goes_on(key: str) -> None:
    first, second = Process(), Process()
    await first.start()
    said = await second.start()
    assert said["type"] == "lifespan.startup.failed"
    assert OTHER_RUNS in said["message"]
    assert (await first.call(key))[0] == 200
    assert (await second.call(key))[0] == 503
    await first.stop()


async def test_second_process_may_start_when_the_first_has_stopped(key: str) -> None:
    first, second = Process(), Process()
    await first.start()
    await first.stop()
    assert (await second.start())["type"] == "lifespan.startup.complete"
    await second.stop()


async def test_next_process_waits_a_moment_for_the_one_before(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan_module, "LOCK_TRIES", 100)
    first, second = Process(), Process()
    await first.start()
    starting = asyncio.create_task(second.start())
    await asyncio.sleep(0.2)
    assert not starting.done()
    await first.stop()
    assert (await starting)["type"] == "lifespan.startup.complete"
    await second.stop()


async def test_with_redis_several_processes_run_side_by_side(key: str, settings: Any, redis_url: str) -> None:
    settings.REDIS_URL = redis_url
    processes = [Process(), Process()]
    for process in processes:
        assert (await process.start())["type"] == "lifespan.startup.complete"
    for process in processes:
        assert (await process.call(key))[0] == 200
    for process in processes:
        await process.stop()
    assert await asyncio.to_thread(UsageEvent.objects.count) == 2


# --- as real processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_second_server_in_the_same_folder_does_not_start(gateway: GatewayProcess) -> None:
    second = GatewayProcess(gateway.folder)
    try:
        second.start(wait=False)
        assert second._process is not None
        assert second._process.wait(20) != 0
        assert OTHER_RUNS in second.log
    finally:
        second.http.close()
    assert gateway.http.get("/readyz").status_code == 200


@pytest.mark.slow
def test_second_server_at_the_same_postgresql_does_not_start(gateway_on: Any, tmp_path: Path) -> None:
    first = gateway_on("postgres")
    second = GatewayProcess(tmp_path / "second", database_url=first.database_url, env={"GATEHOUSE_LOCAL": "true"})
    try:
        with pytest.raises(RuntimeError, match=OTHER_RUNS):
            second.start()
    finally:
        second.close()
    assert first.http.get("/readyz").status_code == 200


@pytest.mark.slow
def test_several_workers_without_redis_do_not_start(gateway_on: Any, tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "workers", database_url=gateway_on("postgres").database_url)
    command = [sys.executable, "-m", "gunicorn", "gateway_project.asgi:application", "-c", "gunicorn.conf.py"]
    command += ["-w", "2", "-b", "127.0.0.1:0"]
    environment = process.environment
    process.close()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "2 web processes are asked for, but REDIS_URL is not set" in done.stdout + done.stderr


def _segment_of_one_call() -> bytes:
    from usage.tests.test_flusher import record

    return orjson.dumps({**record(), "kind": "open"}) + b"\n"


async def _until(count: Any, expected: int) -> None:
    async with asyncio.timeout(5):
        while await asyncio.to_thread(count) != expected:
            await asyncio.sleep(0.05)
