"""Verifies what an OpenID Connect provider signs: id_tokens and log-out tokens."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from django.db import IntegrityError, transaction

from accounts.sso.models import SpentToken

# Asymmetric ones only: `none` and HS256 (whose key everybody who has the public key would know) are not among them.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
LEEWAY_S = 60
LOGOUT_AGE_S = 300
BACKCHANNEL = "http://schemas.openid.net/event/backchannel-logout"
Keys = Callable[[bool], list[dict[str, Any]]]


class Refused(Exception):
    """The message says why, for the log and the audit trail; never more than that for the person."""


def verify(token: str, keys: Keys, issuer: str, client_id: str, *required: str) -> dict[str, Any]:
    """The claims of a token that this issuer signed for this client. `keys(fresh)` gives its JWKS. Raises Refused."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise Refused("the token is no JWT") from None
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise Refused(f"the token is signed with {str(algorithm)[:20]}, which is not taken")
    key = _key(keys, algorithm, header.get("kid"))
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=issuer,
            audience=client_id,
            leeway=LEEWAY_S,
            options={"require": ["iss", "aud", "iat", *required]},
        )
    except jwt.PyJWTError as error:
        raise Refused(f"the token is not valid: {type(error).__name__}") from None
    _check_party(claims, client_id)
    return dict(claims)


def _key(keys: Keys, algorithm: str, kid: str | None) -> Any:
    for fresh in (False, True):
        fitting = [
            key
            for key in keys(fresh)
            if key.get("kty") == KEY_TYPES[algorithm[:2]]
            and key.get("alg", algorithm) == algorithm
            and (kid is None or key.get("kid") == kid)
        ]
        if len(fitting) == 1:
            try:
                return jwt.PyJWK(fitting[0], algorithm).key
            except jwt.PyJWTError:
                raise Refused("the issuer's key cannot be read") from None
    raise Refused("the token is signed with a key that the issuer does not publish")


def _check_party(claims: dict[str, Any], client_id: str) -> None:
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    authorized = claims.get("azp")
    if authorized is None and len(audience) > 1:
        raise Refused("the token is for several clients and does not say which of them asked")
    if authorized is not None and authorized != client_id:
        raise Refused("the token was given to another client")


def verify_id_token(
    token: str, keys: Keys, issuer: str, client_id: str, nonce: str, access_token: str
) -> dict[str, Any]:
    """Raises Refused."""
    claims = verify(token, keys, issuer, client_id, "exp", "sub")
    if not nonce or not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise Refused("the token answers another sign-in (nonce)")
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise Refused("the token names nobody")
    _check_at_hash(claims, token, access_token)
    return claims


def _check_at_hash(claims: dict[str, Any], token: str, access_token: str) -> None:
    bits = jwt.get_unverified_header(token)["alg"][2:]
    if "at_hash" not in claims or bits not in ("256", "384", "512"):
        return
    digest = hashlib.new(f"sha{bits}", access_token.encode()).digest()
    expected = jwt.utils.base64url_encode(digest[: len(digest) // 2])
    if not hmac.compare_digest(expected, str(claims["at_hash"]).encode()):
        raise Refused("the access token is another one (at_hash)")


def verify_logout_token(token: str, keys: Keys, issuer: str, client_id: str) -> tuple[str, str]:
    """(sub, sid), of which one may be "". OpenID Connect Back-Channel Logout 1.0, 2.6. Raises Refused."""
    claims = verify(token, keys, issuer, client_id, "jti")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(BACKCHANNEL), dict):
        raise Refused("the token is no log-out token")
    if "nonce" in claims:
        raise Refused("the log-out token has a nonce")
    subject, session = (claims.get(name, "") for name in ("sub", "sid"))
    if not isinstance(subject, str) or not isinstance(session, str) or not (subject or session):
        raise Refused("the log-out token names neither a person nor a session")
    if not isinstance(claims["iat"], int | float) or abs(time.time() - claims["iat"]) > LOGOUT_AGE_S:
        raise Refused("the log-out token is too old")
    until = claims.get("exp", claims["iat"] + LOGOUT_AGE_S)
    spend(f"oidc {issuer} {claims['jti']}", datetime.fromtimestamp(until, UTC) + timedelta(seconds=LOGOUT_AGE_S))
    return subject, session


def spend(name: str, until: datetime) -> None:
    """Marks a token as used; `until`: when it would be refused anyway. Raises Refused when it was used before."""
    try:
        with transaction.atomic():
            SpentToken.objects.create(digest=hashlib.sha256(name.encode()).hexdigest(), expires_at=until)
    except IntegrityError:
        raise Refused("it was used before") from None
