"""Where a key may be used from."""

from __future__ import annotations

import pytest

from accounts.networks import MAX_NETWORKS, BadNetwork, allowed_networks, clean_networks


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("  192.0.2.77/24 ", "192.0.2.0/24"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::/0", "::/0"),
    ],
)
def test_network_is_stored_as_it_is_usually_written(given: str, stored: str) -> None:
    assert clean_networks([given]) == [stored]


@pytest.mark.parametrize("given", ["", "example.org", "192.0.2.0/33", "192.0.2", "010.0.0.1", "10.0.0.1-10.0.0.9", "*"])
def test_what_is_no_network_is_refused_in_words(given: str) -> None:
    with pytest.raises(BadNetwork, match=r"neither an address nor a network such as 192\.0\.2\.0/24"):
        clean_networks([given])


def test_networks_are_kept_once_and_in_order() -> None:
    assert clean_networks(["192.0.2.9/24", "10.0.0.1", "192.0.2.0/24"]) == ["192.0.2.0/24", "10.0.0.1"]


def test_no_network_means_from_anywhere() -> None:
    assert clean_networks([]) is None


def test_too_many_networks_are_refused() -> None:
    addresses = [f"10.0.{number // 256}.{number % 256}" for number in range(MAX_NETWORKS + 1)]
    assert len(clean_networks(addresses[:-1]) or ()) == MAX_NETWORKS
    with pytest.raises(BadNetwork, match="At most"):
        clean_networks(addresses)


def test_without_a_list_everybody_is_admitted() -> None:
    assert allowed_networks(None, None) is None


@pytest.mark.parametrize(
    ("client_ip", "admitted"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("192.0.3.7", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("localhost", False),
        ("192.0.2.7, 10.0.0.1", False),
    ],
)
def test_address_is_admitted_when_a_network_holds_it(client_ip: str, admitted: bool) -> None:
    networks = allowed_networks(["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32"])
    assert networks is not None
    assert networks.admit(client_ip) is admitted


def test_address_must_be_in_every_list() -> None:
    networks = allowed_networks(["10.0.0.0/8"], ["10.1.0.0/16", "192.0.2.1"])
    assert networks is not None
    assert [networks.admit(ip) for ip in ("10.1.2.3", "10.2.0.1", "192.0.2.1")] == [True, False, False]


@pytest.mark.parametrize("stored", [[], "10.0.0.0/8", {"10.0.0.0/8": 1}, [None], ["nonsense"]], ids=repr)
def test_list_that_makes_no_sense_admits_nobody(stored: object) -> None:
    networks = allowed_networks(stored)
    assert networks is not None
    assert not networks.admit("10.0.0.1")


def test_keys_of_one_team_share_the_compiled_list() -> None:
    assert allowed_networks(["10.0.0.0/8"], None) is allowed_networks(["10.0.0.0/8"])
