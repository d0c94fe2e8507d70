"""Whose usage a person may look at: their own, and that of the service keys of teams that they manage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet, Subquery
from django.http import Http404

from accounts.models import ApiKey, Team, User
from accounts.portal.choices import managed_teams_of, teams_with
from usage.models import Budget, Limit, MoneySettings

MINE = "me"


@dataclass(frozen=True, slots=True)
class Whose:
    """`team` None: the person's own usage, through any key in any team. `key`: of it only this key's."""

    user: User
    team: Team | None = None
    key: ApiKey | None = None

    @property
    def value(self) -> str:
        return MINE if self.team is None else str(self.team.pk)

    @property
    def label(self) -> str:
        return "Mine" if self.team is None else f"Service keys of {self.team}"

    @property
    def rows(self) -> Q:
        """Of events and rollups."""
        if self.key is not None:
            return Q(key_id=self.key.pk) & self._owner
        return self._owner

    @property
    def _owner(self) -> Q:
        return Q(user_id=self.user.pk) if self.team is None else Q(team_id=self.team.pk, user_id=None)

    @property
    def keys(self) -> QuerySet[ApiKey]:
        if self.team is not None:
            return ApiKey.objects.filter(team=self.team, user=None)
        return ApiKey.objects.filter(user=self.user)

    def holds(self) -> Q:
        """Of budgets and limits: those of the keys, and of what the keys belong to. No query by itself."""
        keys = self.keys.filter(disabled=False).order_by()
        if self.key is not None:
            keys = keys.filter(pk=self.key.pk)
        if self.team is not None:
            return Q(scope="key", key__in=keys) | Q(scope="team", team=self.team)
        teams = Team.objects.filter(pk=self.key.team_id) if self.key is not None else teams_with(self.user).order_by()
        return Q(scope="key", key__in=keys) | Q(scope="user", user=self.user) | Q(scope="team", team__in=teams)


def choose(user: User, of: str, public_id: str) -> tuple[Whose, list[Whose]]:
    """What is asked for, and all that could be. Raises Http404 for what is not theirs."""
    offered = [Whose(user), *(Whose(user, team) for team in managed_teams_of(user))]
    chosen = next((one for one in offered if one.value == (of or MINE)), None)
    if chosen is None:
        raise Http404("There is no such team.")
    if public_id:
        # PostgreSQL knows no NUL, and no public id has one.
        known = chosen.keys.filter(public_id=public_id) if public_id.isalnum() else ApiKey.objects.none()
        key = known.select_related("team").first()
        if key is None:
            raise Http404("There is no such key.")
        chosen = Whose(chosen.user, chosen.team, key)
    return chosen, offered


def budgets_of(whose: Whose) -> list[Budget]:
    """Each with `zone`, the installation's time zone. One query."""
    zone = Subquery(MoneySettings.objects.order_by("pk").values("timezone")[:1])
    holds = whose.holds() | Q(scope="installation")
    rows: Any = Budget.objects.filter(holds, enabled=True).select_related("team", "user", "key")
    return list(rows.annotate(zone=zone))


def limits_of(whose: Whose) -> list[Limit]:
    return list(Limit.objects.filter(whose.holds()).select_related("team", "user", "key"))
