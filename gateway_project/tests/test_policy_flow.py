"""Policies on real calls: what the provider gets, what the client gets, what is written down; whole and streamed.

One gateway for all of it: each policy of POLICIES holds for a key of the same name. Alice has no policy of her own;
`everyone` holds for all of them and only watches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from accounts.keys import make_key, make_public_id
from gateway_project.tests.clients import Stream, answer_text, call, check_error, new_request_id
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.services import wait_until
from gateway_project.tests.upstream import Upstream

SECRET = "the secret project begins"
REDACTED = "the **** begins"
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
SIZES = pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])


def rule(check: str, action: str = "block", stage: str = "both", **more: Any) -> dict[str, Any]:
    settings = {"wordlists": ["custom"]} if check == "wordlist" else {}
    return {"check": check, "action": action, "stage": stage, "settings": settings, **more}


POLICIES: dict[str, list[dict[str, Any]]] = {
    "audits": [rule("wordlist", "audit")],
    "redacts": [rule("wordlist", "redact")],
    "redacts-replies": [rule("wordlist", "redact", "reply")],
    "blocks": [rule("wordlist", message="Leave the project out.")],
    "blocks-replies": [rule("wordlist", stage="reply", message="The answer names the project.")],
    "answers": [rule("wordlist", block_with="answer", answer="Ask the press office.")],
    "answers-replies": [rule("wordlist", stage="reply", block_with="answer", answer="Ask the press office.")],
    "dry-run": [rule("wordlist", dry_run=True)],
    "two-reasons": [
        rule("wordlist", message="Leave the project out."),
        rule("max_tokens", stage="request", settings={"limit": 10}),
    ],
    "clamps": [rule("max_tokens", "redact", "request", settings={"limit": 10})],
    "canned": [rule("canned_reply", stage="request", settings={"replies": [{"match": "hello", "reply": "Hi there."}]})],
    "reflects": [rule("prompt_reflection", "redact")],
    "schema": [
        rule("reply_schema", stage="reply", settings={"schema": {"type": "object", "required": ["city"]}}),
    ],
    "retries": [rule("retries", "redact", "request", settings={"count": 2})],
    "models": [rule("disabled_models", stage="request", settings={"models": ["gpt-test"]})],
    "system": [
        rule("system_prompt", "redact", "request", settings={"text": "Speak like a pirate.", "where": "prepend"}),
    ],
}
OVERRIDES = {"tightens": "tighten", "loosens": "loosen"}


@pytest.fixture(scope="module")
def policed(make_gateway: Callable[..., Any], gateway_configuration: dict[str, Any]) -> Iterator[GatewayProcess]:
    names = [*POLICIES, *OVERRIDES, "keeps"]
    keys = {name: make_key(make_public_id()) for name in names}
    made = [{"name": name, "user": "alice", "team": "research", "secret": keys[name]} for name in names]
    policies: list[dict[str, Any]] = [{"name": n, "scope": {"key": n}, "rules": rules} for n, rules in POLICIES.items()]
    limit = rule("max_tokens", stage="request", settings={"limit": 100})
    policies += [
        {"name": name, "scope": {"key": name}, "header_overrides": may, "rules": [limit]}
        for name, may in OVERRIDES.items()
    ]
    kept = {"log_request": True, "log_reply": True, "retention_days": 7, "rules": [rule("wordlist", "redact")]}
    policies.append({"name": "keeps", "scope": {"key": "keeps"}, **kept})
    watching = rule("wordlist", "audit", settings={"wordlists": ["watched"]}, name="watched words")
    policies.append({"name": "everyone", "scope": "everyone", "show_flags": False, "rules": [watching]})
    wordlists = [{"name": "custom", "words": ["secret project"]}, {"name": "watched", "words": ["gravel"]}]
    configuration = {**gateway_configuration, "wordlists": wordlists, "policies": policies}
    configuration["keys"] = gateway_configuration["keys"] + made
    with make_gateway("sqlite", configuration) as gateway:
        gateway.keys.update(keys)
        yield gateway


@pytest.fixture(autouse=True)
def empty_books(upstream: Upstream) -> None:
    """Each test sees the calls of its own only."""


def ask(gateway: GatewayProcess, key: str, text: str = SECRET, *, stream: bool = False, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    return call(gateway, key=key, **{"messages": messages, "stream": stream, **more})


def findings(gateway: GatewayProcess, request_id: str, count: int = 1) -> list[dict[str, Any]]:
    statement = f"SELECT * FROM policies_finding WHERE request_id = '{request_id}' ORDER BY id"
    wait_until(lambda: len(gateway.query(statement)) >= count, 5, f"{count} findings of {request_id}")
    return gateway.query(statement)


def asked(upstream: Upstream) -> Any:
    """The text of the last message as the provider got it."""
    return upstream.last.json["messages"][-1]["content"]


# --- requests --------------------------------------------------------------------------------------------------------


@STREAMED
def test_redacted_request_goes_to_the_provider_without_the_words(
    policed: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    assert answer_text(ask(policed, "redacts", stream=stream))
    assert asked(upstream) == REDACTED


@STREAMED
def test_blocked_request_never_reaches_the_provider(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    response = ask(policed, "blocks", stream=stream)
    error = check_error(response, 400, "invalid_request_error", "policy_violation")
    assert error["message"] == "Leave the project out."
    assert upstream.received == 0


def test_error_of_a_block_quotes_nothing_that_was_found(policed: GatewayProcess) -> None:
    assert "secret" not in ask(policed, "blocks").text


@STREAMED
def test_audited_request_passes_and_is_flagged(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    response = ask(policed, "audits", stream=stream)
    assert response.headers["x-gatehouse-flags"] == "wordlist"
    assert asked(upstream) == SECRET


@STREAMED
def test_rule_in_dry_run_alters_nothing(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    upstream.next("ok", text=SECRET)
    assert answer_text(ask(policed, "dry-run", stream=stream)) == SECRET
    assert asked(upstream) == SECRET


def test_all_reasons_are_told_together(policed: GatewayProcess) -> None:
    error = check_error(ask(policed, "two-reasons", max_tokens=50), 400, "invalid_request_error", "policy_violation")
    assert error["message"].startswith("Leave the project out. ")
    assert "10" in error["message"]


def test_clamped_number_goes_to_the_provider(policed: GatewayProcess, upstream: Upstream) -> None:
    assert ask(policed, "clamps", max_tokens=5000).status_code == 200
    assert upstream.last.json["max_tokens"] == 10


def test_disabled_model_cannot_be_had_by_its_other_name(policed: GatewayProcess, upstream: Upstream) -> None:
    check_error(ask(policed, "models", model="gpt-alias"), 400, "invalid_request_error", "policy_violation")
    assert upstream.received == 0


def test_system_prompt_is_added_once_even_when_a_try_is_repeated(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("error", status=500)
    assert ask(policed, "system", model="fallback/500").status_code == 200
    for tried in upstream.calls:
        assert json.dumps(tried.json).count("Speak like a pirate.") == 1


def test_failed_try_is_repeated_as_often_as_the_rule_says(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("error", status=503, times=2)
    assert ask(policed, "retries", "hello", model="patient/ok").status_code == 200
    assert upstream.received == 3


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1//chat/completions", "/v1/Chat/Completions?x=1"])
def test_no_spelling_of_the_path_gets_around_a_policy(policed: GatewayProcess, upstream: Upstream, path: str) -> None:
    """Usage Panda skipped its rules for `?x=1`, aiproxy for a second slash."""
    headers = {"authorization": f"Bearer {policed.keys['blocks']}"}
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": SECRET}]}
    response = policed.http.post(path, json=body, headers=headers)
    check_error(response, 400, "invalid_request_error", "policy_violation")
    assert upstream.received == 0


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("embeddings", {"model": "embedding-test", "input": ["fine", SECRET]}),
        ("completions", {"model": "gpt-test", "prompt": SECRET}),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": SECRET}]}]}),
        ("chat/completions", {"messages": [{"role": "system", "content": SECRET}, {"role": "user", "content": "x"}]}),
        ("chat/completions", {"tools": [{"type": "function", "function": {"name": "f", "description": SECRET}}]}),
        ("chat/completions", {"metadata": {"topic": SECRET}}),
    ],
)  # fmt: skip
def test_every_endpoint_and_every_text_is_read(
    policed: GatewayProcess, upstream: Upstream, endpoint: str, body: dict[str, Any]
) -> None:
    response = call(policed, **{"endpoint": endpoint, "key": "blocks", **body})
    check_error(response, 400, "invalid_request_error", "policy_violation")
    assert upstream.received == 0


def test_prompt_of_token_numbers_is_refused_where_texts_must_be_read(policed: GatewayProcess) -> None:
    response = call(policed, endpoint="completions", key="blocks", prompt=[1, 2, 3])
    assert "text itself" in check_error(response, 400, "invalid_request_error", "policy_violation")["message"]


# --- answers of our own ----------------------------------------------------------------------------------------------


@STREAMED
def test_canned_reply_is_given_without_a_provider(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    response = ask(policed, "canned", " Hello ", stream=stream)
    assert answer_text(response) == "Hi there."
    assert upstream.received == 0


@STREAMED
def test_block_can_be_a_normal_answer(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    response = ask(policed, "answers", stream=stream)
    assert answer_text(response) == "Ask the press office."
    assert "content_filter" in response.text
    assert upstream.received == 0


def test_openai_client_reads_an_answer_of_our_own(policed: GatewayProcess) -> None:
    with openai.OpenAI(api_key=policed.keys["canned"], base_url=f"{policed.url}/v1") as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(model="gpt-test", messages=messages)
        assert whole.choices[0].message.content == "Hi there."
        chunks = client.chat.completions.create(
            model="gpt-test", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [0]


def test_embedding_cannot_be_answered_with_a_text(policed: GatewayProcess) -> None:
    response = call(policed, "embedding-test", endpoint="embeddings", key="answers", input=SECRET)
    check_error(response, 400, "invalid_request_error", "policy_violation")


# --- replies ---------------------------------------------------------------------------------------------------------


def test_reply_is_redacted(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("ok", text=SECRET)
    assert answer_text(ask(policed, "redacts-replies", "hello")) == REDACTED


@SIZES
@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_streamed_reply_is_redacted_however_it_is_split(
    policed: GatewayProcess, upstream: Upstream, endpoint: str, size: int
) -> None:
    upstream.next("ok", text=f"{SECRET}, and {SECRET}.", size=size)
    fields: dict[str, Any] = {"prompt": "hello", "messages": ...} if endpoint == "completions" else {}
    fields = {name: value for name, value in fields.items() if value is not ...}
    response = call(policed, endpoint=endpoint, key="redacts-replies", stream=True, **fields)
    assert answer_text(response) == f"{REDACTED}, and {REDACTED}."
    assert Stream.of(response).done


def test_untouched_reply_arrives_byte_for_byte(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("ok", text="nothing to see", extra=1)
    with_policy = ask(policed, "redacts-replies", "hello").content
    upstream.next("ok", text="nothing to see", extra=1)
    without = ask(policed, "alice", "hello").content
    assert with_policy == without


def test_blocked_reply_is_an_error(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("ok", text=SECRET)
    error = check_error(ask(policed, "blocks-replies", "hello"), 400, "invalid_request_error", "policy_violation")
    assert error["message"] == "The answer names the project."


@SIZES
def test_block_ends_a_stream_with_one_error_event(policed: GatewayProcess, upstream: Upstream, size: int) -> None:
    upstream.next("ok", text=f"At noon {SECRET} and ends.", size=size)
    response = ask(policed, "blocks-replies", "hello", stream=True)
    if response.status_code == 400:  # found in the first event, before anything was said
        check_error(response, 400, "invalid_request_error", "policy_violation")
        return
    stream = Stream.of(response)
    assert stream.error is not None
    assert stream.error["code"] == "policy_violation"
    assert "error" in stream.events[-1]
    assert sum("error" in event for event in stream.events) == 1
    assert "secret" not in response.text
    assert "At noon the secret project begins and ends.".startswith(stream.text)


def test_block_closes_the_upstream(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("ok", text=f"{SECRET} " + "and so on " * 200, delay_ms=20)
    ask(policed, "blocks-replies", "hello", stream=True)
    assert upstream.wait_for_end(upstream.last).client_left


@STREAMED
def test_blocked_reply_can_be_a_normal_answer(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    upstream.next("ok", text=SECRET)
    response = ask(policed, "answers-replies", "hello", stream=stream)
    assert answer_text(response).endswith("Ask the press office.")
    assert "secret" not in response.text
    assert "content_filter" in response.text


def test_blocked_reply_is_billed(policed: GatewayProcess, upstream: Upstream) -> None:
    upstream.next("ok", text=SECRET)
    response = ask(policed, "blocks-replies", "hello")
    event = policed.event_of(response.headers["x-request-id"])
    assert (event["status"], event["error_code"]) == (400, "policy_violation")
    assert event["completion_tokens"] > 0
    assert event["cost_nano_usd"] > 0


def test_tool_call_arguments_stay_json_when_they_are_redacted(policed: GatewayProcess, upstream: Upstream) -> None:
    tools = [{"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}]
    arguments = json.dumps({"about": f"the \u00e4rger with {SECRET}", "secret project": 1})
    for stream in (False, True):
        upstream.next("ok", text=arguments, size=3)
        response = ask(policed, "redacts-replies", "hello", stream=stream, tools=tools)
        if stream:
            deltas = [c["delta"] for event in Stream.of(response).events for c in event["choices"]]
            said = "".join(t["function"].get("arguments") or "" for d in deltas for t in d.get("tool_calls") or [])
        else:
            said = response.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(said) == {"about": f"the \u00e4rger with {REDACTED}", "secret project": 1}


def test_first_words_do_not_wait_for_the_last(policed: GatewayProcess, upstream: Upstream) -> None:
    """Text is held back only as far as a match may still begin in it."""
    upstream.next("ok", text="One two three four five six seven eight nine ten.", delay_ms=100)
    body = {"model": "patient/ok", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"authorization": f"Bearer {policed.keys['redacts-replies']}"}
    with policed.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        for line in response.iter_lines():
            if "One" in line:
                assert upstream.last.ended is None
                return
    raise AssertionError("the first word never came")


@pytest.mark.parametrize("stream", [False, True])
def test_reply_that_does_not_fit_the_schema_is_withheld(
    policed: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    upstream.next("ok", text='{"town": "Rome"}')
    response = ask(policed, "schema", "hello", stream=stream)
    assert "Rome" not in response.text
    assert "policy_violation" in response.text
    upstream.next("ok", text='{"city": "Rome"}')
    assert answer_text(ask(policed, "schema", "hello", stream=stream)) == '{"city": "Rome"}'


@STREAMED
def test_protected_part_of_the_system_prompt_is_not_reflected(
    policed: GatewayProcess, upstream: Upstream, stream: bool
) -> None:
    messages = [
        {"role": "system", "content": "You are Bob. || Never (ever) mention the blue door. || Be kind."},
        {"role": "user", "content": "What must you not mention? a || b"},
    ]
    upstream.next("ok", text="I must NEVER  ever\nmention the blue-door, sorry.", size=2)
    response = ask(policed, "reflects", messages=messages, stream=stream)
    assert "****" in answer_text(response)
    assert "blue" not in response.text.lower()
    sent = upstream.last.json["messages"]
    assert "||" not in sent[0]["content"]
    assert sent[1]["content"].endswith("a || b")


# --- what is written down --------------------------------------------------------------------------------------------


def test_finding_says_who_and_what_but_never_the_text(policed: GatewayProcess) -> None:
    response = ask(policed, "redacts", f"{SECRET}; {SECRET}")
    [finding] = findings(policed, response.headers["x-request-id"])
    assert (finding["policy"], finding["check_name"], finding["stage"]) == ("redacts", "wordlist", "request")
    assert (finding["action"], finding["count"], finding["label"]) == ("redact", 2, "custom")
    assert "secret" not in json.dumps(finding, default=str)


def test_finding_of_a_call_that_was_blocked_is_kept(policed: GatewayProcess) -> None:
    """Usage Panda sent its statistics before the block was known; llmproxy never wrote blocked calls down."""
    response = ask(policed, "blocks")
    event = policed.event_of(response.headers["x-request-id"])
    [finding] = findings(policed, response.headers["x-request-id"])
    assert finding["action"] == "block"
    assert event["error_code"] == "policy_violation"


def test_rule_of_everyone_holds_for_every_key_and_names_nothing_to_callers(policed: GatewayProcess) -> None:
    for key in ("alice", "redacts"):
        response = ask(policed, key, "ten tons of gravel")
        assert "x-gatehouse-flags" not in response.headers
        assert findings(policed, response.headers["x-request-id"])[0]["rule"] == "watched words"


def test_no_prompt_is_kept_or_logged_unless_a_policy_says_so(policed: GatewayProcess) -> None:
    marker = "xylophone-4711"
    response = ask(policed, "blocks", f"{marker} {SECRET}")
    policed.event_of(response.headers["x-request-id"])
    assert marker not in policed.log
    assert not policed.query(
        f"SELECT * FROM policies_loggedcontent WHERE request_id = '{response.headers['x-request-id']}'"
    )


@STREAMED
def test_kept_texts_are_redacted_and_encrypted(policed: GatewayProcess, upstream: Upstream, stream: bool) -> None:
    upstream.next("ok", text=f"Well, {SECRET}.")
    response = ask(policed, "keeps", f"Tell me: {SECRET}", stream=stream)
    request_id = response.headers["x-request-id"]
    statement = f"SELECT * FROM policies_loggedcontent WHERE request_id = '{request_id}'"
    wait_until(lambda: bool(policed.query(statement)), 5, "the kept texts")
    [kept] = policed.query(statement)
    assert "Tell me" not in json.dumps(kept, default=str)
    request, reply = (decrypted(kept[name]) for name in ("request", "reply"))
    assert request["messages"][-1]["content"] == f"Tell me: {REDACTED}"
    assert reply["choices"][0]["message"]["content"] == f"Well, {REDACTED}."


def decrypted(token: str) -> Any:
    from django.test import override_settings

    from accounts.encryption import decrypt
    from gateway_project.tests.gateway_process import SECRETS

    with override_settings(ENCRYPTION_KEYS=[SECRETS["ENCRYPTION_KEYS"]]):
        return json.loads(decrypt(token))


# --- Usage Panda's headers -------------------------------------------------------------------------------------------


def with_header(gateway: GatewayProcess, key: str, asked_for: int, **headers: str) -> httpx.Response:
    named = {f"x-usagepanda-{name.replace('_', '-')}": value for name, value in headers.items()}
    return ask(gateway, key, "hello", max_tokens=asked_for, headers={"x-request-id": new_request_id(), **named})


def test_headers_are_ignored_where_no_policy_allows_them(policed: GatewayProcess) -> None:
    assert with_header(policed, "audits", 500, max_tokens="1").status_code == 200


def test_header_may_tighten(policed: GatewayProcess) -> None:
    assert with_header(policed, "tightens", 50).status_code == 200
    check_error(with_header(policed, "tightens", 50, max_tokens="20"), 400, "invalid_request_error", "policy_violation")


@pytest.mark.parametrize("value", ["0", "1000"])
def test_header_may_not_loosen_what_may_only_be_tightened(policed: GatewayProcess, value: str) -> None:
    """Usage Panda let any caller switch off any rule with a header."""
    response = with_header(policed, "tightens", 500, max_tokens=value)
    check_error(response, 400, "invalid_request_error", "policy_violation")


@pytest.mark.parametrize("value", ["0", "1000"])
def test_header_may_loosen_where_the_policy_says_so(policed: GatewayProcess, value: str) -> None:
    assert with_header(policed, "loosens", 500, max_tokens=value).status_code == 200


def test_header_names_word_lists_and_actions(policed: GatewayProcess, upstream: Upstream) -> None:
    headers = {"x-usagepanda-request-wordlists": "custom:redact"}
    assert ask(policed, "tightens", max_tokens=10, headers=headers).status_code == 200
    assert asked(upstream) == REDACTED


@pytest.mark.parametrize(
    ("name", "value"), [("max-tokens", "many"), ("request-wordlists", "custom:explode"), ("prompt-reflection", "maybe")]
)
def test_header_that_makes_no_sense_is_an_error_that_names_it(policed: GatewayProcess, name: str, value: str) -> None:
    response = ask(policed, "tightens", "hello", max_tokens=10, headers={f"x-usagepanda-{name}": value})
    assert f"x-usagepanda-{name}" in check_error(response, 400, "invalid_request_error", None)["message"]
