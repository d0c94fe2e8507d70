"""Who decides a request. Rules first, then the defaults; nobody decides their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db.models import Q, QuerySet

from accounts.models import Membership, Team, User
from accounts.requests.models import AccessRequest, AccessSettings, Kind, Outcome, RequestRule
from accounts.requests.money import per_month

DECIDE = "access.decide_accessrequest"
DECIDED_BY_MANAGERS = {Kind.JOIN, Kind.KEY}
# Each of these makes something more, so what the rules granted before counts too.
ADDS_UP = {Kind.KEY, Kind.TEAM, Kind.COHORT}
State = AccessRequest.State

Groups = Callable[[User], Iterable[str]]
_groups: list[Groups] = [lambda user: ()]


def set_groups(source: Groups) -> None:
    """Affiliations and groups of a person, as of their last sign-in through an identity provider."""
    _groups[:] = [source]


def groups_of(user: User) -> frozenset[str]:
    return frozenset(_groups[0](user))


def outcome_of(request: AccessRequest, amount: int | None = None) -> Outcome:
    """Who decides it, if `amount` (nano-USD per window; None: what is asked) were granted."""
    wanted = request.amount if amount is None else amount
    rules = RequestRule.objects.filter(enabled=True, kind=request.kind).order_by("position", "id")
    groups: frozenset[str] | None = None
    for rule in rules:
        if rule.group and groups is None:
            groups = groups_of(request.requester)
        if _fits(rule, request, wanted, groups or frozenset()):
            return Outcome(rule.outcome)
    return default_outcome(request)


def default_outcome(request: AccessRequest) -> Outcome:
    """A manager decides on who joins and on keys within the team's own budget and models; money and models that the
    installation has given to the team or the person are an administrator's."""
    about_key = request.kind in (Kind.MODEL, Kind.BUDGET) and request.subject == AccessRequest.Subject.KEY
    if request.team is None or request.team.personal_of_id is not None:
        return Outcome.ADMIN
    return Outcome.MANAGER if about_key or request.kind in DECIDED_BY_MANAGERS else Outcome.ADMIN


def _fits(rule: RequestRule, request: AccessRequest, amount: int | None, groups: frozenset[str]) -> bool:
    if rule.team_id is not None and rule.team_id != request.team_id:
        return False
    if rule.model and rule.model != request.model:
        return False
    if rule.group and rule.group not in groups:
        return False
    if rule.max_per_month is None:
        return True
    if amount is None or not request.per:
        # No amount is no limit: a key without a budget is more than any.
        return request.kind not in ADDS_UP
    monthly = per_month(amount, request.per) * seats(request)
    if rule.outcome == Outcome.AUTOMATIC and request.kind in ADDS_UP:
        monthly += _granted_before(request)
    return monthly <= rule.max_per_month


def seats(request: AccessRequest) -> int:
    """How often the amount is given."""
    return request.cohort.max_students if request.kind == Kind.COHORT and request.cohort else 1


def _granted_before(request: AccessRequest) -> int:
    """A month, by the rules alone, of this kind to this person: many small ones are a large one."""
    before = AccessRequest.objects.filter(
        requester=request.requester_id, kind=request.kind, state=State.APPROVED, outcome=Outcome.AUTOMATIC
    ).exclude(pk=request.pk)
    live = before.filter(Q(key=None) | Q(key__disabled=False)).select_related("cohort")
    return sum(per_month(row.granted_amount or 0, row.per or "month") * seats(row) for row in live)


# --- who ------------------------------------------------------------------------------------------------------------
def may_decide(user: User, request: AccessRequest) -> bool:
    if user.pk == request.requester_id:
        return False
    if user.has_perm(DECIDE):
        return True
    if request.outcome != Outcome.MANAGER or request.team_id is None:
        return False
    return managed_teams(user).filter(pk=request.team_id).exists()


def decidable_by(user: User) -> QuerySet[AccessRequest]:
    """What they may decide or might have decided: never their own."""
    rows = AccessRequest.objects.exclude(requester=user)
    if user.has_perm(DECIDE):
        return rows
    return rows.filter(outcome=Outcome.MANAGER, team__in=managed_teams(user))


def waiting_for(user: User) -> int:
    return decidable_by(user).filter(state=State.OPEN).count()


def managed_teams(user: User) -> QuerySet[Team]:
    """Those of which the person is a manager; not their own personal one: there is nobody else in it."""
    return Team.objects.filter(
        memberships__user=user, memberships__role=Membership.Role.MANAGER, personal_of=None
    ).distinct()


def deciders(request: AccessRequest) -> list[User]:
    """Whom to tell that it waits: managers, or administrators where there are none."""
    others = User.objects.filter(is_active=True).exclude(pk=request.requester_id)
    if request.outcome == Outcome.MANAGER and request.team_id is not None:
        managers = others.filter(memberships__team=request.team_id, memberships__role=Membership.Role.MANAGER)
        if found := list(managers.distinct()):
            return found
    admins: Any = User.objects.with_perm(DECIDE, backend="django.contrib.auth.backends.ModelBackend")
    return list(admins.filter(is_active=True).exclude(pk=request.requester_id))


# --- keys above the threshold ----------------------------------------------------------------------------------------
def settings() -> AccessSettings:
    return AccessSettings.objects.order_by("pk").first() or AccessSettings()


def key_threshold() -> int | None:
    """Nano-USD a month above which a key has to be asked for; None: never."""
    return settings().key_threshold


def needs_request(amount: int | None, per: str) -> bool:
    """Whether a person's key with this budget (None: without one) has to be asked for."""
    threshold = key_threshold()
    if threshold is None:
        return False
    return amount is None or per_month(amount, per) > threshold
