"""Nothing under /v1 waits for the database or for another thread once the caller's key is known.

The whole application runs in this process, so that every query of every thread is seen, and everything that comes back
to the event loop from a thread.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from accounts import services
from accounts.models import User
from gateway_project.tests.cast import UPSTREAM_KEY
from gateway_project.tests.upstream import Upstream
from policies.models import Finding, Policy, Rule, Wordlist
from policies.services import assign, publish, set_entries
from proxy.models import Model, Provider, Route
from proxy.services import save_provider
from usage.models import UsageEvent

pytestmark = pytest.mark.django_db(transaction=True)

BACKGROUND = {"config-watch", "usage-flusher", "journal-sync"}
CHAT = {"messages": [{"role": "user", "content": "one two three"}]}
CALLS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "chat": ("chat/completions", CHAT),
    "streamed chat": ("chat/completions", {**CHAT, "stream": True}),
    "completion": ("completions", {"prompt": "one two three"}),
    "streamed completion": ("completions", {"prompt": "one two three", "stream": True}),
    "embeddings": ("embeddings", {"input": "one two three"}),
    "models": ("models", None),
    "model": ("models/echo", None),
}


class Watched:
    """What was asked of the database outside the background threads, and what came from threads to the loop."""

    def __init__(self) -> None:
        self.queries: list[tuple[str, str]] = []
        self.hops: list[str] = []

    def clear(self) -> None:
        self.queries.clear()
        self.hops.clear()

    def note(self, what: str) -> None:
        thread = threading.current_thread().name
        if thread not in BACKGROUND:
            self.queries.append((thread, what))


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    seen = Watched()
    execute, connect = CursorWrapper._execute_with_wrappers, BaseDatabaseWrapper.connect

    def spied_execute(cursor: Any, sql: str, *arguments: Any, **named: Any) -> Any:
        seen.note(sql)
        return execute(cursor, sql, *arguments, **named)

    def spied_connect(wrapper: Any) -> None:
        seen.note("connect")
        connect(wrapper)

    monkeypatch.setattr(CursorWrapper, "_execute_with_wrappers", spied_execute)
    monkeypatch.setattr(BaseDatabaseWrapper, "connect", spied_connect)
    return seen


@pytest.fixture
def key(alice: User, upstream: Upstream) -> str:
    """Of alice, in a catalogue of two models: `echo`, and `gpt-test` at the upstream."""
    here = Provider(name="upstream", kind="openai", base_url=upstream.url, private_network=True)
    save_provider(here, credential=UPSTREAM_KEY)
    save_provider(Provider(name="echo", kind="echo"))
    for name, provider in (("gpt-test", "upstream"), ("echo", "echo")):
        model = Model.objects.create(name=name)
        Route.objects.create(model=model, provider=Provider.objects.get(name=provider))
    return services.create_key("laptop", alice.teams.get(), alice)[1]


@pytest.fixture
def policy(key: str) -> None:
    """Everyone's texts are read, and the word that all calls here say is masked."""
    words = Wordlist.objects.create(name="numbers")
    set_entries(words, ["two"])
    policy = Policy.objects.create(name="numbers")
    rule = {"check_name": "wordlist", "action": "redact", "settings": {"wordlists": ["numbers"]}}
    Rule.objects.create(policy=policy, timeout_ms=5000, **rule)
    Rule.objects.create(policy=policy, position=1, check_name="max_tokens", action="block", settings={"limit": 100})
    assign(policy)
    publish(policy)


@pytest.fixture
def quiet_process(settings: Any, tmp_path: Any) -> Iterator[None]:
    """The gateway tunes its process when it starts; the tests' process gets its own ways back, but for what was frozen:
    to thaw it is to walk all the tests that are loaded, over and over."""
    settings.DATA_DIR, settings.REDIS_URL = tmp_path, ""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[None]:
    """The application between its startup and its shutdown."""
    from gateway_project.asgi import application

    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    lifespan = asyncio.create_task(application({"type": "lifespan"}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    call_soon, executor = loop.call_soon_threadsafe, loop.run_in_executor

    def spied_call_soon(callback: Any, *arguments: Any, **named: Any) -> Any:
        watched.hops.append(f"{threading.current_thread().name} to the loop")
        return call_soon(callback, *arguments, **named)

    def spied_executor(pool: Any, function: Any, *arguments: Any) -> Any:
        watched.hops.append(f"{function} to a thread")
        return executor(pool, function, *arguments)

    loop.call_soon_threadsafe = spied_call_soon
    loop.run_in_executor = spied_executor
    try:
        yield
    finally:
        loop.call_soon_threadsafe, loop.run_in_executor = call_soon, executor
        await inbox.put({"type": "lifespan.shutdown"})
        await lifespan


async def ask(path: str, body: dict[str, Any] | None, key: str) -> Reply:
    from gateway_project.asgi import application

    content = b"" if body is None else orjson.dumps(body)
    messages = [{"type": "http.request", "body": content, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    headers.append((b"content-length", str(len(content)).encode()))
    scope = {"type": "http", "method": "GET" if body is None else "POST", "path": f"/v1/{path}", "headers": headers}
    await application({**scope, "client": ("127.0.0.1", 1234)}, receive, send)
    return Reply(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.mark.parametrize("model", ["echo", "gpt-test"])
@pytest.mark.parametrize("name", CALLS)
async def test_call_makes_no_query_and_no_thread_hop(
    watched: Watched, key: str, quiet_process: None, name: str, model: str
) -> None:
    path, body = CALLS[name]
    if body is not None:
        body = {"model": model, **body}
    async with running(watched):
        assert (await ask("models", None, key)).status == 200
        watched.clear()
        replies = [await ask(path, body, key) for _ in range(3)]
        assert (watched.queries, watched.hops) == ([], [])
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert await asyncio.to_thread(UsageEvent.objects.count) == 4


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("models", "model")])
async def test_call_under_a_policy_makes_no_query_and_no_thread_hop(
    watched: Watched, key: str, policy: None, quiet_process: None, name: str
) -> None:
    path, body = CALLS[name]
    async with running(watched):
        await ask("models", None, key)
        watched.clear()
        replies = [await ask(path, {"model": "echo", **(body or {})}, key) for _ in range(3)]
        assert (watched.queries, watched.hops) == ([], [])
    assert [reply.status for reply in replies] == [200, 200, 200]
    assert all(b"two" not in reply.body for reply in replies)
    assert await asyncio.to_thread(Finding.objects.count) >= 3


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("chat/completions", {"model": "no-such-model", **CHAT}, 404),
        ("chat/completions", {"model": "echo", "messages": 1}, 400),
        ("chat/completions", None, 405),
        ("images/generations", {}, 404),
    ],
)
async def test_refusal_makes_no_query_and_no_thread_hop(
    watched: Watched, key: str, quiet_process: None, path: str, body: dict[str, Any] | None, status: int
) -> None:
    async with running(watched):
        await ask("models", None, key)
        watched.clear()
        assert (await ask(path, body, key)).status == status
        assert (watched.queries, watched.hops) == ([], [])


async def test_first_call_of_a_key_looks_it_up_once(watched: Watched, key: str, quiet_process: None) -> None:
    """Also shows that nothing escapes the eyes of these tests."""
    async with running(watched):
        watched.clear()
        await asyncio.gather(*(ask("models", None, key) for _ in range(5)))
        queries = [sql for thread, sql in watched.queries if sql.startswith("SELECT")]
        assert len(queries) == 1
        assert "accounts_apikey" in queries[0]
        assert watched.hops


async def test_unknown_key_is_looked_up_once(watched: Watched, key: str, quiet_process: None) -> None:
    from accounts.keys import make_key, make_public_id

    unknown = make_key(make_public_id())
    async with running(watched):
        assert (await ask("models", None, unknown)).status == 401
        watched.clear()
        assert [(await ask("models", None, unknown)).status for _ in range(3)] == [401, 401, 401]
        assert (watched.queries, watched.hops) == ([], [])


async def test_wrong_secret_of_a_known_key_is_refused_without_a_look_up(
    watched: Watched, key: str, quiet_process: None
) -> None:
    from accounts.keys import make_key, public_id

    async with running(watched):
        await ask("models", None, key)
        watched.clear()
        assert (await ask("models", None, make_key(public_id(key)))).status == 401
        assert (watched.queries, watched.hops) == ([], [])


async def test_mistyped_key_is_refused_without_a_look_up(watched: Watched, key: str, quiet_process: None) -> None:
    async with running(watched):
        await ask("models", None, key)
        watched.clear()
        assert (await ask("models", None, key[:-1] + ("a" if key[-1] != "a" else "b"))).status == 401
        assert (watched.queries, watched.hops) == ([], [])
