"""What calls cost, from `apply` to the books and back: by the price of the team, and the same when priced again."""

from __future__ import annotations

from gateway_project.tests.clients import answer_text, call, new_request_id
from gateway_project.tests.gateway_process import GatewayProcess

PROMPT = [{"role": "user", "content": "one two three"}]


def test_each_team_is_charged_its_own_price(gateway: GatewayProcess) -> None:
    paid = {}
    for key in ("alice", "charlie"):
        request_id = new_request_id()
        response = call(gateway, "echo", key=key, messages=PROMPT, headers={"x-request-id": request_id})
        answer_text(response)
        event = gateway.event_of(request_id)
        tokens = event["prompt_tokens"] + 2 * event["completion_tokens"]
        paid[key] = event["cost_nano_usd"] / tokens
        told = response.headers["x-gatehouse-cost-usd"]
        assert int(told.replace(".", "")) == event["cost_nano_usd"]
    assert paid == {"alice": 1000, "charlie": 5000}


def test_books_price_every_call_again_as_it_was_priced(gateway: GatewayProcess) -> None:
    request_id = new_request_id()
    answer_text(call(gateway, "echo", key="charlie", stream=True, headers={"x-request-id": request_id}))
    gateway.event_of(request_id)
    out = gateway.manage("rerate", "--from", "2020-01-01", "--model", "echo", "--reason", "as they were", "--dry-run")
    assert "the cost of 0 would change" in out
