"""Where API keys may be used from: lists of networks, as people write them and as calls are judged by them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from accounts.addresses import read_address

MAX_NETWORKS = 1000
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class BadNetwork(ValueError):
    """What is written is no network; the message says what one looks like."""


def read_network(text: str) -> Network:
    """An address, or a network in CIDR notation; bits after the prefix are cut off. Raises BadNetwork."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise BadNetwork(
            f"“{text.strip()[:50]}” is neither an address nor a network such as 192.0.2.0/24 or 2001:db8::/32."
        ) from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - 96))


def written(network: Network) -> str:
    """The usual way to write it: a single address without its prefix."""
    return str(network.network_address if network.num_addresses == 1 else network)


def clean_networks(texts: Iterable[str]) -> list[str] | None:
    """As the models store them: each network once, written in the usual way. None when there is none: from anywhere.
    Raises BadNetwork."""
    found = list(dict.fromkeys(written(read_network(text)) for text in texts))
    if len(found) > MAX_NETWORKS:
        raise BadNetwork(f"At most {MAX_NETWORKS} networks: join neighbours into larger ones.")
    return found or None


class AllowedNetworks:
    """Several lists of networks; an address must be in each list."""

    def __init__(self, lists: Iterable[Iterable[Network]]) -> None:
        self._lists = [_joined(networks) for networks in lists]
        self.admit = lru_cache(maxsize=256)(self._admit)

    def _admit(self, client_ip: str) -> bool:
        """False too for what is no address: whoever cannot be placed is not let in."""
        address = read_address(client_ip)
        return address is not None and all(any(address in network for network in listed) for listed in self._lists)


def allowed_networks(*stored: Any) -> AllowedNetworks | None:
    """Of lists as the models store them (JSON as it came). None: they allow everybody."""
    lists = tuple(_texts(one) for one in stored if one is not None)
    return _compiled(lists) if lists else None


@lru_cache(maxsize=1024)
def _compiled(lists: tuple[tuple[str, ...], ...]) -> AllowedNetworks:
    """Shared by all keys with the same lists, and kept when the keys are read again."""
    return AllowedNetworks([network for text in texts if (network := _stored(text))] for texts in lists)


def _texts(stored: Any) -> tuple[str, ...]:
    """Anything but a list of texts allows nothing: nobody can have meant `anywhere`."""
    return tuple(text for text in stored if isinstance(text, str)) if isinstance(stored, list) else ()


def _stored(text: str) -> Network | None:
    try:
        return read_network(text)
    except BadNetwork:
        return None


def _joined(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The same addresses in as few networks as will do."""
    listed = list(networks)
    of_v4 = [network for network in listed if isinstance(network, ipaddress.IPv4Network)]
    of_v6 = [network for network in listed if isinstance(network, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(of_v4), *ipaddress.collapse_addresses(of_v6))
