"""`manage.py up`, which is what `make run` calls: from nothing to the first answered call, and down again."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts import keys
from accounts.models import ApiKey, User
from accounts.services import create_user
from gateway_project.first_start import prepare
from gateway_project.management.commands.up import collect_static
from gateway_project.tests.gateway_process import ROOT
from gateway_project.tests.services import free_port, wait_until
from proxy.models import Model
from usage.models import ModelPrice

START_TIMEOUT_S = 60
KEY = re.compile(r"sk-gh-[0-9A-Za-z]+-[0-9A-Za-z]+")


class Up:
    """A run of `manage.py up` with a data folder and a port of its own, and nothing else in the environment."""

    def __init__(self, data_dir: Path, port: int, **environment: str) -> None:
        self.port = port
        self.log = data_dir.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "PORT": str(port), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_until_ready(self) -> str:
        """What it has said until then. Raises TimeoutError, RuntimeError."""
        wait_until(
            lambda: "Ctrl-C stops it." in self.said or self.process.poll() is not None, START_TIMEOUT_S, "it is ready"
        )
        if self.process.poll() is not None:
            raise RuntimeError(self.said)
        return self.said

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def processes(data_dir: Path) -> list[str]:
    """Command lines of all processes that run on this data folder, as the kernel has them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"DATA_DIR={data_dir}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has just ended
    return found


def call_pasted(line: str) -> httpx.Response:
    """The call that the printed curl makes."""
    words = shlex.split(line)
    assert words[0] == "curl"
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    return httpx.post(words[1], headers=headers, content=words[words.index("-d") + 1], trust_env=False)


@pytest.mark.slow
def test_from_nothing_to_an_answered_call_and_down_again(tmp_path: Path) -> None:
    """One story, because each start takes seconds."""
    data_dir = tmp_path / "data"
    up = Up(
        data_dir, free_port(), GATEHOUSE_PROVIDER_ACME_URL="http://127.0.0.1:9/v1", GATEHOUSE_PROVIDER_ACME_MODELS="m"
    )
    try:
        said = up.wait_until_ready()
        (curl,) = [line.strip() for line in said.splitlines() if line.strip().startswith("curl ")]
        reply = call_pasted(curl)
        assert reply.status_code == 200
        assert reply.json()["choices"][0]["message"]["content"] == "Hello, Gatehouse!"

        key = KEY.search(said)
        assert key and keys.public_id(key[0])
        listed = httpx.get(f"http://127.0.0.1:{up.port}/v1/models", headers={"x-api-key": key[0]}, trust_env=False)
        assert [model["id"] for model in listed.json()["data"]] == ["echo", "m"]

        if sys.platform.startswith("linux"):
            wait_until(lambda: any("celery" in line for line in processes(data_dir)), 10, "the worker runs")
        second = subprocess.run(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "PORT": str(free_port())},
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert f"already running on {data_dir} (process {up.process.pid})" in second.stderr
    finally:
        assert up.stop() == 0
    assert "Gatehouse has stopped." in up.said
    assert processes(data_dir) == []

    again = Up(data_dir, up.port)
    try:
        said = again.wait_until_ready()
        assert not KEY.search(said)
        assert "password" not in said
        assert "create_key NAME --user admin" in said
        assert call_pasted(curl).status_code == 200
    finally:
        again.stop()


@pytest.mark.slow
def test_configuration_that_is_refused_ends_the_start_and_says_why(tmp_path: Path) -> None:
    up = Up(tmp_path / "data", free_port(), WEB_CONCURRENCY="2")
    assert up.process.wait(START_TIMEOUT_S) == 1
    assert "gatehouse.E001" in up.said


def test_port_in_use_is_said_before_anything_is_touched(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match="PORT=9000 make run"):
            call_command("up", port=str(taken.getsockname()[1]))


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_port_that_is_none_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(CommandError, match="must be a number between 1 and 65535"):
        call_command("up")


def test_address_of_another_machine_is_refused(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path
    with pytest.raises(CommandError, match=r"Cannot listen on 192\.0\.2\.1"):
        call_command("up", host="192.0.2.1", port=str(free_port()))


# --- the first start ------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_first_start_makes_an_admin_a_key_and_the_echo_model() -> None:
    first = prepare()
    assert first is not None
    assert Client().login(username="admin", password=first.password)
    key = ApiKey.objects.get()
    assert (key.name, key.user.username, key.public_id) == ("demo", "admin", keys.public_id(first.key))  # type: ignore[union-attr]
    assert Model.objects.get().name == "echo"
    assert ModelPrice.objects.get().output_nano_usd_per_mtok == 0
    assert first.key not in repr(first)


@pytest.mark.django_db
def test_later_start_makes_nothing() -> None:
    create_user("alice")
    assert prepare() is None
    assert [user.username for user in User.objects.all()] == ["alice"]
    assert not Model.objects.exists()


@pytest.mark.django_db
def test_echo_model_of_somebody_else_is_left_alone() -> None:
    Model.objects.create(name="echo", description="ours")
    assert prepare() is not None
    assert Model.objects.get().description == "ours"


# --- the admin's files ----------------------------------------------------------------------------------------------
@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> list[Sequence[str]]:
    """The commands that were called, none of which does anything."""
    settings.STATIC_ROOT = tmp_path
    called: list[Sequence[str]] = []
    monkeypatch.setattr(
        "gateway_project.management.commands.up.call_command", lambda *names, **options: called.append(names)
    )
    return called


def test_files_are_collected_only_when_one_is_new(collected: list[Sequence[str]], tmp_path: Path) -> None:
    assert collect_static() is True
    assert collect_static() is False
    (tmp_path / ".collected").write_text("of an older version")
    assert collect_static() is True
    assert collected == [("collectstatic",)] * 2
