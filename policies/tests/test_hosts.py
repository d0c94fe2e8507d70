from __future__ import annotations

import pytest

from policies.hosts import Hosts, domain_name, host_name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("ex%61mple%2Ecom", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--bcher-kva.example", "xn--bcher-kva.example"),
        ("b%C3%BCcher.example", "xn--bcher-kva.example"),
        ("ｅｘａｍｐｌｅ．ｃｏｍ", "example.com"),
        ("example。com", "example.com"),
        ("example｡com", "example.com"),
        ("exa\u00admp\u200ble.com", "example.com"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("example.com这里", "example.com"),
        ("{secret}.example.com", "{secret}.example.com"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0:0::1]", "::1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
    ],
)
def test_host_has_one_name_however_it_is_written(written: str, name: str) -> None:
    assert host_name(written) == name


@pytest.mark.parametrize(
    "written",
    [
        "",
        ".",
        "..",
        "a..b",
        "{host}",
        "$HOST",
        "%s",
        "example.{tld}",
        "a b",
        "1.2.3.4.5",
        "256.256.256.256",
        "[x]",
        "08.1",
        "[]",
    ],
)
def test_what_leads_nowhere_has_no_name(written: str) -> None:
    assert host_name(written) is None


def test_domain_holds_all_below_it_and_nothing_beside_it() -> None:
    hosts = Hosts(["example.com", "10.0.0.1"])
    assert "example.com" in hosts
    assert "a.b.example.com" in hosts
    assert "10.0.0.1" in hosts
    for other in ("notexample.com", "com", "example.com.org", "0.0.1", "", "10.0.0.1.example"):
        assert other not in hosts
    assert not Hosts([])


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("Example.COM", "example.com"),
        (" *.example.com ", "example.com"),
        (".example.com", "example.com"),
        ("https://example.com/", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("zip", "zip"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
    ],
)
def test_administrator_may_write_a_domain_in_several_ways(entry: str, name: str) -> None:
    assert domain_name(entry) == name


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "https://example.com/path",
        "example.com:8080",
        "me@example.com",
        "two words",
        "a..b",
        "-x.com",
        "x" * 64 + ".com",
        "*",
        "x." * 130 + "com",
    ],
)
def test_what_is_no_domain_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"domain"):
        domain_name(entry)
