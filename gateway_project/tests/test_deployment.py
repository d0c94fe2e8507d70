"""The image and the compose file: what they promise, read from them, since building one takes an engine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway_project.tests.gateway_process import ROOT

SECRETS = {"SECRET_KEY", "KEY_PEPPERS", "ENCRYPTION_KEYS", "POSTGRES_PASSWORD"}


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """(instruction, its words) in order, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def words_of(dockerfile: list[tuple[str, str]], instruction: str) -> list[str]:
    return [words for name, words in dockerfile if name == instruction]


def test_image_does_not_run_as_root(dockerfile: list[tuple[str, str]]) -> None:
    assert words_of(dockerfile, "USER") == ["10001:10001"]
    last_change = max(n for n, (name, _) in enumerate(dockerfile) if name in ("RUN", "COPY"))
    assert dockerfile.index(("USER", "10001:10001")) > last_change


def test_image_holds_no_secret(dockerfile: list[tuple[str, str]]) -> None:
    assert not words_of(dockerfile, "ARG")
    assert not any(secret in words for secret in SECRETS for _, words in dockerfile)


def test_image_is_slim_and_of_one_fixed_python(dockerfile: list[tuple[str, str]]) -> None:
    bases = {words.split()[0] for words in words_of(dockerfile, "FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", bases.pop())


def test_image_says_whether_it_is_alive_without_curl(dockerfile: list[tuple[str, str]]) -> None:
    (check,) = words_of(dockerfile, "HEALTHCHECK")
    command = yaml.safe_load(check.split("CMD ", 1)[1])
    assert command[:2] == ["python", "-c"]
    assert "/healthz" in command[2]
    compile(command[2], "HEALTHCHECK", "exec")


def test_image_collects_the_admins_files_while_it_is_built(dockerfile: list[tuple[str, str]]) -> None:
    assert any("manage.py collectstatic" in words for words in words_of(dockerfile, "RUN"))


def test_image_leaves_out_tests_and_what_is_the_developers_own() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split("\n"))
    # `.*` is .git, .env with its secrets, .venv.
    assert {".*", "data", "**/tests"} <= ignored


def test_files_that_the_image_needs_are_not_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = ["manage.py", "gunicorn.conf.py", "requirements.txt", "templates/404.html", "gateway_project/asgi.py"]
    for name in needed:
        assert (ROOT / name).exists()
        assert not [pattern for pattern in ignored if Path(name).match(pattern) or name.split("/")[0] == pattern]


def test_compose_starts_web_worker_beat_postgres_and_redis_after_the_migration(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"web", "worker", "beat", "migrate", "postgres", "redis"}
    for name in ("web", "worker", "beat"):
        waits = {other: one["condition"] for other, one in services[name]["depends_on"].items()}
        assert waits == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "redis": "service_healthy",
        }


def test_compose_runs_everything_from_one_image(compose: dict[str, Any]) -> None:
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert {images[name] for name in ("web", "worker", "beat", "migrate")} == {"gatehouse"}


def test_compose_refuses_to_start_without_its_secrets(compose: dict[str, Any]) -> None:
    for name, value in compose["services"]["web"]["environment"].items():
        assert name not in SECRETS or re.fullmatch(rf"\$\{{{name}:\?set {name} in \.env\}}", value)
    assert SECRETS - {"POSTGRES_PASSWORD"} <= set(compose["services"]["web"]["environment"])
    assert "${POSTGRES_PASSWORD:?" in compose["services"]["web"]["environment"]["DATABASE_URL"]


def test_compose_keeps_what_must_not_be_lost(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["web"]["volumes"] == ["data:/data"]  # the journal
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert services["redis"]["volumes"] == ["redis:/data"]
    redis = " ".join(services["redis"]["command"])
    assert "--appendonly yes" in redis
    assert "--maxmemory-policy noeviction" in redis


def test_compose_gives_streams_longer_to_end_than_the_gateway_does(compose: dict[str, Any], settings: Any) -> None:
    assert int(compose["services"]["web"]["stop_grace_period"].rstrip("s")) >= settings.GRACEFUL_TIMEOUT_S + 10


def test_compose_exposes_only_the_web_process_and_only_to_this_machine(compose: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert ports == {"web": ["127.0.0.1:${PORT:-8000}:8000"]}


def test_every_service_that_goes_on_running_tells_whether_it_is_well(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name != "web":  # the image's own check
            assert "healthcheck" in service, name


def test_example_of_the_environment_names_every_secret_and_holds_none() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    given = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    assert {name: given[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")
