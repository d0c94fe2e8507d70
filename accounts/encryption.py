"""Secrets at rest: provider credentials are written to the database encrypted (Fernet: AES-128-CBC with HMAC-SHA-256).

ENCRYPTION_KEYS may be any long texts, newest first; each is stretched to a Fernet key with HKDF. To rotate: put a new
key in front, restart, run `manage.py rotate_encryption`, then drop the old one.
"""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models


class Undecryptable(Exception):
    """Written under a key that is no longer in ENCRYPTION_KEYS, or damaged."""


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    def stretch(key: str) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"gatehouse at rest").derive(key.encode())

    return MultiFernet([Fernet(base64.urlsafe_b64encode(stretch(key))) for key in keys])


def encrypt(text: str) -> str:
    return _fernet(tuple(settings.ENCRYPTION_KEYS)).encrypt(text.encode()).decode() if text else ""


def decrypt(token: str) -> str:
    """Raises Undecryptable."""
    if not token:
        return ""
    try:
        return _fernet(tuple(settings.ENCRYPTION_KEYS)).decrypt(token.encode()).decode()
    except (InvalidToken, ValueError) as error:
        raise Undecryptable("This was encrypted under a key that is not in ENCRYPTION_KEYS.") from error


def rotate(token: str) -> str:
    """The same secret under the newest key; `token` itself when it is under it already. Raises Undecryptable."""
    if not token:
        return ""
    try:
        _fernet(tuple(settings.ENCRYPTION_KEYS[:1])).decrypt(token.encode())
    except (InvalidToken, ValueError):
        return encrypt(decrypt(token))
    return token


def encrypt_json(value: dict[str, Any]) -> str:
    return encrypt(json.dumps(value)) if value else ""


def decrypt_json(token: str) -> dict[str, Any]:
    return dict(json.loads(decrypt(token))) if token else {}


class EncryptedField(models.TextField):
    """A text column that holds ciphertext. The attribute is the ciphertext too: reading the clear text is explicit."""


class EncryptedRecordField(EncryptedField):
    """The same for records, of which there may be millions: they are rotated too, but not tried at every start, and
    one that cannot be read any more keeps no gateway from serving."""
