"""Verbs for the specs of checks that look at a request as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies import checks
from policies.checks.base import CHECKS, Check, WordMatcher, clean_settings
from policies.types import Exchange

assert checks  # imported for what it registers

CHAT = "chat/completions"
COMPLETIONS = "completions"
EMBEDDINGS = "embeddings"


class NoWordlists:
    def wordlist(self, name: str) -> WordMatcher:
        raise LookupError(name)


def compiled(name: str, settings: Mapping[str, Any] | None = None, /, **more: Any) -> Check:
    """The check with these settings, which go through its form as those of a file do."""
    kind = CHECKS[name]
    return kind(clean_settings(kind, {**(settings or {}), **more}), NoWordlists())


def exchange_of(endpoint: str, body: dict[str, Any], **facts: Any) -> Exchange:
    """`facts`: the other fields of the exchange; the model is "gpt-4o-mini" unless they say otherwise."""
    facts = {"model": "gpt-4o-mini", "caller": "key-1", **facts}
    facts.setdefault("requested_model", facts["model"])
    return Exchange(endpoint, body, **facts)


def chat(*messages: Any, **fields: Any) -> Exchange:
    """A chat of these messages; a text is one of the user."""
    said = [{"role": "user", "content": message} if isinstance(message, str) else message for message in messages]
    return exchange_of(CHAT, {"messages": said or [{"role": "user", "content": "Hello"}], **fields})


def completion(prompt: Any = "Hello", **fields: Any) -> Exchange:
    return exchange_of(COMPLETIONS, {"prompt": prompt, **fields})


def embedding(given: Any = "Hello", **fields: Any) -> Exchange:
    return exchange_of(EMBEDDINGS, {"input": given, **fields})


def found(check: Check, exchange: Exchange) -> list[str]:
    """Labels of what the check finds in the request."""
    return [one.label for one in check.inspect(exchange)]


def said(check: Check, exchange: Exchange) -> str:
    """What the caller of a blocked call reads, when the rule has no message of its own."""
    return " ".join(one.message or check.message for one in check.inspect(exchange))


def put_right(check: Check, exchange: Exchange) -> dict[str, Any]:
    """The body after the rule has changed what its check found, as with the action REDACT."""
    for one in list(check.inspect(exchange)):
        assert one.fix is not None
        one.fix()
    return exchange.body
