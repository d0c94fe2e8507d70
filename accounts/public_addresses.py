"""Which addresses are out on the internet, and which ones a name leads to. For whoever opens sockets to places that
somebody typed in: a guard against reaching the machine and the network that the gateway runs in.
"""

from __future__ import annotations

import ipaddress
import socket
import threading

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

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise UnknownHost(f"The name {host} cannot be resolved.")
    return list(found)
