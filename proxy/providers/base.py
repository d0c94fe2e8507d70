"""What a provider adapter is: a pure translation between OpenAI's shape and a provider's.

No I/O, and no state but a stream's. An adapter never changes the exchange, and may be asked for the same request twice
(a retry, a fallback). To add a provider: subclass Adapter in a file of its own, decorate it with `@register`, give it a
row in proxy/providers/presets.py, record real answers of the provider in tests/recordings/<name>/ and test against
them. A provider that speaks OpenAI's dialect needs no class, only the row.

Moments, in order: `request` -> (`reply` | `error` | `stream` and then its `feed`/`end`).
"""

from __future__ import annotations

import json
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import orjson

from policies.types import Exchange
from usage.pricing import TokenUsage


@dataclass(frozen=True, slots=True)
class Target:
    """Where one attempt goes: a route with its provider, frozen in the snapshot. Times in seconds.

    `credential` and `extra_headers` are clear text, in memory only; `base_url` has no trailing slash.
    """

    provider: str
    kind: str
    adapter: Adapter
    base_url: str
    upstream_model: str
    credential: str = field(default="", repr=False)
    extra_headers: dict[str, str] = field(default_factory=dict, repr=False)
    api_version: str = ""
    connect_timeout_s: float = 5
    first_byte_timeout_s: float = 300
    idle_timeout_s: float = 60
    ssl: ssl.SSLContext | bool = True
    private_network: bool = False
    caller_key: bool = False
    order: int = 0
    weight: int = 1


class UpstreamRequest(NamedTuple):
    url: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"

    def __repr__(self) -> str:
        """Without the headers, which hold the credential, and without the body, which holds the prompt."""
        return f"UpstreamRequest({self.method} {self.url})"


class Reply(NamedTuple):
    """A whole answer in OpenAI's shape: the bytes for the client, and the tokens (None: the provider sent none)."""

    body: bytes
    usage: TokenUsage | None


class NonsenseReply(Exception):
    """The provider's answer cannot be what was asked for: not JSON, wrong shape, an error with status 200."""


class ErrorInReply(NonsenseReply):
    """An error object where an answer should be, with a status that says all is well. `said`: the object around it."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__("an error with status 200")
        self.said = said


class UnsupportedRequest(Exception):
    """The provider cannot express what the client asks for. `param` names the field; becomes a 400."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class StreamTranslator(Protocol):
    """Turns one provider's stream into OpenAI's. `feed` and `end` give whole SSE events as bytes, possibly none.

    usage      the tokens of the whole answer, as soon as the provider has said them
    finished   the provider said that the answer is complete
    error      OpenAI's error object, when the provider reported one in mid-stream; no event is given for it,
               whoever relays the stream writes it and closes
    """

    usage: TokenUsage | None
    finished: bool
    error: dict[str, Any] | None

    def feed(self, event: str, data: bytes) -> bytes:
        """`event`: the SSE event name ("" when absent); `data`: its data, lines joined. Raises NonsenseReply."""

    def end(self) -> bytes:
        """After the provider's last event: what is still to be said, `data: [DONE]` included. Nothing when the
        stream broke off (`finished` is false)."""


class Adapter(ABC):
    kind: ClassVar[str]  # stable id: in the database, in apply files
    label: ClassVar[str]  # for the admin
    endpoints: ClassVar[frozenset[str]]  # names in proxy.endpoints
    default_base_url: ClassVar[str] = ""
    default_api_version: ClassVar[str] = ""
    # Answers in this process, with no socket: the whole body, or for a stream its SSE events, one at a time, with the
    # usage event and [DONE] as OpenAI sends them. Raises UnsupportedRequest at once, not in the midst of a stream.
    answer: Callable[[Exchange], bytes | Iterable[bytes]] | None = None

    @abstractmethod
    def request(self, exchange: Exchange, target: Target, credential: str) -> UpstreamRequest:
        """The call as the provider wants it. `credential`: the target's, or the caller's own.

        Raises UnsupportedRequest.
        """

    @abstractmethod
    def reply(self, exchange: Exchange, body: bytes) -> Reply:
        """A 2xx body in OpenAI's shape. Raises NonsenseReply."""

    def stream(self, exchange: Exchange) -> StreamTranslator | None:
        """None: the provider streams OpenAI's events itself, and their bytes pass through."""
        return None

    @abstractmethod
    def error(self, status: int, body: bytes) -> dict[str, Any]:
        """OpenAI's error object ({message, type, param, code}) for an answer of `status` >= 400, whatever its body."""

    @abstractmethod
    def probe(self, target: Target) -> UpstreamRequest:
        """A harmless, free request that shows whether address and key are right: for "Test connection"."""


def encode(value: dict[str, Any]) -> bytes:
    """JSON as it is sent. Raises UnsupportedRequest when `value` holds what JSON cannot carry."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits, lone surrogates and deep nesting are valid JSON and more than orjson writes.
        try:
            return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError):
            raise UnsupportedRequest("A number is too large, or something is nested too deeply.") from None


def decode(body: bytes, *, exact: bool = False) -> dict[str, Any]:
    """A provider's JSON object. `exact` keeps integers beyond 64 bits, at twice the time. Raises NonsenseReply."""
    try:
        value = json.loads(body.decode()) if exact else orjson.loads(body)
    except (ValueError, RecursionError):
        value = None if exact else _decode_leniently(body)
    if not isinstance(value, dict):
        raise NonsenseReply("not a JSON object")
    return value


def _decode_leniently(body: bytes) -> Any:
    """Halves of emoji (lone surrogates) and NaN come in real answers; clients' own parsers take them."""
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        return None


ADAPTERS: dict[str, Adapter] = {}


def register(adapter: type[Adapter]) -> type[Adapter]:
    ADAPTERS[adapter.kind] = adapter()
    return adapter
