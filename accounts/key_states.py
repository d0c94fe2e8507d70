"""Why a key works or does not, and which of its secrets a page was made for."""

from __future__ import annotations

import hashlib
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from accounts.models import ApiKey, Membership


def with_membership(queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
    """Each key with `owner_in_team`, which `state_of` reads."""
    membership = Membership.objects.filter(user=OuterRef("user"), team=OuterRef("team"))
    return queryset.annotate(owner_in_team=Q(team__personal_of=F("user")) | Exists(membership))


def state_of(key: Any) -> str:
    """Why the key works or does not. Reads its team and owner, and the admin's `owner_in_team`."""
    now = timezone.now()
    if key.disabled:
        return "revoked"
    if key.expires_at and key.expires_at <= now:
        return "expired"
    if key.team.disabled:
        return "team disabled"
    if key.user and not key.user.is_active:
        return "owner inactive"
    if key.user and not key.owner_in_team:
        return "owner left team"
    return "rotating" if key.previous_until and key.previous_until > now else "active"


def generation_of(key: ApiKey) -> str:
    """Differs after each rotation and says nothing about the secret."""
    return hashlib.sha256(f"generation {key.pk} {key.digest} {key.imported_digest}".encode()).hexdigest()[:16]
