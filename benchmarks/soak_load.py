"""The soak's clients: so many calls a second of every kind, and what each of them saw."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import aiohttp

from gateway_project.tests.clients import body, credentials, new_request_id
from gateway_project.tests.gateway_process import GatewayProcess

MOST_UNDER_WAY = 400
TIMEOUT_S = 60
CALM = "all is well"
UNANSWERED = 0


class Kind(Enum):
    """key, model, streamed. `LEAVES`: the client leaves after the first word."""

    WHOLE = "alice", "gpt-test", False
    STREAMED = "alice", "slow", True
    BUDGETED = "ample", "dear", False
    BUDGETED_STREAM = "ample", "slow", True
    SPENDS = "small", "dear", False
    LEAVES = "bob", "slow", True


MIX = (
    *(Kind.WHOLE, Kind.BUDGETED, Kind.STREAMED, Kind.WHOLE, Kind.BUDGETED_STREAM),
    *(Kind.SPENDS, Kind.WHOLE, Kind.BUDGETED, Kind.STREAMED, Kind.LEAVES),
)
SPENDS_SHARE = MIX.count(Kind.SPENDS) / len(MIX)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw: `status` UNANSWERED when it got no whole answer. `phases`: what was the matter at the
    beginning and at the end of it."""

    kind: Kind
    status: int
    phases: tuple[str, str]
    words: str = ""


@dataclass(slots=True)
class Load:
    """`asked`: request id -> what came of it, None while nothing has. `spent`: keys that were told so."""

    per_s: float
    asked: dict[str, Seen | None] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    counts: dict[str, Counter[int]] = field(default_factory=dict)
    current: str = CALM
    facts: list[str] = field(default_factory=list)

    @property
    def phases(self) -> list[str]:
        return list(self.counts)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        try:
            yield
        finally:
            self.current = before

    async def run(self, gateway: GatewayProcess, goes_on: Callable[[], bool]) -> None:
        """Begins a call every so often, however long the others take, up to MOST_UNDER_WAY at a time."""
        under_way: set[asyncio.Task[None]] = set()
        number, began = 0, time.monotonic()
        async with _session(gateway) as session:
            while goes_on():
                if len(under_way) < MOST_UNDER_WAY:
                    task = asyncio.create_task(self._call(gateway, session, MIX[number % len(MIX)]))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / self.per_s - time.monotonic()))
            await asyncio.gather(*under_way)

    async def drop(self, gateway: GatewayProcess, count: int) -> int:
        """So many streams at once, all left after the first word. How many got that far."""
        async with _session(gateway) as session:
            await asyncio.gather(*(self._call(gateway, session, Kind.LEAVES) for _ in range(count)))
        return sum(seen is not None and seen.kind is Kind.LEAVES and seen.status == 200 for seen in self.newest(count))

    def newest(self, count: int) -> list[Seen | None]:
        """Of those who were asked last; others go on beside them."""
        leaving = [seen for seen in self.asked.values() if seen is not None and seen.kind is Kind.LEAVES]
        return list(leaving[-count:])

    async def _call(self, gateway: GatewayProcess, session: aiohttp.ClientSession, kind: Kind) -> None:
        key, model, streamed = kind.value
        request_id, phase = new_request_id(), self.current
        self.asked[request_id] = None
        request: dict[str, Any] = body(model, stream=streamed, max_tokens=5, user=request_id)
        headers = credentials(gateway, key, {"x-request-id": request_id})
        try:
            async with session.post("/v1/chat/completions", json=request, headers=headers) as response:
                content = await self._read(response, kind)
                self.note(request_id, kind, _status(response, content, kind), content, phase)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.note(request_id, kind, UNANSWERED, repr(error).encode(), phase)

    async def _read(self, response: aiohttp.ClientResponse, kind: Kind) -> bytes:
        if kind is not Kind.LEAVES or response.status != 200:
            return await response.read()
        content = b""
        async for part in response.content.iter_any():
            content += part
            if b"w0 " in content:
                response.close()
                break
        return content

    def note(self, request_id: str, kind: Kind, status: int, content: bytes, phase: str = "") -> None:
        phase = phase or self.current
        words = "" if status == 200 else content[-300:].decode(errors="replace")
        self.asked[request_id] = Seen(kind, status, (phase, self.current), words)
        self.counts.setdefault(phase, Counter())[status] += 1
        if status == 429 and b"insufficient_quota" in content:
            self.spent.add(kind.value[0])


def _status(response: aiohttp.ClientResponse, content: bytes, kind: Kind) -> int:
    """An answer that is cut short is none."""
    if response.status != 200 or kind is Kind.LEAVES:
        return response.status
    _, _, streamed = kind.value
    is_whole = content.endswith(b"[DONE]\n\n" if streamed else b"}") and b'"error"' not in content
    return 200 if is_whole else UNANSWERED


def _session(gateway: GatewayProcess) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    return aiohttp.ClientSession(gateway.url, connector=connector, timeout=timeout, trust_env=False)
