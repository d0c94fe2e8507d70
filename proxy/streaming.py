"""Streams of server-sent events: framing, the relay to the client, and what the relay learns on the way.

Framing as in the HTML standard, section 9.2 (lines end in LF, CRLF or CR; a blank line ends an event). Bytes are passed
on as they came, in whole events; an event is parsed only when a cheap search says that it holds something we need:
usage, an error, a finish reason, the end.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import orjson

from proxy.providers.base import NonsenseReply, StreamTranslator
from proxy.providers.openai import is_usage_only, usage_of
from usage.pricing import TokenUsage

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DONE = b"data: [DONE]\n\n"
MAX_EVENT_BYTES = 16 * 1024 * 1024
# In a JSON string these would be escaped (\"usage\":), so text that a model writes cannot look like one.
# One literal to begin with, so that the engine jumps from quote to quote: a third of the time of an alternation.
INTERESTING = re.compile(rb'"(?:usage"\s*:\s*\{|finish_reason"\s*:\s*"|error"\s*:\s*[{"])')
LAST_WORD = b"[DONE]"
BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
LINE_END = re.compile(rb"\r\n|\n|\r")


class Framer:
    """Cuts a stream of bytes into blocks of whole events, wherever the chunks were cut."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._at_start = True

    def feed(self, chunk: bytes) -> bytes:
        """The whole events that are complete now, b"" when none is. Raises NonsenseReply when an event has no end."""
        if self._at_start:
            chunk = self._without_mark(chunk)
        if not self._tail:
            if chunk.endswith(b"\n\n"):
                return chunk  # what nearly every provider sends: whole events
            start = 0
        else:
            start = max(0, len(self._tail) - 3)
        self._tail += chunk
        end = _last_boundary(self._tail, start)
        if end < 0:
            if len(self._tail) > MAX_EVENT_BYTES:
                raise NonsenseReply("an event without end")
            return b""
        block = bytes(self._tail[:end])
        del self._tail[:end]
        return block

    def _without_mark(self, chunk: bytes) -> bytes:
        """One byte-order mark may come before everything; it may itself be cut in two."""
        start = bytes(self._tail) + chunk
        if len(start) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(start):
            return chunk
        self._at_start = False
        self._tail.clear()
        return start.removeprefix(BYTE_ORDER_MARK)

    def end(self) -> bytes:
        """What is left when the stream ends: a last event whose blank line is missing is still an event."""
        rest, self._tail = bytes(self._tail), bytearray()
        return rest.rstrip(b"\r\n") + b"\n\n" if rest.strip() else b""


def _last_boundary(buffer: bytearray, start: int) -> int:
    """Offset after the last blank line at or behind `start`; -1 if there is none."""
    return max(
        (
            found + len(mark)
            for mark in (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n")
            if (found := buffer.rfind(mark, start)) >= 0
        ),
        default=-1,
    )


def split_events(block: bytes) -> list[bytes]:
    """The single events of a block, each without its blank line."""
    return [event for event in BLANK_LINE.split(block) if event.strip(b"\r\n")]


def event_data(event: bytes) -> tuple[str, bytes | None]:
    """The event's name and its data, lines joined; None when it is only a comment or has no data."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return "", event[6:]  # as nearly all are
    name, data = "", []
    for line in LINE_END.split(event):
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode("utf-8", "replace")
    return name, b"\n".join(data) if data else None


class RelayedText:
    """The text that went to the client, for an estimate when the provider's own count never comes.

    Blocks are only kept, and parsed when they grow: a stream that ends as it should is never parsed for this.
    """

    FOLD_BYTES = 64 * 1024

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._size = 0
        self._text_bytes = 0

    def add(self, block: bytes) -> None:
        self._blocks.append(block)
        self._size += len(block)
        if self._size > self.FOLD_BYTES:
            self._fold()

    def tokens(self) -> int:
        """About four bytes of UTF-8 a token; any text at all is at least one."""
        self._fold()
        return (self._text_bytes + 3) // 4

    def _fold(self) -> None:
        for event in split_events(b"".join(self._blocks)):
            data = event_data(event)[1]
            if data is None or data == LAST_WORD:
                continue
            try:
                self._text_bytes += text_bytes(orjson.loads(data))
            except orjson.JSONDecodeError:
                self._text_bytes += len(data)
        self._blocks.clear()
        self._size = 0


def text_bytes(event: Any) -> int:
    """UTF-8 bytes of everything a chunk or a whole reply says: content, reasoning, refusal, tool calls, text."""
    choices = event.get("choices") if isinstance(event, dict) else None
    if not isinstance(choices, list):
        return 0
    total = 0
    for choice in choices:
        if isinstance(choice, dict):
            total += _strings(choice.get("delta")) + _strings(choice.get("message")) + _strings(choice.get("text"))
    return total


def reply_text_bytes(body: bytes) -> int:
    """`text_bytes` of a whole reply."""
    return text_bytes(orjson.loads(body))


def _strings(value: Any) -> int:
    """Bytes of all strings inside, however deep; roles, ids and types are a rounding error and are left out."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, list):
        return sum(map(_strings, value))
    if isinstance(value, dict):
        return sum(_strings(item) for key, item in value.items() if key not in ("role", "id", "type"))
    return 0


class Relay(Protocol):
    """What the pipeline feeds a provider's stream through. `feed` and `end` give the bytes for the client.

    begun     an event with data has come (comments do not count)
    complete  the answer is whole, although the last word may be missing
    done      the provider has said its last word
    error     OpenAI's error object, when the provider reported one; nothing after it is passed on
    """

    @property
    def begun(self) -> bool: ...

    @property
    def done(self) -> bool: ...

    @property
    def relayed(self) -> RelayedText: ...

    @property
    def error(self) -> dict[str, Any] | None: ...

    @property
    def usage(self) -> TokenUsage | None: ...

    @property
    def complete(self) -> bool: ...

    def feed(self, chunk: bytes) -> bytes:
        """Raises NonsenseReply."""

    def end(self) -> bytes:
        """The provider's connection has ended. Raises NonsenseReply when its answer was not complete."""


class PassThrough:
    """A provider that streams OpenAI's events: bytes go on as they are, but for the usage event nobody asked for."""

    def __init__(self, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._framer = Framer()
        self.complete = False
        self.begun = False
        self.done = False
        self.error: dict[str, Any] | None = None
        self.usage: TokenUsage | None = None
        self.relayed = RelayedText()

    def feed(self, chunk: bytes) -> bytes:
        block = self._framer.feed(chunk)
        if not block:
            return b""
        if not self.begun or LAST_WORD in block or INTERESTING.search(block) is not None:
            block = self._inspect(block)
        self.relayed.add(block)
        return block

    def end(self) -> bytes:
        rest = self._framer.end()
        try:
            rest = self._inspect(rest)
        except NonsenseReply:
            if not self.complete:
                raise
            rest = b""  # half an event after a whole answer
        self.relayed.add(rest)
        if self.done or self.error:
            return rest
        if not self.complete:
            raise NonsenseReply("the stream ended before the answer did")
        self.done = True
        return rest + DONE

    def _inspect(self, block: bytes) -> bytes:
        kept = []
        for event in split_events(block):
            if self.done or self.error:
                break
            if self._is_needed_by_nobody(event) or self._keep(event):
                kept.append(event + b"\n\n")
        return b"".join(kept)

    def _is_needed_by_nobody(self, event: bytes) -> bool:
        """Passed on unparsed, whatever stands beside it in the block: how TCP cut the stream must change nothing."""
        return self.begun and LAST_WORD not in event and INTERESTING.search(event) is None

    def _keep(self, event: bytes) -> bool:
        data = event_data(event)[1]
        if data is None:
            return True
        if data.strip() == LAST_WORD:
            self.done = self.begun = True
            return True
        try:
            parsed = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise NonsenseReply("an event that is not JSON") from error
        if not isinstance(parsed, dict):
            raise NonsenseReply("an event that is not an object")
        self.begun = True
        if parsed.get("error"):
            self.error = parsed
            return False
        usage = usage_of(parsed)
        if usage is not None:
            self.usage = usage
        self.complete = self.complete or usage is not None or _has_finished(parsed)
        return self._wants_usage or not is_usage_only(parsed)


def _has_finished(event: dict[str, Any]) -> bool:
    choices = event.get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") for c in choices)


class Translated:
    """A provider with events of its own: an adapter's translator makes OpenAI's of them."""

    def __init__(self, translator: StreamTranslator) -> None:
        self._translator = translator
        self._framer = Framer()
        self.begun = False
        self.done = False
        self.relayed = RelayedText()

    @property
    def usage(self) -> TokenUsage | None:
        return self._translator.usage

    @property
    def complete(self) -> bool:
        return self._translator.finished

    @property
    def error(self) -> dict[str, Any] | None:
        error = self._translator.error
        return None if error is None else {"error": error}

    def feed(self, chunk: bytes) -> bytes:
        out = self._translate(self._framer.feed(chunk))
        if self._translator.finished and not self.done:
            self.done = True
            out += self._translator.end()
        self.relayed.add(out)
        return out

    def end(self) -> bytes:
        out = self._translate(self._framer.end())
        if self.done or self.error:
            return out
        if not self._translator.finished:
            raise NonsenseReply("the stream ended before the answer did")
        self.done = True
        return out + self._translator.end()

    def _translate(self, block: bytes) -> bytes:
        out = []
        for event in split_events(block):
            name, data = event_data(event)
            if data is None or self.error or self.done:
                continue
            out.append(self._translator.feed(name, data))
            self.begun = self.begun or bool(out[-1]) or self.error is not None
        return b"".join(out)
