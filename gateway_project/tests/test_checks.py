"""What keeps the gateway from starting, or is said before it goes wrong."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from gateway_project import checks
from proxy.models import Provider

STRONG = ["a-long-random-text-0123456789-abcdefgh", "another-long-random-text-9876543210-zyx"]


def ids(found: list[Any]) -> list[str]:
    return [message.id for message in found]


@pytest.mark.parametrize(
    ("variables", "count"),
    [
        ({}, 1),
        ({"WEB_CONCURRENCY": "4"}, 4),
        ({"WEB_CONCURRENCY": "many"}, 1),
        ({"GUNICORN_CMD_ARGS": "-w 3"}, 3),
        ({"GUNICORN_CMD_ARGS": "-w3"}, 3),
        ({"GUNICORN_CMD_ARGS": "--workers=2 --bind 0.0.0.0:80"}, 2),
        ({"GUNICORN_CMD_ARGS": "--workers 5"}, 5),
        ({"GUNICORN_CMD_ARGS": "--workers"}, 1),
    ],
)
def test_second_web_process_without_redis_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: Any, variables: dict[str, str], count: int
) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings.REDIS_URL = ""
    assert checks.web_processes() == count
    assert ids(checks.check_process_count()) == (["gatehouse.E001"] if count > 1 else [])
    settings.REDIS_URL = "redis://127.0.0.1"
    assert checks.check_process_count() == []


@pytest.mark.parametrize("weak", ["", "short", "a" * 50, "abababababababababababababababababab"])
def test_weak_secret_is_refused_by_name(settings: Any, weak: str) -> None:
    settings.SECRET_KEY, settings.ENCRYPTION_KEYS = STRONG
    settings.KEY_PEPPERS = ["a-third-long-random-text-0123456789-mnop", weak]
    settings.ENCRYPTION_KEYS = [STRONG[1]]
    (error,) = checks.check_secrets()
    assert (error.id, error.msg.split()[0]) == ("gatehouse.E002", "KEY_PEPPERS")
    assert not weak or weak not in f"{error.msg} {error.hint}"


def test_secrets_must_not_be_the_same(settings: Any) -> None:
    settings.SECRET_KEY = STRONG[0]
    settings.KEY_PEPPERS, settings.ENCRYPTION_KEYS = [STRONG[0]], [STRONG[1]]
    assert ids(checks.check_secrets()) == ["gatehouse.E003"]


def test_trusted_proxies_must_be_addresses(settings: Any) -> None:
    settings.HTTPS = False
    settings.TRUSTED_PROXIES = ["10.0.0.0/8", "::1", "192.168.1.7", "10.0.0.1/8"]
    assert checks.check_trusted_proxies() == []
    settings.TRUSTED_PROXIES = ["proxy.example.org", "10.0.0.0/99"]
    assert ids(checks.check_trusted_proxies()) == ["gatehouse.E004", "gatehouse.E004"]


def test_https_without_a_trusted_proxy_is_warned_of(settings: Any) -> None:
    settings.HTTPS, settings.TRUSTED_PROXIES = True, []
    assert ids(checks.check_trusted_proxies()) == ["gatehouse.W004"]


@pytest.mark.parametrize("origin", ["https://chat.example.org", "http://localhost:3000", "*", "https://[::1]:8443"])
def test_origin_is_accepted(settings: Any, origin: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [origin]
    assert checks.check_cors() == []


@pytest.mark.parametrize(
    "origin", ["chat.example.org", "https://chat.example.org/", "https://a.org/x", "ftp://a.org", "https://a:b", "null"]
)
def test_what_is_no_origin_is_refused(settings: Any, origin: str) -> None:
    settings.CORS_ALLOWED_ORIGINS = [origin]
    assert ids(checks.check_cors()) == ["gatehouse.E005"]


def test_csrf_origin_without_tls_is_warned_of(settings: Any) -> None:
    settings.HTTPS, settings.CSRF_TRUSTED_ORIGINS = True, ["http://admin.example.org", "https://admin.example.org"]
    assert ids(checks.check_csrf_origins()) == ["gatehouse.W006"]
    settings.HTTPS = False
    assert checks.check_csrf_origins() == []


@pytest.mark.django_db
def test_stored_secret_that_cannot_be_decrypted_is_told_by_its_provider(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [STRONG[0]]
    provider = Provider(name="acme", kind="openai")
    provider.set_credential("sk-acme")
    provider.save()
    assert checks.check_encrypted_rows(databases=["default"]) == []
    settings.ENCRYPTION_KEYS = [STRONG[1]]
    assert checks.check_encrypted_rows() == []  # the database may not be asked
    (error,) = checks.check_encrypted_rows(databases=["default"])
    assert error.id == "gatehouse.E007"
    assert "provider acme (API key)" in error.msg


@pytest.mark.django_db
def test_rotation_writes_secrets_under_the_newest_key(settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings.ENCRYPTION_KEYS = [STRONG[0]]
    provider = Provider(name="acme", kind="openai")
    provider.set_credential("sk-acme")
    provider.save()
    settings.ENCRYPTION_KEYS = [STRONG[1], STRONG[0]]
    call_command("rotate_encryption")
    call_command("rotate_encryption")
    assert capsys.readouterr().out.splitlines() == ["1 secrets encrypted anew", "nothing changed"]
    settings.ENCRYPTION_KEYS = [STRONG[1]]
    assert Provider.objects.get().read_credential() == "sk-acme"


@pytest.mark.django_db
def test_rotation_tells_what_it_could_not_decrypt(settings: Any) -> None:
    Provider.objects.create(name="acme", kind="openai", credential="damaged")
    with pytest.raises(CommandError, match="provider acme: credential"):
        call_command("rotate_encryption")


@pytest.mark.django_db
def test_database_that_lacks_migrations_is_refused() -> None:
    assert checks.check_migrations() == []
    with mock.patch.object(checks, "pending_migrations", return_value=["usage.0002_x"]):
        (line,) = checks.run_start_checks()
    assert line.startswith("gatehouse.E009: 1 migrations are not applied, the first is usage.0002_x.")
    assert "manage.py migrate" in line


@pytest.mark.django_db
def test_database_that_cannot_be_asked_is_refused_without_its_address() -> None:
    with mock.patch.object(checks, "pending_migrations", side_effect=OperationalError("password=hunter2")):
        (line,) = checks.run_start_checks()
    assert line.startswith("gatehouse.E008: The database cannot be asked: OperationalError.")


@pytest.mark.django_db
def test_start_is_allowed_in_the_tests_own_configuration() -> None:
    assert checks.run_start_checks() == []
