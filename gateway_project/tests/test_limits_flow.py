"""Budgets and rate limits on real calls, on every backend: in one process's memory, and in Redis with two workers.

A call of `dear` with `max_tokens` of 5 costs 0.05 USD, exactly what is held for it: the upstream says five words, and
a word costs a cent.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from accounts.keys import make_key, make_public_id
from gateway_project.tests.clients import Stream, body, call, check_error, credentials
from gateway_project.tests.gateway_process import BACKENDS, GatewayProcess
from gateway_project.tests.services import RedisServer, wait_until
from gateway_project.tests.upstream import Upstream

CENTS_5 = 50_000_000  # nano-USD
ESTIMATED = "SELECT estimated FROM usage_usageevent WHERE "
MONEY = {"usd": 1, "per": "total"}
KEYS: dict[str, dict[str, Any]] = {
    "crowd": {"budgets": [MONEY]},
    "streams": {"budgets": [MONEY]},
    "outage": {"budgets": [MONEY]},
    "poor": {"budgets": [{"usd": 0.07, "per": "month", "timezone": "Europe/Berlin"}]},
    "twice": {"budgets": [{"usd": 5, "per": "month"}, {"tokens": 60, "per": "total"}]},
    "modest": {"budgets": [{"usd": 0.05, "per": "total", "when_spent": "fall_back", "fallback_model": "gpt-test"}]},
    "guarded": {"budgets": [{"usd": 0.05, "per": "total", "when_spent": "fall_back", "fallback_model": "gpt-test"}]},
    "queued": {"budgets": [{"usd": 0.05, "per": "total", "when_spent": "fall_back", "fallback_model": "rare"}]},
    "hasty": {"budgets": [{"usd": 0.09, "per": "total", "when_spent": "fall_back", "fallback_model": "gpt-test"}]},
    "hider": {"budgets": [{"usd": 0.05, "per": "total"}]},
    "long": {"budgets": [MONEY]},
    "restarted": {"budgets": [MONEY]},
    "dying": {"budgets": [{"usd": 0.1, "per": "total"}]},
    "slow": {"requests_per_minute": 3},
    "wordy": {"tokens_per_minute": 1000},
    "narrow-lane": {"max_parallel": 2},
    "limited-once": {"requests_per_minute": 1},
    "at-most-ten": {"tokens_per_minute": 10},
    "rude": {},
}


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {name: make_key(make_public_id()) for name in [*KEYS, "of-poor-team", "of-poor-user", "at-home"]}


@pytest.fixture(scope="module")
def limited_on(
    make_gateway: Callable[..., Any], gateway_configuration: dict[str, Any], keys: dict[str, str]
) -> Iterator[Callable[[str], GatewayProcess]]:
    """The gateway of a backend, with everything that this file limits."""
    made = [
        {"name": name, "user": "alice", "team": "research", "secret": keys[name], **limits}
        for name, limits in KEYS.items()
    ]
    made += [
        {"name": "of-poor-team", "team": "poor", "secret": keys["of-poor-team"]},
        {"name": "of-poor-user", "user": "dave", "team": "research", "secret": keys["of-poor-user"]},
        {"name": "at-home", "user": "bob", "team": "research", "secret": keys["at-home"], "networks": ["192.0.2.0/24"]},
    ]
    route = {"provider": "upstream", "upstream_model": "gpt-test"}
    dear = {"name": "dear", "routes": [route], "input_usd_per_mtok": 0, "output_usd_per_mtok": 10_000}
    slow = {
        **dear,
        "name": "slow",
        "routes": [{"provider": "patient", "upstream_model": "gpt-test:slow-first-byte?delay_ms=1500"}],
    }
    wordy = {**dear, "name": "wordy", "input_usd_per_mtok": 10, "output_usd_per_mtok": 0}
    rare = {**dear, "name": "rare", "requests_per_minute": 1, "output_usd_per_mtok": 0}
    forbidding = {"check": "disabled_models", "action": "block", "settings": {"models": ["gpt-test"]}}
    blocking = {"check": "max_tokens", "action": "block", "stage": "request", "settings": {"limit": 10}}
    configuration = {
        **gateway_configuration,
        "models": [*gateway_configuration["models"], dear, slow, wordy, rare],
        "teams": [*gateway_configuration["teams"], {"name": "poor", "budgets": [{"usd": 0, "per": "day"}]}],
        "users": [
            *gateway_configuration["users"],
            {
                "username": "dave",
                "email": "dave@example.org",
                "teams": ["research"],
                "budgets": [{"usd": 0, "per": "week"}],
            },
        ],
        "keys": gateway_configuration["keys"] + made,
        "policies": [
            {"name": "short", "scope": {"key": "rude"}, "rules": [blocking]},
            {"name": "never the cheap one", "scope": {"key": "guarded"}, "rules": [forbidding]},
        ],
        "installation": {"blocks_to_throttle": 3, "throttle_s": 30, "default_max_tokens": 50},
    }
    started: dict[str, tuple[Any, GatewayProcess]] = {}

    def find(backend: str) -> GatewayProcess:
        if backend not in started:
            context = make_gateway(backend, configuration)
            started[backend] = context, context.__enter__()
            started[backend][1].keys.update(keys)
        return started[backend][1]

    yield find
    for context, _ in started.values():
        context.__exit__(None, None, None)


@pytest.fixture
def limited(limited_on: Callable[[str], GatewayProcess], upstream: Upstream) -> GatewayProcess:
    return limited_on("sqlite")


@pytest.fixture(params=BACKENDS)
def every_limited(
    request: pytest.FixtureRequest, limited_on: Callable[[str], GatewayProcess], upstream: Upstream
) -> GatewayProcess:
    return limited_on(request.param)


def ask(gateway: GatewayProcess, key: str, model: str = "dear", **fields: Any) -> httpx.Response:
    return call(gateway, model, key=key, **{"max_tokens": 5, **fields})


async def crowd(gateway: GatewayProcess, key: str, count: int, **fields: Any) -> list[tuple[int, bytes]]:
    """Status and body of `count` calls that are made at once."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = credentials(gateway, key)
    async with aiohttp.ClientSession(gateway.url, connector=connector, trust_env=False) as session:

        async def one() -> tuple[int, bytes]:
            try:
                async with session.post(
                    "/v1/chat/completions", json=body("dear", max_tokens=5, **fields), headers=headers
                ) as response:
                    return response.status, await response.read()
            except aiohttp.ClientError:
                return 0, b""

        return await asyncio.gather(*(one() for _ in range(count)))


def spent_by_events(gateway: GatewayProcess, key: str) -> int:
    statement = f"SELECT coalesce(sum(cost_nano_usd), 0) AS cost FROM usage_usageevent WHERE key_label LIKE '{key} (%'"
    return int(gateway.query(statement)[0]["cost"])


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_of_200_calls_at_once_exactly_those_are_made_that_the_budget_pays_for(
    every_limited: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    key = "streams" if stream else "crowd"
    answers = asyncio.run(crowd(every_limited, key, 200, stream=stream))
    assert Counter(status for status, _ in answers) == {200: 20, 429: 180}
    assert upstream.received == 20
    wait_until(lambda: spent_by_events(every_limited, key) == 20 * CENTS_5, 10, "every call is booked")
    wait_until(lambda: ask(every_limited, key).json()["error"]["code"] == "insufficient_quota", 5, "nothing is held")


def test_budget_outlives_its_process(every_limited: GatewayProcess, upstream: Upstream) -> None:
    for _ in range(3):
        assert ask(every_limited, "restarted").status_code == 200
    every_limited.kill()
    every_limited.start()
    answers = asyncio.run(crowd(every_limited, "restarted", 40))
    assert Counter(status for status, _ in answers) == {200: 17, 429: 23}


def test_call_that_died_with_its_gateway_is_paid_for(every_limited: GatewayProcess, upstream: Upstream) -> None:
    """Nobody knows how much was answered, so all that was held for is spent."""
    with ThreadPoolExecutor(1) as threads:
        lost = threads.submit(ask, every_limited, "dying", "slow")
        upstream.wait_for_calls(1)
        every_limited.kill()
        with pytest.raises(httpx.TransportError):
            lost.result()
    every_limited.start()
    wait_until(lambda: spent_by_events(every_limited, "dying") == CENTS_5, 20, "the call is in the books")

    def status() -> int:
        return ask(every_limited, "dying").status_code

    wait_until(lambda: status() == 200, 20, "what the dead process held is settled")
    wait_until(lambda: status() == 429, 5, "two calls are all that the budget pays for")

    def estimated() -> list[bool]:
        where = "key_label LIKE 'dying (%' AND status <> 429"
        return sorted(bool(row["estimated"]) for row in every_limited.query(ESTIMATED + where))

    wait_until(lambda: estimated() == [False, True], 10, "one of the two is an estimate")


def test_redis_that_is_killed_and_started_again_loses_no_money(
    limited_on: Callable[[str], GatewayProcess], redis: RedisServer, upstream: Upstream
) -> None:
    if not redis.can_stop:
        pytest.skip("needs a Redis of our own")
    gateway = limited_on("postgres+redis")
    seen: Counter[int] = Counter()

    async def calls() -> None:
        """Until nothing is left."""
        while b"insufficient_quota" not in (answers := await crowd(gateway, "outage", 3))[0][1]:
            seen.update(status for status, _ in answers)
            await asyncio.sleep(0.1)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(lambda: asyncio.run(calls()))
        wait_until(lambda: seen[200] >= 4, 20, "some calls are made")
        redis.stop()
        wait_until(lambda: seen[503] >= 3, 20, "calls are refused")
        redis.start()
        running.result(60)
    assert set(seen) <= {200, 429, 503}
    assert seen[200] == upstream.received == 20
    wait_until(lambda: spent_by_events(gateway, "outage") == 20 * CENTS_5, 10, "every call is booked")


def test_spent_budget_is_told_so_that_clients_do_not_try_again(limited: GatewayProcess, upstream: Upstream) -> None:
    client = openai.OpenAI(base_url=f"{limited.url}/v1", api_key=limited.keys["poor"], max_retries=3)
    client.chat.completions.create(model="dear", messages=[{"role": "user", "content": "a"}], max_tokens=5)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="dear", messages=[{"role": "user", "content": "a"}], max_tokens=5)
    assert upstream.received == 1
    assert refused.value.code == "insufficient_quota"
    assert refused.value.type == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "The next month begins at" in refused.value.message


def test_call_that_fits_is_made_although_a_larger_one_would_not(limited: GatewayProcess) -> None:
    check_error(ask(limited, "poor", max_tokens=500), 429, "insufficient_quota", "insufficient_quota")
    assert ask(limited, "poor", max_tokens=1).status_code in (200, 429)


def test_event_names_the_budget_that_had_no_room(limited: GatewayProcess) -> None:
    refused = ask(limited, "of-poor-team")
    event = limited.event_of(refused.headers["x-request-id"])
    budgets = limited.query("SELECT id FROM usage_budget WHERE scope = 'team'")
    assert (event["status"], event["attempts"], event["spent_budget_id"]) == (429, 0, budgets[0]["id"])
    served = ask(limited, "alice", "gpt-test")
    assert limited.event_of(served.headers["x-request-id"])["spent_budget_id"] is None


@pytest.mark.parametrize(
    ("key", "calls", "limit"),
    [
        ("of-poor-team", 1, "budget of team poor per day"),
        ("of-poor-user", 1, "budget of user dave per week"),
        ("limited-once", 2, "requests per minute of API key limited-once (*): 1"),
        ("at-most-ten", 2, "tokens per minute of API key at-most-ten (*): 10"),
    ],
)
def test_event_of_a_refused_call_says_which_limit_it_was(
    every_limited: GatewayProcess, key: str, calls: int, limit: str
) -> None:
    refused = [ask(every_limited, key) for _ in range(calls)][-1]
    event = every_limited.event_of(refused.headers["x-request-id"])
    assert event["status"] == 429
    assert fnmatchcase(event["refused_by"], limit)


def test_event_of_a_served_call_names_no_limit(limited: GatewayProcess) -> None:
    served = ask(limited, "alice", "gpt-test")
    assert limited.event_of(served.headers["x-request-id"])["refused_by"] == ""


@pytest.mark.parametrize("key", ["of-poor-team", "of-poor-user"])
def test_budget_of_team_and_user_holds_for_their_keys(limited: GatewayProcess, upstream: Upstream, key: str) -> None:
    check_error(ask(limited, key), 429, "insufficient_quota", "insufficient_quota")
    assert upstream.received == 0


def test_every_budget_must_have_room(limited: GatewayProcess) -> None:
    """Two calls use up the tokens while there is money left."""
    answers = [ask(limited, "twice").status_code for _ in range(6)]
    assert answers[0] == 200
    assert answers[-1] == 429


def test_call_without_a_price_is_not_made_on_a_budget(limited: GatewayProcess, upstream: Upstream) -> None:
    error = check_error(
        ask(limited, "long", "unpriced-test"), 400, "invalid_request_error", "unpriced_model", param="model"
    )
    assert "unpriced-test" in error["message"]
    assert upstream.received == 0


def test_call_on_a_budget_names_its_longest_answer(limited: GatewayProcess, upstream: Upstream) -> None:
    assert ask(limited, "long", max_tokens=None).status_code == 200
    assert upstream.last.json["max_completion_tokens"] == 50
    assert ask(limited, "long", max_tokens=7).status_code == 200
    assert upstream.last.json["max_tokens"] == 7
    assert "max_completion_tokens" not in upstream.last.json
    assert call(limited, "dear", key="alice").status_code == 200
    assert "max_completion_tokens" not in upstream.last.json, "not on a budget"


def test_spent_budget_can_fall_back_to_a_cheaper_model(limited: GatewayProcess) -> None:
    assert ask(limited, "modest").headers["x-gatehouse-model"] == "dear"
    answer = ask(limited, "modest")
    assert answer.status_code == 200
    assert answer.headers["x-gatehouse-model"] == "gpt-test"
    event = limited.event_of(answer.headers["x-request-id"])
    assert (event["model"], event["status"]) == ("gpt-test", 200)
    assert event["cost_nano_usd"] < CENTS_5
    assert event["spent_budget_id"] is not None, "the one that fell back"
    assert Stream.of(ask(limited, "modest", stream=True)).text == "w0 w1 w2 w3 w4 "


def test_policies_judge_the_model_that_a_spent_budget_leads_to(limited: GatewayProcess) -> None:
    assert ask(limited, "guarded").status_code == 200
    check_error(ask(limited, "guarded"), 400, "invalid_request_error", "policy_violation")
    check_error(ask(limited, "guarded", "gpt-test"), 400, "invalid_request_error", "policy_violation")


def test_rate_limit_of_the_model_that_a_spent_budget_leads_to_counts(limited: GatewayProcess) -> None:
    answers = [ask(limited, "queued") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["x-gatehouse-model"] == "rare"
    assert "model rare" in check_error(answers[2], 429, "requests", "rate_limit_exceeded")["message"]


def test_budget_that_others_only_hold_leads_nowhere(limited: GatewayProcess, upstream: Upstream) -> None:
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, limited, "hasty", "slow")
        upstream.wait_for_calls(1)
        refused = ask(limited, "hasty")
        check_error(refused, 429, "requests", "rate_limit_exceeded")
        assert first.result().status_code == 200
    refused_by = limited.event_of(refused.headers["x-request-id"])["refused_by"]
    assert refused_by.endswith("in total; what is left is held by calls under way")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x", "name": "n" * 6_000},
        {"role": "assistant", "content": "x", "reasoning_content": "r" * 6_000},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "a" * 6_000}},
    ],
    ids=["name", "reasoning", "arguments"],
)
def test_text_is_paid_for_wherever_it_stands(limited: GatewayProcess, upstream: Upstream, message: Any) -> None:
    check_error(ask(limited, "hider", "wordy", messages=[message]), 429, "insufficient_quota", "insufficient_quota")
    assert upstream.received == 0


def test_key_without_a_budget_is_not_held_back(limited: GatewayProcess) -> None:
    answers = asyncio.run(crowd(limited, "alice", 60))
    assert {status for status, _ in answers} == {200}


# --- rates -----------------------------------------------------------------------------------------------------------


def test_rate_limit_is_told_as_openai_tells_it(every_limited: GatewayProcess, upstream: Upstream) -> None:
    answers = [ask(every_limited, "slow") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    first, last = answers[0].headers, answers[-1]
    assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"]) == ("3", "2")
    assert first["x-ratelimit-reset-requests"].startswith("20s") or first["x-ratelimit-reset-requests"] < "20"
    error = check_error(last, 429, "requests", "rate_limit_exceeded")
    assert "3 requests a minute for this API key" in error["message"]
    assert 0 < int(last.headers["retry-after-ms"]) <= 20_000
    assert int(last.headers["retry-after"]) == -(-int(last.headers["retry-after-ms"]) // 1000)
    assert last.headers["x-ratelimit-remaining-requests"] == "0"
    assert upstream.received == 3


def test_tokens_are_limited_by_what_is_asked_for_and_then_by_what_was_used(every_limited: GatewayProcess) -> None:
    assert ask(every_limited, "wordy", max_tokens=900).status_code == 200
    wait_until(
        lambda: int(ask(every_limited, "wordy", max_tokens=1).headers["x-ratelimit-remaining-tokens"]) > 800,
        5,
        "what was not used has come back",
    )
    check_error(ask(every_limited, "wordy", max_tokens=995), 429, "tokens", "rate_limit_exceeded")


def test_calls_at_the_same_time_are_limited(every_limited: GatewayProcess, upstream: Upstream) -> None:
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(ask, every_limited, "narrow-lane", "slow-first-byte") for _ in range(2)]
        upstream.wait_for_calls(2)
        refused = ask(every_limited, "narrow-lane")
        assert [one.result(30).status_code for one in slow] == [200, 200]
    error = check_error(refused, 429, "requests", "rate_limit_exceeded")
    assert "2 calls at the same time for this API key" in error["message"]
    wait_until(lambda: ask(every_limited, "narrow-lane").status_code == 200, 5, "both have ended")


def test_key_that_policies_block_again_and_again_has_to_wait(every_limited: GatewayProcess, upstream: Upstream) -> None:
    """On two workers they hear of it from each other."""
    for _ in range(3):
        check_error(ask(every_limited, "rude", max_tokens=50), 400, "invalid_request_error", "policy_violation")
    wait_until(lambda: ask(every_limited, "rude").status_code == 429, 5, "it has to wait")
    time.sleep(1.2 if every_limited.redis_url else 0)
    refused = [ask(every_limited, "rude") for _ in range(4)]
    assert {answer.status_code for answer in refused} == {429}
    assert "blocked this key again and again" in refused[0].json()["error"]["message"]
    assert 0 < int(refused[0].headers["retry-after"]) <= 30
    event = every_limited.event_of(refused[0].headers["x-request-id"])
    assert event["refused_by"] == "wait of a key that policies have blocked again and again"
    assert call(every_limited, key="alice").status_code == 200


def test_key_works_from_its_networks_only(limited: GatewayProcess) -> None:
    error = check_error(ask(limited, "at-home"), 403, "invalid_request_error", "address_not_allowed")
    assert "network" in error["message"]


def test_what_nobody_bills_costs_nothing_on_a_budget(limited: GatewayProcess) -> None:
    assert ask(limited, "long", "echo").status_code == 200
