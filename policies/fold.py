"""A text as checks read it: case, width and look-alikes folded away, with the way back to the text as sent.

Every character is folded by itself, whatever stands around it. So the fold of a piece of a stream is a piece of the
fold of the whole, and the words of a list, folded the same way, are found whatever surrounds them.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, groupby
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# What is seen -> what is meant: pairs of a letter as it is after case folding and the Latin letter it is taken for.
# Our own choice, of letters that look alike in common fonts; й, ø, ł and their like are letters of their own.
_LOOK_ALIKE_PAIRS = (
    "аa вb сc ԁd еe ғf ԍg һh нh іi јj кk ӏl мm оo рp ԛq ѕs тt уy үy ѵv ѡw ԝw хx "  # Cyrillic
    "αa βb ϲc εe ϝf ιi ϳj κk μm ηn οo ρp τt υu νv ωw χx γy ζz "  # Greek
    "օo ոn սu հh ցg զq յj լl "  # Armenian
    "Ꭺa Ᏼb Ꮟb Ꮯc Ꭰd Ꮷd Ꭼe Ꮐg Ꮋh Ꭵi Ꭻj Ꮶk Ꮮl Ꮇm Ꮲp Ꭱr Ꮢr Ꮪs Ꮥs Ꭲt Ꮩv Ꮃw Ꮤw Ꭹy Ꮍy Ꮓz "  # Cherokee
    "ⲁa ⲃb ⲥc ⲉe ⲏh ⲓi ⲕk ⲙm ⲛn ⲟo ⲣp ⲧt ⲱw ⲭx ⲩy ⲍz "  # Coptic
    "ꓮa ꓐb ꓚc ꓓd ꓰe ꓝf ꓖg ꓧh ꓲi ꓙj ꓗk ꓡl ꓟm ꓠn ꓳo ꓑp ꓣr ꓢs ꓔt ꓴu ꓦv ꓪw ꓫx ꓬy ꓜz "  # Lisu
    "ᗩa ᗷb ᑕc ᗪd ᖴf ᕼh ᒍj ᒪl ᗰm ᑎn ᑭp ᑫq ᖇr ᔕs ᑌu ᐯv ᗯw ᙭x ᘔz "  # Canadian syllabics
    "ɑa ᴀa ʙb ᴄc ᴅd ᴇe ƒf ꜰf ɡg ɢg ʜh ıi ɩi ɪi ȷj ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ꞯq ʀr ꜱs ᴛt ᴜu ʋv ᴠv ᴡw ʏy ᴢz "  # Latin
    "‘' ’' ‛' ʻ' ʼ' ʹ' ′' ´' “\" ”\" „\" ‟\" ″\" ‐- ‑- ‒- –- —- ―- −- ⁃- "  # quotes and dashes
)
_LOOK_ALIKES = {pair[0]: pair[1] for pair in _LOOK_ALIKE_PAIRS.split()} | {
    "İ": "i",
    "\u2800": " ",  # a Braille pattern without dots
    **{chr(first + i): chr(ord("a") + i) for first in (0x1F150, 0x1F170) for i in range(26)},  # white on black
}

# Nothing is seen of these, or nothing that tells words apart: what Unicode says a program may leave out of a text,
# strokes through a letter, rings and keycaps around it, the stretching and the vowel points of Arabic and Hebrew,
# which are optional in both. Other marks stay: they make another letter.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u0334-\u0338\u0488\u0489\u0591-\u05bd\u05bf\u05c1-\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u0652\u0670"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u1abe\u20d0-\u20f0\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)

# Written without spaces between words: a word of these is found wherever its letters stand.
_UNSPACED = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x312F),  # Kana, Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAADF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)

_WORD_CATEGORIES = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd", "Nl"))
_NAMES_OF_GOODS = frozenset("\u2120\u2122\U0001f16a\U0001f16b\U0001f16c")  # small letters that belong to no word
_REMEMBERED = 65_536  # characters; all that people write in one place


def _word_pattern() -> re.Pattern[str]:
    """Letters, marks and digits of scripts that put spaces between words. One class of the basic plane only, which `re`
    looks up in a bitmap; what lies above (after folding: scripts of few writers) is treated like the unspaced ones."""
    wanted = [category in _WORD_CATEGORIES for category in map(unicodedata.category, map(chr, range(0x10000)))]
    for first, last in _UNSPACED:
        wanted[first : last + 1] = [False] * (min(last, 0xFFFF) - first + 1)
    ranges, code = [], 0
    for is_word, run in groupby(wanted):
        after = code + sum(1 for _ in run)
        if is_word:
            ranges.append(f"\\u{code:04x}-\\u{after - 1:04x}")
        code = after
    return re.compile("[" + "".join(ranges) + "]+")


WORD = _word_pattern()
# One character of a script without spaces, or of those above the basic plane, pictograms among them.
UNSPACED = re.compile(
    "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _UNSPACED) + "\U00010000-\U0010ffff]"
)
_ASCII_WORDS = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}


def _fold_once(text: str) -> str:
    decomposed = "".join(_LOOK_ALIKES.get(c) or _decomposed(c) for c in text).casefold()
    return _UNSEEN.sub("", "".join(_LOOK_ALIKES.get(c, c) for c in decomposed))


def _decomposed(character: str) -> str:
    """What is left as it is: ² and ½ and ™, which stand behind a word and are no part of it; the accents that stand
    alone, which decompose into a space and a mark."""
    if unicodedata.category(character) == "No" or character in _NAMES_OF_GOODS:
        return character
    decomposed = unicodedata.normalize("NFKD", character)
    return character if decomposed.startswith(" ") and decomposed != " " else decomposed


class _Folds(dict[int, str]):
    """Code point -> what it is folded to, filled as characters are met. Bounded: a caller may send any of them."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[code] = folded = fold_character(chr(code))
        return folded


def fold_character(character: str) -> str:
    """None, one or several characters; folding them again changes nothing."""
    if "\ud800" <= character <= "\udfff":
        return "\ufffd"  # half a character: no automaton takes it
    if unicodedata.category(character) == "Cf":
        return ""
    folded = _fold_once(character)
    while (again := _fold_once(folded)) != folded:
        folded = again
    return folded


_FOLDS = _Folds()


def fold(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_FOLDS)


class _Once(Generic[T]):
    """functools.cached_property without its lock, which costs more than what is worked out here. Two threads may do the
    work twice; they find the same."""

    def __init__(self, work_out: Callable[[Any], T]) -> None:
        self._work_out = work_out
        self._name = work_out.__name__

    def __get__(self, owner: Any, kind: type | None = None) -> T:
        found = owner.__dict__[self._name] = self._work_out(owner)
        return found


class Folded:
    """`original` as sent, `text` folded. `at(i)`: the offset in `original` of the character folded to `text[i]`;
    `at(len(text)) == len(original)`.

    Everything is worked out when it is first asked for, and once for all checks of a call.
    """

    def __init__(self, original: str) -> None:
        self.original = original
        self._derived: dict[Callable[[Folded], Any], Any] = {}

    @_Once
    def text(self) -> str:
        return fold(self.original)

    @_Once
    def words(self) -> list[str]:
        """The words of `text`, in order. Scripts without spaces between words have none."""
        return self.spaced.split() if self.original.isascii() else WORD.findall(self.text)

    @property
    def has_words(self) -> bool:
        """Whether somebody has asked for `words`, so that they cost nothing."""
        return "words" in self.__dict__

    @_Once
    def spaced(self) -> str:
        """`text` with a space for everything that is no part of a word; of ASCII only."""
        return self.original.translate(_ASCII_WORDS)

    @_Once
    def starts(self) -> list[int]:
        """Where in `text` each of `words` begins."""
        find, starts, end = self.text.index, [], 0
        for word in self.words:
            start = find(word, end)
            starts.append(start)
            end = start + len(word)
        return starts

    def at(self, index: int) -> int:
        return index if self.original.isascii() else bisect_right(self._ends, index)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The part of `original` folded to `text[start:end]`, which is not empty: every character of which any part is
        in it, and nothing unseen before or behind."""
        return self.at(start), self.at(end - 1) + 1

    @_Once
    def _ends(self) -> list[int]:
        """Per character of `original`: where in `text` its fold ends."""
        return list(accumulate(map(len, map(_FOLDS.__getitem__, map(ord, self.original)))))

    def derive(self, make: Callable[[Folded], T]) -> T:
        """`make(self)`, called once for this text: what several checks work out from it."""
        try:
            made: T = self._derived[make]
        except KeyError:
            made = self._derived[make] = make(self)
        return made
