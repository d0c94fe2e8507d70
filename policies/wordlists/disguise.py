"""Words in disguise: f u d g e, f.u.d.g.e, fu**e, fudg3, $hop, fuuudge, unfudgeable, fudges.

Only where a text looks odd is it read closely, and what looks odd is found in one pass of RE2: ordinary text costs
that pass and no more, once for all lists of a call. What an odd place may stand for depends on the text alone; each
list only looks up whether that is one of its words.

Every place is judged by what stands at most LEFT characters before and REACH behind its beginning, so that a stream and
the whole text agree. For the same reason a place counts only if it looks odd by itself: it must not depend on the rest
of the text whether it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import product
from typing import NamedTuple

import re2

from policies.fold import WORD, Folded
from policies.wordlists.index import Index, Match
from policies.wordlists.tokens import Tokens, growing

LEFT = 12
REACH = 64
# Longer lists are lists of names or codes: too much would look like one of them.
MOST_WORDS = 20_000
_MOST_FITTING = 64

_SYMBOLS = "*@$!|+#%&€£¢"
_LETTERS = WORD.pattern[1:-2]  # the inside of that class


class Way(IntEnum):
    """In what way a text looks odd."""

    SPELLED = 0
    WITH_SYMBOLS = 1
    STRETCHED = 2
    NEGATED = 3


# For RE2, in a text with a space before and behind it. Letters of European scripts and of Arabic and Hebrew, in two
# ranges: the exact classes of Unicode would fill the memory of its automaton.
_L = r"a-z\x{c0}-\x{6ff}"
_BETWEEN = r"[^a-z0-9\x{c0}-\x{1fff}\x{2c00}-\x{2fff}\x{3040}-\x{10ffff}]{1,3}"
_PATTERNS = {
    Way.SPELLED: rf"[^0-9{_L}][0-9{_L}]{_BETWEEN}[0-9{_L}]{_BETWEEN}[0-9{_L}][^0-9{_L}]",
    Way.WITH_SYMBOLS: (
        rf"[{_L}][{_SYMBOLS}]+[0-9{_L}$@]|[a-z][0-9]+[a-z]|[a-z]\$|[a-z]{{3}}[0134578][^0-9{_L}]"
        rf"|[^0-9{_L}](?:[013457][a-z]{{3}}|[$@]+[a-z0-9]{{2}})"
    ),
    Way.STRETCHED: "|".join(letter * 3 for letter in "abcdefghijklmnopqrstuvwxyzбгджзилпфцчшщъыьэюя"),
    Way.NEGATED: "un[a-z]{3,60}able",
}
_ODD_IN = {way: re2.compile(pattern) for way, pattern in _PATTERNS.items()}


def _all_ways() -> re2.Set:
    """One automaton for all: `Match(text)` gives the ways that are in a text, None if there is none."""
    options = re2.Options()
    options.max_mem = 64 << 20  # far more than it ever needs: without memory it would find nothing
    ways = re2.Set.SearchSet(options)
    for pattern in _PATTERNS.values():
        ways.Add(pattern)
    ways.Compile()
    return ways


_ODD = _all_ways()

# RE2 lets go of the interpreter while it looks. When another thread waits for it (calls are being written to the
# database, as with many whole ones) that costs a turn of the scheduler: ten times the look, for a text as short as most
# are. So of short ones those are told first in which plainly nothing is odd; not of the pieces of a stream, where the
# other threads have little to do.
_SHORT = 256
_NOTHING: frozenset[Way] = frozenset()
_PLAIN = re.compile(r"(?:[a-z\s.,?'\"():;-]++|!(?:\s|\Z))*+")
_TRIPLE_LETTER = re.compile(r"([a-z])\1\1")

_SYMBOLS_AND_DIGITS = re.compile(rf"[{_SYMBOLS}0-9]+")
_LOOSE_WORD = re.compile(rf"[@${_LETTERS}][{_SYMBOLS}{_LETTERS}]{{2,{REACH - 1}}}+(?![{_SYMBOLS}{_LETTERS}])")
_MASKING = re.compile(rf"[{_SYMBOLS}]+")
_UNBROKEN = re.compile(rf"[@${_LETTERS}]*+")
_OPEN_LOOSE_WORD = re.compile(rf"(?<![@${_LETTERS}])[@${_LETTERS}][{_SYMBOLS}{_LETTERS}]*+\Z")
_TRIPLE = re.compile(r"([^\W\d_])\1\1")
_RUN = re.compile(r"([^\W\d_])\1+")
_NEGATION = re.compile(rf"un([a-z]{{3,60}}?)able(?![{_LETTERS}])")

_AS_LETTERS = {
    "0": "o", "1": "i", "2": "z", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g",
    "@": "a", "$": "s", "!": "i", "|": "i", "+": "t", "€": "e", "£": "l", "¢": "c",
}  # fmt: skip
_LEET = str.maketrans(_AS_LETTERS)
_LEET_WITH_L = str.maketrans(_AS_LETTERS | dict.fromkeys("1!|", "l"))
_BEFORE_A_VARIABLE = frozenset("([{<>=;,-\\/`")
_BEHIND_A_VARIABLE = frozenset("()[]{}<>=;-`")
_BEHIND_A_WORD = "!|*+#%&"

# Who spells a word out goes on spelling around it: "a", "I", "you". No more letters: u n i q u e.
_SPELLED_BEFORE = frozenset("ai")
_SPELLED_BEHIND = frozenset(("", "you", "off", "it", "me", "this", "that", "him", "her", "them", "all"))
_LONGEST_BEHIND = 4
_BETWEEN_THREE = frozenset(("", ".", "-", "_"))  # a*b*c is a product


class Reading(NamedTuple):
    """A place in a folded text and the words that it may stand for. `mask`: fu**e, which stands for what fits.
    Complete when the text goes on behind `upto`."""

    start: int
    end: int
    upto: int
    words: tuple[str, ...]
    mask: str = ""


class Spelling(NamedTuple):
    """Letters that stand alone, one after the other, with the same between them. `is_open`: only later text can tell
    whether there are more."""

    letters: str
    starts: list[int]
    is_open: bool


class Disguises:
    """Of the words of `index`, to which `with_endings` adds the usual endings of English."""

    def __init__(self, index: Index, with_endings: bool) -> None:
        self._index = index
        self._read_closely = _READINGS.keys() - (set() if with_endings else {Way.NEGATED})
        words = [word for word in index.words() if _is_plain(word, 3)]
        self._by_shape: dict[str, list[str]] = {}
        if len(words) <= MOST_WORDS:
            if with_endings:
                self._add_endings(words)
            for word in index.words():
                if _is_plain(word, 4):
                    self._by_shape.setdefault(_shape(word), []).append(word)
        self._longest = min(index.longest, REACH)  # letters of the longest word that is worth spelling out
        index.longest = max(index.longest, REACH)

    def _add_endings(self, words: list[str]) -> None:
        forms = {form for word in words for form in inflected(word)}
        for word in words:
            if word not in forms:  # what is a form itself takes no other: "asses" has no part in "assesses"
                for form in inflected(word):
                    self._index.add_word(form)

    def find(self, text: Folded, final: bool, matches: list[Match], pending: list[int]) -> None:
        """Adds to both what Index.find gives."""
        if not final:
            pending += _open_loose_words(text.text)
            pending += (spelling.starts[0] for spelling in text.derive(_open_spellings) if self._may_grow(spelling))
        odd = text.derive(_odd_in_whole if final else _odd)
        if not odd:
            return
        size = len(text.text)
        for way in odd & self._read_closely:
            for reading in text.derive(_READINGS[way]):
                if (final or reading.upto < size) and (word := self._word(reading)):
                    matches.append((reading.start, reading.end, word))
        if Way.SPELLED in odd:
            for spelling in text.derive(_spellings if final else _growing_spellings):
                matches += self._spelled(text.text, spelling)

    def _word(self, reading: Reading) -> str | None:
        for word in reading.words:
            if self._index.has_word(word):
                return word
        fitting = self._by_shape.get(_shape(reading.mask), ()) if reading.mask else ()
        if len(fitting) <= _MOST_FITTING:
            for word in fitting:
                if all(seen in (letter, *_SYMBOLS) for seen, letter in zip(reading.mask, word, strict=True)):
                    return word
        return None

    def _may_grow(self, spelling: Spelling) -> bool:
        return len(spelling.letters) <= self._longest + _LONGEST_BEHIND

    def _spelled(self, text: str, spelling: Spelling) -> Iterator[Match]:
        letters, starts, is_open = spelling
        if is_open and self._may_grow(spelling):
            return
        for length in range(max(3, len(letters) - _LONGEST_BEHIND), min(len(letters), self._longest) + 1):
            word, behind = letters[:length], letters[length:]
            if length == 3 and text[starts[0] + 1 : starts[1]].strip() not in _BETWEEN_THREE:
                continue
            listed = behind in _SPELLED_BEHIND and self._index.has_word(word)
            if listed and _ODD_IN[Way.SPELLED].search(_surrounded(text, starts[0], starts[-1] + 1)):
                yield starts[0], starts[length - 1] + 1, word


def inflected(word: str) -> Iterator[str]:
    """An English word of three letters or more with the endings it may take, a few of which no word takes."""
    last, before = word[-1], word[-2]
    yield word + "s"
    if last in "sxz" or word.endswith(("ch", "sh")):
        yield word + "es"
    if last == "y" and before not in "aeiou":
        yield word[:-1] + "ies"
    is_short = last not in "aeiouwxy" and before in "aeiou" and word[-3] not in "aeiou"
    stems = [word + last] if is_short and len(word) < 6 else []
    if len(word) > 3 and last != "c":  # "spic" has no part in "spiced"
        stems.append(word[:-1] if last == "e" and before not in "aeiou" else word)
    for stem in stems:
        yield from (stem + "ing", stem + "ed")
        if len(word) > 4:
            yield from (stem + "er", stem + "ers")
    if last == "e" and len(word) > 3:
        yield word + "ing"


def _is_plain(word: str, letters: int) -> bool:
    return len(word) >= letters and word.isascii() and word.isalpha()


def _shape(word: str) -> str:
    return f"{word[0]}{word[-1]}{len(word)}"


def _surrounded(text: str, start: int, upto: int) -> str:
    """text[start:upto] and one character on either side."""
    before = text[start - 1] if start else " "
    return f"{before}{text[start : upto + 1]}{' ' if upto == len(text) else ''}"


# --- where a text looks odd -------------------------------------------------------------------------------------------


def _odd_in_whole(text: Folded) -> frozenset[Way]:
    is_short = len(text.original) <= _SHORT and text.original.isascii()
    return _NOTHING if is_short and _is_plain_text(text) else _odd(text)


def _odd(text: Folded) -> frozenset[Way]:
    found = _ODD.Match(f" {text.text} ")
    return frozenset(map(Way, found)) if found else frozenset()


def _is_plain_text(text: Folded) -> bool:
    """Whether a text of ASCII is sure to have none of _PATTERNS in it."""
    folded = text.text
    return (
        _PLAIN.fullmatch(folded) is not None
        and [*map(len, text.words)].count(1) < 3
        and _TRIPLE_LETTER.search(folded) is None
        and not ("able" in folded and "un" in folded)
    )


def _loose_words(folded: Folded) -> list[Reading]:
    """Words with symbols and digits among their letters."""
    text = folded.text
    readings: list[Reading] = []
    seen = -1
    for match in _SYMBOLS_AND_DIGITS.finditer(text):
        if match.start() <= seen:
            continue  # of the same word
        start = _loose_start(text, match.start())
        if unbroken := _UNBROKEN.match(text, match.start()):
            seen = unbroken.end() - 1
        if start is None or not (loose := _LOOSE_WORD.match(text, start)):
            continue
        word = loose[0].rstrip(_BEHIND_A_WORD)
        if word.isalpha() or word.isdigit() or _is_variable(text, start, loose.end()):
            continue
        if not _ODD_IN[Way.WITH_SYMBOLS].search(_surrounded(text, start, loose.end())):
            continue
        readings.append(Reading(start, start + len(word), loose.end(), tuple(_meanings(word)), _mask(word)))
    return readings


def _is_variable(text: str, start: int, end: int) -> bool:
    """$hop as programs write it: `foreach ($hops as $hop)`, `$hop->price`."""
    before, behind = text[max(0, start - 1) : start], text[end : end + 1]
    return text[start] == "$" and (before in _BEFORE_A_VARIABLE or behind in _BEHIND_A_VARIABLE)


def _loose_start(text: str, offset: int) -> int | None:
    """Where a word begins that the character at `offset` is in or stands behind. None: too far away."""
    start = offset
    while start and (text[start - 1] in "@$" or WORD.match(text, start - 1)):
        start -= 1
        if offset - start > REACH:
            return None
    return start


def _meanings(word: str) -> Iterator[str]:
    """fudg3 -> fudge."""
    if not any(map(str.isalpha, word)) or (len(word) < 4 and any(map(str.isdigit, word))):
        return
    plain = {word.translate(_LEET), word.translate(_LEET_WITH_L)}
    plain |= {word.replace("v", "u") for word in plain}
    for word in plain:
        if word.isalpha():
            yield from _unstretched(word)


def _mask(word: str) -> str:
    """fu**e or f*dg*r, if the first and the last letter are seen and nothing but letters and symbols stands between.
    Where letters are hidden in several places most are seen: a*b*c is a product."""
    hidden = sum(map(word.count, _SYMBOLS))
    letters = sum(map(str.isalpha, word))
    if len(word) < 4 or letters < 2 or letters + hidden < len(word) or not (word[0].isalpha() and word[-1].isalpha()):
        return ""
    return word if letters >= 2 * hidden or len(_MASKING.findall(word)) == 1 else ""


def _stretched_words(text: Folded) -> list[Reading]:
    tokens = Tokens(text, final=True)
    readings: list[Reading] = []
    for index, word in enumerate(tokens.words):
        if 3 < len(word) <= REACH and _TRIPLE.search(word) and _ODD_IN[Way.STRETCHED].search(word):
            end = tokens.end(index)
            readings.append(Reading(tokens.starts[index], end, end, tuple(_unstretched(word))))
    return readings


def _unstretched(word: str) -> Iterator[str]:
    """fuuudgge -> fudge, fuudge, fudgge, fuudgge. With many letters stretched, all of them become single or double."""
    if not _TRIPLE.search(word):
        yield word
        return
    runs = len(_RUN.findall(word))
    for lengths in product((1, 2), repeat=runs) if runs <= 4 else [(1,) * runs, (2,) * runs]:
        yield _with_runs(word, lengths)


def _with_runs(word: str, lengths: tuple[int, ...]) -> str:
    remaining = iter(lengths)
    return _RUN.sub(lambda run: run[1] * next(remaining), word)


def _negations(text: Folded) -> list[Reading]:
    """unfudgeable -> fudge."""
    found, end = [], text.text.find("able")
    while end >= 0:
        start = _loose_start(text.text, end)
        if start is not None and (match := _NEGATION.match(text.text, start)):
            found.append(Reading(start, match.end(), match.end(), (match[1], match[1] + "e")))
        end = text.text.find("able", end + 1)
    return found


_READINGS: dict[Way, Callable[[Folded], list[Reading]]] = {
    Way.WITH_SYMBOLS: _loose_words,
    Way.STRETCHED: _stretched_words,
    Way.NEGATED: _negations,
}


def _open_loose_words(text: str) -> list[int]:
    """Where a word begins that reaches the end of the text, symbols and all."""
    if not text or text[-1].isspace():
        return []
    last = text[-REACH:].rsplit(None, 1)[-1]
    if len(last) < REACH and last.isascii() and last.isalpha():
        return [len(text) - len(last)]
    match = _OPEN_LOOSE_WORD.search(text, len(text) - len(last))
    return [match.start()] if match else []


def _spellings(text: Folded) -> list[Spelling]:
    return _all_spellings(text, final=True)


def _growing_spellings(text: Folded) -> list[Spelling]:
    return _all_spellings(text, final=False)


def _all_spellings(text: Folded, final: bool) -> list[Spelling]:
    tokens = Tokens(text, True) if final else text.derive(growing)
    return [spelling for index in range(tokens.count) if (spelling := _spelling(text, tokens, index))]


def _open_spellings(text: Folded) -> list[Spelling]:
    """Those at the end of a text that goes on."""
    words = text.words
    last = len(words) - 2 if words and text.text.endswith(words[-1]) else len(words) - 1
    if last < 0 or len(words[last]) > 1:
        return []
    tokens = text.derive(growing)
    found = []
    for index in range(tokens.count - 1, max(tokens.count - REACH, 0) - 1, -1):
        if len(tokens.words[index]) > 1:
            break
        if (spelling := _spelling(text, tokens, index)) and spelling.is_open:
            found.append(spelling)
    return found


def _spelling(text: Folded, tokens: Tokens, first: int) -> Spelling | None:
    """The letters that stand alone from word `first` on, if a word may begin there."""
    words, starts = tokens.words, tokens.starts
    if len(words[first]) > 1 or _is_inside(text, tokens, first):
        return None
    index, separator, is_open = first, None, False
    while index - first < REACH + _LONGEST_BEHIND:
        if index + 1 == len(words):
            rest = tokens.text[starts[index] + 1 :]
            is_open = not tokens.final and len(rest) <= 3 and (separator or rest).startswith(rest)
            break
        gap = tokens.text[starts[index] + 1 : starts[index + 1]]
        if len(gap) > 3 or (separator or gap) != gap or len(words[index + 1]) > 1:
            break
        if index + 1 == tokens.count:
            is_open = True
            break
        index, separator = index + 1, gap
    if index - first < 2 and not is_open:
        return None
    return Spelling("".join(words[first : index + 1]), starts[first : index + 1], is_open)


def _is_inside(text: Folded, tokens: Tokens, index: int) -> bool:
    """Whether letters before belong to what is spelled out, other than a single "a" or "I"."""
    if index + 1 == len(tokens.words):
        return False
    gap = tokens.text[tokens.starts[index] + 1 : tokens.starts[index + 1]]

    def follows_letter(place: int) -> bool:
        if place == 0 or len(tokens.words[place - 1]) > 1:
            return False
        before = tokens.starts[place - 1]
        near = text.at(tokens.starts[index]) - text.at(before) <= LEFT
        return near and tokens.text[before + 1 : tokens.starts[place]] == gap

    return follows_letter(index) and (tokens.words[index - 1] not in _SPELLED_BEFORE or follows_letter(index - 1))
