"""The tokens with which identity providers call.

gh-scim-<public id>-<secret><checksum>

as API keys have it (accounts.keys), with another beginning, so that neither is ever taken for the other.
"""

from __future__ import annotations

import re
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from accounts import keys
from accounts.keys import Digest
from accounts.scim.models import ScimToken
from accounts.services import peppers
from accounts.sso.models import IdentityProvider

PREFIX = "gh-scim-"
TOUCHED_EVERY = timedelta(minutes=1)
_WELL_FORMED = re.compile(
    f"{PREFIX}([0-9A-Za-z]{{{keys.PUBLIC_ID_CHARS}}})-[0-9A-Za-z]{{{keys.SECRET_CHARS + keys.CHECKSUM_CHARS}}}"
)


class InvalidToken(Exception):
    """Not a token, or none that is in force: one exception for all, so that nobody learns which."""


@transaction.atomic
def create_token(name: str, provider: IdentityProvider | None = None) -> tuple[ScimToken, str]:
    """Returns it and the whole token, which is never seen again. Raises ValidationError."""
    token = ScimToken(name=name, provider=provider, public_id=keys.make_public_id())
    secret = _give_secret(token)
    token.full_clean()
    token.save()
    return token, secret


def rotate_token(token: ScimToken) -> str:
    """Gives the token a new secret and returns the whole new token; the one before ends at once."""
    secret = _give_secret(token)
    token.save(update_fields=["digest", "pepper"])
    return secret


def authenticate(given: str) -> ScimToken:
    """Raises InvalidToken."""
    match = _WELL_FORMED.fullmatch(given)
    if match is None or keys.checksum(given[: -keys.CHECKSUM_CHARS]) != given[-keys.CHECKSUM_CHARS :]:
        raise InvalidToken
    token = ScimToken.objects.filter(public_id=match[1]).first()
    if token is None or not peppers().verify(given, Digest(token.digest, token.pepper)) or token.disabled:
        raise InvalidToken
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > TOUCHED_EVERY:
        ScimToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def _give_secret(token: ScimToken) -> str:
    secret = keys.make_key(token.public_id, PREFIX)
    digest = peppers().digest(secret)
    token.digest, token.pepper = digest.value, digest.pepper
    return secret
