"""Mail about requests and invitations: put down with what it is about, sent by a sweep of Celery's. A mail server that
is away delays the mail, never the request. No key is ever in a mail."""

from __future__ import annotations

import logging
from typing import NamedTuple

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from accounts.requests import policy
from accounts.requests.models import NOTICE_PAUSES, AccessRequest, CohortStudent, Kind, Notice
from accounts.requests.money import amount_text
from accounts.requests.tokens import digest_of, new_token

logger = logging.getLogger(__name__)

AT_ONCE = 20
About = Notice.About
State = AccessRequest.State


# --- putting down ----------------------------------------------------------------------------------------------------
def tell_deciders(request: AccessRequest) -> None:
    for user in policy.deciders(request):
        _put_down(About.ASKED, user, request)


def tell_requester(request: AccessRequest) -> None:
    _put_down(About.DECIDED, request.requester, request)


def invite(student: CohortStudent) -> None:
    """Only where the invitation is an address."""
    if "@" in student.invited:
        Notice.objects.get_or_create(about=About.INVITED, student=student)


def _put_down(about: About, recipient: User, request: AccessRequest) -> None:
    if recipient.email and settings.EMAIL_IS_SET_UP:
        Notice.objects.create(about=about, recipient=recipient, request=request)


# --- sending ---------------------------------------------------------------------------------------------------------
def sweep() -> int:
    """Sends what is due; how many mails. What cannot be sent is tried again a few times, and then given up."""
    if not settings.EMAIL_IS_SET_UP:
        Notice.objects.exclude(about=About.INVITED).delete()
        return 0
    sent = 0
    for notice in _claim():
        try:
            _send(notice)
        except Exception as error:
            _put_off(notice, error)
        else:
            notice.delete()
            sent += 1
    return sent


def _claim() -> list[Notice]:
    """Put off before they are tried, so that nobody else tries them meanwhile."""
    now = timezone.now()
    due = Notice.objects.filter(next_try_at__lte=now).order_by("next_try_at", "id")
    if not due.exists():
        return []
    with transaction.atomic():
        if connection.features.has_select_for_update_skip_locked:
            due = due.select_for_update(skip_locked=True, of=("self",))
        ids = list(due.values_list("pk", flat=True)[:AT_ONCE])
        Notice.objects.filter(pk__in=ids).update(next_try_at=now + NOTICE_PAUSES[0])
    found = Notice.objects.filter(pk__in=ids).select_related(
        *("recipient", "student__cohort__team", "student__cohort__made_by"),
        *("request__requester", "request__team", "request__key", "request__cohort", "request__decided_by"),
    )
    return list(found)


def _put_off(notice: Notice, error: Exception) -> None:
    # The class alone: a mail server may quote addresses.
    if notice.tries >= len(NOTICE_PAUSES):
        logger.error("mail %s is given up (%s)", notice.pk, type(error).__name__)
        notice.delete()
        return
    logger.warning("mail %s could not be sent yet (%s)", notice.pk, type(error).__name__)
    notice.next_try_at = timezone.now() + NOTICE_PAUSES[notice.tries]
    notice.tries += 1
    notice.save(update_fields=["tries", "next_try_at"])


def _send(notice: Notice) -> None:
    if notice.student is not None:
        address, mail = notice.student.invited, _invitation(notice.student)
    elif notice.request is not None and notice.recipient is not None:
        address = notice.recipient.email
        mail = _asked(notice.request) if notice.about == About.ASKED else _decided(notice.request)
    else:
        return
    headers = {"Auto-Submitted": "auto-generated"}
    EmailMessage(_one_line(mail.subject), mail.text, to=[address], headers=headers).send()


class Mail(NamedTuple):
    subject: str
    text: str


def _asked(request: AccessRequest) -> Mail:
    who, what = _person(request.requester), words(request)
    lines = [f"{who} asks for: {what}.", "", f"Reason: {request.reason}"]
    if request.cost_center:
        lines.append(f"Cost centre: {request.cost_center}")
    lines += ["", *_link("Approve or decline it", "access_decide", request.pk)]
    return Mail(f"{who} asks for: {what}", "\n".join(lines))


def _decided(request: AccessRequest) -> Mail:
    state = request.get_state_display().lower()
    lines = [f"Your request for {words(request)} is {state}."]
    if request.state == State.APPROVED and request.granted_amount not in (None, request.amount):
        lines.append(f"Granted: {amount_text(request.granted_amount, request.per)}.")
    if request.decision_reason:
        lines += ["", f"Reason: {request.decision_reason}"]
    if request.key_is_ready:
        lines += ["", "Your key is ready to be made: open the page and press “Make the key”. It is shown there once."]
    lines += ["", *_link("See it", "access_request", request.pk)]
    return Mail(f"{request.get_state_display()}: {words(request)}", "\n".join(lines))


def _invitation(student: CohortStudent) -> Mail:
    """With a token of its own, made now: who can read the mail has the address."""
    cohort = student.cohort
    token = new_token()
    student.digest = digest_of(token)
    student.save(update_fields=["digest"])
    teacher = _person(cohort.made_by) if cohort.made_by else "Your teacher"
    lines = [
        f"{teacher} invites you to the course “{cohort.name}”, which has access to language models until "
        f"{cohort.ends_at:%Y-%m-%d %H:%M} UTC.",
        "",
        *_link("Open this link and sign in", "access_join", token),
        "",
        "The link is yours alone: do not pass it on.",
    ]
    return Mail(f"Invitation to {cohort.name}", "\n".join(lines))


def _link(text: str, page: str, *args: object) -> list[str]:
    path = reverse(page, args=args)
    return [f"{text}: {settings.PUBLIC_URL.rstrip('/')}{path}" if settings.PUBLIC_URL else f"{text}: {path}"]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _person(user: User) -> str:
    return user.get_full_name() or user.username


def words(request: AccessRequest) -> str:
    """What is asked for, in a few words."""
    amount = amount_text(request.amount, request.per)
    return {
        Kind.JOIN: f"to join the team {request.team}",
        Kind.TEAM: f"a new team {request.name} with {amount}",
        Kind.MODEL: f"the model {request.model} for {_whose(request)}",
        Kind.BUDGET: f"{amount} for {_whose(request)}{' (this window only)' if request.once else ''}",
        Kind.KEY: f"a key {request.name} {f'with {amount}' if amount else 'without a budget of its own'}"
        f"{f' in the team {request.team}' if request.team else ''}",
        Kind.COHORT: f"the course {request.cohort} with {amount or 'no budget'} for each student",
    }[Kind(request.kind)]


def _whose(request: AccessRequest) -> str:
    if request.subject == AccessRequest.Subject.TEAM:
        return f"the team {request.team}"
    if request.subject == AccessRequest.Subject.KEY:
        return f"the key {request.key or '(gone)'}"
    return _person(request.requester)
