"""Prometheus metrics of calls, counted from the journal by the flusher: the path of a call pays nothing for them.

Right with several workers: prometheus-client keeps each process's numbers in files of PROMETHEUS_MULTIPROC_DIR and the
scrape adds them up. Labels are bounded: a model or provider is only named when the catalogue has it.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from usage.histogram import BOUNDS_S

REQUESTS = Counter("gatehouse_requests", "Calls by how they ended.", ["endpoint", "model", "provider", "status"])
ERRORS = Counter("gatehouse_errors", "Calls that ended in an error, by its code.", ["endpoint", "code"])
TOKENS = Counter("gatehouse_tokens", "Tokens as billed.", ["model", "kind"])
COST = Counter("gatehouse_cost_usd", "Cost of priced calls, US dollars.", ["model"])
UNPRICED = Counter("gatehouse_unpriced_calls", "Answered calls whose price is not known.", ["model"])
UNRECORDED = Counter(
    "gatehouse_unrecorded_calls", "Calls without a valid key that came too fast to be written down as usage events."
)
FINDINGS = Counter(
    "gatehouse_findings",
    "What policies found, by check and by what was done: audit, redact, block; dry_run; failed (the check itself).",
    ["check", "action"],
)
MODERATIONS = Counter(
    "gatehouse_moderations",
    "Moderations by outcome: passed, flagged, failed, given_up (no answer in time).",
    ["provider", "outcome"],
)
LATENCY = Histogram("gatehouse_latency_seconds", "From request to last byte.", ["endpoint"], buckets=BOUNDS_S)
FIRST_BYTE = Histogram(
    "gatehouse_first_byte_seconds", "From request to the first byte of the answer.", ["endpoint"], buckets=BOUNDS_S
)
SNAPSHOT_AGE = Gauge(
    "gatehouse_snapshot_age_seconds",
    "Since the configuration was last known to be current; the oldest worker's.",
    multiprocess_mode="livemax",
)

_children: dict[tuple[str, ...], Any] = {}


def count(event: dict[str, Any]) -> None:
    """Count one finished usage event."""
    endpoint, model = event["endpoint"], event["model"] if event["attempts"] else ""
    _child(REQUESTS, endpoint, model, event["provider"], str(event["status"])).inc()
    if event["error_code"]:
        _child(ERRORS, endpoint, event["error_code"]).inc()
    _child(LATENCY, endpoint).observe(event["latency_us"] / 1e6)
    if event["first_byte_us"] is not None:
        _child(FIRST_BYTE, endpoint).observe(event["first_byte_us"] / 1e6)
    for finding in event.get("findings") or ():
        done = "failed" if finding.get("failed") else "dry_run" if finding.get("dry_run") else finding.get("action", "")
        _child(FINDINGS, finding.get("check", ""), done).inc()
    if not event["attempts"]:
        return
    if event["prompt_tokens"]:
        _child(TOKENS, model, "prompt").inc(event["prompt_tokens"])
    if event["completion_tokens"]:
        _child(TOKENS, model, "completion").inc(event["completion_tokens"])
    if event["cost_nano_usd"] is None:
        _child(UNPRICED, model).inc()
    elif event["cost_nano_usd"]:
        _child(COST, model).inc(event["cost_nano_usd"] / 1e9)


def count_moderation(provider: str, outcome: str) -> None:
    """`provider`: as the catalogue names it, "" when it does not."""
    _child(MODERATIONS, provider, outcome).inc()


def _child(metric: Any, *labels: str) -> Any:
    """`metric.labels(...)` without its price: it takes a lock and builds a key at each call."""
    key = (metric._name, *labels)
    child = _children.get(key)
    if child is None:
        child = _children[key] = metric.labels(*labels)
    return child
