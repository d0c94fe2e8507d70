"""The books of one call: the usage event it becomes, written to the journal before and after the provider hears of it.

Exactly one event a call: `open` before the first attempt and `settle` at the end, or `whole` when nobody was asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from accounts.authentication import Principal
from policies.types import Exchange
from proxy.call import Call
from proxy.errors import GatewayError, InvalidRequest, LedgerUnavailable
from proxy.snapshot import Candidate
from usage.journal import Journal
from usage.pricing import Price, TokenUsage, cost, event_columns

MAX_TAGS = 20
REMEMBERED_TAGS_CHARS = 500
# What a call costs is not known when the gateway dies in its middle: this stands until `settle` replaces it.
UNSETTLED = {
    "status": 0,
    "error_code": "gateway_died",
    "cached_tokens": 0,
    "cache_write_tokens": 0,
    "reasoning_tokens": 0,
    "estimated": True,
    "latency_us": 0,
    "first_byte_us": None,
    "attempts": 1,
    "above_hold": False,
    "units": {},
}
NOTHING_USED = {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "cached_tokens": 0,
    "cache_write_tokens": 0,
    "reasoning_tokens": 0,
    "estimated": False,
    "cost_nano_usd": 0,
    "attempts": 0,
    "above_hold": False,
    "units": {},
}


def facts_of(call: Call, endpoint: str, client_ip: str) -> dict[str, Any]:
    """What is known of a call before anything else; the other columns are filled in as they become known."""
    headers = call.headers
    return {
        "id": call.id,
        "at": call.at_us,
        "request_id": call.request_id,
        "endpoint": endpoint,
        "key_id": None,
        "key_label": "",
        "user_id": None,
        "team_id": None,
        "model": "",
        "provider": "",
        "upstream_model": "",
        "streamed": False,
        "end_user": "",
        "client_ip": client_ip,
        "user_agent": read_text(headers.get(b"user-agent", b""))[:200],
        "organization": read_text(headers.get(b"openai-organization", b""))[:100],
        "trace_id": _trace_id(headers),
        "tags": {},
    }


def add_principal(facts: dict[str, Any], principal: Principal) -> None:
    facts["key_id"] = principal.key_id
    facts["key_label"] = principal.key_label
    facts["user_id"] = principal.user_id
    facts["team_id"] = principal.team_id


def add_exchange(facts: dict[str, Any], exchange: Exchange) -> None:
    facts["model"] = _storable(exchange.model[:200])
    facts["streamed"] = exchange.stream
    user = exchange.body.get("user")
    if user:
        facts["end_user"] = _storable(user[:128])


def open_call(journal: Journal, call: Call, facts: dict[str, Any], candidate: Candidate, prompt_tokens: int) -> None:
    """Write the call down, once, before the first provider hears of it. Raises LedgerUnavailable."""
    if call.opened:
        return
    facts["provider"] = candidate.target.provider
    facts["upstream_model"] = candidate.target.upstream_model
    # When the gateway dies in the midst of it, nobody knows how much was answered. On a budget it is then all that was
    # held for: too much, rather than free.
    completion_tokens = 0 if call.admission is None else call.admission.most_completion
    used = TokenUsage(prompt=prompt_tokens, completion=completion_tokens)
    record = {
        **facts,
        **UNSETTLED,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost_nano_usd": _cost(used, candidate.price_for(facts["team_id"])),
    }
    try:
        journal.open(record)
    except OSError as error:
        raise LedgerUnavailable(
            "The gateway cannot write down this call, so it is not made. Try again later."
        ) from error
    call.opened = True


def note_failure(journal: Journal, call: Call, before: str, candidate: Candidate, error: GatewayError) -> str:
    """Write down that a route has failed and the next one is asked: so it is known even if the gateway dies then. Gives
    all that have failed, as usage events have them."""
    failed_tries = ",".join(filter(None, (before, f"{candidate.target.provider}:{error.status}")))
    journal.note({"id": call.id, "failed_tries": failed_tries})
    return failed_tries


def used(usage: TokenUsage, price: Price | None) -> dict[str, Any]:
    """The columns that say what was used and what it costs; cost None: the price is not known."""
    return {**event_columns(usage), "cost_nano_usd": _cost(usage, price)}


def settle(journal: Journal, call: Call, error: GatewayError | None) -> None:
    """Close the books. `call.outcome` holds what was used, and which provider answered, where any did."""
    if call.facts is None:
        return
    ending = {
        "status": 499 if call.client_gone else error.status if error else call.status,
        "error_code": _error_code(call, error),
        "latency_us": call.elapsed_us(),
        "first_byte_us": call.first_byte_us,
    }
    extras = {} if call.passage is None else call.passage.extras(call.facts)
    if call.opened:
        journal.settle({**call.outcome, **ending, **extras, "id": call.id})
        return
    try:
        journal.whole({**call.facts, **NOTHING_USED, **ending, **extras})
    except OSError:
        # Nobody was asked and nothing was spent: the refusal stands, and the log of the disk says why it is missing.
        return


def read_text(header: bytes) -> str:
    """Clients write names of people and places into headers as UTF-8, whatever the standards say; else Latin-1."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def read_tags(header: str) -> dict[str, str]:
    """`name=value` pairs separated by commas, at most 20 of 64 and 128 characters; not to be changed, other calls have
    the same ones. Raises InvalidRequest."""
    return _known_tags(header) if len(header) <= REMEMBERED_TAGS_CHARS else _read_tags(header)


def _read_tags(header: str) -> dict[str, str]:
    tags = {}
    for item in header.split(","):
        name, separator, value = item.strip().partition("=")
        if not name and not separator:
            continue
        if not name or not separator or len(name) > 64 or len(value) > 128 or not item.isprintable():
            raise InvalidRequest("The x-gatehouse-tags header must be like 'project=apollo, stage=test'.")
        tags[name.strip()] = value.strip()
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"The x-gatehouse-tags header has more than {MAX_TAGS} tags.")
    return tags


# An app sends the same tags again and again; longer ones are not worth the memory.
_known_tags = lru_cache(maxsize=1024)(_read_tags)


def _storable(text: str) -> str:
    """Without halves of surrogate pairs, which no file and no database takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _error_code(call: Call, error: GatewayError | None) -> str:
    if call.client_gone:
        return "client_disconnected"
    if error is None:
        return ""
    return (error.code or error.type)[:64]


def _cost(usage: TokenUsage, price: Price | None) -> int | None:
    if price is not None:
        return cost(usage, price)
    return None if usage.prompt or usage.completion else 0


def _trace_id(headers: dict[bytes, bytes]) -> str:
    for name in (b"x-gatehouse-trace-id", b"x-usagepanda-trace-id", b"traceparent"):
        if name in headers:
            return read_text(headers[name])[:100]
    return ""
