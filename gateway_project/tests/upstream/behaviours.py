r"""How the upstream answers: well, slowly, badly, not at all. One function per behaviour.

A test chooses by the model's name, `gpt-test:NAME?OPTION=VALUE&...` ("gpt-test" alone is `ok`), or beforehand with
`upstream.next("NAME", option=value)`. A number is a name too: `gpt-test:429` is `error?status=429`.

"Midway": of a stream, after `after` (3) pieces of the answer; of a whole answer, after half of its bytes. What only a
stream can do (its events, lines and [DONE]) is a good answer where a whole one was asked for.

| name                  | what the upstream does                                                                    |
| --------------------- | ----------------------------------------------------------------------------------------- |
| ok                    | answers as a provider does, whole or as a stream (options: answers.py)                    |
| repeat                | answers with the request's own body as the text                                           |
| utf8                  | answers in letters of one to four bytes, joined emoji, combining marks                    |
| byte-by-byte          | the same, each byte of the whole answer (head too) in a write of its own                  |
| slow-first-byte       | answers after `delay_ms` (500)                                                            |
| slow-first-event      | head at once, the rest after `delay_ms` (500)                                             |
| hang                  | reads the request and says nothing                                                        |
| hang-after-head       | says nothing after the head                                                               |
| hang-midway           | says nothing from midway on                                                               |
| hang-before-done      | streams everything but [DONE], then keeps the connection open                             |
| close-before-head     | closes (FIN) without a word                                                               |
| close-in-head         | closes in the middle of a header line                                                     |
| close-after-head      | closes after the head                                                                     |
| close-midway          | closes midway: a content-length that is never reached, chunks that never end              |
| close-mid-event       | closes in the middle of an event's line                                                   |
| reset-before-head     | closes with RST without a word                                                            |
| reset-midway          | closes with RST midway                                                                    |
| end-midway            | ends the transfer properly midway: half a JSON, a stream without finish_reason or [DONE]  |
| no-done               | streams everything, but no [DONE]                                                         |
| until-close           | neither content-length nor chunks: the answer ends with the connection                    |
| closes-after-answer   | answers, then closes the connection without having said so                                |
| dies-on-reuse         | answers; the connection dies under the next request (`reset`=1: with RST)                 |
| garbage               | "{not json" as application/json; as a stream: in its second event                         |
| empty                 | 200 with an empty body                                                                    |
| json                  | 200 with `body`, any JSON (null): `json?body=[]`                                          |
| deep-json             | 200 with lists nested 100,000 deep                                                        |
| no-choices            | 200 with a completion whose choices are an empty object                                   |
| error-in-200          | 200 with an error object; as a stream: as its first event                                 |
| error-midway          | a stream that turns into an error event midway                                            |
| html                  | a web page with `status` (502)                                                            |
| whole-for-stream      | answers whole where a stream was asked for                                                |
| stream-for-whole      | answers as a stream where a whole answer was asked for                                    |
| wrong-type            | a proper answer called `type` (text/plain)                                                |
| error                 | `status` (500), OpenAI's error object; 429 with retry-after (`retry_after`=1) and limits; |
|                       | `message`: other words than the usual                                                     |
| error-json            | `status` (500), JSON of another shape: {"detail": ...}                                    |
| error-text            | `status` (500), a line of text                                                            |
| error-empty           | `status` (500), no body                                                                   |
| error-midbody         | `status` (500), closes in the middle of the error's body                                  |
| redirect              | `status` (302) to `to` (the upstream's own /elsewhere, which is in the books)             |
| gzip                  | answers gzipped, though nobody asked for it                                               |
| gzip-lie              | says gzip, sends plain                                                                    |
| gzip-bomb             | `mb` (100) megabytes of blanks, gzipped                                                   |
| huge-body             | `mb` (100) megabytes of JSON                                                              |
| big-events            | 3 pieces of `mb` (1) megabytes each                                                       |
| long-line             | a stream of `mb` (1) megabytes without a newline, then closes                             |
| endless-line          | a line that never ends                                                                    |
| endless-comments      | comment lines, for ever, every `delay_ms` (1)                                             |
| endless-stream        | pieces, for ever, every `delay_ms` (1)                                                    |
| comments              | comment lines and blank lines between the events, a byte-order mark before                |
| odd-fields            | id:, retry:, unknown fields, no blank after the colon, data over two lines                |
| crlf, cr              | lines end so                                                                              |
| invalid-utf8          | bytes that are no UTF-8 in the text                                                       |
| huge-header           | a header of `kb` (64) kilobytes                                                           |
| many-headers          | `count` (1000) headers                                                                    |
| bad-header            | a header line without a colon                                                             |
| bad-status-line       | no HTTP at all                                                                            |
| bad-chunk             | a chunk whose size is no number, midway in a stream; whole: at once                       |
| too-long              | more bytes than the content-length says                                                   |
| interim               | 100 Continue and 103 Early Hints before the answer                                        |

Options of every behaviour: `delay_ms` (0) between events; `split` (0): every write cut into pieces of so many bytes,
each a packet of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from gateway_project.tests.upstream.answers import Answer, Event, Options, compact
from gateway_project.tests.upstream.turn import Turn

Behaviour = Callable[[Turn], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}
MEGABYTE = 1024 * 1024
UTF8_TEXT = "Zürich kostet 5 € – 東京 🇨🇭 👩‍👩‍👧 é नमस्ते مرحبا"
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502</h1></center></body></html>"


def behaviour(name: str, *, streams_only: bool = False) -> Callable[[Behaviour], Behaviour]:
    """`streams_only`: a whole answer has nothing of the kind, so it is a good one."""

    def register(function: Behaviour) -> Behaviour:
        async def stream_or_ok(turn: Turn) -> None:
            await (function(turn) if turn.streams else ok(turn))

        BEHAVIOURS[name] = stream_or_ok if streams_only else function
        return function

    return register


def find(name: str, options: Options) -> tuple[Behaviour, Options]:
    """The behaviour of that name; a number is an error of that status. Raises KeyError."""
    if name.isdecimal():
        return BEHAVIOURS["error"], Options({"status": name, **options.as_dict()})
    return BEHAVIOURS[name], options


# --- well ------------------------------------------------------------------------------------------------------------


@behaviour("ok")
async def ok(turn: Turn) -> None:
    await turn.answer_well()


@behaviour("repeat")
async def repeat(turn: Turn) -> None:
    turn.override(text=turn.call.body.decode())
    await turn.answer_well()


@behaviour("utf8")
async def utf8(turn: Turn) -> None:
    turn.override(text=UTF8_TEXT)
    await turn.answer_well()


@behaviour("byte-by-byte")
async def byte_by_byte(turn: Turn) -> None:
    turn.override(text=UTF8_TEXT, split=1)
    await turn.answer_well()


# --- slowly ----------------------------------------------------------------------------------------------------------


@behaviour("slow-first-byte")
async def slow_first_byte(turn: Turn) -> None:
    await turn.pause(turn.options.seconds("delay_ms", 500))
    turn.override(delay_ms=0)
    await turn.answer_well()


@behaviour("slow-first-event")
async def slow_first_event(turn: Turn) -> None:
    delay = turn.options.seconds("delay_ms", 500)
    turn.override(delay_ms=0)
    if turn.streams:
        await turn.begin_stream()
        await turn.pause(delay)
        await turn.say(turn.answer.events())
        await turn.finish_stream()
    else:
        body = turn.bill_whole()
        await turn.head(length=len(body))
        await turn.pause(delay)
        await turn.send(body)


@behaviour("hang")
async def hang(turn: Turn) -> None:
    await turn.hang()


@behaviour("hang-after-head")
async def hang_after_head(turn: Turn) -> None:
    await begin(turn)
    await turn.hang()


@behaviour("hang-midway")
async def hang_midway(turn: Turn) -> None:
    await go_midway(turn)
    await turn.hang()


@behaviour("hang-before-done", streams_only=True)
async def hang_before_done(turn: Turn) -> None:
    await turn.begin_stream()
    await turn.say(turn.answer.events())
    await turn.hang()


# --- and then it closes ----------------------------------------------------------------------------------------------


@behaviour("close-before-head")
async def close_before_head(turn: Turn) -> None:
    turn.cut()


@behaviour("close-in-head")
async def close_in_head(turn: Turn) -> None:
    await turn.send(b"HTTP/1.1 200 OK\r\ncontent-type: applica")
    turn.cut()


@behaviour("close-after-head")
async def close_after_head(turn: Turn) -> None:
    await begin(turn)
    turn.cut()


@behaviour("close-midway")
async def close_midway(turn: Turn) -> None:
    await go_midway(turn)
    turn.cut()


@behaviour("close-mid-event", streams_only=True)
async def close_mid_event(turn: Turn) -> None:
    await go_midway(turn)
    await turn.chunk(b'data: {"id":"chatcmpl-upstream","choi')
    turn.cut()


@behaviour("reset-before-head")
async def reset_before_head(turn: Turn) -> None:
    turn.cut(reset=True)


@behaviour("reset-midway")
async def reset_midway(turn: Turn) -> None:
    await go_midway(turn)
    turn.cut(reset=True)


@behaviour("end-midway")
async def end_midway(turn: Turn) -> None:
    if turn.streams:
        await go_midway(turn)
        await turn.end_chunks()
    else:
        body = turn.bill_whole()
        await turn.whole(body[: len(body) // 2])


@behaviour("no-done", streams_only=True)
async def no_done(turn: Turn) -> None:
    await turn.begin_stream()
    await turn.say(turn.answer.events())
    await turn.end_chunks()


@behaviour("until-close")
async def until_close(turn: Turn) -> None:
    if turn.streams:
        await turn.begin_stream(chunked=False)
        await turn.say(turn.answer.events())
        await turn.finish_stream()
    else:
        await turn.head(length=None)
        await turn.send(turn.bill_whole())
    turn.answered()
    turn.cut()


@behaviour("closes-after-answer")
async def closes_after_answer(turn: Turn) -> None:
    await turn.answer_well()
    turn.answered()
    turn.cut()


@behaviour("dies-on-reuse")
async def dies_on_reuse(turn: Turn) -> None:
    turn.die_on_next(reset=turn.options.count("reset") == 1)
    await turn.answer_well()


# --- nonsense --------------------------------------------------------------------------------------------------------


@behaviour("garbage")
async def garbage(turn: Turn) -> None:
    if turn.streams:
        await go_midway(turn, after=1)
        await turn.event(Event(b"{not json"))
        await turn.finish_stream()
    else:
        await turn.whole(b"{not json")


@behaviour("empty")
async def empty(turn: Turn) -> None:
    await turn.whole(b"")


@behaviour("json")
async def any_json(turn: Turn) -> None:
    await turn.whole(turn.options.text("body", "null").encode())


@behaviour("deep-json")
async def deep_json(turn: Turn) -> None:
    await turn.whole(b"[" * 100_000 + b"]" * 100_000)


@behaviour("no-choices")
async def no_choices(turn: Turn) -> None:
    await turn.whole(compact({**turn.answer.whole(), "choices": {}}))


@behaviour("error-in-200")
async def error_in_200(turn: Turn) -> None:
    body = compact(openai_error("The engine is overloaded.", "server_error", "overloaded"))
    if turn.streams:
        await turn.begin_stream()
        await turn.event(Event(body))
        await turn.finish_stream()
    else:
        await turn.whole(body)


@behaviour("error-midway", streams_only=True)
async def error_midway(turn: Turn) -> None:
    await go_midway(turn)
    if turn.speaks_anthropic:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        await turn.event(Event(compact(error), "error"))
        await turn.end_chunks()
    else:
        await turn.event(Event(compact(openai_error("The engine is overloaded.", "server_error", "overloaded"))))
        await turn.finish_stream()


@behaviour("html")
async def html(turn: Turn) -> None:
    await turn.whole(PAGE, status=turn.options.count("status", 502), content_type="text/html")


@behaviour("whole-for-stream")
async def whole_for_stream(turn: Turn) -> None:
    await turn.whole(turn.bill_whole())


@behaviour("stream-for-whole")
async def stream_for_whole(turn: Turn) -> None:
    await turn.begin_stream()
    await turn.say(turn.answer.events())
    await turn.finish_stream()


@behaviour("wrong-type")
async def wrong_type(turn: Turn) -> None:
    turn.content_type = turn.options.text("type", "text/plain")
    await turn.answer_well()


# --- it says no ------------------------------------------------------------------------------------------------------

# As OpenAI words them, so that its SDK raises the class that belongs to it.
ERRORS: dict[int, tuple[str, str, str | None]] = {
    400: ("The request is not valid.", "invalid_request_error", None),
    401: ("Incorrect API key provided: sk-upst*****key1.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to use this model.", "invalid_request_error", "permission_denied"),
    404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
    409: ("The resource is being changed.", "invalid_request_error", "conflict"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    422: ("The request cannot be processed.", "invalid_request_error", "unprocessable"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
}
RATE_LIMITS = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "2s",
}


def openai_error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@behaviour("error")
async def error(turn: Turn) -> None:
    status = turn.options.count("status", 500)
    body = openai_error(*ERRORS.get(status, ("The server had an error.", "server_error", None)))
    body["error"]["message"] = turn.options.text("message", body["error"]["message"])
    if turn.speaks_anthropic:
        body = {"type": "error", "error": {"type": "api_error", "message": body["error"]["message"]}}
    headers = {"retry-after": turn.options.text("retry_after", "1"), **RATE_LIMITS} if status == 429 else {}
    await turn.whole(compact(body), status=status, headers=headers)


@behaviour("error-json")
async def error_json(turn: Turn) -> None:
    await turn.whole(b'{"detail": [{"loc": ["body"], "msg": "no"}]}', status=turn.options.count("status", 500))


@behaviour("error-text")
async def error_text(turn: Turn) -> None:
    status = turn.options.count("status", 500)
    await turn.whole(b"upstream connect error", status=status, content_type="text/plain")


@behaviour("error-empty")
async def error_empty(turn: Turn) -> None:
    await turn.whole(b"", status=turn.options.count("status", 500))


@behaviour("error-midbody")
async def error_midbody(turn: Turn) -> None:
    body = compact(openai_error("The server had an error.", "server_error", None))
    await turn.head(turn.options.count("status", 500), length=len(body))
    await turn.send(body[: len(body) // 2])
    turn.cut()


@behaviour("redirect")
async def redirect(turn: Turn) -> None:
    elsewhere = turn.options.text("to") or f"{turn.origin}/elsewhere/chat/completions"
    await turn.whole(b"", status=turn.options.count("status", 302), headers={"location": elsewhere})


# --- strange on the wire ---------------------------------------------------------------------------------------------


@behaviour("gzip")
async def gzipped(turn: Turn) -> None:
    turn.compress()
    await turn.answer_well()


@behaviour("gzip-lie")
async def gzip_lie(turn: Turn) -> None:
    turn.extra_headers["content-encoding"] = "gzip"
    await turn.answer_well()


@behaviour("gzip-bomb")
async def gzip_bomb(turn: Turn) -> None:
    press = zlib.compressobj(wbits=31)
    blanks = b" " * MEGABYTE
    bomb = b"".join(press.compress(blanks) for _ in range(turn.options.count("mb", 100))) + press.flush()
    await turn.whole(bomb, headers={"content-encoding": "gzip"})


@behaviour("huge-body")
async def huge_body(turn: Turn) -> None:
    size = turn.options.count("mb", 100)
    opening, closing = b'{"choices": [], "padding": "', b'"}'
    await turn.head(length=size * MEGABYTE + len(opening) + len(closing))
    await turn.send(opening)
    for _ in range(size):
        await turn.send(b"x" * MEGABYTE)
    await turn.send(closing)


@behaviour("big-events")
async def big_events(turn: Turn) -> None:
    size = turn.options.count("mb", 1) * MEGABYTE
    turn.override(text=" ".join(letter * size for letter in "abc"))
    await turn.answer_well()


@behaviour("long-line", streams_only=True)
async def long_line(turn: Turn) -> None:
    await turn.begin_stream()
    await turn.chunk(b'data: {"padding": "')
    for _ in range(turn.options.count("mb", 1)):
        await turn.chunk(b"x" * MEGABYTE)
    turn.cut()


@behaviour("endless-line", streams_only=True)
async def endless_line(turn: Turn) -> None:
    await turn.begin_stream()
    await turn.chunk(b'data: {"padding": "')
    while True:
        await turn.chunk(b"x" * 65_536)
        await turn.pause(0)


@behaviour("endless-comments", streams_only=True)
async def endless_comments(turn: Turn) -> None:
    await turn.begin_stream()
    while True:
        await turn.chunk(b": keep-alive\n\n")
        await turn.pause(turn.options.seconds("delay_ms", 1))


@behaviour("endless-stream", streams_only=True)
async def endless_stream(turn: Turn) -> None:
    delay = turn.options.seconds("delay_ms", 1)
    first, *_ = first_pieces(turn.answer, 1)
    pieces = [event for event in turn.answer.events() if event.is_content]
    await turn.begin_stream()
    await turn.event(first)
    while True:
        for event in pieces:
            await turn.event(event)
            await turn.pause(delay)


@behaviour("comments", streams_only=True)
async def comments(turn: Turn) -> None:
    await turn.begin_stream()
    await turn.chunk("\ufeff: OPENROUTER PROCESSING\n\n".encode())
    for event in turn.answer.events():
        await turn.chunk(b":\n\n: still here\n\n\n")
        await turn.event(event)
    await turn.finish_stream()


@behaviour("odd-fields", streams_only=True)
async def odd_fields(turn: Turn) -> None:
    await turn.begin_stream()
    for number, event in enumerate(turn.answer.events()):
        start, end = event.data[:1], event.data[1:]
        turn.bill(event)
        await turn.chunk(b"id: %d\nretry: 3000\nx-odd: 1\ndata:%s\ndata:%s\n\n" % (number, start, end))
    await turn.finish_stream()


@behaviour("crlf", streams_only=True)
async def crlf(turn: Turn) -> None:
    turn.newline = b"\r\n"
    await turn.answer_well()


@behaviour("cr", streams_only=True)
async def cr(turn: Turn) -> None:
    turn.newline = b"\r"
    await turn.answer_well()


@behaviour("invalid-utf8")
async def invalid_utf8(turn: Turn) -> None:
    turn.override(text="bad @@ bytes")
    turn.replace = (b"@@", b"\xff\xc3\x28")
    await turn.answer_well()


@behaviour("huge-header")
async def huge_header(turn: Turn) -> None:
    turn.extra_headers["x-padding"] = "x" * turn.options.count("kb", 64) * 1024
    await turn.answer_well()


@behaviour("many-headers")
async def many_headers(turn: Turn) -> None:
    turn.extra_headers |= {f"x-padding-{number}": "x" for number in range(turn.options.count("count", 1000))}
    await turn.answer_well()


@behaviour("bad-header")
async def bad_header(turn: Turn) -> None:
    await turn.send(b"HTTP/1.1 200 OK\r\nthis is no header\r\ncontent-length: 2\r\n\r\n{}")
    turn.cut()


@behaviour("bad-status-line")
async def bad_status_line(turn: Turn) -> None:
    await turn.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    turn.cut()


@behaviour("bad-chunk")
async def bad_chunk(turn: Turn) -> None:
    if turn.streams:
        await go_midway(turn)
    else:
        await turn.head(chunked=True)
    await turn.send(b"zz\r\nnonsense\r\n")
    turn.cut()


@behaviour("too-long")
async def too_long(turn: Turn) -> None:
    body = turn.bill_whole()
    await turn.head(length=len(body))
    await turn.send(body + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    turn.cut()


@behaviour("interim")
async def interim(turn: Turn) -> None:
    await turn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await turn.send(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
    await turn.answer_well()


# --- parts of the above ----------------------------------------------------------------------------------------------


async def begin(turn: Turn) -> None:
    """The head of a proper answer, and nothing of it."""
    if turn.streams:
        await turn.begin_stream()
    else:
        await turn.head(length=len(compact(turn.answer.whole())))


async def go_midway(turn: Turn, after: int | None = None) -> None:
    if not turn.streams:
        body = turn.bill_whole()
        await turn.head(length=len(body))
        await turn.send(body[: len(body) // 2])
        return
    await turn.begin_stream()
    await turn.say(first_pieces(turn.answer, turn.options.count("after", 3) if after is None else after))


def first_pieces(answer: Answer, count: int) -> Iterator[Event]:
    """The events up to and including the `count`-th with a piece of the answer."""
    left = count
    for event in answer.events():
        if left == 0:
            return
        left -= event.is_content
        yield event
