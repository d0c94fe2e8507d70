"""How a setting is read: from its variable, or from the file that `<NAME>_FILE` names."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from gateway_project import environment as env


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("THING", "THING_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_default_is_taken_when_nothing_is_set() -> None:
    assert env.text("THING", "usual") == "usual"


@pytest.mark.parametrize("value", ["$ecret", "${HOME}", "a=b", " spaced ", "ünï", ""])
def test_value_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THING", value)
    assert env.text("THING", "usual") == value


def test_file_gives_the_value_without_its_last_newline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "thing").write_text("$ecret\n")
    monkeypatch.setenv("THING_FILE", str(tmp_path / "thing"))
    assert env.text("THING") == "$ecret"


def test_variable_counts_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THING", "direct")
    monkeypatch.setenv("THING_FILE", str(tmp_path / "missing"))
    assert env.text("THING") == "direct"


def test_file_that_cannot_be_read_is_told_by_its_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("THING_FILE", str(tmp_path / "missing"))
    with pytest.raises(ImproperlyConfigured, match="THING_FILE names"):
        env.text("THING")


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("On", True), ("no", False), ("", False)])
def test_flag(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("THING", value)
    assert env.flag("THING", default=not expected) is expected


def test_flag_that_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING", "maybe")
    with pytest.raises(ImproperlyConfigured, match="THING must be true or false"):
        env.flag("THING", default=True)


@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf"])
def test_number_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THING", value)
    with pytest.raises(ImproperlyConfigured, match="THING must be"):
        env.number("THING", 1)


def test_list_is_split_at_commas_and_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING", " a, b,,c ")
    assert env.words("THING") == ["a", "b", "c"]


def test_database_password_may_be_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING", "postgres://user:a%40b@db.example.org:5433/gate")
    config = env.database("THING", "")
    assert (config["PASSWORD"], config["HOST"], config["PORT"]) == ("a@b", "db.example.org", 5433)


@pytest.mark.parametrize("value", ["nonsense", "oops://x"])
def test_database_url_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("THING", value)
    with pytest.raises(ImproperlyConfigured, match="THING is not a database URL"):
        env.database("THING", "")


def test_secret_is_made_once_and_kept_for_its_owner_only(tmp_path: Path) -> None:
    made = env.secret("THING", tmp_path, may_make=True)
    assert len(made) >= 48
    assert env.secret("THING", tmp_path, may_make=False) == made
    assert env.secret("OTHER", tmp_path, may_make=True) != made
    path = tmp_path / "secrets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == {"THING", "OTHER"}


def test_secret_is_required_where_it_may_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="THING is not set"):
        env.secret("THING", tmp_path, may_make=False)
    assert not list(tmp_path.iterdir())


# --- mail and the gateway's own address ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", ("mail.example.org", 25, None)),
        ("smtp+tls://user:pa%24s@mail.example.org", ("mail.example.org", 587, "EMAIL_USE_TLS")),
        ("smtp+ssl://mail.example.org", ("mail.example.org", 465, "EMAIL_USE_SSL")),
        ("smtp+tls://mail.example.org:2525", ("mail.example.org", 2525, "EMAIL_USE_TLS")),
    ],
)
def test_mail_server_has_its_usual_port(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: tuple[str, int, str | None]
) -> None:
    monkeypatch.setenv("THING", url)
    config = env.email("THING")
    secure = next((name for name in ("EMAIL_USE_TLS", "EMAIL_USE_SSL") if config.get(name)), None)
    assert (config["EMAIL_HOST"], config["EMAIL_PORT"], secure) == expected
    if "user" in url:
        assert (config["EMAIL_HOST_USER"], config["EMAIL_HOST_PASSWORD"]) == ("user", "pa$s")


@pytest.mark.parametrize("url", ["mail.example.org", "https://mail.example.org", "smtp://", "smtp://host:port"])
def test_mail_server_that_makes_no_sense_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("THING", url.replace("//", "//user:hush@"))
    with pytest.raises(ImproperlyConfigured, match="THING") as error:
        env.email("THING")
    assert "hush" not in str(error.value)


def test_web_address_may_be_missing_but_not_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.web_address("THING") == ""
    for good in ("https://gateway.example.org", "http://10.0.0.1:8000/llm/"):
        monkeypatch.setenv("THING", good)
        assert env.web_address("THING") == good
    for bad in ("gateway.example.org", "ftp://example.org", "https://", "https://example.org/?a=b"):
        monkeypatch.setenv("THING", bad)
        with pytest.raises(ImproperlyConfigured, match="THING"):
            env.web_address("THING")
