"""How much memory an export of very many usage events takes: as much as one of a few."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERY = 100_000
MOST_MIB = 32


@dataclass(frozen=True, slots=True)
class Exported:
    """`rss_mib`: resident memory of the process when the first page of rows was written, and after every 100,000
    rows. `peak_mib`: the most at any page in between."""

    kind: str
    rows: int
    size: int  # bytes
    took_s: float
    rss_mib: list[float]
    peak_mib: float

    @property
    def growth_mib(self) -> float:
        return self.peak_mib - self.rss_mib[0]

    @property
    def misses(self) -> str:
        return "" if self.growth_mib <= MOST_MIB else f"{self.growth_mib:.0f} MiB more, at most {MOST_MIB}"

    def __str__(self) -> str:
        flow = " ".join(f"{value:.0f}" for value in self.rss_mib)
        return (
            f"- export of {self.rows:,} rows as {self.kind}, {self.size / 2**20:,.0f} MiB in {self.took_s:,.0f} s: "
            f"peak RSS {self.growth_mib:.1f} MiB over the start; every {EVERY:,} rows, MiB: {flow}"
        )


def export(kind: str, most: int) -> Exported:
    """Of the oldest `most` events, or all there are, by the product's own code. What is written is thrown away."""
    from usage import exports
    from usage.models import UsageEvent

    rows, size, peak_mib = 0, 0, 0.0
    rss_mib: list[float] = []

    def counted(pages: Iterator[Any]) -> Iterator[Any]:
        nonlocal rows
        for page in pages:
            rows += len(page)
            yield page
            if rows >= most:
                return

    began = time.monotonic()
    for part in exports.FORMATS[kind].write(counted(exports.pages(UsageEvent.objects.all()))):
        size += len(part)
        if not rows:
            continue  # the header
        now_mib = resident_mib()
        peak_mib = max(peak_mib, now_mib)
        if rows >= EVERY * len(rss_mib):
            rss_mib.append(now_mib)
    return Exported(kind, rows, size, time.monotonic() - began, rss_mib, peak_mib)


def resident_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
