"""Names of hosts as browsers read them, so that one host is one name however it is written."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

MAX_NAME_CHARS = 253  # RFC 1035
# What browsers leave out of a name (UTS 46).
_IGNORED = re.compile("[\u00ad\u034f\u180b-\u180d\u200b-\u200d\u2060\u2064\ufe00-\ufe0f\ufeff]")
_TOP_LEVEL = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


def host_name(written: str) -> str | None:
    """The host in a URL as one name: lower case, percent signs and width undone, labels in Punycode, no dot at the end;
    addresses in their usual form. None: that is the name of no host."""
    if written.startswith("["):
        return _ipv6(written)
    name = unquote(written) if "%" in written else written
    if not name.isascii():
        name = unicodedata.normalize("NFKC", _IGNORED.sub("", name.lower())).lower().replace("\u3002", ".")
    labels = name.lower().removesuffix(".").split(".")
    if not all(labels):
        return None
    labels[-1] = _without_what_follows(labels[-1])
    labels = [label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels]
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    return ".".join(labels) if _TOP_LEVEL.fullmatch(labels[-1]) else None


def _without_what_follows(label: str) -> str:
    """No top-level domain begins in ASCII and goes on otherwise: in "evil.com这里" a sentence goes on."""
    if label.isascii() or not label[0].isascii():
        return label
    return label[: next(place for place, character in enumerate(label) if not character.isascii())]


def _ipv6(written: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(written.strip("[]"))
    except ValueError:
        return None
    return str(address.ipv4_mapped or address)


def _ipv4(labels: list[str]) -> str | None:
    """As the URL standard reads numbers: also octal and hexadecimal ones, and fewer than four."""
    try:
        numbers = [_number(label) for label in labels]
    except ValueError:
        return None
    last = numbers.pop()
    if len(numbers) > 3 or any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        return None
    value = last + sum(number << 8 * (3 - place) for place, number in enumerate(numbers))
    return str(ipaddress.IPv4Address(value))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if len(label) > 1 and label.startswith("0") else 10)


class Hosts:
    """Domains, each with all that is below it. `names` from `domain_name`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def __contains__(self, host: str) -> bool:
        while host not in self._names:
            _, dot, host = host.partition(".")
            if not dot:
                return False
        return True

    def __bool__(self) -> bool:
        return bool(self._names)


def domain_name(entry: str) -> str:
    """A domain as an administrator writes it: example.com, *.example.com, https://example.com/, 10.0.0.1, zip.

    Raises ValueError, with a message for whoever wrote it.
    """
    written = re.sub(r"^(?:[a-zA-Z]+://)?(?:\*?\.)?", "", entry.strip()).removesuffix("/")
    name = host_name(written)
    if name is None or (not written.startswith("[") and re.search(r"[/?#@:\s]", written)):
        raise ValueError("write a domain such as example.com, without a path or a port")
    if len(name) > MAX_NAME_CHARS or (":" not in name and not all(map(_LABEL.fullmatch, name.split(".")))):
        raise ValueError("this is no domain")
    return name
