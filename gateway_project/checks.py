"""What must be right before calls are taken. Django's system checks, with ids and hints; `run_start_checks` for the
web process, because checks do not run by themselves under ASGI.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register, run_checks
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from accounts.encryption import EncryptedField, EncryptedRecordField, Undecryptable, decrypt

SECRET_CHARS = 32
SECRET_DISTINCT_CHARS = 10
BROKEN_ROWS_SHOWN = 5

Apps = Sequence[AppConfig] | None


@register(Tags.security)
def check_process_count(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    """Limits and the exclusive use of the data folder are per process, unless Redis is there to share them."""
    count = web_processes()
    if count <= 1 or settings.REDIS_URL:
        return []
    return [
        Error(
            f"{count} web processes are asked for, but REDIS_URL is not set.",
            hint="Set REDIS_URL, or run one web process: WEB_CONCURRENCY=1.",
            id="gatehouse.E001",
        )
    ]


def web_processes() -> int:
    """How many web processes the environment asks gunicorn for."""
    asked = [os.environ.get("WEB_CONCURRENCY", "")]
    arguments = shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))
    for position, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("-w", "--workers"):
            asked.append(value or "".join(arguments[position + 1 : position + 2]))
        elif re.fullmatch(r"-w\d+", argument):
            asked.append(argument[2:])
    return max((int(number) for number in asked if number.isdecimal()), default=1)


@register(Tags.security)
def check_secrets(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    secrets = {
        "SECRET_KEY": [settings.SECRET_KEY],
        "KEY_PEPPERS": settings.KEY_PEPPERS,
        "ENCRYPTION_KEYS": settings.ENCRYPTION_KEYS,
    }
    for name, values in secrets.items():
        if not values or any(_is_weak(value) for value in values):
            found.append(
                Error(
                    f"{name} is missing or too weak: {SECRET_CHARS} characters at least, not all alike.",
                    hint='Make one with: python3 -c "import secrets; print(secrets.token_urlsafe(48))"',
                    id="gatehouse.E002",
                )
            )
    every = [value for values in secrets.values() for value in values]
    if len(set(every)) < len(every):
        found.append(
            Error(
                "SECRET_KEY, KEY_PEPPERS and ENCRYPTION_KEYS share a value.",
                hint="Give each a secret of its own: whoever learns one must not have the others.",
                id="gatehouse.E003",
            )
        )
    return found


def _is_weak(secret: str) -> bool:
    return len(secret) < SECRET_CHARS or len(set(secret)) < SECRET_DISTINCT_CHARS


@register(Tags.security)
def check_trusted_proxies(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for network in settings.TRUSTED_PROXIES:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            found.append(
                Error(
                    f"TRUSTED_PROXIES holds {network!r}, which is no IP address or network.",
                    hint="Write addresses or networks such as 10.0.0.0/8,192.168.1.7.",
                    id="gatehouse.E004",
                )
            )
    if settings.HTTPS and not settings.TRUSTED_PROXIES:
        found.append(
            Warning(
                "HTTPS is on, but TRUSTED_PROXIES is empty: behind a proxy that ends TLS a page redirects for ever.",
                hint="Set TRUSTED_PROXIES to the addresses of that proxy; silence this if gunicorn itself ends TLS.",
                id="gatehouse.W004",
            )
        )
    return found


@register(Tags.security)
def check_cors(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"CORS_ALLOWED_ORIGINS holds {origin!r}, which is no origin.",
            hint="Write scheme, host and an unusual port: https://chat.example.org:8443. Or * for every origin.",
            id="gatehouse.E005",
        )
        for origin in settings.CORS_ALLOWED_ORIGINS
        if origin != "*" and not _is_origin(origin)
    ]


@register(Tags.security)
def check_csrf_origins(app_configs: Apps = None, **kwargs: Any) -> list[CheckMessage]:
    return [
        Warning(
            f"CSRF_TRUSTED_ORIGINS holds {origin!r}, which is not HTTPS, though HTTPS is on.",
            hint="Anybody on the way could post in the name of a signed-in administrator. Write https://...",
            id="gatehouse.W006",
        )
        for origin in settings.CSRF_TRUSTED_ORIGINS
        if settings.HTTPS and not origin.startswith("https://")
    ]


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_address and text in (f"http://{parts.netloc}", f"https://{parts.netloc}") and "@" not in text


@register(Tags.database)
def check_encrypted_rows(app_configs: Apps = None, databases: Iterable[str] | None = None, **kwargs: Any) -> list[Any]:
    """Every stored secret can be read with the ENCRYPTION_KEYS of today. Only where the database may be asked."""
    if not databases:
        return []
    try:
        broken = [name for name, stored in _encrypted_values() if not _is_readable(stored)]
    except DatabaseError:  # not migrated yet, or away: other checks say so
        return []
    if not broken:
        return []
    more = f" and {len(broken) - BROKEN_ROWS_SHOWN} more" if len(broken) > BROKEN_ROWS_SHOWN else ""
    return [
        Error(
            f"ENCRYPTION_KEYS cannot decrypt: {', '.join(broken[:BROKEN_ROWS_SHOWN])}{more}.",
            hint="Add the key they were written under to the end of ENCRYPTION_KEYS, or enter those secrets again.",
            id="gatehouse.E007",
        )
    ]


def _encrypted_values() -> Iterable[tuple[str, str]]:
    """(what it is, ciphertext) of every encrypted column that is not empty."""
    for model in apps.get_models():
        for field in model._meta.fields:
            if isinstance(field, EncryptedField) and not isinstance(field, EncryptedRecordField):
                for row in model._default_manager.exclude(**{field.name: ""}):
                    yield f"{model._meta.verbose_name} {row} ({field.verbose_name})", getattr(row, field.name)


def _is_readable(stored: str) -> bool:
    try:
        decrypt(stored)
    except Undecryptable:
        return False
    return True


def check_migrations() -> list[CheckMessage]:
    """Not a registered check: `migrate` itself must be able to run."""
    try:
        missing = pending_migrations()
    except DatabaseError as error:
        return [
            Error(
                f"The database cannot be asked: {type(error).__name__}.",
                hint="Is DATABASE_URL right, and is the server up?",
                id="gatehouse.E008",
            )
        ]
    if not missing:
        return []
    return [
        Error(
            f"{len(missing)} migrations are not applied, the first is {missing[0]}.",
            hint="Run: python manage.py migrate",
            id="gatehouse.E009",
        )
    ]


def pending_migrations() -> list[str]:
    """Names of the migrations that the database lacks. Raises DatabaseError."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def run_start_checks() -> list[str]:
    """Why this process must not take calls: a line each, with what to do. Empty: all is well. Asks the database."""
    found = [*check_migrations(), *run_checks(databases=["default"])]
    serious = [message for message in found if message.is_serious() and not message.is_silenced()]
    return [f"{message.id}: {message.msg} {message.hint or ''}".strip() for message in serious]
