"""Counts failed sign-ins, by minute, address and account."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from accounts.addresses import client_ip
from accounts.models import User
from usage.alert_models import SignInFailures

logger = logging.getLogger(__name__)

KEPT = timedelta(days=2)


def sign_in_failed(credentials: dict[str, Any], request: HttpRequest | None = None, **_kwargs: Any) -> None:
    """Receives user_login_failed. That it cannot be counted keeps nobody from trying again, but is in the log."""
    try:
        count(str(credentials.get(User.USERNAME_FIELD) or ""), client_ip(request) if request else "")
    except DatabaseError:
        logger.exception("a failed sign-in could not be counted")


def count(username: str, address: str, at: datetime | None = None) -> None:
    """`username`: as it was typed."""
    known = User.objects.filter(username=username[:150]) if username and "\0" not in username else User.objects.none()
    account = known.values_list("username", flat=True).first() or ""
    minute = (at or timezone.now()).replace(second=0, microsecond=0)
    row = SignInFailures.objects.filter(minute=minute, client_ip=address, account=account)
    if row.update(count=F("count") + 1):
        return
    try:
        with transaction.atomic():
            SignInFailures.objects.create(minute=minute, client_ip=address, account=account)
    except IntegrityError:  # another process was faster
        row.update(count=F("count") + 1)


def prune(now: datetime) -> None:
    SignInFailures.objects.filter(minute__lt=now - KEPT).delete()
