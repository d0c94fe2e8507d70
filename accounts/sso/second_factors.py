"""The secrets of second factors: the library keeps them in JSON, encrypted by our adapter."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator

from accounts.encryption import Undecryptable, rotate

SECRETS = ("secret", "seed")


def rotate_all() -> tuple[int, list[str]]:
    """Writes them under the newest of ENCRYPTION_KEYS: how many, and which cannot be read with any of them."""
    rotated, broken = 0, []
    for factor in Authenticator.objects.select_related("user"):
        try:
            fresh = _rotated(factor.data)
        except Undecryptable:
            broken.append(f"second factor of {factor.user}")
            continue
        if fresh != factor.data:
            # Only where nobody has set up another one meanwhile.
            rotated += Authenticator.objects.filter(pk=factor.pk, data=factor.data).update(data=fresh)
    return rotated, broken


def _rotated(data: dict[str, Any]) -> dict[str, Any]:
    """Raises Undecryptable."""
    changed: dict[str, Any] = {name: rotate(data[name]) for name in SECRETS if isinstance(data.get(name), str)}
    codes = data.get("migrated_codes")
    if isinstance(codes, list):
        changed["migrated_codes"] = [rotate(code) for code in codes]
    return {**data, **changed}
