"""Many usage events at once, made by the database: what a list of a large installation is tested with."""

from __future__ import annotations

import time

from django.db import connection

from usage.models import UsageEvent

# Of i, the number of the event, counted from the oldest. {id} and {at} differ by database.
_COLUMNS = {
    "id": "{id}",
    "at": "{at}",
    "request_id": "'req-' || {padded}",
    "endpoint": "'chat/completions'",
    "key_id": "1 + i % 30",
    "key_label": "'key-' || (1 + i % 30)",
    "user_id": "1 + i % 10",
    "team_id": "1 + i % 5",
    "model": "'model-' || (i % 3)",
    "provider": "'provider-' || (i % 2)",
    "upstream_model": "'upstream'",
    "status": "CASE WHEN i % 10 = 7 THEN 429 ELSE 200 END",
    "error_code": "CASE WHEN i % 10 = 7 THEN 'rate_limit_exceeded' ELSE '' END",
    "streamed": "{false}",
    "prompt_tokens": "1000 + i",
    "completion_tokens": "20",
    "cached_tokens": "0",
    "cache_write_tokens": "0",
    "reasoning_tokens": "0",
    "estimated": "{false}",
    "cost_nano_usd": "CASE WHEN i % 4 = 3 THEN NULL ELSE 1234567 END",
    "latency_us": "1500000",
    "first_byte_us": "120000",
    "attempts": "1",
    "end_user": "''",
    "client_ip": "'192.0.2.1'",
    "user_agent": "'OpenAI/Python'",
    "organization": "''",
    "trace_id": "''",
    "above_hold": "{false}",
    "units": "{tags}",
    "tags": "{tags}",
}


def insert_many(count: int, hours: float = 1) -> None:
    """`count` events, evenly over the last `hours`."""
    now_ms = int(time.time() * 1000)
    start_ms, step_ms = int(now_ms - hours * 3_600_000), hours * 3_600_000 / count
    ms = f"({start_ms} + i * {step_ms})"
    if connection.vendor == "postgresql":
        numbers = f"SELECT i FROM generate_series(0, {count - 1}) i"
        words = {
            "id": f"(lpad(to_hex({ms}::bigint), 12, '0') || '70008' || lpad(to_hex(i), 15, '0'))::uuid",
            "at": f"to_timestamp({ms} / 1000.0)",
            "padded": "lpad(i::text, 7, '0')",
            "false": "false",
            "tags": "'{}'::jsonb",
        }
    else:
        numbers = (
            "WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers "
            f"WHERE i < {count - 1}) SELECT i FROM numbers"
        )
        words = {
            "id": f"printf('%012x70008%015x', CAST({ms} AS integer), i)",
            "at": f"strftime('%Y-%m-%d %H:%M:%f', {ms} / 1000.0, 'unixepoch')",
            "padded": "printf('%07d', i)",
            "false": "0",
            "tags": "'{}'",
        }
    values = ", ".join(
        expression.format(**words) if "{" in expression else expression for expression in _COLUMNS.values()
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {UsageEvent._meta.db_table} ({', '.join(_COLUMNS)}) SELECT {values} FROM ({numbers}) n"
        )
