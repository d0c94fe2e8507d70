"""What is no longer to be kept goes, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from policies import retention
from policies.models import Finding, LoggedContent
from policies.recording import record
from policies.tasks import purge
from policies.tests.test_recording import FOUND

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def call(days_ago: float, number: int = 0, **carried: Any) -> dict[str, Any]:
    at = int((NOW - timedelta(days=days_ago)).timestamp() * 1e6)
    return {
        "id": f"{at // 1000 << 80 | 7 << 76 | 2 << 62 | number:032x}", "at": at, "request_id": f"{days_ago:g} days",
        "endpoint": "chat/completions", "key_id": None, "key_label": "", "user_id": None, "team_id": None,
        "model": "gpt", **carried,
    }  # fmt: skip


def test_logged_texts_are_deleted_after_the_days_their_policy_said() -> None:
    for days_ago, kept_for in ((6.9, 7), (7.1, 7), (400, 3650)):
        record([call(days_ago, content={"request": "token", "retention_days": kept_for})])
    retention.purge(NOW)
    assert sorted(row.request_id for row in LoggedContent.objects.all()) == ["400 days", "6.9 days"]


def test_findings_are_deleted_after_the_days_of_the_installation(settings: Any) -> None:
    settings.FINDINGS_RETENTION_DAYS = 30
    record([call(days_ago, findings=[FOUND]) for days_ago in (29.9, 30.1, 0)])
    retention.purge(NOW)
    assert sorted(row.request_id for row in Finding.objects.all()) == ["0 days", "29.9 days"]


def test_many_are_deleted_in_small_steps(monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any) -> None:
    monkeypatch.setattr(retention, "CHUNK_ROWS", 10)
    record([call(200, number, findings=[FOUND]) for number in range(25)])
    with django_assert_num_queries(1 + 3 * 2 + 1):
        assert retention.purge(NOW) == 25


def test_sweep_is_a_task_of_celery() -> None:
    record([call(200, findings=[FOUND])])
    purge()
    assert not Finding.objects.exists()
