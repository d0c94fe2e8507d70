"""Whatever JSON the door lets through, no check that looks at the request as a whole breaks on it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.checks.base import CHECKS, Check, has
from policies.errors import Blocked
from policies.tests.request_checks import CHAT, COMPLETIONS, EMBEDDINGS, compiled
from policies.types import Exchange, Found

# Settings for those that need some; a check that inspects and is not here runs with its defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "allowed_models": {"models": ["a", "gpt-*"]},
    "canned_reply": {"replies": [{"match": "hello there", "reply": "hi"}]},
    "disabled_models": {"models": ["a", "*x*"]},
    "loop": {"repeats": 2},
    "max_prompt_chars": {"limit": 3},
    "max_tokens": {"limit": 3, "missing_counts": True},
    "message_limits": {"max_messages": 1, "max_message_chars": 3, "max_body_bytes": 10},
    "system_prompt": {"text": "Be kind.", "where": "replace"},
    "tools": {"allow": ["a", "read_*"], "block": ["x*"], "on_block": "strip"},
}
MOMENTS = ("inspect", "enforce")
NAMES = sorted(name for name, check in CHECKS.items() if any(has(check, moment) for moment in MOMENTS))

WORDS = st.sampled_from(
    [
        "",
        "a",
        "x",
        "hello there",
        "system",
        "Developer ",
        "user",
        "tool",
        "function",
        "text",
        "web_search",
        "\ud83d",
        "語",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from([2**64, -(2**70)]) | st.floats(allow_nan=False)
FIELDS = "role content type text name function custom tool_calls function_call id refusal arguments allowed_tools tools"
KEYS = WORDS | st.sampled_from(FIELDS.split())
JSON = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=5)
MESSAGE = st.fixed_dictionaries(
    {"role": WORDS},
    optional={
        "content": st.none() | WORDS | st.lists(OBJECTS | WORDS, max_size=3),
        "tool_calls": JSON | st.lists(OBJECTS, max_size=3),
        "function_call": JSON | OBJECTS,
        "name": JSON,
    },
)
PROMPTS = WORDS | st.lists(WORDS) | st.lists(st.integers()) | st.lists(st.lists(st.integers())) | JSON
TOOLS = st.lists(OBJECTS | st.fixed_dictionaries({"type": WORDS, "function": OBJECTS}), max_size=3) | JSON
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(MESSAGE, max_size=5) | JSON,
        "prompt": PROMPTS,
        "input": PROMPTS,
        "tools": TOOLS,
        "functions": TOOLS,
        "tool_choice": JSON | OBJECTS,
        "function_call": JSON | OBJECTS,
        "web_search_options": JSON,
        "mcp_servers": JSON,
        "max_tokens": JSON,
        "max_completion_tokens": JSON,
        "n_predict": JSON,
        "user": JSON,
        "size": JSON,
        "models": JSON,
        "system": JSON,
        "headers": JSON,
    },
)
EXCHANGES = st.builds(
    Exchange,
    endpoint=st.sampled_from([CHAT, COMPLETIONS, EMBEDDINGS]),
    body=BODIES,
    model=WORDS,
    requested_model=WORDS,
    body_bytes=st.integers(0, 2**40),
    context_window=st.none() | st.integers(0, 10),
    caller=WORDS,
)


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {name: compiled(name, SETTINGS.get(name)) for name in NAMES}


@given(exchange=EXCHANGES)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_body_breaks_a_check(checks: dict[str, Check], exchange: Exchange) -> None:
    for check in checks.values():
        seen = copy.deepcopy(exchange)
        findings = list(check.inspect(seen))
        assert seen == exchange, "looking changes nothing"
        assert all(len(found.label) <= 100 for found in findings)
        put_right(findings)
        check.enforce(seen)


@given(exchange=EXCHANGES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("name", ["max_tokens", "tools"])
def test_what_was_put_right_is_found_no_more(checks: dict[str, Check], exchange: Exchange, name: str) -> None:
    put_right(checks[name].inspect(exchange))
    assert list(checks[name].inspect(exchange)) == []


@given(reply=st.fixed_dictionaries({}, optional={"choices": st.lists(OBJECTS) | JSON}) | OBJECTS)
@settings(max_examples=100, deadline=None)
def test_no_reply_breaks_a_check(checks: dict[str, Check], reply: dict[str, Any]) -> None:
    list(checks["tools"].inspect_reply(reply, Exchange(CHAT, {}, "a")))


def put_right(findings: Iterable[Found]) -> None:
    for found in list(findings):
        if found.fix is not None:
            with suppress(Blocked):
                found.fix()
