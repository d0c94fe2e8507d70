"""Writing usage: event ids, events as the journal brings them, prices."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from accounts.time_ids import id_range, to_unix_us
from accounts.versions import CATALOGUE, current
from usage.models import DirtyHour, ModelPrice, UsageEvent
from usage.services import (
    EVENT_COLUMNS,
    insert_events,
    mark_hours,
    new_event_id,
    set_price,
)
from usage.tests.events import NOON, add, row

MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


# --- event ids ------------------------------------------------------------------------------------------------------
def test_event_id_is_a_version_7_uuid_of_its_millisecond() -> None:
    identifier = UUID(hex=new_event_id(1_790_000_000_123_456))
    assert (identifier.version, identifier.variant) == (7, "specified in RFC 4122")
    assert identifier.int >> 80 == 1_790_000_000_123


def test_event_ids_sort_by_microsecond() -> None:
    start = 1_790_000_000_000_000
    ids = [new_event_id(start + us) for us in range(3000)]
    assert ids == sorted(ids)


def test_event_ids_of_one_moment_differ() -> None:
    assert len({new_event_id(1_790_000_000_000_000) for _ in range(10_000)}) == 10_000


def test_event_ids_of_a_forked_process_differ() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_event_id(1).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 32).decode() != new_event_id(1)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("us", [0, 1, 999, 1000, 123_456])
def test_id_range_is_exact_to_the_microsecond(us: int) -> None:
    moment = NOON + us * MICROSECOND
    identifier = UUID(hex=new_event_id(to_unix_us(moment)))
    first, last = id_range(moment, moment + MICROSECOND)
    assert first <= identifier < last
    before, until = id_range(moment - HOUR, moment)
    assert before < until <= identifier
    assert until == first


def test_times_that_no_call_can_be_of_are_ids_before_the_first_and_after_the_last() -> None:
    first, last = id_range(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    assert first <= UUID(hex=new_event_id(0)) < UUID(hex=new_event_id(to_unix_us(NOON))) < last


# --- events ---------------------------------------------------------------------------------------------------------
@pytest.mark.django_db
def test_event_is_written_as_it_came() -> None:
    sent = row(
        NOON + 123_456 * MICROSECOND,
        key_id=3, user_id=4, team_id=5, streamed=True, cost_nano_usd=2**62, first_byte_us=None, tags={"app": "x"},
    )  # fmt: skip
    insert_events([sent])
    expected = dict(zip(EVENT_COLUMNS, sent, strict=True))
    expected |= {"id": UUID(hex=expected["id"]), "at": NOON + 123_456 * MICROSECOND}
    assert UsageEvent.objects.values(*EVENT_COLUMNS).get() == expected


@pytest.mark.django_db
@pytest.mark.parametrize("us", [0, 1, 500_000, 999_999])
def test_time_is_kept_to_the_microsecond_and_found_by_django(us: int) -> None:
    at = NOON + us * MICROSECOND
    add(at)
    assert UsageEvent.objects.get(at=at).at == at
    assert UsageEvent.objects.filter(at__gt=at).count() == 0


@pytest.mark.django_db
def test_columns_are_those_of_the_model() -> None:
    assert set(EVENT_COLUMNS) == {field.column for field in UsageEvent._meta.concrete_fields}


@pytest.mark.django_db
def test_nothing_to_write_asks_nothing_of_the_database(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        insert_events([])


@pytest.mark.django_db
def test_event_that_is_there_already_is_left_alone() -> None:
    first = row(model="first")
    insert_events([first])
    again = list(first)
    again[EVENT_COLUMNS.index("model")] = "second"
    insert_events([tuple(again), row(), tuple(again)])
    assert UsageEvent.objects.count() == 2
    assert UsageEvent.objects.get(pk=UUID(hex=first[0])).model == "first"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\0b", "ab"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("Grüße 🙂", "Grüße 🙂"),
        ("x" * 500, "x" * 128),
        ("🙂" * 500, "🙂" * 128),
        ("\0" * 100 + "y" * 128, "y" * 128),
        ("quote ' \" \\ %s $1 {} --", "quote ' \" \\ %s $1 {} --"),
        ("tab\tnew\nline\r\x1b\x7f\u2028", "tab\tnew\nline\r\x1b\x7f\u2028"),
    ],
)
def test_hostile_text_is_mended_and_kept(sent: str, kept: str) -> None:
    add(end_user=sent)
    assert UsageEvent.objects.get().end_user == kept


@pytest.mark.django_db
def test_every_text_is_cut_to_its_column() -> None:
    texts = {
        field.column: field.max_length
        for field in UsageEvent._meta.concrete_fields
        if field.get_internal_type() == "CharField"
    }
    add(**dict.fromkeys(texts, "z" * 1000))
    stored = UsageEvent.objects.values(*texts).get()
    assert {name: len(value) for name, value in stored.items()} == texts


@pytest.mark.django_db
def test_hostile_tags_are_mended_and_kept() -> None:
    add(tags={"a\0": "b\0\ud800", "list": [1, "\0", {"deep": "\udfff"}], "none": None, "big": 2**63 - 1})
    stored = {"a": "b?", "list": [1, "", {"deep": "?"}], "none": None, "big": 2**63 - 1}
    assert UsageEvent.objects.get().tags == stored


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [
        {"cost_nano_usd": 2**70},
        {"prompt_tokens": 2**63},
        {"prompt_tokens": None},
        {"status": -1},
        {"model": None},
        {"user_agent": 7},
        {"prompt_tokens": {}},
        {"key_id": "x"},
        {"tags": {"n": 2**70}},
        {"at": 10**30},
        {"at": "now"},
        {"id": "not an id"},
    ],
)
def test_row_that_cannot_be_written_is_left_out_and_the_others_are_not(
    wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    sent = dict(zip(EVENT_COLUMNS, row(request_id="a secret"), strict=True))
    bad = tuple((sent | wrong).values())
    with caplog.at_level(logging.ERROR):
        insert_events([row(), bad, row()])
    assert UsageEvent.objects.count() == 2
    assert bad[0] in caplog.text
    assert "a secret" not in caplog.text


@pytest.mark.django_db
def test_database_that_is_away_is_said_to_be_and_nothing_is_lost_or_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(), row()]
    with monkeypatch.context() as broken:
        broken.setattr(connection, "cursor", _away)
        with pytest.raises(OperationalError):
            insert_events(rows)
    insert_events(rows)
    assert UsageEvent.objects.count() == 2


def _away() -> None:
    raise OperationalError("the server closed the connection")


@pytest.mark.django_db(transaction=True)
def test_database_that_is_not_migrated_loses_nothing() -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE usage_usageevent RENAME TO elsewhere")
        with pytest.raises(DatabaseError), transaction.atomic():
            insert_events([row()])
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO usage_usageevent")


@pytest.mark.django_db
def test_hours_of_the_events_are_marked_once_a_batch() -> None:
    insert_events([row(NOON), row(NOON + 59 * timedelta(minutes=1)), row(NOON + HOUR)])
    insert_events([row(NOON + HOUR)])
    assert dict(DirtyHour.objects.values_list("hour", "marks")) == {NOON: 1, NOON + HOUR: 2}


@pytest.mark.django_db
def test_hour_is_marked_in_the_transaction_of_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(hours: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr("usage.services.mark_hours", fail)
    with pytest.raises(OperationalError), transaction.atomic():
        insert_events([row()])
    assert not UsageEvent.objects.exists()


@pytest.mark.django_db
def test_mark_does_not_undo_what_was_rolled_up() -> None:
    mark_hours([NOON])
    DirtyHour.objects.update(rolled_up=1)
    mark_hours([NOON])
    assert DirtyHour.objects.values_list("marks", "rolled_up").get() == (2, 1)


# --- prices ---------------------------------------------------------------------------------------------------------
def prices() -> list[tuple[int, int, int | None, int | None]]:
    return list(
        ModelPrice.objects.order_by("valid_from", "id").values_list(
            "input_nano_usd_per_mtok",
            "output_nano_usd_per_mtok",
            "cached_nano_usd_per_mtok",
            "cache_write_nano_usd_per_mtok",
        )
    )


def set_gpt(dollars: str, **more: Any) -> bool:
    return set_price("gpt", input_usd_per_mtok=Decimal(dollars), output_usd_per_mtok=Decimal("1"), **more)


@pytest.mark.django_db
def test_price_is_written_in_nano_dollars_from_now_on() -> None:
    before = datetime.now(UTC)
    assert set_gpt("0.15", cached_usd_per_mtok=Decimal("0.075"), cache_write_usd_per_mtok=Decimal("0.3"))
    assert prices() == [(150_000_000, 10**9, 75_000_000, 300_000_000)]
    assert before <= ModelPrice.objects.get().valid_from <= datetime.now(UTC)


@pytest.mark.django_db
def test_price_that_counts_already_is_not_written_again() -> None:
    set_gpt("0.15")
    assert not set_gpt("0.150")
    assert set_gpt("0.15", cached_usd_per_mtok=Decimal("0.15"))
    assert len(prices()) == 2


@pytest.mark.django_db
def test_older_price_is_kept_for_older_calls() -> None:
    set_gpt("1")
    set_gpt("2")
    set_gpt("1")
    assert [price[0] for price in prices()] == [10**9, 2 * 10**9, 10**9]


@pytest.mark.django_db
def test_price_of_another_model_does_not_count() -> None:
    set_price("other", input_usd_per_mtok=Decimal("1"), output_usd_per_mtok=Decimal("1"))
    assert set_gpt("1")


@pytest.mark.django_db
def test_future_price_is_compared_with_the_one_that_would_count_then() -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    set_gpt("1")
    assert set_gpt("2", valid_from=tomorrow)
    assert not set_gpt("2", valid_from=tomorrow + HOUR)
    assert not set_gpt("1")


@pytest.mark.django_db
def test_every_change_of_a_price_makes_the_catalogue_stale() -> None:
    def version() -> int:
        return current().get(CATALOGUE, 0)

    versions = [version()]
    for change in (
        lambda: set_gpt("1"),
        lambda: ModelPrice.objects.get().save(),
        lambda: ModelPrice.objects.get().delete(),
    ):
        change()
        versions.append(version())
    assert versions == sorted(set(versions))
    assert set_gpt("1")
    stale = version()
    assert not set_gpt("1")
    assert version() == stale
