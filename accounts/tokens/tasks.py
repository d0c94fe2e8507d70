"""Celery's part: what has outlived its use."""

from __future__ import annotations

from celery import shared_task

from accounts.tokens import exchange, services


@shared_task(name="accounts.tokens.tasks.purge")
def purge() -> None:
    services.purge_replies()
    exchange.purge_keys()
