"""gunicorn -w N gateway_project.asgi:application: gunicorn finds this file by itself."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
from django.conf import settings

worker_class = "gateway_project.server.Worker"
bind = os.environ.get("BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
# Above gunicorn's own 30 s, so that long streams get their time: it is passed on to the server in each worker.
graceful_timeout = settings.GRACEFUL_TIMEOUT_S + 5
keepalive = 75  # gunicorn's 2 s resets pooled clients
timeout = 60
max_requests = 0

METRICS_DIR = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(settings.DATA_DIR / "metrics")))


def on_starting(server):
    """Counters of workers that are gone would be added up for ever."""
    shutil.rmtree(METRICS_DIR, ignore_errors=True)
    METRICS_DIR.mkdir(parents=True, exist_ok=True)


def when_ready(server):
    # Read by the start check that refuses a second worker without Redis.
    os.environ["WEB_CONCURRENCY"] = str(server.cfg.workers)


def pre_fork(server, worker):
    os.environ["WEB_CONCURRENCY"] = str(server.cfg.workers)


def child_exit(server, worker):
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
