"""A course: made, changed, stopped, ended. Whatever happens, the keys of its students end together.

Two things hold that, each by itself: every key of a student expires when the course does, to which
accounts.requests.guard sees at each save of the key, so no call asks anybody; and a sweep disables the team that was
made for the course, and looks through the keys again.
"""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import services
from accounts.models import ApiKey, Membership, Team, User
from accounts.requests import money, policy
from accounts.requests import services as requests
from accounts.requests.locking import lock
from accounts.requests.models import AccessRequest, Cohort, CohortStudent, Kind

MAKE = "access.add_cohort"
MAX_STUDENTS = 2000


# --- who -------------------------------------------------------------------------------------------------------------
def managed_by(user: User) -> QuerySet[Cohort]:
    """The courses that the person looks after: those of their teams, or with the permission all."""
    if user.has_perm("access.change_cohort"):
        return Cohort.objects.all()
    return Cohort.objects.filter(team__in=policy.managed_teams(user))


def may_invite(user: User) -> bool:
    return user.has_perm(MAKE) or policy.managed_teams(user).exists()


# --- making ----------------------------------------------------------------------------------------------------------
@transaction.atomic
def make(cohort: Cohort, by: User, team: Team | None, *, cost_center: str = "", reason: str = "") -> Cohort:
    """In `team`, which they manage, or without one in a team made for it: where that needs somebody's approval, the
    course waits for it. Raises ValidationError."""
    cohort.made_by = by
    if team is None:
        cohort.team, cohort.own_team = _new_team(cohort, by, cost_center), True
    elif by.has_perm(MAKE) or policy.managed_teams(by).filter(pk=team.pk).exists():
        cohort.team = team
    else:
        raise ValidationError({"team": "Choose a team that you manage."})
    check(cohort)
    cohort.save()
    if cohort.own_team and not by.has_perm(MAKE):
        _ask_for(cohort, by, cost_center, reason)
    return cohort


def check(cohort: Cohort) -> None:
    """Raises ValidationError."""
    requests.check_amount(cohort.amount)
    if cohort.ends_at is not None and cohort.ends_at <= timezone.now():
        raise ValidationError({"ends_at": "Must be in the future."})
    if cohort.max_students is not None and cohort.max_students > MAX_STUDENTS:
        raise ValidationError({"max_students": f"At most {MAX_STUDENTS:,}."})
    if cohort.team.personal_of_id is not None:
        raise ValidationError({"team": "A person's own team takes no course."})
    cohort.full_clean(exclude=["models_allowed"])


def _new_team(cohort: Cohort, by: User, cost_center: str) -> Team:
    team = Team(name=cohort.name, cost_center=cost_center, models_allowed=cohort.models_allowed)
    try:
        team.full_clean()
    except ValidationError as error:
        raise ValidationError({"name": error.messages}) from None
    team.save()
    Membership.objects.create(user=by, team=team, role=Membership.Role.MANAGER)
    return team


def _ask_for(cohort: Cohort, by: User, cost_center: str, reason: str) -> None:
    """A team of its own has no budget above it, so somebody has to allow what the students may spend."""
    if cohort.amount is None:
        raise ValidationError({"amount": "A course with a team of its own needs a budget for each student."})
    cohort.waits = True
    cohort.save(update_fields=["waits"])
    cohort.team.disabled = True
    cohort.team.save(update_fields=["disabled"])
    request = AccessRequest(
        kind=Kind.COHORT,
        requester=by,
        cohort=cohort,
        name=cohort.name,
        amount=cohort.amount,
        per=cohort.per,
        cost_center=cost_center,
        reason=reason,
    )
    requests.ask(request)
    cohort.refresh_from_db()


@transaction.atomic
def admit(cohort: Cohort, amount: int | None) -> None:
    """It was approved, with so much for each student."""
    cohort = locked(cohort)
    cohort.waits, cohort.amount = False, amount
    cohort.save(update_fields=["waits", "amount"])
    _switch_team(cohort)
    apply_limits(cohort)


# --- changing --------------------------------------------------------------------------------------------------------
@transaction.atomic
def change(cohort: Cohort, by: User) -> None:
    """Saves it with new limits or another end, and gives them to every key there is. Raises ValidationError."""
    before = locked(cohort)
    check(cohort)
    if before.own_team and not by.has_perm(MAKE) and _beyond(cohort, before):
        problem = "More than was approved for this course: ask for it as a request, or lower another of the limits."
        raise ValidationError({"amount": problem})
    cohort.stopped_at, cohort.closed = before.stopped_at, before.closed and cohort.is_over()
    cohort.full_clean(exclude=["models_allowed"])  # again: an ended course that goes on needs its team for itself
    cohort.save()
    _switch_team(cohort)
    apply_limits(cohort)


def _beyond(cohort: Cohort, before: Cohort) -> bool:
    approved = AccessRequest.objects.filter(cohort=before, state=AccessRequest.State.APPROVED).first()
    if approved is None or approved.granted_amount is None:
        return True
    if cohort.amount is None:
        return True
    wanted = money.per_month(cohort.amount, cohort.per) * cohort.max_students
    return wanted > money.per_month(approved.granted_amount, approved.per) * before.max_students


@transaction.atomic
def stop(cohort: Cohort) -> None:
    """All keys of its students end now."""
    cohort = locked(cohort)
    if cohort.stopped_at is None:
        cohort.stopped_at = timezone.now()
        cohort.save(update_fields=["stopped_at"])
    _switch_team(cohort)
    apply_end(cohort)


@transaction.atomic
def go_on(cohort: Cohort) -> None:
    """After `stop`: until its end. Raises ValidationError."""
    cohort = locked(cohort)
    if cohort.ends_at <= timezone.now():
        raise ValidationError("The course is over. Give it a later end first.")
    cohort.stopped_at, cohort.closed = None, False
    cohort.full_clean(exclude=["models_allowed"])
    cohort.save(update_fields=["stopped_at", "closed"])
    _switch_team(cohort)
    apply_end(cohort)


@transaction.atomic
def stop_student(student: CohortStudent) -> None:
    student.stopped = True
    student.save(update_fields=["stopped"])
    if student.key is not None:
        services.revoke_key(student.key)


@transaction.atomic
def let_go_on(student: CohortStudent) -> None:
    """Their key works again; where it was deleted, they may make another, with a budget that begins anew."""
    student.stopped = False
    student.had_key = student.key is not None
    student.save(update_fields=["stopped", "had_key"])
    if student.key is not None:
        services.enable_key(student.key)


@transaction.atomic
def remove_student(student: CohortStudent) -> None:
    """Also from the team, if they came into it by the course: their key is refused from then on."""
    if student.key is not None:
        services.revoke_key(student.key)
    if student.joined_membership and student.user_id is not None:
        for membership in Membership.objects.filter(
            user=student.user_id, team=student.cohort.team_id, role=Membership.Role.MEMBER
        ):
            membership.delete()
    student.delete()


def end_due() -> int:
    """Carries out the end of courses that are over; how many."""
    due = Cohort.objects.filter(closed=False, ends_at__lte=timezone.now())
    count = 0
    for cohort in due:
        with transaction.atomic():
            cohort = locked(cohort)
            if cohort.closed or cohort.ends_at > timezone.now():
                continue
            apply_end(cohort)
            cohort.closed = True
            cohort.save(update_fields=["closed"])
            _switch_team(cohort)
            count += 1
    return count


# --- keys ------------------------------------------------------------------------------------------------------------
def locked(cohort: Cohort) -> Cohort:
    lock(Cohort, cohort.pk)
    return Cohort.objects.select_related("team").get(pk=cohort.pk)


def keys_of(cohort: Cohort) -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(cohort_place__cohort=cohort)


def apply_end(cohort: Cohort) -> None:
    """Every key of its students ends when it does."""
    for key in keys_of(cohort):
        key.expires_at = cohort.keys_end_at
        key.save(update_fields=["expires_at"])


def apply_limits(cohort: Cohort) -> None:
    apply_end(cohort)
    for key in keys_of(cohort):
        if key.models_allowed != cohort.models_allowed:
            key.models_allowed = cohort.models_allowed
            key.save(update_fields=["models_allowed"])
        give_limits(key, cohort)


def give_limits(key: ApiKey, cohort: Cohort) -> None:
    money.source().set_own_limits(key.pk, cohort.amount, cohort.per, cohort.requests_per_minute)


def _switch_team(cohort: Cohort) -> None:
    """The team that was made for it is on while the course is, and only then."""
    off = cohort.waits or cohort.is_over()
    if cohort.own_team and cohort.team.disabled != off:
        cohort.team.disabled = off
        cohort.team.save(update_fields=["disabled"])
