"""Agents that go round in circles."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.prompts import CHAT, COMPLETIONS, messages_of, written
from policies.types import Action, Exchange, Found, Stage

LAST_MESSAGES = 3
MOST_KEPT = 50_000  # conversations; the one that was silent for longest is forgotten first


class LoopForm(SettingsForm):
    repeats = forms.IntegerField(
        label="Repetitions",
        initial=4,
        min_value=2,
        max_value=1000,
        help_text="The call that sends the same last messages for so many times is found, and those after it.",
    )
    within_s = forms.IntegerField(
        label="Within (seconds)",
        initial=120,
        min_value=1,
        max_value=86_400,
        help_text="Over this time. What was sent earlier is forgotten.",
    )


@register
class LoopCheck(Check):
    """Keeps, for each conversation, when it was sent; of its text nothing but a hash."""

    name = "loop"
    label = "Loop breaker"
    help = (
        "Finds a caller that sends the same conversation again and again, as agents do that are stuck: same key, same "
        "'user', and the same last three messages. Ids of tool calls, which are new each time, make no difference."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    remembers = True
    SettingsForm = LoopForm

    clock = staticmethod(time.monotonic)

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._repeats: int = settings["repeats"]
        self._within_s: int = settings["within_s"]
        message = (
            f"The same conversation was sent {self._repeats} times within {self._within_s} seconds. "
            "Go on with something new, or wait."
        )
        self._found = (Found("repeated", message),)
        # Conversation -> when it was sent and not found, oldest first; the one that was sent last at the end.
        self._sent: dict[tuple[str, int], deque[float]] = {}

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        """What is found does not count as sent: who waits may go on, however often it was tried in the meantime."""
        said = _last_said(exchange)
        if not said:
            return ()
        now = self.clock()
        conversation = (exchange.caller, hash((exchange.endpoint, _user(exchange.body), said)))
        times = self._sent[conversation] = self._sent.pop(conversation, deque())
        while times and now - times[0] >= self._within_s:
            times.popleft()
        self._forget(now)
        if len(times) >= self._repeats - 1:
            return self._found
        times.append(now)
        return ()

    def _forget(self, now: float) -> None:
        """Of the conversations that were silent for longest, two that are over, and one when they are too many."""
        for _ in range(2):
            oldest = next(iter(self._sent))
            times = self._sent[oldest]
            if len(self._sent) <= MOST_KEPT and (not times or now - times[-1] < self._within_s):
                return
            del self._sent[oldest]


def _last_said(exchange: Exchange) -> tuple[Any, ...]:
    """What is compared. Empty where nothing can be repeated."""
    if exchange.endpoint == CHAT:
        return tuple(map(_said, messages_of(exchange.body)[-LAST_MESSAGES:]))
    prompt = exchange.body.get("prompt") if exchange.endpoint == COMPLETIONS else None
    return (_hashable(prompt),) if prompt else ()


def _said(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = message.get("tool_calls")
    named = [_call(call) for call in calls] if isinstance(calls, list) else message.get("function_call")
    return _hashable(message.get("role")), _hashable(message.get("content")), written(named) if named else b""


def _call(call: Any) -> Any:
    """Without its id."""
    return [call.get("function"), call.get("custom")] if isinstance(call, dict) else call


def _user(body: dict[str, Any]) -> Any:
    user = body.get("user")
    return user if isinstance(user, str) else None


def _hashable(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else written(value)
