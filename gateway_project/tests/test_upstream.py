"""The upstream misbehaves exactly as its table says, and its books are right: what the other tests stand on."""

from __future__ import annotations

import gzip
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from gateway_project.tests.upstream import ANSWERED, CLIENT_CLOSED, CLIENT_RESET, CUT, Upstream, behaviours


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Iterator[Upstream]:
    server.reset()
    yield server
    assert server.failures == []


@pytest.fixture(scope="module")
def http(server: Upstream) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=5) as client:
        yield client


def ask(wish: str = "ok", *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """A chat body whose model's name carries the wish. Its prompt has three tokens."""
    messages = [{"role": "user", "content": "one two three"}]
    return {"model": f"gpt-test:{wish}", "messages": messages, **({"stream": True} if stream else {}), **fields}


def chat(http: httpx.Client, wish: str = "ok", **fields: Any) -> Any:
    return http.post("/chat/completions", json=ask(wish, **fields)).json()


def stream(http: httpx.Client, wish: str = "ok", **fields: Any) -> list[Any]:
    """The events' data, parsed where it is JSON."""
    text = http.post("/chat/completions", json=ask(wish, stream=True, **fields)).text
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [orjson.loads(item) if item.startswith("{") else item for item in data]


def raw(upstream: Upstream, wish: str, **fields: Any) -> socket.socket:
    """A connection that has sent its request."""
    body = orjson.dumps(ask(wish, **fields))
    connection = socket.create_connection(("127.0.0.1", int(upstream.origin.rpartition(":")[2])), timeout=5)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes. Raises ConnectionResetError."""
    parts = []
    with connection:
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_behaviour_is_in_the_table_and_the_other_way_round() -> None:
    rows = re.findall(r"^\| ([a-z][a-z0-9, -]*?) +\|", behaviours.__doc__ or "", re.MULTILINE)
    documented = {name for row in rows for name in row.split(", ")} - {"name"}
    assert documented == set(behaviours.BEHAVIOURS)


def test_misspelt_behaviour_is_refused_when_a_test_plans_it(upstream: Upstream) -> None:
    with pytest.raises(KeyError):
        upstream.next("hang-for-ever")


def test_misspelt_behaviour_in_the_models_name_is_a_model_not_found(upstream: Upstream, http: httpx.Client) -> None:
    assert chat(http, "hang-for-ever")["error"]["code"] == "model_not_found"


def test_script_comes_before_the_models_name_and_is_used_up(upstream: Upstream, http: httpx.Client) -> None:
    upstream.next("503")
    upstream.next("error", status=429, retry_after=7)
    replies = [http.post("/chat/completions", json=ask()) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [503, 429, 200]
    assert replies[1].headers["retry-after"] == "7"
    assert replies[1].headers["x-ratelimit-remaining-requests"] == "0"


# --- well ------------------------------------------------------------------------------------------------------------


def test_whole_chat_has_a_token_per_word_and_per_piece(upstream: Upstream, http: httpx.Client) -> None:
    reply = chat(http, "ok?chunks=4&cached=1&reasoning=2")
    assert reply["choices"][0]["message"]["content"] == "w0 w1 w2 w3 "
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (3, 4)
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 1
    assert (upstream.last.prompt_tokens, upstream.last.completion_tokens) == (3, 4)


def test_stream_says_the_same_as_the_whole_answer(upstream: Upstream, http: httpx.Client) -> None:
    *events, done = stream(http, "ok?text=Grüße aus Zürich")
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == "Grüße aus Zürich"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"
    assert not any("usage" in event for event in events)


def test_usage_is_null_on_each_event_and_last_in_one_of_its_own_when_asked_for(
    upstream: Upstream, http: httpx.Client
) -> None:
    *events, usage, _ = stream(http, stream_options={"include_usage": True})
    assert all(event["usage"] is None for event in events)
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 8


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("always", [None] * 7 + [5]),
        ("never", ["absent"] * 7),
        ("null", [None] * 7),
        ("last", ["absent"] * 6 + [5]),
        ("each", [0, 1, 2, 3, 4, 5, 5]),
        ("twice", [None] * 7 + [5, 5]),
        ("wrong", ["many"] * 7),
    ],
)
def test_usage_comes_as_the_option_says(upstream: Upstream, http: httpx.Client, mode: str, seen: list[Any]) -> None:
    events = stream(http, f"ok?usage={mode}")[:-1]
    usages = [event.get("usage", "absent") for event in events]
    assert [usage["completion_tokens"] if isinstance(usage, dict) else usage for usage in usages] == seen


def test_two_choices_are_streamed_side_by_side_and_both_billed(upstream: Upstream, http: httpx.Client) -> None:
    events = stream(http, "ok?chunks=2", n=2)[:-1]
    assert {event["choices"][0]["index"] for event in events} == {0, 1}
    assert upstream.last.completion_tokens == 4


def test_tool_is_called_with_arguments_that_fit_its_schema(upstream: Upstream, http: httpx.Client) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    whole = chat(http, tools=tools)["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    call = whole["message"]["tool_calls"][0]["function"]
    assert (call["name"], orjson.loads(call["arguments"])) == ("weather", {"city": "Zürich", "days": 7})
    events = stream(http, tools=tools)[:-1]
    parts = [event["choices"][0]["delta"].get("tool_calls", [{}])[0] for event in events]
    assert "".join(part.get("function", {}).get("arguments", "") for part in parts) == call["arguments"]


def test_json_schema_and_logprobs_are_honoured(upstream: Upstream, http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"grade": {"enum": ["good", "bad"]}}}
    choice = chat(
        http, response_format={"type": "json_schema", "json_schema": {"name": "g", "schema": schema}}, logprobs=True
    )["choices"][0]
    assert orjson.loads(choice["message"]["content"]) == {"grade": "good"}
    assert "".join(item["token"] for item in choice["logprobs"]["content"]) == choice["message"]["content"]


def test_repeat_gives_back_what_it_got(upstream: Upstream, http: httpx.Client) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}}
    body = ask("repeat", messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, part]}])
    reply = http.post("/chat/completions", json=body).json()
    assert orjson.loads(reply["choices"][0]["message"]["content"]) == body


def test_other_endpoints_and_azures_paths_answer(upstream: Upstream, http: httpx.Client) -> None:
    completion = http.post("/completions", json={"model": "gpt-test", "prompt": ["a b", "c"], "n": 2}).json()
    assert [choice["text"] for choice in completion["choices"]] == ["w0 w1 w2 w3 w4 "] * 4
    assert completion["usage"]["prompt_tokens"] == 3
    embedding = http.post("/embeddings", json={"model": "embedding-test", "input": ["a", "b"]}).json()
    assert [row["embedding"] for row in embedding["data"]] == [[0.25, -0.5, 0.125]] * 2
    assert http.get("/models").json()["data"][0]["id"] == "gpt-test"
    azure = f"{upstream.origin}/openai/deployments/gpt-test/chat/completions?api-version=2024-10-21"
    assert http.post(azure, json={"messages": []}).status_code == 200
    assert upstream.last.model == "gpt-test"


def test_moderation_finds_what_the_text_says_and_costs_nothing(upstream: Upstream, http: httpx.Client) -> None:
    body = {"model": "mod-test", "input": ["fine", "flag:violence score:hate=0.4", "flag:own"]}
    fine, said, own = http.post("/moderations", json=body).json()["results"]
    assert [result["flagged"] for result in (fine, said, own)] == [False, True, True]
    assert (said["categories"]["violence"], said["category_scores"]["violence"]) == (True, 0.97)
    assert (said["categories"]["hate"], said["category_scores"]["hate"]) == (False, 0.4)
    assert own["categories"]["own"]
    assert (upstream.last.prompt_tokens, upstream.last.completion_tokens) == (0, 0)
    assert http.post("/moderations", json={**body, "model": "mod-test:503"}).status_code == 503


def test_anthropics_dialect_whole_and_streamed(upstream: Upstream, http: httpx.Client) -> None:
    body = {"model": "claude-test", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}
    whole = http.post("/messages", json=body).json()
    assert whole["content"] == [{"type": "text", "text": "w0 w1 w2 w3 w4 "}]
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (2, 5)
    text = http.post("/messages", json={**body, "stream": True}).text
    names = re.findall(r"^event: (\w+)$", text, re.MULTILINE)
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert names.count("content_block_delta") == 5


# --- slowly, and not at all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ("hang", b""),
        ("hang-after-head", b"\r\n\r\n"),
        ("hang-midway", b'{"content":"w2 "}'),
        ("hang-before-done", b"stop"),
    ],
)
def test_hanging_says_so_much_and_notices_the_client_leaving(upstream: Upstream, wish: str, said: bytes) -> None:
    connection = raw(upstream, wish, stream=True)
    got = b""
    while said not in got:
        got += connection.recv(65_536)
    connection.settimeout(0.05)
    with pytest.raises(TimeoutError):
        while True:
            got += connection.recv(65_536)
    assert b"[DONE]" not in got
    connection.close()
    assert upstream.wait_for_end(upstream.last).ended == CLIENT_CLOSED


def test_slow_first_byte_comes_after_the_delay(upstream: Upstream, http: httpx.Client) -> None:
    chat(http, "slow-first-byte?delay_ms=80")
    call = upstream.wait_for_end(upstream.last)
    assert call.closed_at is not None
    assert 0.08 <= call.closed_at - call.opened_at < 1


def test_slow_first_event_comes_long_after_the_head(upstream: Upstream, http: httpx.Client) -> None:
    with http.stream("POST", "/chat/completions", json=ask("slow-first-event?delay_ms=100", stream=True)) as reply:
        assert upstream.last.events_sent == 0
        reply.read()
    assert upstream.last.events_sent == 8


# --- and then it closes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wish", ["close-before-head", "close-in-head", "close-after-head", "close-midway"])
def test_closing_early_is_an_incomplete_answer(upstream: Upstream, http: httpx.Client, wish: str, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/chat/completions", json=ask(wish, stream=stream))
    assert upstream.last.ended == CUT


def test_half_of_the_whole_answer_comes_before_a_close_midway(upstream: Upstream) -> None:
    head, _, body = read_all(raw(upstream, "close-midway")).partition(b"\r\n\r\n")
    declared = re.search(rb"content-length: (\d+)", head)
    assert declared
    assert len(body) == int(declared[1]) // 2


def test_close_in_the_middle_of_an_event_leaves_half_a_line(upstream: Upstream) -> None:
    assert read_all(raw(upstream, "close-mid-event", stream=True)).endswith(b'"choi\r\n')


@pytest.mark.parametrize("wish", ["reset-before-head", "reset-midway"])
def test_reset_is_a_reset(upstream: Upstream, wish: str) -> None:
    with pytest.raises(ConnectionResetError):
        read_all(raw(upstream, wish, stream=True))


def test_transfer_ends_properly_midway(upstream: Upstream, http: httpx.Client) -> None:
    events = stream(http, "end-midway?after=2")
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["", "w0 ", "w1 "]
    with pytest.raises(ValueError, match="line 1 column"):
        chat(http, "end-midway")


def test_stream_without_done_is_complete_but_for_that(upstream: Upstream, http: httpx.Client) -> None:
    assert stream(http, "no-done")[-1]["choices"][0]["finish_reason"] == "stop"


def test_answer_until_close_has_no_length(upstream: Upstream, http: httpx.Client) -> None:
    reply = http.post("/chat/completions", json=ask("until-close", stream=True))
    assert "content-length" not in reply.headers
    assert "transfer-encoding" not in reply.headers
    assert reply.text.endswith("data: [DONE]\n\n")
    assert upstream.wait_for_end(upstream.last).ended == ANSWERED


def test_connection_is_kept_alive_between_good_answers(upstream: Upstream) -> None:
    with httpx.Client(base_url=upstream.url, trust_env=False) as http:
        chat(http)
        chat(http)
    first, second = upstream.calls
    assert first.connection == second.connection


def test_connection_closes_after_an_answer_that_did_not_say_so(upstream: Upstream) -> None:
    answer = read_all(raw(upstream, "closes-after-answer"))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection:" not in answer


@pytest.mark.parametrize("reset", [0, 1])
def test_connection_dies_under_the_next_request_which_is_not_in_the_books(upstream: Upstream, reset: int) -> None:
    with httpx.Client(base_url=upstream.url, trust_env=False) as http:
        chat(http, f"dies-on-reuse?reset={reset}")
        with pytest.raises(httpx.TransportError):
            chat(http)
        chat(http)
    assert (upstream.received, upstream.books.dropped) == (2, 1)


# --- nonsense, and no ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "body"),
    [
        ("garbage", b"{not json"),
        ("empty", b""),
        ("json", b"null"),
        ('json?body="text"', b'"text"'),
        ("json?body=[1]", b"[1]"),
        ("error-text?status=200", b"upstream connect error"),
    ],
)
def test_two_hundred_with_nonsense(upstream: Upstream, http: httpx.Client, wish: str, body: bytes) -> None:
    reply = http.post("/chat/completions", json=ask(wish))
    assert (reply.status_code, reply.content) == (200, body)


def test_garbage_in_the_middle_of_a_stream(upstream: Upstream, http: httpx.Client) -> None:
    text = http.post("/chat/completions", json=ask("garbage", stream=True)).text
    assert text.endswith("data: {not json\n\ndata: [DONE]\n\n")


def test_error_with_status_200_whole_streamed_and_midway(upstream: Upstream, http: httpx.Client) -> None:
    assert chat(http, "error-in-200")["error"]["code"] == "overloaded"
    assert stream(http, "error-in-200")[0]["error"]["code"] == "overloaded"
    *pieces, error, _ = stream(http, "error-midway?after=2")
    assert len(pieces) == 3
    assert error["error"]["code"] == "overloaded"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_number_is_an_error_of_that_status(upstream: Upstream, http: httpx.Client, status: int) -> None:
    reply = http.post("/chat/completions", json=ask(str(status)))
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("wish", "type", "body"),
    [
        ("error-json?status=422", "application/json", b'{"detail"'),
        ("error-text?status=503", "text/plain", b"upstream"),
        ("error-empty?status=500", "application/json", b""),
        ("html", "text/html", b"<html>"),
    ],
)
def test_errors_of_other_shapes(upstream: Upstream, http: httpx.Client, wish: str, type: str, body: bytes) -> None:
    reply = http.post("/chat/completions", json=ask(wish))
    assert reply.status_code >= 400
    assert reply.headers["content-type"] == type
    assert reply.content.startswith(body)


def test_redirect_leads_to_a_place_that_is_in_the_books(upstream: Upstream, http: httpx.Client) -> None:
    reply = http.post("/chat/completions", json=ask("redirect?status=307"))
    assert reply.status_code == 307
    http.post(reply.headers["location"], json=ask())
    assert [call.path for call in upstream.calls] == ["/v1/chat/completions", "/elsewhere/chat/completions"]


# --- strange on the wire ---------------------------------------------------------------------------------------------


def test_every_byte_is_a_write_of_its_own_and_the_text_is_whole(upstream: Upstream, http: httpx.Client) -> None:
    parts = []
    with http.stream("POST", "/chat/completions", json=ask("byte-by-byte", stream=True)) as reply:
        parts = list(reply.iter_raw())
    # On a busy machine the kernel hands over several of them at once.
    assert len(parts) > 100
    text = b"".join(parts).decode()
    pieces = [orjson.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert "".join(p["choices"][0]["delta"].get("content", "") for p in pieces) == behaviours.UTF8_TEXT


@pytest.mark.parametrize("stream", [False, True])
def test_gzip_nobody_asked_for(upstream: Upstream, http: httpx.Client, stream: bool) -> None:
    with http.stream("POST", "/chat/completions", json=ask("gzip", stream=stream)) as reply:
        packed = b"".join(reply.iter_raw())
    assert reply.headers["content-encoding"] == "gzip"
    assert b"w4 " in gzip.decompress(packed)


def test_plain_text_that_calls_itself_gzip(upstream: Upstream, http: httpx.Client) -> None:
    with pytest.raises(httpx.DecodingError):
        http.post("/chat/completions", json=ask("gzip-lie"))


def test_bomb_is_small_on_the_wire(upstream: Upstream) -> None:
    connection = raw(upstream, "gzip-bomb?mb=20")
    head, _, body = connection.recv(1_000_000).partition(b"\r\n\r\n")
    connection.close()
    assert b"content-encoding: gzip" in head
    assert len(body) < 30_000


def test_events_of_a_megabyte(upstream: Upstream, http: httpx.Client) -> None:
    contents = [event["choices"][0]["delta"].get("content", "") for event in stream(http, "big-events")[:-1]]
    assert [len(content) for content in contents if content] == [1_048_577, 1_048_577, 1_048_576]


def test_megabyte_without_a_newline_then_close(upstream: Upstream) -> None:
    answer = read_all(raw(upstream, "long-line", stream=True))
    assert len(answer) > 1_048_576
    assert b"\n" not in answer.partition(b"data: ")[2].replace(b"\r\n", b"")


@pytest.mark.parametrize("wish", ["endless-line", "endless-comments", "endless-stream"])
def test_endless_answers_end_when_the_client_leaves(upstream: Upstream, wish: str) -> None:
    connection = raw(upstream, wish, stream=True)
    upstream.wait_for_calls(1)
    while upstream.last.bytes_sent < 1000:
        connection.recv(65_536)
    connection.close()
    assert upstream.wait_for_end(upstream.last, timeout_s=1).client_left


@pytest.mark.parametrize(("wish", "newline"), [("crlf", b"\r\n"), ("cr", b"\r")])
def test_line_ends(upstream: Upstream, http: httpx.Client, wish: str, newline: bytes) -> None:
    body = http.post("/chat/completions", json=ask(wish, stream=True)).content
    assert body.endswith(b"data: [DONE]" + newline * 2)
    assert body.count(newline) == body.count(b"data: ") * 2


def test_comments_between_the_events_change_nothing(upstream: Upstream, http: httpx.Client) -> None:
    plain, commented = stream(http, "ok"), stream(http, "comments")
    assert [event["choices"] for event in commented[:-1]] == [event["choices"] for event in plain[:-1]]


def test_data_over_two_lines_is_one_event(upstream: Upstream, http: httpx.Client) -> None:
    text = http.post("/chat/completions", json=ask("odd-fields", stream=True)).text
    first = text.split("\n\n")[0].split("\n")
    assert first[:3] == ["id: 0", "retry: 3000", "x-odd: 1"]
    assert orjson.loads("\n".join(line.removeprefix("data:") for line in first[3:]))["choices"]


def test_bytes_that_are_no_utf8(upstream: Upstream, http: httpx.Client) -> None:
    body = http.post("/chat/completions", json=ask("invalid-utf8")).content
    with pytest.raises(UnicodeDecodeError):
        body.decode()


@pytest.mark.parametrize(
    ("wish", "sign"),
    [
        ("huge-header?kb=64", b"x" * 65_536),
        ("many-headers?count=900", b"x-padding-899: x"),
        ("bad-header", b"this is no header\r\n"),
        ("bad-status-line", b"SSH-2.0"),
        ("bad-chunk", b"\r\nzz\r\n"),
        ("too-long", b"}HTTP/1.1 200 OK\r\n"),
        ("interim", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n"),
    ],
)
def test_strange_http(upstream: Upstream, wish: str, sign: bytes) -> None:
    connection = raw(upstream, wish)
    got = b""
    while sign not in got:
        part = connection.recv(65_536)
        assert part
        got += part
    connection.close()


# --- the books -------------------------------------------------------------------------------------------------------


def test_call_is_booked_with_its_headers_and_raw_body(upstream: Upstream, http: httpx.Client) -> None:
    http.post("/chat/completions?x=1", content=b'{"model": "gpt-test",  "messages": []}', headers={"X-Tag": "a"})
    call = upstream.wait_for_end(upstream.last)
    assert (call.method, call.path) == ("POST", "/v1/chat/completions?x=1")
    assert call.body == b'{"model": "gpt-test",  "messages": []}'
    assert (call.header("x-tag"), call.header("x-none")) == ("a", None)
    assert call.ended == ANSWERED


def test_chunked_request_body_is_put_together(upstream: Upstream, http: httpx.Client) -> None:
    http.post("/chat/completions", content=iter([b'{"model": "gpt-test", ', b'"messages": []}']))
    assert upstream.last.json == {"model": "gpt-test", "messages": []}


def test_client_that_leaves_is_billed_for_what_was_produced(upstream: Upstream) -> None:
    connection = raw(upstream, "hang-midway?after=2", stream=True)
    upstream.wait(lambda: upstream.books.calls and upstream.last.events_sent == 3)
    connection.close()
    call = upstream.wait_for_end(upstream.last)
    assert (call.prompt_tokens, call.completion_tokens) == (3, 2)
    assert call.bytes_sent > 0
    assert call.closed_at is not None


def test_fin_and_rst_of_the_client_are_told_apart(upstream: Upstream) -> None:
    connection = raw(upstream, "hang")
    upstream.wait_for_calls(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert upstream.wait_for_end(upstream.last).ended == CLIENT_RESET


def test_bytes_count_as_sent_only_when_the_kernel_has_them(upstream: Upstream) -> None:
    """A reader that does not read holds the upstream up: what the back-pressure tests measure."""
    connection = raw(upstream, "huge-body?mb=64")
    upstream.wait_for_calls(1)
    threading.Event().wait(0.2)
    assert 0 < upstream.last.bytes_sent < 32 * 1024 * 1024
    connection.close()
    upstream.wait_for_end(upstream.last)


def test_books_are_exact_under_parallel_calls(upstream: Upstream) -> None:
    def work() -> None:
        with httpx.Client(base_url=upstream.url, trust_env=False) as http:
            for _ in range(20):
                chat(http)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    upstream.wait_until_idle()
    totals = upstream.books.totals()
    assert (totals["received"], totals["ended"], totals["open"]) == (160, {ANSWERED: 160}, 0)
    assert (totals["prompt_tokens"], totals["completion_tokens"]) == (480, 800)


def test_it_runs_as_a_process_of_its_own_too() -> None:
    command = [sys.executable, "-m", "gateway_project.tests.upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False) as http:
            control = url.removesuffix("v1") + "control/"
            http.post(control + "next", json={"name": "429", "times": 2})
            assert [http.post("/chat/completions", json=ask()).status_code for _ in range(3)] == [429, 429, 200]
            totals = http.get(control + "books").json()
            assert (totals["received"], totals["by_model"]) == (3, {"gpt-test:ok": 3})
            assert http.post(control + "reset").json()["received"] == 0
        process.terminate()
        assert process.wait(5) == 0
