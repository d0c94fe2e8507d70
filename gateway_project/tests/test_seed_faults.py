"""Faults of the systems that Gatehouse replaces, on a running gateway with policies: what went wrong there holds here.

B: Usage Panda's proxy; L: llmproxy. Each test names its fault; what other specs hold already is not repeated:

| fault                               | held by                                                           |
| ----------------------------------- | ----------------------------------------------------------------- |
| B1 custom word list never matched   | test_import_usagepanda (b1), test_policy_flow (header_names...)   |
| B2 one request ended the process    | b2_*                                                              |
| B3 one call's state in another's    | b3_*                                                              |
| B4 parts of words matched           | b4_*                                                              |
| B5 any caller switched policies off | b5_*; more headers and paths in test_policy_flow                  |
| B6 secrets in the log               | b6_*                                                              |
| B7 today's provider keys refused    | b7_*                                                              |
| B8 a header led the key elsewhere   | test_misbehaving_upstream (caller_chooses_no_destination),        |
|                                     | test_import_usagepanda (b8), proxy: test_providers_azure_openai   |
| B9 embeddings unread, no sign-in    | test_policy_flow, test_moderation_flow (every_endpoint...),       |
|                                     | test_errors                                                       |
| B10 no streams, no time limit       | test_policy_flow, test_misbehaving_upstream; lists compiled once: |
|                                     | policies/tests/test_book                                          |
| B11 blocks badly written down       | test_policy_flow (finding_of_a_call_that_was_blocked...)          |
| L1 harmless answers destroyed       | l1_*                                                              |
| L2 prompts rewritten                | l2_*                                                              |
| L3 `content: null` refused          | l3_*                                                              |
| L4 bad requests switched checks off | l4_*                                                              |
| L9 errors of streams became 200     | l9_*                                                              |
| L11 questions held against the next | l11_*                                                             |
| L16 a field of the body as a header | l16_*                                                             |
| L17 another question's answer       | l17_*: nothing is cached                                          |
| L18 loop breaker punished others    | policies/tests/test_check_loop; nothing is cached                 |
| L24 load became refusals            | l24_*                                                             |

What an app would notice of Usage Panda's own semantics stands in the last section. Error messages are our own, and a
block is 400 `policy_violation` instead of 422.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from accounts.keys import make_key, make_public_id
from gateway_project.tests import cast
from gateway_project.tests.clients import RawClient, Stream, answer_text, call, check_error, credentials, new_request_id
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.upstream import Upstream

SECRET = "the secret project begins"
REDACTED = "the **** begins"
HARMLESS = "Essex says hello, check the document"  # Usage Panda: "Es**** says ****o, che**** the do****ent"
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def rule(check: str, action: str = "block", stage: str = "both", **more: Any) -> dict[str, Any]:
    settings = {"wordlists": ["custom"]} if check == "wordlist" else {}
    return {"check": check, "action": action, "stage": stage, "settings": settings, **more}


def read_by(action: str) -> list[dict[str, Any]]:
    """Every check of texts, each with as much to look for as an admin may give it."""
    lists = ["profanity", "adult", "dan", "custom"]
    return [
        rule("wordlist", action, settings={"wordlists": lists}),
        rule("topics", action, settings={"keywords": ["lottery"], "patterns": [r"\bproject [A-Z]{3}-\d+"]}),
        rule("unicode", action),
        rule("links", action, settings={"block_domains": ["evil.example"]}),
        rule("prompt_leak", action, "reply"),
        rule("prompt_reflection", action),
    ]


# Every check that there is; see test_policy_of_every_check_leaves_none_out.
EVERY_CHECK = [
    *read_by("block"),
    rule("allowed_models", stage="request", settings={"models": ["*"]}),
    rule("disabled_models", stage="request", settings={"models": ["claude-test"]}),
    rule("max_tokens", stage="request", settings={"limit": 1000}),
    rule("max_prompt_chars", stage="request", settings={"limit": 10_000}),
    rule("require_user", "audit", stage="request"),
    rule("canned_reply", stage="request", settings={"replies": [{"match": "Who are you?", "reply": "The gateway."}]}),
    rule("message_limits", stage="request", settings={"max_messages": 50, "max_message_chars": 10_000}),
    rule("context_window", stage="request"),
    rule("tools", settings={"block": ["shell"]}),
    rule("system_prompt", "redact", "request", settings={"text": "Answer politely.", "where": "prepend"}),
    rule("loop", stage="request", settings={"repeats": 1000}),
    rule("retries", "redact", "request", settings={"count": 1}),
    rule("moderation", settings={"provider": "judge"}),
    rule("reply_quality", "audit", "reply"),
    rule("reply_schema", "audit", "reply", settings={"schema": {"type": "object"}}),
]
POLICIES: dict[str, list[dict[str, Any]]] = {
    "redacts": [rule("wordlist", "redact")],
    "blocks": [rule("wordlist")],
    "left": [rule("wordlist", "redact", settings={"wordlists": ["left"]})],
    "right": [rule("wordlist", "redact", settings={"wordlists": ["right"]})],
    "texts": read_by("block"),
    "texts-redact": read_by("redact"),
    "every-check": EVERY_CHECK,
    "panda": [
        rule("wordlist"),
        rule("max_prompt_chars", stage="request", settings={"limit": 500}),
        rule("prompt_reflection"),
    ],
    "canned": [
        rule("canned_reply", stage="request", settings={"replies": [{"match": "hello", "reply": "Hi there."}]}),
        rule("disabled_models", stage="request", settings={"models": ["gpt-test"]}),
    ],
}
OVERRIDES = {"tightens": "tighten", "loosens": "loosen"}


@pytest.fixture(scope="module")
def policed(make_gateway: Callable[..., Any], gateway_configuration: dict[str, Any]) -> Iterator[GatewayProcess]:
    """It logs all that it ever logs, so that the log can be searched for what must not be in it."""
    keys = {name: make_key(make_public_id()) for name in (*POLICIES, *OVERRIDES)}
    made = [{"name": name, "user": "alice", "team": "research", "secret": keys[name]} for name in keys]
    policies: list[dict[str, Any]] = [{"name": n, "scope": {"key": n}, "rules": rules} for n, rules in POLICIES.items()]
    policies += [
        {"name": name, "scope": {"key": name}, "header_overrides": may, "rules": []} for name, may in OVERRIDES.items()
    ]
    (here,) = (row for row in gateway_configuration["providers"] if row["name"] == "patient")
    configuration = {
        **gateway_configuration,
        "providers": [*gateway_configuration["providers"], {**here, "name": "judge"}],
        "models": [
            *gateway_configuration["models"],
            {"name": "repeat-own-key", "routes": [{"provider": "open", "upstream_model": "gpt-test:repeat"}]},
        ],
        "wordlists": [
            {"name": "custom", "words": ["secret project"]},
            {"name": "left", "words": ["alpha"]},
            {"name": "right", "words": ["beta"]},
        ],
        "policies": policies,
        "keys": [*gateway_configuration["keys"], *made],
    }
    with make_gateway("sqlite", configuration, LOG_LEVEL="DEBUG") as gateway:
        gateway.keys.update(keys)
        yield gateway


@pytest.fixture(autouse=True)
def empty_books(upstream: Upstream) -> None:
    """Each test sees the calls of its own only."""


def ask(
    gateway: GatewayProcess, key: str | None, text: str = SECRET, *, stream: bool = False, **more: Any
) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    return call(gateway, key=key, **{"messages": messages, "stream": stream, **more})


def asked(upstream: Upstream) -> Any:
    """The text of the last message as the provider got it."""
    return upstream.last.json["messages"][-1]["content"]


def check_blocked(response: httpx.Response) -> None:
    check_error(response, 400, "invalid_request_error", "policy_violation")


# --- B2: one request ended the whole process -------------------------------------------------------------------------

HELLO = {"role": "user", "content": "hello"}
PARTS = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]
KILLERS: dict[str, tuple[int, dict[str, Any]]] = {
    "stream": (200, {"stream": True}),
    "content in parts, read by a word list": (200, {"messages": [{"role": "user", "content": PARTS}]}),
    "content null, counted in characters": (200, {"messages": [{"role": "assistant", "content": None}, HELLO]}),
    "bracket in a protected prompt": (
        200,
        {"messages": [{"role": "system", "content": "|| Never say (this. ||"}, HELLO]},
    ),
    "provider refuses the connection": (502, {"model": "nowhere"}),
    "provider answers with what is no JSON": (502, {"model": "garbage"}),
    "provider answers with what is no JSON, in a stream": (502, {"model": "html", "stream": True}),
}


@pytest.mark.parametrize("killer", KILLERS)
def test_b2_no_request_ends_the_process(policed: GatewayProcess, killer: str) -> None:
    status, fields = KILLERS[killer]
    response = ask(policed, "panda", "hello", **fields)
    assert response.status_code == status, response.text
    assert ask(policed, "panda", "hello").status_code == 200


def test_b2_invalid_json_does_not_end_the_process(policed: GatewayProcess) -> None:
    headers = {**credentials(policed, "panda"), "content-type": "application/json"}
    check_error(
        policed.http.post("/v1/chat/completions", content=b'{"model": ', headers=headers),
        400,
        "invalid_request_error",
        None,
    )
    assert ask(policed, "panda", "hello").status_code == 200


# --- B3: one call's state in another's -------------------------------------------------------------------------------


def test_b3_calls_under_different_policies_run_side_by_side(policed: GatewayProcess, upstream: Upstream) -> None:
    """There, findings and keys were written into the one configuration that all requests shared."""
    expected = {"left": "**** and beta", "right": "alpha and ****", "alice": "alpha and beta"}
    names = [list(expected)[number % 3] for number in range(50)]

    async def fifty() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=policed.url, trust_env=False, timeout=30) as client:
            return await asyncio.gather(*(client.post(**_own_call(policed, n, at)) for at, n in enumerate(names)))

    for number, (name, response) in enumerate(zip(names, asyncio.run(fifty()), strict=True)):
        said = json.loads(answer_text(response))  # the upstream repeats what it was sent
        assert said["messages"][-1]["content"] == f"{expected[name]} in call {number}"
    provider_keys = {json.loads(one.body)["user"]: one.header("authorization") for one in upstream.calls}
    assert provider_keys == {str(number): f"Bearer sk-of-call-{number}" for number in range(50)}


def _own_call(gateway: GatewayProcess, key: str, number: int) -> dict[str, Any]:
    """With a provider's key of its own, and a number in it by which it is known."""
    return {
        "url": "/v1/chat/completions",
        "headers": {
            "x-usagepanda-api-key": gateway.keys[key],
            "authorization": f"Bearer sk-of-call-{number}",
            "x-request-id": new_request_id(),
        },
        "json": {
            "model": "repeat-own-key",
            "messages": [{"role": "user", "content": f"alpha and beta in call {number}"}],
            "stream": number % 2 == 0,
            "user": str(number),
        },
    }


# --- B4: parts of words matched --------------------------------------------------------------------------------------

INNOCENT = [
    HARMLESS,
    "the title of the therapist in Japan",
    "back to the cocktail bar",
    "A class on Scunthorpe's grapes",
]


@pytest.mark.parametrize("text", INNOCENT)
@STREAMED
def test_b4_words_that_contain_a_listed_one_are_left_alone(
    policed: GatewayProcess, upstream: Upstream, text: str, stream: bool
) -> None:
    upstream.next("ok", text=text, size=3)
    assert answer_text(ask(policed, "texts-redact", text, stream=stream)) == text
    assert asked(upstream) == text


# --- B5: any caller could switch a policy off ------------------------------------------------------------------------

USAGE_PANDA = {
    "x-usagepanda-request-wordlists": "custom:audit",
    "x-usagepanda-response-wordlists": "",
    "x-usagepanda-prompt-reflection": "none",
    "x-usagepanda-max-prompt-chars": "0",
    "x-usagepanda-auto-moderate": "false",
    "x-usagepanda-palm-api-key": "anything",
    "x-usagepanda-azure-resource": "evil.example/#",
    "x-usagepanda-auto-reply": "false",
    "x-http-method-override": "GET",
}
SAID = {"model": "gpt-test", "messages": [{"role": "user", "content": SECRET}]}
TWICE = '{"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}], "messages": %s}'
BODIES: dict[str, bytes] = {
    "escaped text": json.dumps(SAID).replace("secret", r"\u0073ecret").encode(),
    "escaped field": json.dumps(SAID).replace('"content"', r'"\u0063ontent"').encode(),
    "field given twice": (TWICE % json.dumps(SAID["messages"])).encode(),
    "in capitals": json.dumps(SAID).replace("secret project", "SECRET PROJECT").encode(),
    "over two lines": json.dumps(SAID).replace("secret project", r"secret\n\tproject").encode(),
    "an invisible character inside": json.dumps(SAID).replace("secret", "sec\u200bret").encode(),
    "wide letters": json.dumps(SAID).replace("secret", "\uff53\uff45\uff43\uff52\uff45\uff54").encode(),
}


@pytest.mark.parametrize("name", BODIES)
def test_b5_no_way_of_writing_a_body_gets_around_a_policy(
    policed: GatewayProcess, upstream: Upstream, name: str
) -> None:
    headers = {**credentials(policed, "blocks"), "content-type": "application/json"}
    check_blocked(policed.http.post("/v1/chat/completions", content=BODIES[name], headers=headers))
    assert upstream.received == 0


@pytest.mark.parametrize("name", USAGE_PANDA)
def test_b5_no_header_gets_around_a_policy(policed: GatewayProcess, upstream: Upstream, name: str) -> None:
    check_blocked(ask(policed, "blocks", headers={name: USAGE_PANDA[name]}))
    assert upstream.received == 0


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-usagepanda-api-key"])
def test_b5_policy_holds_in_whichever_header_the_key_comes(
    policed: GatewayProcess, upstream: Upstream, name: str
) -> None:
    value = policed.keys["blocks"]
    headers = {name: f"Bearer {value}" if name == "authorization" else value}
    check_blocked(ask(policed, None, headers=headers))
    assert upstream.received == 0


PATHS = ["/chat/completions", "/v1/chat/completions?x=1", "/v1/chat%2Fcompletions", "/v1/./chat/completions",
         "/v1/models/../chat/completions", "/v1/chat/completions;x=1", "/V1/CHAT/COMPLETIONS/", "//v1/chat/completions",
         "/openai/deployments/gpt-test/chat/completions?api-version=1"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_b5_no_path_reaches_the_provider_past_a_policy(policed: GatewayProcess, upstream: Upstream, path: str) -> None:
    """Blocked, or no path of ours at all."""
    target = httpx.URL(policed.url).copy_with(raw_path=path.encode())
    response = policed.http.post(target, json=SAID, headers=credentials(policed, "blocks"))
    assert response.status_code in (400, 403, 404)
    assert upstream.received == 0


# --- B6: secrets in the log ------------------------------------------------------------------------------------------


def test_b6_no_secret_and_no_text_is_logged_at_any_level(policed: GatewayProcess, upstream: Upstream) -> None:
    """There, the headers of every request and the provider's key were printed at debug level."""
    marker, said = "quokka-4711", "wombat-4712"
    for stream in (False, True):
        for key in ("redacts", "blocks", "every-check"):
            upstream.next("ok", text=f"{said} {SECRET}")
            ask(policed, key, f"{marker} {SECRET}", stream=stream)
            upstream.reset()
    ask(policed, "every-check", f"{marker} {SECRET}", model="garbage")
    last = ask(policed, "blocks", f"{marker} {SECRET}").headers["x-request-id"]
    policed.event_of(last)
    log = policed.log
    assert last in log
    secrets = [*policed.keys.values(), cast.UPSTREAM_KEY, cast.BACKUP_KEY, marker, said, "secret project"]
    assert [secret[:8] for secret in secrets if secret in log] == []


# --- B7: today's provider keys were refused --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sk-proj-" + "a" * 156, "sk-svcacct-abc_DEF-123", "gsk_0123456789", "0" * 32])
def test_b7_callers_own_provider_key_may_look_like_anything(
    policed: GatewayProcess, upstream: Upstream, key: str
) -> None:
    headers = {"x-usagepanda-api-key": policed.keys["redacts"], "authorization": f"Bearer {key}"}
    assert ask(policed, None, model="own-key-test", headers=headers).status_code == 200
    assert upstream.last.header("authorization") == f"Bearer {key}"
    assert asked(upstream) == REDACTED


# --- L1, L2, L3: harmless texts were destroyed -----------------------------------------------------------------------

CODE = """Here it is:

```python
def merge(left, right):
    merged = []
    while left and right:
        if left[0] <= right[0]:
            merged.append(left.pop(0))
        else:
            merged.append(right.pop(0))
    while left:
        merged.append(left.pop(0))
    while right:
        merged.append(right.pop(0))
    return merged  # a // b, and a || b
```
"""
BENIGN = {
    "twelve lines of indented code": CODE,
    "talk of system prompts": "A system prompt tells the model who it is. Nobody needs a jailbreak for that.",
    "Hindi": "नमस्ते! भारत की राजधानी नई दिल्ली है। क्या मैं और किसी चीज़ में आपकी मदद कर सकता हूँ?",
    "Thai": "สวัสดีครับ เมืองหลวงของประเทศไทยคือกรุงเทพมหานคร มีอะไรให้ช่วยอีกไหมครับ",
    "emoji made of several": "The family 👩‍👩‍👧‍👦 waves 🏳️‍🌈, a 👩🏽‍💻 types, 🏴󠁧󠁢󠁥󠁮󠁧󠁿 wins ❤️‍🔥 at 1️⃣2️⃣ o'clock.",
    "one Russian word in English": "The Russian word for peace is мир, and it also means world.",
    "Arabic and Hebrew": "السلام means peace, and so does שלום, as in \u2067שלום עליכם\u2069.",
    "Persian": "می‌خواهم کتاب‌ها را بخوانم.",
    "German, French, Polish": "Straße, naïve façade, œuvre, Łódź, Dvořák, İstanbul, ǅ, ﬁ",
    "a formula": "Let α be > 0; then Δx ≈ μ·σ², and ∀ε ∃δ: |f(x) − L| < ε.",
    "Japanese and Chinese": "東京は日本の首都です。北京是中国的首都。서울은 대한민국의 수도이다.",
    "a table": "| a  | b   |\n|----|-----|\n|  1 |  22 |\n\n\n\n    indented\t\ttabs   \r\nend  ",
    "a link to somewhere else": "See https://docs.python.org/3/library/re.html#re.A (or [here](http://a.example/x?y=1)).",
    "JSON": '{"name": "Ann", "tags": ["a", "b"], "path": "C:\\\\temp\\\\new", "nested": {"n": null}}',
    "an accent of its own": "cafe\u0301, n\u0303, a\u0328\u0301 and \u1e69 = s\u0323\u0307",
}  # fmt: skip
PROMPT = [{"role": "system", "content": "You help the people of a small museum with their letters to the public."}]


@pytest.mark.parametrize("name", BENIGN)
def test_l1_harmless_answer_arrives_byte_for_byte(policed: GatewayProcess, upstream: Upstream, name: str) -> None:
    """Under every check of texts that there is, set to block."""
    messages = [*PROMPT, {"role": "user", "content": "And?"}]
    bodies = []
    for key in ("texts", "alice"):
        upstream.next("ok", text=BENIGN[name])
        bodies.append(ask(policed, key, messages=messages).content)
    assert bodies[0] == bodies[1]
    assert json.loads(bodies[0])["choices"][0]["message"]["content"] == BENIGN[name]


@pytest.mark.parametrize("name", BENIGN)
@pytest.mark.parametrize("size", [1, 5])
def test_l1_harmless_stream_arrives_character_for_character(
    policed: GatewayProcess, upstream: Upstream, name: str, size: int
) -> None:
    upstream.next("ok", text=BENIGN[name], size=size)
    response = ask(policed, "texts", messages=[*PROMPT, {"role": "user", "content": "And?"}], stream=True)
    assert answer_text(response) == BENIGN[name]
    assert Stream.of(response).done


@pytest.mark.parametrize("name", BENIGN)
def test_l2_harmless_prompt_reaches_the_provider_as_it_was_written(
    policed: GatewayProcess, upstream: Upstream, name: str
) -> None:
    """There, what was longer than 1,000 characters lost its indentation and everything after `//`."""
    text = f"{BENIGN[name]}\n" * (1 + 1000 // len(BENIGN[name]))
    assert ask(policed, "texts", text).status_code == 200
    assert asked(upstream) == text
    assert ask(policed, "texts-redact", text).status_code == 200
    assert asked(upstream) == text


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
ROUND_TRIP = [
    {"role": "user", "content": "What is the weather in Rome?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"in":"Rome"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": '{"celsius": 21}'},
]


@STREAMED
def test_l3_tool_calls_go_round_under_a_policy_of_every_check(
    policed: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    first = ask(policed, "every-check", messages=ROUND_TRIP[:1], tools=TOOLS, stream=stream)
    assert "weather" in first.text
    assert first.status_code == 200, first.text
    upstream.reset()
    upstream.next("ok")  # the judge of the request; then comes the model
    upstream.next("ok", text="It is 21 degrees.")
    second = ask(policed, "every-check", messages=ROUND_TRIP, tools=TOOLS, stream=stream)
    assert answer_text(second) == "It is 21 degrees."
    [sent] = [one.json["messages"] for one in upstream.calls if one.path == "/v1/chat/completions"]
    assert sent[1:] == ROUND_TRIP


def test_policy_of_every_check_leaves_none_out() -> None:
    from policies.checks.base import CHECKS

    assert {one["check"] for one in EVERY_CHECK} == set(CHECKS)


# --- L4, L11: one call was held against others -----------------------------------------------------------------------

MALFORMED: list[Any] = [
    {"model": "gpt-test"},
    {"model": "gpt-test", "messages": None},
    {"model": "gpt-test", "messages": [None, 5, []]},
    {"model": "gpt-test", "messages": [{"role": "assistant", "content": {"a": [None]}}], "tools": [5]},
    {"model": "gpt-test", "messages": [{"role": "user", "content": [None, {"type": "text", "text": 5}]}]},
    {"model": 5, "messages": "hello", "tools": {"a": 1}, "metadata": []},
    {"model": "gpt-test", "messages": [{"role": "user", "content": "x", "tool_calls": [{"function": 1}]}]},
    [1, 2, 3],
]


def test_l4_forty_malformed_requests_switch_nothing_off(policed: GatewayProcess, upstream: Upstream) -> None:
    """There, checks that had failed so often were left out for a minute, for everybody."""
    for _ in range(5):
        for body in MALFORMED:
            response = policed.http.post("/v1/chat/completions", json=body, headers=credentials(policed, "every-check"))
            assert response.status_code < 500, response.text
    for key in ("blocks", "every-check", "panda"):
        check_blocked(ask(policed, key))
    assert ask(policed, "redacts").status_code == 200
    assert asked(upstream) == REDACTED


@pytest.mark.parametrize("key", ["texts", "every-check"])
def test_l11_questions_about_prompts_are_not_held_against_the_next_one(policed: GatewayProcess, key: str) -> None:
    questions = ["What is a system prompt?", "How does one keep a system prompt from being revealed?"]
    for question in [*questions, "What time is it in Rome?"]:
        assert ask(policed, key, question).status_code == 200


def test_l11_blocked_call_is_not_held_against_the_next_one(policed: GatewayProcess) -> None:
    for _ in range(5):
        check_blocked(ask(policed, "texts"))
    assert ask(policed, "texts", "What time is it in Rome?").status_code == 200


# --- L9: errors of streams turned into 200 ---------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "told"), [(400, 400), (401, 502), (403, 502), (429, 429), (500, 500), (503, 503)])
def test_l9_error_of_the_provider_stays_one_in_a_stream(
    policed: GatewayProcess, upstream: Upstream, status: int, told: int
) -> None:
    upstream.next("error", status=status)
    response = ask(policed, "redacts", stream=True)
    assert response.status_code == told
    assert response.headers["content-type"] == "application/json"
    assert policed.event_of(response.headers["x-request-id"])["status"] == told


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("key", ["redacts", "texts-redact"])
def test_l9_next_route_answers_a_stream_and_is_redacted_too(
    policed: GatewayProcess, upstream: Upstream, status: int, key: str
) -> None:
    upstream.next("error", status=status)
    upstream.next("ok", text=f"{SECRET}, {SECRET}", size=2)
    response = ask(policed, key, SECRET, model="fallback/500", stream=True)
    assert answer_text(response) == f"{REDACTED}, {REDACTED}"
    assert [one.json["messages"][0]["content"] for one in upstream.calls] == [REDACTED, REDACTED]
    assert upstream.last.header("authorization") == f"Bearer {cast.BACKUP_KEY}"


# --- L16: a field of the body became a header ------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"x-evil": "1", "authorization": "Bearer mine"}, ["x-evil: 1"], "x-evil: 1"])
def test_l16_field_called_headers_never_becomes_a_header(
    policed: GatewayProcess, upstream: Upstream, headers: Any
) -> None:
    body = {**SAID, "headers": headers, "extra_headers": headers}
    response = policed.http.post("/v1/chat/completions", json=body, headers=credentials(policed, "redacts"))
    assert response.status_code == 200
    assert upstream.last.header("x-evil") is None
    assert upstream.last.header("authorization") == f"Bearer {cast.UPSTREAM_KEY}"


# --- L17: another question's answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}, {"response_format": {"type": "json_object"}}, {"seed": 7}])
def test_l17_each_call_has_an_answer_of_its_own(
    policed: GatewayProcess, upstream: Upstream, more: dict[str, Any]
) -> None:
    for number in range(2):
        upstream.next("ok", text=f'{{"answer": {number}}}')
        assert f'\\"answer\\": {number}' in ask(policed, "texts", "hello", **more).text
    assert upstream.received == 2


# --- L24: load became refusals ---------------------------------------------------------------------------------------


def test_l24_load_is_no_failure_of_a_check(policed: GatewayProcess, upstream: Upstream) -> None:
    """There, checks had 5 to 10 ms of the clock. Here twelve long replies are read at once, for seconds altogether."""
    text = "The quick brown fox jumps over the lazy dog, and then goes home.\n" * 6000
    upstream.next("ok", times=12, text=text, size=len(text))
    with ThreadPoolExecutor(12) as clients:
        responses = list(
            clients.map(lambda number: ask(policed, "texts-redact", f"Call {number}", model="patient/ok"), range(12))
        )
    assert [response.status_code for response in responses] == [200] * 12


def test_l24_fast_streams_hold_up_nobody(policed: GatewayProcess, upstream: Upstream) -> None:
    """More events come than the rules can read. Whoever leaves is noticed, and whoever calls is answered."""
    began = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(policed)) for _ in range(20)]
        for client in clients:
            content = json.dumps({"model": "patient/endless-stream", "messages": [HELLO], "stream": True}).encode()
            client.send(client.head(len(content), key="texts-redact") + content)
        for client in clients:
            client.read_until(b"w2 ")
        assert ask(policed, "alice", "hello", model="patient/ok").status_code == 200
        for client in clients:
            client.leave("rst")
    upstream.wait_until_idle()
    assert time.monotonic() - began < 15  # a second, where nothing else is going on
    assert all(one.client_left for one in upstream.calls if one.behaviour == "endless-stream")


# --- what apps of Usage Panda know -----------------------------------------------------------------------------------


def with_headers(gateway: GatewayProcess, key: str, text: str = "hello", **more: Any) -> httpx.Response:
    """Keywords with the values of x-usagepanda-* headers; `fields` of the body."""
    fields = more.pop("fields", {})
    headers = {f"x-usagepanda-{name.replace('_', '-')}": value for name, value in more.items()}
    return ask(gateway, key, text, headers={"x-request-id": new_request_id(), **headers}, **fields)


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 11}, {"max_completion_tokens": 11}])
def test_max_tokens_blocks_what_is_over_and_what_says_nothing(policed: GatewayProcess, fields: dict[str, int]) -> None:
    check_blocked(with_headers(policed, "tightens", max_tokens="10", fields=fields))


@pytest.mark.parametrize("fields", [{"max_tokens": 10}, {"max_completion_tokens": 10}])
def test_max_tokens_lets_pass_what_is_within(policed: GatewayProcess, fields: dict[str, int]) -> None:
    assert with_headers(policed, "tightens", max_tokens="10", fields=fields).status_code == 200


def test_max_prompt_chars_counts_all_messages(policed: GatewayProcess) -> None:
    fields = {"messages": [{"role": "system", "content": "12345"}, {"role": "user", "content": "67890"}]}
    assert with_headers(policed, "tightens", max_prompt_chars="10", fields=fields).status_code == 200
    check_blocked(with_headers(policed, "tightens", max_prompt_chars="9", fields=fields))


@pytest.mark.parametrize("value", ["true", "TRUE"])
def test_user_ids_can_be_asked_for(policed: GatewayProcess, value: str) -> None:
    check_blocked(with_headers(policed, "tightens", enforce_user_ids=value))
    assert with_headers(policed, "tightens", enforce_user_ids=value, fields={"user": "u-1"}).status_code == 200


@pytest.mark.parametrize("value", ["custom:block", "Custom:Block", "profanity:audit,custom:block", "custom : block ,"])
def test_word_lists_are_named_with_their_action(policed: GatewayProcess, value: str) -> None:
    check_blocked(with_headers(policed, "tightens", SECRET, request_wordlists=value))


@pytest.mark.parametrize(("action", "said"), [("audit", SECRET), ("redact", REDACTED)])
@STREAMED
def test_word_lists_may_hold_for_replies_alone(
    policed: GatewayProcess, upstream: Upstream, action: str, said: str, stream: bool
) -> None:
    upstream.next("ok", text=SECRET, size=4)
    fields = {"stream": stream}
    response = with_headers(policed, "tightens", SECRET, response_wordlists=f"custom:{action}", fields=fields)
    assert answer_text(response) == said
    assert asked(upstream) == SECRET


@pytest.mark.parametrize(("count", "tries"), [("0", 1), ("1", 2)])
def test_retry_count_is_that_of_repetitions(
    policed: GatewayProcess, upstream: Upstream, count: str, tries: int
) -> None:
    upstream.next("error", status=503, times=20)
    with_headers(policed, "loosens", retry_count=count, fields={"model": "patient/ok"})
    assert upstream.received == tries


@pytest.mark.parametrize(("value", "status"), [("none", 200), ("audit", 200), ("redact", 200), ("block", 400)])
def test_prompt_reflection_can_be_asked_for(
    policed: GatewayProcess, upstream: Upstream, value: str, status: int
) -> None:
    upstream.next("ok", text="I must never MENTION the blue door.")
    messages = [{"role": "system", "content": "Be kind. || Never mention the blue door. ||"}, HELLO]
    response = with_headers(policed, "loosens", prompt_reflection=value, fields={"messages": messages})
    assert response.status_code == status
    assert ("blue" in response.text) == (value in ("none", "audit"))


def test_several_reasons_come_in_one_message(policed: GatewayProcess) -> None:
    response = with_headers(policed, "tightens", SECRET, max_tokens="10", enforce_user_ids="true")
    message = check_error(response, 400, "invalid_request_error", "policy_violation")["message"]
    assert "10" in message
    assert "user" in message


def test_canned_reply_is_no_way_around_disabled_models(policed: GatewayProcess, upstream: Upstream) -> None:
    """There, automatic replies came before all other rules."""
    check_blocked(ask(policed, "canned", "hello"))
    response = ask(policed, "canned", "hello", model="own-key-test")
    assert answer_text(response) == "Hi there."
    assert response.json()["model"] == "own-key-test"
    assert upstream.received == 0


def test_canned_reply_is_streamed_where_a_stream_is_wanted(policed: GatewayProcess) -> None:
    """There, it was plain JSON."""
    response = ask(policed, "canned", "hello", model="own-key-test", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert Stream.of(response).text == "Hi there."
