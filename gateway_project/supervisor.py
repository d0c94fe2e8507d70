"""Runs a few processes as one: starts them, restarts one that died, ends all together. Behind `manage.py up`.

Each child leads a session of its own, so that a Ctrl-C at the terminal reaches the supervisor only, and what a child
leaves behind ends with it. On Linux the kernel ends the children when the supervisor is killed outright.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

PR_SET_PDEATHSIG = 1
TICK_S = 0.05
FIRST_BACK_OFF_S = 0.5
MAX_BACK_OFF_S = 30.0
SETTLED_S = 60.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ChildFailed(Exception):
    """An essential child ended before all was ready."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with code {code}")
        self.name = name
        self.code = code


@dataclass(slots=True)
class Child:
    """`essential`: what readiness depends on. It is started first and alone, so that the others' start does not slow it
    down, and if it ends before all is ready, the start has failed: trying again would end the same way."""

    name: str
    command: Sequence[str]
    essential: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    back_off_s: float = FIRST_BACK_OFF_S


@dataclass(slots=True)
class Supervisor:
    """`say` is told what happens, in words for the operator. `graceful_s`: how long children may take to end."""

    children: list[Child]
    graceful_s: float
    say: Callable[[str], None]
    is_ready: bool = False
    _stopping: bool = False
    _handlers: dict[int, object] = field(default_factory=dict)

    def run(self, look: Callable[[], bool], when_ready: Callable[[], None]) -> None:
        """Blocks until a stop signal. `look` is asked until it says that all is ready; then `when_ready` runs once.

        Raises ChildFailed when an essential child ends before that. No child is left when this returns or raises.
        """
        self._catch_signals()
        try:
            while not self._stopping:
                self._tend()
                if not self.is_ready and look():
                    self.is_ready = True
                    when_ready()
                time.sleep(TICK_S)
        finally:
            self._end_all()
            self._release_signals()

    def _start(self, child: Child) -> None:
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(  # noqa: S603 - the command is ours
            child.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_in_child(os.getpid())
        )

    def _tend(self) -> None:
        """Start what is due; what died is due again after a while, ever longer until it stays."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                if now >= child.restart_at and (child.essential or self.is_ready):
                    self._start(child)
                continue
            code = child.process.poll()
            if code is None:
                continue
            _signal_group(child.process, signal.SIGKILL)
            child.process = None
            if child.essential and not self.is_ready:
                raise ChildFailed(child.name, code)
            if now - child.started_at > SETTLED_S:
                child.back_off_s = FIRST_BACK_OFF_S
            self.say(f"{child.name} ended with code {code}; starting it again in {child.back_off_s:g} s")
            child.restart_at = now + child.back_off_s
            child.back_off_s = min(child.back_off_s * 2, MAX_BACK_OFF_S)

    def _end_all(self) -> None:
        """SIGTERM to every child, then wait; SIGKILL to every group when the time is up."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + self.graceful_s
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"process {process.pid} did not end in {self.graceful_s:g} s: ending it by force")
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def _catch_signals(self) -> None:
        for number in STOP_SIGNALS:
            self._handlers[number] = signal.signal(number, self._stop)

    def _release_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """The first signal ends the children in order, a second one at once."""
        if self._stopping:
            for child in self.children:
                if child.process is not None and child.process.returncode is None:
                    _signal_group(child.process, signal.SIGKILL)
        self._stopping = True


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """To the child's whole group: what it started itself must not outlive it."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        # PermissionError: macOS, for a group of which only the dead leader is left.
        return


def _in_child(supervisor: int) -> Callable[[], None] | None:
    """What a child does between fork and exec: ask the kernel to be ended with its parent."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: between fork and exec nothing may be imported

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before we asked
            os._exit(1)

    return ask


def end_with_parent() -> None:
    """Asks the kernel to end this process when its parent ends, however that happens. Linux only; elsewhere nothing."""
    parent = os.getppid()
    if (ask := _in_child(parent)) is not None:
        ask()
