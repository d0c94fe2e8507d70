"""Sums over findings, for charts and the front page: of a window of time, and from indexes alone.

A million findings within the window take half a second by day and a quarter by rule or team, on SQLite on a busy
machine; what is older than the window costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Literal
from uuid import UUID

from django.db import connection
from django.db.models import Count, Max, Q, QuerySet, Value
from django.utils import timezone

from accounts.models import Team
from accounts.time_ids import first_id
from policies.models import Finding

DAYS = 30
DAY = timedelta(days=1)

# Each finding is of one of these: what was done about it.
ACTED = Q(dry_run=False, failed=False)
OUTCOMES = {
    "blocked": Q(action="block") & ACTED,
    "changed": Q(action="redact") & ACTED,
    "audited": Q(action="audit") & ACTED,
    "dry_run": Q(dry_run=True, failed=False),
    "failed": Q(failed=True),
}


@dataclass(frozen=True, slots=True)
class Day:
    """Findings by what was done. `dry_run`: nothing, the rule was being tried; `failed`: the check failed."""

    date: date
    blocked: int
    changed: int
    audited: int
    dry_run: int
    failed: int

    @property
    def total(self) -> int:
        return self.blocked + self.changed + self.audited + self.dry_run + self.failed


@dataclass(frozen=True, slots=True)
class Share:
    """How many findings a rule or a team had. `id`: None for rules."""

    id: int | None
    name: str
    findings: int


@dataclass(frozen=True, slots=True)
class Acted:
    """Calls (not findings: one call may have several) that rules blocked or changed."""

    blocked: int
    changed: int


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """A key and how many of its calls rules have blocked."""

    key_id: int
    key_label: str
    team_id: int | None
    calls: int


def blocked_keys(since: datetime, at_least: int, limit: int = 200) -> list[BlockedKey]:
    """Keys of which at least so many calls were blocked since then, the most often blocked first."""
    rows = Finding.objects.filter(OUTCOMES["blocked"], pk__gte=first_id(since), key__isnull=False)
    sums = rows.order_by().values("key_id").annotate(calls=Count("event_id", distinct=True))
    many = sums.filter(calls__gte=at_least).annotate(label=Max("key_label"), team=Max("team_id"))
    found = many.order_by("-calls", "key_id").values_list("key_id", "label", "team", "calls")
    return [BlockedKey(key_id, label, team_id, calls) for key_id, label, team_id, calls in found[:limit] if key_id]


def by_day(days: int = DAYS) -> list[Day]:
    """Of the last `days` days, today included, oldest first. Days are those of the installation's time zone."""
    today = timezone.localdate()
    dates = [today - (days - 1 - index) * DAY for index in range(days)]
    counted: dict[int, dict[str, Any]] = {row.pop("index"): row for row in _per_day(dates)}
    return [Day(day, **counted.get(index, dict.fromkeys(OUTCOMES, 0))) for index, day in enumerate(dates)]


def _per_day(dates: list[date]) -> QuerySet[Finding, Any]:
    """A range of the index for each: to group by a computed day would sort all rows."""
    each = [
        _between(_midnight(day), _midnight(day + DAY))
        .values(index=Value(index))
        .annotate(**{name: Count("pk", filter=condition) for name, condition in OUTCOMES.items()})
        for index, day in enumerate(dates)
    ]
    return each[0].union(*each[1:], all=True)


def _between(start: datetime, end: datetime) -> QuerySet[Finding]:
    return Finding.objects.filter(pk__gte=first_id(start), pk__lt=first_id(end)).order_by()


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def start_of(days: int = DAYS) -> datetime:
    """Where the window of `by_day` begins."""
    return _midnight(timezone.localdate() - (days - 1) * DAY)


def most(dimension: Literal["rule", "team"], since: datetime, limit: int = 10) -> list[Share]:
    """Which rules or teams had the most findings since then."""
    if dimension == "rule":
        return [Share(None, str(name), count) for name, count in _most("rule", since, limit)]
    counted = _most("team_id", since, limit)
    names = dict(Team.objects.filter(pk__in=[pk for pk, _ in counted]).values_list("pk", "name"))
    return [Share(pk, names.get(pk, f"(deleted team {pk})"), count) for pk, count in counted]


def _most(column: str, since: datetime, limit: int) -> list[tuple[Any, int]]:
    """(value, count). From one value of the index to the next, and only the window's part of each is counted."""
    table, name = (connection.ops.quote_name(part) for part in (Finding._meta.db_table, column))
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE found(value) AS (
                SELECT MIN({name}) FROM {table}
                UNION ALL
                SELECT (SELECT MIN({name}) FROM {table} WHERE {name} > found.value)
                FROM found WHERE found.value IS NOT NULL
            ), counted(value, findings) AS MATERIALIZED (
                SELECT value, (SELECT COUNT(*) FROM {table} WHERE {name} = found.value AND id >= %s)
                FROM found WHERE value IS NOT NULL
            )
            SELECT value, findings FROM counted WHERE findings > 0 ORDER BY findings DESC, value LIMIT %s
            """,  # noqa: S608 - our own names
            [Finding._meta.pk.get_db_prep_value(first_id(since), connection), limit],
        )
        return list(cursor.fetchall())


def acted_since(since: datetime) -> Acted:
    """For a window of a day or less: it looks at each call that was blocked or changed."""
    return acted_since_each(since)[0]


def acted_since_each(*moments: datetime) -> list[Acted]:
    """The same for several windows, in one query."""
    acted = Finding.objects.filter(ACTED, pk__gte=first_id(min(moments)), action__in=("block", "redact"))
    counts = {
        f"{action}_{index}": Count("event_id", distinct=True, filter=Q(action=action, pk__gte=first_id(moment)))
        for index, moment in enumerate(moments)
        for action in ("block", "redact")
    }
    calls = acted.aggregate(**counts)
    return [Acted(calls[f"block_{index}"], calls[f"redact_{index}"]) for index in range(len(moments))]


def of_call(event_id: UUID) -> list[Finding]:
    """In the order in which they were made."""
    return list(Finding.objects.filter(event_id=event_id).order_by("pk"))
