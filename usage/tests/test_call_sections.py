"""What other apps say of a call, on the page of its usage event."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.http import HttpRequest

from usage import call_sections
from usage.call_sections import sections_of, set_sections


@pytest.fixture(autouse=True)
def keep_sections() -> Iterator[None]:
    before = list(call_sections._sections)
    yield
    set_sections(*before)


def test_sections_are_shown_in_their_order_and_empty_ones_left_out() -> None:
    set_sections(lambda request, event_id: "first", lambda request, event_id: "", lambda request, event_id: "last")
    assert sections_of(HttpRequest(), uuid4()) == ["first", "last"]


def test_section_is_asked_for_the_call_and_by_whom() -> None:
    asked = []
    set_sections(lambda request, event_id: str(asked.append((request, event_id)) or ""))
    request, event_id = HttpRequest(), uuid4()
    sections_of(request, event_id)
    assert asked == [(request, event_id)]
