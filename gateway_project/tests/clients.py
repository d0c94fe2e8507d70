"""Clients of a gateway under test: the verbs of the specs, and a client on a raw socket that can misbehave."""

from __future__ import annotations

import re
import socket
import struct
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
import orjson

if TYPE_CHECKING:
    from gateway_project.tests.gateway_process import GatewayProcess

PROMPT = [{"role": "user", "content": "one two three"}]
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def body(model: str = "gpt-test", **fields: Any) -> dict[str, Any]:
    """A chat body with a prompt of three tokens, unless `messages` says otherwise. A field set to ... is left out."""
    return {name: value for name, value in {"model": model, "messages": PROMPT, **fields}.items() if value is not ...}


def call(
    gateway: GatewayProcess,
    model: str = "gpt-test",
    *,
    endpoint: str = "chat/completions",
    key: str | None = "alice",
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> httpx.Response:
    """One call of the cast's `key` (a name, or a key; None: without any). The reply is read whole, a stream too."""
    request = body(model, **fields) if endpoint == "chat/completions" else {"model": model, **fields}
    return gateway.http.post(f"/v1/{endpoint}", json=request, headers=credentials(gateway, key, headers))


def credentials(gateway: GatewayProcess, key: str | None, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    given = {} if key is None else {"authorization": f"Bearer {gateway.keys.get(key, key)}"}
    return {"x-request-id": new_request_id(), **given, **(headers or {})}


def new_request_id() -> str:
    """So that the call's usage event can be told from all others."""
    return f"test-{uuid.uuid4().hex}"


# --- what came back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stream:
    """An SSE body taken apart. `events` are the parsed data, without [DONE]; `error` is that of an error event."""

    events: list[dict[str, Any]]
    done: bool

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        data = [
            b"\n".join(line[5:].removeprefix(b" ") for line in block.splitlines() if line.startswith(b"data:"))
            for block in re.split(rb"(?:\r\n|\r|\n){2,}", response.content)
        ]
        return cls([orjson.loads(item) for item in data if item not in (b"", b"[DONE]")], done=b"[DONE]" in data)

    @property
    def text(self) -> str:
        """The first choice's text, put together as a client does."""
        choices = [event["choices"][0] for event in self.events if event.get("choices")]
        own = [choice for choice in choices if choice.get("index", 0) == 0]
        return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in own)

    @property
    def usage(self) -> dict[str, Any] | None:
        return next((event["usage"] for event in reversed(self.events) if event.get("usage")), None)

    @property
    def error(self) -> dict[str, Any] | None:
        return next((event["error"] for event in self.events if "error" in event), None)


def answer_text(response: httpx.Response) -> str:
    """The first choice's text of a good answer, whole or streamed."""
    assert response.status_code == 200, response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        return Stream.of(response).text
    choice = response.json()["choices"][0]
    text: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


def check_error(
    response: httpx.Response, status: int, type: str, code: str | None, *, param: str | None = None
) -> dict[str, Any]:
    """The one error shape: status, type, code, param, a message, and x-request-id. Gives the error object."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert REQUEST_ID.fullmatch(response.headers["x-request-id"])
    answer = response.json()
    assert list(answer) == ["error"]
    error: dict[str, Any] = answer["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert (error["type"], error["code"], error["param"]) == (type, code, param)
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


def check_estimate(event: dict[str, Any], relayed: str) -> None:
    """The event's tokens are a guess, and a sensible one: some of PROMPT, and no more than letters were relayed."""
    assert event["estimated"]
    assert 1 <= event["prompt_tokens"] <= sum(len(message["content"]) for message in PROMPT)
    assert min(1, len(relayed)) <= event["completion_tokens"] <= len(relayed)
    assert event["cost_nano_usd"] == event["prompt_tokens"] * 1000 + event["completion_tokens"] * 2000


# --- a client that misbehaves ----------------------------------------------------------------------------------------


class RawClient:
    """A connection on which a test writes what it likes, as slowly as it likes, and leaves as rudely as it likes."""

    def __init__(self, gateway: GatewayProcess, receive_buffer: int = 0) -> None:
        """`receive_buffer`: bytes that the kernel takes for a client that does not read; 0: its own idea."""
        self.gateway = gateway
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", gateway.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request_id = new_request_id()
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def head(self, length: int | None, *, path: str = "/v1/chat/completions", key: str = "alice") -> bytes:
        """A request's head. `length` None: the body comes in chunks."""
        size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [
            f"POST {path} HTTP/1.1",
            "host: 127.0.0.1",
            f"authorization: Bearer {self.gateway.keys.get(key, key)}",
            f"x-request-id: {self.request_id}",
            "content-type: application/json",
            size,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def ask(self, model: str = "gpt-test", **fields: Any) -> None:
        """A whole, proper chat request."""
        content = orjson.dumps(body(model, **fields))
        self.send(self.head(len(content)) + content)

    def dribble(self, pieces: Iterable[bytes], pause_s: float) -> None:
        """Each piece after a pause. Stops when the gateway has had enough and closes."""
        try:
            for piece in pieces:
                self.socket.sendall(piece)
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            return

    def read_until(self, mark: bytes) -> bytes:
        """Everything so far, once `mark` is in it. Raises ConnectionError when the gateway closes before."""
        while mark not in self.received:
            part = self.socket.recv(65_536)
            if not part:
                raise ConnectionError(f"closed before {mark!r}: {self.received[-500:]!r}")
            self.received += part
        return self.received

    def read_slowly(self, count: int, pause_s: float) -> None:
        """One byte after each pause."""
        for _ in range(count):
            self.received += self.socket.recv(1)
            time.sleep(pause_s)

    def read_all(self) -> bytes:
        """Everything until the gateway closes; a reset counts as that."""
        try:
            while part := self.socket.recv(65_536):
                self.received += part
        except ConnectionResetError:
            pass
        return self.received

    @property
    def status(self) -> int:
        return int(self.received.split(b" ", 2)[1])

    def leave(self, how: str = "fin") -> None:
        """fin: closes. rst: resets. silence: the machine is gone, nothing is sent any more (the socket stays open)."""
        if how == "silence":
            return
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
