"""The upstream's books: every call it received, what it sent, what it would bill, and how the call ended.

Written by the server's thread, read by the test's; whoever waits is woken by every change.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ANSWERED = "answered"  # said all it had to say
CUT = "cut"  # ended before that, as the behaviour wants it
CLIENT_CLOSED = "client closed"  # the client sent FIN first
CLIENT_RESET = "client reset"  # the client sent RST first


@dataclass(slots=True, eq=False)
class Call:
    """One request as it came in, and what became of it. Times are time.monotonic()."""

    number: int
    connection: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    model: str
    behaviour: str
    opened_at: float = field(default_factory=time.monotonic)
    closed_at: float | None = None
    ended: str | None = None
    bytes_sent: int = 0
    events_sent: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def client_left(self) -> bool:
        return self.ended in (CLIENT_CLOSED, CLIENT_RESET)

    def header(self, name: str) -> str | None:
        """The header's value, all of them joined if it came more than once; None when absent."""
        values = [value for given, value in self.headers if given.lower() == name.lower()]
        return ", ".join(values) if values else None


class Books:
    """Totals are exact for ever; of the calls themselves the newest `keep` are there."""

    def __init__(self, keep: int) -> None:
        self._changed = threading.Condition()
        self.calls: deque[Call] = deque(maxlen=keep)
        self.received = 0
        self.dropped = 0  # connections that died under a request, which was never read
        self.by_model: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def open(self, call: Call) -> None:
        with self._changed:
            self.received += 1
            self.by_model[call.model] += 1
            self.calls.append(call)
            self._changed.notify_all()

    def sent(self, call: Call, size: int) -> None:
        call.bytes_sent += size

    def event(self, call: Call) -> None:
        with self._changed:
            call.events_sent += 1
            self._changed.notify_all()

    def bill(self, call: Call, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        with self._changed:
            call.prompt_tokens += prompt_tokens
            call.completion_tokens += completion_tokens
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens

    def close(self, call: Call, ended: str) -> None:
        """The first reason counts: a call that is over cannot end again."""
        with self._changed:
            if call.ended is None:
                call.ended = ended
                call.closed_at = time.monotonic()
                self.ended[ended] += 1
                self._changed.notify_all()

    def drop(self) -> None:
        with self._changed:
            self.dropped += 1
            self._changed.notify_all()

    def wait(self, is_true: Callable[[], bool], timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(is_true, timeout_s)

    def totals(self) -> dict[str, Any]:
        with self._changed:
            return {
                "received": self.received,
                "dropped": self.dropped,
                "by_model": dict(self.by_model),
                "ended": dict(self.ended),
                "open": self.received - self.ended.total(),
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
            }
