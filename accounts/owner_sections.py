"""What other apps know of a team, a person or a key, for its page in the admin. They fill it in when they are ready
(gateway_project.apps): accounts imports no other app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.http import HttpRequest

# Team, User or ApiKey -> HTML that is safe; "" when there is nothing, or nothing for this person.
Section = Callable[[HttpRequest, Model], str]

_sections: list[Section] = []


def set_sections(*sections: Section) -> None:
    """In the order in which they are shown. They are asked each time a page is looked at, so they may query."""
    _sections[:] = sections


def sections_of(request: HttpRequest, owner: Model) -> list[str]:
    return [html for section in _sections if (html := section(request, owner))]


class WithSections:
    """Of a ModelAdmin: shows them under the form."""

    change_form_outer_after_template = "admin/accounts/sections.html"

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        owner: Model | None = kwargs.get("obj")
        context["sections"] = sections_of(request, owner) if owner is not None else []
        return super().render_change_form(request, context, *args, **kwargs)  # type: ignore[misc]
