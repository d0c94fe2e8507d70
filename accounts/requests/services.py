"""Asking, deciding, collecting. Each step is taken once: the request's row is locked while it is judged."""

from __future__ import annotations

from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.models import ApiKey, User
from accounts.requests import carrying, notices, policy
from accounts.requests.locking import lock
from accounts.requests.models import AccessRequest, Kind, Notice, Outcome
from accounts.requests.money import MOST, usd

State = AccessRequest.State
BY_POLICY = "The policy grants this without asking anybody."
MAX_OPEN = 20  # of one person: who has more than that waiting does not need another one


class AlreadyDecided(Exception):
    """Somebody was quicker."""


class NotYours(Exception):
    """Not a request that this person may decide, withdraw or collect. To them it is not there."""


# --- asking ----------------------------------------------------------------------------------------------------------
@transaction.atomic
def ask(request: AccessRequest) -> AccessRequest:
    """Puts it down; where the policy says automatic, it is granted in the same step. Raises ValidationError."""
    # Locked, so that two of them at once do not each think that they are the only one.
    lock(User, request.requester_id)
    check_amount(request.amount)
    carrying.check(request)
    request.full_clean()
    _check_open(request)
    request.outcome = policy.outcome_of(request)
    request.save()
    if request.outcome == Outcome.AUTOMATIC:
        _grant(request, None, request.amount, BY_POLICY)
    else:
        notices.tell_deciders(request)
    return request


def _check_open(request: AccessRequest) -> None:
    waiting = list(AccessRequest.objects.filter(requester=request.requester_id, state=State.OPEN)[:MAX_OPEN])
    if len(waiting) >= MAX_OPEN:
        raise ValidationError(f"{MAX_OPEN} of your requests wait already. Withdraw one first.")
    if any(_same(one, request) for one in waiting):
        raise ValidationError("You have asked for this already; that request still waits.")


def _same(one: AccessRequest, other: AccessRequest) -> bool:
    fields = ("kind", "subject", "team_id", "key_id", "cohort_id", "name", "model", "budget_id")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def check_amount(amount: int | None) -> None:
    if amount is not None and not 0 < amount <= MOST:
        raise ValidationError({"amount": f"Must be more than $0 and at most {usd(MOST)}."})


# --- deciding --------------------------------------------------------------------------------------------------------
@transaction.atomic
def approve(request_id: int, by: User, amount: int | None = None, reason: str = "") -> AccessRequest:
    """Carries it out, with `amount` (nano-USD) in place of what was asked where one is given.
    Raises AlreadyDecided, NotYours, ValidationError; then nothing has happened."""
    request = _locked(request_id)
    if not policy.may_decide(by, request):
        raise NotYours
    if not request.is_open:
        raise AlreadyDecided
    granted = request.amount if amount is None or request.amount is None else amount
    check_amount(granted)
    if not by.has_perm(policy.DECIDE) and policy.outcome_of(request, granted) == Outcome.ADMIN:
        raise ValidationError({"amount": "Only an administrator may approve this. Approve less, or leave it to them."})
    _grant(request, by, granted, reason.strip())
    notices.tell_requester(request)
    return request


@transaction.atomic
def decline(request_id: int, by: User, reason: str) -> AccessRequest:
    """Raises AlreadyDecided, NotYours, ValidationError."""
    request = _locked(request_id)
    if not policy.may_decide(by, request):
        raise NotYours
    if not request.is_open:
        raise AlreadyDecided
    if not reason.strip():
        raise ValidationError({"reason": "Say why: the requester is told."})
    carrying.turn_down(request)
    _close(request, State.DECLINED, by, reason.strip())
    notices.tell_requester(request)
    return request


@transaction.atomic
def withdraw(request_id: int, by: User) -> AccessRequest:
    """Raises AlreadyDecided, NotYours."""
    request = _locked(request_id)
    if request.requester_id != by.pk:
        raise NotYours
    if not request.is_open:
        raise AlreadyDecided
    carrying.turn_down(request)
    _close(request, State.WITHDRAWN, by, "")
    return request


def expire_old() -> int:
    """Ends the requests that nobody has decided for long; how many."""
    long_ago = timezone.now() - open_for()
    count = 0
    for pk in list(
        AccessRequest.objects.filter(state=State.OPEN, created_at__lt=long_ago).values_list("pk", flat=True)
    ):
        with transaction.atomic():
            request = _locked(pk)
            if request.is_open:
                carrying.turn_down(request)
                _close(request, State.EXPIRED, None, "Nobody has decided it in time. Ask again if you still need it.")
                notices.tell_requester(request)
                count += 1
    return count


def open_for() -> timedelta:
    return timedelta(days=policy.settings().open_days)


def _locked(request_id: int) -> AccessRequest:
    """Raises AccessRequest.DoesNotExist."""
    lock(AccessRequest, request_id)
    return AccessRequest.objects.select_related("requester", "team", "key", "cohort").get(pk=request_id)


def _grant(request: AccessRequest, by: User | None, amount: int | None, reason: str) -> None:
    """Raises ValidationError."""
    request.granted_amount = amount
    carrying.carry_out(request, by)
    _close(request, State.APPROVED, by, reason)


def _close(request: AccessRequest, state: str, by: User | None, reason: str) -> None:
    request.state, request.decided_by, request.decided_at = state, by, timezone.now()
    request.decision_reason = reason
    request.full_clean(exclude=["requester", "team", "key", "cohort", "decided_by"])
    request.save()
    Notice.objects.filter(request=request, about=Notice.About.ASKED).delete()  # what has not been sent says nothing now


# --- collecting ------------------------------------------------------------------------------------------------------
@transaction.atomic
def collect(request_id: int, by: User) -> tuple[ApiKey, str]:
    """The approved key, made by its requester, who alone sees it; once. Raises AlreadyDecided, NotYours,
    ValidationError."""
    request = _locked(request_id)
    if request.requester_id != by.pk or request.kind != Kind.KEY or request.state != State.APPROVED:
        raise NotYours
    if request.collected_at is not None:
        raise AlreadyDecided
    if lapsed(request):
        raise ValidationError("This approval has lapsed. Ask again.")
    key, secret = carrying.make_key(request)
    request.key, request.collected_at = key, timezone.now()
    request.save()
    return key, secret


def lapsed(request: AccessRequest) -> bool:
    if not request.key_is_ready or request.decided_at is None:
        return False
    return request.decided_at < timezone.now() - open_for()
