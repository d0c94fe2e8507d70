"""What a person may make keys for: the teams they are in, and the models that each of them allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from accounts import catalogue
from accounts.models import Membership, Team, User

# Stands for the personal team of somebody who has none yet: it is made with their first key.
PERSONAL = "personal"
MANAGED = "_managed_teams"


@dataclass(frozen=True, slots=True)
class TeamChoice:
    """`team` None: the personal team, which is not made yet. `models`: what this person may call there, by name."""

    team: Team | None
    is_personal: bool
    models: tuple[str, ...]

    @property
    def value(self) -> str:
        return PERSONAL if self.team is None else str(self.team.pk)

    @property
    def label(self) -> str:
        return "Just me (personal)" if self.is_personal else str(self.team)

    @property
    def models_text(self) -> str:
        return ", ".join(self.models) if self.models else "no models"


def teams_with(user: User) -> QuerySet[Team]:
    """Those that are switched on and that the person is in, their personal one too."""
    return Team.objects.filter(Q(memberships__user=user) | Q(personal_of=user), disabled=False).distinct()


def teams_of(user: User) -> list[Team]:
    """The same, the personal one last. One query."""
    return sorted(teams_with(user), key=lambda team: (team.personal_of_id is not None, team.name.lower()))


def managed_teams_of(user: User) -> list[Team]:
    """Those whose keys the person looks after, without their own personal one. One query, once for each `user` that a
    request brings along: its pages and its navigation ask the same."""
    if MANAGED not in user.__dict__:
        managed = Membership.objects.filter(user=user, role=Membership.Role.MANAGER, team__personal_of=None)
        teams = [membership.team for membership in managed.select_related("team").order_by("team__name")]
        user.__dict__[MANAGED] = teams
    return list(user.__dict__[MANAGED])


def choices_of(user: User) -> list[TeamChoice]:
    """Two queries, and the personal team last, also before it is made."""
    callable_now = catalogue.callable_names()
    found = [
        TeamChoice(team, team.personal_of_id is not None, allowed(callable_now, team.models_allowed, user))
        for team in teams_of(user)
    ]
    if not any(choice.is_personal for choice in found) and not has_personal_team(user):
        found.append(TeamChoice(None, True, allowed(callable_now, None, user)))
    return found


def has_personal_team(user: User) -> bool:
    """Also one that is switched off."""
    return Team.objects.filter(personal_of=user).exists()


def allowed(names: Iterable[str], team_models: Any, user: User) -> tuple[str, ...]:
    """Of `names` those that a list of the team (None: all) and the person's own both allow."""
    lists: Sequence[Any] = [team_models, user.models_allowed]
    return tuple(sorted(name for name in names if all(only is None or name in only for only in lists)))
