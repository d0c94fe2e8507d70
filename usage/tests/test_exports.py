"""Usage events as files: every format says the same, in parts, and in flat memory."""

from __future__ import annotations

import csv
import io
import json
import threading
import tracemalloc
import uuid
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from arro3.io import read_parquet
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Team
from usage import exports, parquet
from usage.exports import COLUMNS, FORMATS, pages
from usage.models import Adjustment, UsageEvent
from usage.tests.events import NOON, add
from usage.tests.many_events import insert_many

pytestmark = pytest.mark.django_db

EVERY_FORMAT = pytest.mark.parametrize("kind", FORMATS)


def exported(kind: str, **filters: Any) -> list[dict[str, Any]]:
    """The rows as whoever opens the file sees them."""
    parts = FORMATS[kind].write(pages(UsageEvent.objects.filter(**filters)))
    content = b"".join(parts)
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    if kind == "jsonl":
        return [json.loads(line) for line in content.decode().splitlines()]
    return read_parquet(io.BytesIO(content)).read_all().to_struct_array().to_pylist()


def adjust(event: UsageEvent, delta_nano_usd: int) -> None:
    Adjustment.objects.create(
        id=uuid.uuid4(), event_id=event.pk, at=event.at, model=event.model, provider=event.provider,
        status=event.status, delta_nano_usd=delta_nano_usd,
    )  # fmt: skip


@EVERY_FORMAT
def test_row_has_all_columns_in_order(kind: str) -> None:
    add()
    (row,) = exported(kind)
    assert list(row) == list(COLUMNS)


@EVERY_FORMAT
def test_every_field_of_an_event_but_names_of_rows_is_exported(kind: str) -> None:
    fields = {field.name for field in UsageEvent._meta.concrete_fields} - {"key", "user", "team"}
    assert fields | {"key_id", "user_id", "team_id"} == set(exports._FIELDS)


@EVERY_FORMAT
def test_money_is_exact_and_adjustments_have_a_column(kind: str) -> None:
    add(cost_nano_usd=412_345)
    adjust(UsageEvent.objects.get(), -1)
    adjust(UsageEvent.objects.get(), 3_000_000_001)
    (row,) = exported(kind)
    assert (Decimal(row["cost_usd"]), Decimal(row["adjustments_usd"])) == (Decimal("0.000412345"), Decimal(3))


@EVERY_FORMAT
def test_unpriced_call_has_no_cost(kind: str) -> None:
    add(cost_nano_usd=None)
    (row,) = exported(kind)
    assert row["cost_usd"] in ("", None)
    assert Decimal(row["adjustments_usd"]) == 0


@EVERY_FORMAT
def test_team_goes_by_its_name(kind: str, research: Team) -> None:
    add(NOON, team_id=research.pk)
    add(NOON + timedelta(seconds=1))
    assert [row["team"] for row in exported(kind)] == ["research", ""]


@EVERY_FORMAT
def test_tags_are_kept(kind: str) -> None:
    add(tags={"app": "chat"})
    (row,) = exported(kind)
    assert (row["tags"] if kind == "jsonl" else json.loads(row["tags"])) == {"app": "chat"}


@EVERY_FORMAT
def test_nothing_found_is_still_a_file(kind: str) -> None:
    assert exported(kind) == []


@EVERY_FORMAT
def test_events_come_in_the_order_of_their_time_and_none_is_missing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "__defaults__", (7,))
    insert_many(50)
    assert [row["request_id"] for row in exported(kind)] == [f"req-{number:07}" for number in range(50)]


@EVERY_FORMAT
def test_only_what_is_filtered_is_exported(kind: str) -> None:
    insert_many(50)
    assert {row["model"] for row in exported(kind, model="model-1")} == {"model-1"}


def test_time_and_counts_keep_their_types_in_parquet() -> None:
    add(NOON, first_byte_us=None, failed_tries="azure:503", spent_budget_id=7)
    (row,) = exported("parquet")
    assert row["at"] == NOON
    assert (row["prompt_tokens"], row["first_byte_us"], row["streamed"]) == (100, None, False)
    assert (row["failed_tries"], row["spent_budget_id"]) == ("azure:503", 7)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"], ids=["=", "+", "-", "@", "tab", "return"])
def test_text_of_a_caller_is_no_formula(start: str) -> None:
    add(user_agent=f"{start}1+1")
    assert exported("csv")[0]["user_agent"] == f"'{start}1+1"
    assert exported("jsonl")[0]["user_agent"] == f"{start}1+1"


def test_negative_amount_stays_a_number() -> None:
    add()
    adjust(UsageEvent.objects.get(), -5)
    assert exported("csv")[0]["adjustments_usd"] == "-0.000000005"


# --- in parts -------------------------------------------------------------------------------------------------------
def test_export_is_read_in_pages_of_two_queries() -> None:
    insert_many(45)
    with CaptureQueriesContext(connection) as asked:
        assert [len(page) for page in pages(UsageEvent.objects.all(), size=20)] == [20, 20, 5]
    assert len(asked) == 3 * 2 + 1  # and the names of the teams


def test_page_is_read_when_it_is_asked_for() -> None:
    insert_many(45)
    found = pages(UsageEvent.objects.all(), size=20)
    next(found)
    with CaptureQueriesContext(connection) as asked:
        next(found)
    assert len(asked) == 2


@EVERY_FORMAT
def test_memory_does_not_grow_with_the_export(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_IN_GROUP", 400)
    insert_many(200)
    (page,) = pages(UsageEvent.objects.all())

    def highest(times: int) -> int:
        def repeated() -> Iterator[exports.Page]:
            for _ in range(times):
                yield list(page)

        tracemalloc.start()
        for _part in FORMATS[kind].write(repeated()):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    highest(1)
    assert highest(20) < 1.5 * highest(5)


def test_abandoned_parquet_leaves_no_thread_behind() -> None:
    insert_many(10)
    parts = FORMATS["parquet"].write(pages(UsageEvent.objects.all(), size=2))
    next(parts)
    parts.close()
    assert "parquet" not in {thread.name for thread in threading.enumerate()}


def test_broken_page_breaks_the_parquet_file_too() -> None:
    def broken() -> Iterator[exports.Page]:
        yield from pages(UsageEvent.objects.all())
        raise RuntimeError("the database is away")

    add()
    with pytest.raises(RuntimeError, match="database is away"):
        list(FORMATS["parquet"].write(broken()))
