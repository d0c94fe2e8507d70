"""A change of the configuration is noticed, with Redis or without, and what fails is tried again."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts import versions
from accounts.models import Team
from gateway_project.tests.services import wait_until
from proxy import watch as watch_module
from proxy.models import Provider
from proxy.watch import Watch

pytestmark = pytest.mark.django_db(transaction=True)

IDENTITY, CATALOGUE = versions.IDENTITY, versions.CATALOGUE


class Configuration:
    """What a web process has loaded: notes what it was told to reload, and fails as long as it is told to."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.confirmed = 0
        self.due = False
        self.broken: dict[str, Exception] = {}

    def watch(self) -> Watch:
        return Watch(
            {IDENTITY: lambda: self._apply(IDENTITY), CATALOGUE: lambda: self._apply(CATALOGUE)},
            on_confirmed=self._confirm,
            is_due=lambda: self.due,
        )

    def wait_for(self, part: str, times: int = 1) -> None:
        wait_until(lambda: self.applied.count(part) >= times, 5, f"{part} is reloaded")

    def wait_for_a_look(self) -> None:
        """Until something was looked at from its beginning to its end."""
        seen = self.confirmed
        wait_until(lambda: self.confirmed >= seen + 2, 5, "the watch has looked")

    def _apply(self, part: str) -> None:
        if part in self.broken:
            raise self.broken[part]
        self.applied.append(part)

    def _confirm(self) -> None:
        self.confirmed += 1


@pytest.fixture(autouse=True)
def without_redis(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REDIS_URL = ""
    monkeypatch.setattr(watch_module, "PERIOD_S", 0.02)


@pytest.fixture
def configuration() -> Configuration:
    return Configuration()


@pytest.fixture
def watched(configuration: Configuration) -> Iterator[Configuration]:
    """Loaded, and watched by a thread."""
    watch = configuration.watch()
    watch.load()
    configuration.applied.clear()
    watch.start()
    yield configuration
    watch.stop()


def test_everything_is_loaded_before_the_first_call(configuration: Configuration) -> None:
    configuration.watch().load()
    assert configuration.applied == [IDENTITY, CATALOGUE]
    assert configuration.confirmed == 1


def test_process_that_cannot_load_does_not_start(configuration: Configuration) -> None:
    configuration.broken[IDENTITY] = OperationalError("away")
    with pytest.raises(OperationalError):
        configuration.watch().load()


def test_saved_row_is_noticed(watched: Configuration) -> None:
    Provider.objects.create(name="here", kind="echo")
    watched.wait_for(CATALOGUE)
    watched.wait_for_a_look()
    assert watched.applied == [CATALOGUE]


def test_only_the_part_that_changed_is_reloaded(watched: Configuration) -> None:
    Team.objects.create(name="research")
    watched.wait_for(IDENTITY)
    watched.wait_for_a_look()
    assert set(watched.applied) == {IDENTITY}


def test_each_change_is_noticed(watched: Configuration) -> None:
    for times in range(1, 4):
        versions.bump(CATALOGUE)
        watched.wait_for(CATALOGUE, times)


def test_change_is_noticed_when_it_is_committed_and_not_before(watched: Configuration) -> None:
    with transaction.atomic():
        versions.bump(CATALOGUE)
        watched.wait_for_a_look()
        assert watched.applied == []
    watched.wait_for(CATALOGUE)


def test_change_that_is_rolled_back_never_was(watched: Configuration) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        versions.bump(CATALOGUE)
        raise RuntimeError
    watched.wait_for_a_look()
    assert watched.applied == []


def test_change_between_loading_and_watching_is_not_missed(configuration: Configuration) -> None:
    watch = configuration.watch()
    watch.load()
    versions.bump(CATALOGUE)
    watch.start()
    configuration.wait_for(CATALOGUE, 2)
    watch.stop()


def test_other_writes_reload_nothing(watched: Configuration) -> None:
    Team.objects.bulk_create([Team(name="research")])  # bulk writes send no signals: whoever makes them must bump
    watched.wait_for_a_look()
    assert watched.applied == []


def test_part_that_is_due_is_reloaded_without_a_change(watched: Configuration) -> None:
    watched.due = True
    watched.wait_for(CATALOGUE)
    watched.due = False
    assert IDENTITY not in watched.applied


def test_reload_that_fails_is_tried_again(watched: Configuration, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watched.broken[CATALOGUE] = ValueError("a bad row")
    versions.bump(CATALOGUE)
    wait_until(lambda: "the last good one stays" in caplog.text, 5, "it says so")
    confirmed = watched.confirmed
    time.sleep(0.1)
    assert watched.confirmed == confirmed, "it must not be called current"
    watched.broken.clear()
    watched.wait_for(CATALOGUE)
    wait_until(lambda: "is watched again" in caplog.text, 5, "it says so")
    assert caplog.text.count("the last good one stays") == 1


def test_outage_of_the_database_is_outlived(
    watched: Configuration, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(part: object = None) -> dict[str, int]:
        raise OperationalError("away")

    caplog.set_level(logging.INFO)
    with monkeypatch.context() as outage:
        outage.setattr(versions, "current", away)
        watched.due = True
        wait_until(lambda: "the database is away" in caplog.text, 5, "it says so")
        watched.due = False
        versions.bump(IDENTITY)
    watched.wait_for(IDENTITY)


def test_catalogue_that_cannot_be_loaded_keeps_no_revoked_key_alive(watched: Configuration) -> None:
    watched.broken[CATALOGUE] = ValueError("a bad row")
    versions.bump(CATALOGUE)
    versions.bump(IDENTITY)
    watched.wait_for(IDENTITY)


def test_watch_ends_when_it_is_told_to(configuration: Configuration) -> None:
    before = set(threading.enumerate())
    watch = configuration.watch()
    watch.load()
    watch.start()
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"config-watch"}
    watch.stop()
    assert set(threading.enumerate()) == before


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL has no such counter: there the rows are read")
def test_look_at_sqlite_reads_no_table_while_nothing_is_written(configuration: Configuration) -> None:
    watch = configuration.watch()
    watch.load()
    watch.look()
    with CaptureQueriesContext(connection) as seen:
        watch.look()
    assert [query["sql"] for query in seen] == ["PRAGMA data_version"]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite tells it without a query")
def test_look_at_postgresql_is_one_query(configuration: Configuration) -> None:
    watch = configuration.watch()
    watch.load()
    with CaptureQueriesContext(connection) as seen:
        watch.look()
    assert len(seen) == 1


# --- Redis only makes it faster --------------------------------------------------------------------------------------


def test_redis_wakes_the_watch(
    configuration: Configuration, redis_url: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    settings.REDIS_URL = redis_url
    monkeypatch.setattr(watch_module, "PERIOD_S", 30)
    monkeypatch.setattr(versions, "_published_at", {})
    watch = configuration.watch()
    watch.load()
    configuration.applied.clear()
    watch.start()
    with redis.Redis.from_url(redis_url) as client:
        wait_until(lambda: bool(client.pubsub_numsub(versions.CHANNEL)[0][1]), 5, "the watch listens")
    versions.bump(CATALOGUE)
    configuration.wait_for(CATALOGUE)
    watch.stop()


def test_redis_that_is_away_is_no_loss(
    configuration: Configuration, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    watch = configuration.watch()
    watch.load()
    configuration.applied.clear()
    watch.start()
    versions.bump(CATALOGUE)
    configuration.wait_for(CATALOGUE)
    watch.stop()


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif("GATEHOUSE_WATCH_SPECS" in os.environ, reason="it runs these specs, itself left out")
def test_all_this_holds_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "DATABASE_URL": postgres_url,
        "DATA_DIR": str(tmp_path),
        "GATEHOUSE_LOCAL": "true",
        "GATEHOUSE_WATCH_SPECS": "yes",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--create-db", "-p", "no:xdist", "-k", "not redis", __file__],
        cwd=django_settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
