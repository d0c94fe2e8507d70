"""How students come into a course: by a list, by a link, by a group at the identity provider."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone

from accounts.models import Membership, User
from accounts.requests import cohorts, notices, policy
from accounts.requests.locking import lock
from accounts.requests.models import Cohort, CohortLink, CohortStudent
from accounts.requests.tokens import digest_of, new_token

Way = CohortStudent.Way
MAX_NAME = 254
_email = EmailValidator()


class NoSuchInvitation(Exception):
    """Unknown, expired, used up, taken back, or of a course that is over."""


class CourseFull(Exception):
    """There are as many students as it may have."""


# --- by list ---------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Invited:
    """What came of a list. `there`: in the course already or invited before; `not_understood`: neither an e-mail
    address nor a username that we know."""

    joined: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)


def names_in(text: str) -> list[str]:
    """The e-mail addresses and usernames in a pasted list or a CSV file: of each line the first cell that is an
    address, else the first one. A first line of headings is passed over; nobody is in it twice."""
    found: dict[str, str] = {}
    dialect: Any = _dialect(text)
    for number, row in enumerate(csv.reader(io.StringIO(text.replace("\0", "")), dialect)):
        cells = [cell.strip().strip("<>") for cell in row if cell.strip()]
        if not cells:
            continue
        name = next((cell for cell in cells if "@" in cell), cells[0])
        if number == 0 and "@" not in name and name.lower() in HEADINGS:
            continue
        found.setdefault(name.lower(), name)
    return list(found.values())


HEADINGS = {"email", "e-mail", "mail", "username", "user", "login", "name", "student", "id"}


def _dialect(text: str) -> type[csv.Dialect]:
    class Lines(csv.excel):
        delimiter = ";" if text.count(";") > text.count(",") else "\t" if "\t" in text else ","

    return Lines


@transaction.atomic
def invite(cohort: Cohort, names: list[str]) -> Invited:
    """People we know are in at once; the others when they come, by the link in their mail or under this username.
    Three queries and what is written for each. Raises CourseFull; then nobody was invited."""
    cohort = cohorts.locked(cohort)
    found = Invited()
    known = _users_named(names)
    taken = {invited.lower() for invited in cohort.students.values_list("invited", flat=True)}
    inside = set(cohort.students.exclude(user=None).values_list("user_id", flat=True))
    for name in names:
        user = known.get(name.lower())
        if name.lower() in taken or (user is not None and user.pk in inside):
            found.there.append(name)
        elif user is not None:
            _place(cohort, user, name, Way.LIST)
            found.joined.append(name)
        elif _is_name(name):
            student = CohortStudent.objects.create(cohort=cohort, invited=name)
            notices.invite(student)
            found.waiting.append(name)
        else:
            found.not_understood.append(name)
    _check_room(cohort)
    return found


def _users_named(names: list[str]) -> dict[str, User]:
    """By username, or by an address that nobody else has; in small letters."""
    wanted = {name.lower() for name in names if name}
    known = User.objects.annotate(lower_email=Lower("email"), lower_name=Lower("username"))
    users = list(known.filter(Q(lower_name__in=wanted) | Q(lower_email__in=wanted), is_active=True))
    by_address = Counter(user.email.lower() for user in users)
    found = {user.email.lower(): user for user in users if by_address[user.email.lower()] == 1}
    found |= {user.username.lower(): user for user in users}
    return {name: user for name, user in found.items() if name in wanted}


def _is_name(name: str) -> bool:
    if len(name) > MAX_NAME:
        return False
    if "@" not in name:
        return re.fullmatch(r"[\w.+-]{2,150}", name) is not None
    try:
        _email(name)
    except ValidationError:
        return False
    return True


# --- by link ---------------------------------------------------------------------------------------------------------
def make_link(cohort: Cohort, expires_at: datetime, max_uses: int) -> tuple[CohortLink, str]:
    """The link and its token, which is never seen again. Raises ValidationError."""
    if expires_at <= timezone.now():
        raise ValidationError({"expires_at": "Must be in the future."})
    token = new_token()
    link = CohortLink(cohort=cohort, digest=digest_of(token), expires_at=min(expires_at, cohort.ends_at))
    link.max_uses = max_uses
    link.full_clean()
    link.save()
    return link, token


def revoke_link(link: CohortLink) -> None:
    if link.revoked_at is None:
        link.revoked_at = timezone.now()
        link.save(update_fields=["revoked_at"])


def course_of(token: str) -> Cohort:
    """Where the token leads. Raises NoSuchInvitation."""
    digest = digest_of(token)
    link = CohortLink.objects.select_related("cohort").filter(digest=digest).first()
    if link is not None and link.works:
        return _going_on(link.cohort)
    student = CohortStudent.objects.select_related("cohort").filter(digest=digest, user=None).first()
    if student is None:
        raise NoSuchInvitation
    return _going_on(student.cohort)


@transaction.atomic
def join(token: str, user: User) -> Cohort:
    """By a link for all, or by the one in a mail. Who is in already stays in. Raises NoSuchInvitation, CourseFull."""
    digest = digest_of(token)
    # Locked: the last place of a link is one person's.
    lock(User, user.pk)
    link = CohortLink.objects.select_for_update().filter(digest=digest).first()
    invited = None if link else CohortStudent.objects.select_for_update().filter(digest=digest).first()
    found = link.cohort if link else invited.cohort if invited else None
    if found is None:
        raise NoSuchInvitation
    if CohortStudent.objects.filter(cohort=found, user=user).exists():
        return found
    cohort = _going_on(cohorts.locked(found))
    if invited is not None:
        if invited.user_id is not None:
            raise NoSuchInvitation
        _fill(invited, user)
        return cohort
    if link is None or not link.works:
        raise NoSuchInvitation
    _place(cohort, user, _name_in(cohort, user), Way.LINK)
    _check_room(cohort)
    link.uses += 1
    link.save(update_fields=["uses"])
    return cohort


def _going_on(cohort: Cohort) -> Cohort:
    """Raises NoSuchInvitation."""
    if cohort.is_over():
        raise NoSuchInvitation
    return cohort


# --- at sign-in ------------------------------------------------------------------------------------------------------
def at_sign_in(user: User) -> None:
    """Takes the places that wait under the person's username or address, and those of their groups; gives back those of
    groups that they have lost. Nobody sets their own address: an administrator or the identity provider does."""
    names = {name for name, known in _users_named([user.username, user.email]).items() if known.pk == user.pk}
    waiting = CohortStudent.objects.filter(user=None, cohort__closed=False).select_related("cohort")
    matches = Q()
    for name in names:
        matches |= Q(invited__iexact=name)
    for student in waiting.filter(matches):
        if not student.cohort.is_over():
            _take(student, user)
    _by_group(user)


@transaction.atomic
def _take(student: CohortStudent, user: User) -> None:
    cohorts.locked(student.cohort)
    if not CohortStudent.objects.filter(cohort=student.cohort, user=user).exists():
        _fill(student, user)


def _by_group(user: User) -> None:
    by_group = Cohort.objects.filter(closed=False, stopped_at=None).exclude(group="")
    courses = list(by_group.filter(ends_at__gt=timezone.now()))
    if not courses:
        return
    groups = policy.groups_of(user)
    for cohort in courses:
        place = CohortStudent.objects.filter(cohort=cohort, user=user).select_related("cohort").first()
        if cohort.group in groups and place is None:
            _join_by_group(cohort, user)
        elif place is not None and place.way == Way.GROUP and cohort.group not in groups:
            cohorts.remove_student(place)


def _join_by_group(cohort: Cohort, user: User) -> None:
    try:
        with transaction.atomic():
            cohort = cohorts.locked(cohort)
            _place(cohort, user, _name_in(cohort, user), Way.GROUP)
            _check_room(cohort)
    except CourseFull:
        return


# --- a place ---------------------------------------------------------------------------------------------------------
def _name_in(cohort: Cohort, user: User) -> str:
    """Under which they are listed; not one that is invited already."""
    name = user.email or user.username
    return user.username if cohort.students.filter(invited__iexact=name).exists() else name


def _place(cohort: Cohort, user: User, name: str, way: Way) -> CohortStudent:
    student = CohortStudent(cohort=cohort, invited=name, way=way)
    _fill(student, user)
    return student


def _fill(student: CohortStudent, user: User) -> None:
    """`user` is in the course, and in its team. An invitation is good for one person."""
    student.user, student.joined_at, student.digest = user, timezone.now(), ""
    team = student.cohort.team
    _, student.joined_membership = Membership.objects.get_or_create(user=user, team=team)
    student.save()


def _check_room(cohort: Cohort) -> None:
    """Raises CourseFull."""
    if cohort.students.count() > cohort.max_students:
        raise CourseFull
