"""Latency histograms: calls per bucket, the same buckets in the database and in Prometheus.

A histogram is a list of counts, one per bound in BOUNDS_US and a last one for what is slower still. Unlike percentiles,
histograms add up: those of sixty minutes are the hour's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

# Upper bounds, inclusive. Close together where LLM calls are: between 100 ms and a minute.
BOUNDS_MS = (
    *(1, 2, 5, 10, 25, 50, 100, 250, 500, 750),
    *(1_000, 1_500, 2_500, 4_000, 6_000, 10_000, 15_000, 25_000, 40_000),
    *(60_000, 120_000, 300_000, 600_000),
)
BOUNDS_US = tuple(ms * 1_000 for ms in BOUNDS_MS)
BOUNDS_S = tuple(ms / 1_000 for ms in BOUNDS_MS)
BUCKETS = len(BOUNDS_US) + 1


def empty() -> list[int]:
    return [0] * BUCKETS


def bucket(us: int) -> int:
    """The bucket that a latency of `us` microseconds belongs to."""
    return bisect_left(BOUNDS_US, us)


def add(total: list[int], other: Sequence[int]) -> None:
    """Add `other` to `total`, in place."""
    for index, count in enumerate(other):
        total[index] += count


def percentile(histogram: Sequence[int], q: float) -> int | None:
    """The latency in microseconds that the share `q` (0 to 1) of the calls did not exceed; None without calls.

    Calls are taken as spread evenly over their bucket; those beyond the last bound count as that bound.
    """
    calls = sum(histogram)
    if not calls:
        return None
    rank = q * calls
    below = 0
    for index, count in enumerate(histogram):
        if count and below + count >= rank:
            if index == len(BOUNDS_US):
                break
            lower = BOUNDS_US[index - 1] if index else 0
            return round(lower + (BOUNDS_US[index] - lower) * max(rank - below, 0) / count)
        below += count
    return BOUNDS_US[-1]
