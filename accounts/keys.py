"""The format and the digest of API keys. Pure: no database, no settings.

    sk-gh-<public id>-<secret><checksum>
          12 base62   43      6 base62

The secret is 43 base62 characters (256 bits). The checksum is the CRC-32 of everything before it, in base62, as GitHub's
tokens have it: a typo is refused without a look-up, and secret scanners can tell a leaked key from a look-alike.
The public id may be logged and shown; the secret is never stored, only its keyed digest.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass

PREFIX = "sk-gh-"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PUBLIC_ID_CHARS = 12
SECRET_CHARS = 43
CHECKSUM_CHARS = 6
SECRET_AT = len(PREFIX) + PUBLIC_ID_CHARS + 1
KEY_CHARS = SECRET_AT + SECRET_CHARS + CHECKSUM_CHARS
_LETTERS = frozenset(ALPHABET)


class MalformedKey(ValueError):
    """The text is not a Gatehouse key: wrong prefix, length, letters or checksum."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What is stored of a key: HMAC-SHA-256 in hex, and the fingerprint of the pepper it was made with."""

    value: str
    pepper: str


class Peppers:
    """The installation's peppers, newest first: the first makes digests, every one verifies those made with it."""

    def __init__(self, values: list[str]) -> None:
        if not values:
            raise ValueError("At least one pepper is needed.")
        self._by_fingerprint = {self.fingerprint(value): value.encode() for value in values}
        self._newest = self.fingerprint(values[0])

    @staticmethod
    def fingerprint(pepper: str) -> str:
        """Eight hex digits that say which pepper was used and nothing about it."""
        return hashlib.sha256(b"gatehouse pepper:" + pepper.encode()).hexdigest()[:8]

    def digest(self, key: str) -> Digest:
        return Digest(self._hmac(self._newest, key), self._newest)

    def all_digests(self, key: str) -> list[str]:
        """The digest under every pepper, newest first: for keys that can only be found by their digest."""
        return [self._hmac(fingerprint, key) for fingerprint in self._by_fingerprint]

    def verify(self, key: str, digest: Digest) -> bool:
        """True if `digest` is of `key`. Constant time. False when its pepper is no longer configured."""
        if digest.pepper not in self._by_fingerprint:
            return False
        return hmac.compare_digest(self._hmac(digest.pepper, key), digest.value)

    def _hmac(self, fingerprint: str, key: str) -> str:
        return hmac.digest(self._by_fingerprint[fingerprint], key.encode("utf-8", "surrogatepass"), "sha256").hex()


def make_public_id() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(PUBLIC_ID_CHARS))


def make_key(public_id: str) -> str:
    """A new key for `public_id`. The only moment at which the whole key exists here."""
    unsigned = f"{PREFIX}{public_id}-{''.join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARS))}"
    return unsigned + checksum(unsigned)


def checksum(unsigned: str) -> str:
    """CRC-32 of the text in base62, six digits, most significant first."""
    number = zlib.crc32(unsigned.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        number, rest = divmod(number, 62)
        digits = ALPHABET[rest] + digits
    return digits


def public_id(key: str) -> str:
    """The public id of a well-formed key. Raises MalformedKey; costs no look-up."""
    if len(key) != KEY_CHARS or not key.startswith(PREFIX) or key[SECRET_AT - 1] != "-":
        raise MalformedKey("not a Gatehouse key")
    identifier = key[len(PREFIX) : SECRET_AT - 1]
    if not (_LETTERS.issuperset(identifier) and _LETTERS.issuperset(key[SECRET_AT:])):
        raise MalformedKey("not a Gatehouse key")
    if checksum(key[:-CHECKSUM_CHARS]) != key[-CHECKSUM_CHARS:]:
        raise MalformedKey("the checksum does not fit: a typing mistake, or a key that was cut off")
    return identifier
