"""What is asked of a moderation endpoint, and what its answer means. Pure: who asks, and how, is others' business.

    requests_of(texts) -> inputs of one or more requests -> body_of(model, inputs) -> ... -> read_verdict(body) -> unite

The endpoint is OpenAI's /v1/moderations, or anybody's that answers in its shape: for each input one result with
`categories` (category -> whether it is flagged) and `category_scores` (category -> 0 to 1, may be missing).
Source: https://platform.openai.com/docs/api-reference/moderations
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from policies.errors import ModerationFailed

# Long texts hide what is in them: the endpoint judges each input as one thing. OpenAI advises pieces of this size.
PIECE_CHARS = 2_000
# What stands across a cut is whole in one of the two pieces.
OVERLAP_CHARS = 200
REQUEST_CHARS = 20_000
MAX_REQUESTS = 64

TOO_LONG = "the texts are longer than what is moderated for one call"

MAX_CATEGORIES = 100
# Categories become labels of findings, so an endpoint cannot put the text itself there.
CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _./:&()-]{0,63}")


class TextsTooLong(ModerationFailed):
    """More text than is moderated for one call. To ask again is no use."""


class Question(NamedTuple):
    """One rule's question about one call's texts."""

    provider: str
    model: str
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`scores`: every category that was judged; `flagged`: those that the endpoint flags itself."""

    scores: Mapping[str, float]
    flagged: frozenset[str]


# --- the question ---------------------------------------------------------------------------------------------------


def says_anything(texts: Iterable[str]) -> bool:
    return any(text and not text.isspace() for text in texts)


def requests_of(texts: Sequence[str]) -> list[list[str]]:
    """The inputs of each request that it takes to have all texts judged; [] when they say nothing.

    Raises TextsTooLong.
    """
    requests: list[list[str]] = []
    room = 0
    if is_too_long(texts):
        raise TextsTooLong(TOO_LONG)
    for piece in _pieces(texts):
        if len(piece) > room:
            requests.append([])
            room = REQUEST_CHARS
        requests[-1].append(piece)
        room -= len(piece)
    if len(requests) > MAX_REQUESTS:
        raise TextsTooLong(TOO_LONG)
    return requests


def is_too_long(texts: Iterable[str]) -> bool:
    """Whether no way of asking would do."""
    return sum(map(len, texts)) > MAX_REQUESTS * REQUEST_CHARS


def body_of(model: str, inputs: Sequence[str]) -> bytes:
    return orjson.dumps({"model": model, "input": [storable(text) for text in inputs]})


def _pieces(texts: Iterable[str]) -> Iterable[str]:
    """The texts in order, in pieces of at most PIECE_CHARS: short ones together, as they stand in the conversation."""
    held: list[str] = []
    room = PIECE_CHARS
    for text in map(str.strip, texts):
        if held and len(text) > room:
            yield "\n".join(held)
            held, room = [], PIECE_CHARS
        if len(text) > PIECE_CHARS:
            yield from _cut(text)
        elif text:
            held.append(text)
            room -= len(text) + 1
    if held:
        yield "\n".join(held)


def _cut(text: str) -> Iterable[str]:
    for start in range(0, len(text) - OVERLAP_CHARS, PIECE_CHARS - OVERLAP_CHARS):
        yield text[start : start + PIECE_CHARS]


def storable(text: str) -> str:
    """The text without halves of surrogate pairs, which are no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# --- the answer -----------------------------------------------------------------------------------------------------


def read_verdict(body: bytes, inputs: int) -> Verdict:
    """What an answer says about so many inputs. Raises ModerationFailed when it is not of the shape above."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ModerationFailed("its answer is not JSON") from None
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != inputs:
        raise ModerationFailed("its answer has not one result for each text")
    return unite([_read_result(result) for result in results])


def unite(verdicts: Iterable[Verdict]) -> Verdict:
    """The highest score of each category, and whatever is flagged anywhere."""
    scores: dict[str, float] = {}
    flagged: frozenset[str] = frozenset()
    for verdict in verdicts:
        flagged |= verdict.flagged
        for category, score in verdict.scores.items():
            scores[category] = max(score, scores.get(category, 0.0))
    return Verdict(scores, flagged)


def _read_result(result: Any) -> Verdict:
    categories = result.get("categories") if isinstance(result, dict) else None
    if not isinstance(categories, dict):
        raise ModerationFailed("a result has no categories")
    given = result.get("category_scores") or {}
    if not isinstance(given, dict) or len(categories) > MAX_CATEGORIES or len(given) > MAX_CATEGORIES:
        raise ModerationFailed("a result has no scores by category")
    # OpenAI says null where a category is not judged by the model.
    judged = {category: flag for category, flag in categories.items() if flag is not None}
    scores = {category: 1.0 if flag else 0.0 for category, flag in judged.items()}
    scores |= {category: _score(score) for category, score in given.items() if score is not None}
    if not all(isinstance(flag, bool) for flag in judged.values()) or not all(map(CATEGORY.fullmatch, scores)):
        raise ModerationFailed("a result has categories that make no sense")
    flagged = frozenset(category for category, flag in judged.items() if flag)
    if result.get("flagged") and not flagged:
        raise ModerationFailed("a result is flagged, but for nothing")
    return Verdict(scores, flagged)


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ModerationFailed("a score is no number from 0 to 1")
    return float(value)
