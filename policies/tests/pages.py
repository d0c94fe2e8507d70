"""Reads the forms of a page as a browser would send them, so that specs answer what was really asked."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class _Form(HTMLParser):
    """The fields of one form, by name; several values of a name in the order of the page."""

    def __init__(self, page: str, form_id: str) -> None:
        super().__init__()
        self.fields: dict[str, list[str]] = {}
        self._wanted, self._inside = form_id, False
        self._select = self._textarea = ""
        self._first: str | None = None
        self._chosen = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._inside = given.get("id") == self._wanted
        if not self._inside or "disabled" in given:
            return
        name = given.get("name", "")
        if tag == "input" and name:
            self._input(name, given)
        elif tag == "select":
            self._select, self._first, self._chosen = name, None, "multiple" in given
        elif tag == "option" and self._select:
            self._first = given["value"] if self._first is None else self._first
            if "selected" in given:
                self._chosen = True
                self._add(self._select, given["value"])
        elif tag == "textarea" and name:
            self._textarea = name
            self._add(name, "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self._select:
            if not self._chosen and self._first is not None:
                self._add(self._select, self._first)
            self._select = ""
        elif tag == "textarea":
            self._textarea = ""
        elif tag == "form":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._textarea:
            values = self.fields[self._textarea]
            values[-1] += data.removeprefix("\n") if not values[-1] else data

    def _input(self, name: str, given: dict[str, str]) -> None:
        kind = given.get("type", "text")
        if kind in ("checkbox", "radio"):
            if "checked" in given:
                self._add(name, given.get("value", "on"))
        elif kind not in ("submit", "button"):
            self._add(name, given.get("value", ""))

    def _add(self, name: str, value: str) -> None:
        self.fields.setdefault(name, []).append(value)


def form_of(page: str, form_id: str) -> dict[str, Any]:
    """What the browser would send of a form, ready for `client.post`."""
    return {name: values for name, values in _Form(page, form_id).fields.items() if name != "csrfmiddlewaretoken"}
