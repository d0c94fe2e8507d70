"""A key for the playground: of the person, in the team they choose, for a quarter of an hour.

So everything that is tried there is booked, limited and checked like any call of theirs. Each person has one such key
for each team, which gets a new secret each time the page asks; its row stays, for what it spent must stay explained.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import services
from accounts.models import ApiKey, Team, User
from accounts.portal import key_budgets
from accounts.portal.choices import choices_of
from accounts.portal.keys import PLAYGROUND

LIFETIME = timedelta(minutes=15)
LIVE_IN_S = 1.2
ENDPOINTS = ["chat/completions"]
SWITCHED_OFF = "Your playground in this team was switched off. Ask whoever looks after the team."


class Lent(NamedTuple):
    """`live_in_s`: when every worker knows the secret: at once, if it is the first one of the key."""

    secret: str
    live_in_s: float


@transaction.atomic
def lend_key(user: User, team_value: str) -> Lent:
    """`team_value`: TeamChoice.value. Raises ValidationError."""
    choice = next((choice for choice in choices_of(user) if choice.value == team_value), None)
    if choice is None:
        raise ValidationError("You are not in this team, or it is switched off.")
    team = choice.team or services.personal_team(user)
    # Locked, so that two tabs do not both make it.
    User.objects.select_for_update().get(pk=user.pk)
    key = ApiKey.objects.filter(user=user, team=team, name=PLAYGROUND).first()
    if key is None:
        return Lent(_new(user, team), 0)
    if key.disabled:
        raise ValidationError(SWITCHED_OFF)
    key.expires_at = timezone.now() + LIFETIME
    key.endpoints_allowed = ENDPOINTS
    key.save(update_fields=["expires_at", "endpoints_allowed"])
    # What another tab was given works on, but not for longer than this.
    return Lent(services.rotate_key(key, LIFETIME), LIVE_IN_S)


def _new(user: User, team: Team) -> str:
    expires_at = timezone.now() + LIFETIME
    key, secret = services.create_key(PLAYGROUND, team, user, endpoints=ENDPOINTS, expires_at=expires_at)
    # Nobody gets more of the playground than of a key that they need not ask for.
    most = key_budgets.free_amount()
    if most is not None:
        key_budgets.budgets().add(key, most, "month")
    return secret
