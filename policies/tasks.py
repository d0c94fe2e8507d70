"""Celery's part: sweeps that may be lost, late or doubled without harm."""

from __future__ import annotations

from celery import shared_task

from policies import pending, retention


@shared_task(name="policies.tasks.moderate_pending")
def moderate_pending() -> None:
    pending.sweep()


@shared_task(name="policies.tasks.purge")
def purge() -> None:
    retention.purge()
