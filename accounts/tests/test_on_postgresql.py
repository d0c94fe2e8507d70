"""What locks rows, loses connections or asks the database in its own words is the same on PostgreSQL: specifications
that are run there as well, in one run, because each begins with all migrations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

SPECS = [
    "accounts/tests/test_authentication.py",
    "accounts/audit/tests/test_parallel.py",
    "accounts/audit/tests/test_verify.py",
    "gateway_project/tests/test_erasure.py",
    "accounts/requests/tests/test_at_once.py",
    "accounts/scim/tests/test_people.py",
    "accounts/scim/tests/test_groups.py",
    "accounts/scim/tests/test_with_sign_in.py",
]


@pytest.mark.slow
def test_people_and_their_trail_are_the_same_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": postgres_url, "DATA_DIR": str(tmp_path), "GATEHOUSE_LOCAL": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--create-db", "-p", "no:xdist", *SPECS],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
