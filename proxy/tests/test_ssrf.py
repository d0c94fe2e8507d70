"""Provider addresses: out on the internet, yes; this machine and its network, only where a superuser allows it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from proxy.ssrf import PrivateAddress, RefusedUrl, UnknownHost, check_url, split_url


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "[::1]"],
)
def test_url_of_this_machine_is_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(PrivateAddress, match="of this machine or of a private network"):
        check_url(f"http://{host}:8080/v1", allow_private=False)


@pytest.mark.parametrize("host", ["[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]"])
def test_url_with_an_embedded_private_address_is_refused(host: str) -> None:
    with pytest.raises(PrivateAddress):
        check_url(f"https://{host}/v1", allow_private=False)


def test_private_url_is_accepted_where_it_is_allowed() -> None:
    check_url("http://127.0.0.1:11434/v1", allow_private=True)


def test_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to(monkeypatch, "8.8.8.8", "10.0.0.7")
    with pytest.raises(PrivateAddress, match=r"llm\.example is 10\.0\.0\.7"):
        check_url("https://llm.example/v1", allow_private=False)


def test_name_with_public_addresses_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to(monkeypatch, "8.8.8.8", "2606:4700:4700::1111")
    check_url("https://llm.example/v1", allow_private=False)


def test_name_that_nobody_knows_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    with pytest.raises(UnknownHost, match=r"llm\.example cannot be resolved"):
        check_url("https://llm.example/v1", allow_private=False)


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("ftp://example.org/v1", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("example.org/v1", "must begin with http"),
        ("https:///v1", "must begin with http"),
        ("https://example.org:0/v1", "must begin with http"),
        ("https://example.org:99999/v1", "not a URL"),
        ("https://[::1/v1", "not a URL"),
        ("https://user:secret@example.org/v1", "user name or password"),
        ("https://example.org/v1?key=secret", "no question mark"),
        ("https://example.org/v1#", "no question mark"),
        ("https://exam ple.org/v1", "spaces or unusual"),
        ("https://example.org\\@127.0.0.1/v1", "spaces or unusual"),
        ("https://１２７.０.０.１/v1", "spaces or unusual"),
        ("https://example.org/v1\n", "spaces or unusual"),
    ],
)
def test_url_that_is_more_or_less_than_scheme_host_port_and_path_is_refused(url: str, because: str) -> None:
    with pytest.raises(RefusedUrl, match=because) as error:
        check_url(url, allow_private=True)
    assert "secret" not in str(error.value)


def test_port_comes_from_the_scheme_when_none_is_given() -> None:
    assert split_url("https://example.org/v1") == ("example.org", 443)
    assert split_url("http://example.org:8080") == ("example.org", 8080)


def _resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: answers)


def _unknown(*_args: Any, **_kwargs: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
