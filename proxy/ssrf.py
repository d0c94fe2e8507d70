"""Which addresses a provider may have. Keeps the gateway from being used to reach the machine and network it runs in.

Two guards share one judgement: `check_url` when a base URL is saved, and `is_public_address` on the very address that a
socket is about to be opened to. The second is what holds against a name that resolves to something else a minute later.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from accounts.public_addresses import Address as Address
from accounts.public_addresses import RefusedUrl as RefusedUrl
from accounts.public_addresses import UnknownHost as UnknownHost
from accounts.public_addresses import is_public_address as is_public_address
from accounts.public_addresses import resolve as resolve


class PrivateAddress(RefusedUrl):
    """The host is in this machine or its network."""


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
