"""What is measured: relays that are up, each with the requests that make it do its work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from accounts.keys import make_key, make_public_id
from benchmarks import machine, nginx
from benchmarks.checks import words
from benchmarks.load import Request, chat_body
from gateway_project.tests.gateway_process import Gateways

CONNECTIONS = 32
PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
# Everything that a call can carry today and that costs something: see `configuration` for the other half.
RICH_HEADERS = {
    "x-request-id": "bench-0123456789abcdef",
    "x-gatehouse-tags": "app=bench,stage=production,cost-centre=4711",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "openai-organization": "org-bench",
    "origin": "https://chat.example.org",
    "x-forwarded-for": "203.0.113.7, 127.0.0.1",
    "user-agent": "OpenAI/Python 3.52.0",
}
RICH_SETTINGS = {"CORS_ALLOWED_ORIGINS": "https://chat.example.org", "TRUSTED_PROXIES": "127.0.0.1/32"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A running relay. `pid`: the root of its processes, None when it is not known: then its CPU is not measured.
    `connections`: how many ask at once. `beside`: servers that work for it, by name."""

    name: str
    whole: Request
    streamed: Request
    pid: int | None
    connections: int = CONNECTIONS
    beside: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mock:
    """Ports of the upstream for whole answers and for streams."""

    whole: int
    streamed: int

    def url(self, streamed: bool = False) -> str:
        return f"http://127.0.0.1:{self.streamed if streamed else self.whole}/v1"


@contextmanager
def mock(folder: Path, port: int | None) -> Iterator[Mock]:
    """nginx for whole answers where it is there; with a `port`, one mock for both, for peers that need to know it."""
    with ExitStack() as stack:
        streamed = port or machine.free_port()
        command = [sys.executable, "-m", "benchmarks.mock_upstream", "--port", str(streamed)]
        stack.enter_context(machine.process(command, machine.LOAD_CORE, folder / "mock.log"))
        machine.wait_for_port(streamed)
        if port or not nginx.program():
            yield Mock(streamed, streamed)
            return
        whole = machine.free_port()
        command = nginx.mock(folder / "nginx-mock", whole)
        stack.enter_context(machine.process(command, machine.LOAD_CORE, folder / "mock.log"))
        machine.wait_for_port(whole)
        yield Mock(whole, streamed)


@contextmanager
def nginx_relay(folder: Path, upstream: Mock) -> Iterator[Subject]:
    whole, streamed = machine.free_port(), machine.free_port()
    command = nginx.relay(folder / "nginx-relay", whole, upstream.whole, streamed, upstream.streamed)
    with machine.process(command, machine.SERVER_CORE, folder / "nginx.log") as pid:
        machine.wait_for_port(whole)
        yield Subject("nginx proxy_pass", _request(whole), _request(streamed, stream=True), pid)


@contextmanager
def bare_relay(folder: Path, upstream: Mock) -> Iterator[Subject]:
    port = machine.free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare_relay:application", "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    env = {**os.environ, "UPSTREAM": upstream.url(), "STREAM_UPSTREAM": upstream.url(streamed=True)}
    with machine.process(command, machine.SERVER_CORE, folder / "bare.log", env) as pid:
        machine.wait_for_port(port)
        yield Subject("bare ASGI + aiohttp relay", _request(port), _request(port, stream=True), pid)


def peer(url: str, key: str, model: str, pid: int | None) -> Subject:
    """Any other gateway that is running on this machine and speaks OpenAI's dialect."""
    address = urlsplit(url)
    port = address.port or 80
    path = f"{address.path.rstrip('/')}/chat/completions"
    headers = {**JSON, "authorization": f"Bearer {key}"}
    if pid:
        machine.pin(pid, machine.SERVER_CORE)
    whole = Request(port, path, headers, chat_body(model))
    streamed = Request(port, path, headers, chat_body(model, stream=True))
    return Subject(f"peer at {address.netloc}", whole, streamed, pid)


@contextmanager
def gatehouse(
    name: str,
    gateways: Gateways,
    upstream: Mock,
    *,
    rich: bool = False,
    backend: str = "sqlite",
    workers: int = 1,
    beside: Mapping[str, int | None] | None = None,
) -> Iterator[Subject]:
    """Gatehouse itself, in a folder and database of its own. `rich`: with everything on."""
    key = make_key(make_public_id())
    settings = RICH_SETTINGS if rich else {}
    with gateways.make(backend, configuration(upstream, key, rich), {}, workers, **settings) as gateway:
        machine.pin(gateway.pid, machine.SERVER_CORE)
        headers = {**JSON, "authorization": f"Bearer {key}", **(RICH_HEADERS if rich else {})}
        user = "user-4711" if rich else ""
        whole = Request(gateway.port, PATH, headers, chat_body("bench", user=user))
        streamed = Request(gateway.port, PATH, headers, chat_body("bench-stream", stream=True, user=user))
        # As many for each worker as for one alone: an event loop that has less to do at a time does it less well.
        yield Subject(name, whole, streamed, gateway.pid, CONNECTIONS * workers, beside or {})


def configuration(upstream: Mock, key: str, rich: bool) -> dict[str, Any]:
    """What `manage.py apply` is given. Rich: two routes a model; team and key may call certain models and endpoints; a
    policy with a list of 2,000 words reads requests and replies; budgets and rate limits on key, team and installation,
    which are never reached."""
    routes = ["mock", "second"] if rich else ["mock"]
    providers = [
        {"name": name + suffix, "kind": "openai", "base_url": upstream.url(streamed), "api_key": "sk-upstream"}
        for name in routes
        for suffix, streamed in (("", False), ("-stream", True))
    ]
    price = {"input_usd_per_mtok": 0.15, "output_usd_per_mtok": 0.6}
    models = [
        {"name": f"bench{suffix}", **price, "routes": [{"provider": name + suffix} for name in routes]}
        for suffix in ("", "-stream")
    ]
    rates = {"requests_per_minute": 10**7, "tokens_per_minute": 10**9}
    month = {"usd": 10**6, "per": "month", "timezone": "Europe/Berlin"}
    limits: dict[str, Any] = {"endpoints": ["chat/completions", "models"], "models": ["bench", "bench-stream"]}
    limits |= {**rates, "max_parallel": 10_000, "budgets": [month, {"tokens": 10**12, "per": "day"}]}
    team: dict[str, Any] = {"models": ["bench", "bench-stream"], **rates, "budgets": [month]}
    policies = {
        "wordlists": [{"name": "bench", "words": words(2000)}],
        "policies": [
            {
                "name": "bench",
                "scope": "everyone",
                "rules": [{"check": "wordlist", "action": "redact", "settings": {"wordlists": ["bench"]}}],
            }
        ],
    }
    return {
        **({**policies, "installation": {**rates, "budgets": [month]}} if rich else {}),
        "providers": providers,
        "models": models,
        "teams": [{"name": "bench", **(team if rich else {})}],
        "users": [{"username": "bench", "email": "bench@example.org", "teams": ["bench"]}],
        "keys": [{"name": "bench", "user": "bench", "team": "bench", "secret": key, **(limits if rich else {})}],
    }


def _request(port: int, stream: bool = False) -> Request:
    return Request(port, PATH, JSON, chat_body("bench-stream" if stream else "bench", stream))
