"""`make soak`: a gateway under steady load while its workers, its database and its Redis die. Then books are compared.

PostgreSQL and Redis, two workers, the upstream of the tests, whose own books are the measure: each call carries its
request id as `user`, so that both sides name it alike. What must be true afterwards is in `benchmarks.soak_books`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from accounts.keys import make_key, make_public_id
from benchmarks import soak_books
from benchmarks.soak_load import SPENDS_SHARE, Kind, Load
from gateway_project.tests import cast, services
from gateway_project.tests.clients import body, call, credentials
from gateway_project.tests.gateway_process import GatewayProcess, Gateways
from gateway_project.tests.services import OwnPostgres, OwnRedis, wait_until
from gateway_project.tests.upstream import Upstream

KEEP_CALLS = 2_000_000
CENTS_5 = 50_000_000  # nano-USD: what a call of `dear` costs
AT_ONCE_AT_THE_END = 20
DROPPED = 100
FLAT = 1.25
SAMPLE_S = 2.0
REPLACED_WITHIN_S = 60
LOG_SHOWN = 6000
IDLE_S = 5
CALLS_COUNTED = 100
# A gateway's own: everything that it asks of a ledger is a script.
SENT = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


@dataclass(slots=True)
class Soak:
    """What goes on. `events`: (seconds since the start, what happened); `memory`: (seconds, bytes of all workers)."""

    gateway: GatewayProcess
    upstream: Upstream
    load: Load
    budget_calls: int
    began: float = field(default_factory=time.monotonic)
    deaths: int = 0
    events: list[tuple[float, str]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def say(self, text: str) -> None:
        at = time.monotonic() - self.began
        self.events.append((at, text))
        print(f"{at:6.1f} s  {text}", file=sys.stderr, flush=True)


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-soak-")))
        running = services.Running(stack)
        postgres, redis = running.postgres(), running.redis()
        if not isinstance(postgres, OwnPostgres) or not isinstance(redis, OwnRedis):
            print("The soak stops PostgreSQL and Redis: it needs servers of its own.", file=sys.stderr)
            return 1
        upstream = stack.enter_context(Upstream(keep=KEEP_CALLS))
        keys = {**cast.KEYS, **{name: make_key(make_public_id()) for name in ("ample", "small")}}
        gateways = Gateways(folder, running)
        # Half of those that will be asked for.
        budget_calls = int(options.rate * options.minutes * 60 * SPENDS_SHARE / 2)
        make = gateways.make("postgres+redis", configuration(upstream, keys, budget_calls), keys, workers=2)
        soak = Soak(stack.enter_context(make), upstream, Load(options.rate), budget_calls)
        try:
            soak_for(soak, postgres, redis, options.minutes * 60, options.outage)
            differences = judge(soak)
            soak.load.facts += redis_commands(soak, redis)
        except Exception:
            print(soak.gateway.log[-LOG_SHOWN:], file=sys.stderr)
            raise
        report(soak, differences)
    return 1 if differences else 0


def configuration(upstream: Upstream, keys: dict[str, str], budget_calls: int) -> dict[str, Any]:
    """The cast's, and two keys with budgets: one that is never reached, one that is spent in the middle of it all.

    A call of `dear` says five words, and each costs a cent."""
    given = cast.configuration(upstream, services.free_port(), services.free_port())

    def model(name: str, upstream_model: str) -> dict[str, Any]:
        route = {"provider": "patient", "upstream_model": upstream_model}
        return {"name": name, "routes": [route], "input_usd_per_mtok": 0, "output_usd_per_mtok": 10_000}

    def key(name: str, usd: float) -> dict[str, Any]:
        budgets = [{"usd": usd, "per": "total"}, {"usd": 10**6, "per": "month", "timezone": "Europe/Berlin"}]
        rates = {"requests_per_minute": 1_000_000, "max_parallel": 1000}
        return {"name": name, "user": "alice", "team": "research", "secret": keys[name], "budgets": budgets, **rates}

    slow = [model("dear", "gpt-test"), model("slow", "gpt-test:ok?delay_ms=60")]
    small = budget_calls * CENTS_5 / 10**9
    return {
        **given,
        "models": given["models"] + slow,
        "keys": [*given["keys"], key("ample", 10**6), key("small", small)],
    }


# --- what happens -----------------------------------------------------------------------------------------------------
def soak_for(soak: Soak, postgres: OwnPostgres, redis: OwnRedis, seconds: float, outage_s: float) -> None:
    """Load all the time, the faults one after the other in a fixed order."""

    def at(share: float) -> None:
        time.sleep(max(0.0, soak.began + share * seconds - time.monotonic()))

    with under_load(soak):
        at(0.10)
        kill_a_worker(soak)
        at(0.20)
        with _outage(soak, "PostgreSQL", postgres, outage_s):
            time.sleep(outage_s * 2 / 3)
            victim = kill_one(soak)  # and nobody can take its place before the database is back
            time.sleep(outage_s / 3)
        wait_until(lambda: _is_replaced(soak.gateway, victim), REPLACED_WITHIN_S, "there is a new worker")
        at(0.45)
        with _outage(soak, "Redis", redis, outage_s):
            time.sleep(outage_s)
        at(0.70)
        drop_streams(soak)
        at(0.80)
        kill_a_worker(soak)
        at(1.0)
    soak.say("the load has ended")


@contextmanager
def under_load(soak: Soak) -> Iterator[None]:
    """Calls go on, and memory is looked at, inside the block."""
    stop = threading.Event()

    def watch_memory() -> None:
        while not stop.wait(SAMPLE_S):
            try:
                soak.memory.append((time.monotonic() - soak.began, soak.gateway.memory_bytes()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # a worker has just died

    def make_calls() -> None:
        asyncio.run(soak.load.run(soak.gateway, lambda: not stop.is_set()))

    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(make_calls), threads.submit(watch_memory)]
        try:
            yield
        finally:
            stop.set()
        for job in jobs:
            job.result()


def kill_a_worker(soak: Soak) -> None:
    victim = kill_one(soak)
    with soak.load.phase("a worker dies"):
        wait_until(lambda: _is_replaced(soak.gateway, victim), REPLACED_WITHIN_S, "there is a new worker")
        time.sleep(2)


def kill_one(soak: Soak) -> int:
    """The pid of the worker that is no more."""
    victim = soak.gateway.worker_pids()[0]
    with soak.load.phase("a worker dies"):
        os.kill(victim, signal.SIGKILL)
        soak.deaths += 1
        soak.say(f"worker {victim} is killed")
        time.sleep(1)
    return victim


def _is_replaced(gateway: GatewayProcess, victim: int) -> bool:
    """Its successor takes calls, not only that it has begun to start."""
    pids, log = gateway.worker_pids(), gateway.log
    is_up = all(f"[{pid}] [INFO] Application startup complete" in log for pid in pids)
    return len(pids) == 2 and victim not in pids and is_up


@contextmanager
def _outage(soak: Soak, name: str, server: OwnPostgres | OwnRedis, seconds: float) -> Iterator[None]:
    with soak.load.phase(f"without {name}"):
        server.stop()
        soak.say(f"{name} is stopped, for {seconds:g} s")
        try:
            yield
        finally:
            server.start()
            soak.say(f"{name} is back")
    with soak.load.phase(f"{name} is back"):
        time.sleep(5)


def drop_streams(soak: Soak) -> None:
    """A hundred at once, each left after its first word."""
    with soak.load.phase("streams are dropped"):
        dropped = asyncio.run(soak.load.drop(soak.gateway, DROPPED))
        soak.say(f"{dropped} streams are dropped half-way")


# --- afterwards -------------------------------------------------------------------------------------------------------
def judge(soak: Soak) -> list[str]:
    """What is not as it must be. The budgets are tried first, so that these calls are compared too."""
    differences = budget_differences(soak)
    soak.upstream.wait_until_idle(30)
    heard = soak_books.heard_by(soak.upstream)
    events = soak_books.wait_for_books(soak.gateway, heard, soak.load, timeout_s=90)
    differences += soak_books.differences(heard, events, soak.load)
    spent = sum(event["cost_nano_usd"] or 0 for event in events if event["key_label"].startswith("small ("))
    most = (soak.budget_calls + 1) * CENTS_5
    if spent > most:
        differences.append(f"the small budget is exceeded: {spent} of {most} nano-USD")
    differences += soak_books.unexpected(soak.load)
    return differences + memory_differences(soak.memory)


def budget_differences(soak: Soak) -> list[str]:
    """Spends what is left of the small budget. Then it is topped up by one call, which exactly one of many gets: there
    is no hold that nobody has."""
    try:
        for _ in range(2):  # what was held by a worker that was killed comes back a little later
            wait_until(lambda: ask_small(soak) == 429, 120, "the small budget is spent")
            time.sleep(2)
    except TimeoutError as error:
        return [str(error)]
    soak.gateway.manage("shell", "-v", "0", "-c", TOP_UP)
    deadline, taken = time.monotonic() + 20, 0
    with ThreadPoolExecutor(AT_ONCE_AT_THE_END) as threads:
        while time.monotonic() < deadline and taken == 0:
            time.sleep(0.5)
            taken += [*threads.map(lambda _: ask_small(soak), range(AT_ONCE_AT_THE_END))].count(200)
        time.sleep(1)
        taken += [*threads.map(lambda _: ask_small(soak), range(AT_ONCE_AT_THE_END))].count(200)
    soak.say(f"{taken} call made on a spent budget that was topped up by one")
    return [] if taken == 1 else [f"a budget topped up by one call's cost took {taken} calls"]


TOP_UP = f"""
from usage.budgets import top_up
from usage.models import Budget
top_up(Budget.objects.get(key__name="small", per="total"), {CENTS_5}, "soak", None)
"""


def ask_small(soak: Soak) -> int:
    """The status, counted with the load."""
    headers = credentials(soak.gateway, "small")
    request_id = headers["x-request-id"]
    request = body("dear", max_tokens=5, user=request_id)
    response = soak.gateway.http.post("/v1/chat/completions", json=request, headers=headers)
    soak.load.note(request_id, Kind.SPENDS, response.status_code, response.content)
    return response.status_code


def redis_commands(soak: Soak, redis: OwnRedis) -> Iterator[str]:
    """What a call asks of Redis, above what goes on all the time: lines for the report."""
    idle_per_s = _commands(redis, lambda: time.sleep(IDLE_S)) / IDLE_S
    for key, words in (("alice", "without a budget"), ("ample", "with two budgets and two rate limits")):

        def ask(key: str = key) -> None:
            for _ in range(CALLS_COUNTED):
                call(soak.gateway, "dear", key=key, max_tokens=5)
            time.sleep(1)

        began = time.monotonic()
        commands = _commands(redis, ask)
        per_call = max(0.0, commands - idle_per_s * (time.monotonic() - began)) / CALLS_COUNTED
        yield f"{per_call:.1f} commands of Redis a call of a key {words}"


def _commands(redis: OwnRedis, meanwhile: Callable[[], None]) -> int:
    """How many clients have sent; not what scripts do inside."""

    def count() -> int:
        with Redis.from_url(redis.url) as client:
            found = client.info("commandstats")
        return sum(found[name]["calls"] for name in SENT if name in found)

    before = count()
    meanwhile()
    return count() - before


def memory_differences(samples: list[tuple[float, int]]) -> list[str]:
    """The last fifth against the second one: by then every path has been taken."""
    fifth = len(samples) // 5
    if fifth < 3:
        return []
    before = statistics.median(size for _, size in samples[fifth : 2 * fifth])
    after = statistics.median(size for _, size in samples[-fifth:])
    if after <= FLAT * before:
        return []
    return [f"memory is not flat: {before / 2**20:.0f} MiB, then {after / 2**20:.0f} MiB"]


def report(soak: Soak, differences: list[str]) -> None:
    print("\n".join(_lines(soak)))
    print("\nNo difference." if not differences else f"\n{len(differences)} differences:")
    print("\n".join(f"- {line}" for line in differences), flush=True)


def _lines(soak: Soak) -> Iterator[str]:
    load = soak.load
    yield "| phase | answered | refused | other | unanswered |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for phase in load.phases:
        counts = load.counts[phase]
        good = counts[200]
        refused = sum(count for status, count in counts.items() if 400 <= status < 500)
        other = sum(count for status, count in counts.items() if status >= 500)
        yield f"| {phase} | {good:,} | {refused:,} | {other:,} | {counts[0]:,} |"
    sizes = [size / 2**20 for _, size in soak.memory]
    yield ""
    heard = f"{soak.upstream.received:,} heard by the upstream"
    yield f"- {len(load.asked):,} calls asked, {heard}, {soak.deaths} workers killed"
    if sizes:
        yield f"- memory of both workers: {min(sizes):.0f} to {max(sizes):.0f} MiB, at the end {sizes[-1]:.0f} MiB"
    yield from (f"- {line}" for line in load.facts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make soak ARGS=...",
        description="Steady load while workers, PostgreSQL and Redis die; compares the books.",
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--outage", type=float, default=60, help="for how many seconds each server is stopped (60)")
    parser.add_argument("--rate", type=float, default=40, help="calls a second (40)")
    options = parser.parse_args()
    if options.outage > options.minutes * 60 / 5:
        parser.error("the outages are too long for the time: at most a fifth of it each")
    return options


if __name__ == "__main__":
    sys.exit(main())
