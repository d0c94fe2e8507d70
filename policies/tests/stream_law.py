"""The law of streams: however a text comes in, a check finds the same in it, and in time.

A window as small as can be stands for the engine: it gives the scanner no more of the past than it asks for, moves on
as far as the scanner says it may (and, to be mean, sometimes less far), and compares with the text scanned at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.checks.base import Scanner
from policies.fold import Folded
from policies.types import Span


def check_stream_law(
    scanner: Scanner, text: str, cuts: Iterable[int], left_context: int, lags: Sequence[int] = (0,)
) -> list[Span]:
    """`cuts`: how much of the text is there at each step. `lags`: so many characters less than allowed are released at
    each step, in turn. Returns what is found in the whole text, overlapping spans united."""
    whole = scanner.scan(Folded(text), 0, True)
    assert whole.safe_upto == len(text)
    expected = united(whole.spans)
    start, known = 0, list[Span]()
    steps = sorted({min(cut, len(text)) for cut in cuts})
    for number, (cut, final) in enumerate([*((cut, False) for cut in steps), (len(text), True)]):
        base = max(0, start - left_context)
        scan = scanner.scan(Folded(text[base:cut]), start - base, final)
        safe = scan.safe_upto + base
        assert start <= safe <= cut, (start, safe, cut)
        spans = [Span(span.start + base, span.end + base, span.label) for span in scan.spans]
        assert all(start <= span.start < span.end <= cut for span in spans), (spans, start, cut)
        known += [span for span in spans if span.start < safe]
        assert covered(known, safe) == covered(expected, safe), (text, steps, number)
        start = max(start, safe - lags[number % len(lags)])
    assert united(known) == expected, (text, steps)
    return expected


def united(spans: Iterable[Span]) -> list[Span]:
    """Overlapping spans of one label as one, in order."""
    result: list[Span] = []
    latest: dict[str, int] = {}
    for span in sorted(set(spans)):
        place = latest.get(span.label)
        if place is not None and span.start < result[place].end:
            before = result[place]
            result[place] = before._replace(end=max(before.end, span.end))
        else:
            latest[span.label] = len(result)
            result.append(span)
    return result


def covered(spans: Iterable[Span], upto: int) -> set[tuple[int, str]]:
    """Every offset before `upto` that a span covers, with the span's label."""
    return {(offset, span.label) for span in spans for offset in range(span.start, min(span.end, upto))}
