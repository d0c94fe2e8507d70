"""Many findings at once, made by the database: what lists and charts of a large installation are tested with."""

from __future__ import annotations

import time

from django.db import connection

from policies.models import Finding

# Of i, the number of the finding, counted from the oldest. {id}, {event}, {at} and flags differ by database.
_COLUMNS = {
    "id": "{id}",
    "at": "{at}",
    "event_id": "{event}",
    "request_id": "'req-' || {padded}",
    "policy": "'policy-' || (i % 3)",
    "version": "1 + i % 4",
    "rule": "'rule-' || (i % 12)",
    "check_name": "'check-' || (i % 6)",
    "stage": "CASE WHEN i % 3 = 0 THEN 'reply' ELSE 'request' END",
    "action": "CASE WHEN i % 10 = 7 THEN 'block' WHEN i % 10 > 7 THEN 'redact' ELSE 'audit' END",
    "label": "'label-' || (i % 7)",
    "count": "1 + i % 5",
    "dry_run": "{dry_run}",
    "failed": "{failed}",
    "model": "'model-' || (i % 3)",
    "endpoint": "'chat/completions'",
    "key_label": "'key-' || (1 + i % 30)",
    "key_id": "1 + i % 30",
    "user_id": "1 + i % 10",
    "team_id": "1 + i % 5",
}
DRY_RUN, FAILED = "i % 9 = 4", "i % 1000 = 500"


def insert_many(count: int, hours: float = 1) -> None:
    """`count` findings, two to a call, evenly over the last `hours`."""
    now_ms = int(time.time() * 1000)
    start_ms, step_ms = int(now_ms - hours * 3_600_000), hours * 3_600_000 / count
    ms = f"({start_ms} + i * {step_ms})"
    call_ms = f"({start_ms} + (i - i % 2) * {step_ms})"
    if connection.vendor == "postgresql":
        numbers = f"SELECT i FROM generate_series(0, {count - 1}) i"
        words = {
            "id": f"(lpad(to_hex({ms}::bigint), 12, '0') || '70008' || lpad(to_hex(i), 15, '0'))::uuid",
            "event": f"(lpad(to_hex({call_ms}::bigint), 12, '0') || '70008' || lpad(to_hex(i / 2), 15, '0'))::uuid",
            "at": f"to_timestamp({ms} / 1000.0)",
            "padded": "lpad((i / 2)::text, 7, '0')",
            "dry_run": DRY_RUN,
            "failed": FAILED,
        }
    else:
        numbers = (
            "WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers "
            f"WHERE i < {count - 1}) SELECT i FROM numbers"
        )
        words = {
            "id": f"printf('%012x70008%015x', CAST({ms} AS integer), i)",
            "event": f"printf('%012x70008%015x', CAST({call_ms} AS integer), i / 2)",
            "at": f"strftime('%Y-%m-%d %H:%M:%f', {ms} / 1000.0, 'unixepoch')",
            "padded": "printf('%07d', i / 2)",
            "dry_run": DRY_RUN,
            "failed": FAILED,
        }
    names = ", ".join(f'"{name}"' for name in _COLUMNS)
    values = ", ".join(
        expression.format(**words) if "{" in expression else expression for expression in _COLUMNS.values()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {Finding._meta.db_table} ({names}) SELECT {values} FROM ({numbers}) n")
