"""`manage.py up`: Gatehouse on one machine, with nothing else running. `make run` calls it.

Web process and Celery worker run side by side under gateway_project.supervisor and end together.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import http.client
import os
import socket
import sys
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from gateway_project import checks, environment_providers
from gateway_project.first_start import ADMIN, FirstStart, prepare
from gateway_project.supervisor import Child, ChildFailed, Supervisor

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "8000"
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - only what is printed for it
READY_TIMEOUT_S = 3.0


class Command(BaseCommand):
    help = "Starts the gateway on this machine: the web process and the Celery worker. Ctrl-C stops both."
    # They run here later, when the database is migrated.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--host", default=DEFAULT_HOST, help=f"Address to listen on. Default: {DEFAULT_HOST}.")
        parser.add_argument("--port", help=f"Port to listen on. Default: PORT, else {DEFAULT_PORT}.")

    def handle(self, *args: Any, host: str, port: str | None, **options: Any) -> None:
        number = _port(port or os.environ.get("PORT") or DEFAULT_PORT)
        lock = _lock(settings.DATA_DIR / "up.pid")
        try:
            _check_free(host, number)
            first = self._prepare()
            self._run(host, number, first)
        finally:
            os.close(lock)

    def _prepare(self) -> FirstStart | None:
        try:
            if checks.pending_migrations():
                self._say("Setting up the database ...")
                call_command("migrate", interactive=False, verbosity=0)
            problems = checks.run_start_checks()
            if problems:
                raise CommandError("\n".join(problems))
            collect_static()
            environment_providers.sync()
            return prepare()
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        finally:
            connection.close()

    def _run(self, host: str, port: int, first: FirstStart | None) -> None:
        url_host = EVERY_ADDRESS.get(host, host)
        url = f"http://[{url_host}]:{port}" if ":" in url_host else f"http://{url_host}:{port}"
        told = False

        def tell() -> None:
            nonlocal told
            told = True
            self._say(_welcome(url, first))

        # The children's grace and a little more: theirs ends first, so that they close their books themselves.
        supervisor = Supervisor(_children(host, port), settings.GRACEFUL_TIMEOUT_S + 5, self._say)
        try:
            supervisor.run(lambda: _is_ready(url_host, port), tell)
        except ChildFailed as error:
            raise CommandError(f"The {error.name} did not start (code {error.code}): the reason is above.") from None
        finally:
            if first and not told:
                self._say(_once(first))
        self._say("Gatehouse has stopped.")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise CommandError(f"The port must be a number between 1 and 65535, not {text!r}.")
    return int(text)


def _lock(path: Path) -> int:
    """The lock file's descriptor; close it to let go. The system lets go when the process dies, however it dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise CommandError(f"Gatehouse is already running on {settings.DATA_DIR} (process {pid}).") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise CommandError(f"{host!r} is not an address of this machine.") from None
    except OSError as error:
        what_to_do = "Stop what uses it, or take another port: PORT=9000 make run"
        raise CommandError(f"Cannot listen on {host}:{port}: {error.strerror}. {what_to_do}") from None


def _children(host: str, port: int) -> list[Child]:
    python = sys.executable
    web = [python, "-m", "gateway_project.server", "--host", host, "--port", str(port)]
    # On one's own machine, as root in a container perhaps, Celery's page-long warning about root helps nobody.
    celery = [python, "-W", "ignore:You're running the worker", "-m", "celery", "--quiet", "-A", "gateway_project"]
    worker = [*celery, "worker", "-B", "--pool=threads", "-c", "2", "--loglevel", "WARNING"]
    worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [Child("web process", web, essential=True), Child("worker", worker)]


def _is_ready(host: str, port: int) -> bool:
    looking = http.client.HTTPConnection(host, port, timeout=READY_TIMEOUT_S)
    try:
        looking.request("GET", "/readyz")
        return looking.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        looking.close()


def collect_static() -> bool:
    """Collects the admin's files if one is new or another; True if it did. They are compressed, which takes seconds."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    digest = _static_digest()
    if stamp.exists() and stamp.read_text() == digest:
        return False
    call_command("collectstatic", interactive=False, verbosity=0, clear=True)
    stamp.write_text(digest)
    return True


def _static_digest() -> str:
    """Of name, size and time of every source file."""
    digest = hashlib.sha256()
    for app in apps.get_app_configs():
        for folder, _, names in sorted(os.walk(Path(app.path) / "static")):
            for name in sorted(names):
                path = Path(folder) / name
                status = path.stat()
                digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _welcome(url: str, first: FirstStart | None) -> str:
    lines = ["", "Gatehouse is ready.", "", f"  API        {url}/v1", f"  Admin      {url}/admin/"]
    if first is None:
        manage = f"{os.path.relpath(sys.executable)} manage.py"
        lines += ["", f"A new API key:  {manage} create_key NAME --user {ADMIN}"]
    else:
        message = '{"model": "echo", "messages": [{"role": "user", "content": "Hello, Gatehouse!"}]}'
        lines += [
            _once(first),
            "",
            "The first call:",
            "",
            f"  curl {url}/v1/chat/completions -H 'Authorization: Bearer {first.key}'"
            f" -H 'Content-Type: application/json' -d '{message}'",
        ]
    return "\n".join([*lines, "", "Ctrl-C stops it.", ""])


def _once(first: FirstStart) -> str:
    return f"  Sign in    {ADMIN} / {first.password}   (shown this once)\n  Demo key   {first.key}   (shown this once)"
