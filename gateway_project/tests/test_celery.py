"""The schedule that beat follows, in `make run` and beside Redis alike."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from gateway_project.celery import app

SCHEDULE: dict[str, dict[str, Any]] = settings.CELERY_BEAT_SCHEDULE


@pytest.mark.parametrize("entry", SCHEDULE.values(), ids=SCHEDULE.keys())
def test_beat_names_tasks_that_the_worker_knows(entry: dict[str, Any]) -> None:
    app.loader.import_default_modules()
    assert entry["task"] in app.tasks


@pytest.mark.parametrize("entry", SCHEDULE.values(), ids=SCHEDULE.keys())
def test_what_a_stopped_worker_did_not_do_is_forgotten_before_it_is_due_again(entry: dict[str, Any]) -> None:
    assert entry["options"]["expires"] <= entry["schedule"]


def test_usage_is_rolled_up_and_pruned_by_beat() -> None:
    assert {"usage.tasks.roll_up", "usage.tasks.prune"} <= {entry["task"] for entry in SCHEDULE.values()}
