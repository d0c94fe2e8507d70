"""Who is in the tests, and what the gateway of the tests is set up with.

alice and bob are in the team `research`; charlie is in `sales`, outside, and may call two models only. The key `narrow`
is alice's too, for one model. Prices are 1 USD per million tokens in, 2 out: 1,000 and 2,000 nano-USD a token; `echo`
costs `sales` five times as much.

| model                        | where it goes                                                                      |
| ---------------------------- | ---------------------------------------------------------------------------------- |
| NAME of a behaviour          | the upstream, behaving so (upstream/behaviours.py); its provider has short patience |
| patient/NAME                 | the same, through a provider that waits half a minute                              |
| gpt-test, embedding-test     | the upstream, well behaved; gpt-alias is another name of gpt-test                  |
| disabled-test                | the same, disabled                                                                 |
| own-key-test                 | the same, through a provider where callers may bring their own key                 |
| unpriced-test                | the same, without a price, through the provider that waits                         |
| fallback/NAME                | first the upstream behaving so, then a good one at the provider `backup`           |
| nowhere, unreachable         | a port that refuses, one that never answers                                        |
| fallback/nowhere             | the one that refuses, then `backup`                                                |
| hurried                      | hangs for a second, hangs for half a minute, `backup`; in a budget of 1.5 s        |
| azure-test, claude-test      | the upstream in another dialect                                                    |
| echo                         | the built-in provider                                                              |
"""

from __future__ import annotations

from typing import Any

from accounts.keys import make_key, make_public_id
from gateway_project.tests.upstream import Upstream
from gateway_project.tests.upstream.behaviours import BEHAVIOURS

UPSTREAM_KEY = "sk-upstream-secret-1"
BACKUP_KEY = "6f1d0c9ab2e84d7f93a5c8e2b7f04d16"  # of a provider whose keys look like nothing
PRICE = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
SALES_PRICE = {"input_usd_per_mtok": 5.0, "output_usd_per_mtok": 10.0}
FALLBACK_FROM = ("500", "429", "400", "hang", "close-before-head", "garbage", "error-in-200", "close-midway")

# Made anew in each run. The names stand for them in `call(key=...)`.
KEYS: dict[str, str] = {
    name: make_key(make_public_id())
    for name in ("alice", "bob", "charlie", "narrow", "embedder", "expired", "disabled", "closed", "research-service")
}


def configuration(upstream: Upstream, refused_port: int, silent_port: int) -> dict[str, Any]:
    """What `manage.py apply` is given."""
    return {
        "providers": _providers(upstream, refused_port, silent_port),
        "models": _models(),
        "teams": [
            {"name": "research", "cost_center": "4711"},
            {"name": "sales", "models": ["gpt-test", "echo"], "prices": [{"model": "echo", **SALES_PRICE}]},
            {"name": "closed", "disabled": True},
        ],
        "users": [
            {"username": "alice", "email": "alice@example.org", "teams": ["research"]},
            {"username": "bob", "email": "bob@example.org", "teams": ["research"]},
            {"username": "charlie", "email": "charlie@example.org", "teams": ["sales"]},
        ],
        "keys": _keys(),
    }


def _providers(upstream: Upstream, refused_port: int, silent_port: int) -> list[dict[str, Any]]:
    impatient = {"connect_timeout_s": 0.5, "first_byte_timeout_s": 1.0, "idle_timeout_s": 0.7}
    patient = {"connect_timeout_s": 5.0, "first_byte_timeout_s": 30.0, "idle_timeout_s": 30.0}
    here = {"kind": "openai", "base_url": upstream.url, "api_key": UPSTREAM_KEY}
    return [
        {"name": "upstream", **here, **impatient},
        {"name": "patient", **here, **patient},
        {"name": "open", **here, **impatient, "caller_key": True},
        {"name": "backup", **here, "api_key": BACKUP_KEY, **impatient},
        {"name": "nowhere", **here, "base_url": f"http://127.0.0.1:{refused_port}/v1", **impatient},
        {"name": "unreachable", **here, "base_url": f"http://127.0.0.1:{silent_port}/v1", **impatient},
        {"name": "azure", "kind": "azure_openai", "base_url": upstream.origin, "api_key": UPSTREAM_KEY, **impatient},
        {"name": "claude", "kind": "anthropic", "base_url": upstream.url, "api_key": UPSTREAM_KEY, **impatient},
        {"name": "echo", "kind": "echo"},
    ]


def _models() -> list[dict[str, Any]]:
    wishes = [*BEHAVIOURS, *sorted({name for name in FALLBACK_FROM if name.isdecimal()})]
    backup = {"provider": "backup", "upstream_model": "gpt-test"}
    return [
        {**_model("gpt-test", _route("upstream", "gpt-test")), "aliases": ["gpt-alias"]},
        _model("embedding-test", _route("upstream", "embedding-test")),
        {"name": "unpriced-test", "routes": [_route("patient", "gpt-test:ok")]},
        {**_model("disabled-test", _route("upstream", "gpt-test")), "enabled": False},
        _model("own-key-test", _route("open", "gpt-test")),
        *(_model(name, _route("upstream", f"gpt-test:{name}")) for name in wishes),
        *(_model(f"patient/{name}", _route("patient", f"gpt-test:{name}")) for name in wishes),
        *(_model(f"fallback/{name}", _route("upstream", f"gpt-test:{name}"), backup) for name in FALLBACK_FROM),
        _model("nowhere", _route("nowhere", "gpt-test")),
        _model("unreachable", _route("unreachable", "gpt-test")),
        _model("fallback/nowhere", _route("nowhere", "gpt-test"), backup),
        {
            **_model("hurried", _route("upstream", "gpt-test:hang"), _route("patient", "gpt-test:hang"), backup),
            "time_budget_s": 1.5,
        },
        _model("azure-test", _route("azure", "gpt-test")),
        _model("claude-test", _route("claude", "claude-test")),
        _model("echo", {"provider": "echo"}),
    ]


def _route(provider: str, upstream_model: str) -> dict[str, Any]:
    return {"provider": provider, "upstream_model": upstream_model}


def _model(name: str, *routes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "routes": list(routes), **PRICE}


def _keys() -> list[dict[str, Any]]:
    def key(name: str, user: str, team: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "user": user, "team": team, "secret": KEYS[name], **fields}

    return [
        key("alice", "alice", "research"),
        key("bob", "bob", "research"),
        key("charlie", "charlie", "sales"),
        key("narrow", "alice", "research", models=["gpt-test"]),
        key("embedder", "alice", "research", endpoints=["embeddings"]),
        key("expired", "alice", "research", expires="2020-01-01"),
        key("disabled", "alice", "research", disabled=True),
        {"name": "closed", "team": "closed", "secret": KEYS["closed"]},
        {"name": "research-service", "team": "research", "secret": KEYS["research-service"]},
    ]
