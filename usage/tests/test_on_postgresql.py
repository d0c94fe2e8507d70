"""The specifications of what writes and reads usage hold on PostgreSQL too: it has other types, and real row locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

HERE = Path(__file__).parent
# Each run makes a database of its own, which takes seconds: two of them, so that neither takes minutes.
SAME = {
    "budgets, alerts and prices": (
        "test_alerts_conditions.py",
        "test_alerts_sending.py",
        "test_alerts_watching.py",
        "test_budgets.py",
        "test_me.py",
        "test_price_list.py",
        "test_prices.py",
        "test_reconcile.py",
        "test_rerating.py",
    ),
    "events, sums and reports": (
        "test_chargeback.py",
        "test_exports.py",
        "test_portal.py",
        "test_reports.py",
        "test_retention.py",
        "test_roll_up_command.py",
        "test_rollups.py",
        "test_rollups_add_up.py",
        "test_selectors.py",
        "test_services.py",
        "test_spending.py",
        "test_subtotals.py",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("files", SAME.values(), ids=SAME.keys())
def test_usage_is_the_same_on_postgresql(files: tuple[str, ...], postgres_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": postgres_url, "DATA_DIR": str(tmp_path), "GATEHOUSE_LOCAL": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--create-db", "-p", "no:xdist", *(str(HERE / name) for name in files)],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout
