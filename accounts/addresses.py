"""Who is behind the proxies: the address of a caller, of /v1 and of the admin alike."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest

# A longer x-forwarded-for is worked out again for each call: who sends one could fill the memory with them.
MAX_REMEMBERED_CHARS = 200
FORWARDED_HOST = re.compile(r"([0-9.]+):\d+|\[([0-9A-Fa-f:.]+)\](?::\d+)?")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """`networks`: of the proxies whose x-forwarded-for is believed (TRUSTED_PROXIES). Raises ValueError."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in networks]
        self._is_trusted = lru_cache(maxsize=1024)(self._find_trusted)
        self._remembered = lru_cache(maxsize=4096)(self._find_caller)

    def caller(self, peer: str, forwarded_for: str) -> str:
        """The last address in x-forwarded-for that no trusted proxy has. `peer`: the other end of the connection;
        "" if that is not known, and then nobody is."""
        find = self._remembered if len(forwarded_for) <= MAX_REMEMBERED_CHARS else self._find_caller
        return find(peer, forwarded_for)

    def _find_caller(self, peer: str, forwarded_for: str) -> str:
        address = read_address(peer)
        if address is None:
            return ""
        if not self._trusted or not self._is_trusted(address):
            return str(address)
        for hop in reversed(forwarded_for.split(",")):
            earlier = read_address(hop.strip())
            if earlier is None:
                break
            address = earlier
            if not self._is_trusted(address):
                break
        return str(address)

    def _find_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(maxsize=4096)
def read_address(text: str) -> Address | None:
    """An IP address as a socket or a proxy writes it: with a port, or IPv4 in the clothes of IPv6, perhaps."""
    host = FORWARDED_HOST.fullmatch(text)
    try:
        address = ipaddress.ip_address(host[1] or host[2] if host else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_ip(request: HttpRequest) -> str:
    """Of who looks at a page; "" if it is not known."""
    proxies = _proxies(tuple(settings.TRUSTED_PROXIES))
    return proxies.caller(request.META.get("REMOTE_ADDR") or "", request.META.get("HTTP_X_FORWARDED_FOR", ""))


@lru_cache(maxsize=4)
def _proxies(networks: tuple[str, ...]) -> TrustedProxies:
    return TrustedProxies(networks)
