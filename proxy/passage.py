"""A call's passage through the policies: where the data plane meets policies.engine.

Begun by the pipeline when a policy holds for the key, asked by the attempt before anything of a reply is given, and
read by the books at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from accounts.authentication import Principal
from accounts.encryption import encrypt
from policies import overrides
from policies.engine import Chain, Review
from policies.errors import Blocked, CheckFailed, PolicyError, Unreadable
from policies.guard import StreamGuard
from policies.pending import records_of
from policies.record import as_json
from policies.types import Exchange
from proxy import answers
from proxy.call import Call
from proxy.errors import CheckUnavailable, GatewayError, InvalidRequest, PolicyViolation, UpstreamUnavailable
from proxy.gateway import Gateway
from proxy.providers.base import NonsenseReply, decode, encode
from proxy.streaming import DONE, LAST_WORD, Relay, RelayedText, event_data, split_events
from usage.pricing import TokenUsage

# Of one request or reply that is kept; the rest is cut.
MAX_KEPT_BYTES = 256 * 1024

decode_json = msgspec.json.Decoder().decode


class Instead(NamedTuple):
    """What is answered in place of a provider's reply."""

    text: str
    finish_reason: str


def begin(gateway: Gateway, call: Call, principal: Principal, exchange: Exchange) -> Passage | None:
    """None: no policy holds for this key. Raises InvalidRequest when a header that changes rules makes no sense."""
    book = gateway.policies.current
    chain = book.chain_for(principal.team_id, principal.key_id)
    if chain is None:
        return None
    asked = overrides.given(call.headers)
    if asked:
        try:
            chain = overrides.overridden(chain, asked, book.world)
        except overrides.BadOverride as error:
            raise InvalidRequest(str(error)) from None
    return Passage(gateway, chain, exchange, call.id)


class Passage:
    """See the module. Methods raise PolicyViolation and CheckUnavailable, those of a stream PolicyError."""

    __slots__ = ("_call_id", "_gateway", "_guard", "_reply", "chain", "exchange", "review", "was_blocked")

    def __init__(self, gateway: Gateway, chain: Chain, exchange: Exchange, call_id: str) -> None:
        self._gateway = gateway
        self._call_id = call_id
        self.chain = chain
        self.exchange = exchange
        self.review = Review(chain, exchange)
        self._guard: StreamGuard | None = None
        self._reply = b""
        self.was_blocked = False  # by a rule; a canned reply is none

    async def request(self) -> Instead | None:
        """Look at the request and change it. Not None: a rule answers, and no provider is asked."""
        try:
            await self.review.request(self._gateway.moderate)
        except PolicyError as error:
            return self.answer_instead(error)
        return None

    async def reply(self, body: bytes) -> bytes:
        """What the client gets instead of `body`, a whole reply in OpenAI's shape."""
        parsed: dict[str, Any] = {}
        try:
            await self.review.verdict()
            if self.review.reads_replies:
                parsed = _exactly(body)
                if await self.review.reply(parsed, self._gateway.moderate):
                    body = encode(parsed)
        except PolicyError as error:
            instead = self.answer_instead(error)
            body = answers.whole(self.exchange, *instead, self._call_id, parsed.get("usage"))
        self._reply = body
        return body

    @property
    def patience_s(self) -> float:
        return self.chain.patience_s

    async def verdict(self) -> None:
        """Before a stream begins: what was asked beside it must have been answered. Raises PolicyError."""
        await self.review.verdict()

    def guard(self, relay: Relay) -> Relay:
        """The relay of one attempt, with the rules between it and the client."""
        self._guard = self.review.stream()
        return relay if self._guard is None else Guarded(relay, self._guard, self._gateway.limits.max_reply_bytes)

    async def finish(self, relay: Relay) -> bytes:
        """The provider has said its last word: what was withheld until now. Raises PolicyError."""
        if not isinstance(relay, Guarded):
            return b""
        await self.review.judge_stream(relay.guard, self._gateway.moderate)
        return relay.withheld()

    def answer_instead(self, error: PolicyError) -> Instead:
        """What the blocking rules would rather give than an error. Raises PolicyViolation, CheckUnavailable
        when they would not."""
        self.was_blocked = isinstance(error, Blocked) and not error.canned
        if isinstance(error, Blocked) and error.answer is not None and answers.can_answer(self.exchange):
            return Instead(error.answer, "stop" if error.canned else "content_filter")
        raise self._refusal(error) from None

    def events_instead(self, instead: Instead, reply_id: str) -> bytes:
        """The end of a stream that was blocked."""
        indexes = self._guard.indexes if self._guard is not None else []
        return answers.events(self.exchange, *instead, reply_id, indexes or [0]) + DONE

    def _refusal(self, error: PolicyError) -> GatewayError:
        kind: type[GatewayError] = PolicyViolation
        if isinstance(error, CheckFailed):
            kind = CheckUnavailable
        elif isinstance(error, Unreadable):
            kind = UpstreamUnavailable if self.review.was_read else InvalidRequest
        flags = self.flags()
        return kind(error.message, headers={"x-gatehouse-flags": flags} if flags else None)

    def flags(self) -> str:
        return ", ".join(self.review.record.flags())

    def close(self) -> None:
        """The call is over, however it ended: rules that only watch have read what there was."""
        self.review.close()
        if self._guard is not None:
            self._guard.close()

    # --- for the books ---

    def findings(self) -> list[dict[str, Any]]:
        return [as_json(finding) for finding in self.review.record.findings()]

    def extras(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What the journal's record of the call carries beside the columns of its event."""
        extras: dict[str, Any] = {}
        if self.review.pending and (pending := records_of(self.review.pending, facts)):
            extras["moderation"] = pending
        if self.review.record:
            extras["findings"] = self.findings()
        if self.chain.logs_requests or self.chain.logs_replies:
            extras["content"] = {
                "request": _kept(encode(self.exchange.body))
                if self.chain.logs_requests and self.review.was_read
                else "",
                "reply": _kept(self._said()) if self.chain.logs_replies else "",
                "retention_days": self.chain.retention_days,
            }
        return extras

    def _said(self) -> bytes:
        if self._guard is not None and self._guard.released is not None:
            return encode(self._guard.released.reply())
        return self._reply


def too_slow() -> GatewayError:
    return CheckUnavailable("A check of this call did not end in time, so it was not let through. Try again.")


class Guarded:
    """A relay whose events the rules read before the client gets them; a proxy.streaming.Relay itself.

    `feed` and `end` also raise PolicyError; nothing may be given to the client after that but the block itself.
    """

    def __init__(self, relay: Relay, guard: StreamGuard, max_bytes: int) -> None:
        self._relay = relay
        self.guard = guard
        self._max_bytes = max_bytes
        self._withheld: list[bytes] = []
        self._size = 0

    @property
    def begun(self) -> bool:
        return self._relay.begun

    @property
    def done(self) -> bool:
        return self._relay.done

    @property
    def complete(self) -> bool:
        return self._relay.complete

    @property
    def error(self) -> dict[str, Any] | None:
        return self._relay.error

    @property
    def usage(self) -> TokenUsage | None:
        return self._relay.usage

    @property
    def relayed(self) -> RelayedText:
        return self._relay.relayed

    def feed(self, chunk: bytes) -> bytes:
        return self._pass(self._relay.feed(chunk))

    def end(self) -> bytes:
        return self._pass(self._relay.end())

    def rest(self) -> bytes:
        """What is still held when the provider's stream breaks off."""
        return b"" if self.guard.withhold else self._encode(self.guard.end())

    def withheld(self) -> bytes:
        return b"".join(self._withheld)

    def _pass(self, block: bytes) -> bytes:
        out = b"".join(map(self._event, split_events(block)))
        if self._relay.error is not None:
            out += self._encode(self.guard.end())
        if not self.guard.withhold:
            return out
        self._size += len(out)
        if self._size > self._max_bytes:
            raise NonsenseReply("an answer too large to be withheld")
        self._withheld.append(out)
        return b""

    def _event(self, event: bytes) -> bytes:
        data = event_data(event)[1]
        if data is None:
            return event + b"\n\n"
        if data.strip() == LAST_WORD:
            return self._encode(self.guard.end()) + event + b"\n\n"
        events = self.guard.event(decode(data))
        return event + b"\n\n" if events is None else self._encode(events)

    def _encode(self, events: list[dict[str, Any]]) -> bytes:
        return b"".join([b"data: " + encode(event) + b"\n\n" for event in events])


def _exactly(body: bytes) -> dict[str, Any]:
    """The reply with integers of any length as they are, because it may be written again. Raises NonsenseReply."""
    try:
        parsed = decode_json(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decode(body, exact=True)
    if not isinstance(parsed, dict):
        raise NonsenseReply("not a JSON object")
    return parsed


def _kept(body: bytes) -> str:
    if len(body) > MAX_KEPT_BYTES:
        cut = body[:MAX_KEPT_BYTES].decode("utf-8", "replace")
        body = orjson.dumps({"truncated": True, "text": cut})
    return encrypt(body.decode("utf-8", "replace")) if body else ""
