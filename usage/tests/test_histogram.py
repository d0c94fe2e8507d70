"""Latency histograms: what fits in which bucket, and percentiles out of them."""

from __future__ import annotations

import pytest

from usage import histogram


def of(*latencies_us: int) -> list[int]:
    counts = histogram.empty()
    for us in latencies_us:
        counts[histogram.bucket(us)] += 1
    return counts


def test_bounds_rise_from_a_millisecond_to_ten_minutes() -> None:
    assert list(histogram.BOUNDS_US) == sorted(set(histogram.BOUNDS_US))
    assert (histogram.BOUNDS_US[0], histogram.BOUNDS_US[-1]) == (1_000, 600_000_000)
    assert [us / 1_000_000 for us in histogram.BOUNDS_US] == list(histogram.BOUNDS_S)


@pytest.mark.parametrize(
    ("us", "bucket"), [(0, 0), (1_000, 0), (1_001, 1), (2_000, 1), (600_000_000, 22), (10**12, 23)]
)
def test_bound_belongs_to_its_bucket(us: int, bucket: int) -> None:
    assert histogram.bucket(us) == bucket


def test_histograms_add_up() -> None:
    total = of(900, 1_500)
    histogram.add(total, of(1_500, 10**12))
    assert total == of(900, 1_500, 1_500, 10**12)


def test_no_calls_have_no_percentile() -> None:
    assert histogram.percentile(histogram.empty(), 0.5) is None


def test_percentile_lies_in_the_bucket_of_its_call() -> None:
    counts = of(*[300_000] * 95, *[5_000_000] * 5)
    assert 250_000 <= (histogram.percentile(counts, 0.5) or 0) <= 500_000
    assert 4_000_000 <= (histogram.percentile(counts, 0.99) or 0) <= 6_000_000


def test_percentile_is_interpolated_within_a_bucket() -> None:
    assert histogram.percentile(of(*[300_000] * 100), 0.5) == 375_000


def test_calls_beyond_the_last_bound_count_as_that_bound() -> None:
    assert histogram.percentile(of(10**12), 0.5) == 600_000_000


def test_extremes_are_the_edges_of_what_was_seen() -> None:
    counts = of(300_000, 700_000)
    assert histogram.percentile(counts, 0) == 250_000
    assert histogram.percentile(counts, 1) == 750_000
