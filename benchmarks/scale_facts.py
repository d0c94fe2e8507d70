"""What was measured on: the machine, and how much there is in the database."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path


def machine() -> str:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0].split()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; load {load}; PostgreSQL {version}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def sizes() -> Iterator[str]:
    """Rows, and how much room they take."""
    from django.db import connection

    with connection.cursor() as cursor:
        for table_name in ("usage_usageevent", "usage_rollup", "usage_subtotal", "policies_finding"):
            cursor.execute(
                f"SELECT count(*), pg_table_size('{table_name}'), pg_indexes_size('{table_name}') FROM {table_name}"
            )
            rows, heap, indexes = cursor.fetchone()
            each = f"{(heap + indexes) / rows:.0f} bytes a row, {indexes / rows:.0f} of them indexes" if rows else "-"
            yield f"{table_name}: {rows:,} rows, {(heap + indexes) / 2**20:,.0f} MiB, {each}"
        cursor.execute("SELECT grain, count(*) FROM usage_rollup GROUP BY grain ORDER BY grain")
        yield "rollups: " + ", ".join(f"{count:,} by {grain}" for grain, count in cursor.fetchall())
        cursor.execute("SELECT grain, count(*) FROM usage_subtotal GROUP BY grain ORDER BY grain")
        yield "subtotals: " + ", ".join(f"{count:,} by {grain}" for grain, count in cursor.fetchall())
