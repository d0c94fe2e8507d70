"""Which addresses a provider may have. Keeps the gateway from being used to reach the machine and network it runs in.

Two guards share one judgement: `check_url` when a base URL is saved, and `is_public_address` on the very address that a
socket is about to be opened to. The second is what holds against a name that resolves to something else a minute later.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

RESOLVE_TIMEOUT_S = 5.0

# https://www.iana.org/assignments/iana-ipv4-special-registry, multicast, and what is reserved.
_PRIVATE_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's machine services: a public number, answered by the host itself
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
# Of IPv6 only global unicast is public, without the parts of it that are set aside.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_PRIVATE_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
# An IPv4 address can hide in these: (network, how far its lowest bit is from the right).
_EMBEDDED_V4 = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)


class RefusedUrl(ValueError):
    """The URL may not be used. The message says why, for whoever typed it."""


class PrivateAddress(RefusedUrl):
    """The host is in this machine or its network."""


class UnknownHost(RefusedUrl):
    """The host's name cannot be resolved, so nothing can be said about its address."""


def is_public_address(ip: str | Address) -> bool:
    """True for an address out on the internet. False for every special one, and for what is no address at all."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _PRIVATE_V4)
    if address.scope_id:
        return False
    for network, shift in _EMBEDDED_V4:
        if address in network:
            return is_public_address(ipaddress.IPv4Address((int(address) >> shift) & 0xFFFFFFFF))
    return address in _GLOBAL_V6 and not any(address in network for network in _PRIVATE_V6)


def check_url(url: str, allow_private: bool) -> None:
    """Raises RefusedUrl when `url` is not a plain http(s) URL, or leads into a private network that is not allowed.

    Looks the host up, as a socket would: `0`, `2130706433`, `0x7f.1` and a name that points at 127.0.0.1 are all the
    same address.
    """
    host, port = split_url(url)
    if allow_private:
        return
    refused = [str(address) for address in resolve(host, port) if not is_public_address(address)]
    if refused:
        raise PrivateAddress(f"{host} is {refused[0]}, an address of this machine or of a private network.")


def split_url(url: str) -> tuple[str, int]:
    """Host and port of a base URL. Raises RefusedUrl when it is anything but scheme, host, port and path."""
    if any(character <= " " or character > "~" or character == "\\" for character in url):
        raise RefusedUrl("The URL has spaces or unusual characters. Write an international host name as xn--...")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RefusedUrl("This is not a URL: look at the host and the port.") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise RefusedUrl("The URL must begin with http:// or https:// and a host.")
    if "@" in parts.netloc:
        raise RefusedUrl("The URL must not hold a user name or password: put the key in its own field.")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise RefusedUrl("The URL must end with its path: no question mark, no #.")
    return host, port or (443 if parts.scheme == "https" else 80)


def resolve(host: str, port: int, timeout_s: float = RESOLVE_TIMEOUT_S) -> list[Address]:
    """Every address that the system finds for `host`, in its order of preference. Raises UnknownHost.

    In a thread of its own, because the system's resolver knows no time limit that we could set.
    """
    found: list[Address] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers))

    thread = threading.Thread(target=look_up, name="resolve provider", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise UnknownHost(f"The name {host} cannot be resolved.")
    return list(found)
