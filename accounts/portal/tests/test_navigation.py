"""What apps add to the portal is shown to whom it is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.http import HttpRequest
from django.test import Client, RequestFactory

from accounts.models import User
from accounts.portal import navigation
from accounts.portal.navigation import Entry

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _navigation_is_put_back() -> Iterator[None]:
    entries, sections = dict(navigation._entries), dict(navigation._home_sections)
    yield
    navigation._entries.clear()
    navigation._entries.update(entries)
    navigation._home_sections.clear()
    navigation._home_sections.update(sections)


def asked_by(user: User, rf: RequestFactory, path: str) -> HttpRequest:
    request: HttpRequest = rf.get(path)
    request.user = user
    return request


def test_home_needs_somebody_signed_in(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"].endswith("?next=/")) == (302, True)


def test_only_staff_see_the_way_to_the_admin(client: Client, admin_client: Client, alice: User) -> None:
    client.force_login(alice)
    assert 'href="/admin/"' not in client.get("/").text
    assert 'href="/admin/"' in admin_client.get("/").text


def test_entries_come_in_their_order_with_what_waits_there(rf: RequestFactory, alice: User) -> None:
    navigation.add(Entry("Second", "admin:login", 900, badge=lambda request: 3))
    navigation.add(Entry("First", "admin:index", 899))
    links = navigation.links(asked_by(alice, rf, "/admin/login/"))[-2:]
    assert [(link.label, link.badge, link.is_current) for link in links] == [("First", 0, False), ("Second", 3, True)]


def test_entry_that_is_not_for_this_person_is_left_out(rf: RequestFactory, alice: User) -> None:
    navigation.add(Entry("Hidden", "admin:login", 900, shown=lambda request: False))
    navigation.add(Entry("Not there yet", "no_such_page", 901))
    assert {link.label for link in navigation.links(asked_by(alice, rf, "/"))}.isdisjoint({"Hidden", "Not there yet"})


def test_home_shows_what_apps_have_to_say(client: Client, alice: User) -> None:
    navigation.add_home_section(5, lambda request: f"<p>Of {request.user.pk}</p>")  # only safe HTML is given
    navigation.add_home_section(6, lambda request: "")
    client.force_login(alice)
    assert f"<p>Of {alice.pk}</p>" in client.get("/").text
