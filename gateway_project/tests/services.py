"""What some tests need on the machine: PostgreSQL, Redis, Chromium, Node.js. Servers are throw-away ones of our own.

Where the program is installed a server is started on a free port and removed afterwards; else the one that
TEST_DATABASE_URL / TEST_REDIS_URL names is used; else the test is skipped, or with REQUIRE_SERVICES=1 fails.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

START_TIMEOUT_S = 60
POSTGRES_FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPENAI_NPM_VERSION = "7.55.0"
AXE_NPM_VERSION = "4.14.1"


def missing(what: str, how: str) -> NoReturn:
    """Skips the test and says how to have it run; with REQUIRE_SERVICES=1 fails it."""
    reason = f"{what} is missing: {how}"
    if os.environ.get("REQUIRE_SERVICES", "") in ("1", "true", "yes", "on"):
        pytest.fail(f"{reason} (REQUIRE_SERVICES is set)", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_true: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Asks every 20 ms. Raises TimeoutError that says `what` did not happen."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


class PostgresServer:
    """A PostgreSQL server that hands out databases. `can_stop`: it is ours, so a test may take it away for a while."""

    def __init__(self, url: str) -> None:
        """`url` leads to a database from which others can be made."""
        self.url = url
        self.can_stop = False
        self.pid: int | None = None  # where it is ours
        self._numbers = itertools.count(1)

    def database(self, template: str = "") -> str:
        """URL of a new database, empty or a copy of the one that the URL `template` names."""
        name = f"gatehouse_{os.getpid()}_{next(self._numbers)}"
        of = f' TEMPLATE "{_name(template)}"' if template else ""
        self._execute(f'CREATE DATABASE "{name}"{of}')
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def drop(self, url: str) -> None:
        """Also when somebody is still connected."""
        self._execute(f'DROP DATABASE IF EXISTS "{_name(url)}" WITH (FORCE)')

    def dump(self, url: str, path: Path) -> None:
        """Writes what `load` reads, where we have the programs for it; else no file is made."""

    def load(self, url: str, path: Path) -> None:
        """Fills an empty database with what `dump` wrote. Raises RuntimeError."""
        raise RuntimeError("nothing was dumped")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())


class OwnPostgres(PostgresServer):
    """Started here, on a free port, in a folder of its own. Durable for nobody: no fsync."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._account = _account()
        # Not pytest's folder: root's is closed to the account that PostgreSQL runs under.
        self._folder = Path(tempfile.mkdtemp(prefix="gatehouse-postgres-"))
        if self._account:
            os.chown(self._folder, pwd.getpwnam(self._account).pw_uid, -1)
        self._port = free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self._port}/postgres")
        self.can_stop = True
        folder = f"--pgdata={self._folder / 'data'}"
        self._run("initdb", folder, "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 200,
        }
        settings = itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in options.items())
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-p", str(self._port), *settings]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, user=self._account, group=self._account, cwd="/", stdout=log, stderr=subprocess.STDOUT
            )
        self.pid = self._process.pid
        wait_until(self._answers, START_TIMEOUT_S, "PostgreSQL accepts connections")

    def stop(self) -> None:
        """At once, with every connection cut, as in an outage. `start` brings it back with its data."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(START_TIMEOUT_S)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def dump(self, url: str, path: Path) -> None:
        path.write_bytes(self._run("pg_dump", url))

    def load(self, url: str, path: Path) -> None:
        self._run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url, script=path.read_bytes())

    def _run(self, program: str, *arguments: str, script: bytes = b"") -> bytes:
        """What it prints. Raises RuntimeError when it fails."""
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, user=self._account, group=self._account, cwd="/", input=script, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()}")
        return done.stdout

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def _account() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _postgres_programs() -> Path | None:
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    folders = [folder for pattern in POSTGRES_FOLDERS for folder in Path("/").glob(pattern[1:])]
    whole = [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]
    return (
        max(whole, key=lambda folder: [int(n) for n in folder.parent.name.split("@")[-1].split(".") if n.isdecimal()])
        if whole
        else None
    )


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    programs = _postgres_programs()
    if programs:
        server = OwnPostgres(programs)
        try:
            yield server
        finally:
            server.remove()
    elif url := os.environ.get("TEST_DATABASE_URL"):
        yield PostgresServer(url)
    else:
        missing("PostgreSQL", "install it, or set TEST_DATABASE_URL")


# --- Redis -----------------------------------------------------------------------------------------------------------


class RedisServer:
    """A Redis server that hands out numbered, empty databases. `can_stop`: it is ours."""

    def __init__(self, url: str, databases: int = 16) -> None:
        self.url = url.rstrip("/")
        self.can_stop = False
        self.pid: int | None = None  # where it is ours
        self._numbers = itertools.cycle(range(databases))

    def database(self) -> str:
        url = urlsplit(self.url)._replace(path=f"/{next(self._numbers)}").geturl()
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url


class OwnRedis(RedisServer):
    """Started here, on a free port. Keeps its data over `stop` and `start`, evicts nothing."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="gatehouse-redis-"))
        self._port = free_port()
        super().__init__(f"redis://127.0.0.1:{self._port}", databases=256)
        self.can_stop = True
        self.start()

    def start(self) -> None:
        options = {"bind": "127.0.0.1", "port": self._port, "dir": self._folder, "databases": 256, "save": ""}
        options |= {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        arguments = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items())
        self._process = subprocess.Popen([self._program, *arguments], stdout=subprocess.DEVNULL)
        self.pid = self._process.pid
        wait_until(self._answers, START_TIMEOUT_S, "Redis answers")

    def stop(self) -> None:
        """At once, as in an outage."""
        self._process.kill()
        self._process.wait(START_TIMEOUT_S)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_connect_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program:
        server = OwnRedis(program)
        try:
            yield server
        finally:
            server.remove()
    elif url := os.environ.get("TEST_REDIS_URL"):
        yield RedisServer(url)
    else:
        missing("Redis", "install redis-server, or set TEST_REDIS_URL")


class RedisCluster:
    """Three nodes on this machine, a third of the slots each, no replicas."""

    NODES = 3
    SLOTS = 16384

    def __init__(self, program: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gatehouse-cluster-"))
        self._ports = [free_port() for _ in range(self.NODES)]
        self._processes = [self._start(program, port) for port in self._ports]

    def join(self) -> None:
        wait_until(self._answers, START_TIMEOUT_S, "the nodes answer")
        for number, port in enumerate(self._ports):
            first, last = number * self.SLOTS // self.NODES, (number + 1) * self.SLOTS // self.NODES - 1
            self._ask(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
            self._ask(port, "CLUSTER", "MEET", "127.0.0.1", self._ports[0], self._bus_port(self._ports[0]))
        wait_until(self._is_whole, START_TIMEOUT_S, "the cluster is whole")

    def empty(self) -> str:
        """Its URL, with nothing in it."""
        for port in self._ports:
            self._ask(port, "FLUSHALL")
        return f"redis://127.0.0.1:{self._ports[0]}"

    def remove(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(START_TIMEOUT_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, program: str, port: int) -> subprocess.Popen[bytes]:
        folder = self._folder / str(port)
        folder.mkdir()
        options = {"bind": "127.0.0.1", "port": port, "cluster-port": self._bus_port(port), "dir": folder, "save": ""}
        options |= {"cluster-enabled": "yes", "cluster-node-timeout": 2000, "loglevel": "warning"}
        arguments = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items())
        return subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)

    def _bus_port(self, port: int) -> int:
        """Ports that are free are not next to each other, so the usual distance of 10,000 may be too far."""
        return self._bus_ports.setdefault(port, free_port())

    @functools.cached_property
    def _bus_ports(self) -> dict[int, int]:
        return {}

    def _answers(self) -> bool:
        try:
            return all(self._ask(port, "PING") for port in self._ports)
        except redis.RedisError:
            return False

    def _is_whole(self) -> bool:
        infos = [self._ask(port, "CLUSTER", "INFO").decode().split() for port in self._ports]
        return all({"cluster_state:ok", "cluster_known_nodes:3"} <= {*info} for info in infos)

    def _ask(self, port: int, *command: object) -> Any:
        with redis.Redis(port=port) as client:
            return client.execute_command(*command)


@contextmanager
def redis_cluster() -> Iterator[RedisCluster]:
    program = shutil.which("redis-server") or missing("redis-server", "install redis-server")
    cluster = RedisCluster(program)
    try:
        cluster.join()
        yield cluster
    finally:
        cluster.remove()


class Running:
    """Starts a server when it is first asked for; `stack` ends them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._postgres: PostgresServer | None = None
        self._redis: RedisServer | None = None
        self._redis_cluster: RedisCluster | None = None

    def postgres(self) -> PostgresServer:
        self._postgres = self._postgres or self._stack.enter_context(postgres())
        return self._postgres

    def redis(self) -> RedisServer:
        self._redis = self._redis or self._stack.enter_context(redis_server())
        return self._redis

    def redis_cluster(self) -> RedisCluster:
        self._redis_cluster = self._redis_cluster or self._stack.enter_context(redis_cluster())
        return self._redis_cluster


# --- programs --------------------------------------------------------------------------------------------------------


def chromium() -> str:
    """Path of the browser; CHROMIUM names another one than the first that is found."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    return found or missing("Chromium", "install chromium, or set CHROMIUM to its path")


def npm_package(name: str, version: str) -> Path:
    """The `node_modules` that it is in. Installed once, into a folder that is kept."""
    npm = shutil.which("npm") or missing("Node.js", "install node and npm")
    folder = Path(tempfile.gettempdir()) / f"gatehouse-{name}-npm-{version}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / name / "package.json").exists():
            command = [npm, "install", f"{name}@{version}", "--no-audit", "--no-fund", "--prefix", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
            if done.returncode:
                missing(f"the {name} npm package", f"npm could not install it: {done.stderr.strip()[-500:]}")
    return folder / "node_modules"


def axe() -> str:
    """axe-core, which looks for what keeps people out of a page: JavaScript, to be run in it."""
    return (npm_package("axe-core", AXE_NPM_VERSION) / "axe-core/axe.min.js").read_text()


class Node:
    """Runs JavaScript (CommonJS) with the `openai` npm package, installed once into a folder that is kept."""

    def __init__(self, program: str, modules: Path) -> None:
        self._program = program
        self._modules = modules

    @classmethod
    def find(cls) -> Self:
        program = shutil.which("node") or missing("Node.js", "install node and npm")
        return cls(program, npm_package("openai", OPENAI_NPM_VERSION))

    def run(self, script: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60) -> str:
        """What the script prints. Raises AssertionError with its stderr when it does not exit with 0."""
        command = [self._program, str(script), *arguments]
        environment = self._environment(env)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{script.name} failed:\n{done.stderr}"
        return done.stdout

    def start(self, script: Path, *, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """The script as a process to be talked to, a line at a time, through its stdin and stdout."""
        command = [self._program, str(script)]
        pipe, environment = subprocess.PIPE, self._environment(env)
        return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, encoding="utf-8", bufsize=1)

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "NODE_PATH": str(self._modules), **(env or {})}
