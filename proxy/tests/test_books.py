"""The books of one call: one event each, written before the provider hears of it and closed however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from accounts.authentication import Principal
from policies.types import Exchange
from proxy import books
from proxy.admission import Admission
from proxy.call import Call, Header
from proxy.errors import ClientLeft, GatewayError, InvalidRequest, LedgerUnavailable, ProviderError
from proxy.snapshot import Candidate
from proxy.tests.recorded import chat, target_of
from usage.journal import Journal, segments_of
from usage.ledger.base import Ticket
from usage.limits import Holding, LimitBook
from usage.pricing import Price, TokenUsage

PRICE = Price(input=1_000_000_000, output=2_000_000_000)  # nano-USD per million tokens: 1 and 2 USD
CANDIDATE = Candidate(target_of(provider="here", upstream_model="gpt-4o-mini-2024"), PRICE)
UNPRICED = Candidate(CANDIDATE.target, None)
ALICE = Principal(7, "abc", "laptop (abc)", 3, 5, None, None, None)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


TWENTY = ",".join(f"t{number}=x" for number in range(20))


def written(journal: Journal) -> list[dict[str, Any]]:
    lines = b"".join(path.read_bytes() for path in segments_of(journal.folder, journal.owner)).splitlines()
    return [orjson.loads(line) for line in lines]


def call_with(*headers: Header) -> Call:
    """A call whose facts are known. To be made inside an event loop, so all specs are async."""

    async def nothing(*_: Any) -> Any: ...

    scope = {"method": "POST", "path": "/v1/chat/completions", "headers": list(headers), "client": ("192.0.2.1", 1)}
    call = Call(scope, nothing, nothing)
    call.facts = books.facts_of(call, "chat/completions", "192.0.2.1")
    return call


def facts(*headers: Header) -> dict[str, Any]:
    found = call_with(*headers).facts
    assert found is not None
    return found


# --- what is known of a call -----------------------------------------------------------------------------------------


async def test_facts_tell_where_a_call_came_from() -> None:
    found = facts(
        (b"user-agent", b"OpenAI/Python 3.52.0"),
        (b"openai-organization", b"org-1"),
        (b"x-gatehouse-trace-id", b"trace-1"),
        (b"x-request-id", b"order-4711"),
    )
    assert (found["user_agent"], found["organization"], found["trace_id"]) == (
        "OpenAI/Python 3.52.0",
        "org-1",
        "trace-1",
    )
    assert (found["request_id"], found["client_ip"], found["endpoint"]) == (
        "order-4711",
        "192.0.2.1",
        "chat/completions",
    )


async def test_facts_of_a_bare_call_are_empty_and_not_missing() -> None:
    found = facts()
    assert (found["user_agent"], found["organization"], found["trace_id"], found["tags"]) == ("", "", "", {})
    assert found["request_id"] == f"req_{found['id']}"
    assert (found["key_id"], found["team_id"], found["user_id"]) == (None, None, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"x-gatehouse-trace-id", b"a"), (b"x-usagepanda-trace-id", b"b"), (b"traceparent", b"c")], "a"),
        ([(b"x-usagepanda-trace-id", b"b"), (b"traceparent", b"c")], "b"),
        ([(b"traceparent", b"00-4bf92f35-00f067aa-01")], "00-4bf92f35-00f067aa-01"),
    ],
)  # fmt: skip
async def test_trace_id_is_taken_from_the_most_particular_header(headers: list[Header], expected: str) -> None:
    assert facts(*headers)["trace_id"] == expected


async def test_what_a_client_writes_is_cut_to_what_the_database_takes() -> None:
    names = (b"user-agent", b"openai-organization", b"x-gatehouse-trace-id")
    found = facts(*((name, b"\xe9" * 5000) for name in names))
    assert [len(found[name]) for name in ("user_agent", "organization", "trace_id")] == [200, 100, 100]
    books.add_exchange(found, chat(model="m" * 500, user="u" * 500))
    assert (len(found["end_user"]), len(found["model"])) == (128, len("public-model"))
    books.add_exchange(found, Exchange("chat/completions", {}, model="m" * 500))
    assert len(found["model"]) == 200


async def test_principal_and_exchange_are_added() -> None:
    found = facts()
    books.add_principal(found, ALICE)
    books.add_exchange(found, chat(stream=True, user="carol"))
    assert (found["key_id"], found["key_label"], found["user_id"], found["team_id"]) == (7, "laptop (abc)", 3, 5)
    assert (found["model"], found["streamed"], found["end_user"]) == ("public-model", True, "carol")


# --- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("", {}),
        (" ", {}),
        ("a=b", {"a": "b"}),
        (" project = apollo , stage=test ", {"project": "apollo", "stage": "test"}),
        ("a=b,,c=d,", {"a": "b", "c": "d"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1,a=2", {"a": "2"}),
        ("a=é", {"a": "é"}),
        ("x" * 64 + "=" + "y" * 128, {"x" * 64: "y" * 128}),
        (TWENTY, {f"t{number}": "x" for number in range(20)}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_tags_are_pairs_of_name_and_value(header: str, tags: dict[str, str]) -> None:
    assert books.read_tags(header) == tags


@pytest.mark.parametrize(
    "header",
    ["a", "a,b=c", "=b", " =b", "a=\x01", "\x7f=a", "x" * 65 + "=y", "x=" + "y" * 129, "a=b," + TWENTY],
    ids=lambda value: repr(value)[:30],
)
def test_other_tags_are_refused(header: str) -> None:
    with pytest.raises(InvalidRequest, match="x-gatehouse-tags"):
        books.read_tags(header)


# --- opening ---------------------------------------------------------------------------------------------------------


async def test_call_is_written_down_as_it_would_stand_if_the_gateway_died(journal: Journal) -> None:
    call = call_with()
    books.open_call(journal, call, call.facts or {}, CANDIDATE, prompt_tokens=12)
    (record,) = written(journal)
    assert record["kind"] == "open"
    assert (record["id"], record["provider"], record["upstream_model"]) == (call.id, "here", "gpt-4o-mini-2024")
    assert (record["status"], record["error_code"], record["estimated"]) == (0, "gateway_died", True)
    assert (record["prompt_tokens"], record["completion_tokens"], record["cost_nano_usd"]) == (12, 0, 12_000)
    assert record["attempts"] == 1


async def test_call_on_a_budget_would_stand_with_the_longest_answer_that_was_held_for(journal: Journal) -> None:
    call = call_with()
    call.admission = Admission(LimitBook(), Holding((), ()), ALICE, Ticket(call.id, 1, call.at_us))
    call.admission.most_completion = 500
    books.open_call(journal, call, call.facts or {}, CANDIDATE, prompt_tokens=12)
    (record,) = written(journal)
    assert (record["prompt_tokens"], record["completion_tokens"], record["estimated"]) == (12, 500, True)
    assert record["cost_nano_usd"] > 12_000


async def test_second_attempt_is_not_opened_again(journal: Journal) -> None:
    call = call_with()
    for _ in range(3):
        books.open_call(journal, call, call.facts or {}, CANDIDATE, prompt_tokens=12)
    assert len(written(journal)) == 1


async def test_unknown_price_is_no_price_and_not_zero(journal: Journal) -> None:
    call = call_with()
    books.open_call(journal, call, call.facts or {}, UNPRICED, prompt_tokens=12)
    assert written(journal)[0]["cost_nano_usd"] is None


async def test_team_with_a_price_of_its_own_pays_that(journal: Journal) -> None:
    facts = {**(call_with().facts or {}), "team_id": 7}
    candidate = replace(CANDIDATE, team_prices={7: Price(input=5_000_000, output=0)})
    books.open_call(journal, call_with(), facts, candidate, prompt_tokens=12)
    assert written(journal)[0]["cost_nano_usd"] == 12 * 5


async def test_call_that_cannot_be_written_down_is_not_made(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "open", full)
    call = call_with()
    with pytest.raises(LedgerUnavailable) as caught:
        books.open_call(journal, call, call.facts or {}, CANDIDATE, prompt_tokens=12)
    assert caught.value.status == 503
    assert not call.opened


# --- closing ---------------------------------------------------------------------------------------------------------


async def settled(journal: Journal, call: Call, error: GatewayError | None = None) -> dict[str, Any]:
    books.settle(journal, call, error)
    return written(journal)[-1]


async def test_opened_call_is_settled_with_what_was_used(journal: Journal) -> None:
    call = call_with()
    books.open_call(journal, call, call.facts or {}, CANDIDATE, prompt_tokens=12)
    call.outcome = {"provider": "there", **books.used(TokenUsage(prompt=10, completion=5), PRICE)}
    call.status, call.first_byte_us = 200, 1500
    record = await settled(journal, call)
    assert (record["kind"], record["id"], record["status"], record["error_code"]) == ("settle", call.id, 200, "")
    assert (record["prompt_tokens"], record["completion_tokens"], record["cost_nano_usd"]) == (10, 5, 20_000)
    assert (record["provider"], record["first_byte_us"]) == ("there", 1500)
    assert record["latency_us"] > 0


async def test_refused_call_is_one_whole_record_that_cost_nothing(journal: Journal) -> None:
    record = await settled(journal, call_with(), InvalidRequest("No.", param="n"))
    assert len(written(journal)) == 1
    assert (record["kind"], record["status"], record["error_code"]) == ("whole", 400, "invalid_request_error")
    assert (record["cost_nano_usd"], record["estimated"], record["attempts"]) == (0, False, 0)


async def test_call_of_a_client_that_left_is_a_499_whatever_else_happened(journal: Journal) -> None:
    for status, error in ((200, None), (0, ClientLeft("The client left.")), (0, InvalidRequest("No."))):
        call = call_with()
        call.client_gone, call.status = True, status
        record = await settled(journal, call, error)
        assert (record["status"], record["error_code"]) == (499, "client_disconnected")


async def test_error_in_a_stream_that_has_begun_is_the_events_error(journal: Journal) -> None:
    call = call_with()
    books.open_call(journal, call, call.facts or {}, CANDIDATE, prompt_tokens=12)
    call.status, call.streaming = 200, True
    error = ProviderError(500, {"message": "x", "type": "server_error", "param": None, "code": "overloaded"}, {})
    record = await settled(journal, call, error)
    assert (record["status"], record["error_code"]) == (500, "overloaded")


async def test_code_that_a_provider_made_up_is_cut_to_what_the_database_takes(journal: Journal) -> None:
    error = ProviderError(400, {"message": "x", "type": "t", "param": None, "code": "c" * 500}, {})
    assert (await settled(journal, call_with(), error))["error_code"] == "c" * 64


async def test_refused_call_that_cannot_be_written_down_stays_refused(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(record: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "whole", full)
    books.settle(journal, call_with(), InvalidRequest("No."))


async def test_unknown_url_is_no_event(journal: Journal) -> None:
    call = call_with()
    call.facts = None
    books.settle(journal, call, InvalidRequest("No."))
    assert written(journal) == []


def test_unpriced_call_that_used_nothing_cost_nothing() -> None:
    assert books.used(TokenUsage(), None)["cost_nano_usd"] == 0
    assert books.used(TokenUsage(prompt=1), None)["cost_nano_usd"] is None
