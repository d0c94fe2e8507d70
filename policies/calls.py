"""Where the calls are to which findings and logged texts belong. The app that records calls says so when it is ready
(gateway_project.apps): policies imports no other app but accounts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import ApiKey

Find = Callable[[str], list[UUID]]
Url = Callable[[HttpRequest, UUID], str]


def _unknown(request_id: str) -> list[UUID]:
    return []


def _nowhere(request: HttpRequest, event_id: UUID) -> str:
    return ""


_find: Find = _unknown
_url: Url = _nowhere


def set_calls(find: Find, url: Url) -> None:
    """`find`: ids of the usage events with that request id; `url`: of an event's page, "" for who may not see it."""
    global _find, _url
    _find, _url = find, url


def url(request: HttpRequest, event_id: UUID) -> str:
    return _url(request, event_id)


def search(queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
    """Rows of one call (`term` is its request id) or of one key (its public id). Exact, so that an index answers."""
    term = term.strip()
    if not term:
        return queryset
    key_id = ApiKey.objects.filter(public_id=term).values_list("pk", flat=True).first()
    return queryset.filter(event_id__in=_find(term)) if key_id is None else queryset.filter(key_id=key_id)
