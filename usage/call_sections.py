"""What other apps know of a call, for the page of its usage event. They fill it in when they are ready
(gateway_project.apps): usage imports no other app but accounts."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from django.http import HttpRequest

# The event's id -> HTML that is safe; "" when there is nothing, or nothing for this person.
Section = Callable[[HttpRequest, UUID], str]

_sections: list[Section] = []


def set_sections(*sections: Section) -> None:
    """In the order in which they are shown. They are asked each time an event is looked at, so they may query."""
    _sections[:] = sections


def sections_of(request: HttpRequest, event_id: UUID) -> list[str]:
    return [html for section in _sections if (html := section(request, event_id))]
