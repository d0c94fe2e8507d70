"""Texts in which the rules have found nothing: whoever sends one again need not have it read again.

A conversation is sent whole with each of its turns, and every call of an app begins with the same system prompt. So
most of what a gateway is given to read it has read before.

Only digests are kept, keyed with a secret of this process: of the texts themselves nothing stays here.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

KEPT = 4_096
DIGEST_BYTES = 16
_KEY = secrets.token_bytes(32)


class CleanTexts:
    """Of one chain of rules: other rules may find something. The last `kept` to twice as many that were met."""

    __slots__ = ("_earlier", "_kept", "_recent")

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._recent: set[bytes] = set()
        self._earlier: set[bytes] = set()

    def has(self, digest: bytes) -> bool:
        if digest in self._recent:
            return True
        if digest in self._earlier:
            self.add(digest)
            return True
        return False

    def add(self, digest: bytes) -> None:
        if len(self._recent) >= self._kept:
            self._earlier, self._recent = self._recent, set()
        self._recent.add(digest)


def digest_of(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES, key=_KEY).digest()
