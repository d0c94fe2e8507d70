"""Arguments of a tool call: JSON inside a string, read as the texts that the tool will get.

Each string value is a text of its own, unescaped for the rules and escaped again where it is changed; what is not
changed goes on byte for byte. Keys are read too but never changed. A number that is redacted becomes a string, so that
the arguments stay JSON. Works on arguments as they grow; whole ones are fed once. What does not begin like JSON (a
custom tool's input) is plain text, and so are words between the strings that are no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from policies.record import Record, blocked_by
from policies.types import Stage
from policies.window import MAX_HELD_CHARS, Edit, Match, Reader, TextWindow, Window, apply_edits, scan_whole

JSON_STARTS = '{["'
PLAIN_RUN = re.compile(r'[^"\\]+')
SCALAR = re.compile(r'[^\s{}\[\],:"]+')
STRUCTURE = re.compile(r"[\s{}\[\],:]+")
HIGH, LOW = range(0xD800, 0xDC00), range(0xDC00, 0xE000)
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
NUMBER = re.compile(r"-?\d[\d.eE+-]*")
HARMLESS = frozenset({"true", "false", "null"})


class ArgumentsWindow:
    """Feed it fragments; it gives the part of the arguments that may go. Raises Blocked, CheckFailed.

    `blocking`: as in policies.window.Window.
    """

    __slots__ = (
        "_at", "_bare", "_begun", "_blocking", "_expects_key", "_inside", "_is_key", "_nesting", "_plain", "_raw",
        "_readers", "_record", "_stage", "_units", "_window",
    )  # fmt: skip

    def __init__(
        self, readers: Sequence[Reader], record: Record, stage: Stage, blocking: list[Match] | None = None
    ) -> None:
        self._readers, self._record, self._stage, self._blocking = readers, record, stage, blocking
        self._raw = ""  # not understood yet, from `_at` on
        self._at = 0
        self._plain: TextWindow | None = None
        self._bare: TextWindow | None = None  # words that are no JSON, up to the next string
        self._nesting: list[str] = []
        self._begun = self._expects_key = self._is_key = self._inside = False
        self._window: Window | None = None
        self._units: list[str] = []  # of the string in progress, what is held: each character as it was written

    def feed(self, fragment: str, final: bool = False) -> str:
        if self._plain is not None:
            return self._plain.feed(fragment, final)
        raw = self._raw = self._raw + fragment
        if not self._begun:
            beginning = raw.lstrip()
            if not beginning and not final:
                return ""
            self._begun = True
            if beginning[:1] not in JSON_STARTS:
                self._plain = TextWindow(self._readers, self._record, self._stage, self._blocking)
                return self._plain.feed(raw, final)
        out: list[str] = []
        begun = -1
        while begun < self._at < len(raw):
            begun = self._at
            out.append(self._string(final) if self._inside else self._between(final))
        self._raw, self._at = raw[self._at :], 0
        if final:
            out.append(self._rest())
        return "".join(out)

    def close(self) -> None:
        """See policies.window.Window.close."""
        for window in (self._plain, self._bare, self._window):
            if window is not None:
                window.close()

    # --- between strings ---

    def _between(self, final: bool) -> str:
        raw, at = self._raw, self._at
        if self._bare is not None:
            return self._words(final)
        if raw[at] == '"':
            self._at, self._inside = at + 1, True
            self._is_key = self._expects_key
            self._window = None if self._is_key else Window(self._readers, self._record, self._stage, self._blocking)
            return '"'
        structure = STRUCTURE.match(raw, at)
        if structure is not None:
            self._at = structure.end()
            for mark in structure.group():
                self._nest(mark)
            return structure.group()
        scalar = SCALAR.match(raw, at)
        assert scalar is not None
        if scalar.end() == len(raw) and not final and len(raw) - at < MAX_HELD_CHARS:
            return ""  # it may go on
        word = scalar.group()
        if not self._nesting or len(word) >= MAX_HELD_CHARS or not _is_json(word):
            self._bare = TextWindow(self._readers, self._record, self._stage, self._blocking)
            return self._words(final)
        self._at = scalar.end()
        return self._scalar(word)

    def _words(self, final: bool) -> str:
        """What is no JSON is one text up to the next string."""
        assert self._bare is not None
        raw, at = self._raw, self._at
        end = raw.find('"', at)
        ended = end >= 0 or final
        self._at = end if end >= 0 else len(raw)
        words = raw[at : self._at]
        for mark in words:
            self._nest(mark)
        out = self._bare.feed(words, ended)
        if ended:
            self._bare = None
        return out + self._between(final) if end >= 0 else out

    def _nest(self, mark: str) -> None:
        if mark in "{[":
            self._nesting.append(mark)
        elif mark in "}]" and self._nesting:
            self._nesting.pop()
        if mark in "{,":
            self._expects_key = bool(self._nesting) and self._nesting[-1] == "{"
        elif mark in "[:":
            self._expects_key = False

    def _scalar(self, text: str) -> str:
        if text in HARMLESS:
            return text
        edits = self._whole(text)
        return json.dumps(apply_edits(text, edits), ensure_ascii=False) if edits else text

    def _whole(self, text: str) -> list[Edit]:
        edits, blocking = scan_whole(text, self._readers, self._record, self._stage)
        if blocking and self._blocking is None:
            raise blocked_by(match.rule for match in blocking)
        if self._blocking is not None:
            self._blocking += blocking
        return edits

    # --- in a string ---

    def _string(self, final: bool) -> str:
        characters, ended = self._read_string(final)
        if self._is_key:
            return self._key(ended or final) + ('"' if ended else "")
        out = self._advance("".join(characters), ended or final)
        if not ended and not final:
            return out
        self._inside = False
        return out + ('"' if ended else "")

    def _key(self, complete: bool) -> str:
        """A key is held until it is complete, and never changed."""
        if not complete and len(self._units) < MAX_HELD_CHARS:
            return ""
        units, self._units = self._units, []
        self._whole("".join(map(_unescaped, units)))
        if complete:
            self._inside = False
        return "".join(units)

    def _advance(self, characters: str, final: bool) -> str:
        assert self._window is not None
        length, edits = self._window.feed(characters, final)
        units, self._units = self._units[:length], self._units[length:]
        if not edits:
            return "".join(units)
        out: list[str] = []
        position = 0
        for start, end, replacement in edits:
            out += units[position:start]
            out.append(json.dumps(replacement, ensure_ascii=False)[1:-1])
            position = end
        return "".join(out + units[position:])

    def _read_string(self, final: bool) -> tuple[list[str], bool]:
        """The characters of the string as far as they are there; whether its closing quote was."""
        raw, position = self._raw, self._at
        characters: list[str] = []
        while position < len(raw):
            run = PLAIN_RUN.match(raw, position)
            if run is not None:
                characters.append(run.group())
                self._units += run.group()
                position = run.end()
            elif raw[position] == '"':
                self._at = position + 1
                return characters, True
            else:
                unit = _escape(raw, position, final)
                if not unit:
                    break
                characters.append(_unescaped(unit))
                self._units.append(unit)
                position += len(unit)
        self._at = position
        return characters, False

    def _rest(self) -> str:
        """The arguments have ended, perhaps in the middle: nothing that was held is lost, and nothing goes unread."""
        if self._bare is not None:
            return self._bare.feed("", True)
        if not self._inside:
            return ""
        self._inside = False
        return self._key(True) if self._is_key else self._advance("", True)


def _is_json(word: str) -> bool:
    return word in HARMLESS or NUMBER.fullmatch(word) is not None


def _escape(raw: str, position: int, final: bool) -> str:
    """The escape at `position` as it is written, both halves of a pair together; "" while it is not complete."""
    if position + 1 >= len(raw):
        return raw[position:] if final else ""
    if raw[position + 1] != "u":
        return raw[position : position + 2]
    first = UNICODE_ESCAPE.match(raw, position)
    if first is None:
        incomplete = len(raw) - position < 6 and not final
        return "" if incomplete else raw[position]
    if int(first[1], 16) not in HIGH:
        return first.group()
    second = UNICODE_ESCAPE.match(raw, position + 6)
    if second is None:
        rest = raw[position + 6 : position + 12]
        may_follow = len(rest) < 6 and "\\u".startswith(rest[:2])
        return "" if may_follow and not final else first.group()
    return first.group() + second.group() if int(second[1], 16) in LOW else first.group()


def _unescaped(unit: str) -> str:
    """The one character that an escape stands for; what is no escape stands for itself."""
    if len(unit) == 1:
        return unit
    if len(unit) == 12:
        high, low = int(unit[2:6], 16), int(unit[8:12], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    if len(unit) == 6:
        return chr(int(unit[2:], 16))
    return ESCAPES.get(unit[1], unit[1])
