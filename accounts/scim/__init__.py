"""SCIM 2.0 (RFC 7643, RFC 7644): an identity provider keeps people and groups up to date here without their signing in.

Whoever leaves is made inactive within a second, and so are their keys. What the IdP says about groups is kept here
apart from teams; who gives teams by group (accounts.sso) registers with `on_groups_changed`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

# The person, the groups they are in now by all their names, and the names of those they are no longer in.
GroupsChanged = Callable[[Any, Collection[str], Collection[str]], None]
_listeners: list[GroupsChanged] = []


def on_groups_changed(listener: GroupsChanged) -> None:
    """In the `ready` of an app. Called in the transaction that changes the groups."""
    if listener not in _listeners:
        _listeners.append(listener)


def tell_of_groups(user: Any, now: Collection[str], lost: Collection[str]) -> None:
    for listener in _listeners:
        listener(user, now, lost)
