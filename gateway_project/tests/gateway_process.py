"""The gateway under test as real processes: its own port, data folder, database; started, killed and started again.

Backends: `sqlite` and `postgres` are one process (`python -m gateway_project.server`), `postgres+redis` is gunicorn
with two workers.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from gateway_project.tests.services import Running, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ("sqlite", "postgres", "postgres+redis")
READY_TIMEOUT_S = 90  # two seconds on a quiet machine
# Well-formed and useless anywhere else.
SECRETS = {
    "SECRET_KEY": "tests-secret-key-0123456789-abcdefghijklmnop",
    "KEY_PEPPERS": "tests-pepper-0123456789-ABCDEFGHIJKLMNOPQRS",
    "ENCRYPTION_KEYS": "tests-encryption-9876543210-qrstuvwxyzabcdef",
}
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class GatewayProcess:
    """`keys`: what tests call with, by name. `env`: settings on top of the backend's."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str = "",
        redis_url: str = "",
        workers: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.redis_url = redis_url
        self.workers = workers
        self.port = free_port()
        self.keys: dict[str, str] = {}
        self.settings = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        # There is no TLS here, and to read the certificates of the world takes longer than a call.
        self.http = httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=30)
        self.data_dir.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of the developer's own: no provider keys, no proxies, no settings."""
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment |= {**SECRETS, "DATA_DIR": str(self.data_dir), "HTTPS": "false", "PYTHONUNBUFFERED": "1"}
        for name, value in (("DATABASE_URL", self.database_url), ("REDIS_URL", self.redis_url)):
            if value:
                environment[name] = value
        return environment | self.settings

    # --- its processes ---

    @property
    def pid(self) -> int:
        """Of the process that was started: gunicorn's master, or the one web process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, wait: bool = True) -> None:
        """Raises RuntimeError with the end of its log when it does not become ready."""
        command = [sys.executable, "-m", "gateway_project.server", "--port", str(self.port)]
        if self.redis_url:
            command = [sys.executable, "-m", "gunicorn", "gateway_project.asgi:application", "-c", "gunicorn.conf.py"]
            command += ["-w", str(self.workers), "-b", f"127.0.0.1:{self.port}"]
        with self.log_path.open("ab") as log:
            # A session of its own, so that `kill` reaches every process of it and none of ours.
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        try:
            wait_until(self._ready_or_dead, timeout_s, "the gateway is ready")
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{self.log[-4000:]}") from None
        if not self.is_running:
            raise RuntimeError(f"the gateway ended instead of becoming ready\n{self.log[-4000:]}")

    def terminate(self, timeout_s: float = 30) -> int:
        """SIGTERM, and its exit code once it has ended. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        self._process.wait(10)

    def restart(self) -> None:
        self.terminate()
        self.start()

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def worker_pids(self) -> list[int]:
        """The processes that answer calls."""
        if not self.redis_url:
            return [self.pid]
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
        return [pid for pid, parent in rows if parent == self.pid]

    def memory_bytes(self) -> int:
        """Resident memory of the processes that answer calls."""
        pids = self.worker_pids()
        if Path("/proc/self/statm").exists():
            pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
            return pages * os.sysconf("SC_PAGE_SIZE")
        command = ["ps", "-o", "rss=", "-p", ",".join(map(str, pids))]
        return sum(map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())) * 1024

    def close(self) -> None:
        """Ends it, however it is, and forgets its data."""
        if self.is_running:
            self.kill()
        self.http.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def _ready_or_dead(self) -> bool:
        if not self.is_running:
            return True
        try:
            return self.http.get("/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    # --- its settings, its log ---

    def manage(self, *arguments: str, stdin: str = "") -> str:
        """`manage.py` with the gateway's settings; what it prints. Raises RuntimeError when it fails."""
        done = self.try_manage(*arguments, stdin=stdin)
        if done.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout

    def try_manage(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, input=stdin, capture_output=True, text=True, check=False
        )

    def apply(self, configuration: Mapping[str, Any]) -> str:
        """`manage.py apply`. JSON is YAML too."""
        return self.manage("apply", "-", stdin=json.dumps(configuration))

    @property
    def log_path(self) -> Path:
        return self.folder / "gateway.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_lines(self, request_id: str) -> list[dict[str, Any]]:
        """The log lines of one call, parsed."""
        lines = [json.loads(line) for line in self.log.splitlines() if request_id in line and line.startswith("{")]
        return [line for line in lines if line.get("request_id") == request_id]

    # --- its books ---

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Rows, read straight from the database."""
        if self.database_url:
            with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
                return connection.execute(statement.encode()).fetchall()
        path = self.data_dir / "gatehouse.sqlite3"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement)]

    def events(self) -> list[dict[str, Any]]:
        """The usage events so far, oldest first; `id` as a UUID, `tags` as a dict."""
        return [_tidy(row) for row in self.query("SELECT * FROM usage_usageevent ORDER BY id")]

    def event_count(self) -> int:
        count: int = self.query("SELECT count(*) AS n FROM usage_usageevent")[0]["n"]
        return count

    def wait_for_events(self, count: int, timeout_s: float = 30) -> list[dict[str, Any]]:
        """Exactly `count` events. Raises AssertionError when there are fewer after the time, or ever more."""
        deadline = time.monotonic() + timeout_s
        while (seen := self.event_count()) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seen == count, f"{seen} usage events, expected {count}"
        return self.events()

    def event_of(self, request_id: str, timeout_s: float = 15) -> dict[str, Any]:
        """The one usage event of a call. Raises AssertionError when there is none in time, or more than one."""
        assert "'" not in request_id
        statement = f"SELECT * FROM usage_usageevent WHERE request_id = '{request_id}'"
        deadline = time.monotonic() + timeout_s
        while not (found := self.query(statement)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(found) == 1, f"{len(found)} usage events of {request_id}"
        return _tidy(found[0])


def _tidy(row: dict[str, Any]) -> dict[str, Any]:
    tags = row["tags"]
    identifier = row["id"] if isinstance(row["id"], uuid.UUID) else uuid.UUID(row["id"])
    return {**row, "id": identifier, "tags": json.loads(tags) if isinstance(tags, str) else tags}


class Gateways:
    """Makes gateways. Migrates once for each kind of database, and copies that for every further gateway, as it copies
    what `apply` made of a configuration that was given before."""

    def __init__(self, folder: Path, services: Running, shared: Path | None = None) -> None:
        """`shared`: a folder where what was migrated is found by those who make gateways in other processes."""
        self._folder = folder
        self._services = services
        self._shared = shared or folder
        self._shared.mkdir(parents=True, exist_ok=True)
        self._postgres_template = ""
        # By whether it is SQLite and by configuration; to be copied: path of a file, or URL of a PostgreSQL database.
        self._applied: dict[tuple[bool, str], str] = {}
        self._made = 0

    @contextmanager
    def make(
        self,
        backend: str,
        configuration: Mapping[str, Any],
        keys: Mapping[str, str],
        workers: int = 2,
        commands: Sequence[Sequence[str]] = (),
        **settings: str,
    ) -> Iterator[GatewayProcess]:
        """A gateway that is set up and ready; gone afterwards. `settings`: environment variables of its own.

        `workers` count where there is Redis only: without it there is one. `commands` of manage.py run before it all
        starts.
        """
        self._made += 1
        # What `apply` writes depends on nothing but the configuration, unless a gateway has secrets of its own.
        own = {"KEY_PEPPERS", "ENCRYPTION_KEYS", "SECRET_KEY"} & settings.keys()
        known = (backend == "sqlite", json.dumps(configuration, sort_keys=True))
        applied = "" if own else self._applied.get(known, "")
        gateway = self._with_database(backend, self._folder / f"gateway-{self._made}", workers, settings, applied)
        try:
            gateway.keys.update(keys)
            if not applied:
                gateway.apply(configuration)
                if not own:
                    self._applied[known] = self._kept(gateway)
            for command in commands:
                gateway.manage(*command)
            gateway.start()
            yield gateway
        finally:
            gateway.close()
            if gateway.database_url:
                self._services.postgres().drop(gateway.database_url)

    def _kept(self, gateway: GatewayProcess) -> str:
        """A copy of its database. No process of it may run."""
        if gateway.database_url:
            return self._services.postgres().database(template=gateway.database_url)
        kept = self._folder / f"applied-{len(self._applied)}.sqlite3"
        shutil.copy(_checkpointed(gateway), kept)
        return str(kept)

    def _with_database(
        self, backend: str, folder: Path, workers: int, settings: Mapping[str, str], template: str
    ) -> GatewayProcess:
        """`template`: what its database is a copy of; "": one that is only migrated."""
        if backend == "sqlite":
            gateway = GatewayProcess(folder, env=settings)
            shutil.copy(template or self._migrated_sqlite(), gateway.data_dir / "gatehouse.sqlite3")
            return gateway
        redis_url = self._services.redis().database() if backend == "postgres+redis" else ""
        database_url = self._services.postgres().database(template=template or self._migrated_postgres())
        if backend == "postgres":
            return GatewayProcess(folder, database_url=database_url, env=settings)
        return GatewayProcess(folder, database_url=database_url, redis_url=redis_url, workers=workers, env=settings)

    def _migrated_sqlite(self) -> str:
        kept = self._shared / "migrated.sqlite3"
        with _made_once(kept) as is_made:
            if not is_made:
                template = GatewayProcess(self._folder / "template-sqlite")
                self._migrate(template)
                shutil.copy(_checkpointed(template), kept)
        return str(kept)

    def _migrated_postgres(self) -> str:
        """On this process's own server: others have what was migrated as a dump."""
        if not self._postgres_template:
            server = self._services.postgres()
            url = server.database()
            kept = self._shared / "migrated.sql"
            with _made_once(kept) as is_made:
                if is_made:
                    server.load(url, kept)
                else:
                    self._migrate(GatewayProcess(self._folder / "template-postgres", database_url=url))
                    server.dump(url, kept)
            self._postgres_template = url
        return self._postgres_template

    @staticmethod
    def _migrate(template: GatewayProcess) -> None:
        template.manage("migrate", "--verbosity", "0")
        template.http.close()


@contextmanager
def _made_once(path: Path) -> Iterator[bool]:
    """Is it there? Whoever asks first makes it, and whoever asks meanwhile waits."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path.exists()


def _checkpointed(gateway: GatewayProcess) -> Path:
    """Its SQLite file, which holds everything now: nothing is in a second one beside it."""
    path = gateway.data_dir / "gatehouse.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path
