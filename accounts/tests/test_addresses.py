"""Who is behind the proxies, for pages of the admin. What holds for calls is in proxy/tests/test_asgi.py."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from accounts.addresses import client_ip

PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),
        (PROXY, "", PROXY),
        (PROXY, "192.0.2.1", "192.0.2.1"),
        (PROXY, "192.0.2.1, 203.0.113.9", "203.0.113.9"),
        (PROXY, "192.0.2.1, 10.0.0.2", "192.0.2.1"),
        (PROXY, "192.0.2.1:4711", "192.0.2.1"),
        (PROXY, "[2001:db8::1]:4711", "2001:db8::1"),
        (PROXY, "::ffff:192.0.2.1", "192.0.2.1"),
        (PROXY, "192.0.2.1, unknown", PROXY),
        (PROXY, "<script>", PROXY),
        ("", "192.0.2.1", ""),
        ("unix:", "192.0.2.1", ""),
    ],
)
def test_address_is_the_last_one_that_no_trusted_proxy_has(
    settings: Any, peer: str, forwarded: str, caller: str
) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
    request = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded)
    assert client_ip(request) == caller
