"""The services of the tests: ours when installed, else what the environment names, else skipped or failed."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from gateway_project.tests import services


def test_missing_service_skips_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="Redis is missing: install it"):
        services.missing("Redis", "install it")


def test_missing_service_fails_where_services_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="Redis is missing"):
        services.missing("Redis", "install it")


def test_named_server_is_used_where_the_program_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.shutil, "which", lambda name: None)
    monkeypatch.setattr(services, "POSTGRES_FOLDERS", ())
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://db.example/test")
    monkeypatch.setenv("TEST_REDIS_URL", "redis://redis.example")
    with services.postgres() as postgres, services.redis_server() as redis:
        assert (postgres.url, postgres.can_stop) == ("postgresql://db.example/test", False)
        assert (redis.url, redis.can_stop) == ("redis://redis.example", False)


def test_databases_are_separate_and_can_be_copied(postgres: services.PostgresServer) -> None:
    first = postgres.database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE mark (number int)")
    second, copy = postgres.database(), postgres.database(template=first)
    try:
        assert not _has_mark(second)
        assert _has_mark(copy)
    finally:
        for url in (first, second, copy):
            postgres.drop(url)


def test_database_can_be_carried_to_another_server(postgres: services.PostgresServer, tmp_path: Path) -> None:
    if not postgres.can_stop:
        services.missing("PostgreSQL", "only one of our own has the programs for it")
    first, second = postgres.database(), postgres.database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE mark (number int)")
    postgres.dump(first, tmp_path / "dump")
    postgres.load(second, tmp_path / "dump")
    assert _has_mark(second)


def test_redis_databases_are_handed_out_empty(redis: services.RedisServer) -> None:
    first, second = redis.database(), redis.database()
    assert first != second
    with redis_client.Redis.from_url(first) as client:
        client.set("mark", 1)
    with redis_client.Redis.from_url(second) as client:
        assert client.keys() == []


def test_redis_comes_back_from_an_outage_with_its_data() -> None:
    with services.redis_server() as server:
        if not server.can_stop:
            services.missing("redis-server", "only one of our own can be stopped")
        with redis_client.Redis.from_url(server.url) as client:
            client.set("mark", 1)
            server.stop()
            with pytest.raises(redis_client.ConnectionError):
                client.get("mark")
            server.start()
            assert client.get("mark") == b"1"


def test_postgres_comes_back_from_an_outage_with_its_data() -> None:
    with services.postgres() as server:
        if not server.can_stop:
            services.missing("PostgreSQL", "only one of our own can be stopped")
        url = server.database()
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE mark (number int)")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=1)
        server.start()
        assert _has_mark(url)


def test_node_finds_the_openai_package(node: services.Node, tmp_path: Path) -> None:
    script = tmp_path / "script.js"
    script.write_text("const OpenAI = require('openai'); console.log(typeof OpenAI, process.argv[2], process.env.X)")
    assert node.run(script, "a", env={"X": "b"}) == "function a b\n"


def _has_mark(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass('mark')").fetchone()
    return bool(row and row[0])
