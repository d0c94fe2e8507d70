"""Every change of management tokens, and who calls with one.

    gh-mt-<public id>-<secret><checksum>

as API keys have it (accounts.keys), with another beginning, so that neither is ever taken for the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts import keys
from accounts.keys import Digest
from accounts.models import User
from accounts.networks import BadNetwork, allowed_networks, clean_networks
from accounts.services import peppers
from accounts.tokens.models import ManagementToken, StoredReply
from accounts.tokens.scopes import UnknownScope, clean_scopes

PREFIX = "gh-mt-"
USUAL_LIFE = timedelta(days=90)
LONGEST_LIFE = timedelta(days=366)
# A token is not written on for every call with it.
TOUCHED_EVERY = timedelta(minutes=1)
REPLIES_KEPT = timedelta(hours=24)
_WELL_FORMED = re.compile(
    f"{PREFIX}([0-9A-Za-z]{{{keys.PUBLIC_ID_CHARS}}})-[0-9A-Za-z]{{{keys.SECRET_CHARS + keys.CHECKSUM_CHARS}}}"
)


class InvalidToken(Exception):
    """Not a token, or none that is in force: one exception for all, so that nobody learns which."""


class OtherNetwork(Exception):
    """The token may not be used from there."""


@transaction.atomic
def create_token(
    name: str,
    user: User,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    networks: Iterable[str] | None = None,
) -> tuple[ManagementToken, str]:
    """Returns it and the whole token, which is never seen again. Without an end it is 90 days. Raises
    ValidationError."""
    token = ManagementToken(
        name=name,
        user=user,
        scopes=checked_scopes(scopes),
        networks_allowed=_networks(networks),
        expires_at=checked_end(expires_at or timezone.now() + USUAL_LIFE),
        public_id=_free_public_id(),
    )
    secret = keys.make_key(token.public_id, PREFIX)
    digest = peppers().digest(secret)
    token.digest, token.pepper = digest.value, digest.pepper
    if not user.is_active:
        raise ValidationError({"user": f"{user} is not active, so the token would do nothing."})
    token.full_clean()
    token.save()
    return token, secret


def revoke_token(token: ManagementToken) -> None:
    """Refused from now on, for ever."""
    if token.revoked_at is None:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])


def checked_scopes(scopes: Iterable[str]) -> list[str]:
    """Raises ValidationError."""
    try:
        return clean_scopes(scopes)
    except UnknownScope as error:
        raise ValidationError({"scopes": str(error)}) from None


def checked_end(expires_at: datetime) -> datetime:
    """Raises ValidationError."""
    if timezone.is_naive(expires_at):
        raise ValidationError({"expires_at": "Must have a time zone."})
    if not timezone.now() < expires_at <= timezone.now() + LONGEST_LIFE:
        raise ValidationError({"expires_at": "Must be in the future, and at most a year away."})
    return expires_at


def authenticate(given: str, client_ip: str) -> ManagementToken:
    """The token, with its owner as they are now. Raises InvalidToken and OtherNetwork."""
    match = _WELL_FORMED.fullmatch(given)
    if match is None or keys.checksum(given[: -keys.CHECKSUM_CHARS]) != given[-keys.CHECKSUM_CHARS :]:
        raise InvalidToken
    token = ManagementToken.objects.select_related("user").filter(public_id=match[1]).first()
    if token is None or not peppers().verify(given, Digest(token.digest, token.pepper)) or token.state != "active":
        raise InvalidToken
    networks = allowed_networks(token.networks_allowed)
    if networks is not None and not networks.admit(client_ip):
        raise OtherNetwork
    _touch(token)
    return token


def purge_replies() -> int:
    """Deletes stored replies that are a day old. Returns how many."""
    return StoredReply.objects.filter(at__lt=timezone.now() - REPLIES_KEPT).delete()[0]


def _touch(token: ManagementToken) -> None:
    """A use is no change of the token."""
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > TOUCHED_EVERY:
        ManagementToken.objects.filter(pk=token.pk).update(last_used_at=now)
        token.last_used_at = now


def _networks(texts: Iterable[str] | None) -> list[str] | None:
    try:
        return clean_networks(texts or ())
    except BadNetwork as error:
        raise ValidationError({"networks_allowed": str(error)}) from None


def _free_public_id() -> str:
    while True:
        public_id = keys.make_public_id()
        if not ManagementToken.objects.filter(public_id=public_id).exists():
            return public_id
