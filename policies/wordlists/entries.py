"""An entry of a word list: a word, a phrase, or either with `*` for any letters; what it says once it is folded."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from policies.fold import UNSPACED, WORD, fold

MAX_CHARS = 400
MAX_WORDS = 32
# So many letters at most do the stars of one word stand for: what is held back in a stream stays short.
MAX_WILD_LETTERS = 64
_STARS = re.compile(r"\*+")
_WORD_WITH_STARS = re.compile(rf"(?:{WORD.pattern}|\*)+")
STAR_INSIDE = re.compile(r"[^\s*]\*[^\s*]")  # of a word
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, taken apart: lead, word, gap, word, gap, ..., word, trail.

    words  of letters and digits, folded; with `*` in them for any letters; one that is `*` alone is any one word
    gaps   what stands between two words: one space for any white space, anything else as it is
    lead, trail  what stands before the first and behind the last: "." of ".net", "++" of "c++"
    """

    words: tuple[str, ...]
    gaps: tuple[str, ...] = ()
    lead: str = ""
    trail: str = ""

    @property
    def core(self) -> str:
        """From the first word to the last."""
        return self.words[0] + "".join(gap + word for gap, word in zip(self.gaps, self.words[1:], strict=True))


def fold_entry(text: str) -> str:
    """An entry as it is matched. Two entries with the same one are duplicates."""
    return _STARS.sub("*", spaced_once(fold(text)).strip())


def spaced_once(text: str) -> str:
    """One space for every run of white space."""
    return " " if text.isspace() else _SPACES.sub(" ", text)


def is_unspaced(folded: str) -> bool:
    """Whether it is found wherever its characters stand: it has letters of a script without spaces between words, or
    no letters at all (a pictogram)."""
    return UNSPACED.search(folded) is not None or WORD.search(folded) is None


def take_apart(folded: str, literally: bool = False) -> Entry:
    """`folded` from fold_entry, not `is_unspaced`. `literally`: a star is a star."""
    if folded.isascii() and folded.isalnum():
        return Entry((folded,))
    words, gaps, end = [], [], 0
    for match in (WORD if literally else _WORD_WITH_STARS).finditer(folded):
        words.append(match.group())
        gaps.append(folded[end : match.start()])
        end = match.end()
    return Entry(tuple(words), tuple(gaps[1:]), gaps[0], folded[end:])


def validate_entry(text: str) -> None:
    """Raises ValueError, with a message for whoever wrote it, if nothing or nearly everything would match."""
    folded = fold_entry(text)
    if not folded:
        raise ValueError("Write a word or a phrase: nothing in this entry can be seen.")
    if len(folded) > MAX_CHARS:
        raise ValueError(f"An entry has at most {MAX_CHARS} characters.")
    if not any(map(_says_something, folded)):
        raise ValueError("Write at least one letter, digit or symbol: this entry is only stars or punctuation.")
    if is_unspaced(folded):
        if "*" in folded.strip("*"):
            raise ValueError("A * cannot stand between characters of a script that is written without spaces.")
        return
    _validate_words(take_apart(folded))


def _validate_words(entry: Entry) -> None:
    if len(entry.words) > MAX_WORDS:
        raise ValueError(f"A phrase has at most {MAX_WORDS} words.")
    if entry.words[0] == "*" or entry.words[-1] == "*":
        raise ValueError("A phrase cannot begin or end with a * that stands alone: leave it out.")
    if any("*" in word and word != "*" and len(word.replace("*", "")) < 2 for word in entry.words):
        raise ValueError("Write at least two letters in a word with a *: one letter would match far too much.")


def _says_something(character: str) -> bool:
    return character.isalnum() or (not character.isascii() and unicodedata.category(character)[0] in "SM")


def matchable(text: str) -> str | None:
    """fold_entry, or None if validate_entry has something against it."""
    folded = fold_entry(text)
    if folded.isascii() and folded.isalnum() and len(folded) <= MAX_CHARS:
        return folded
    try:
        validate_entry(text)
    except ValueError:
        return None
    return folded
