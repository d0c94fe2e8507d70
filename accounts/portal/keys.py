"""What a person does with their own keys. Every rule is held here, whatever a page has offered."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import services
from accounts.key_states import with_membership
from accounts.models import ApiKey, User
from accounts.portal import key_budgets
from accounts.portal.choices import TeamChoice, choices_of
from accounts.requests import terms

# Keys that the playground makes for itself bear this name, which people cannot give.
PLAYGROUND = "Playground (this portal)"
TERMS = "First agree to the terms of use, in the portal under Terms."
ASK = (
    "A key with this budget has to be asked for, or one without any. Set a smaller budget, or ask for the key under "
    "Requests."
)


def own_keys(user: User) -> QuerySet[ApiKey]:
    """With what `states.in_words` reads. Without the playground's."""
    keys = with_membership(ApiKey.objects.filter(user=user)).select_related("team", "user")
    return keys.exclude(name__startswith=PLAYGROUND)


@transaction.atomic
def make_own_key(
    user: User,
    team_value: str,
    name: str,
    *,
    models: list[str] | None,
    endpoints: list[str] | None,
    expires_at: datetime | None,
    budget: tuple[int, str] | None,
) -> tuple[ApiKey, str]:
    """A key of `user`, and its secret, which is never seen again. `team_value`: TeamChoice.value. `budget`: nano-USD
    and the window. Raises ValidationError."""
    if terms.barring(user) is not None:
        raise ValidationError(TERMS)
    choice = _choice(user, team_value)
    _check(user, choice, name, models, expires_at, budget)
    team = choice.team or services.personal_team(user)
    key, secret = services.create_key(
        name, team, user, models=models, endpoints=endpoints or None, expires_at=expires_at
    )
    if budget is not None:
        key_budgets.budgets().add(key, *budget)
    return key, secret


def _choice(user: User, team_value: str) -> TeamChoice:
    for choice in choices_of(user):
        if choice.value == team_value:
            return choice
    raise ValidationError({"team": "You are not in this team, or it is switched off."})


def _check(
    user: User,
    choice: TeamChoice,
    name: str,
    models: list[str] | None,
    expires_at: datetime | None,
    budget: tuple[int, str] | None,
) -> None:
    wrong: dict[str, Any] = {}
    if name.strip().lower().startswith(PLAYGROUND.lower()):
        wrong["name"] = "This name is the playground's own. Choose another."
    beyond = sorted(set(models or ()) - set(choice.models))
    if beyond:
        wrong["models"] = f"The team does not allow {', '.join(beyond)}."
    if expires_at is not None and expires_at <= timezone.now():
        wrong["expires_on"] = "That time has passed."
    if budget is not None and (why := key_budgets.budgets().beyond(choice.team, user, *budget)):
        wrong["budget_usd"] = why
    elif key_budgets.needs_request(*(budget or (None, ""))):
        wrong["budget_usd"] = ASK
    if wrong:
        raise ValidationError(wrong)
