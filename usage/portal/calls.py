"""Somebody's recent calls: how each ended, and why one was refused, in words."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from accounts.keyset import KeysetPage
from usage.display import duration, money
from usage.exports import adjustments_of
from usage.models import UsageEvent
from usage.portal.whose import Whose

PAGE = 25
KEY_LABEL = re.compile(r" \([A-Za-z0-9]+\)$")

# Event ids -> what the rules that blocked these calls told the caller.
PolicyMessages = Callable[[Sequence[UUID]], Mapping[UUID, str]]


def _none(event_ids: Sequence[UUID]) -> Mapping[UUID, str]:
    return {}


_policy_messages: list[PolicyMessages] = [_none]


def set_policy_messages(source: PolicyMessages) -> None:
    """The app that knows policies lends it (gateway_project.portal): usage imports no other app but accounts."""
    _policy_messages[:] = [source]


POLICY = "policy_violation"
LIMIT, BUDGET = "rate_limit_exceeded", "insufficient_quota"
WORDS = {
    POLICY: "A rule of your organisation's policies blocked it.",
    LIMIT: "Too many calls or tokens at once or in a minute. Wait a little and try again.",
    BUDGET: "A budget has no room for it. See above when it resets, or ask for more.",
    "model_not_found": "There is no such model, or this key may not use it.",
    "unpriced_model": "Nobody knows what this model costs, and the call is on a budget in money.",
    "endpoint_not_allowed": "This key may not use this endpoint.",
    "address_not_allowed": "The key may not be used from that network.",
    "invalid_api_key": "The key did not work: it was expired, revoked or wrong.",
    "request_too_large": "The request was too large.",
    "request_timeout": "The request did not arrive in time.",
    "unsupported_media_type": "The request was not JSON.",
    "client_disconnected": "Your program left before the answer was complete.",
    "client_left": "Your program left before the answer was complete.",
    "no_provider": "No provider was set up for it.",
    "key_lookup_unavailable": "The gateway could not check the key.",
    "ledger_unavailable": "The gateway could not count the call on its budgets, so it was not made.",
    "check_failed": "A check of a policy could not be completed, so the call was not let through.",
    "shutting_down": "The gateway was starting or stopping. Try again.",
    "loop_detected": "The gateway was asked to call itself.",
    "upstream_unavailable": "The provider could not be reached, or its answer made no sense.",
    "upstream_timeout": "The provider did not answer in time.",
    "internal_error": "Something went wrong in the gateway.",
}


@dataclass(frozen=True, slots=True)
class Call:
    event: UsageEvent
    label: str
    badge: str
    why: str
    cost: str
    latency: str

    @property
    def key(self) -> str:
        """Without its public id."""
        return KEY_LABEL.sub("", self.event.key_label)

    @property
    def tokens(self) -> str:
        return f"{self.event.prompt_tokens + self.event.completion_tokens:,}"


@dataclass(frozen=True, slots=True)
class CallPage:
    calls: list[Call]
    newer: str  # ids for the links; "" : there are none on that side
    older: str


def calls_of(whose: Whose, before: str, after: str, *, only_failed: bool) -> CallPage:
    """Three queries at most."""
    rows = UsageEvent.objects.filter(whose.rows)
    if only_failed:
        rows = rows.filter(~Q(error_code="") | Q(status__gte=400) | Q(status=0))
    page = KeysetPage(rows, PAGE, _event_id(before), _event_id(after))
    events = page.rows
    adjusted = adjustments_of(event.pk for event in events) if events else {}
    blocked = [event.pk for event in events if event.error_code == POLICY]
    messages = _policy_messages[0](blocked) if blocked else {}
    calls = [_call(event, adjusted.get(event.pk, 0), messages.get(event.pk, "")) for event in events]
    newer = str(events[0].pk) if page.has_newer and events else ""
    older = str(events[-1].pk) if page.has_older else ""
    return CallPage(calls, newer, older)


def _event_id(text: str) -> UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None


def _call(event: UsageEvent, adjustment: int, policy_message: str) -> Call:
    label, badge = how_it_ended(event)
    cost = "unknown" if event.cost_nano_usd is None else money(event.cost_nano_usd + adjustment)
    return Call(event, label, badge, why(event, policy_message), cost, duration(event.latency_us))


def how_it_ended(event: UsageEvent) -> tuple[str, str]:
    """In a word, and the class of its badge."""
    if event.status == 499:
        return "You left", ""
    if event.status == 0 or event.status >= 500:
        return "Failed", "badge-bad"
    if event.status >= 400:
        return "Refused", "badge-warning"
    # A stream that had begun as a good answer, and ended with an error.
    return ("Broken off", "badge-warning") if event.error_code else ("Answered", "badge-good")


def why(event: UsageEvent, policy_message: str) -> str:
    """Why a call was not answered, or not by the model that was asked for; "" where all went well."""
    if event.error_code == POLICY and policy_message:
        return policy_message
    if event.refused_by and event.error_code in (LIMIT, BUDGET):
        return f"{WORDS[event.error_code]} It was: {event.refused_by}."
    if event.error_code:
        return WORDS.get(event.error_code, f"The provider refused it ({event.error_code}).")
    if event.status == 0:
        return "The gateway stopped in the middle."
    if event.status == 400:
        return "The request was not as the API wants it: a field is missing or wrong."
    if event.status >= 400:
        return f"The provider refused it with status {event.status}."
    if event.spent_budget_id is not None:
        return f"A budget was spent, so a cheaper model answered: {event.upstream_model}."
    return ""
