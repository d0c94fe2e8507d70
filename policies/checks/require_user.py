"""Calls must say for whom they are made."""

from __future__ import annotations

from collections.abc import Iterable

from policies.checks.base import Check, register
from policies.prompts import CHAT, COMPLETIONS, EMBEDDINGS
from policies.types import Action, Exchange, Found, Stage

ENDPOINTS = frozenset({CHAT, COMPLETIONS, EMBEDDINGS})
FOUND = (Found("missing"),)


@register
class RequireUserCheck(Check):
    name = "require_user"
    label = "Require a user"
    help = (
        "Finds calls that do not say for which of an app's users they are made. For keys that serve many people: usage "
        "events then name the user, and the provider can tell one person's abuse from everybody's use."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    message = "Say for which user the call is made, in the field 'user': an id that stays the same for one person."

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        if exchange.endpoint not in ENDPOINTS:
            return ()
        user = exchange.body.get("user")
        return () if isinstance(user, str) and user.strip() else FOUND
