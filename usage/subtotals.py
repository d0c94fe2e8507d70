"""Rollups added up by one dimension alone (usage.models.Subtotal).

Always made anew from the rollups of a time, inside the database and in the transaction that wrote these: so they equal
their sums whatever happened to the events, and may be made again at any time.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any

from django.db import connection
from django.db.models import BigIntegerField, F, QuerySet, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, NullIf

from usage.aggregation import histogram_sum, sum_of
from usage.models import Rollup, Subtotal

COLUMNS = {"key": "key_id", "user": "user_id", "team": "team_id", "model": "model", "provider": "provider"}
OF_ROWS = ("key", "user", "team")  # the others are known by their name
# Of days there is a dimension more, of these three together, without latencies. A key belongs to one user and one team
# at a time, so there are hardly more of these than keys.
OWNER = "owner"
PLAIN = ("calls", "unpriced_calls", "prompt_tokens", "completion_tokens", "cost_nano_usd")
OUTCOMES = ("refused", "failed", "abandoned")
HISTOGRAMS = ("latency_histogram", "first_byte_histogram")


def add_up(grain: Rollup.Grain, start: datetime, end: datetime) -> None:
    """Replace the subtotals that begin from `start` up to, but not including, `end` by the sums of the rollups. To be
    called in the transaction that wrote these."""
    moment = connection.ops.adapt_datetimefield_value
    remove(grain, start, end)
    with connection.cursor() as cursor:
        cursor.execute(_statement(), [str(grain), moment(start), moment(end)])
        if grain == Rollup.Grain.DAY:
            cursor.execute(_owners_statement(), [str(grain), moment(start), moment(end)])


def remove(grain: Rollup.Grain, start: datetime, end: datetime) -> None:
    Subtotal.objects.filter(grain=grain, start__gte=start, start__lt=end).delete()


def of(dimension: str, grain: Rollup.Grain) -> QuerySet[Subtotal]:
    return Subtotal.objects.filter(grain=grain, dimension=dimension)


def member(group: int | str | None) -> str:
    """As subtotals have it: the name of a model or provider, the id of a team, user or key (none has the id 0)."""
    return str(group or "")


def group(dimension: str, member: str) -> Any:
    """The other way round: None for calls that belong to no team, user or key."""
    return (int(member) if member else None) if dimension in OF_ROWS else member


def owner(member: str) -> dict[str, int | None]:
    """Of a member of OWNER: the ids of the key, the user and the team."""
    return {name: int(part) if part else None for name, part in zip(OF_ROWS, member.split("/"), strict=True)}


def group_expression(dimension: str) -> Combinable:
    """The same in the database."""
    return Cast(NullIf(F("member"), Value("")), BigIntegerField()) if dimension in OF_ROWS else F("member")


# --- in SQL by hand: the ORM knows no grouping sets -------------------------------------------------------------------
@cache
def _statement() -> str:
    """With the grain, the first start and the last one as its parameters."""
    sums = [*_plain_sums(), *(f"CAST({histogram_sum(name, ANSWERED)} AS text)" for name in HISTOGRAMS)]
    make = _in_one_pass if connection.vendor == "postgresql" else _one_after_the_other
    return f"{_INSERT} {make(', '.join(sums))}"


@cache
def _owners_statement() -> str:
    columns = [COLUMNS[name] for name in OF_ROWS]
    member = " || '/' || ".join(f"coalesce(CAST({column} AS text), '')" for column in columns)
    sums = ", ".join([*_plain_sums(), *("'[]'" for _ in HISTOGRAMS)])
    groups = ", ".join(("grain", "start", *columns))
    return f"{_INSERT} SELECT grain, start, '{OWNER}', {member}, {sums} {_RANGE} GROUP BY {groups}"


def _plain_sums() -> list[str]:
    return [*map(sum_of, PLAIN), *(sum_of("calls", f"outcome = '{outcome}'") for outcome in OUTCOMES)]


_COLUMNS = ", ".join(("grain", "start", "dimension", "member", *PLAIN, *OUTCOMES, *HISTOGRAMS))
_INSERT = f"INSERT INTO usage_subtotal ({_COLUMNS})"
ANSWERED = f"outcome = '{Rollup.Outcome.OK}'"


def _in_one_pass(sums: str) -> str:
    """A row of a grouping set has NULL in the columns of all others."""
    columns = ", ".join(COLUMNS.values())
    dimension = " ".join(f"WHEN GROUPING({column}) = 0 THEN '{name}'" for name, column in COLUMNS.items())
    members = ", ".join(f"CAST({column} AS text)" for column in COLUMNS.values())
    return (
        f"SELECT grain, start, CASE {dimension} ELSE 'all' END, coalesce({members}, ''), {sums} {_RANGE} "
        f"GROUP BY grain, start, GROUPING SETS ((), {columns})"
    )


def _one_after_the_other(sums: str) -> str:
    members = {name: f"coalesce(CAST({column} AS text), '')" for name, column in {"all": "NULL", **COLUMNS}.items()}
    selects = [
        f"SELECT grain, start, '{name}', {member}, {sums} FROM chosen GROUP BY grain, start, {member}"  # noqa: S608
        for name, member in members.items()
    ]
    return f"WITH chosen AS (SELECT * {_RANGE}) {' UNION ALL '.join(selects)}"


_RANGE = "FROM usage_rollup WHERE grain = %s AND start >= %s AND start < %s"
