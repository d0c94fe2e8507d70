"""Faults of the systems that Gatehouse replaces, as far as the engine of policies could repeat them.

Each name says what holds here; the comment says what went wrong there.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from typing import Any

import pytest

from policies.checks.base import CHECKS
from policies.engine import Chain, Review
from policies.errors import Blocked, CheckFailed
from policies.rules import CompiledRule
from policies.tests.test_every_check import SAMPLES, WORLD
from policies.tests.tools import (
    Objects,
    Phrases,
    answer,
    ask,
    cut,
    events_with,
    exchange_of,
    made,
    moderation,
    nobody,
    reply_with,
    request_with,
    rule,
    run,
    stream,
)
from policies.types import Action, Found

Json = dict[str, Any]


def every_check(*, action: Action | None = None) -> list[CompiledRule]:
    """A rule of each check that there is, none of which looks for anything in particular."""
    rules = []
    for name, samples in sorted(SAMPLES.items()):
        if name in CHECKS:
            kind = CHECKS[name]
            acting = action if action in kind.actions else sorted(kind.actions)[0]
            rules.append(rule(made(kind, WORLD, **samples[0].settings), acting, name=name))
    return rules


# --- one request must not end the process, nor fail because of its shape ---

ODD_BODIES: dict[str, Json] = {
    # B2: a content array together with any word list; content null together with max-prompt-chars
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    "image": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c"}}]}]
    },
    "null content": {"messages": [{"role": "assistant", "content": None}]},
    # L3: an assistant's turn that only calls tools was answered with 403
    "tool call": {
        "messages": [
            {"role": "user", "content": "What time is it?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
                    {"id": "call_2", "type": "function", "function": {"name": "clock", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        ]
    },
    # B2: an expression's special characters in protected text
    "brackets": {
        "messages": [{"role": "system", "content": "|| (unbalanced [ * + || "}, {"role": "user", "content": "("}]
    },
    # A9: what the log could not cope with
    "no messages": {},
    "empty message": {"messages": [{}]},
    "numbers": {"messages": [{"role": "user", "content": 5}], "tools": 5, "functions": {"a": 1}, "stop": None},
    "nothing but nulls": {"messages": None, "prompt": None, "input": None, "tools": None, "metadata": None},
    # L16: a list in a field of this name went into the upstream's headers
    "headers": {"messages": [{"role": "user", "content": "Hi"}], "headers": ["X-Evil: 1"]},
}


@pytest.mark.parametrize("shape", ODD_BODIES)
@pytest.mark.parametrize("action", list(Action))
async def test_no_shape_of_a_request_breaks_a_check(shape: str, action: Action) -> None:
    body = {"model": "gpt-4o-mini", **copy.deepcopy(ODD_BODIES[shape])}
    outcome = await ask(every_check(action=action), exchange_of(body), moderation())
    assert not isinstance(outcome.error, CheckFailed)
    assert not any(failed for *_, failed in outcome.findings)


ODD_REPLIES: dict[str, Json] = {
    "nothing": {},
    "no choices": {"choices": None},
    "empty choice": {"choices": [{}]},
    "no message": {"choices": [{"index": 0, "message": None}]},
    "numbers": {"choices": [{"index": 0, "message": {"content": 5, "tool_calls": 7}}, 9]},
    "tool calls of nothing": {"choices": [{"message": {"tool_calls": [None, {}, {"function": None}]}}]},
    "embeddings": {"data": [{"embedding": [0.1], "index": 0}], "model": "m"},
    "text": {"choices": [{"text": None}, {"text": 5}]},
}


@pytest.mark.parametrize("shape", ODD_REPLIES)
async def test_no_shape_of_a_reply_breaks_a_check(shape: str) -> None:
    reply = copy.deepcopy(ODD_REPLIES[shape])
    outcome = await answer(every_check(action=Action.AUDIT), reply, None, moderation())
    assert not any(failed for *_, failed in outcome.findings)
    events = [{"choices": [{"delta": {"content": "Hi"}}]}, copy.deepcopy(ODD_REPLIES[shape])]
    outcome = await stream(every_check(action=Action.AUDIT), events, None, moderation())
    assert not any(failed for *_, failed in outcome.findings)


# --- nothing of one call is left for the next ---


def test_blocked_call_changes_nothing_for_the_next_one() -> None:
    """L4: forty bad requests of any key switched checks off for everybody. L11: two harmless questions blocked the
    key's next one. B3: findings of one request were written into the configuration."""
    chain = Chain([rule(Phrases("secret"), message="Not this."), rule(Phrases("name"), "redact")])
    for _ in range(40):
        with pytest.raises(Blocked):
            run(Review(chain, exchange_of(request_with("secret"))).request(nobody))
    review = Review(chain, exchange_of(request_with("my name, please")))
    run(review.request(nobody))
    assert review.exchange.body == request_with("my ****, please")
    assert [finding.count for finding in review.record.findings()] == [1]


def test_calls_that_run_side_by_side_do_not_see_each_other() -> None:
    """B3: concurrent requests could use each other's state."""
    chain = Chain([rule(Phrases("secret"), "redact")])
    texts = [f"{number} secret " * 5000 for number in range(4)]
    reviews = [Review(chain, exchange_of(request_with(text))) for text in texts]

    async def all_at_once() -> None:
        await asyncio.gather(*(review.request(nobody) for review in reviews))

    asyncio.run(all_at_once())
    for review, text in zip(reviews, texts, strict=True):
        assert review.exchange.body == request_with(text.replace("secret", "****"))
        assert [finding.count for finding in review.record.findings()] == [5000]


# --- all reasons, and nothing that should not be told ---


def test_several_reasons_are_told_together_and_never_the_text(caplog: pytest.LogCaptureFixture) -> None:
    """Kept from Usage Panda, which told all flags at once. B6: there, secrets were printed at debug level."""
    rules = [
        rule(Objects(Found("limit", "Ask for at most 10 tokens.")), name="limit"),
        rule(Phrases("my secret"), message="No secrets, please.", name="secrets"),
    ]
    with caplog.at_level(logging.DEBUG):
        outcome = run(ask(rules, exchange_of(request_with("my secret"))))
    assert outcome.error is not None
    assert outcome.error.message == "Ask for at most 10 tokens. No secrets, please."
    assert "my secret" not in caplog.text


# --- benign texts ---

BENIGN = {
    "code": "def walk(tree):\n"
    + "".join(f"{' ' * 4 * (1 + line % 4)}if a // b:  # floor {line}\n" for line in range(12)),
    "talk of prompts": "A system prompt tells the model its role; a jailbreak is an attempt to get around it.",
    "Hindi": "नमस्ते, आप कैसे हैं? यह एक सामान्य वाक्य है।",
    "Thai": "สวัสดีครับ วันนี้อากาศดีมาก",
    "emoji": "👩‍👩‍👧‍👦 and 🏳️‍🌈 and 👍🏽",
    "mixed": "The Russian word привет means hello, and مرحبا is Arabic.",
    "blanks": "a" + "  " * 40 + "b\t\t\tc\n\n\n\nd   ",
    "markdown": "| a | b |\n|---|:-:|\n| `x = y || z` | **bold** |\n\n```js\nconst f = (a, b) => a ?? b;\n```",
}


@pytest.mark.parametrize("which", BENIGN)
async def test_benign_texts_pass_every_check_byte_for_byte(which: str) -> None:
    """L1: indented code, talk of system prompts, Hindi, Thai, emoji and a Russian word were answered with 403.
    L2: prompts were silently rewritten."""
    text = BENIGN[which]
    rules = [
        one for one in every_check(action=Action.REDACT) if one.action is not Action.AUDIT and _reads_only(one.name)
    ]
    assert len(rules) >= 4
    outcome = await ask(rules, exchange_of(request_with(text)))
    assert outcome.error is None and outcome.body == request_with(text)
    assert (await answer(rules, reply_with([text]))).texts() == [text]
    streamed = await stream(rules, events_with([cut(text, 5)]))
    assert streamed.error is None and streamed.texts() == [text]
    assert not streamed.findings


def _reads_only(name: str) -> bool:
    """Checks of texts: others have something to say of any request, or change it."""
    return SAMPLES[name][0].text is not None


# --- streams ---


def test_rules_hold_in_streams() -> None:
    """B10, L9, A3: filters were skipped in streams, or broke them."""
    redacting, blocking = rule(Phrases("secret"), "redact"), rule(Phrases("secret"))
    assert run(stream([redacting], events_with([cut("my secret", 1)]))).texts() == ["my ****"]
    blocked = run(stream([blocking], events_with([cut("my secret", 1)])))
    assert blocked.blocked and blocked.texts() == ["my "]


def test_text_is_never_repaired_after_it_has_gone() -> None:
    """Usage Panda's unmerged streams were checked over the whole text, when all of it had been sent."""
    outcome = run(stream([rule(Phrases("secret"), "redact")], events_with([["my se", "cret"]])))
    assert "secret" not in json.dumps(outcome.events)
    assert outcome.texts() == ["my ****"]


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "embeddings"])
def test_no_endpoint_is_left_out(endpoint: str) -> None:
    """B9, A2: embeddings and other paths reached the provider unread."""
    fields: dict[str, Json] = {
        "chat/completions": {"messages": [{"role": "user", "content": "secret"}]},
        "completions": {"prompt": "secret"},
        "embeddings": {"input": "secret"},
    }
    body = {"model": "m", **fields[endpoint]}
    assert run(ask([rule(Phrases("secret"))], exchange_of(body, endpoint))).blocked


# --- time ---


def test_usual_time_limit_leaves_room_for_a_busy_machine() -> None:
    """L24: limits of 5 to 10 ms on checks that fail closed turned load into refusals."""
    assert all(check.default_timeout_ms >= 1000 for check in CHECKS.values())
