"""The load: keep-alive connections that ask again as soon as they are answered, or streams side by side.

A process of its own (`python -m benchmarks.driver FILE`), so that its CPU is not the server's; FILE is JSON: {"port",
"request": the whole HTTP request, "connections", and "seconds" or "streams": true}. Prints JSON: {"requests", "errors",
"seconds", "p50_us"} or {"streams", "errors", "seconds", "chunks"}. wrk does the first kind where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import SOMEBODY, SYLLABLES

MARK = b"data: "
DONE = b"data: [DONE]"


def somebody() -> str:
    """Hardly ever the same."""
    return "".join(secrets.choice(SYLLABLES) for _ in range(len(SOMEBODY) // 2))


class Asker(asyncio.Protocol):
    """One connection. Asks, waits for the whole answer, asks again until the time is over."""

    def __init__(self, request: bytes, until: float, finished: asyncio.Future[None]) -> None:
        self.request = request
        self.until = until
        self.finished = finished
        self.latencies: list[float] = []
        self.errors = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's are no less
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.buffer = b""
        self.asked_at = time.perf_counter()
        self.transport.write(self.request.replace(SOMEBODY.encode(), somebody().encode()))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.is_whole():
            return
        now = time.perf_counter()
        self.latencies.append(now - self.asked_at)
        self.errors += not self.buffer.startswith(b"HTTP/1.1 200")
        if now < self.until:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += error is not None
        if not self.finished.done():
            self.finished.set_result(None)

    def is_whole(self) -> bool:
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return False
        head = self.buffer[:head_end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            return self.buffer.endswith(b"0\r\n\r\n")
        return len(self.buffer) >= head_end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])


class Reader(Asker):
    """One stream, read to its end. Counts its events."""

    chunks = 0

    def ask(self) -> None:
        super().ask()
        self.is_answered = False

    def data_received(self, data: bytes) -> None:
        if not self.is_answered:
            self.is_answered = True
            self.errors += not data.startswith(b"HTTP/1.1 200")
        seen = self.buffer + data
        self.chunks += seen.count(MARK) - self.buffer.count(MARK)
        # Kept to find what two reads cut in half.
        self.buffer = seen[-(len(DONE) - 1) :]
        if DONE in seen or b"HTTP/1.1 4" in seen or b"HTTP/1.1 5" in seen:
            self.transport.close()


async def run(plan: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    kind = Reader if plan.get("streams") else Asker
    request = plan["request"].encode()
    started = time.perf_counter()
    until = started + plan.get("seconds", 0)
    askers: list[Asker] = []
    for _ in range(plan["connections"]):
        asker = kind(request, until, loop.create_future())
        await loop.create_connection(lambda asker=asker: asker, "127.0.0.1", plan["port"])
        askers.append(asker)
    await asyncio.wait([asker.finished for asker in askers], timeout=plan.get("seconds", 0) + 20)
    result = {"errors": sum(asker.errors for asker in askers), "seconds": time.perf_counter() - started}
    if kind is Reader:
        chunks = sum(asker.chunks for asker in askers if isinstance(asker, Reader))
        return {**result, "streams": len(askers), "chunks": chunks}
    latencies = [latency for asker in askers for latency in asker.latencies]
    return {**result, "requests": len(latencies), "p50_us": statistics.median(latencies) * 1e6}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(Path(sys.argv[1]).read_text())))))
