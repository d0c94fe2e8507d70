"""Adds up the events of a time, by the database. What counts is what is there: events, adjustments of them, and the
sums that stayed of those that were deleted because of their age."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connection, models

from accounts.time_ids import id_range
from usage import histogram
from usage.models import Adjustment, Rollup, UsageEvent

MINUTE = timedelta(minutes=1)

DIMENSIONS = ("key_id", "user_id", "team_id", "model", "provider", "outcome")
SUMS = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd", "latency_us")
HISTOGRAMS = ("latency_histogram", "first_byte_histogram")


def minutes(start: datetime, end: datetime) -> list[Rollup]:
    """Rollups by minute of `start` to `end`, both whole hours of one and the same. Deleted events are not in them."""
    groups = _Groups(Rollup.Grain.MINUTE, start, ("minute", "outcome"))
    groups.add_what_is_there(*id_range(start, end))
    return groups.rollups()


def period(grain: Rollup.Grain, start: datetime, end: datetime) -> list[Rollup]:
    """The rollups of all that happened from `start` up to, but not including, `end`, deleted events included."""
    groups = _Groups(grain, start, DIMENSIONS)
    groups.add_what_is_there(*id_range(start, end))
    pruned = Rollup.objects.filter(grain=Rollup.Grain.PRUNED, start__gte=start, start__lt=end)
    groups.add_rollups(pruned.values_list(*DIMENSIONS, *HISTOGRAMS, *SUMS))
    return groups.rollups()


def about_to_be_pruned(start: datetime, low: UUID, high: UUID) -> list[Rollup]:
    """The sums of the events and adjustments with ids from `low` up to, but not including, `high`, all of them of the
    hour that begins at `start`: what must stay of them."""
    groups = _Groups(Rollup.Grain.PRUNED, start, DIMENSIONS)
    groups.add_what_is_there(low, high)
    return groups.rollups()


class _Groups:
    """Rollups by the values of `by`."""

    def __init__(self, grain: Rollup.Grain, start: datetime, by: tuple[str, ...]) -> None:
        self.grain, self.start, self.by = grain, start, by
        self._groups: dict[tuple[Any, ...], Rollup] = {}

    def rollups(self) -> list[Rollup]:
        return list(self._groups.values())

    def add_what_is_there(self, low: UUID, high: UUID) -> None:
        for row in _run(_events_statement(self.by), UsageEvent, low, high):
            self._add_bucket(row)
        for row in _run(_adjustments_statement(self.by), Adjustment, low, high):
            *key, delta, priced_calls = row
            group = self._group(tuple(key))
            group.cost_nano_usd += delta
            group.unpriced_calls -= priced_calls

    def add_rollups(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for row in rows:
            width = len(self.by)
            group = self._group(row[:width])
            for name, more in zip(HISTOGRAMS, row[width:], strict=False):
                histogram.add(getattr(group, name), more)
            self._add_sums(group, row[-len(SUMS) :])

    def _add_bucket(self, row: tuple[Any, ...]) -> None:
        """The database groups by latency bucket too, so that one pass gives sums and histograms; what comes back is a
        few rows per group, however many events there are."""
        *key, latency_bucket, first_byte_bucket = row[: -len(SUMS)]
        group = self._group(tuple(key))
        sums = row[-len(SUMS) :]
        self._add_sums(group, sums)
        calls = sums[SUMS.index("calls")]
        group.latency_histogram[latency_bucket] += calls
        if first_byte_bucket is not None:
            group.first_byte_histogram[first_byte_bucket] += calls

    def _add_sums(self, group: Rollup, sums: Iterable[int]) -> None:
        for name, value in zip(SUMS, sums, strict=True):
            setattr(group, name, getattr(group, name) + value)

    def _group(self, key: tuple[Any, ...]) -> Rollup:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _empty(self.grain, self.start, dict(zip(self.by, key, strict=True)))
        return group


def _empty(grain: Rollup.Grain, start: datetime, group: dict[str, Any]) -> Rollup:
    start += group.pop("minute", 0) * MINUTE
    sums = dict.fromkeys(SUMS, 0)
    histograms = {name: histogram.empty() for name in HISTOGRAMS}
    return Rollup(grain=grain, start=start, **group, **sums, **histograms)


def _run(statement: str, model: type[models.Model], low: UUID, high: UUID) -> list[tuple[Any, ...]]:
    bounds = [model._meta.pk.get_db_prep_value(bound, connection) for bound in (low, high)]
    with connection.cursor() as cursor:
        cursor.execute(statement, bounds)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


# --- in SQL by hand: the ORM takes longer to put it together than the database to answer it ---------------------------
@cache
def _events_statement(by: tuple[str, ...]) -> str:
    """Rows of `by`, the two latency buckets, and SUMS."""
    columns = [_column(name) for name in (*by, "latency_bucket", "first_byte_bucket")]
    return _grouped("usage_usageevent", columns, [_SUM_EXPRESSIONS[name] for name in SUMS])


@cache
def _adjustments_statement(by: tuple[str, ...]) -> str:
    """Rows of `by`, the change of the cost, and how many calls got a price by it."""
    sums = [sum_of("delta_nano_usd"), sum_of("priced_calls")]
    return _grouped("usage_adjustment", [_column(name) for name in by], sums)


def _grouped(table: str, columns: list[str], sums: list[str]) -> str:
    groups = ", ".join(str(number + 1) for number in range(len(columns)))
    selected = ", ".join(columns + sums)
    return f"SELECT {selected} FROM {table} WHERE id >= %s AND id < %s GROUP BY {groups}"  # noqa: S608


def _column(name: str) -> str:
    if name == "minute" and connection.vendor == "sqlite":
        return "CAST(substr(at, 15, 2) AS integer)"  # of a text such as 2026-11-21 03:59:59.123456
    return _EXPRESSIONS.get(name, name)


def sum_of(column: str, where: str = "") -> str:
    """In SQL; of the rows for which `where` holds."""
    only = f" FILTER (WHERE {where})" if where else ""
    # The sum of bigints is a numeric on PostgreSQL, which would come as a Decimal.
    return f"CAST(coalesce(sum({column}){only}, 0) AS bigint)"


def _bucket_of(column: str) -> str:
    """usage.histogram.bucket in SQL; NULL for NULL."""
    within = " ".join(f"WHEN {column} <= {bound} THEN {index}" for index, bound in enumerate(histogram.BOUNDS_US))
    return f"CASE WHEN {column} IS NULL THEN NULL {within} ELSE {len(histogram.BOUNDS_US)} END"


_EXPRESSIONS = {
    "minute": "CAST(EXTRACT(minute FROM at AT TIME ZONE 'UTC') AS integer)",
    "outcome": (
        "CASE WHEN status = 499 THEN 'abandoned' WHEN status >= 500 OR status = 0 THEN 'failed' "
        "WHEN status >= 400 THEN 'refused' ELSE 'ok' END"
    ),
    "latency_bucket": _bucket_of("latency_us"),
    "first_byte_bucket": _bucket_of("first_byte_us"),
}
_SUM_EXPRESSIONS = {
    "calls": "count(*)",
    "unpriced_calls": "count(*) FILTER (WHERE cost_nano_usd IS NULL)",
    **{name: sum_of(name) for name in ("prompt_tokens", "completion_tokens", "cost_nano_usd", "latency_us")},
}


# --- sums of sums -----------------------------------------------------------------------------------------------------
def add_up(source: Rollup.Grain, start: datetime, end: datetime, into: Rollup.Grain) -> None:
    """Write the sums of the rollups of `source` between `start` and `end` as rollups of `into` that begin at `start`.

    Inside the database: a day is the sum of thousands of rows, and no other process need hold them.
    """
    moment = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        cursor.execute(_add_up_statement(), [str(into), moment(start), str(source), moment(start), moment(end)])


@cache
def _add_up_statement() -> str:
    columns = ", ".join(("grain", "start", *DIMENSIONS, *SUMS, *HISTOGRAMS))
    groups = ", ".join(DIMENSIONS)
    sums = ", ".join([*map(sum_of, SUMS), *map(histogram_sum, HISTOGRAMS)])
    start = "CAST(%s AS timestamptz)" if connection.vendor == "postgresql" else "%s"
    return (
        f"INSERT INTO usage_rollup ({columns}) SELECT %s, {start}, {groups}, {sums} FROM usage_rollup "  # noqa: S608
        f"WHERE grain = %s AND start >= %s AND start < %s GROUP BY {groups}"
    )


def histogram_sum(column: str, where: str = "") -> str:
    """In SQL, as JSON; of the rows for which `where` holds."""
    if connection.vendor == "postgresql":
        calls = [sum_of(f"({column}->>{number})::bigint", where) for number in range(histogram.BUCKETS)]
        return f"jsonb_build_array({', '.join(calls)})"
    calls = [sum_of(f"json_extract({column}, {path!r})", where) for path in _SQLITE_PATHS]
    return f"json_array({', '.join(calls)})"


_SQLITE_PATHS = [f"$[{number}]" for number in range(histogram.BUCKETS)]
