"""Reads of keys for those who check them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from django.db.models import Exists, OuterRef, QuerySet

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
    networks_allowed: Any
    team__networks_allowed: Any
    disabled: bool
    team__disabled: bool
    user__is_active: bool | None
    team__personal_of_id: int | None
    is_member: bool

    @property
    def in_force(self) -> bool:
        """But for its expiry, which is judged by the clock at each call: nothing is disabled, the owner is active and
        still in the team (in their personal one they always are)."""
        if self.disabled or self.team__disabled:
            return False
        if self.user_id is None:
            return True
        return bool(self.user__is_active) and (self.is_member or self.team__personal_of_id == self.user_id)


def caller_by_public_id(public_id: str) -> Caller | None:
    return _first(_callers().filter(public_id=public_id))


def caller_by_imported_digest(digests: Sequence[str]) -> Caller | None:
    """`digests` are of the same old key, one under each pepper."""
    return _first(_callers().filter(imported_digest__in=digests))


def callers_by_id(ids: Sequence[int]) -> Iterator[Caller]:
    """In no particular order; those that are gone are left out."""
    for start in range(0, len(ids), CHUNK):
        yield from map(Caller._make, _callers().filter(pk__in=ids[start : start + CHUNK]))


def has_imported_keys() -> bool:
    return ApiKey.objects.filter(imported_digest__isnull=False).exists()


def _first(callers: QuerySet[ApiKey, tuple[Any, ...]]) -> Caller | None:
    row = callers.first()
    return None if row is None else Caller._make(row)


@cache
def _callers() -> QuerySet[ApiKey, tuple[Any, ...]]:
    """Built once: that takes longer than the query itself."""
    membership = Membership.objects.filter(user=OuterRef("user"), team=OuterRef("team"))
    return ApiKey.objects.annotate(is_member=Exists(membership)).order_by().values_list(*Caller._fields)
