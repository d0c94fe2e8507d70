"""Reads of keys for those who check them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from accounts.models import ApiKey, Membership

CHUNK = 500


class Caller(NamedTuple):
    """All that decides whether a key may call, and what. The lists are JSON as it came: None or a list of names.

    Plain rows, because a change makes every worker read its whole cache again: they cost a quarter of model instances.
    """

    id: int
    public_id: str
    name: str
    user_id: int | None
    team_id: int
    digest: str
    pepper: str
    previous_digest: str
    previous_pepper: str
    previous_until: datetime | None
    imported_digest: str | None
    expires_at: datetime | None
    endpoints_allowed: Any
    models_allowed: Any
    user__models_allowed: Any
    team__models_allowed: Any


def caller_by_public_id(public_id: str) -> Caller | None:
    return _first(_callers().filter(public_id=public_id))


def caller_by_imported_digest(digests: Sequence[str]) -> Caller | None:
    """`digests` are of the same old key, one under each pepper."""
    return _first(_callers().filter(imported_digest__in=digests))


def callers_by_id(ids: Sequence[int]) -> Iterator[Caller]:
    """In no particular order; those that are not in force are left out."""
    for start in range(0, len(ids), CHUNK):
        yield from map(Caller._make, _callers().filter(pk__in=ids[start : start + CHUNK]))


def has_imported_keys() -> bool:
    return ApiKey.objects.filter(imported_digest__isnull=False).exists()


def _first(callers: QuerySet[ApiKey, tuple[Any, ...]]) -> Caller | None:
    row = callers.first()
    return None if row is None else Caller._make(row)


def _callers() -> QuerySet[ApiKey, tuple[Any, ...]]:
    """Keys in force, but for their expiry, which the clock decides: neither key nor team disabled, the owner active
    and still in the team (their personal one goes without saying)."""
    membership = Membership.objects.filter(user=OuterRef("user"), team=OuterRef("team"))
    owned = Q(user__is_active=True) & (Q(team__personal_of=F("user")) | Exists(membership))
    in_force = ApiKey.objects.filter(Q(user=None) | owned, disabled=False, team__disabled=False)
    return in_force.order_by().values_list(*Caller._fields)
