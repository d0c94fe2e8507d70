"""The harness drives real gateways: it starts, kills and restarts them, and reads their books."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from gateway_project.tests.cast import UPSTREAM_KEY
from gateway_project.tests.clients import RawClient, Stream, answer_text, call, check_error
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.upstream import Upstream


def test_call_goes_through_to_the_upstream_and_into_the_books(
    every_gateway: GatewayProcess, upstream: Upstream
) -> None:
    response = call(every_gateway)
    assert answer_text(response) == "w0 w1 w2 w3 w4 "
    assert upstream.received == 1
    assert upstream.last.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    event = every_gateway.event_of(response.headers["x-request-id"])
    assert (event["status"], event["prompt_tokens"], event["completion_tokens"]) == (200, 3, 5)
    assert event["cost_nano_usd"] == 3 * 1000 + 5 * 2000


def test_stream_is_taken_apart(gateway: GatewayProcess) -> None:
    stream = Stream.of(call(gateway, stream=True, stream_options={"include_usage": True}))
    assert (stream.text, stream.done, stream.error) == ("w0 w1 w2 w3 w4 ", True, None)
    assert stream.usage
    assert stream.usage["total_tokens"] == 8


def test_each_of_the_cast_may_call_what_the_cast_page_says(gateway: GatewayProcess) -> None:
    for name in ("alice", "bob", "charlie", "research-service"):
        assert call(gateway, key=name).status_code == 200
    check_error(call(gateway, "ok", key="charlie"), 404, "invalid_request_error", "model_not_found", param="model")
    check_error(call(gateway, key="expired"), 401, "invalid_request_error", "invalid_api_key")
    check_error(call(gateway, key="disabled"), 401, "invalid_request_error", "invalid_api_key")
    check_error(call(gateway, key=None), 401, "invalid_request_error", "invalid_api_key")
    check_error(call(gateway, key="embedder"), 403, "invalid_request_error", "endpoint_not_allowed")


def test_raw_client_calls_and_leaves(gateway: GatewayProcess, upstream: Upstream) -> None:
    with RawClient(gateway) as client:
        client.ask("patient/hang-midway", stream=True)
        client.read_until(b"w2 ")
        assert client.status == 200
        client.leave("rst")
    assert upstream.wait_for_end(upstream.last).client_left


def test_killed_gateway_starts_again_with_its_data(
    fresh_gateway: Callable[..., GatewayProcess], upstream: Upstream
) -> None:
    gateway = fresh_gateway()
    call(gateway)
    gateway.kill()
    assert not gateway.is_running
    gateway.start()
    assert answer_text(call(gateway)) == "w0 w1 w2 w3 w4 "
    gateway.wait_for_events(2)


def test_terminated_gateway_ends_well(fresh_gateway: Callable[..., GatewayProcess]) -> None:
    gateway = fresh_gateway(LOG_LEVEL="DEBUG")
    call(gateway)
    assert gateway.terminate(10) in (0, -signal.SIGTERM)


def test_gateway_that_cannot_start_says_why(fresh_gateway: Callable[..., GatewayProcess]) -> None:
    with pytest.raises(RuntimeError, match="SECRET_KEY"):
        fresh_gateway(SECRET_KEY="short")
