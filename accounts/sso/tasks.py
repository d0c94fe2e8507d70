from __future__ import annotations

from celery import shared_task

from accounts.sso import services


@shared_task(name="accounts.sso.tasks.lapse_keys")
def lapse_keys() -> None:
    services.lapse_keys()


@shared_task(name="accounts.sso.tasks.forget_old")
def forget_old() -> None:
    services.forget_old()
