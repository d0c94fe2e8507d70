"""Regular expressions of administrators, run by RE2: in time that grows with the text and not with what it says.

What counts as a match does not depend on where a scan begins, so that a stream and the whole text agree: at every
place the expression is tried anew, on at most `max_chars` characters from there, as if matches never got into each
other's way. `^` and `$` are the beginning and the end of a line. `\\b`, `\\w`, `\\d` and `\\s` know ASCII only, as RE2
has it.

A stream is held back only while its end may be the beginning of a match. For that every expression is rewritten into
one that matches all beginnings of what it matches ("ab+" becomes "(a(b*b?)?)?"), see `_Reader`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import re2

from policies.types import Scan, Span

MAX_PATTERN_CHARS = 500
MAX_PATTERNS = 200
# An expression of its own may be as large as compiles in some milliseconds; a group of them has room to remember.
PATTERN_BYTES = 1 << 20
GROUP_BYTES = 8 << 20
GROUP_PROGRAM = 4000
GROUP_PATTERNS = 25

# Escapes that stand for one character. `\p{Greek}`, `\x{1F600}`, `\101`, `\d`, `\.`
_ESCAPE = r"\\(?:[pP](?:\{[^}]*\}|.)|x(?:\{[^}]*\}|[0-9A-Fa-f]{2})|[0-7]{1,3}|.)"
ESCAPE = re.compile(_ESCAPE, re.DOTALL)
CLASS = re.compile(rf"\[\^?\]?(?:\[:[^\]]*:\]|{_ESCAPE}|[^\]\\])*\]", re.DOTALL)
REPEAT = re.compile(r"(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??")
GROUP = re.compile(r"\((?:\?(?:P?<[^>]*>|([a-zA-Z-]*)([:)])))?")
PUNCTUATION = frozenset(string.punctuation) - {"_"}
Regex = Any  # re2 has no public name for what it compiles


class BadPattern(ValueError):
    """Says what is wrong with an expression, to the administrator who wrote it."""


class Patterns:
    """Expressions compiled together. `scan` is that of a check; its spans are labelled "pattern 1", "pattern 2"...

    Raises BadPattern. `left_context`: `\\b` and `^` look at one character before a match.
    """

    left_context = 1

    def __init__(self, patterns: Sequence[str], max_chars: int) -> None:
        self._max_chars = max_chars
        self._groups = list(_grouped([_Reader(pattern) for pattern in patterns]))

    def scan(self, text: str, start: int, final: bool) -> Scan:
        # A lone surrogate (from an escape in a tool's arguments) has no UTF-8: it becomes "?", one character as well.
        data = text.encode("utf-8", "replace")
        is_ascii = len(data) == len(text)
        safe_upto = len(text) if final else self._first_open(text, start)
        begin = start if is_ascii else _bytes_of(text[:start])
        hit = [group for group in self._groups if group.any.search(data, begin) is not None]
        if not hit:
            return Scan((), safe_upto)
        limit = safe_upto if is_ascii else _bytes_of(text[:safe_upto])
        spans: list[Span] = []
        for group in hit:
            for number, regex in group.each:
                matches = _matches(regex, data, begin, limit, self._max_chars, is_ascii)
                spans += _in_characters(data, matches, begin, start, f"pattern {number}")
        return Scan(spans, safe_upto)

    def _first_open(self, text: str, start: int) -> int:
        """The first offset from which a match may still begin or grow when more text comes."""
        earliest = max(start, len(text) - self._max_chars)
        tail = text[earliest:].encode("utf-8", "replace")
        first = len(tail)
        for group in self._groups:
            if group.beginnings is None:
                return earliest
            found = group.beginnings.search(tail)
            if found is not None:
                first = min(first, found.start())
        return len(text) - len(tail[first:].decode())


class _Group(NamedTuple):
    """Some expressions in one, so that a text is read once for all of them; and each with its number.

    `beginnings` finds what may be the beginning of a match at the end of a text; None: that was too large to compile.
    """

    any: Regex
    beginnings: Regex | None
    each: list[tuple[int, Regex]]


def _grouped(readers: Sequence[_Reader]) -> Iterator[_Group]:
    """Groups that compile fast: nothing else in the process runs meanwhile."""
    group: list[tuple[int, _Reader]] = []
    size = 0
    for number, reader in enumerate(readers, 1):
        if group and (size + reader.regex.programsize > GROUP_PROGRAM or len(group) == GROUP_PATTERNS):
            yield _group(group)
            group, size = [], 0
        group.append((number, reader))
        size += reader.regex.programsize
    if group:
        yield _group(group)


def _group(readers: Sequence[tuple[int, _Reader]]) -> _Group:
    beginnings: Regex | None
    try:
        beginnings = _compile("(?:" + "|".join(reader.beginnings for _, reader in readers) + r")\z")
    except BadPattern:
        beginnings = None
    return _Group(
        _compile("|".join(f"(?m:{reader.pattern})" for _, reader in readers), GROUP_BYTES),
        beginnings,
        [(number, reader.regex) for number, reader in readers],
    )


def _matches(
    regex: Regex, data: bytes, begin: int, limit: int, max_chars: int, is_ascii: bool
) -> Iterator[tuple[int, int]]:
    """(start, end) in bytes of every match that begins in [begin, limit), by its start, at most one a place."""
    reach = max_chars if is_ascii else 4 * max_chars
    position, size = begin, len(data)
    while position < limit:
        # Only so far: an expression like a.*b would look through all of the text again from each place.
        window = position + 4 * reach
        found = regex.search(data, position, window)
        if found is None or (window < size and found.start() > window - reach):
            # Beyond, a match might be cut by the window's end, and a later one seem to be the first.
            position = max(position + 1, window - reach + 1)
            continue
        first, last = found.span()
        if first >= limit:
            return
        bound = first + (
            max_chars if is_ascii else len(data[first : first + reach].decode("utf-8", "ignore")[:max_chars].encode())
        )
        if last > bound:
            found = regex.match(data, first, bound)
            last = first if found is None else found.end()
        if last > first:
            yield first, last
        position = first + 1


def _in_characters(
    data: bytes, matches: Iterator[tuple[int, int]], begin: int, start: int, label: str
) -> Iterator[Span]:
    """Matches in bytes, in order, as spans in characters. `begin` is `start` in bytes."""
    offset, character = begin, start
    for first, last in matches:
        character += len(data[offset:first].decode())
        offset = first
        yield Span(character, character + len(data[first:last].decode()), label)


def _bytes_of(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _compile(pattern: str, max_bytes: int = PATTERN_BYTES) -> Regex:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = max_bytes
    # By bytes, because offsets into the encoded text are what the scan needs.
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0]
        raise BadPattern(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None


class _Part(NamedTuple):
    """A part of an expression without what has no length (`^`, `\\b`): itself, and all beginnings of what it matches.

    `single`: it matches single characters, so that its only beginnings are nothing and all of it.
    """

    source: str
    beginnings: str
    single: bool = False


NOTHING = _Part("", "")


class _Reader:
    """Reads one expression in RE2's syntax. Raises BadPattern for what RE2 refuses and for what cannot be held to the
    law of streams.

    regex       the expression compiled, `^` and `$` standing for a line's
    beginnings  an expression for all beginnings of its matches (and perhaps more: what has no length is left out)
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN_CHARS:
            raise BadPattern(f"longer than {MAX_PATTERN_CHARS} characters")
        _compile(pattern)  # by itself: in brackets, "a)(b" would be one
        self.pattern = pattern
        self.regex = _compile(f"(?m:{pattern})")
        self._position = 0
        self._flags = {"i"}
        whole = self._alternatives()
        if _compile(f"^(?:{whole.source})$").search(b"") is not None:
            raise BadPattern("it can match nothing at all, so it would match everywhere")
        self.beginnings = f"(?:{whole.beginnings})"

    def _take(self, match: re.Match[str] | None) -> str:
        assert match is not None  # RE2 has taken the expression already
        self._position = match.end()
        return match.group()

    def _alternatives(self) -> _Part:
        """Up to the end of the expression or of the group."""
        parts = [self._sequence()]
        while self.pattern.startswith("|", self._position):
            self._position += 1
            parts.append(self._sequence())
        if len(parts) == 1:
            return parts[0]
        return _Part(
            "(?:" + "|".join(part.source for part in parts) + ")",
            "(?:" + "|".join(part.beginnings for part in parts) + ")",
        )

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._position < len(self.pattern) and self.pattern[self._position] not in "|)":
            parts += self._repeated(self._atom())
        beginnings = ""
        for part in reversed([part for part in parts if part is not NOTHING]):
            if part.single:
                beginnings = f"(?:{part.source}{beginnings})?"
            else:
                beginnings = f"(?:{part.beginnings}|{part.source}{beginnings})"
        return _Part("".join(part.source for part in parts), beginnings)

    def _repeated(self, parts: list[_Part]) -> list[_Part]:
        """With the repetition that follows, if one does: it is of the last part (`\\Qabc\\E*` repeats the c)."""
        repeat = REPEAT.match(self.pattern, self._position)
        if repeat is None:
            return parts
        self._take(repeat)
        sign, least, comma, most = repeat.groups()
        part, whole = parts[-1], f"(?:{parts[-1].source})"
        if sign in ("*", "+") or (comma and not most):
            before = f"{whole}*"
        elif sign == "?":
            before = ""
        else:
            before = f"{whole}{{0,{max(0, int(most or least) - 1)}}}"
        beginnings = f"{whole}?" if part.single else f"(?:{part.beginnings})"
        return [*parts[:-1], _Part(f"{whole}{repeat.group()}", before + beginnings)]

    def _atom(self) -> list[_Part]:
        pattern, here = self.pattern, self._position
        if pattern[here] == "(":
            return self._group()
        if pattern[here] == "\\":
            return self._escape()
        if pattern[here] in "^$":
            self._position += 1
            return [NOTHING]
        if pattern[here] == "[":
            return [self._single(self._take(CLASS.match(pattern, here)))]
        self._position += 1
        return [self._single("." if pattern[here] == "." else _literal(pattern[here]))]

    def _single(self, source: str) -> _Part:
        """As it is under the flags that hold here; elsewhere others may hold."""
        flags = ("s" if "s" in self._flags else "") + ("" if "i" in self._flags else "-i")
        return _Part(f"(?{flags}:{source})" if flags else source, "", single=True)

    def _escape(self) -> list[_Part]:
        pattern, here = self.pattern, self._position
        kind = pattern[here + 1]
        if kind in "AzC":
            instead = {"A": "use ^ for the beginning of a line", "z": "use $ for the end of a line", "C": "use ."}[kind]
            raise BadPattern(rf"\{kind} is not available: {instead}")
        if kind == "Q":
            end = pattern.find(r"\E", here)
            end = len(pattern) if end < 0 else end
            quoted = pattern[here + 2 : end]
            self._position = min(len(pattern), end + 2)
            if not quoted:
                raise BadPattern(r"\Q\E quotes nothing")
            return [self._single(_literal(character)) for character in quoted]
        escape = self._take(ESCAPE.match(pattern, here))
        if kind not in "bB":
            return [self._single(escape)]
        if kind == "b" and any(map(_is_foreign, (pattern[:here][-1:], pattern[here + 2 :][:1]))):
            raise BadPattern(r"\b knows ASCII letters only: leave it out beside another letter")
        return [NOTHING]

    def _group(self) -> list[_Part]:
        head = GROUP.match(self.pattern, self._position)
        assert head is not None
        self._take(head)
        before = self._flags
        on, _, off = (head[1] or "").partition("-")
        self._flags = (self._flags | set(on)) - set(off)
        if head[2] == ")":  # holds for the rest of the group around it
            return [NOTHING]
        inside = self._alternatives()
        self._position += 1
        self._flags = before
        return [_Part(f"(?:{inside.source})", inside.beginnings)]


def _literal(character: str) -> str:
    return f"\\{character}" if character in PUNCTUATION else character


def _is_foreign(character: str) -> bool:
    """Whether it is a letter that RE2's `\\b` takes for none."""
    return character.isalpha() and not character.isascii()
