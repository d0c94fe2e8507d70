"""SCIM locks the rows that it changes, and its filters are conditions of the database: the same on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

SPECS = [Path(__file__).with_name(name) for name in ("test_people.py", "test_groups.py", "test_with_sign_in.py")]


@pytest.mark.slow
def test_scim_is_the_same_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": postgres_url, "DATA_DIR": str(tmp_path), "GATEHOUSE_LOCAL": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--create-db", "-p", "no:xdist", *map(str, SPECS)],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
