"""Reads settings from the environment: `NAME`, or the file that `NAME_FILE` points to.

django-environ parses (URLs, lists, booleans); it does not fetch. Its own look-up treats a value that begins with `$` as
a reference to another variable, so a secret `$ecret` would be an error, and it keeps a file's trailing newline.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
MAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 587, "smtp+ssl": 465}
FALSE = frozenset({"0", "false", "no", "off", "n", "f", ""})


def text(name: str, default: str = "") -> str:
    """The value as it is; from `NAME_FILE` without the trailing newline. Raises ImproperlyConfigured."""
    if name in os.environ:
        return os.environ[name]
    path = os.environ.get(f"{name}_FILE")
    if not path:
        return default
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name}_FILE names {path}, which cannot be read: {error}") from error


def flag(name: str, default: bool) -> bool:
    value = text(name, str(default)).strip().lower()
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")


def choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    """Raises ImproperlyConfigured."""
    value = text(name, default).strip().lower()
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def number(name: str, default: float, minimum: float = 0) -> float:
    value = text(name, str(default)).strip()
    try:
        parsed = float(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} must be a number, not {value!r}.") from error
    if not parsed >= minimum or parsed == float("inf"):
        raise ImproperlyConfigured(f"{name} must be at least {minimum:g}, not {value}.")
    return parsed


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list; blanks around items and empty items are dropped."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def database(name: str, default: str) -> dict[str, object]:
    try:
        config: dict[str, object] = environ.Env.db_url_config(text(name, default))
    except Exception as error:  # django-environ raises what its parser happens to raise
        raise ImproperlyConfigured(f"{name} is not a database URL.") from error
    if "." not in str(config.get("ENGINE")):  # an unknown scheme is handed through as it is
        raise ImproperlyConfigured(f"{name} is not a database URL that Gatehouse knows.")
    return config


def web_address(name: str) -> str:
    """A URL of a web site, "" when none is given. Raises ImproperlyConfigured."""
    value = text(name).strip()
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        raise ImproperlyConfigured(f"{name} must be like https://gateway.example.org.")
    return value


def email(name: str) -> dict[str, object]:
    """Django's settings for a mail server such as smtp+tls://user:password@host:587. Raises ImproperlyConfigured."""
    try:
        config: dict[str, object] = environ.Env.email_url_config(text(name))
        scheme = urlsplit(text(name)).scheme
    except Exception as error:  # as above
        raise ImproperlyConfigured(f"{name} is not the URL of a mail server.") from error
    if scheme in MAIL_PORTS:
        if not config["EMAIL_HOST"]:
            raise ImproperlyConfigured(f"{name} names no host.")
        config["EMAIL_PORT"] = config["EMAIL_PORT"] or MAIL_PORTS[scheme]
    return config


def secret(name: str, data_dir: Path, may_make: bool) -> str:
    """A secret from the environment, else the one kept in the data folder, else (on a local run) one made and kept."""
    given = text(name)
    if given:
        return given
    path = data_dir / "secrets.json"
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if name in kept:
        return kept[name]
    if not may_make:
        raise ImproperlyConfigured(
            f"{name} is not set. Set it (or {name}_FILE) to a long random text. It makes itself on a local run only."
        )
    kept[name] = secrets.token_urlsafe(48)
    data_dir.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(kept, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return kept[name]
