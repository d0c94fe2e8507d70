"""gunicorn -w N gateway_project.asgi:application: gunicorn finds this file by itself."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
from django.conf import settings

worker_class = "gateway_project.server.Worker"
bind = os.environ.get("BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
# Each worker gives its calls GRACEFUL_TIMEOUT_S; this is when it is killed if it has not ended by then.
graceful_timeout = settings.GRACEFUL_TIMEOUT_S + 10
keepalive = 75  # gunicorn's 2 s resets pooled clients
timeout = 60
max_requests = 0
control_socket_disable = True  # nobody steers it that way, and two installations of one user would share the socket

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
