from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checks.links import BLOCKED, MAX_URL_CHARS, NOT_ALLOWED, LinksCheck
from policies.fold import Folded
from policies.tests.stream_law import check_stream_law
from policies.tests.tools import (
    check_blocks,
    check_finds,
    check_holds,
    check_keeps_flowing,
    check_passes,
    check_redacts,
    made,
)

BLOCKING = made(LinksCheck, block_domains=["evil.com", "bücher.example", "10.0.0.1"])
ALLOWING = made(LinksCheck, allow_domains=["good.com", "docs.example.org"])


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.com",
        "http://evil.com/",
        "HTTPS://EVIL.COM/Path",
        "https://a.b.evil.com/x?y=1#z",
        "https://evil.com:8443/x",
        "https://evil.com./x",
        "ftp://evil.com/file",
        "wss://evil.com/socket",
        "https://user:password@evil.com/",
        "https://good.com@evil.com/",
        "https://good.com:443@evil.com/",
        "https://good.com%2F@evil.com/",
        "https://good.com;good.com@evil.com",
        "https:/evil.com/",
        "https:evil.com/",
        "https:\\\\evil.com/",
        "https:///evil.com",
        "https://evil%2Ecom/",
        "https://ev%69l.com/",
        "https://evil。com/",
        "https://ｅｖｉｌ．ｃｏｍ/",
        "https://ev\u00adil.com/",
        "https://bücher.example/",
        "https://BÜCHER.example/",
        "https://xn--bcher-kva.example/",
        "https://10.0.0.1/",
        "https://167772161/",
        "https://0xA.1/",
        "https://[::ffff:10.0.0.1]/",
        "www.evil.com",
        "WWW.evil.com/x",
        "evil.com",
        "Evil.com/path?q=1",
        "sub.evil.com:8080/x",
        "bücher.example/regal",
        "xn--bcher-kva.example",
    ],
)
def test_link_to_a_blocked_domain_is_found_however_it_is_written(link: str) -> None:
    for text in (link, f"See {link} now", f"({link})", f"「{link}」", f"**{link}**", f"{link}, {link}."):
        check_finds(BLOCKING, text, *[(link, BLOCKED)] * text.count(link))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[text](https://evil.com/a_(b)) and", "[text](****) and"),
        ("![x](//evil.com/p.png?d=secret)", "![x](****)"),
        ("![x](/\\evil.com/p.png)", "![x](****)"),
        ("[x]: https://evil.com/a 'title'", "[x]: **** 'title'"),
        ("<https://evil.com/a>", "<****>"),
        ('<img src="//evil.com/a">', '<img src="****">'),
        ("<a href=//evil.com>x</a>", "<a href=****>x</a>"),
        ('{"url": "https://evil.com/a"}', '{"url": "****"}'),
        ("`https://evil.com/a`", "`****`"),
        ("https://good.com/?to=https://evil.com/a", "https://good.com/?to=****"),
        ("访问https://evil.com/路径。然后", "访问****。然后"),
        ("访问https://evil.com。然后继续", "访问****。然后继续"),
        ("访问https://evil.com然后继续", "访问****然后继续"),
        ("访问evil.com然后继续", "访问****然后继续"),
        ("_evil.com_ and ~https://evil.com/~", "_****_ and ~****~"),
        ("İİ https://evil.com/a İ www.evil.com", "İİ **** İ ****"),
        ("[x](\\\\evil.com)", "[x](****)"),
        ("Is it evil.com? It is evil.com!", "Is it ****? It is ****!"),
        ("https://evil.com/{id}/x} end", "****} end"),
    ],
)
def test_link_is_found_from_its_beginning_to_its_end(text: str, left: str) -> None:
    check_redacts(BLOCKING, text, left)


@pytest.mark.parametrize(
    "text",
    [
        "https://notevil.com",
        "https://evil.com.au/",
        "https://evil.company/",
        "https://good.com/evil.com",
        "https://good.com/@evil.com",
        "https://good.com#@evil.com",
        "https://good.com\\@evil.com",
        "https://evil.com@good.com",
        "https://evil-com.org",
        "someone@evil.com",
        "evil. com",
        "devil.com, evil.comma, evil.com.au",
        "evil dot com",
        "x." * 130 + "evil.com",
        "https://110.0.0.1/",
        "https://",
    ],
)
def test_other_addresses_are_left_alone(text: str) -> None:
    check_passes(BLOCKING, text)


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.com/x",
        "https://good.com.evil.com/",
        "https://good.com@evil.com/",
        "https://notgood.com",
        "https://example.org/",
        "https://1.1.1.1/",
        "https://[::1]/",
        "http://localhost:8000/",
        "https://{secret}.evil.com/",
        "www.evil.com",
        "https:evil.com/x",
    ],
)
def test_where_domains_are_allowed_links_to_all_others_are_found(link: str) -> None:
    check_finds(ALLOWING, f"See {link} now", (link, NOT_ALLOWED))
    check_blocks(ALLOWING, link)


@pytest.mark.parametrize(
    "text",
    [
        "https://good.com/x, https://www.GOOD.com./, https://docs.example.org:8443/y?z",
        "www.good.com and https://docs.example.org。这里",
        # words with dots in them are no links unless they are blocked
        "Read file.py, call self.store.get(key), then e.g. evil.com or version 1.2.3 of Node.js.",
        'xpath("//div[@id]"), a // b, "\\\\server\\share", url = f"https://{host}/v1"',
        "see https://... or http:// or https://%s",
        "time: 10:30, https:443, http: see below, www. and www.x, std::vector, std://x y",
        "https://${HOST}/x https://<host>/x https://example.{tld}/",
    ],
)
def test_allowed_links_and_what_is_no_link_are_left_alone(text: str) -> None:
    check_passes(ALLOWING, text)


def test_blocked_domain_below_an_allowed_one_is_found() -> None:
    check = made(LinksCheck, block_domains=["files.good.com"], allow_domains=["good.com"])
    check_finds(
        check,
        "https://good.com https://x.files.good.com https://bad.org",
        ("https://x.files.good.com", BLOCKED),
        ("https://bad.org", NOT_ALLOWED),
    )


def test_blocked_top_level_domain_counts_in_links_and_not_in_names_of_files() -> None:
    check = made(LinksCheck, block_domains=["zip"])
    check_finds(check, "Open report.zip from https://report.zip/x", "https://report.zip/x")


def test_endless_address_counts_up_to_a_limit() -> None:
    link = "https://evil.com/" + "a" * 3000
    check_redacts(BLOCKING, f"x {link} y", "x ****" + "a" * (len(link) - MAX_URL_CHARS) + " y")


# --- settings --------------------------------------------------------------------------------------------------------


def refusals(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as refused:
        made(LinksCheck, **fields)
    return refused.value.message_dict


def test_rule_without_domains_is_refused() -> None:
    assert refusals() == {"block_domains": ["Name domains to block, or domains to allow."]}


@pytest.mark.parametrize("field", ["block_domains", "allow_domains"])
def test_every_wrong_domain_is_named(field: str) -> None:
    [first, second] = refusals(**{field: ["fine.com", "evil.com/path", "a b"]})[field]
    assert first.startswith("evil.com/path: ")
    assert second.startswith("a b: ")
    assert field in refusals(**{field: [f"d{number}.com" for number in range(10_001)]})


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "go [x](https://a@evil.com/a_(b)), evil.com: www.evil.com",
        '"//evil.com/x" http:evil.com。a evil.com:80/p',
    ],
)
def test_everything_holds_for_blocked_domains_in_every_field_and_split(text: str) -> None:
    check_holds(BLOCKING, text)


def test_everything_holds_for_allowed_domains_in_every_field_and_split() -> None:
    check_holds(ALLOWING, "[x](https://good.com/a) ![y](//x.evil.com/?q=1) https://{h}/")


@pytest.mark.parametrize(
    "text",
    [
        "a https:44.evil.com b",
        "a ftp://evil.com b",
        "[x](\\/evil.com/a) b",
        "x='//evil.com'",
        "a wss:/evil.com b",
        "a https:44 b",
    ],
)
@pytest.mark.parametrize("check", [BLOCKING, ALLOWING])
def test_link_is_found_wherever_the_stream_is_cut(check: LinksCheck, text: str) -> None:
    found = [
        check_stream_law(check, text, [cut, cut + step], 6, (lag,))
        for cut in range(len(text))
        for step in (1, 4)
        for lag in (0, 1, 9)
    ]
    assert all(len(spans) == ("evil" in text) for spans in found)


def test_text_keeps_flowing() -> None:
    text = "How the weather was, why wires hum and what https://good.com/a/very/long/path?of=it does."
    check_keeps_flowing(ALLOWING, text, at_most=len("https://good.com"))
    check_keeps_flowing(BLOCKING, text, at_most=len("https://good.com"))


PIECES = st.sampled_from(
    [
        *"abe./:@()[]{}\"'=-\\_,% \n?#",
        *"。．é这",
        "https://",
        "http:",
        "https:/",
        "www.",
        "evil.com",
        "good.com",
        "xn--bcher-kva.example",
        "10.0.0.1",
        "](",
        "=//",
        "a" * 60,
        "x." * 60,
    ]
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(PIECES, max_size=16).map("".join),
    st.lists(st.integers(0, 300), max_size=10),
    st.sampled_from([(0,), (1,), (5, 0, 70)]),
    st.sampled_from([BLOCKING, ALLOWING, made(LinksCheck, block_domains=["evil.com"], allow_domains=["com"])]),
)
def test_law_of_streams(text: str, cuts: list[int], lags: tuple[int, ...], check: LinksCheck) -> None:
    check_stream_law(check, text, cuts, check.left_context, lags)


@pytest.mark.parametrize("check", [BLOCKING, ALLOWING])
@pytest.mark.parametrize("filling", ["a", "(", "a.", "é"])
def test_law_of_streams_where_addresses_end_at_their_limits(check: LinksCheck, filling: str) -> None:
    path, user = filling * (2200 // len(filling)), filling * (1000 // len(filling))
    text = f"x https://evil.com/{path}) https://{user}@evil.com/ www."
    check_stream_law(check, text, range(0, len(text), 7), check.left_context, (0, 3))


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "@" * 200_000,
        "http" * 50_000,
        "http:" * 15_000,
        "http://" * 10_000,
        "https://a@" * 8_000,
        "https://evil.com/" * 5_000,
        "www." * 50_000,
        "evil.com." * 22_000,
        "a.com" * 40_000,
        "((((" * 50_000,
        "://" * 60_000,
        "=//" * 30_000,
        "https://" + "(" * 190_000,
        ":" * 200_000,
        "https://" + "é" * 190_000,
    ],
    ids=lambda text: text[:18],
)
def test_time_grows_with_the_text_whatever_it_says(text: str) -> None:
    for check in (BLOCKING, ALLOWING):
        begun = time.process_time()
        check.scan(Folded(text), 0, True)
        assert time.process_time() - begun < 3
