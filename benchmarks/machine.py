"""Processes as Linux sees them: started on a core of their own; the CPU and memory that a whole tree of them uses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# The server has the first core to itself; load and upstream share the second.
SERVER_CORE, LOAD_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]


@contextmanager
def process(command: list[str], core: int, log: Path, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """A running process, its pid; gone afterwards with everything it started."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    pin(started.pid, core)
    try:
        yield started.pid
    finally:
        try:
            os.killpg(started.pid, signal.SIGTERM)
            started.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            started.kill()
            started.wait()


def run(command: list[str], core: int) -> str:
    """What a finished process printed. Raises RuntimeError with its stderr when it fails."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        pin(started.pid, core)
        output, errors = started.communicate()
    if started.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed:\n{errors[-2000:]}")
    return output


def pin(pid: int, core: int) -> None:
    """Every thread of the process and its children; what they start later stays there too."""
    for member in tree(pid):
        for thread in Path(f"/proc/{member}/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), {core})
            except ProcessLookupError:
                continue


def tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that the tree has used so far; children that have ended are included."""
    ticks = 0
    for member in tree(pid):
        if fields := _stat(member):
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_S


def settled_cpu_s(pid: int, timeout_s: float = 15) -> float:
    """`cpu_s` once the tree is idle, so that work put off until after the load (writing the books) is counted too."""
    deadline = time.monotonic() + timeout_s
    before = cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(0.15)
        now = cpu_s(pid)
        if now - before <= 0.01:
            return now
        before = now
    return before


def memory_mb(pid: int) -> float:
    """Resident memory of the tree, megabytes."""
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_048_576


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, timeout_s: float = 20) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, ppid, ... utime is [11]. Empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
