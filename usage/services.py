"""What writes usage: events as the journal's flusher brings them. Prices are set by usage.prices."""

from __future__ import annotations

import logging
import operator
import os
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

import orjson
from django.db import DataError, IntegrityError, connection, transaction

from accounts.time_ids import EPOCH, time_bits
from accounts.versions import CATALOGUE, bump
from usage.models import UsageEvent
from usage.prices import set_price as set_price

logger = logging.getLogger(__name__)

EVENT_COLUMNS: tuple[str, ...] = (
    "id", "at", "request_id", "endpoint", "key_id", "key_label", "user_id", "team_id", "model", "provider",
    "upstream_model", "status", "error_code", "streamed", "prompt_tokens", "completion_tokens", "cached_tokens",
    "cache_write_tokens", "reasoning_tokens", "estimated", "cost_nano_usd", "latency_us", "first_byte_us", "attempts",
    "end_user", "client_ip", "user_agent", "organization", "trace_id", "above_hold", "failed_tries", "spent_budget_id",
    "refused_by", "units", "tags",
)  # fmt: skip
Row = tuple[Any, ...]

HOUR_US = 3_600_000_000
UUID_BYTES = 16
UUID_VARIANT = 2 << 62

_random = random.Random()  # noqa: S311 - ids must differ, not be secret
os.register_at_fork(after_in_child=_random.seed)


# --- event ids ------------------------------------------------------------------------------------------------------
def new_event_id(at_us: int) -> str:
    """A UUID of version 7 as 32 hex digits; see accounts.time_ids. `at_us`: unix time in microseconds."""
    return f"{time_bits(at_us) | UUID_VARIANT | _random.getrandbits(62):032x}"


# --- events ---------------------------------------------------------------------------------------------------------
_FIELDS = {str(field.column): field for field in UsageEvent._meta.concrete_fields}
_TEXTS = {
    name: field.max_length or 0 for name, field in _FIELDS.items() if field.get_internal_type() == "CharField"
}  # fmt: skip
_FLAGS = [name for name, field in _FIELDS.items() if field.get_internal_type() == "BooleanField"]
_NULLABLE = [name for name, field in _FIELDS.items() if field.null]
_NUMBERS = [name for name, field in _FIELDS.items() if field.get_internal_type().endswith("IntegerField")]


def _pick(names: Iterable[str]) -> Callable[[Row], tuple[Any, ...]]:
    """Takes the values of `names` out of a row, in EVENT_COLUMNS order."""
    return operator.itemgetter(*sorted(EVENT_COLUMNS.index(name) for name in names))


_pick_texts = _pick(_TEXTS)
_pick_numbers = _pick({"at", *_FLAGS, *_NUMBERS} - {*_NULLABLE})
_pick_nullable = _pick(_NULLABLE)
_TEXT_LENGTHS = tuple(_TEXTS[name] for name in EVENT_COLUMNS if name in _TEXTS)
_TEXT_AT = tuple(index for index, name in enumerate(EVENT_COLUMNS) if name in _TEXTS)
_AT, _UNITS, _TAGS = (EVENT_COLUMNS.index(name) for name in ("at", "units", "tags"))


def insert_events(rows: Sequence[Row]) -> None:
    """Write usage events. `rows` are in EVENT_COLUMNS order: `id` as 32 hex digits, `at` in unix microseconds, `units`
    and `tags` dicts, everything else as the model has it. An event that is there already is left alone.

    One transaction. Raises django.db.OperationalError or InterfaceError when the database is away; then nothing was
    written. Text that no database takes is mended; a row that is beyond that is logged and left out.
    """
    if not rows:
        return
    try:
        _insert(rows)
    except _BAD_ROW:
        for row in rows:
            _insert_or_skip(row)


# What a row of the wrong shape raises, here or in the database. Not when the database is away or not migrated.
_BAD_ROW = (DataError, IntegrityError, TypeError, ValueError, OverflowError)


def _insert_or_skip(row: Row) -> None:
    try:
        _insert([row])
    except _BAD_ROW as error:
        # The class alone: the message of a database quotes the values.
        logger.error("usage event %s cannot be written (%s); it is left out", row[0], type(error).__name__)


def _insert(rows: Sequence[Row]) -> None:
    clean = [_clean(row) for row in rows]
    hours = {row[_AT] // HOUR_US for row in rows}
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_postgresql_insert(), [orjson.dumps(clean).decode()])
        else:
            cursor.executemany(_SQLITE_INSERT, [_sqlite_row(row) for row in clean])
        mark_hours(EPOCH + timedelta(hours=hour) for hour in hours)


def mark_hours(hours: Iterable[datetime]) -> None:
    """Say, in the current transaction, that the rollups of these hours (UTC, whole) are out of date.

    DO UPDATE, not DO NOTHING: it takes the row's lock until our commit. A roll-up that has not seen our events waits
    there, and then finds more marks than it has counted, so the hour stays dirty. Sorted, so that two writers wait for
    each other in one order; and last in the transaction, so that they wait shortly.
    """
    with connection.cursor() as cursor:
        cursor.executemany(_MARK, [(connection.ops.adapt_datetimefield_value(hour),) for hour in sorted(hours)])


_MARK = (
    "INSERT INTO usage_dirtyhour (hour, marks, rolled_up) VALUES (%s, 1, 0) "
    "ON CONFLICT (hour) DO UPDATE SET marks = usage_dirtyhour.marks + 1"
)
_INTO = f"INSERT INTO usage_usageevent ({', '.join(EVENT_COLUMNS)})"
_SQLITE_INSERT = f"{_INTO} VALUES ({', '.join(['%s'] * len(EVENT_COLUMNS))}) ON CONFLICT (id) DO NOTHING"


@cache
def _postgresql_insert() -> str:
    """One statement with the whole batch as one JSON parameter: 2.5 us of our CPU a row, where COPY into a temporary
    table takes 10 (and litters the catalogue) and executemany 46."""
    values = ", ".join(_postgresql_value(index, name) for index, name in enumerate(EVENT_COLUMNS))
    return f"{_INTO} SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS event ON CONFLICT (id) DO NOTHING"  # noqa: S608


def _postgresql_value(index: int, name: str) -> str:
    kind = str(_FIELDS[name].db_type(connection)).partition("(")[0]
    if name == "at":
        return f"'epoch'::timestamptz + (event->>{index})::bigint * interval '1 microsecond'"
    return f"event->{index}" if kind == "jsonb" else f"(event->>{index})::{kind}"


def _sqlite_row(row: Row) -> Row:
    documents = (orjson.dumps(value).decode() if value else "{}" for value in row[_UNITS:])
    return (row[0], _sqlite_time(row[_AT]), *row[_AT + 1 : _UNITS], *documents)


def _sqlite_time(at_us: int) -> str:
    """As Django writes a datetime there."""
    seconds, us = divmod(at_us, 1_000_000)
    return f"{_sqlite_second(seconds)}.{us:06d}" if us else _sqlite_second(seconds)


@lru_cache(maxsize=1024)
def _sqlite_second(seconds: int) -> str:
    return f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}"


def _clean(row: Row) -> Row:
    """The row as both databases take it. Raises TypeError or ValueError when a value is of the wrong kind."""
    # A driver refuses a wrong type with an error that can also mean that the database is away; SQLite just stores it.
    sum(_pick_numbers(row))
    sum(filter(None, _pick_nullable(row)))
    if len(bytes.fromhex(row[0])) != UUID_BYTES:
        raise ValueError("not the id of an event")
    texts = _pick_texts(row)
    joined = "".join(texts)
    if not joined.isascii() or "\0" in joined or any(map(operator.gt, map(len, texts), _TEXT_LENGTHS)):
        values = list(row)
        for index, length in zip(_TEXT_AT, _TEXT_LENGTHS, strict=True):
            values[index] = _storable(row[index])[:length]
        row = tuple(values)
    if row[_TAGS] or row[_UNITS]:
        row = (*row[:_UNITS], _storable_json(row[_UNITS]), _storable_json(row[_TAGS]))
    return row


def _storable(text: str) -> str:
    """Without NUL, which PostgreSQL's text cannot hold, and with lone surrogates replaced, which are not UTF-8."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _storable_json(value: Any) -> Any:
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, dict):
        return {_storable(str(key)): _storable_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable_json(item) for item in value]
    return value


# --- prices ---------------------------------------------------------------------------------------------------------
def price_changed(**kwargs: object) -> None:
    """Signal receiver: a ModelPrice was saved or deleted."""
    bump(CATALOGUE)
