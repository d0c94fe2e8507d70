"""The format and the digest of API keys. Pure: no database, no settings.

    sk-gh-<public id>-<secret><checksum>
          12 base62   43      6 base62

The secret is 43 base62 characters (256 bits). The checksum is the CRC-32 of everything before it, in base62, as the
tokens of GitHub have it: a typo is refused without a look-up, and secret scanners tell a leaked key from a look-alike.
The public id may be logged and shown; the secret is never stored, only its keyed digest.

A key of a replaced system has any format. Of it only the digest of its SHA-256 is stored, by which it is found.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass

PREFIX = "sk-gh-"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PUBLIC_ID_CHARS = 12
SECRET_CHARS = 43
CHECKSUM_CHARS = 6
MAX_OLD_KEY_CHARS = 512
_WELL_FORMED = re.compile(f"{PREFIX}([0-9A-Za-z]{{{PUBLIC_ID_CHARS}}})-[0-9A-Za-z]{{{SECRET_CHARS + CHECKSUM_CHARS}}}")
# The checksum is made on every call: three look-ups of two digits cost a third of six divisions.
_TWO_DIGITS = [high + low for high in ALPHABET for low in ALPHABET]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = hashlib.sha256().block_size


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
        self._by_fingerprint = {self.fingerprint(value): _Pepper(value.encode()) for value in values}
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
        return self._by_fingerprint[fingerprint].hmac(key.encode("utf-8", "surrogatepass"))


class _Pepper:
    """HMAC-SHA-256 with the work that depends on the pepper alone (RFC 2104: ipad and opad) done once, not per call."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, value: bytes) -> None:
        block = (hashlib.sha256(value).digest() if len(value) > _BLOCK_BYTES else value).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hmac(self, message: bytes) -> str:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


def make_public_id() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(PUBLIC_ID_CHARS))


def make_key(public_id: str, prefix: str = PREFIX) -> str:
    """A new key for `public_id`. The only moment at which the whole key exists here."""
    unsigned = f"{prefix}{public_id}-{''.join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARS))}"
    return unsigned + checksum(unsigned)


def checksum(unsigned: str) -> str:
    """CRC-32 of the text in base62, six digits, most significant first."""
    rest, low = divmod(zlib.crc32(unsigned.encode()), 3844)
    high, middle = divmod(rest, 3844)
    return _TWO_DIGITS[high] + _TWO_DIGITS[middle] + _TWO_DIGITS[low]


def public_id(key: str) -> str:
    """The public id of a well-formed key. Raises MalformedKey; costs no look-up."""
    match = _WELL_FORMED.fullmatch(key)
    if match is None:
        raise MalformedKey("not a Gatehouse key")
    if checksum(key[:-CHECKSUM_CHARS]) != key[-CHECKSUM_CHARS:]:
        raise MalformedKey("the checksum does not fit: a typing mistake, or a key that was cut off")
    return match[1]


def old_key_sha256(key: str) -> str:
    """What is known of a key of a replaced system: its SHA-256 in lower-case hex, which that system can export.
    Raises MalformedKey for what no header could carry; any other format is possible."""
    if not 0 < len(key) <= MAX_OLD_KEY_CHARS or not key.isascii() or not key.isprintable() or key != key.strip():
        raise MalformedKey(f"not 1 to {MAX_OLD_KEY_CHARS} printable ASCII characters")
    return hashlib.sha256(key.encode()).hexdigest()


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None
