"""Moderation on real calls: who is asked when, what leaves before the verdict, and what the client gets of it.

One gateway for all of it: each policy of POLICIES holds for a key of the same name. The texts say themselves what the
moderation of the upstream is to find in them (upstream/answers.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from accounts.keys import make_key, make_public_id
from gateway_project.tests.clients import RawClient, Stream, answer_text, call, check_error
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import wait_until
from gateway_project.tests.upstream import ANSWERED, Call, Upstream

JUDGE_KEY = "sk-judge-0123456789"
FINE, VIOLENT = "one two three", "one flag:violence three"
SHORT = {"role": "user", "content": "a"}
MESSAGE = "Moderation flagged this request. Rephrase it."
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
SLOW = "mod:slow-first-byte?delay_ms=400"
SLOWER = "mod:slow-first-byte?delay_ms=900"
FAILING: dict[str, dict[str, Any]] = {
    "500": {},
    "401": {},
    "garbage": {},
    "empty": {},
    "json?body={}": {},
    "html?status=200": {},
    "close-before-head": {},
    "reset-midway": {},
    "huge-body?mb=2": {},
    "hang": {"timeout_ms": 200},
    "hang-midway": {"timeout_ms": 200},
}


def rule(model: str = "mod", stage: str = "request", action: str = "block", **more: Any) -> dict[str, Any]:
    """`more`: fields of the rule, and settings of the check."""
    of_rule = ("fail_open", "timeout_ms", "dry_run", "block_with")
    fields: dict[str, Any] = {name: more.pop(name) for name in of_rule if name in more}
    settings = {"provider": "judge", "model": model, **more}
    return {"check": "moderation", "action": action, "stage": stage, "settings": settings, **fields}


POLICIES: dict[str, list[dict[str, Any]]] = {
    "before": [rule()],
    "parallel": [rule(mode="parallel")],
    "replies": [rule(stage="reply")],
    "answers": [rule(block_with="answer")],
    "strict": [rule(thresholds={"hate": 0.4})],
    "only-hate": [rule(categories=["hate"])],
    "slow-before": [rule(SLOW)],
    "slow-parallel": [rule(SLOW, mode="parallel")],
    "slower-parallel": [rule(SLOWER, mode="parallel")],
    "slow-replies": [rule(SLOW, stage="reply")],
    "audits": [rule(stage="both", action="audit")],
    "dry-run": [rule(mode="parallel", dry_run=True)],
    "of-echo": [{**rule(), "settings": {"provider": "echo"}}],
    "masks": [
        {"check": "wordlist", "action": "redact", "stage": "both", "settings": {"wordlists": ["custom"]}},
        rule(stage="both"),
    ],
    "parallel-500": [rule("mod:500", mode="parallel")],
    "replies-500": [rule("mod:500", stage="reply")],
    "open-500": [rule("mod:500", fail_open=True)],
    "open-parallel-hang": [rule("mod:hang", mode="parallel", fail_open=True, timeout_ms=200)],
    "open-replies-500": [rule("mod:500", stage="reply", fail_open=True)],
    **{f"fails-{number}": [rule(f"mod:{name}", **more)] for number, (name, more) in enumerate(FAILING.items())},
}


@pytest.fixture(scope="module")
def moderated(make_gateway: Callable[..., Any], gateway_configuration: dict[str, Any]) -> Iterator[GatewayProcess]:
    keys = {name: make_key(make_public_id()) for name in POLICIES}
    (here,) = (row for row in gateway_configuration["providers"] if row["name"] == "patient")
    slow = {"slow": "slow-first-byte?delay_ms=900", "slow-stream": "ok?delay_ms=200"}
    configuration = {
        **gateway_configuration,
        "providers": [*gateway_configuration["providers"], {**here, "name": "judge", "api_key": JUDGE_KEY}],
        "models": [
            *gateway_configuration["models"],
            *(
                {"name": name, "routes": [{"provider": "patient", "upstream_model": f"gpt-test:{wish}"}]}
                for name, wish in slow.items()
            ),
        ],
        "wordlists": [{"name": "custom", "words": ["secret project"]}],
        "policies": [{"name": name, "scope": {"key": name}, "rules": rules} for name, rules in POLICIES.items()],
        "keys": [
            *gateway_configuration["keys"],
            *({"name": name, "user": "alice", "team": "research", "secret": keys[name]} for name in POLICIES),
        ],
    }
    with make_gateway("sqlite", configuration) as gateway:
        gateway.keys.update(keys)
        yield gateway


@pytest.fixture(autouse=True)
def empty_books(upstream: Upstream) -> None:
    """Each test sees the calls of its own only."""


def ask(gateway: GatewayProcess, key: str, text: str = FINE, model: str = "gpt-test", **more: Any) -> httpx.Response:
    return call(gateway, model, key=key, messages=[{"role": "user", "content": text}], **more)


def moderations(upstream: Upstream) -> list[Call]:
    return [one for one in upstream.calls if one.path == "/v1/moderations"]


def model_calls(upstream: Upstream) -> list[Call]:
    return [one for one in upstream.calls if one.path != "/v1/moderations"]


def check_blocked(response: httpx.Response) -> None:
    error = check_error(response, 400, "invalid_request_error", "policy_violation")
    assert error["message"] == MESSAGE


def findings(gateway: GatewayProcess, response: httpx.Response, count: int = 1) -> list[dict[str, Any]]:
    request_id = response.headers["x-request-id"]
    statement = f"SELECT * FROM policies_finding WHERE request_id = '{request_id}' ORDER BY stage, id"
    wait_until(lambda: len(gateway.query(statement)) >= count, 5, f"{count} findings of {request_id}")
    return gateway.query(statement)


# --- before ----------------------------------------------------------------------------------------------------------


@STREAMED
def test_flagged_request_never_reaches_the_model(moderated: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    check_blocked(ask(moderated, "before", VIOLENT, stream=stream))
    assert len(moderations(upstream)) == 1
    assert model_calls(upstream) == []


@STREAMED
def test_clean_request_leaves_only_when_the_verdict_is_in(
    moderated: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    assert answer_text(ask(moderated, "slow-before", stream=stream)) == "w0 w1 w2 w3 w4 "
    (moderation,), (answered,) = moderations(upstream), model_calls(upstream)
    assert moderation.closed_at is not None
    assert moderation.closed_at <= answered.opened_at


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (
            "chat/completions",
            {"messages": [{"role": "system", "content": "flag:hate"}, {"role": "user", "content": "a"}]},
        ),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "flag:hate"}]}]}),
        (
            "chat/completions",
            {
                "messages": [SHORT],
                "tools": [{"type": "function", "function": {"name": "find", "description": "flag:hate"}}],
            },
        ),
        ("completions", {"prompt": "flag:hate"}),
        ("completions", {"prompt": ["a", "flag:hate"]}),
        ("embeddings", {"input": "flag:hate"}),
        ("embeddings", {"input": ["a", "flag:hate"]}),
    ],
)
def test_every_endpoint_is_moderated_wherever_its_texts_are(
    moderated: GatewayProcess, upstream: Upstream, endpoint: str, fields: dict[str, Any]
) -> None:
    model = "embedding-test" if endpoint == "embeddings" else "gpt-test"
    check_blocked(call(moderated, model, endpoint=endpoint, key="before", **fields))
    assert model_calls(upstream) == []


def test_clean_embedding_passes(moderated: GatewayProcess, upstream: Upstream) -> None:
    response = call(moderated, "embedding-test", endpoint="embeddings", key="before", input=["a", "b"])
    assert len(response.json()["data"]) == 2
    assert len(moderations(upstream)) == 1


@pytest.mark.parametrize("key", ["before", "parallel"])
def test_token_numbers_that_nobody_could_judge_are_refused(
    moderated: GatewayProcess, upstream: Upstream, key: str
) -> None:
    response = call(moderated, "embedding-test", endpoint="embeddings", key=key, input=[[1, 2, 3]])
    check_error(response, 400, "invalid_request_error", "policy_violation")
    assert upstream.received == 0


def test_judge_is_asked_with_the_providers_key_and_nothing_of_the_caller(
    moderated: GatewayProcess, upstream: Upstream
) -> None:
    own = {"x-gatehouse-provider-key": "sk-own-of-the-caller", "x-team": "apollo"}
    ask(moderated, "before", model="own-key-test", headers=own, user="alice@example.org")
    (moderation,), (answered,) = moderations(upstream), model_calls(upstream)
    assert moderation.header("authorization") == f"Bearer {JUDGE_KEY}"
    assert answered.header("authorization") == "Bearer sk-own-of-the-caller"
    assert moderation.header("x-team") is None
    assert moderation.json == {"model": "mod", "input": [FINE]}


def test_texts_come_to_the_judge_with_what_other_rules_mask(moderated: GatewayProcess, upstream: Upstream) -> None:
    upstream_text = "the secret project ends"
    ask(moderated, "masks", "the secret project begins", model="repeat", metadata={"note": upstream_text})
    said = [text for one in moderations(upstream) for text in one.json["input"]]
    assert len(moderations(upstream)) == 2
    assert all("secret" not in text for text in said)
    assert any("the **** begins" in text for text in said)


@pytest.mark.parametrize(
    ("key", "text", "blocked"),
    [
        ("strict", "score:hate=0.39", False),
        ("strict", "score:hate=0.4", True),
        ("strict", "flag:violence", True),
        ("only-hate", "flag:violence", False),
        ("only-hate", "flag:hate", True),
    ],
)
def test_thresholds_and_categories_decide(moderated: GatewayProcess, key: str, text: str, blocked: bool) -> None:
    assert ask(moderated, key, text).status_code == (400 if blocked else 200)


@STREAMED
def test_rule_may_answer_instead_of_an_error(moderated: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    assert answer_text(ask(moderated, "answers", VIOLENT, stream=stream)) == MESSAGE
    assert model_calls(upstream) == []


def test_finding_names_the_category_and_not_the_text(moderated: GatewayProcess) -> None:
    response = ask(moderated, "before", "words of mine flag:violence flag:hate")
    rows = findings(moderated, response, 2)
    assert sorted((row["label"], row["check_name"], row["action"]) for row in rows) == [
        ("hate", "moderation", "block"),
        ("violence", "moderation", "block"),
    ]
    assert "words of mine" not in f"{rows} {response.text} {moderated.log}"


def test_moderation_costs_nothing_and_is_counted(moderated: GatewayProcess) -> None:
    response = ask(moderated, "before")
    event = moderated.event_of(response.headers["x-request-id"])
    assert (event["provider"], event["prompt_tokens"], event["completion_tokens"]) == ("upstream", 3, 5)
    assert event["cost_nano_usd"] == 3 * 1000 + 5 * 2000
    metrics = moderated.http.get("/metrics").text
    assert 'gatehouse_moderations_total{outcome="passed",provider="judge"}' in metrics


# --- replies ---------------------------------------------------------------------------------------------------------


def test_flagged_reply_is_not_given(moderated: GatewayProcess, upstream: Upstream) -> None:
    check_blocked(ask(moderated, "replies", VIOLENT, model="repeat"))
    assert len(model_calls(upstream)) == 1


def test_flagged_stream_ends_with_the_error_and_none_of_its_text(moderated: GatewayProcess) -> None:
    stream = Stream.of(ask(moderated, "replies", VIOLENT, model="repeat", stream=True))
    assert stream.text == ""
    assert stream.error is not None
    assert (stream.error["code"], stream.error["message"]) == ("policy_violation", MESSAGE)
    assert not stream.done


@STREAMED
def test_clean_reply_comes_as_it_is(moderated: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    assert answer_text(ask(moderated, "slow-replies", stream=stream)) == "w0 w1 w2 w3 w4 "
    (moderation,), (answered,) = moderations(upstream), model_calls(upstream)
    assert moderation.opened_at > answered.opened_at
    assert moderation.json["input"] == ["w0 w1 w2 w3 w4"]


# --- parallel --------------------------------------------------------------------------------------------------------


@STREAMED
def test_parallel_request_leaves_at_once_and_the_reply_waits_for_the_verdict(
    moderated: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    with RawClient(moderated) as client:
        content = b'{"model": "gpt-test", "messages": [{"role": "user", "content": "a"}], "stream": %s}'
        content %= b"true" if stream else b"false"
        client.send(client.head(len(content), key="slow-parallel") + content)
        upstream.wait_for_calls(2)
        (answered,) = model_calls(upstream)
        assert upstream.wait_for_end(answered).ended == ANSWERED
        (moderation,) = moderations(upstream)
        assert moderation.ended is None
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(10)
        client.read_until(b"w4 ")
        assert upstream.wait_for_end(moderation).ended == ANSWERED  # its books close a moment after its last byte
        assert client.status == 200


@STREAMED
def test_parallel_moderation_adds_no_waiting_when_the_model_takes_as_long(
    moderated: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    """Each takes 0.9 s, one after the other 1.8."""
    begun = time.monotonic()
    assert answer_text(ask(moderated, "slower-parallel", model="slow", stream=stream)) == "w0 w1 w2 w3 w4 "
    assert time.monotonic() - begun >= 0.9
    answered, moderated_at = model_calls(upstream)[0], moderations(upstream)[0]
    assert upstream.wait_for_end(moderated_at).closed_at > answered.opened_at  # type: ignore[operator]
    assert upstream.wait_for_end(answered).closed_at > moderated_at.opened_at  # type: ignore[operator]
    assert upstream.received == 2


@STREAMED
def test_parallel_block_withholds_the_reply_and_the_call_is_billed(
    moderated: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    response = ask(moderated, "parallel", VIOLENT, stream=stream)
    check_blocked(response)
    assert "w0" not in response.text
    assert len(model_calls(upstream)) == 1
    event = moderated.event_of(response.headers["x-request-id"])
    assert (event["status"], event["error_code"]) == (400, "policy_violation")
    assert event["cost_nano_usd"] > 0


def test_client_that_leaves_is_waited_for_by_neither(moderated: GatewayProcess, upstream: Upstream) -> None:
    content = b'{"model": "patient/hang", "messages": [{"role": "user", "content": "a"}], "stream": true}'
    with RawClient(moderated) as client:
        client.send(client.head(len(content), key="slower-parallel") + content)
        calls = upstream.wait_for_calls(2)
    for one in calls:
        assert upstream.wait_for_end(one).client_left


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(FAILING)), ids=list(FAILING))
def test_moderation_that_fails_blocks_and_the_request_stays_here(
    moderated: GatewayProcess, upstream: Upstream, number: int
) -> None:
    begun = time.monotonic()
    response = ask(moderated, f"fails-{number}")
    error = check_error(response, 503, "server_error", "check_failed")
    assert FINE not in error["message"]
    assert model_calls(upstream) == []
    assert time.monotonic() - begun < 2
    (row,) = findings(moderated, response)
    assert (row["check_name"], row["failed"]) == ("moderation", 1)


@STREAMED
@pytest.mark.parametrize("key", ["parallel-500", "replies-500"])
def test_moderation_that_fails_later_withholds_the_reply(moderated: GatewayProcess, key: str, stream: bool) -> None:
    response = ask(moderated, key, stream=stream)
    assert "w0" not in response.text
    assert '"code":"check_failed"' in response.text


@STREAMED
@pytest.mark.parametrize("key", ["open-500", "open-parallel-hang", "open-replies-500"])
def test_failure_lets_the_call_pass_only_where_the_rule_says_so_and_is_written_down(
    moderated: GatewayProcess, key: str, stream: bool
) -> None:
    response = ask(moderated, key, stream=stream)
    assert answer_text(response) == "w0 w1 w2 w3 w4 "
    (row,) = findings(moderated, response)
    assert (row["check_name"], row["failed"]) == ("moderation", 1)


def test_provider_without_moderation_is_said_in_the_log_and_not_to_the_caller(moderated: GatewayProcess) -> None:
    response = ask(moderated, "of-echo")
    error = check_error(response, 503, "server_error", "check_failed")
    assert "echo" not in error["message"]
    said = "moderation by provider echo failed: providers of kind echo have no moderation endpoint"
    assert said in [line["message"] for line in moderated.log_lines(response.headers["x-request-id"])]


# --- audit -----------------------------------------------------------------------------------------------------------


def test_rules_that_only_watch_ask_after_the_reply(moderated: GatewayProcess, upstream: Upstream) -> None:
    audited = ask(moderated, "audits", VIOLENT, model="repeat", stream=True)
    tried = ask(moderated, "dry-run", VIOLENT)
    assert VIOLENT in answer_text(audited)
    assert answer_text(tried) == "w0 w1 w2 w3 w4 "
    wait_for_pending(moderated, audited, 2)
    wait_for_pending(moderated, tried, 1)
    assert moderations(upstream) == []
    # What Celery does every few seconds, in a process of its own as there.
    moderated.manage("shell", "-v", "0", "-c", "from policies.tasks import moderate_pending; moderate_pending()")
    assert [told(row) for row in findings(moderated, audited, 2)] == [
        ("reply", "audit", 0, "violence", 0),
        ("request", "audit", 0, "violence", 0),
    ]
    assert [told(row) for row in findings(moderated, tried)] == [("request", "block", 1, "violence", 0)]
    assert moderated.query("SELECT id FROM policies_pendingmoderation") == []


@STREAMED
def test_nobody_waits_for_an_audit(moderated: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    with RawClient(moderated) as client:
        content = b'{"model": "slow-stream", "messages": [{"role": "user", "content": "a"}], "stream": %s}'
        content %= b"true" if stream else b"false"
        client.send(client.head(len(content), key="audits") + content)
        client.read_until(b"w0 ")
        if stream:
            assert upstream.last.ended is None
    assert moderations(upstream) == []


def test_texts_that_wait_are_readable_nowhere(moderated: GatewayProcess) -> None:
    words = "nobody may read these words of mine"
    response = ask(moderated, "audits", words)
    wait_for_pending(moderated, response, 2)
    files = [path for path in moderated.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" for path in files)
    assert [path.name for path in files if words.encode() in path.read_bytes()] == []


def wait_for_pending(gateway: GatewayProcess, response: httpx.Response, count: int) -> None:
    event_id = gateway.event_of(response.headers["x-request-id"])["id"].hex
    statement = f"SELECT id FROM policies_pendingmoderation WHERE event_id = '{event_id}'"
    wait_until(lambda: len(gateway.query(statement)) == count, 5, f"{count} texts wait")


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["stage"], row["action"], row["dry_run"], row["label"], row["failed"]
