"""What an approval does, and whether it can be done: one function for each kind of request. All of it runs in the
transaction of the approval."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from accounts import catalogue, services
from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import money
from accounts.requests.locking import lock
from accounts.requests.models import AccessRequest, Kind
from accounts.requests.money import BudgetView

Subject = AccessRequest.Subject


def check(request: AccessRequest) -> None:
    """Before it is put down. Raises ValidationError with the field of each mistake."""
    if not request.reason.strip():
        raise ValidationError({"reason": "Say why you need it."})
    CHECKS[Kind(request.kind)](request)


def carry_out(request: AccessRequest, by: User | None) -> None:
    """With `request.granted_amount`. Raises ValidationError."""
    ACTS[Kind(request.kind)](request, by)


def turn_down(request: AccessRequest) -> None:
    """A course that waited for approval is not to be."""
    if request.kind == Kind.COHORT and request.cohort is not None:
        from accounts.requests import cohorts

        cohorts.stop(request.cohort)


# --- join a team -----------------------------------------------------------------------------------------------------
def _check_join(request: AccessRequest) -> None:
    if request.team is None or request.team.personal_of_id is not None:
        raise ValidationError({"team": "There is no team of this name."})
    if Membership.objects.filter(user=request.requester, team=request.team).exists():
        raise ValidationError({"team": "You are in this team already."})


def _join(request: AccessRequest, by: User | None) -> None:
    Membership.objects.get_or_create(user=request.requester, team=_team(request))


# --- a new team ------------------------------------------------------------------------------------------------------
def _check_team(request: AccessRequest) -> None:
    _need_amount(request)
    if not request.name:
        raise ValidationError({"name": "Give the team a name."})
    if Team.objects.filter(name=request.name).exists():
        raise ValidationError({"name": "There is a team of this name already."})


def _make_team(request: AccessRequest, by: User | None) -> None:
    _check_team(request)
    team = Team(name=request.name, cost_center=request.cost_center)
    team.full_clean()
    team.save()
    Membership.objects.create(user=request.requester, team=team, role=Membership.Role.MANAGER)
    money.source().add_budget("team", team.pk, _granted(request), request.per)
    request.team = team


# --- a model ---------------------------------------------------------------------------------------------------------
def _check_model(request: AccessRequest) -> None:
    if request.model not in catalogue.model_names():
        raise ValidationError({"model": "There is no such model."})
    owner = _owner(request)
    if owner.models_allowed is None or request.model in owner.models_allowed:
        raise ValidationError({"model": f"{_named(request)} may use this model already."})


def _allow_model(request: AccessRequest, by: User | None) -> None:
    if request.model not in catalogue.model_names():
        raise ValidationError("This model is no longer here.")
    owner = _owner(request)
    of_team = owner.team.models_allowed if isinstance(owner, ApiKey) else None
    if of_team is not None and request.model not in of_team:
        raise ValidationError("The key's team may not use this model: it has to be asked for the team first.")
    locked: Any = lock(owner._meta.model, owner.pk)
    if locked.models_allowed is not None and request.model not in locked.models_allowed:
        locked.models_allowed = [*locked.models_allowed, request.model]
        locked.save(update_fields=["models_allowed"])


# --- a larger budget -------------------------------------------------------------------------------------------------
def _check_budget(request: AccessRequest) -> None:
    _need_amount(request, per=False)
    budget = _budget(request)
    request.per = budget.per
    if (request.amount or 0) <= (budget.window_limit if request.once else budget.limit):
        raise ValidationError({"amount": f"There is as much already: {budget.amount_text}."})


def _enlarge(request: AccessRequest, by: User | None) -> None:
    budget, amount = _budget(request), _granted(request)
    if amount <= (budget.window_limit if request.once else budget.limit):
        raise ValidationError({"amount": f"Must be more than there is by now: {budget.amount_text}."})
    if request.once:
        money.source().top_up_to(budget.id, amount, f"Request {request.pk}: {request.reason}"[:200], by)
    else:
        money.source().set_budget(budget.id, amount)


def _budget(request: AccessRequest) -> BudgetView:
    """Raises ValidationError: not there any more, or not of the one it is asked for."""
    owner = _owner(request)
    scope = {Subject.ME: "user", Subject.TEAM: "team", Subject.KEY: "key"}[Subject(request.subject)]
    budget = money.source().budget(request.budget_id) if request.budget_id else None
    if budget is None or (budget.scope, budget.owner_id) != (scope, owner.pk):
        raise ValidationError({"budget": "This budget is no longer there."})
    return budget


# --- a key -----------------------------------------------------------------------------------------------------------
def _check_key(request: AccessRequest) -> None:
    if request.team is not None:
        services.check_owner(request.team, request.requester)
    if request.amount is not None:
        _need_amount(request)
    if not request.name:
        raise ValidationError({"name": "Give the key a name."})
    if request.expires_at is not None and request.expires_at <= timezone.now():
        raise ValidationError({"expires_at": "Must be in the future."})
    if ApiKey.objects.filter(Q(team=request.team), user=request.requester, name=request.name).exists():
        raise ValidationError({"name": "You have a key of this name there already."})


def _approve_key(request: AccessRequest, by: User | None) -> None:
    """It is made when its requester collects it: nobody else is to see it."""
    if request.team is not None:
        services.check_owner(request.team, request.requester)


def make_key(request: AccessRequest) -> tuple[ApiKey, str]:
    """Raises ValidationError."""
    team = request.team or services.personal_team(request.requester)
    key, secret = services.create_key(request.name, team, request.requester, expires_at=request.expires_at)
    if request.granted_amount is not None:
        money.source().add_budget("key", key.pk, request.granted_amount, request.per)
    return key, secret


# --- a course --------------------------------------------------------------------------------------------------------
def _check_cohort(request: AccessRequest) -> None:
    if request.cohort is None or not request.cohort.waits:
        raise ValidationError("There is no course that waits for approval.")


def _open_cohort(request: AccessRequest, by: User | None) -> None:
    from accounts.requests import cohorts

    _check_cohort(request)
    if request.cohort is not None:
        cohorts.admit(request.cohort, request.granted_amount)


# --- whose -----------------------------------------------------------------------------------------------------------
def _owner(request: AccessRequest) -> User | Team | ApiKey:
    """Whose model or budget it is, and that it is the requester's to ask for. Raises ValidationError."""
    if request.subject == Subject.ME:
        return request.requester
    if request.subject == Subject.TEAM:
        team = _team(request)
        services.check_owner(team, request.requester)
        return team
    if request.key is None or request.key.user_id != request.requester_id:
        raise ValidationError({"subject": "This key is not yours."})
    return request.key


def _team(request: AccessRequest) -> Team:
    if request.team is None:
        raise ValidationError({"team": "Choose a team."})
    return request.team


def _named(request: AccessRequest) -> str:
    return {Subject.ME: "You", Subject.TEAM: "The team", Subject.KEY: "The key"}[Subject(request.subject)]


def _granted(request: AccessRequest) -> int:
    if request.granted_amount is None:
        raise ValidationError({"amount": "Say how much."})
    return request.granted_amount


def _need_amount(request: AccessRequest, *, per: bool = True) -> None:
    if request.amount is None:
        raise ValidationError({"amount": "Say how much."})
    if per and request.per not in money.IN_A_MONTH:
        raise ValidationError({"per": "Choose a window."})


CHECKS = {
    Kind.JOIN: _check_join,
    Kind.TEAM: _check_team,
    Kind.MODEL: _check_model,
    Kind.BUDGET: _check_budget,
    Kind.KEY: _check_key,
    Kind.COHORT: _check_cohort,
}
ACTS = {
    Kind.JOIN: _join,
    Kind.TEAM: _make_team,
    Kind.MODEL: _allow_model,
    Kind.BUDGET: _enlarge,
    Kind.KEY: _approve_key,
    Kind.COHORT: _open_cohort,
}
