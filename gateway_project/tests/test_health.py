"""/healthz, /readyz and /metrics: asked by machines, answered in time whatever hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from django.conf import settings
from django.shortcuts import resolve_url
from django.test import AsyncClient

from gateway_project import health
from gateway_project.health import Probe

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """A process that has its configuration, and no Redis."""
    settings.REDIS_URL = ""
    monkeypatch.setattr(health, "snapshot_age_s", lambda: 0.25)


def broken() -> None:
    raise OSError("gone")


async def test_alive_is_answered_without_looking_at_anything(async_client: AsyncClient) -> None:
    reply = await async_client.get("/healthz")
    assert (reply.status_code, reply.content) == (200, b"ok\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probe_may_come_by_any_host_name_and_without_tls(
    async_client: AsyncClient, well: None, settings: Any, path: str
) -> None:
    settings.ALLOWED_HOSTS = ["gateway.example.org"]
    settings.SECURE_SSL_REDIRECT = True
    reply = await async_client.get(path, headers={"host": "10.1.2.3:8000"})
    assert reply.status_code == 200
    assert reply["Cache-Control"] == "no-store"


async def test_probe_is_read_only(async_client: AsyncClient) -> None:
    assert (await async_client.post("/healthz")).status_code == 405


async def test_ready_tells_database_redis_and_age_of_the_snapshot(async_client: AsyncClient, well: None) -> None:
    reply = await async_client.get("/readyz")
    assert reply.status_code == 200
    assert reply.json() == {"ready": True, "database": "ok", "redis": "not used", "snapshot_age_s": 0.25}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DATABASE", Probe("database", broken), {"database": "unavailable"}),
        ("snapshot_age_s", lambda: 1000.0, {"snapshot_age_s": 1000.0}),
        ("snapshot_age_s", lambda: float("inf"), {"snapshot_age_s": None}),
    ],
)
async def test_not_ready_is_a_503_that_says_why(
    async_client: AsyncClient,
    well: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: Any,
    expected: dict[str, object],
) -> None:
    monkeypatch.setattr(health, name, value)
    reply = await async_client.get("/readyz")
    assert reply.status_code == 503
    assert reply.json() | expected | {"ready": False} == reply.json()


async def test_redis_counts_where_it_is_used(
    async_client: AsyncClient, well: None, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1"
    reply = await async_client.get("/readyz")
    assert (reply.status_code, reply.json()["redis"]) == (503, "unavailable")
    monkeypatch.setattr(health, "REDIS", Probe("redis", lambda: None))
    reply = await async_client.get("/readyz")
    assert (reply.status_code, reply.json()["redis"]) == (200, "ok")


async def test_database_that_hangs_is_reported_in_time_and_costs_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.1)
    let_go = threading.Event()
    looks: list[int] = []

    def hang() -> None:
        looks.append(1)
        let_go.wait(10)

    probe = Probe("database", hang)
    started = time.monotonic()
    assert await asyncio.gather(*(probe.is_well() for _ in range(20))) == [False] * 20
    assert time.monotonic() - started < 1
    assert len(looks) == 1
    let_go.set()
    async with asyncio.timeout(10):
        while not await probe.is_well():
            await asyncio.sleep(0.01)


async def test_metrics_are_in_prometheus_format(async_client: AsyncClient, well: None) -> None:
    reply = await async_client.get("/metrics")
    assert reply["Content-Type"].startswith("text/plain; version=")
    assert b"gatehouse_snapshot_age_seconds 0.25" in reply.content


@pytest.mark.parametrize(
    ("header", "status"), [("", 401), ("Bearer wrong", 401), ("Bearer \xe9", 401), ("Bearer s3cret", 200)]
)
async def test_metrics_ask_for_the_token_when_there_is_one(
    async_client: AsyncClient, well: None, settings: Any, header: str, status: int
) -> None:
    settings.METRICS_TOKEN = "s3cret"
    reply = await async_client.get("/metrics", headers={"authorization": header} if header else {})
    assert reply.status_code == status


async def test_metrics_of_every_worker_are_added_up(
    async_client: AsyncClient, well: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    reply = await async_client.get("/metrics")
    assert reply.status_code == 200
    # Only what the workers have written to the folder, nothing of this process alone.
    assert b"python_info" not in reply.content


async def test_front_page_asks_for_sign_in(async_client: AsyncClient) -> None:
    reply = await async_client.get("/")
    assert (reply.status_code, reply["Location"]) == (302, f"{resolve_url(settings.LOGIN_URL)}?next=/")


async def test_page_that_is_not_there_says_so_in_the_house_style(async_client: AsyncClient) -> None:
    reply = await async_client.get("/nothing/here")
    assert reply.status_code == 404
    assert "There is no such page" in reply.content.decode()
