"""Celery's part: sweeps that may be lost, late or doubled without harm."""

from __future__ import annotations

import logging

from celery import shared_task

from usage import (
    alert_tasks,  # noqa: F401 - Celery finds them through here
    retention,
    rollups,
)

logger = logging.getLogger(__name__)

# The sweeps share few workers, often one: what takes longer than this goes on the next time.
PRUNE_AT_MOST_S = 60.0


@shared_task(name="usage.tasks.roll_up")
def roll_up() -> None:
    rollups.roll_up()


@shared_task(name="usage.tasks.prune")
def prune() -> None:
    pruned = retention.prune(stop_after_s=PRUNE_AT_MOST_S)
    if pruned.events or pruned.hours:
        logger.info("deleted %d usage events and %d sums by hour: too old", pruned.events, pruned.hours)
    if pruned.not_rolled_up:
        logger.warning("%d old hours are not rolled up, so nothing of them was deleted", pruned.not_rolled_up)
