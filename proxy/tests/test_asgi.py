"""Which paths are the door's, how many spellings they have, and from where a call comes."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.asgi import Door, normalise
from proxy.call import Call


@pytest.mark.parametrize(
    ("path", "tidy"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("//v1//Chat/Completions/", "/v1/chat/completions"),
        ("/chat/completions", "/chat/completions"),
        ("/v1/models/OpenAI/GPT-4o", "/v1/models/OpenAI/GPT-4o"),
        ("/V1/Models/X/", "/v1/models/X"),
        ("/openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/org/model/embeddings", "/v1/embeddings"),
        ("/openai/v1/completions", "/v1/completions"),
        ("/openai/models", "/v1/models"),
        ("/openai/models/GPT-4o", "/v1/models/GPT-4o"),
        ("/models/GPT-4o", "/v1/models/GPT-4o"),
    ],
)
def test_one_spelling_of_a_path(path: str, tidy: str) -> None:
    assert normalise(path) == tidy


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/nonsense", "/v1", "//v1/x", "/embeddings", "/models/x", "/openai/x"]
)
def test_the_door_owns_the_data_plane(path: str) -> None:
    assert Door.owns(path)


@pytest.mark.parametrize("path", ["/", "/admin/", "/v1x", "/healthz", "/static/v1/x", "/openai-x", "/api/v1/keys"])
def test_everything_else_is_djangos(path: str) -> None:
    assert not Door.owns(path)


# --- who is behind the proxies ---------------------------------------------------------------------------------------

TRUSTED = ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]


async def client_ip(peer: str, *forwarded: bytes, trusted: list[str] = TRUSTED) -> str:
    """The address in the books of a call that came from `peer`."""

    async def receive() -> dict[str, Any]:
        raise AssertionError("nobody reads this call")

    async def send(message: dict[str, Any]) -> None: ...

    headers = [(b"x-forwarded-for", value) for value in forwarded]
    call = Call({"method": "GET", "path": "/", "headers": headers, "client": (peer, 1)}, receive, send)
    return Door([], trusted, lambda request_id: None)._client_ip(call)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.5"], "203.0.113.5"),
        ("192.0.2.7", [b"203.0.113.5"], "203.0.113.5"),
        ("2001:db8::7", [b"2a00:1450::1"], "2a00:1450::1"),
        ("10.0.0.1", [b"203.0.113.5, 10.9.9.9"], "203.0.113.5"),
        ("10.0.0.1", [b"203.0.113.5", b"10.9.9.9"], "203.0.113.5"),
        ("10.0.0.1", [b"10.8.8.8, 10.9.9.9"], "10.8.8.8"),
        ("::ffff:10.0.0.1", [b"203.0.113.5"], "203.0.113.5"),
        ("::ffff:203.0.113.5", [], "203.0.113.5"),
        ("10.0.0.1", [b"::ffff:203.0.113.5"], "203.0.113.5"),
    ],
)
async def test_caller_is_the_last_address_that_no_trusted_proxy_has(
    peer: str, forwarded: list[bytes], expected: str
) -> None:
    assert await client_ip(peer, *forwarded) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.5", [b"198.51.100.1"], "203.0.113.5"),
        ("10.0.0.1", [b"198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", [b"10.1.1.1, 203.0.113.5, 10.9.9.9"], "203.0.113.5"),
        ("10.0.0.1", [b"203.0.113.5, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [b"\xff\xfe"], "10.0.0.1"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("10.0.0.1", [b"x" * 5000], "10.0.0.1"),
    ],
)
async def test_caller_cannot_choose_its_address(peer: str, forwarded: list[bytes], expected: str) -> None:
    assert await client_ip(peer, *forwarded) == expected


async def test_forwarded_address_means_nothing_where_no_proxy_is_trusted() -> None:
    assert await client_ip("10.0.0.1", b"203.0.113.5", trusted=[]) == "10.0.0.1"


async def test_port_behind_a_forwarded_address_is_left_out() -> None:
    """Some proxies of clouds write it."""
    assert await client_ip("10.0.0.1", b"203.0.113.5:50123") == "203.0.113.5"
    assert await client_ip("10.0.0.1", b"[2a00:1450::1]:50123") == "2a00:1450::1"
