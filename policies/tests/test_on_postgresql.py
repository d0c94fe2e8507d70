"""The specifications of what writes and reads policies hold on PostgreSQL too: other types, and real row locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

HERE = Path(__file__).parent
SAME = (
    "test_admin_at_once.py",
    "test_book.py",
    "test_findings.py",
    "test_intake.py",
    "test_pending.py",
    "test_recording.py",
    "test_retention.py",
    "test_selectors.py",
    "test_services.py",
)


@pytest.mark.slow
def test_policies_are_the_same_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": postgres_url, "DATA_DIR": str(tmp_path), "GATEHOUSE_LOCAL": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--create-db", "-p", "no:xdist", *(str(HERE / name) for name in SAME)],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
