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
