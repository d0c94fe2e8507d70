"""Who may import whom. The layers of the house, held by reading every module's imports."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from gateway_project.tests.gateway_process import ROOT

MAY_IMPORT = {
    "accounts": set[str](),
    "usage": {"accounts"},
    "policies": {"accounts"},
    "proxy": {"accounts", "usage", "policies"},
    "gateway_project": {"accounts", "usage", "policies", "proxy"},
}
APPS = sorted(MAY_IMPORT)

# Whoever talks to the network, and why. Everybody else is given what they need.
SOCKETS = {
    "proxy/upstream.py": "calls to providers",
    "proxy/probe.py": "the admin's connection test",
    "proxy/watch.py": "hears from Redis that the configuration changed",
    "accounts/audit/syslog.py": "sends the audit trail to a syslog server",
    "accounts/public_addresses.py": "looks up where a name leads",
    "accounts/versions.py": "tells Redis that the configuration changed",
    "accounts/sso/documents.py": "reads what IdPs publish",
    "accounts/sso/oidc.py": "knows how the IdP's token page fails",
    "gateway_project/cache.py": "counts sign-ins in Redis, for all processes",
    "usage/ledger/wire.py": "asks the ledger in Redis",
    "usage/alerts/transport.py": "alerts to webhooks, chats and the mail server",
    "gateway_project/health.py": "asks Redis whether it is there",
    "gateway_project/server.py": "answers on a socket",
    "gateway_project/management/commands/up.py": "tries the port, waits for the web process",
}
NETWORK = {"aiohttp", "ftplib", "http.client", "httpcore", "httpx", "httpx2", "psycopg", "redis", "requests", "smtplib"}
NETWORK |= {"socket", "urllib.request", "urllib3", "websockets", "xmlrpc"}
PURE = ("accounts/keys.py", "policies/types.py", "proxy/endpoints.py", "usage/histogram.py", "usage/pricing.py")
HTTP_OF_DJANGO = {"proxy/admin.py", "proxy/portal.py"}


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all that a module imports, wherever in it: `from a.b import c` gives a.b and a.b.c."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def uses(path: Path, names: set[str]) -> set[str]:
    """Which of `names` (or what is in them) the module imports."""
    return {name for name in names for found in imports(path) if found == name or found.startswith(f"{name}.")}


def modules(folder: str, *, tests: bool = False) -> list[Path]:
    found = [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*.py"))]
    return [ROOT / path for path in found if ("tests" in path.parts) is tests and "migrations" not in path.parts]


def every_module(*, tests: bool = False) -> list[Path]:
    return [path for app in APPS for path in modules(app, tests=tests)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("app", APPS)
def test_app_imports_only_what_is_below_it(app: str) -> None:
    above = set(APPS) - MAY_IMPORT[app] - {app}
    assert {name_of(path): found for path in modules(app) if (found := uses(path, above))} == {}


def test_sockets_are_opened_in_named_modules_only() -> None:
    assert {name_of(path) for path in every_module() if uses(path, NETWORK)} == set(SOCKETS)


def test_adapters_translate_and_do_nothing_else() -> None:
    """No sockets, no waiting, no database, no clock of the event loop."""
    forbidden = NETWORK | {"asyncio", "threading", "django", "proxy.models", "proxy.upstream", "proxy.call"}
    assert {name_of(path): found for path in modules("proxy/providers") if (found := uses(path, forbidden))} == {}


@pytest.mark.parametrize("name", PURE)
def test_pure_module_knows_neither_database_nor_settings(name: str) -> None:
    assert uses(ROOT / name, NETWORK | {"django", "os", "asyncio"}) == set()


def test_data_plane_does_without_django_requests() -> None:
    found = {name_of(path) for path in modules("proxy") if uses(path, {"django.http", "django.views"})}
    assert found <= HTTP_OF_DJANGO


def test_data_plane_publishes_nothing_to_celery() -> None:
    assert [name_of(path) for path in modules("proxy") if uses(path, {"celery"})] == []


def test_errors_for_callers_are_defined_in_one_file() -> None:
    """Only proxy/errors.py knows domain errors and HTTP both."""
    elsewhere = []
    for path in every_module():
        for node in ast.walk(ast.parse(path.read_text())):
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            if any(base.split(".")[-1] == "GatewayError" for base in bases):
                elsewhere.append(name_of(path))
    assert set(elsewhere) == {"proxy/errors.py"}


def test_nothing_but_tests_imports_tests() -> None:
    tests = {f"{app}.tests" for app in APPS} | {"pytest", "hypothesis", "conftest"}
    assert {name_of(path): found for path in every_module() if (found := uses(path, tests))} == {}


def test_no_module_is_named_after_nothing() -> None:
    empty_names = {"utils", "util", "helpers", "common", "core", "misc"}
    assert [
        name_of(path)
        for path in every_module()
        if empty_names.intersection(path.relative_to(ROOT).with_suffix("").parts)
    ] == []


@pytest.mark.parametrize(("tests", "requirements"), [(False, "requirements.txt"), (True, "requirements-dev.txt")])
def test_every_package_that_is_imported_is_pinned(tests: bool, requirements: str) -> None:
    """Else it is there today because something else needs it, and gone tomorrow."""
    distributions = packages_distributions()
    tops = {name.split(".")[0] for path in every_module(tests=tests) for name in imports(path)}
    foreign = tops - set(sys.stdlib_module_names) - set(APPS) - {"conftest", "benchmarks"}
    missing = {top for top in foreign if not pins(requirements).intersection(map(plain, distributions.get(top, [])))}
    assert missing == set()


def test_every_requirement_is_pinned_exactly_and_named_once() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    lines += [line for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if line and line[0] not in "#-"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    names = [plain(line.split("==")[0]) for line in lines]
    assert sorted(names) == sorted(set(names))


def pins(requirements: str) -> set[str]:
    """Names pinned in the file and in those it includes."""
    found: set[str] = set()
    for line in (ROOT / requirements).read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            found.add(plain(line.split("==")[0]))
    return found


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
