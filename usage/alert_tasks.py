"""Celery's part of alerts: sweeps that may be lost, late or doubled without harm."""

from __future__ import annotations

from celery import shared_task

from usage.alerts import sending, watching


@shared_task(name="usage.alert_tasks.check")
def check() -> None:
    watching.check()


@shared_task(name="usage.alert_tasks.send")
def send() -> None:
    sending.sweep()


@shared_task(name="usage.alert_tasks.purge")
def purge() -> None:
    watching.purge()
