"""Replies that recite the instructions of the system prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

from django import forms

from policies.checks.base import Check, Scanner, SettingsForm, World, register
from policies.fold import WORD, Folded, fold
from policies.prompts import messages_of, texts_in
from policies.types import Exchange, Scan, Span, Stage

PROTECTED_ROLES = ("system", "developer")
# Of the instructions of one call; what is behind is not protected.
MAX_WORDS = 20_000
BETWEEN = "\n"  # two messages, or torn words: no run goes on over it
MAX_GAP_CHARS = 100
LABEL = "system prompt"


class LeakForm(SettingsForm):
    window_words = forms.IntegerField(
        label="Words in a row",
        initial=8,
        min_value=4,
        max_value=50,
        help_text="So many words of the instructions, one after the other, in the reply: that is a leak. Fewer find "
        "more, and sooner something that only sounds alike.",
    )


@register
class PromptLeakCheck(Check):
    name = "prompt_leak"
    label = "System prompt in replies"
    help = (
        "Finds replies that recite the system prompt: so many of its words in a row, whatever their case, punctuation "
        "and line breaks. What is said in other words, or in another language, is not found."
    )
    stages = frozenset({Stage.REPLY})
    message = "The answer repeats instructions that are not to be shown. Ask for something else."
    SettingsForm = LeakForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._length: int = settings["window_words"]

    def for_call(self, exchange: Exchange) -> Scanner | None:
        """None: there are no instructions, or fewer words than count as a leak."""
        instructions = tuple(instructions_of(exchange.body))
        return scanner_of(instructions, self._length) if instructions else None


def instructions_of(body: dict[str, Any]) -> Iterator[str]:
    for message in messages_of(body):
        if message.get("role") in PROTECTED_ROLES:
            yield from texts_in(message.get("content"))


@lru_cache(maxsize=64)
def scanner_of(instructions: tuple[str, ...], length: int) -> Scanner | None:
    """Apps send the same instructions with every call, so what is made of them is kept."""
    words: list[str] = []
    for text in instructions:
        words += [*_words_of(fold(text)), BETWEEN]
    words = words[:MAX_WORDS]
    runs = _runs(words, length)
    return Recital(words, runs, length) if runs else None


def _words_of(folded: str) -> Iterator[str]:
    end = 0
    for word in WORD.finditer(folded):
        if _tears(folded[end : word.start()]):
            yield BETWEEN
        yield word.group()
        end = word.end()


def _tears(gap: str) -> bool:
    """Whether what stands between two words parts them: a drawing or a table, a text in a language without spaces.
    Without this a stream would be held back for as long as either goes on."""
    return len(gap) > MAX_GAP_CHARS or any(map(str.isalpha, gap))


def _runs(words: list[str], length: int) -> frozenset[str]:
    starts = range(len(words) - length + 1)
    return frozenset(" ".join(run) for start in starts if BETWEEN not in (run := words[start : start + length]))


class Recital:
    """Finds runs of the words of instructions. Every run of `length` words is a match of its own; those that overlap
    are one to whoever masks them, so a longer recital is masked whole however it is streamed."""

    def __init__(self, words: list[str], runs: frozenset[str], length: int) -> None:
        self._runs = runs
        self._length = length
        self._threes = frozenset(zip(words, words[1:], words[2:], strict=False))
        self._prompt = f" {' '.join(words)} "

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        words, length = text.words, self._length
        spans = []
        for first in self._candidates(words):
            if " ".join(words[first : first + length]) in self._runs and not _is_torn(text, first, first + length):
                last = first + length - 1
                begin, _ = text.span(text.starts[first], text.starts[first] + 1)
                _, end = text.span(text.starts[last], text.starts[last] + len(words[last]))
                if begin >= start:
                    spans.append(Span(begin, end, LABEL))
        return Scan(spans, len(text.original) if final else self._safe_upto(text, start))

    def _candidates(self, words: list[str]) -> list[int]:
        """Where a run may begin, in order. A run of n words has n-2 threes of words in a row, so it is enough to look
        at every (n-2)th three of the text."""
        step, length = self._length - 2, self._length
        found: set[int] = set()
        for at in range(0, len(words) - 2, step):
            if (words[at], words[at + 1], words[at + 2]) in self._threes:
                found.update(range(max(0, at - step + 1), min(at, len(words) - length) + 1))
        return sorted(found)

    def _safe_upto(self, text: Folded, start: int) -> int:
        """The beginning of what may become a run: words at the end that stand so in the instructions."""
        words, size = text.words, len(text.original)
        if not words:
            return size
        last = text.starts[-1] + len(words[-1])
        tail = "" if last == len(text.text) else " "  # the last word may go on
        said = f" {words[-1]}{tail}"
        if said not in self._prompt or _tears(text.text[last:]):
            return size
        safe = size
        for first in range(len(words) - 1, max(-1, len(words) - 1 - self._length), -1):
            if f" {' '.join(words[first:])}{tail}" not in self._prompt or _is_torn(text, first, first + 2):
                break
            begin = text.span(text.starts[first], text.starts[first] + 1)[0]
            if begin < start:
                break
            safe = begin
        return safe


def _is_torn(text: Folded, first: int, end: int) -> bool:
    """Whether two neighbours among the words from `first` to before `end` are no neighbours."""
    pairs = pairwise(zip(text.words[first:end], text.starts[first:end], strict=True))
    return any(_tears(text.text[start + len(word) : following]) for (word, start), (_, following) in pairs)
