"""Usage events for tests: an ordinary answered call, with whatever the test says is different."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from accounts.time_ids import to_unix_us
from usage.services import EVENT_COLUMNS, Row, insert_events, new_event_id

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def row(at: datetime = NOON, **changed: Any) -> Row:
    at_us = to_unix_us(at)
    event: dict[str, Any] = {
        "id": new_event_id(at_us), "at": at_us, "request_id": "req_1", "endpoint": "chat/completions", "key_id": None,
        "key_label": "laptop (abc)", "user_id": None, "team_id": None, "model": "gpt", "provider": "openai",
        "upstream_model": "gpt-2026", "status": 200, "error_code": "", "streamed": False, "prompt_tokens": 100,
        "completion_tokens": 20, "cached_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0,
        "estimated": False, "cost_nano_usd": 1000, "latency_us": 800_000, "first_byte_us": 300_000, "attempts": 1,
        "end_user": "", "client_ip": "127.0.0.1", "user_agent": "curl/8", "organization": "", "trace_id": "",
        "above_hold": False, "failed_tries": "", "spent_budget_id": None, "refused_by": "", "units": {},
        "tags": {},
    }  # fmt: skip
    assert changed.keys() <= event.keys()
    event |= changed
    return tuple(event[name] for name in EVENT_COLUMNS)


def add(at: datetime = NOON, count: int = 1, **changed: Any) -> None:
    insert_events([row(at, **changed) for _ in range(count)])
