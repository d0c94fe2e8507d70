"""The specifications of the audit trail and of the erasure hold on PostgreSQL too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

SPECS = [
    Path(__file__).with_name("test_parallel.py"),
    Path(__file__).with_name("test_verify.py"),
    Path(settings.BASE_DIR) / "gateway_project/tests/test_erasure.py",
]


@pytest.mark.slow
def test_audit_trail_is_the_same_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
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
