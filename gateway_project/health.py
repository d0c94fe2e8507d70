"""/healthz (is the process alive), /readyz (can it answer calls), /metrics (Prometheus).

`probes` is the outermost middleware: these three are asked by machines that come by IP address, without TLS and without
a session, so neither ALLOWED_HOSTS nor the redirect to HTTPS may turn them away. A probe is answered in time even when
the database hangs: it looks in a thread of its own, at most one per thing looked at.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import async_only_middleware
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from usage.metrics import SNAPSHOT_AGE

TIMEOUT_S = 1.5
MAX_SNAPSHOT_AGE_S = 300.0

logger = logging.getLogger(__name__)

Answer = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Probe:
    """One thing to look at. `look` runs in a thread and raises when it is not well.

    While a look hangs the next ones wait for the same thread: a dead database does not eat a thread per probe.
    """

    def __init__(self, name: str, look: Callable[[], None]) -> None:
        self._name = name
        self._look = look
        self._pending: Future[None] | None = None

    async def is_well(self) -> bool:
        if self._pending is None or self._pending.done():
            self._pending = Future()
            # A daemon: one that hangs must not keep the process from ending.
            threading.Thread(target=self._run, args=(self._pending,), name=f"probe-{self._name}", daemon=True).start()
        looking = asyncio.wrap_future(self._pending)
        # Marks a failure as seen, also one that comes after we stopped waiting.
        looking.add_done_callback(lambda looked: looked.cancelled() or looked.exception())
        done, _ = await asyncio.wait({looking}, timeout=TIMEOUT_S)
        return bool(done) and looking.exception() is None

    def _run(self, pending: Future[None]) -> None:
        try:
            self._look()
        except Exception as error:
            logger.warning("the %s is not well: %s", self._name, type(error).__name__)
            pending.set_exception(error)
        else:
            pending.set_result(None)


def _look_at_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


def _look_at_redis() -> None:
    import redis  # here, because it takes a fifth of the start of a process that has no Redis

    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
        client.ping()


DATABASE = Probe("database", _look_at_database)
REDIS = Probe("redis", _look_at_redis)


async def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


async def readyz(request: HttpRequest) -> HttpResponse:
    """200 when a call would be answered, else 503; and what is not well. The parts are looked at side by side."""
    database, redis_is_well = await asyncio.gather(DATABASE.is_well(), _redis())
    age_s = snapshot_age_s()
    fresh = age_s <= MAX_SNAPSHOT_AGE_S
    ready = database and redis_is_well is not False and fresh
    report = {
        "ready": ready,
        "database": _word(database),
        "redis": "not used" if redis_is_well is None else _word(redis_is_well),
        "snapshot_age_s": round(age_s, 3) if math.isfinite(age_s) else None,
    }
    return JsonResponse(report, status=200 if ready else 503)


def snapshot_age_s() -> float:
    """Seconds since this process last knew its configuration to be current; infinite before the first time."""
    from gateway_project.asgi import lifespan  # the web process's own: it imports Django, and so this module

    return lifespan.holder.age_s


async def _redis() -> bool | None:
    """None: there is none to look at."""
    return await REDIS.is_well() if settings.REDIS_URL else None


def _word(well: bool) -> str:
    return "ok" if well else "unavailable"


async def metrics(request: HttpRequest) -> HttpResponse:
    if settings.METRICS_TOKEN and not _may_read_metrics(request.headers.get("Authorization", "")):
        return HttpResponse("Send METRICS_TOKEN as a bearer token.\n", status=401, content_type="text/plain")
    if math.isfinite(age_s := snapshot_age_s()):
        SNAPSHOT_AGE.set(age_s)
    return HttpResponse(await sync_to_async(_render, thread_sensitive=False)(), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics(header: str) -> bool:
    given = header.removeprefix("Bearer ").encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, settings.METRICS_TOKEN.encode())


def _render() -> bytes:
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


ANSWERS: dict[str, Answer] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


@async_only_middleware
def probes(get_response: Answer) -> Answer:
    async def middleware(request: HttpRequest) -> HttpResponse:
        answer = ANSWERS.get(request.path)
        if answer is None:
            return await get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
        response = await answer(request)
        response["Cache-Control"] = "no-store"
        return response

    return middleware
