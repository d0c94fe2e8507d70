"""`make bench`: the table of this machine. README.md says how to read it."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks import checks, load, machine, measure, nginx, report, subjects
from gateway_project.tests import services
from gateway_project.tests.gateway_process import Gateways

BARE = "bare ASGI + aiohttp relay"
PLAIN = "Gatehouse, plain"
EVERYTHING = "Gatehouse, everything on"
ONE_WORKER = "Gatehouse, everything on, Redis, one worker"
TWO_WORKERS = "Gatehouse, everything on, Redis, two workers"
TARGETS = {PLAIN: report.PLAIN, EVERYTHING: report.EVERYTHING, ONE_WORKER: report.EVERYTHING_REDIS}


def main() -> int:
    options = _options()
    if not Path("/proc/self/stat").exists():
        print("The benchmark reads CPU time from /proc: it needs Linux.", file=sys.stderr)
        return 1
    # So that what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    result = report.Report()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-bench-")))
        try:
            _Bench(options, folder, stack, result).run()
        except measure.Failed as error:
            print(f"Nothing to compare: {error}", file=sys.stderr)
            return 1
    print("\n".join(result.lines))
    print(f"\n{result.summary()} ({time.monotonic() - began:.0f} s)")
    return 1 if options.check and result.missed else 0


class _Bench:
    """One run: what is asked for is started, measured in turns, written down."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack, result: report.Report) -> None:
        self.options = options
        self.folder = folder
        self.stack = stack
        self.result = result
        self.services = services.Running(stack)
        self.gateways = Gateways(folder / "gateways", self.services)
        self.upstream = stack.enter_context(subjects.mock(folder, options.mock_port if options.peer else None))

    def run(self) -> None:
        """Raises measure.Failed."""
        self._say_conditions()
        if not self.options.only_checks:
            self._speed()
        self.result.checks(checks.costs(), checks.AT_MOST_US)
        if self.options.memory:
            self._memory()

    def _say_conditions(self) -> None:
        whole = "nginx" if self.upstream.whole != self.upstream.streamed else "our own"
        driver = "wrk" if load.program() else "our own driver"
        pinned = f"servers on core {machine.SERVER_CORE}, load and upstream on core {machine.LOAD_CORE}"
        self.result.say(f"Upstream: {whole}; load: {driver}; {pinned}; {self.options.rounds} rounds.\n")

    def _speed(self) -> None:
        running = list(self._running())
        streams = not self.options.no_streams
        figures = measure.in_turns(self.folder, running, self.options.rounds, self.options.seconds, streams)
        by_name = {its.name: its for its in figures}
        self.result.speed(figures, by_name[BARE], TARGETS)
        if TWO_WORKERS in by_name:
            self.result.workers(by_name[ONE_WORKER], by_name[TWO_WORKERS])

    def _running(self) -> Iterator[subjects.Subject]:
        enter = self.stack.enter_context
        if nginx.program():
            yield enter(subjects.nginx_relay(self.folder, self.upstream))
        yield enter(subjects.bare_relay(self.folder, self.upstream))
        yield enter(subjects.gatehouse(PLAIN, self.gateways, self.upstream))
        yield enter(subjects.gatehouse(EVERYTHING, self.gateways, self.upstream, rich=True))
        if self.options.redis:
            yield from self._with_redis()
        if self.options.peer:
            yield subjects.peer(self.options.peer, self.options.key, self.options.model, self.options.pid)

    def _with_redis(self) -> Iterator[subjects.Subject]:
        try:
            beside = {"Redis": self.services.redis().pid, "PostgreSQL": self.services.postgres().pid}
        except pytest.skip.Exception as error:
            self.result.say(f"Not measured with Redis: {error}\n")
            return
        for pid in filter(None, beside.values()):
            machine.pin(pid, machine.LOAD_CORE)
        for name, workers in ((ONE_WORKER, 1), (TWO_WORKERS, 2)):
            gatehouse = subjects.gatehouse(
                name, self.gateways, self.upstream, rich=True, backend="postgres+redis", workers=workers, beside=beside
            )
            yield self.stack.enter_context(gatehouse)

    def _memory(self) -> None:
        """Of a gateway that has not answered anything yet."""
        with subjects.gatehouse(PLAIN, self.gateways, self.upstream) as fresh:
            few_mb, many_mb = measure.memory_growth(self.folder, fresh)
        self.result.memory(PLAIN, few_mb, many_mb)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description="Measures Gatehouse on this machine.")
    parser.add_argument("--rounds", type=int, default=4, help="how often each is measured, in turns (4)")
    parser.add_argument("--seconds", type=int, default=1, help="how long each is asked in a round (1)")
    parser.add_argument("--no-streams", action="store_true", help="leave the streams out")
    parser.add_argument("--only-checks", action="store_true", help="only what each check of a policy costs")
    parser.add_argument("--redis", action="store_true", help="also two workers against one, with Redis and PostgreSQL")
    parser.add_argument("--memory", action="store_true", help="also memory after 1,000 and after 100,000 requests")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    other = parser.add_argument_group("another gateway that is running on this machine, measured the same way")
    other.add_argument("--peer", metavar="URL", help="its base URL, such as http://127.0.0.1:4000/v1")
    other.add_argument("--key", default="none", help="the API key it wants")
    other.add_argument("--model", default="bench", help="a model that it sends to the mock upstream")
    other.add_argument("--pid", type=int, help="its process, for its CPU")
    other.add_argument("--mock-port", type=int, default=9190, help="where the mock upstream waits for it (9190)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
