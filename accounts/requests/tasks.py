"""Celery's part: sweeps that may be lost, late or doubled without harm."""

from __future__ import annotations

from celery import shared_task

from accounts.requests import cohorts, notices, services


@shared_task(name="accounts.requests.tasks.send_mail")
def send_mail() -> None:
    notices.sweep()


@shared_task(name="accounts.requests.tasks.tidy")
def tidy() -> None:
    """Courses that are over, requests that nobody has decided."""
    cohorts.end_due()
    services.expire_old()
