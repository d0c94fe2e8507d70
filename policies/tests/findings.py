"""Findings for tests: one of an ordinary call, with whatever the test says is different."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from accounts.time_ids import first_id
from policies.models import Finding


def add(at: datetime, number: int = 0, *, times: int = 1, **changed: Any) -> Finding:
    """`number` tells several of one moment apart; `times` so many are made, the last one is returned."""
    for index in range(times):
        identifier = UUID(int=first_id(at).int + 2**62 + number + index)
        columns: dict[str, Any] = {
            "event_id": identifier, "at": at, "request_id": "req_1", "policy": "default", "version": 3,
            "rule": "no frogs", "check_name": "wordlist", "stage": "request", "action": "block", "label": "frogs",
            "model": "gpt-test", "endpoint": "chat/completions", "key_label": "laptop (abc)",
        }  # fmt: skip
        finding = Finding.objects.create(id=identifier, **columns | changed)
    return finding
