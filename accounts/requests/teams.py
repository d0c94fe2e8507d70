"""What a manager does in their team: members, service keys, budgets. Every function judges who may; what lies outside
of the team is an administrator's."""

from __future__ import annotations

from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet

from accounts import services
from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import money, policy
from accounts.requests import services as requests
from accounts.requests.locking import lock
from accounts.requests.models import CohortStudent
from accounts.requests.money import BudgetView

MANAGER, MEMBER = Membership.Role.MANAGER, Membership.Role.MEMBER
LAST_MANAGER = "Name another manager first: a team needs one."


def of_manager(user: User) -> QuerySet[Team]:
    """The teams whose pages they see."""
    return policy.managed_teams(user)


# --- members ---------------------------------------------------------------------------------------------------------
def find_person(name: str) -> User:
    """By username or by an address that nobody else has. Raises ValidationError."""
    name = name.strip()
    people = list(User.objects.filter(Q(username=name) | Q(email__iexact=name), is_active=True)[:3]) if name else []
    exact = [user for user in people if user.username == name] or people
    if len(exact) != 1:
        raise ValidationError({"person": "Nobody is known by this username or e-mail address."})
    return exact[0]


@transaction.atomic
def add_member(team: Team, name: str, role: str) -> Membership:
    """Raises ValidationError."""
    _shared(team)
    user = find_person(name)
    lock(Team, team.pk)
    membership = Membership.objects.filter(team=team, user=user).first()
    if membership is not None and not _came_by_course(membership):
        raise ValidationError({"person": f"{user} is in the team already."})
    membership = membership or Membership(team=team, user=user)
    membership.role = role
    membership.full_clean(exclude=["user", "team"], validate_unique=False, validate_constraints=False)
    membership.save()
    return membership


def _came_by_course(membership: Membership) -> bool:
    """Also makes them a member in their own right."""
    places = CohortStudent.objects.filter(
        user=membership.user_id, cohort__team=membership.team_id, joined_membership=True
    )
    for place in places:
        place.joined_membership = False
        place.save(update_fields=["joined_membership"])
    return bool(places)


@transaction.atomic
def set_role(team: Team, user_id: int, role: str) -> Membership:
    """Raises ValidationError, Membership.DoesNotExist."""
    lock(Team, team.pk)
    membership = Membership.objects.select_related("user").get(team=team, user=user_id)
    if role not in Membership.Role.values:
        raise ValidationError({"role": "There is no such role."})
    if role != MANAGER:
        _check_not_last(team, membership)
    if membership.role != role:
        membership.role = role
        membership.save(update_fields=["role"])
    return membership


@transaction.atomic
def remove_member(team: Team, user_id: int) -> None:
    """Their keys in this team are refused from then on. Raises ValidationError, Membership.DoesNotExist."""
    _shared(team)
    lock(Team, team.pk)
    membership = Membership.objects.get(team=team, user=user_id)
    _check_not_last(team, membership)
    membership.delete()


def _check_not_last(team: Team, membership: Membership) -> None:
    """Raises ValidationError."""
    others = Membership.objects.filter(team=team, role=MANAGER).exclude(pk=membership.pk)
    if membership.role == MANAGER and not others.exists():
        raise ValidationError(LAST_MANAGER)


def _shared(team: Team) -> None:
    """Raises ValidationError."""
    if team.personal_of_id is not None:
        raise ValidationError("A person's own team has no other members.")


# --- keys ------------------------------------------------------------------------------------------------------------
@transaction.atomic
def make_service_key(
    team: Team, name: str, *, amount: int | None, per: str, models: list[str] | None, expires_at: datetime | None
) -> tuple[ApiKey, str]:
    """Raises ValidationError."""
    requests.check_amount(amount)
    key, secret = services.create_key(name, team, models=models, expires_at=expires_at)
    if amount is not None:
        _check_inside_team(team, amount, per)
        money.source().add_budget("key", key.pk, amount, per)
    return key, secret


def keys_of(team: Team) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(team=team).select_related("user")


# --- budgets ---------------------------------------------------------------------------------------------------------
def budgets_of(team: Team) -> list[BudgetView]:
    """The team's own first, then those of its keys."""
    keys = list(ApiKey.objects.filter(team=team).values_list("pk", flat=True))
    return money.source().budgets([("team", team.pk), *(("key", pk) for pk in keys)])


@transaction.atomic
def set_budget(team: Team, budget_id: int, amount: int, by: User) -> None:
    """Lower: freely. Higher: a key's up to what the team may, the team's not at all. Raises ValidationError."""
    lock(Team, team.pk)
    budget = money.source().budget(budget_id)
    if budget is None or not _belongs(budget, team):
        raise BudgetNotThere
    requests.check_amount(amount)
    if amount > budget.limit:
        if budget.scope == "team":
            raise ValidationError({"amount": "The team's own budget can be raised by a request only."})
        _check_inside_team(team, amount, budget.per)
    money.source().set_budget(budget_id, amount)


class BudgetNotThere(Exception):
    """No budget of this team or of its keys."""


def _belongs(budget: BudgetView, team: Team) -> bool:
    if budget.scope == "team":
        return budget.owner_id == team.pk
    return budget.scope == "key" and ApiKey.objects.filter(pk=budget.owner_id, team=team).exists()


def _check_inside_team(team: Team, amount: int, per: str) -> None:
    """Raises ValidationError."""
    for own in money.source().budgets([("team", team.pk)]):
        if not own.model and money.per_month(amount, per) > money.per_month(own.limit, own.per):
            text = f"The team itself has {own.amount_text}: a key of it cannot have more. Ask for a larger one first."
            raise ValidationError({"amount": text})
