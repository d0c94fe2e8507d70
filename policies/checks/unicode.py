"""Characters that nobody sees, that turn the reading direction round, or that pass for others.

They hide instructions from people and words from filters. All of them also have honest uses: joiners in Persian, Hindi
and emoji, break marks in Thai, direction marks in Arabic and Hebrew, Greek letters in formulas. So each is judged by
what stands beside it, and what an honest writer may have written is left alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms

from policies.checks import base
from policies.checks.base import Check, World, register
from policies.fold import Folded
from policies.types import Scan, Span

INVISIBLE, BIDIRECTIONAL, LOOK_ALIKE = "invisible", "bidirectional", "look_alike"
# So far around a sign of direction or a suspicious word is looked for letters of the script that explains it.
NEARBY = 40
MAX_WORD = 64

# --- characters ------------------------------------------------------------------------------------------------------

_MARKS = frozenset("\u200e\u200f\u061c")  # of direction: one beside a word is how Arabic and Hebrew are written
_OVERRIDES = frozenset("\u202d\u202e")
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_UNSEEN_BELOW = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff9-\ufffb"
)
_UNSEEN = f"{_UNSEEN_BELOW}\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
CANDIDATE = {
    (True, True): re.compile(f"[{_UNSEEN}{_DIRECTIONS}]"),
    (True, False): re.compile(f"[{_UNSEEN}]"),
    (False, True): re.compile(f"[{_DIRECTIONS}]"),
}
# What may be one of them: of this class `re` has a bitmap, while it tries the many above the basic plane one by one.
SUSPICIOUS = re.compile(f"[{_UNSEEN_BELOW}{_DIRECTIONS}\U00010000-\U0010ffff]")
ANY_SELECTOR = re.compile(f"[{_SELECTORS}]")
ANY_UNSEEN = re.compile(f"[{_UNSEEN}]")
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
# Scripts whose letters join, or do not, by what the writer puts between them.
JOINING = re.compile(
    "[\u0600-\u109f\u1700-\u18af\u1900-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"
    "\U0001e900-\U0001e95f]"
)
# Scripts without spaces, where an invisible one may say that a line can be broken.
UNSPACED = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf]")
EMOJI = re.compile(
    "[\u00a9\u00ae\u203c\u2049\u20e3\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff]"
)
HANGUL = re.compile("[\u1100-\u115e\u1161-\u11ff\u3131-\u3163\u3165-\u318e\ua960-\ua97f\uac00-\ud7ff\uffa1-\uffdc]")
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
KHMER = re.compile("[\u1780-\u17b3\u17b6-\u17ff]")
MONGOLIAN = re.compile("[\u1800-\u180a\u1810-\u18af]")
# England, Scotland, Wales: a black flag, letters that are not seen, and their end.
FLAG = "\U0001f3f4"
FLAG_OF_REGION = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
FLAG_CHARS = 8


class _Unsure(Exception):
    """What the text goes on with will tell."""


@dataclass(slots=True)
class _Place:
    """A character in a text that may go on growing."""

    text: str
    at: int
    final: bool

    @property
    def before(self) -> str:
        return self.text[self.at - 1 : self.at]

    def after(self, distance: int = 1) -> str:
        """Raises _Unsure when it has not come yet."""
        found = self.text[self.at + distance : self.at + distance + 1]
        if not found and not self.final:
            raise _Unsure
        return found

    def beside(self, kind: re.Pattern[str]) -> bool:
        """Whether such a character stands right before or after it."""
        return kind.match(self.before) is not None or kind.match(self.after()) is not None

    def near(self, kind: re.Pattern[str], length: int = 1) -> bool:
        """Whether such a character stands in its neighbourhood, or in that of the word that begins here."""
        end = self.at + length
        if kind.search(self.text, max(0, self.at - NEARBY), self.at) or kind.search(self.text, end, end + NEARBY):
            return True
        if end + NEARBY > len(self.text) and not self.final:
            raise _Unsure
        return False


def _is_joiner_in_order(place: _Place) -> bool:
    """The first of a run of them between letters that join; a pictogram made of two."""
    if ANY_UNSEEN.match(place.before) and not ANY_SELECTOR.match(place.before):
        return False
    if place.beside(JOINING):
        return True
    return place.text[place.at] == "\u200d" and bool(EMOJI.match(place.before) and EMOJI.match(place.after()))


def _is_break_in_order(place: _Place) -> bool:
    return not ANY_UNSEEN.match(place.before) and place.beside(UNSPACED)


def _is_soft_hyphen_in_order(place: _Place) -> bool:
    """One between syllables; not one after each letter."""
    before = place.before
    if not before or not (before.isalnum() or unicodedata.category(before).startswith("M")):
        return False
    if before >= "\u0530":  # syllables of one letter
        return place.after() != "\u00ad"
    return "\u00ad" not in (place.text[max(0, place.at - 2) : place.at][:1], place.after(), place.after(2))


def _is_selector_in_order(place: _Place) -> bool:
    """One, after a character that has variants."""
    before, selector = place.before, place.text[place.at]
    if not before or ANY_UNSEEN.match(before) or before.isspace():
        return False
    if selector >= "\U000e0100":
        return HAN.match(before) is not None
    if selector < "\u2000":
        return MONGOLIAN.match(before) is not None
    if selector < "\ufe0e":
        return before == "0" or not before.isascii()
    if before.isascii():
        return before in "0123456789#*"
    return before == "\u2139" or unicodedata.category(before)[0] in "SPN"


def _is_tag_in_order(place: _Place) -> bool:
    """In the flag of a region."""
    text, at = place.text, place.at
    flag = text.rfind(FLAG, max(0, at - FLAG_CHARS + 1), at)
    if flag < 0:
        return False
    found = FLAG_OF_REGION.match(text, flag)
    if found is None and not place.final and flag + FLAG_CHARS > len(text) and _are_tags(text[flag + 1 :]):
        raise _Unsure
    return found is not None and at < found.end()


def _are_tags(text: str) -> bool:
    return all("\U000e0020" <= character <= "\U000e007e" for character in text)


def _is_operator_in_order(place: _Place) -> bool:
    """An unseen plus or times, between two things that are seen."""
    around = (place.before, place.after())
    return all(one and not one.isspace() and not ANY_UNSEEN.match(one) for one in around)


def _is_grapheme_joiner_in_order(place: _Place) -> bool:
    before = place.before
    if before and not before.isascii() and before.isalnum():
        return True
    return any(one and unicodedata.category(one).startswith("M") for one in (before, place.after()))


def _is_byte_order_mark(place: _Place) -> bool:
    return place.at == 0


def _is_direction_in_order(place: _Place) -> bool:
    character = place.text[place.at]
    if character in _MARKS:
        return not all(one in _MARKS for one in place.text[max(0, place.at - 2) : place.at].rjust(2))
    return character not in _OVERRIDES and place.near(RIGHT_TO_LEFT)


def _beside(kind: re.Pattern[str]) -> Callable[[_Place], bool]:
    return lambda place: place.beside(kind)


def _never(place: _Place) -> bool:
    return False


def _members(ranges: str) -> list[str]:
    """The characters of a class of regular expressions, given without its brackets."""
    found = re.findall("(.)(?:-(.))?", ranges)
    return [chr(code) for first, last in found for code in range(ord(first), ord(last or first) + 1)]


# Of every character that is looked at: whether it is in order where it stands.
_JUDGES: dict[str, Callable[[_Place], bool]] = {
    **dict.fromkeys(_members(_UNSEEN), _never),
    **dict.fromkeys(_members(_SELECTORS), _is_selector_in_order),
    **dict.fromkeys(_members(_DIRECTIONS), _is_direction_in_order),
    **dict.fromkeys(map(chr, range(0xE0020, 0xE0080)), _is_tag_in_order),
    **dict.fromkeys("\u115f\u1160\u3164\uffa0", _beside(HANGUL)),
    **dict.fromkeys("\u17b4\u17b5", _beside(KHMER)),
    **dict.fromkeys("\u2061\u2062\u2063\u2064", _is_operator_in_order),
    "\u00ad": _is_soft_hyphen_in_order,
    "\u034f": _is_grapheme_joiner_in_order,
    "\u180e": _beside(MONGOLIAN),
    "\u200b": _is_break_in_order,
    "\u200c": _is_joiner_in_order,
    "\u200d": _is_joiner_in_order,
    "\ufeff": _is_byte_order_mark,
}


# --- words -----------------------------------------------------------------------------------------------------------

# Pairs of a letter and the Latin one that it is in every font, and those of Greek that resemble one but stand in
# formulas and names of substances (TNFα) for what they are.
_TWIN_PAIRS = (
    "аa еe оo рp сc уy хx іi јj ѕs ԁd ԛq ԝw һh ӏl ѵv АA ВB ЕE КK МM НH ОO РP СC ТT УY ХX ІI ЈJ ЅS ԚQ ԜW "
    "ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX οo ϲc ϳj"
)
_COUSIN_PAIRS = "αa εe ηn ιi κk νv ρp τt υu χx γy ωw"
_TWINS = {pair[0]: pair[1] for pair in _TWIN_PAIRS.split()}
_COUSINS = {pair[0]: pair[1] for pair in _COUSIN_PAIRS.split()}
_TO_LATIN = str.maketrans(_TWINS | _COUSINS)
_LATIN = "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
_ACCENTS = "\u0300-\u034e\u0350-\u036f"
_LIKE = "".join(_TWINS | _COUSINS)
_GREEK_AND_CYRILLIC = (
    "\u0370-\u0373\u0376-\u037d\u0386\u0388-\u03f5\u03f7-\u0481\u048a-\u052f\u1c80-\u1c88\u1f00-\u1fff\u2de0-\u2dff"
    "\ua640-\ua69f"
)
LIKE = re.compile(f"[{_LIKE}]")
LATIN = re.compile(f"[{_LATIN}]")
# A twin beside a Latin letter. Begins with the class that is rare in most texts: so it is found fast.
SWITCH = re.compile(f"[{_LIKE}](?:(?<=[{_LATIN}{_ACCENTS}].)|[{_ACCENTS}]*[{_LATIN}])")
WORD = re.compile(f"[{_LATIN}{_ACCENTS}{_GREEK_AND_CYRILLIC}]+")
IMITATION = re.compile(f"[{_LATIN}{_ACCENTS}{_LIKE}]+")  # of a Latin word: nothing in it that is no Latin letter's twin
TWIN = re.compile(f"[{''.join(_TWINS)}]")
COUSIN_INSIDE = re.compile(f"(?<=[a-z])[{''.join(_COUSINS)}](?=[a-z])")
FUNCTION = re.compile("sin|cos|tan|cot|sec|csc|log|ln|exp|lim|max|min|mod|arg|det|dim")
# Letters that only Greek or Russian has: where they are near, a mixed word may be one of somebody who writes both.
FOREIGN = re.compile(f"(?![{_LIKE}])[{_GREEK_AND_CYRILLIC}]")
ENDING = re.compile(f"[{_LATIN}{_ACCENTS}]+[{''.join(_TWINS)}]{{1,3}}")  # "в GitHubе"
ROMAN = re.compile("[IVXLCDM]+")  # "ХIХ век", typed with a Cyrillic Х


def _is_imitation(place: _Place, word: str) -> bool:
    """Whether it looks like a Latin word and is none."""
    letters = sum(map(str.isalpha, word))
    if letters < 3 or not IMITATION.fullmatch(word) or ROMAN.fullmatch(word.translate(_TO_LATIN)):
        return False
    if TWIN.search(word) is None:
        return _is_greek_disguise(word)
    honest = letters < 5 or ENDING.fullmatch(word) is not None
    return not (honest and place.near(FOREIGN, len(word)))


def _is_greek_disguise(word: str) -> bool:
    """Greek letters among small Latin ones, "pαypαl"; no formula (sinαcosβ) and no substance (NFκB, αsynuclein)."""
    inside = len(COUSIN_INSIDE.findall(word))
    return inside == len(LIKE.findall(word)) and len(LATIN.findall(word)) >= 4 and not FUNCTION.search(word)


# --- the check -------------------------------------------------------------------------------------------------------


class UnicodeForm(base.SettingsForm):
    invisible = forms.BooleanField(
        label="Invisible characters",
        required=False,
        initial=True,
        help_text="Zero-width characters, tags, runs of variation selectors, strewn soft hyphens. Redacted, they go.",
    )
    bidirectional = forms.BooleanField(
        label="Direction overrides",
        required=False,
        initial=True,
        help_text="Signs that make a text read otherwise than it is stored. Marks that Arabic and Hebrew need stay.",
    )
    look_alikes = forms.BooleanField(
        label="Look-alike words",
        required=False,
        initial=True,
        help_text="Words in Latin letters some of which are Cyrillic or Greek twins. Redacted, they become Latin.",
    )

    def clean(self) -> dict[str, Any]:
        if not any(self.cleaned_data.values()):
            raise forms.ValidationError("Choose at least one kind of character.")
        return self.cleaned_data


@register
class UnicodeCheck(Check):
    """Each invisible character is a match of its own, each word in disguise as well. Never found are texts of any one
    script, words of several languages side by side, formulas, emoji and code."""

    name = "unicode"
    label = "Invisible and deceptive characters"
    help = (
        "Finds characters that nobody sees, signs that turn the reading direction, and words in which Cyrillic or "
        "Greek letters pass for Latin ones: the usual ways to hide instructions from people and words from filters. "
        "Other languages, emoji, formulas and code are left alone."
    )
    message = "Your text contains invisible or deceptive characters. Remove them, or type the text anew."
    SettingsForm = UnicodeForm
    left_context = NEARBY

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._candidate = CANDIDATE.get((settings["invisible"], settings["bidirectional"]))
        self._words: bool = settings["look_alikes"]

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        original = text.original
        safe_upto = len(original) if final or not self._words else _open_word(original, start)
        if original.isascii():
            return Scan((), safe_upto)
        spans: list[Span] = []
        if self._candidate is not None and SUSPICIOUS.search(original, start):
            safe_upto = min(safe_upto, _take(_characters(self._candidate, original, start, final), spans, safe_upto))
        if self._words and LIKE.search(original, start):
            safe_upto = min(safe_upto, _take(_words(original, start, final), spans, safe_upto))
        return Scan([span for span in spans if span.start < safe_upto], safe_upto)

    def replacement(self, text: str, label: str) -> str:
        return text.translate(_TO_LATIN) if label == LOOK_ALIKE else ""


def _take(found: Iterator[Span | int], spans: list[Span], safe_upto: int) -> int:
    """Spans into `spans`; the offset from which on nothing is sure yet, if one is given."""
    for one in found:
        if isinstance(one, int):
            return one
        spans.append(one)
    return safe_upto


def _characters(candidate: re.Pattern[str], text: str, start: int, final: bool) -> Iterator[Span | int]:
    """Spans of single characters, in order; at last the offset of the first that is not sure, if there is one."""
    for match in candidate.finditer(text, start):
        at = match.start()
        try:
            judge = _JUDGES[text[at]]
            if not judge(_Place(text, at, final)):
                yield Span(at, at + 1, BIDIRECTIONAL if judge is _is_direction_in_order else INVISIBLE)
        except _Unsure:
            yield at
            return


def _words(text: str, start: int, final: bool) -> Iterator[Span | int]:
    """Spans of words in disguise, in order; at last the offset of the first that is not sure, if there is one."""
    behind = 0
    for switch in SWITCH.finditer(text, start):
        if switch.start() < behind:
            continue
        rest = WORD.match(text, switch.start())
        assert rest is not None
        first, behind = _first_of_word(text, switch.start()), rest.end()
        word = text[first:behind]
        if first < start or len(word) > MAX_WORD:
            continue
        try:
            if _is_imitation(_Place(text, first, final), word):
                yield Span(first, behind, LOOK_ALIKE)
        except _Unsure:
            yield first
            return


def _first_of_word(text: str, at: int) -> int:
    """Where the word that goes on at `at` begins; somewhere too far off when it is longer than a word can be."""
    first = at
    while first > 0 and at - first <= MAX_WORD and WORD.match(text[first - 1]):
        first -= 1
    return first


def _open_word(text: str, start: int) -> int:
    """Where the word at the end of the text begins, if it may yet become one in disguise."""
    size = len(text)
    first = _first_of_word(text, size)
    if first == size or size - first > MAX_WORD or not IMITATION.fullmatch(text, first):
        return size
    return first if first >= start else size
