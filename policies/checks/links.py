"""Links: addresses in a text, by where they lead."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django import forms

from policies.checks import base
from policies.checks.base import Check, World, register
from policies.fields import LinesField
from policies.fold import Folded
from policies.hosts import MAX_NAME_CHARS, Hosts, domain_name, host_name
from policies.types import Scan, Span

BLOCKED, NOT_ALLOWED = "blocked domain", "domain not allowed"
MAX_URL_CHARS = 2000
MAX_DOMAINS = 10_000

SCHEMES = ("https", "http", "ftps", "ftp", "wss", "ws")
# How an address may begin, when a stream has come no further.
BEGINNINGS = frozenset(scheme[:end] for scheme in (*SCHEMES, "www") for end in range(1, len(scheme) + 1))
LONGEST_BEGINNING = max(map(len, BEGINNINGS))

# What no address holds: white space, quotes, and the punctuation of other scripts. Brackets only in pairs, so that the
# one that closes a Markdown link is left. These three are dots in a name of a host when a letter follows.
DOTS = "\u3002\uff0e\uff61"
_PUNCTUATION = r"\u00ab\u00bb\u2010-\u205e\u3000-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_STOPS = rf"\s\x00-\x1f\x7f<>\"'`|\\{_PUNCTUATION}"
_PLAIN = rf"[^{_STOPS}()\[\]{{}}]"
_PAIRS = rf"\({_PLAIN}*+\)|\[{_PLAIN}*+\]|\{{{_PLAIN}*+\}}"
_HOST_PLAIN = rf"[^{_STOPS}()\[\]{{}}/?#]"
AUTHORITY = re.compile(
    rf"(?:{_HOST_PLAIN}++|[{DOTS}](?=[A-Za-z0-9\uff10-\uff19\uff21-\uff3a\uff41-\uff5a])|\[[0-9A-Fa-f:.]*+\]|\{{[^{_STOPS}()\[\]{{}}/?#]*+\}})*+"
)
REST = re.compile(rf"(?:[/?#](?:{_PLAIN}++|{_PAIRS})*+)?")
INSIDE = re.compile(f"{_PLAIN}*+")
SLASHES = re.compile(r"[/\\]*")
BEFORE_PATH = ("/", "?", "#")
NUMBER = re.compile(r"\d+(?![\w.-])")
PORT = re.compile(r":\d*\Z")
# Of a sentence, or of Markdown, around the address.
TRAILING = ".,;:!?*_~"

BEFORE_WWW = re.compile(r"[\w@./\\-]")
BEFORE_RELATIVE = ("(", '"', "'", "=")
RELATIVE_BEGINS = re.compile(r"(?:[(\"'=]/|\]\(\\)\Z")

# A domain without a scheme. Scripts without spaces between words are left out: there nobody could say where it begins.
_NAME = r"0-9A-Za-z\-\u00b7\u00c0-\u0dff"
LAST_LABEL = re.compile(rf"\.([A-Za-z\u00c0-\u0dff][{_NAME}]*+)(?!\.[{_NAME}])")
NAME = re.compile(f"[.{_NAME}]")
NOT_BEFORE_NAME = ("/", "\\", "@", "http:", "https:")
BARE_REST = re.compile(rf"(?::\d{{1,5}})?(?:[/?#](?:{_PLAIN}++|{_PAIRS})*+)?")


class _Place(NamedTuple):
    """An address may begin at `start`, its host (or a user name before it) at `host`. The host has at least so many
    `dots`, and is at most so long."""

    start: int
    host: int
    dots: int = 0
    most_host_chars: int = MAX_URL_CHARS


class _Link(NamedTuple):
    """`label`: what is wrong with it, "" when nothing is. None, for either: a stream has not come so far."""

    start: int
    label: str | None
    end: int | None


class LinksForm(base.SettingsForm):
    block_domains = LinesField(
        label="Blocked domains",
        required=False,
        help_text="Links to these, and to all below them, are found. One per line, such as example.com.",
    )
    allow_domains = LinesField(
        label="Allowed domains",
        required=False,
        help_text="If any are given, links to all others are found as well. One per line, such as example.com.",
    )

    def clean_block_domains(self) -> list[str]:
        return self._domains("block_domains")

    def clean_allow_domains(self) -> list[str]:
        return self._domains("allow_domains")

    def _domains(self, field: str) -> list[str]:
        entries: list[str] = self.cleaned_data[field]
        if len(entries) > MAX_DOMAINS:
            raise forms.ValidationError(f"At most {MAX_DOMAINS} domains.")
        names, reasons = [], []
        for entry in entries:
            try:
                names.append(domain_name(entry))
            except ValueError as error:
                reasons.append(f"{entry[:MAX_NAME_CHARS]}: {error}.")
        if reasons:
            raise forms.ValidationError(reasons)
        return list(dict.fromkeys(names))

    def clean(self) -> dict[str, Any]:
        if not self.errors and not any(self.cleaned_data.values()):
            raise forms.ValidationError({"block_domains": "Name domains to block, or domains to allow."})
        return self.cleaned_data


@register
class LinksCheck(Check):
    """An address is found where it begins, on its own: one inside another's query is one more. What leads nowhere (a
    template such as https://{host}/) is no address."""

    name = "links"
    label = "Links"
    help = (
        "Finds links to domains that you block, or to all but those that you allow: written out, in Markdown or HTML, "
        "disguised with a user name, percent signs, other alphabets or numbers. Blocked domains are also found without "
        "https:// before them."
    )
    message = "Your text contains a link that your organisation does not allow here. Remove it."
    SettingsForm = LinksForm
    left_context = len("https:")

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._blocked = Hosts(settings["block_domains"])
        self._allowed = Hosts(settings["allow_domains"])
        self._last_labels = _last_labels(settings["block_domains"])

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        original = text.original
        safe_upto = len(original) if final else self._before_beginnings(original, start)
        spans: set[Span] = set()
        for link in self._links(original, start, final):
            if link.label is None or (link.label and link.end is None):
                safe_upto = min(safe_upto, link.start)
            elif link.label and link.end is not None:
                spans.add(Span(link.start, link.end, link.label))
        return Scan([span for span in spans if span.start < safe_upto], safe_upto)

    def _links(self, text: str, start: int, final: bool) -> Iterator[_Link]:
        for place in _places(text, start, final):
            yield self._link(text, place, final)
        if self._last_labels:
            yield from self._bare(text, start, final)

    def _link(self, text: str, place: _Place, final: bool) -> _Link:
        limit = place.start + MAX_URL_CHARS
        authority = AUTHORITY.match(text, place.host, min(limit, place.host + place.most_host_chars))
        assert authority is not None
        written, end = authority.group(), authority.end()
        if end == limit or text[end : end + 1] not in BEFORE_PATH:
            if _is_open(text, end, limit, final):
                return _Link(place.start, None, None)
            written = written[: _sentence(written)].rstrip(TRAILING)
            end = place.host + len(written)
        label = self._judge(host_name(PORT.sub("", written.rpartition("@")[2])), place.dots)
        if label and end == authority.end():
            rest = REST.match(text, end, limit)
            assert rest is not None
            if _is_open(text, rest.end(), limit, final):
                return _Link(place.start, label, None)
            end = _trimmed(text, place.host, rest.end())
        return _Link(place.start, label, end)

    def _bare(self, text: str, start: int, final: bool) -> Iterator[_Link]:
        """Domains as they stand, if they end like one that is blocked."""
        for found in LAST_LABEL.finditer(text, start):
            label = found[1].rstrip("-")
            if label.lower() not in self._last_labels:
                continue
            end = found.start(1) + len(label)
            first = _first_of_name(text, end)
            if first is None or first < start:
                continue
            if (host_name(text[first:end].lstrip(".-")) or "") not in self._blocked:
                continue
            limit = first + MAX_URL_CHARS
            rest = BARE_REST.match(text, end, limit)
            assert rest is not None
            stop = rest.end()
            is_open = _is_open(text, stop, limit, final) or (text[stop:] == ":" and not final)
            yield _Link(first, BLOCKED, None if is_open else _trimmed(text, end, stop))

    def _judge(self, host: str | None, dots: int) -> str:
        if host is None or host.count(".") < dots:
            return ""
        if host in self._blocked:
            return BLOCKED
        return NOT_ALLOWED if self._allowed and host not in self._allowed else ""

    def _before_beginnings(self, text: str, start: int) -> int:
        """Before what may become an address when the text goes on."""
        size = len(text)
        places = [size - length for length in range(1, LONGEST_BEGINNING + 1) if text[-length:].lower() in BEGINNINGS]
        if (relative := RELATIVE_BEGINS.search(text, max(0, size - 3))) is not None:
            places.append(relative.end() - 1)
        if self._last_labels and (first := _first_of_name(text, size)) is not None:
            places.append(first)
        return min((place for place in places if place >= start), default=size)


def _last_labels(domains: list[str]) -> frozenset[str]:
    """How the blocked domains end, in ASCII and as people write it. One that is a whole top-level domain is only looked
    for in links: "zip" is also how files end."""
    ends = {domain.rpartition(".")[2] for domain in domains if "." in domain and not domain[-1].isdigit()}
    unicode = {end[4:].encode().decode("punycode") for end in ends if end.startswith("xn--")}
    return frozenset(ends | unicode)


def _places(text: str, start: int, final: bool) -> Iterator[_Place]:
    lowered = _lowered(text)
    for scheme in SCHEMES:
        for first in _finds(lowered, f"{scheme}:", start):
            yield from _after_scheme(text, first, first + len(scheme) + 1, final)
    for first in _finds(lowered, "www.", start):
        if BEFORE_WWW.search(text, max(0, first - 1), first) is None:
            yield _Place(first, first, dots=2)
    # "//host" where a page would take it for an address: in quotes, in brackets, after an equals sign.
    for slashes in ("//", "/\\"):
        for first in _finds(text, slashes, start):
            if text[max(0, first - 1) : first] in BEFORE_RELATIVE:
                yield _Place(first, _after_slashes(text, first), dots=1)
    for before in _finds(text, "](\\", max(0, start - 2)):
        if text[before + 3 : before + 4] in ("/", "\\"):
            yield _Place(before + 2, _after_slashes(text, before + 2), dots=1)


def _lowered(text: str) -> str:
    """In lower case, each character in its place: this one alone would become two."""
    return text.lower() if text.isascii() else text.replace("\u0130", "I").lower()


def _finds(text: str, part: str, start: int) -> Iterator[int]:
    place = text.find(part, start)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


def _after_scheme(text: str, first: int, after: int, final: bool) -> Iterator[_Place]:
    host = _after_slashes(text, after)
    if host - after > 1 or (host == len(text) and not final):
        yield _Place(first, host)
    elif host > after or text[first : first + 4].lower() == "http":
        # "http:example.com" leads there too, but "http: see below" and "https:443" do not.
        number = NUMBER.match(text, host)
        if number is None or (number.end() == len(text) and not final):
            yield _Place(first, host, dots=1, most_host_chars=MAX_NAME_CHARS)


def _is_open(text: str, end: int, limit: int, final: bool) -> bool:
    """Whether an address that ends at `end` may go on when more text comes."""
    if final or end >= limit:
        return False
    if end == len(text):
        return True
    if text[end] in "([{":
        inside = INSIDE.match(text, end + 1, limit)
        assert inside is not None
        return inside.end() == len(text) < limit
    return text[end] in DOTS and end + 1 == len(text)


def _trimmed(text: str, first: int, end: int) -> int:
    while end > first and text[end - 1] in TRAILING:
        end -= 1
    return end


def _sentence(authority: str) -> int:
    """Where a sentence goes on after the host: "https://evil.com这里". No top-level domain mixes alphabets."""
    if authority.isascii():
        return len(authority)
    last = max(authority.rfind(dot) for dot in (".", *DOTS)) + 1
    if authority[last : last + 1].isascii():
        for place in range(last, len(authority)):
            if unicodedata.normalize("NFKC", authority[place]).isalpha() and not _is_latin(authority[place]):
                return place
    return len(authority)


def _is_latin(character: str) -> bool:
    return unicodedata.normalize("NFKC", character).isascii()


def _after_slashes(text: str, place: int) -> int:
    slashes = SLASHES.match(text, place)
    assert slashes is not None
    return slashes.end()


def _first_of_name(text: str, end: int) -> int | None:
    """Where the name that ends at `end` begins; None when that is the name of no host, or one with a scheme before it,
    or part of a path or of an e-mail address."""
    first = end
    while first > 0 and NAME.match(text[first - 1]):
        first -= 1
        if end - first > MAX_NAME_CHARS:
            return None
    return None if text[max(0, first - 6) : first].lower().endswith(NOT_BEFORE_NAME) else first
