"""Subtotals as they are, and as they follow from the rollups by plain addition."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from usage.models import Rollup, Subtotal

DIMENSIONS = {
    "key": ["key_id"], "user": ["user_id"], "team": ["team_id"], "model": ["model"], "provider": ["provider"]
}  # fmt: skip
OF_DAYS = {"owner": ["key_id", "user_id", "team_id"]}
SUMS = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd")
OUTCOMES = ("refused", "failed", "abandoned")
HISTOGRAMS = ("latency_histogram", "first_byte_histogram")


def subtotals(grain: str) -> Counter[Any]:
    """(start, dimension, member, what) -> how much. A row that is all zeros is there too, as "rows"."""
    sums: Counter[Any] = Counter()
    for row in Subtotal.objects.filter(grain=grain):
        place = row.start, row.dimension, row.member
        sums[*place, "rows"] += 1
        for name in (*SUMS, *OUTCOMES):
            sums[*place, name] += getattr(row, name)
        for name in HISTOGRAMS:
            for index, calls in enumerate(json.loads(getattr(row, name))):
                sums[*place, name, index] += calls
    return sums


def added_up(grain: str) -> Counter[Any]:
    """The same from the rollups."""
    sums: Counter[Any] = Counter()
    for rollup in Rollup.objects.filter(grain=grain):
        for dimension, columns in {"all": [], **DIMENSIONS, **(OF_DAYS if grain == "day" else {})}.items():
            place = rollup.start, dimension, _member(rollup, columns)
            sums[*place, "rows"] = 1
            for name in SUMS:
                sums[*place, name] += getattr(rollup, name)
            for name in OUTCOMES:
                sums[*place, name] += rollup.calls if rollup.outcome == name else 0
            for name in HISTOGRAMS if dimension != "owner" else ():
                for index, calls in enumerate(getattr(rollup, name)):
                    sums[*place, name, index] += calls if rollup.outcome == "ok" else 0
    return sums


def _member(rollup: Rollup, columns: list[str]) -> str:
    values = [getattr(rollup, column) for column in columns]
    return "/".join("" if value is None else str(value) for value in values)
