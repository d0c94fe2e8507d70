"""Celery looks at the rules and sends, also in the one worker beside `make run`."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from usage import alert_tasks
from usage.alerts import sending, watching

TASKS = {"check": (watching, "check"), "send": (sending, "sweep"), "purge": (watching, "purge")}


@pytest.mark.parametrize("name", TASKS)
def test_task_comes_up_by_itself_and_does_its_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the worker knows it: gateway_project/tests/test_celery.py."""
    assert f"usage.alert_tasks.{name}" in {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    done: list[Any] = []
    module, function = TASKS[name]
    monkeypatch.setattr(module, function, lambda: done.append(name))
    getattr(alert_tasks, name)()
    assert done == [name]
