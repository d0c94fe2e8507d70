"""A token of the IdP for an API key that lives for hours (OAuth 2.0 Token Exchange, RFC 8693): for CI and notebooks.

The token must be signed by an IdP that is set up for sign-in (OpenID Connect), for the client that the gateway is
there, and not be expired. Then the person may do what they may do in the portal: have a key in one of their teams.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt
from allauth.socialaccount.models import SocialAccount
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from accounts.audit import acting, record, trail
from accounts.models import ApiKey, User
from accounts.portal.choices import choices_of
from accounts.portal.keys import make_own_key
from accounts.requests import terms
from accounts.sso import documents, tokens
from accounts.sso.identity import Identity
from accounts.sso.models import IdentityProvider
from accounts.sso.provider import identity_of
from accounts.sso.services import NotAdmitted, check_admitted, make_person
from accounts.tokens.models import ShortLivedKey

USUAL_LIFE, SHORTEST_LIFE, LONGEST_LIFE = timedelta(hours=1), timedelta(minutes=1), timedelta(hours=12)
MOST_ALIVE = 50  # of one person
MAX_TOKEN_CHARS = 16_000
# What was never used explains nothing; what was used stays for a while beside its usage.
UNUSED_KEPT, USED_KEPT = timedelta(days=1), timedelta(days=30)


class Refused(Exception):
    """`code` as RFC 6749 and 8693 have it; the message is for the caller."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Exchanged:
    key: ApiKey
    secret: str
    life: timedelta


def exchange(token: str, *, team: str = "", models: Sequence[str] = (), life: timedelta = USUAL_LIFE) -> Exchanged:
    """`team`: its name; "" is the personal one. `models`: what the key may call of what the team allows; empty: all of
    that. Raises Refused."""
    if not SHORTEST_LIFE <= life <= LONGEST_LIFE:
        raise Refused("invalid_request", "expires_in must be between 60 and 43200 seconds.")
    idp, identity = verify(token)
    with transaction.atomic():
        trail.lock()
        user = _person(idp, identity)
        with acting("api", user=user, name=f"{user.get_username()} by token exchange"):
            key, secret = _make_key(user, team, list(models), life)
            ShortLivedKey.objects.create(key=key, issuer=idp.slug, subject=identity.subject)
            record("apikey.exchanged", target=key, details={"identity_provider": idp.slug, "hours": life / ONE_HOUR})
    return Exchanged(key, secret, life)


ONE_HOUR = timedelta(hours=1)


def verify(token: str) -> tuple[IdentityProvider, Identity]:
    """Whose token it is. Raises Refused."""
    if len(token) > MAX_TOKEN_CHARS:
        raise Refused("invalid_request", "The subject_token is too long.")
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Refused("invalid_request", "The subject_token is no JWT.") from None
    for idp in IdentityProvider.objects.filter(kind=IdentityProvider.Kind.OIDC, enabled=True):
        try:
            config = documents.discovery(idp.discovery_url)
        except documents.Unusable:
            continue
        if config["issuer"] == issuer:
            return idp, _verified(token, idp, config)
    raise Refused("invalid_request", "The subject_token is of no identity provider that is set up here.")


def _verified(token: str, idp: IdentityProvider, config: dict[str, Any]) -> Identity:
    try:
        claims = tokens.verify(
            token,
            lambda fresh: documents.signing_keys(config["jwks_uri"], fresh=fresh),
            config["issuer"],
            idp.client_id,
            "exp",
            "sub",
        )
    except documents.Unusable:
        raise Refused("temporarily_unavailable", "The identity provider's keys cannot be read right now.") from None
    except tokens.Refused as error:
        raise Refused("invalid_request", f"The subject_token is refused: {error}.") from None
    # A log-out token is signed by the same keys for the same client.
    if "events" in claims or not isinstance(claims["sub"], str) or not claims["sub"]:
        raise Refused("invalid_request", "The subject_token is of another kind.")
    return identity_of(idp, claims["sub"], claims)


def _person(idp: IdentityProvider, identity: Identity) -> User:
    """Who has signed in before, as they are; else a new person, if they may sign in. Tokens often lack the groups, so
    only a sign-in recomputes what these give. Raises Refused."""
    known = SocialAccount.objects.filter(provider=idp.slug, uid=identity.subject).select_related("user").first()
    user: Any = known.user if known is not None else None
    try:
        if user is None or identity.groups or identity.affiliations:
            check_admitted(idp, identity, user)
    except NotAdmitted as error:
        raise Refused("invalid_request", str(error)) from None
    if user is not None and not user.is_active:
        raise Refused("invalid_request", "Your account here is not active.")
    user = user or make_person(idp, identity)
    if terms.barring(user) is not None:
        raise Refused("invalid_request", "Agree to the terms of use in the portal first.")
    return user


def _make_key(user: User, team: str, models: list[str], life: timedelta) -> tuple[ApiKey, str]:
    alive = ShortLivedKey.objects.filter(key__user=user, key__disabled=False, key__expires_at__gt=timezone.now())
    if alive.count() >= MOST_ALIVE:
        raise Refused("invalid_request", f"You have {MOST_ALIVE} short-lived keys already. Let some of them end.")
    fitting = [
        one for one in choices_of(user) if (one.team and one.team.name == team) or (not team and one.is_personal)
    ]
    if not fitting:
        raise Refused("invalid_target", "You are not in this team, or it is switched off.")
    try:
        return make_own_key(
            user,
            fitting[0].value,
            f"Exchanged {timezone.now():%Y-%m-%d %H:%M} {secrets.token_hex(4)}",
            models=models or None,
            endpoints=None,
            expires_at=timezone.now() + life,
            budget=None,
        )
    except ValidationError as error:
        code = "invalid_scope" if "models" in getattr(error, "error_dict", {}) else "invalid_request"
        raise Refused(code, " ".join(error.messages)) from None


def purge_keys() -> int:
    """Deletes short-lived keys that have ended: at once what was never used, later what was. Returns how many."""
    now, count = timezone.now(), 0
    ended = ShortLivedKey.objects.select_related("key")
    unused = ended.filter(key__last_used_at=None, key__expires_at__lt=now - UNUSED_KEPT)
    used = ended.filter(key__expires_at__lt=now - USED_KEPT)
    for row in (*unused[:500], *used[:500]):
        if ApiKey.objects.filter(pk=row.key_id).exists():
            row.key.delete()
            count += 1
    return count
