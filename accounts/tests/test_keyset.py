"""Pages by primary key: complete, in order, and never counted."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.keyset import KeysetPage, distinct_values
from usage.models import UsageEvent
from usage.tests.many_events import insert_many

pytestmark = pytest.mark.django_db


@pytest.fixture
def ids() -> list[UUID]:
    """Of 25 events, newest first."""
    insert_many(25)
    return list(UsageEvent.objects.order_by("-pk").values_list("pk", flat=True))


def page(**cursor: object) -> KeysetPage:
    return KeysetPage(UsageEvent.objects.all(), 10, **cursor)


def keys(found: KeysetPage) -> list[UUID]:
    return [row.pk for row in found.rows]


def test_first_page_is_the_newest(ids: list[UUID]) -> None:
    first = page()
    assert keys(first) == ids[:10]
    assert (first.has_newer, first.has_older) == (False, True)


def test_older_pages_follow_without_gap_or_overlap(ids: list[UUID]) -> None:
    def walk() -> Iterator[UUID]:
        found = page()
        yield from keys(found)
        while found.has_older:
            found = page(before=found.rows[-1].pk)
            yield from keys(found)

    assert list(walk()) == ids


def test_last_page_says_that_it_is_the_last(ids: list[UUID]) -> None:
    last = page(before=ids[19])
    assert keys(last) == ids[20:]
    assert (last.has_newer, last.has_older) == (True, False)


def test_newer_page_is_the_one_just_before(ids: list[UUID]) -> None:
    newer = page(after=ids[20])
    assert keys(newer) == ids[10:20]
    assert (newer.has_newer, newer.has_older) == (True, True)


def test_newer_page_at_the_top_is_filled_up(ids: list[UUID]) -> None:
    top = page(after=ids[3])
    assert keys(top) == ids[:10]
    assert not top.has_newer


def test_exactly_one_page_has_no_neighbours() -> None:
    insert_many(10)
    only = page()
    assert (only.has_newer, only.has_older) == (False, False)


def test_empty_table_has_an_empty_page() -> None:
    assert page().rows == []


def test_page_is_one_query_that_counts_nothing(ids: list[UUID]) -> None:
    with CaptureQueriesContext(connection) as queries:
        page(before=ids[5])
    assert len(queries) == 1
    assert "COUNT" not in queries[0]["sql"].upper()
    assert "OFFSET" not in queries[0]["sql"].upper()


def test_distinct_values_are_sorted_and_leave_out_the_empty_one() -> None:
    insert_many(20)
    assert distinct_values(UsageEvent, "model") == ["model-0", "model-1", "model-2"]
    assert distinct_values(UsageEvent, "error_code") == ["rate_limit_exceeded"]


def test_distinct_values_of_an_empty_table_are_none() -> None:
    assert distinct_values(UsageEvent, "model") == []


def test_distinct_values_are_capped() -> None:
    insert_many(20)
    assert distinct_values(UsageEvent, "request_id", limit=7) == [f"req-{number:07}" for number in range(7)]
