"""Parts of the system prompt that are marked as secret, and must not come back in the reply."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from django import forms

from policies.checks.base import Check, Scanner, SettingsForm, World, register
from policies.fold import Folded, fold
from policies.prompts import messages_of
from policies.types import Exchange, Scan, Span, Stage

INSTRUCTING = frozenset({"system", "developer"})
# Fields in which servers other than OpenAI's take instructions.
INSTRUCTIONS = ("system", "instructions")
LABEL = "protected text"
# Letters and digits. What is shorter stands in any reply ("a || b || c" is code), and stays as it is.
MIN_CHARS = 4
# A longer text is protected in pieces of at most so many, because a stream is held back while one may still come.
PIECE_CHARS = 1000
# Of one call; what is behind is not protected.
MAX_PIECES = 200
# Of what is no letter and no digit, between two that are: more than that tears a text apart.
MAX_GAP_CHARS = 100

_ASCII = {code: chr(code).lower() if chr(code).isalnum() else None for code in range(128)}
_NO_LETTERS = re.compile(r"[\W_]+")
_TORN = re.compile(rf"[\W_]{{{MAX_GAP_CHARS + 1},}}")


class ReflectionForm(SettingsForm):
    delimiter = forms.CharField(
        initial="||",
        max_length=50,
        help_text="Stands before and behind what is secret in a system or developer message. These marks are taken out "
        "before the prompt goes to the provider.",
    )


@register
class PromptReflectionCheck(Check):
    """A mark without its partner is none, and marks in messages of users are none: there `a || b` is code."""

    name = "prompt_reflection"
    label = "Protected parts of prompts"
    help = (
        "Finds in replies what the system prompt marks as secret (||like this||), also with other line breaks, spaces, "
        "capitals or punctuation. The marks themselves never reach the provider. What is said in other words is not "
        "found."
    )
    stages = frozenset({Stage.REPLY})
    message = "The answer repeats a text that is not to be shown. Ask for something else."
    SettingsForm = ReflectionForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._delimiter: str = settings["delimiter"]
        mark = re.escape(self._delimiter)
        self._pair = re.compile(f"{mark}(.*?){mark}", re.DOTALL)

    def for_call(self, exchange: Exchange) -> Scanner | None:
        """None: nothing is marked."""
        secrets: dict[str, None] = {}
        for text, _ in self._marked(exchange.body):
            for pair in self._pair.finditer(text):
                secrets.update(dict.fromkeys(_pieces(squeezed(pair[1]))))
        return Reflection(list(secrets)[:MAX_PIECES]) if secrets else None

    def enforce(self, exchange: Exchange) -> None:
        for text, replace in list(self._marked(exchange.body)):
            replace(self._pair.sub(_without_marks, text))

    def _marked(self, body: dict[str, Any]) -> Iterator[tuple[str, Callable[[str], None]]]:
        return (place for place in _instructions(body) if self._delimiter in place[0])


def _without_marks(pair: re.Match[str]) -> str:
    return pair[1] if len(squeezed(pair[1])) >= MIN_CHARS else pair[0]


def _instructions(body: dict[str, Any]) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The texts of system and developer messages, each with what replaces it."""
    for message in messages_of(body):
        role = message.get("role")
        if isinstance(role, str) and role.strip().lower() in INSTRUCTING:
            yield from _texts(message, "content")
    for name in INSTRUCTIONS:
        if name in body:
            yield from _texts(body, name)


def _texts(holder: Any, key: str | int) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A content is a text, or a list of texts and of parts with a text or a content of their own."""
    value = holder[key] if isinstance(key, int) else holder.get(key)
    if isinstance(value, str):
        yield value, lambda text: holder.__setitem__(key, text)
    elif isinstance(value, list) and isinstance(holder, dict):
        for index, part in enumerate(value):
            if isinstance(part, dict):
                yield from _texts(part, "text")
                yield from _texts(part, "content")
            else:
                yield from _texts(value, index)


def squeezed(text: str) -> str:
    """Its letters and digits, folded: all that counts when texts are compared."""
    return text.translate(_ASCII) if text.isascii() else _NO_LETTERS.sub("", fold(text))


def _pieces(secret: str) -> list[str]:
    """None of them much shorter than the others: a short one would stand in many a reply."""
    if len(secret) < MIN_CHARS:
        return []
    count = -(-len(secret) // PIECE_CHARS)
    bounds = [len(secret) * number // count for number in range(count + 1)]
    return [secret[first:last] for first, last in pairwise(bounds)]


class Reflection:
    """Finds the secrets of one call, squeezed, in its reply."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        # Squeezing looks at each character by itself, so what stands before `start` has no say.
        part = Folded(text.original[start:]) if start else text
        said = part.derive(_squeezed)
        found = [secret for secret in self._secrets if secret in said]
        spans = sorted(set(_spans(part, said, found, start))) if found else ()
        return Scan(spans, len(text.original) if final else start + self._first_open(part))

    def _first_open(self, text: Folded) -> int:
        """Where the end of the text begins that may become a secret; its length when there is no such end."""
        folded, torn = text.text, 0
        for gap in _TORN.finditer(folded):
            torn = gap.end()
        said = text.derive(_squeezed) if not torn else squeezed(folded[torn:])
        length = max(_begun(said, secret) for secret in self._secrets)
        if not length:
            return len(text.original)
        place = len(folded)
        while length:
            place -= 1
            length -= folded[place].isalnum()
        return text.at(place)


def _squeezed(text: Folded) -> str:
    return squeezed(text.original) if text.original.isascii() else _NO_LETTERS.sub("", text.text)


def _begun(said: str, secret: str) -> int:
    """How much of the end of `said` is the beginning of the secret, and not all of it."""
    place = max(0, len(said) - len(secret) + 1)
    while (place := said.find(secret[0], place)) >= 0:
        if secret.startswith(said[place:]):
            return len(said) - place
        place += 1
    return 0


def _spans(text: Folded, said: str, secrets: list[str], offset: int) -> Iterator[Span]:
    places = [place for place, character in enumerate(text.text) if character.isalnum()]
    torn = [index for index, (here, there) in enumerate(pairwise(places)) if there - here > MAX_GAP_CHARS + 1]
    for secret in secrets:
        for first in _occurrences(said, secret):
            last = first + len(secret) - 1
            if bisect_left(torn, first) == bisect_left(torn, last):
                begin, end = text.span(places[first], places[last] + 1)
                yield Span(begin + offset, end + offset, LABEL)


def _occurrences(said: str, secret: str) -> Iterator[int]:
    """Where it stands, also inside itself ("abab" twice in "ababab"): not sooner than it repeats itself."""
    place, period = said.find(secret), 0
    while place >= 0:
        yield place
        period = period or next(shift for shift in range(1, len(secret) + 1) if secret.startswith(secret[shift:]))
        place += period
        if not said.startswith(secret, place):
            place = said.find(secret, place)
