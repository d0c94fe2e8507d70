"""Compares three books: what the clients asked, what the upstream heard, what the gateway has written down."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.soak_load import UNANSWERED, Kind, Load, Seen
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.upstream import Call, Upstream

COLUMNS = (
    *("request_id", "status", "error_code", "estimated", "attempts"),
    *("prompt_tokens", "completion_tokens", "cost_nano_usd", "key_label"),
)
DIED = "gateway_died"
LEFT = 499
SHOWN = 5
Event = dict[str, Any]


def heard_by(upstream: Upstream) -> dict[str, list[Call]]:
    """By request id."""
    heard: dict[str, list[Call]] = {}
    for call in upstream.calls:
        heard.setdefault(call.json.get("user", ""), []).append(call)
    return heard


def events_of(gateway: GatewayProcess) -> list[Event]:
    return gateway.query(f"SELECT {', '.join(COLUMNS)} FROM usage_usageevent ORDER BY id")


def wait_for_books(gateway: GatewayProcess, heard: Iterable[str], load: Load, timeout_s: float) -> list[Event]:
    """Once every call that was heard or answered is booked, or when the time is over."""
    expected = {*heard, *(request_id for request_id, seen in load.asked.items() if seen and seen.status)}
    deadline = time.monotonic() + timeout_s
    while True:
        events = events_of(gateway)
        if expected <= {event["request_id"] for event in events} or time.monotonic() > deadline:
            return events
        time.sleep(1)


def differences(heard: Mapping[str, list[Call]], events: list[Event], load: Load) -> list[str]:
    """Each in a line. None: calls and tokens recorded are those that the upstream counted, and none is there twice."""
    by_id = {event["request_id"]: event for event in events}
    booked = Counter(event["request_id"] for event in events)
    told = {request_id for request_id, seen in load.asked.items() if seen and seen.status != UNANSWERED}
    answered = {request_id for request_id, seen in load.asked.items() if seen and seen.status == 200}
    found = [
        _line("made twice", [it for it, calls in heard.items() if len(calls) > 1]),
        _line("booked twice", [it for it, count in booked.items() if count > 1]),
        _line("heard by the upstream and not booked", heard.keys() - by_id.keys()),
        _line("told something and not booked", told - by_id.keys()),
        _line("answered and not heard by the upstream", answered - heard.keys()),
        _line("booked as answered and not heard", [it for it in by_id.keys() - heard.keys() if _good(by_id[it])]),
        _line("booked and asked by nobody", by_id.keys() - load.asked.keys()),
        _line("with other tokens", [it for it in heard.keys() & by_id.keys() if not _same(by_id[it], heard[it][0])]),
        _line("estimated without need", [it for it, event in by_id.items() if _needless(event, load.asked.get(it))]),
    ]
    _note_facts(heard, events, load)
    return [line for line in found if line]


def unexpected(load: Load) -> list[str]:
    """Calls that failed though what was the matter at that time is no reason for it."""
    failed: dict[tuple[str, str, int], list[str]] = {}
    for request_id, seen in load.asked.items():
        if seen is None:
            failed.setdefault(("nobody knows", "", 0), []).append(request_id)
        elif seen.status != 200 and not _has_reason(seen):
            failed.setdefault((seen.phases[0], seen.kind.name, seen.status), []).append(seen.words)
    return [
        f"{phase}: {len(words)} calls ({kind}) ended with {status}, such as {words[0]}"
        for (phase, kind, status), words in failed.items()
    ]


def _has_reason(seen: Seen) -> bool:
    if seen.status == 429:
        return seen.kind is Kind.SPENDS
    if seen.status == UNANSWERED:
        return "a worker dies" in seen.phases
    budgeted = seen.kind in (Kind.BUDGETED, Kind.BUDGETED_STREAM, Kind.SPENDS)
    return seen.status == 503 and budgeted and bool({"without Redis", "Redis is back"} & {*seen.phases})


def _good(event: Event) -> bool:
    return bool(event["status"] == 200 and not event["error_code"])


def _same(event: Event, call: Call) -> bool:
    """An estimate need not be the same."""
    counted = (call.prompt_tokens, call.completion_tokens)
    return event["estimated"] or (event["prompt_tokens"], event["completion_tokens"]) == counted


def _needless(event: Event, seen: Seen | None) -> bool:
    """Only calls that were cut short may be estimates."""
    if not event["estimated"] or event["error_code"] == DIED or event["status"] == LEFT:
        return False
    return seen is not None and seen.status == 200 and seen.kind is not Kind.LEAVES


def _note_facts(heard: Mapping[str, list[Call]], events: list[Event], load: Load) -> None:
    exact = [event for event in events if not event["estimated"] and event["request_id"] in heard]
    calls = [heard[event["request_id"]][0] for event in exact]
    counted = sum(call.prompt_tokens + call.completion_tokens for call in calls)
    recorded = sum(event[name] for event in exact for name in _TOKENS)
    orphans = sum(event["error_code"] == DIED for event in events)
    estimates = sum(bool(event["estimated"]) for event in events)
    load.facts += [
        f"{len(events):,} usage events; {len(exact):,} of them with the provider's own count: {recorded:,} tokens; the "
        f"upstream counted {counted:,}",
        f"{estimates:,} estimates, {orphans:,} of them of calls whose worker was killed",
    ]


_TOKENS = ("prompt_tokens", "completion_tokens")


def _line(what: str, ids: Iterable[str]) -> str:
    ids = sorted(ids)
    return f"{len(ids)} calls {what}: {', '.join(ids[:SHOWN])}{' ...' if len(ids) > SHOWN else ''}" if ids else ""
