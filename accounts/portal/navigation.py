"""The portal's navigation and its home page, to which every app adds its own when it is ready (AppConfig.ready).

    from accounts.portal import navigation
    navigation.add(navigation.Entry("Requests", "portal_requests", 50, badge=how_many_wait_for))
    navigation.add_home_section(50, what_waits)

Order: home 0, keys 10, usage 20, models 30, playground 40, requests 50, team 60, cohorts 70, terms 80.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

# For the person who is signed in: HTML that is safe; "" when there is nothing to show. Asked on each look: may query.
HomeSection = Callable[[HttpRequest], str]


def _always(request: HttpRequest) -> bool:
    return True


def _nothing(request: HttpRequest) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Entry:
    """`url_name`: of its first page, without arguments. `shown` and `badge` (how many things wait there for this
    person; 0: no badge) are asked on every page, so a query each at most."""

    label: str
    url_name: str
    order: int
    shown: Callable[[HttpRequest], bool] = _always
    badge: Callable[[HttpRequest], int] = _nothing


@dataclass(frozen=True, slots=True)
class Link:
    label: str
    url: str
    badge: int
    is_current: bool


_entries: dict[str, Entry] = {}
_home_sections: dict[HomeSection, int] = {}


def add(entry: Entry) -> None:
    """Added again, it replaces the entry of the same page."""
    _entries[entry.url_name] = entry


def add_home_section(order: int, section: HomeSection) -> None:
    """Shown on the home page, in this order."""
    _home_sections[section] = order


def home_sections(request: HttpRequest) -> list[str]:
    in_order = sorted(_home_sections, key=lambda section: _home_sections[section])
    return [html for section in in_order if (html := section(request))]


def links(request: HttpRequest) -> list[Link]:
    """What this person may open. The current one is the one whose address is most of this page's."""
    shown = [entry for entry in sorted(_entries.values(), key=lambda entry: entry.order) if entry.shown(request)]
    with_urls = [(entry, url) for entry in shown if (url := _url(entry)) is not None]
    within = [url for _, url in with_urls if request.path == url or (url != "/" and request.path.startswith(url))]
    current = max(within, key=len, default="")
    return [Link(entry.label, url, entry.badge(request), url == current) for entry, url in with_urls]


def _url(entry: Entry) -> str | None:
    try:
        return reverse(entry.url_name)
    except NoReverseMatch:
        return None
