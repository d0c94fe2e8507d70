"""What IdPs publish: discovery documents, signing keys, SAML metadata. Fetched, kept for an hour, and used on for a
week when the IdP's page is away."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from django.core.cache import cache

WELL_KNOWN = "/.well-known/openid-configuration"
FRESH_S = 3600
KEPT_S = 7 * 24 * 3600
REFETCH_S = 30  # signing keys are asked for again at an unknown key, but not for every forged token
TIMEOUT_S = 10
MAX_BYTES = 20 * 1024 * 1024  # the metadata of a federation names thousands
REQUIRED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")


class Unusable(Exception):
    """Could not be fetched, or is not what it should be. The message is for the administrator."""


def fetch(url: str, headers: dict[str, str] | None = None) -> bytes:
    """Raises Unusable."""
    check_url(url)
    try:
        with requests.get(url, headers=headers, timeout=TIMEOUT_S, stream=True, allow_redirects=False) as reply:
            if reply.status_code != 200:
                raise Unusable(f"{url} answered with status {reply.status_code}.")
            body = reply.raw.read(MAX_BYTES + 1, decode_content=True)
    except (requests.RequestException, OSError) as error:
        raise Unusable(f"{url} could not be fetched: {type(error).__name__}.") from error
    if len(body) > MAX_BYTES:
        raise Unusable(f"{url} is too large.")
    return bytes(body)


def check_url(url: str) -> None:
    """What an IdP says is believed, so nobody on the way may change it. Raises Unusable."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname and _is_this_machine(parts.hostname):
        return
    raise Unusable(f"{url} must begin with https://.")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def kept(url: str, *, fresh: bool = False) -> bytes:
    """As `fetch`, but from the cache where that is young enough, or where the page is away."""
    name = _cache_name("document", url)
    found: tuple[float, bytes] | None = cache.get(name)
    if found is not None and not fresh and time.time() - found[0] < FRESH_S:
        return found[1]
    try:
        body = fetch(url)
    except Unusable:
        if found is None or fresh:
            raise
        return found[1]
    cache.set(name, (time.time(), body), KEPT_S)
    return body


def _cache_name(what: str, url: str) -> str:
    return f"sso-{what}-{hashlib.sha256(url.encode()).hexdigest()}"


def as_json(body: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Unusable(f"{url} is no JSON.") from error
    if not isinstance(found, dict):
        raise Unusable(f"{url} is no JSON object.")
    return found


def discovery_address(url: str) -> str:
    return url if "/.well-known/" in url else url.rstrip("/") + WELL_KNOWN


def discovery(url: str, *, fresh: bool = False) -> dict[str, Any]:
    """The discovery document at an issuer's address. Raises Unusable."""
    address = discovery_address(url)
    found = as_json(kept(address, fresh=fresh), address)
    missing = [name for name in REQUIRED if not isinstance(found.get(name), str)]
    if missing:
        raise Unusable(f"{address} lacks {', '.join(missing)}.")
    for name in (*REQUIRED[1:], "userinfo_endpoint"):
        if found.get(name):
            check_url(found[name])
    # Else a page of one issuer could speak for another.
    if address.endswith(WELL_KNOWN) and found["issuer"].rstrip("/") + WELL_KNOWN != address:
        raise Unusable(
            f"{address} speaks for the issuer {found['issuer']}: enter that address "
            "(with Entra ID: the one with the id of your directory in it)."
        )
    return found


def signing_keys(url: str, *, fresh: bool = False) -> list[dict[str, Any]]:
    """Raises Unusable."""
    if fresh and not cache.add(_cache_name("refetched", url), True, REFETCH_S):
        fresh = False
    keys = as_json(kept(url, fresh=fresh), url).get("keys")
    if not isinstance(keys, list):
        raise Unusable(f"{url} holds no keys.")
    return [key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"]
