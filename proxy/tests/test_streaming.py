"""What the relay of a stream promises, whatever the provider sends and however the network cuts it."""

from __future__ import annotations

import random

import orjson
import pytest

from proxy.providers.base import NonsenseReply
from proxy.streaming import MAX_EVENT_BYTES, Framer, PassThrough, RelayedText

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}],"usage":null}\n\n'
HELLO = 'data: {"choices":[{"index":0,"delta":{"content":"Grüße 👋"},"finish_reason":null}]}\n\n'.encode()
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = ROLE + HELLO + STOP + USAGE + DONE


def relay(chunks: list[bytes], wants_usage: bool = False) -> tuple[PassThrough, bytes]:
    through = PassThrough(wants_usage)
    out = b"".join(through.feed(chunk) for chunk in chunks)
    return through, out + (b"" if through.done else through.end())


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_the_client_gets_the_same_bytes_however_the_stream_is_cut(size: int) -> None:
    assert relay(cut(STREAM, size), wants_usage=True)[1] == STREAM


def test_random_cuts_change_nothing() -> None:
    dice = random.Random(7)
    for _ in range(200):
        rest, chunks = STREAM, []
        while rest:
            size = dice.randint(1, 90)
            chunks.append(rest[:size])
            rest = rest[size:]
        through, out = relay(chunks)
        assert out == ROLE + HELLO + STOP + DONE
        assert through.usage is not None and through.usage.completion == 2


def test_usage_is_read_and_its_event_removed_when_the_client_did_not_ask() -> None:
    through, out = relay([STREAM])
    assert USAGE not in out and out.endswith(DONE)
    assert through.usage is not None and (through.usage.prompt, through.usage.completion) == (3, 2)


def test_usage_inside_a_content_event_stays_because_it_is_not_extra() -> None:
    last = (
        b'data: {"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    )
    through, out = relay([ROLE, last, DONE])
    assert last in out
    assert through.usage is not None


def test_text_that_looks_like_a_usage_event_is_text() -> None:
    quoted = orjson.dumps({"choices": [{"delta": {"content": '"usage":{"prompt_tokens":9} data: [DONE]'}}]})
    through, out = relay([ROLE, b"data: " + quoted + b"\n\n", STOP, USAGE, DONE])
    assert quoted in out
    assert through.usage is not None and through.usage.prompt == 3


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_other_line_ends_are_understood(end: bytes) -> None:
    through, out = relay(cut(STREAM.replace(b"\n", end), 5))
    assert b"Gr\xc3\xbc" in out and b'"total_tokens"' not in out
    assert through.usage is not None


def test_last_event_without_a_blank_line_is_not_lost() -> None:
    through, out = relay([ROLE + HELLO + STOP.rstrip(b"\n")])
    assert b'"stop"' in out
    assert through.done


def test_missing_done_is_added_when_the_answer_was_complete() -> None:
    assert relay([ROLE, HELLO, STOP])[1].endswith(DONE)


def test_stream_that_ends_in_the_middle_is_nonsense() -> None:
    through = PassThrough(wants_usage=False)
    through.feed(ROLE + HELLO)
    with pytest.raises(NonsenseReply):
        through.end()


def test_nothing_after_done_is_passed_on() -> None:
    assert relay([STOP + DONE + HELLO])[1] == STOP + DONE


def test_error_event_is_kept_back_and_told_to_the_pipeline() -> None:
    through = PassThrough(wants_usage=False)
    through.feed(ROLE)
    out = through.feed(HELLO + b'data: {"error":{"message":"overloaded"}}\n\n' + HELLO)
    assert out == HELLO
    assert through.error == {"error": {"message": "overloaded"}}


@pytest.mark.parametrize("event", [b"data: {broken\n\n", b"data: [1,2]\n\n", b'data: "text"\n\n'])
def test_first_event_that_is_no_json_object_is_nonsense(event: bytes) -> None:
    with pytest.raises(NonsenseReply):
        PassThrough(wants_usage=False).feed(event)


def test_comments_do_not_begin_an_answer() -> None:
    through = PassThrough(wants_usage=False)
    assert through.feed(b": still thinking\n\n") == b": still thinking\n\n"
    assert not through.begun


def test_azures_first_event_without_choices_stays() -> None:
    first = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
    assert first in relay([first, ROLE, STOP, DONE])[1]


def test_event_of_a_megabyte_arrives_whole() -> None:
    big = b'data: {"choices":[{"delta":{"content":"' + b"x" * 1_000_000 + b'"}}]}\n\n'
    assert relay(cut(ROLE + big + STOP + DONE, 4096))[1] == ROLE + big + STOP + DONE


def test_event_without_end_is_given_up() -> None:
    framer = Framer()
    framer.feed(b"data: ")
    with pytest.raises(NonsenseReply):
        for _ in range(MAX_EVENT_BYTES // 65536 + 1):
            framer.feed(b"x" * 65536)


def test_relayed_text_is_estimated_from_what_the_model_said_only() -> None:
    text = RelayedText()
    event = orjson.dumps(
        {
            "id": "chatcmpl-" + "0" * 100,
            "choices": [
                {"delta": {"content": "a" * 40, "tool_calls": [{"id": "call_1", "function": {"arguments": "b" * 40}}]}}
            ],
        }
    )
    for _ in range(1000):
        text.add(b"data: " + event + b"\n\n")
    assert text.tokens() == 20 * 1000
