"""The entries of a list, kept so that a text without any of them costs next to nothing.

Words and phrases are found by hash: a set of all first words, which is asked once for all words of the text; then, for
those that are in it, how the text goes on. An automaton is needed only for first words with a star in them and for
scripts that put no spaces between words.

A hundred thousand entries are built into it while calls are served. So it is made in plain Python, which lets other
threads run, of nothing but texts, which the garbage collector does not look at: a phrase is all of its beginnings, a
word with stars is taken apart when it is met.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from policies.fold import UNSPACED, WORD, Folded
from policies.wordlists.automaton import Automaton
from policies.wordlists.entries import MAX_WILD_LETTERS, STAR_INSIDE, Entry, is_unspaced, take_apart
from policies.wordlists.glob import glob, longest_word
from policies.wordlists.sieve import Sieve, sieve_for
from policies.wordlists.tokens import PENDING, Tokens, growing, literal_end, literal_start

# Shorter texts are taken apart as fast, and without letting go of the interpreter, which costs a turn of the scheduler.
WORTH_A_SIEVE = 256
Match = tuple[int, int, str]  # start and end in the folded text, and what was found: an entry from first to last word
_ByText = dict[str, "str | list[str]"]  # some text that is looked for -> the entries that it may belong to


class Index:
    """Of entries as fold_entry gives them. `longest`: characters of the longest word that can be part of a match."""

    def __init__(self, entries: Iterable[str]) -> None:
        self.longest = 0
        self._sieve: Sieve | None = None
        self._firsts: set[str] = set()  # first words without a star
        self._not_alone: set[str] = set()  # those of them that are no entry by themselves
        self._beginnings: set[str] = set()  # of phrases: their first words, with what stands between
        self._skeletons: set[str] = set()  # the same with single spaces, where anything else stands between the words
        self._look_closer: set[str] = set()  # skeletons of whole phrases, and what a word with a star may follow
        self._phrases: set[str] = set()  # the same, to the last word
        self._stars_behind: _ByText = {}  # words with letters and stars that may follow a beginning
        self._longest_gap = 0
        self._edged: _ByText = {}  # entries with a lead or a trail, by what is between
        self._leads: set[str] = set()
        anchors: _ByText = {}  # first words with a star, by their longest piece
        unspaced: _ByText = {}  # by what stands before the first space
        for entry in entries:
            if WORD.fullmatch(entry):
                self.add_word(entry)
            elif is_unspaced(entry):
                entry = entry.strip("*")
                _append(unspaced, entry.split(" ")[0], entry)
            else:
                self._add(entry, take_apart(entry), anchors)
                if STAR_INSIDE.search(entry):  # is also what it looks like
                    self._add(entry, take_apart(entry, literally=True), anchors)
        self._anchored = [*anchors.values()]
        self._anchors = Automaton([*anchors])
        self._unspaced = _Unspaced(unspaced)
        self._by_automaton = bool(anchors or unspaced)

    def add_word(self, word: str) -> None:
        self._firsts.add(word)
        self._not_alone.discard(word)
        self.longest = max(self.longest, len(word))

    def has_word(self, word: str) -> bool:
        return word in self._firsts and word not in self._not_alone

    def words(self) -> list[str]:
        """Entries that are one word."""
        return [word for word in self._firsts if word not in self._not_alone]

    def _add(self, text: str, entry: Entry, anchors: _ByText) -> None:
        first, core = entry.words[0], entry.core
        self.longest = max(self.longest, *map(longest_word, entry.words))
        if "*" in first:
            _append(anchors, glob(first).anchor, first)
        elif first not in self._firsts:
            self._firsts.add(first)
            self._not_alone.add(first)
        if entry.lead or entry.trail:
            _append(self._edged, core, text)
            self._leads.update(entry.lead[:length] for length in range(1, len(entry.lead) + 1))
        elif core == first and "*" not in first:
            self._not_alone.discard(first)
        else:
            self._phrases.add(core)
        if core != first:
            self._add_steps(entry)

    def _add_steps(self, entry: Entry) -> None:
        beginning = entry.words[0]
        self._longest_gap = max(self._longest_gap, *map(len, entry.gaps))
        skeleton = beginning
        for gap, word in zip(entry.gaps, entry.words[1:], strict=True):
            self._beginnings.add(beginning)
            if skeleton != beginning:
                self._skeletons.add(skeleton)
            if "*" in word:
                self._look_closer.add(skeleton)
                if word != "*":
                    _append(self._stars_behind, beginning + gap, word)
            beginning += gap + word
            skeleton += " " + word
        if skeleton != beginning:
            self._look_closer.add(skeleton)

    def complete(self) -> None:
        """No more words are added."""
        self._sieve = sieve_for(self._firsts)

    # --- finding ------------------------------------------------------------------------------------------------------

    def find(self, text: Folded, final: bool) -> tuple[list[Match], list[int]]:
        """All matches, and where one may begin or grow that only later text can tell; offsets into `text.text`."""
        has_firsts = not self._is_held_back(text, final) and not self._firsts.isdisjoint(text.words)
        if not has_firsts and not self._by_automaton:
            if final:
                return [], []
            if not self._leads:
                return [], self._partial(text)
        search = _Search(text, final)
        if has_firsts:
            self._find_words(search)
        if self._anchors:
            self._find_anchored(search)
        if self._unspaced:
            self._unspaced.find(text.text, final, search.matches, search.pending)
        if not final:
            self._add_tail(search)
        return search.matches, search.pending

    def _partial(self, text: Folded) -> list[int]:
        """What `_add_tail` would find in a text with nothing in it, as nearly every piece of a stream is."""
        words = text.words
        if not words or len(words[-1]) > self.longest or not text.text.endswith(words[-1]):
            return []
        return [len(text.text) - len(words[-1])]

    def _is_held_back(self, text: Folded, final: bool) -> bool:
        """Whether it is plain that no first word is in the text, though nobody has taken it apart."""
        original = text.original
        if (
            self._sieve is None
            or not final
            or len(original) < WORTH_A_SIEVE
            or text.has_words
            or not original.isascii()
        ):
            return False
        return self._sieve.holds_back(text)

    def _find_words(self, search: _Search) -> None:
        words = search.text.words
        for index in [index for index, word in enumerate(words) if word in self._firsts]:
            word = words[index]
            if word in self._not_alone and self._leads_nowhere(words, index):
                continue
            if index == search.tokens.count:
                return
            if word not in self._not_alone:
                start = search.tokens.starts[index]
                search.matches.append((start, start + len(word), word))
            self._follow(search, index, word)

    def _leads_nowhere(self, words: Sequence[str], index: int) -> bool:
        """Whether the first word of a phrase stands there without the rest. Most of what is found is that, and this
        needs only the words, not what stands between them."""
        core, last = words[index], len(words) - 1
        while core not in self._phrases and core not in self._edged and core not in self._look_closer:
            if core not in self._beginnings and core not in self._skeletons:
                return True
            index += 1
            if index >= last:
                return False  # the last word of all may be the beginning of the right one
            core = f"{core} {words[index]}"
        return False

    def _find_anchored(self, search: _Search) -> None:
        tokens, seen = search.tokens, set()
        for anchor, start, _ in self._anchors.hits(search.text.text):
            index = tokens.at(start)
            if index < tokens.count and (anchor, index) not in seen:
                seen.add((anchor, index))
                for word in dict.fromkeys(_several(self._anchored[anchor])):
                    if glob(word).fits(tokens.words[index]):
                        if word in self._phrases:
                            search.matches.append((tokens.starts[index], tokens.end(index), word))
                        self._follow(search, index, word)

    def _follow(self, search: _Search, first: int, word: str) -> None:
        """Phrases that begin with the word at `first`, which is `word` or fits it; and what has a lead or a trail."""
        tokens = search.tokens
        start = tokens.starts[first]
        if word in self._edged:
            self._find_edged(search, word, start, tokens.end(first))
        beginnings = {word} & self._beginnings
        for index in range(first + 1, tokens.count):
            if not beginnings:
                return
            gap, end = tokens.gap(index), tokens.end(index)
            reached = {core for beginning in beginnings for core in self._steps(beginning + gap, tokens.words[index])}
            for core in reached:
                if core in self._phrases:
                    search.matches.append((start, end, core))
                if core in self._edged:
                    self._find_edged(search, core, start, end)
            beginnings = reached & self._beginnings
        if beginnings and not tokens.final and self._may_go_on(tokens):
            search.pending.append(start)

    def _steps(self, beginning: str, word: str) -> Iterator[str]:
        """What `beginning`, a gap included, may become by `word`."""
        yield beginning + word
        if len(word) <= MAX_WILD_LETTERS:
            yield beginning + "*"
        for starred in _several(self._stars_behind.get(beginning, ())):
            if glob(starred).fits(word):
                yield beginning + starred

    def _may_go_on(self, tokens: Tokens) -> bool:
        """Whether what stands behind the last complete word may be a gap, and then a word, of a phrase."""
        gap = tokens.text[tokens.end(tokens.count - 1) : len(tokens.text) - len(tokens.partial)]
        fits = not gap or gap.isspace() or len(gap.strip()) <= self._longest_gap
        return fits and len(tokens.partial) <= self.longest

    def _find_edged(self, search: _Search, core: str, start: int, end: int) -> None:
        for entry in _several(self._edged[core]):
            search.match_edges(take_apart(entry), core, start, end)

    def _add_tail(self, search: _Search) -> None:
        """A word that is not complete may become any; and what may be a lead must wait for its word."""
        tokens, pending = search.tokens, search.pending
        if 0 < len(tokens.partial) <= self.longest:
            pending.append(len(tokens.text) - len(tokens.partial))
        if self._leads:
            pending += [
                start
                for end in (*pending, len(tokens.text))
                for lead in self._leads
                if (start := literal_start(tokens.text, end, lead)) is not None
            ]


class _Search:
    """Through one text. `matches`; `pending`: where one may begin or grow that only later text can tell."""

    __slots__ = ("_tokens", "final", "matches", "pending", "text")

    def __init__(self, text: Folded, final: bool) -> None:
        self.text = text
        self.final = final
        self.matches: list[Match] = []
        self.pending: list[int] = []
        self._tokens: Tokens | None = None

    @property
    def tokens(self) -> Tokens:
        if self._tokens is None:
            self._tokens = Tokens(self.text, True) if self.final else self.text.derive(growing)
        return self._tokens

    def match_edges(self, entry: Entry, core: str, start: int, end: int) -> None:
        """`core` stands there: do lead and trail?"""
        before = literal_start(self.text.text, start, entry.lead)
        behind = literal_end(self.text.text, end, entry.trail, self.final)
        if before is None or behind is None:
            return
        if behind == PENDING:
            self.pending.append(before)
        else:
            self.matches.append((before, behind, core))


class _Unspaced:
    """Entries found wherever their characters stand, by what stands before their first space."""

    def __init__(self, entries: _ByText) -> None:
        self._entries = [*entries.values()]
        self._automaton = Automaton([*entries])
        self._longest: dict[str, int] = {}  # by the first one and the first two characters
        for text in entries:
            for head in (text[0], text[:2]):
                self._longest[head] = max(self._longest.get(head, 0), len(text))
        self._reach = max(self._longest.values(), default=0)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def find(self, text: str, final: bool, matches: list[Match], pending: list[int]) -> None:
        for index, start, _ in self._automaton.hits(text):
            for entry in _several(self._entries[index]):
                end = literal_end(text, start, entry, final)
                if end is None:
                    continue
                if end == PENDING or (end == len(text) and not final):
                    pending.append(start)
                elif _stands_apart(text, start, end):
                    matches.append((start, end, entry))
        if not final:
            pending += self._tail(text)

    def _tail(self, text: str) -> Iterator[int]:
        """Where an entry may begin, or has begun but for the character behind it, which may change its last one."""
        size = len(text)
        for start in range(max(0, size - self._reach), size):
            if size - start <= self._longest.get(text[start : start + 2], 0):
                yield start


def _stands_apart(text: str, start: int, end: int) -> bool:
    """Letters of spaced scripts at either end are whole words; marks belong to the letter before them."""
    if start and WORD.match(text[start]) and WORD.match(text[start - 1]):
        return False
    if end == len(text):
        return True
    behind = text[end]
    if WORD.match(text[end - 1]) and WORD.match(behind):
        return False
    return not (UNSPACED.match(behind) and unicodedata.category(behind)[0] == "M")


def _append(entries: _ByText, key: str, entry: str) -> None:
    there = entries.get(key)
    if there is None:
        entries[key] = entry
    elif isinstance(there, str):
        entries[key] = [there, entry]
    else:
        there.append(entry)


def _several(entries: str | Sequence[str]) -> Sequence[str]:
    return (entries,) if isinstance(entries, str) else entries
