"""What may be looked at and changed on the way: the vocabulary of policies. No HTTP, no provider, no database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Stage(StrEnum):
    REQUEST = "request"
    REPLY = "reply"


class Action(StrEnum):
    """What a rule does about what its check finds. REDACT is "change it": mask a text, clamp a number, strip a tool."""

    AUDIT = "audit"
    REDACT = "redact"
    BLOCK = "block"


@dataclass(slots=True)
class Exchange:
    """One client call and its reply.

    endpoint         its name in proxy.endpoints, such as "chat/completions"
    body             the request's JSON object; what is sent upstream is made from it, never from the raw bytes, so that
                     what was checked is what the provider reads (a key given twice has one value from here on)
    model            public name of the model, aliases resolved
    stream           the client wants a stream of events
    wants_usage      the client asked for the usage event of a stream itself
    requested_model  the name that the client used
    body_bytes       size of the request's JSON as it came
    context_window   of the model, in tokens; None: not known
    caller           opaque, one per API key: what a check remembers of one caller is never held against another
    retries          how often a failed try at one route is repeated; set by a rule
    max_output       the longest answer in tokens that is asked for, where the caller names none and the call is on a
                     budget
    """

    endpoint: str
    body: dict[str, Any]
    model: str
    stream: bool = False
    wants_usage: bool = False
    requested_model: str = ""
    body_bytes: int = 0
    context_window: int | None = None
    caller: str = ""
    retries: int = 0
    max_output: int | None = None

    def with_body(self, body: dict[str, Any]) -> Exchange:
        """The same call with another body. dataclasses.replace would take ten times as long."""
        return Exchange(
            self.endpoint, body, self.model, self.stream, self.wants_usage, self.requested_model, self.body_bytes,
            self.context_window, self.caller, self.retries, self.max_output,
        )  # fmt: skip


class Span(NamedTuple):
    """A part of a text that a check found: offsets into the text as sent. `label` says of what kind (a list's name, a
    category), never what stands there."""

    start: int
    end: int
    label: str = ""


class Scan(NamedTuple):
    """What a check says of a text that may go on growing.

    spans      every match with `span.start >= start`, overlapping ones too
    safe_upto  no later text can change the verdict on what stands before this offset: a match that begins before it is
               in `spans` already, at its full length; len(text) when `final`
    """

    spans: Sequence[Span]
    safe_upto: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a check finds that is no part of a text: a number too large, a tool not allowed, a reply without content.

    label    of what kind; names no text of the caller
    message  for the caller, when the rule has none of its own; names no text of the caller either
    fix      makes it right in the exchange; what REDACT calls (None: it cannot be changed, and is only reported)
    answer   the reply to give instead of asking a provider
    """

    label: str = ""
    message: str = ""
    fix: Callable[[], None] | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for the record: which rule found what, how often, and what was done about it. Never the text.

    action   what was done: audit, redact or block (in a dry run: what would have been done)
    failed   the check itself failed, by an error or for want of time; `label` says which
    """

    policy: str
    version: int
    rule: str
    check: str
    stage: Stage
    action: Action
    label: str = ""
    count: int = 1
    dry_run: bool = False
    failed: bool = False
    shown: bool = field(default=True, compare=False)  # its check may be named to the caller
