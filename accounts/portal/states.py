"""The states of a key in words, for whoever it belongs to: what it is, and what helps."""

from __future__ import annotations

from typing import Any, NamedTuple

from accounts.key_states import state_of


class State(NamedTuple):
    label: str
    badge: str  # a CSS class
    words: str

    @property
    def works(self) -> bool:
        return self.badge in ("badge-good", "badge-info")


STATES = {
    "active": State("Works", "badge-good", "Calls with this key are answered."),
    "rotating": State(
        "Works, rotated",
        "badge-info",
        "The new secret works, and the one before still does for a while. Put the new one wherever the old one is.",
    ),
    "expired": State("Expired", "badge-warning", "Its time is over: calls are refused. Make a new key."),
    "revoked": State(
        "Revoked", "badge-bad", "It was switched off, by you or whoever looks after the team. Make a new key."
    ),
    "team disabled": State(
        "Team switched off",
        "badge-warning",
        "The team is switched off, and all its keys with it. Ask whoever runs the gateway.",
    ),
    "owner inactive": State(
        "Account switched off", "badge-warning", "Your account is switched off, and your keys with it."
    ),
    "owner left team": State(
        "You left the team",
        "badge-warning",
        "You are no longer in this team, so its models and budget are not yours to use. The key works again when you "
        "are back in the team.",
    ),
}


def in_words(key: Any) -> State:
    """Reads the key's team, its owner and `owner_in_team`."""
    return STATES[state_of(key)]
