"""What a management token may be used for: `<resource>:read`, `<resource>:write`, with `*` for every resource.

Writing includes reading. A scope only narrows: what the owner of the token may not do, no scope allows.
"""

from __future__ import annotations

from collections.abc import Iterable

# Of the resources of the management API (gateway_project.api); a test compares the two.
RESOURCES = (
    *("users", "teams", "memberships", "groups", "keys", "tokens"),
    *("providers", "models", "prices", "policies", "wordlists"),
    *("budgets", "limits", "usage", "requests", "audit"),
)
READ, WRITE = "read", "write"
EVERYTHING = "*"


class UnknownScope(ValueError):
    """The message says what a scope looks like."""


def clean_scopes(given: Iterable[str]) -> list[str]:
    """Each once, in the order of their names. Raises UnknownScope, also where there is none at all."""
    scopes = sorted({text.strip() for text in given if text.strip()})
    if not scopes:
        raise UnknownScope("Give at least one scope, such as keys:read; * is everything.")
    for scope in scopes:
        if scope not in choices():
            raise UnknownScope(
                f"“{scope[:60]}” is no scope. Write * or *:read, or RESOURCE:read or RESOURCE:write with one of "
                f"{', '.join(RESOURCES)}."
            )
    return scopes


def choices() -> list[str]:
    return [EVERYTHING, *(f"{name}:{what}" for name in (EVERYTHING, *RESOURCES) for what in (READ, WRITE))]


def covers(scopes: object, resource: str, what: str) -> bool:
    """`scopes` as they are stored; anything but a list of texts covers nothing."""
    held = scopes if isinstance(scopes, list) else []
    enough: tuple[str, ...] = (EVERYTHING, f"{EVERYTHING}:{WRITE}", f"{resource}:{WRITE}")
    if what == READ:
        enough = (*enough, f"{EVERYTHING}:{READ}", f"{resource}:{READ}")
    return any(scope in held for scope in enough)
