"""Lists: pages by the primary key, and filters. No count, no offset: every page is as cheap as the first."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from rest_framework.request import Request

from gateway_project.api.errors import BadRequest

USUAL, MOST = 50, 200
LIMIT, AFTER = "limit", "after"


@dataclass(frozen=True)
class Filter:
    """A parameter of a list. `lookup`: what is asked of the rows. `kind`: text, id, flag, moment, or a tuple of the
    texts that it may be."""

    lookup: str
    words: str
    kind: str | tuple[str, ...] = "text"
    # Several of the rows that `lookup` asks may belong to one of the list.
    many: bool = False

    def read(self, name: str, given: str) -> Any:
        """Raises BadRequest."""
        if isinstance(self.kind, tuple):
            if given not in self.kind:
                raise BadRequest(f"Give one of {', '.join(self.kind)}.", name)
            return given
        return READERS[self.kind](name, given)

    @property
    def schema(self) -> dict[str, Any]:
        if isinstance(self.kind, tuple):
            return {"type": "string", "enum": list(self.kind)}
        return dict(SCHEMAS[self.kind])


def read_text(name: str, given: str) -> str:
    if "\0" in given or len(given) > 500:
        raise BadRequest("This is too long, or has a character that no name has.", name)
    return given


def read_id(name: str, given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= 18):
        raise BadRequest("Give an id: a whole number.", name)
    return int(given)


def read_flag(name: str, given: str) -> bool:
    if given not in ("true", "false"):
        raise BadRequest("Give true or false.", name)
    return given == "true"


def read_moment(name: str, given: str) -> datetime:
    try:
        moment = parse_datetime(given)
    except ValueError:
        moment = None
    if moment is None or timezone.is_naive(moment):
        raise BadRequest("Give a time with its zone, such as 2026-11-01T00:00:00Z.", name)
    try:
        return moment.astimezone(timezone.get_default_timezone())
    except OverflowError:
        raise BadRequest("That time is too far away.", name) from None


READERS: dict[str, Any] = {"text": read_text, "id": read_id, "flag": read_flag, "moment": read_moment}
SCHEMAS: dict[str, dict[str, Any]] = {
    "text": {"type": "string", "maxLength": 500},
    "id": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    "flag": {"type": "boolean"},
    "moment": {"type": "string", "format": "date-time"},
}


def filtered(queryset: QuerySet[Any], request: Request, filters: Mapping[str, Filter]) -> QuerySet[Any]:
    """Raises BadRequest, also for a parameter that is none: left out in silence, it would give everything."""
    for name in request.query_params.keys() & filters.keys():
        given = str(request.query_params[name])
        queryset = queryset.filter(**{filters[name].lookup: filters[name].read(name, given)})
        if filters[name].many:
            queryset = queryset.distinct()
    return queryset


def check_parameters(request: Request, known: Sequence[str]) -> None:
    """Raises BadRequest."""
    for name in request.query_params:
        if name not in known:
            listed = f" Known: {', '.join(sorted(known))}." if known else ""
            raise BadRequest(f"There is no such parameter here.{listed}", name[:100])
        if len(request.query_params.getlist(name)) > 1:
            raise BadRequest("Give it once.", name)


@dataclass(frozen=True)
class Page:
    rows: list[Any]
    next: str | None


def page_of(queryset: QuerySet[Any], request: Request, *, newest_first: bool = False, column: str = "pk") -> Page:
    """`column`: unique, and what the list is in the order of. Raises BadRequest."""
    size = _size(request.query_params.get(LIMIT))
    cursor = request.query_params.get(AFTER)
    if cursor is not None:
        compared = f"{column}__{'lt' if newest_first else 'gt'}"
        queryset = queryset.filter(**{compared: _read_cursor(cursor, queryset, column)})
    rows = list(queryset.order_by(f"-{column}" if newest_first else column)[: size + 1])
    more = len(rows) > size
    rows = rows[:size]
    return Page(rows, write_cursor(getattr(rows[-1], column)) if more else None)


def write_cursor(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(str(value)).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, queryset: QuerySet[Any], column: str) -> Any:
    field = queryset.model._meta.pk if column == "pk" else queryset.model._meta.get_field(column)
    try:
        text = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(text, str) or len(text) > 100 or write_cursor(text) != cursor:
            raise ValueError
        value = field.to_python(text)
        if value is None or (isinstance(value, int) and not 0 <= value < 2**63):
            raise ValueError
    except (ValueError, binascii.Error, ValidationError, RecursionError):
        raise BadRequest("Give `after` as a page before has it in `next`.", AFTER) from None
    return value


def _size(given: str | None) -> int:
    if given is None:
        return USUAL
    if not (given.isascii() and given.isdecimal() and len(given) < 5 and 1 <= int(given) <= MOST):
        raise BadRequest(f"Give a whole number from 1 to {MOST}.", LIMIT)
    return int(given)
