"""A provider that costs next to nothing: canned answers on a bare protocol. `python -m benchmarks.mock_upstream`

Whole answers at once. Streams as CHUNKS events, one every TICK_S, from one timer for all of them.
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

CHUNKS = 100
TICK_S = 0.01
USAGE = '"usage":{"prompt_tokens":12,"completion_tokens":100,"total_tokens":112}'
HEAD = '"id":"chatcmpl-bench0123456789abcdefghij","created":1790000000,"model":"bench","system_fingerprint":"fp_bench"'
WHOLE = (
    f'{{{HEAD},"object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":'
    '"The quick brown fox jumps over the lazy dog, and then it does so once more.","refusal":null},'
    f'"logprobs":null,"finish_reason":"stop"}}],{USAGE}}}'
)


def _event(data: str) -> bytes:
    """An SSE event as an HTTP chunk of its own."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


def _delta(content: str, finish: str = "null") -> str:
    choice = f'{{"index":0,"delta":{content},"logprobs":null,"finish_reason":{finish}}}'
    return f'{{{HEAD},"object":"chat.completion.chunk","choices":[{choice}]}}'


WHOLE_REPLY = (
    f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(WHOLE)}\r\n\r\n{WHOLE}".encode()
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = _event(_delta('{"content":" fox"}'))
LAST = _event(_delta("{}", '"stop"'))
USAGE_EVENT = _event(f'{{{HEAD},"object":"chat.completion.chunk","choices":[],{USAGE}}}')
END = _event("[DONE]") + b"0\r\n\r\n"


class Mock(asyncio.Protocol):
    streams: dict[Mock, int]  # and how many chunks they have had

    def __init__(self, streams: dict[Mock, int]) -> None:
        self.streams = streams
        self.buffer = b""
        self.wants_usage = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP's are no less
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.streams.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (request := self._request()) is not None:
            if b'"stream":true' in request or b'"stream": true' in request:
                self.wants_usage = b"include_usage" in request
                self.transport.write(STREAM_HEAD)
                self.streams[self] = 0
            else:
                self.transport.write(WHOLE_REPLY)

    def _request(self) -> bytes | None:
        """The next whole request, taken off the buffer."""
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = self.buffer[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        end = head_end + 4 + length
        if len(self.buffer) < end:
            return None
        request, self.buffer = self.buffer[:end], self.buffer[end:]
        return request

    def tick(self, sent: int) -> bool:
        """The next chunk. False: that was the last."""
        if sent < CHUNKS:
            self.transport.write(CHUNK)
            return True
        self.transport.write(LAST + (USAGE_EVENT if self.wants_usage else b"") + END)
        return False


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    streams: dict[Mock, int] = {}
    await loop.create_server(lambda: Mock(streams), "127.0.0.1", port, backlog=4096)
    due = loop.time()
    while True:
        due = max(due + TICK_S, loop.time())
        await asyncio.sleep(due - loop.time())
        for stream, sent in list(streams.items()):
            if stream.tick(sent):
                streams[stream] = sent + 1
            else:
                del streams[stream]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
