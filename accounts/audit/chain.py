"""How the rows of the trail hold each other.

Each event has a digest under a key that is derived from ENCRYPTION_KEYS: over its columns, its place in the chain, the
digest of the event before, and a commitment to each part of its detail (who, from where, each field before and after).
A commitment is a salted SHA-256, so a part can be erased together with its salt and the chain still holds; a keyed
digest in `erased` proves that the erasure was ours. The head row is signed and says where the chain ends; a signed
checkpoint says where it begins after old events were deleted.

So whoever can write to the database but does not know ENCRYPTION_KEYS can neither change, add, remove nor reorder
anything unnoticed. They could put the whole database back to an earlier state: anchors outside of it show that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from accounts.audit.models import AuditCheckpoint, AuditDetail, AuditEvent, AuditHead, AuditKey
from accounts.encryption import Undecryptable, decrypt, encrypt

START = "0" * 64  # the digest before the first event
SALT_BYTES = 16


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


# --- keys -----------------------------------------------------------------------------------------------------------
@lru_cache(maxsize=8)
def _derive(secret: str) -> tuple[str, bytes]:
    """Fingerprint and key."""
    stretch = HKDF(algorithm=SHA256(), length=40, salt=None, info=b"gatehouse audit trail 1")
    material = stretch.derive(secret.encode())
    return material[32:].hex(), material[:32]


def signing_key() -> tuple[str, bytes]:
    return _derive(settings.ENCRYPTION_KEYS[0])


def keep_old_keys() -> None:
    """Writes down the keys that signed before, so that they outlive their ENCRYPTION_KEYS entries."""
    for secret in settings.ENCRYPTION_KEYS[1:]:
        fingerprint, key = _derive(secret)
        AuditKey.objects.get_or_create(fingerprint=fingerprint, defaults={"secret": encrypt(key.hex())})


def known_keys() -> dict[str, bytes]:
    """By fingerprint: those of ENCRYPTION_KEYS, and those that were used before and can be decrypted."""
    found = dict(_derive(secret) for secret in settings.ENCRYPTION_KEYS)
    for row in AuditKey.objects.all():
        if row.fingerprint not in found:
            try:
                found[row.fingerprint] = bytes.fromhex(decrypt(row.secret))
            except (Undecryptable, ValueError):
                continue
    return found


def find_key(fingerprint: str) -> bytes | None:
    current, key = signing_key()
    return key if fingerprint == current else known_keys().get(fingerprint)


def sign(key: bytes, kind: str, *values: object) -> str:
    """`kind` keeps a digest of one sort of row from passing for one of another."""
    return hmac.new(key, canonical([kind, *values]), hashlib.sha256).hexdigest()


# --- what is signed -------------------------------------------------------------------------------------------------
def parts(detail: AuditDetail) -> dict[str, Any]:
    """What can be erased one by one: "who", "user", "ip", "target", and "before.name" and the like."""
    found: dict[str, Any] = {
        "who": detail.user_name,
        "user": detail.user_id,
        "ip": detail.ip,
        "target": detail.target_name,
    }
    for column in ("before", "after", "details"):
        found |= {f"{column}.{name}": value for name, value in json.loads(getattr(detail, column)).items()}
    return found


def make_salts(names: Mapping[str, Any]) -> dict[str, str]:
    return {name: secrets.token_hex(SALT_BYTES) for name in names}


def commitment(salt: str, name: str, value: object) -> str:
    return hashlib.sha256(canonical([salt, name, value])).hexdigest()


def event_digest(key: bytes, event: AuditEvent, previous: str) -> str:
    return sign(
        key,
        "event",
        previous,
        event.number,
        str(event.id),
        event.channel,
        event.action,
        event.target_type,
        event.target_id,
        event.request_id,
        event.commitments,
    )


def head_signature(key: bytes, head: AuditHead) -> str:
    return sign(key, "head", head.number, head.digest, str(head.last_id))


def checkpoint_signature(key: bytes, checkpoint: AuditCheckpoint) -> str:
    made_at = checkpoint.made_at.isoformat()
    return sign(key, "checkpoint", checkpoint.number, checkpoint.digest, checkpoint.events, made_at)


def erasure_proof(key: bytes, event: AuditEvent, part: str) -> str:
    return sign(key, "erased", event.number, part, json.loads(event.commitments)[part])


def holds(digest: str, expected: str) -> bool:
    return hmac.compare_digest(digest.encode(), expected.encode())
