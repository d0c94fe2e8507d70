"""The Celery application: moderation calls, usage rollups, pruning. Usage itself never travels through it."""

import os
from typing import Any

from celery import Celery
from celery.signals import beat_embedded_init

from gateway_project.supervisor import end_with_parent

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")

app = Celery("gatehouse")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@beat_embedded_init.connect
def end_with_worker(**kwargs: Any) -> None:
    """Beat inside a worker is a process of its own, which would go on sending for ever after its worker was killed."""
    end_with_parent()
