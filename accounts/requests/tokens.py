"""Tokens of invitations. They are random and long, so a plain digest is enough: nobody can guess what it is of."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    return secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """64 hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()
