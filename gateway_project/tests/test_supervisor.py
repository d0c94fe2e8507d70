"""Several processes as one: together they start, together they end, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_project.tests.services import wait_until

# A supervisor of children that are given as Python source on its command line. `!` in front: essential.
PROGRAM = textwrap.dedent(
    """
    import sys
    from gateway_project.supervisor import Child, ChildFailed, Supervisor

    folder, grace, *sources = sys.argv[1:]
    children = [
        Child(f"child {n}", [sys.executable, "-c", source.lstrip("!"), folder], essential=source[0] == "!")
        for n, source in enumerate(sources)
    ]
    say = lambda text: print(text, flush=True)
    try:
        Supervisor(children, float(grace), say).run(lambda: True, lambda: say("ready"))
    except ChildFailed as error:
        say(f"failed: {error}")
        sys.exit(1)
    """
)
NOTE = "import os, pathlib, sys, time; (pathlib.Path(sys.argv[1]) / str(os.getpid())).touch(); "
LASTING = NOTE + "time.sleep(300)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + LASTING
PARENT = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {LASTING!r}, sys.argv[1]]); time.sleep(300)"
)


class Supervised:
    """A running supervisor and the pids of what it started, which note themselves in a folder."""

    def __init__(self, folder: Path, *sources: str, grace_s: float = 5) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(grace_s), *sources], stdout=subprocess.PIPE, text=True
        )

    def pids(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.iterdir())

    def wait_for(self, count: int) -> list[int]:
        wait_until(lambda: len(self.pids()) >= count, 10, f"{count} processes have started")
        return self.pids()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and all it said."""
        self.process.send_signal(number)
        said, _ = self.process.communicate(timeout=20)
        return self.process.returncode, said


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie is dead, only not yet buried by whoever adopted it.
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def check_all_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 5, f"{pids} are gone")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.iterdir():
        if is_alive(int(path.name)):
            os.kill(int(path.name), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_signal_ends_every_child(folder: Path, number: int) -> None:
    supervised = Supervised(folder, LASTING, LASTING)
    pids = supervised.wait_for(2)
    assert supervised.end(number) == (0, "ready\n")
    check_all_gone(pids)


def test_child_that_died_is_started_again(folder: Path) -> None:
    supervised = Supervised(folder, LASTING)
    (first,) = supervised.wait_for(1)
    os.kill(first, signal.SIGKILL)
    supervised.wait_for(2)
    _, said = supervised.end()
    assert "child 0 ended with code -9; starting it again in 0.5 s" in said


def test_child_that_keeps_dying_is_started_ever_more_slowly(folder: Path) -> None:
    supervised = Supervised(folder, NOTE)
    supervised.wait_for(2)
    wait_until(lambda: len(supervised.pids()) >= 2, 5, "second try")
    time.sleep(0.2)
    _, said = supervised.end()
    assert "in 0.5 s" in said
    assert "in 1 s" in said


def test_essential_child_that_ends_before_all_is_ready_fails_the_start(folder: Path) -> None:
    program = PROGRAM.replace("lambda: True", "lambda: False")
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), "5", "!raise SystemExit(3)", LASTING],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "failed: child 0 ended with code 3\n")
    assert list(folder.iterdir()) == []  # the other one was not even started


def test_child_that_does_not_listen_is_ended_by_force(folder: Path) -> None:
    supervised = Supervised(folder, DEAF, grace_s=0.3)
    pids = supervised.wait_for(1)
    code, said = supervised.end()
    assert code == 0
    assert "did not end in 0.3 s" in said
    check_all_gone(pids)


def test_second_signal_ends_at_once(folder: Path) -> None:
    supervised = Supervised(folder, DEAF, grace_s=60)
    pids = supervised.wait_for(1)
    supervised.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    started = time.monotonic()
    assert supervised.end(signal.SIGINT)[0] == 0
    assert time.monotonic() - started < 3
    check_all_gone(pids)


def test_what_a_child_started_itself_ends_with_it(folder: Path) -> None:
    supervised = Supervised(folder, PARENT)
    pids = supervised.wait_for(1)
    supervised.end()
    check_all_gone(pids)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")
def test_killed_supervisor_leaves_no_orphan(folder: Path) -> None:
    supervised = Supervised(folder, LASTING, LASTING)
    pids = supervised.wait_for(2)
    supervised.end(signal.SIGKILL)
    check_all_gone(pids)
