"""The cast and the stage, for every test.

`upstream`        the provider of the tests: a real HTTP server that answers as the test wants (tests/upstream)
`gateway`         a running gateway on SQLite, wired to `upstream` (tests/cast.py says with what); shared by all tests
`gateway_on`      the same on another backend: gateway_on("postgres"), gateway_on("postgres+redis")
`every_gateway`   runs the test once on each backend
`fresh_gateway`   one of the test's own, to be killed or set up otherwise: fresh_gateway("sqlite", NAME="value")
`postgres`, `redis`, `node`, `chromium`   throw-away services and programs; the test is skipped where they are missing
`alice`, `bob`, `charlie`   the cast as rows in the test database, for tests that need no running gateway

Everything is started once, and only when a test asks for it. The verbs `call`, `check_error` and the like are in
gateway_project/tests/clients.py.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway_project.tests import services
from gateway_project.tests.gateway_process import BACKENDS, GatewayProcess, Gateways
from gateway_project.tests.upstream import Upstream

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker

    from accounts.models import Team, User

GatewayOn = Callable[[str], GatewayProcess]
FreshGateway = Callable[..., GatewayProcess]


# Thousands of tests are made at the start, and nothing of them is garbage: to look for some takes as long again.
gc.disable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait a good part of their time."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that begins one when the others are done would keep them all waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _quick_passwords() -> Iterator[None]:
    """The product's own hash in fewer rounds: a million take a second, and hundreds of tests make an administrator."""
    from django.contrib.auth.hashers import PBKDF2PasswordHasher

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PBKDF2PasswordHasher, "iterations", 1000)
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database; tests that commit to it leave it to the next one as it was."""
    from django.test import TransactionTestCase

    from gateway_project.tests.database_state import DatabaseState

    with pytest.MonkeyPatch.context() as patch:
        with django_db_blocker.unblock():
            migrated = DatabaseState()
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda test: migrated.restore())
        yield


# --- the provider ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(upstream_server: Upstream) -> Iterator[Upstream]:
    """With empty books and no script. What went wrong in it, against its script, fails the test."""
    upstream_server.reset()
    yield upstream_server
    assert upstream_server.failures == []


# --- services --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def running_services() -> Iterator[services.Running]:
    """Older than whatever uses them, so that they end last."""
    with ExitStack() as stack:
        yield services.Running(stack)


@pytest.fixture(scope="session")
def postgres(running_services: services.Running) -> services.PostgresServer:
    return running_services.postgres()


@pytest.fixture
def postgres_url(postgres: services.PostgresServer) -> Iterator[str]:
    """A new, empty database."""
    url = postgres.database()
    yield url
    postgres.drop(url)


@pytest.fixture(scope="session")
def redis(running_services: services.Running) -> services.RedisServer:
    return running_services.redis()


@pytest.fixture
def redis_url(redis: services.RedisServer) -> str:
    """A database that is empty."""
    return redis.database()


@pytest.fixture(scope="session")
def node() -> services.Node:
    return services.Node.find()


@pytest.fixture(scope="session")
def chromium() -> str:
    return services.chromium()


# --- the gateway -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def gateway_configuration(upstream_server: Upstream) -> Iterator[dict[str, Any]]:
    from gateway_project.tests import cast

    with _silent_port() as silent_port:
        yield cast.configuration(upstream_server, services.free_port(), silent_port)


@pytest.fixture(scope="session")
def make_gateway(
    running_services: services.Running,
    tmp_path_factory: pytest.TempPathFactory,
    gateway_configuration: Mapping[str, Any],
) -> Callable[..., Any]:
    """make_gateway(backend, configuration, **settings): a context manager. Without a configuration it is the cast's.

    Services are asked for when a backend needs them.
    """
    from gateway_project.tests import cast

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # by all workers of this run
    gateways = Gateways(tmp_path_factory.mktemp("gateways"), running_services, shared)
    return lambda backend, configuration=gateway_configuration, **settings: gateways.make(
        backend, configuration, cast.KEYS, **settings
    )


@pytest.fixture(scope="session")
def gateway_on(make_gateway: Callable[..., Any]) -> Iterator[GatewayOn]:
    """The shared gateway of a backend, started when it is first asked for."""
    running: dict[str, GatewayProcess] = {}
    with ExitStack() as stack:

        def find(backend: str) -> GatewayProcess:
            if backend not in running:
                running[backend] = stack.enter_context(make_gateway(backend))
            return running[backend]

        yield find


@pytest.fixture
def gateway(gateway_on: GatewayOn, upstream: Upstream) -> GatewayProcess:
    return gateway_on("sqlite")


@pytest.fixture(params=BACKENDS)
def every_gateway(request: pytest.FixtureRequest, gateway_on: GatewayOn, upstream: Upstream) -> GatewayProcess:
    return gateway_on(request.param)


@pytest.fixture
def fresh_gateway(make_gateway: Callable[..., Any], upstream: Upstream) -> Iterator[FreshGateway]:
    with ExitStack() as stack:
        yield lambda backend="sqlite", **settings: stack.enter_context(make_gateway(backend, **settings))


@contextmanager
def _silent_port() -> Iterator[int]:
    """A port where connecting takes for ever: nobody accepts, and the queue of those who wait is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


# --- the cast, in the test database ----------------------------------------------------------------------------------


@pytest.fixture
def research(db: None) -> Team:
    """The team of alice and bob."""
    from accounts.models import Team

    return Team.objects.create(name="research", cost_center="4711")


@pytest.fixture
def alice(research: Team) -> User:
    return _person("alice", research)


@pytest.fixture
def bob(research: Team) -> User:
    """On alice's team."""
    return _person("bob", research)


@pytest.fixture
def charlie(db: None) -> User:
    """Outside of alice's team."""
    from accounts.models import Team

    return _person("charlie", Team.objects.create(name="sales"))


def _person(name: str, team: Team) -> User:
    from accounts.models import Membership, User

    user = User.objects.create_user(name, f"{name}@example.org")
    Membership.objects.create(user=user, team=team)
    return user
