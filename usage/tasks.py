"""Celery's part: sweeps that may be lost, late or doubled without harm."""

from __future__ import annotations

from celery import shared_task

from usage import rollups


@shared_task(name="usage.tasks.roll_up")
def roll_up() -> None:
    rollups.roll_up()
