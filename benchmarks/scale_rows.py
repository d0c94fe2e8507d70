"""A large installation's rows: people, teams, keys, models, budgets, and as many usage events as one likes.

Events are made by the database. They look like an organisation's: a few keys make most of the calls, a key is busy for
some hours and then rests, it calls two models, a model is at one provider and now and then at another one, one call in
seventeen goes wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import connection
from django.db.models import F

from accounts.keys import make_public_id
from accounts.models import ApiKey, Membership, Team, User
from accounts.time_ids import id_range
from policies.models import Finding
from proxy.models import Model, Provider, Route
from usage import aggregation, histogram, rollups, subtotals
from usage.alert_models import Alert, AlertDestination, AlertRule, Delivery
from usage.models import Budget, DirtyDay, DirtyHour, Limit, ModelPrice, Rollup, UsageEvent
from usage.services import mark_hours

Say = Callable[[str], None]

EVENTS_AT_ONCE = 200_000
AT_ONCE = 3
# Of a hundred calls, so many have a rule find something in them.
FINDINGS_PERCENT = 5
HOUR_MS = 3_600_000
NANO_PER_USD = 10**9


@dataclass(frozen=True, slots=True)
class Size:
    """How much of what. `keys` is rounded up to a multiple of eight."""

    rows: int
    days: int = 90
    teams: int = 50
    users: int = 500
    keys: int = 2_000
    models: int = 40
    providers: int = 6
    budgets: int = 200
    alerts: int = 20_000


def fill(size: Size, say: Say) -> None:
    """Into an empty, migrated database."""
    say(f"{size.teams} teams, {size.users} users, {size.keys} keys, {size.models} models ...")
    make_owners(size)
    make_limits(size)
    make_alerts(size)
    insert_events(size, say)
    make_findings(say)


# --- who, and what they may -------------------------------------------------------------------------------------------
def make_owners(size: Size) -> None:
    teams = Team.objects.bulk_create(
        [Team(name=f"team-{number}", cost_center=f"47{number % 20:02}") for number in range(size.teams)]
    )
    users = User.objects.bulk_create(
        [User(username=f"user-{number}", email=f"user-{number}@example.org") for number in range(size.users)]
    )
    Membership.objects.bulk_create(
        [Membership(user=user, team=teams[number % size.teams]) for number, user in enumerate(users)]
    )
    ApiKey.objects.bulk_create(
        [
            ApiKey(
                public_id=make_public_id(),
                name=f"app-{number}",
                user=None if number % 10 == 0 else users[number % size.users],
                team=teams[number % size.users % size.teams],
            )
            for number in range(-(-size.keys // 8) * 8)
        ],
        batch_size=1000,
    )
    providers = Provider.objects.bulk_create(
        [Provider(name=f"provider-{number}", kind="echo") for number in range(size.providers)]
    )
    models = Model.objects.bulk_create([Model(name=f"model-{number}") for number in range(size.models)])
    Route.objects.bulk_create(
        [Route(model=model, provider=providers[number % size.providers]) for number, model in enumerate(models)]
    )
    ModelPrice.objects.bulk_create(
        [
            ModelPrice(
                model=model.name,
                valid_from=datetime(2026, 1 + revision, 1, tzinfo=UTC),
                input_nano_usd_per_mtok=NANO_PER_USD,
                output_nano_usd_per_mtok=4 * NANO_PER_USD,
            )
            for model in models
            for revision in range(5)
        ]
    )


def make_limits(size: Size) -> None:
    """Budgets of every window, on the installation, teams, users and keys; some nearly spent, some not at all."""
    owners: dict[str, list[int]] = {
        "team": list(Team.objects.order_by("pk").values_list("pk", flat=True)),
        "user": list(User.objects.order_by("pk").values_list("pk", flat=True)),
        "key": list(ApiKey.objects.order_by("pk").values_list("pk", flat=True)),
    }
    windows = ("day", "month", "week", "hour", "total")
    budgets = [Budget(scope="installation", limit=10**6 * NANO_PER_USD, per="month", timezone="Europe/Berlin")]
    while len(budgets) < size.budgets:
        number = len(budgets)
        scope = tuple(owners)[number % 3]
        owner = {f"{scope}_id": owners[scope][number % len(owners[scope])]}
        limit = 10 ** (1 + number % 4) * NANO_PER_USD
        budgets.append(Budget(scope=scope, limit=limit, per=windows[number % 5], timezone="Europe/Berlin", **owner))
    Budget.objects.bulk_create(budgets)
    Limit.objects.bulk_create(
        [Limit(scope="key", key_id=key, requests_per_minute=600) for key in owners["key"][: size.budgets]]
    )


def make_alerts(size: Size) -> None:
    rule = AlertRule.objects.filter(kind="provider").order_by("pk").first()
    destination = AlertDestination(name="on-call", kind="email")
    destination.set_address("on-call@example.org")
    destination.save()
    table, deliveries = Alert._meta.db_table, Delivery._meta.db_table
    step_ms = size.days * 86_400_000 / max(size.alerts, 1)
    start_ms = int(time.time() * 1000) - size.days * 86_400_000
    ms = f"({start_ms} + i * {step_ms})"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (id, fired_at, rule_id, rule_name, kind, subject, number, severity, title, text, "
            f"facts, resolved_at) SELECT {_id(ms)}, to_timestamp({ms} / 1000.0), %s, 'Providers', "
            "(ARRAY['provider', 'errors', 'budget', 'latency'])[1 + i %% 4], 'subject ' || i %% 500, i, "
            "(ARRAY['critical', 'warning', 'info'])[1 + i %% 3], 'Something is the matter', 'With figures.', '{}', "
            f"CASE WHEN i %% 400 > 0 THEN to_timestamp({ms} / 1000.0 + 600) END FROM generate_series(0, %s) i",
            [rule.pk if rule else None, size.alerts - 1],
        )
        cursor.execute(
            f"INSERT INTO {deliveries} (id, alert_id, destination_id, about, state, attempts, next_try_at, sent_at, "
            f"last_error) SELECT id, id, %s, 'fired', 'sent', 1, fired_at, fired_at, '' FROM {table}",
            [destination.pk],
        )


# --- events -----------------------------------------------------------------------------------------------------------
def insert_events(size: Size, say: Say) -> None:
    """Evenly over the last days, the newest a moment ago. Indexes are built afterwards, as after a restore."""
    now_ms = int(time.time() * 1000)
    span_ms = size.days * 24 * HOUR_MS
    began = time.monotonic()

    def insert(first: int) -> None:
        last = min(first + EVENTS_AT_ONCE, size.rows) - 1
        _insert_chunk(first, last, now_ms - span_ms, span_ms / size.rows, size)
        say(f"{last + 1:,} events, {(last + 1) / (time.monotonic() - began):,.0f} a second")

    _make_callers(size)
    indexes = _drop_indexes(UsageEvent._meta.db_table)
    _side_by_side([partial(insert, first) for first in range(0, size.rows, EVENTS_AT_ONCE)])
    hour = rollups.floor_hour(datetime.fromtimestamp((now_ms - span_ms) / 1000, UTC))
    mark_hours([hour + number * rollups.HOUR for number in range(size.days * 24 + 1)])
    jobs = [partial(_build, name, definition, say) for name, definition in indexes]
    _side_by_side([*(partial(sum_hours_of, day) for day in _older_days(size.days)), *jobs])
    _execute("DROP TABLE scale_caller")
    _vacuum(UsageEvent._meta.db_table)


def _side_by_side(jobs: list[Callable[[], None]]) -> None:
    """In the order given, each with a connection of its own: the database does the work."""

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        finally:
            connection.close()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(run, jobs):
            pass


def _make_callers(size: Size) -> None:
    """For the time being: key number -> everything that its events say of it."""
    _execute("DROP TABLE IF EXISTS scale_caller")
    _execute(
        "CREATE UNLOGGED TABLE scale_caller AS SELECT n - 1 AS n, id AS key_id, name || ' (' || public_id || ')' AS "
        f"key_label, user_id, team_id, (n * 7) % {size.models} AS model_a, (n * 13 + 5) % {size.models} AS model_b "
        "FROM (SELECT row_number() OVER (ORDER BY id) AS n, * FROM accounts_apikey) k"
    )
    _execute("ANALYZE scale_caller")


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


# Of d, an event's number and its dice; `h`, its hour; c, its caller; w, what became of it.
_COLUMNS = {
    "id": "{id}",
    "at": "to_timestamp(ms / 1000.0)",
    "request_id": "'req_' || md5(i::text)",
    "endpoint": "'chat/completions'",
    "key_id": "key_id",
    "key_label": "key_label",
    "user_id": "user_id",
    "team_id": "team_id",
    "model": "'model-' || model",
    "provider": "'provider-' || (model + CASE WHEN r3 < 0.02 THEN 1 ELSE 0 END) % {providers}",
    "upstream_model": "'upstream-' || model",
    "status": "CASE WHEN r4 < 0.94 THEN 200 WHEN r4 < 0.96 THEN 429 WHEN r4 < 0.975 THEN 502 WHEN r4 < 0.985 THEN 499 "
    "ELSE 400 END",
    "error_code": "CASE WHEN r4 < 0.94 THEN '' WHEN r4 < 0.96 THEN 'rate_limit_exceeded' WHEN r4 < 0.975 THEN "
    "'upstream_error' WHEN r4 < 0.985 THEN 'client_left' ELSE 'policy_violation' END",
    "streamed": "i % 2 = 0",
    "prompt_tokens": "50 + (4000 * r3 * r3)::int",
    "completion_tokens": "(600 * r5)::int",
    "cached_tokens": "0",
    "cache_write_tokens": "0",
    "reasoning_tokens": "0",
    "estimated": "r4 BETWEEN 0.975 AND 0.985",
    "cost_nano_usd": "CASE WHEN i % 500 > 0 THEN (1000 * (50 + 4000 * r3 * r3) + 2400000 * r5)::bigint END",
    "latency_us": "(300000 + 20000000 * r5 * r5)::bigint",
    "first_byte_us": "(200000 + 2000000 * r3)::bigint",
    "attempts": "1",
    "end_user": "'user-' || i % 5000",
    "client_ip": "'192.0.2.' || i % 250",
    "user_agent": "'OpenAI/Python 3.52.0'",
    "organization": "''",
    "trace_id": "''",
    "above_hold": "false",
    "units": "'{{}}'::jsonb",
    "tags": """'{{"app": "bench"}}'::jsonb""",
}
KEYS_PER_PLACE = 8
BUSY_HOURS = 6


def _insert_chunk(first: int, last: int, start_ms: int, step_ms: float, size: Size) -> None:
    """One statement. The dice are seeded, so that every run makes the same."""
    places = -(-size.keys // KEYS_PER_PLACE)
    values = ", ".join(expression.format(id=_id("ms"), providers=size.providers) for expression in _COLUMNS.values())
    # Where a call lands in the organisation: the first places have most of them. Who sits there changes in the day.
    turn = f"(floor(ms / {BUSY_HOURS * HOUR_MS})::bigint * 3 + place * 5) % {KEYS_PER_PLACE}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(%s)", [first / (2 * (last + 1))])
        cursor.execute(
            f"INSERT INTO {UsageEvent._meta.db_table} ({', '.join(_COLUMNS)}) SELECT {values} FROM ("
            "  SELECT d.*, c.*, CASE WHEN r2 < 0.8 THEN model_a ELSE model_b END AS model FROM ("
            f"    SELECT i, {start_ms} + i * {step_ms} AS ms, floor({places} * r1 * r1)::int AS place, r2, r3, r4, r5"
            "    FROM (SELECT i, random() r1, random() r2, random() r3, random() r4, random() r5"
            f"         FROM generate_series({first}, {last}) i) dice"
            f"  ) d JOIN scale_caller c ON c.n = place * {KEYS_PER_PLACE} + {turn}"
            ") e"
        )


def _id(ms: str) -> str:
    """A UUID of version 7 at `ms`, an SQL expression; what makes it unique is `i`."""
    return f"(lpad(to_hex(({ms})::bigint), 12, '0') || '70008' || lpad(to_hex(i), 15, '0'))::uuid"


def _drop_indexes(table: str) -> list[tuple[str, str]]:
    """All but that of the primary key. (name, definition)"""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = %s "
            "AND indexname NOT IN (SELECT conname FROM pg_constraint)",
            [table],
        )
        found: list[tuple[str, str]] = cursor.fetchall()
        for name, _ in found:
            cursor.execute(f'DROP INDEX "{name}"')
    return found


def _build(name: str, definition: str, say: Say) -> None:
    began = time.monotonic()
    _execute(definition)
    say(f"index {name} built in {time.monotonic() - began:.0f} s")


def _vacuum(table: str) -> None:
    """What autovacuum does on a running installation."""
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM (ANALYZE) {table}")


# --- findings ---------------------------------------------------------------------------------------------------------
# Of a finding: column -> of the event it is of, `d` (0 to 999) being its dice.
_OF_FINDINGS = {
    "id": "id",
    "at": "at",
    "event_id": "id",
    "request_id": "request_id",
    "policy": "'policy-' || d % 3",
    "version": "1 + d % 7",
    "rule": "'rule-' || d % 12",
    "check_name": "(ARRAY['wordlist', 'topics', 'max_prompt_chars', 'links'])[1 + d % 4]",
    "stage": "CASE WHEN d % 3 = 0 THEN 'reply' ELSE 'request' END",
    "action": "CASE WHEN d < 200 THEN 'block' WHEN d < 500 THEN 'redact' ELSE 'audit' END",
    "label": "'label-' || d % 30",
    "count": "1 + d % 5",
    "dry_run": "d % 10 = 7",
    "failed": "d = 999",
    "model": "model",
    "endpoint": "endpoint",
    "key_label": "key_label",
    "key_id": "key_id",
    "team_id": "team_id",
    "user_id": "user_id",
}


def make_findings(say: Say) -> None:
    """Of some of the events, one each."""
    table = Finding._meta.db_table
    indexes = _drop_indexes(table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(_OF_FINDINGS)}) SELECT {', '.join(_OF_FINDINGS.values())} FROM (SELECT "
            "*, ('x' || right(md5(request_id), 6))::bit(24)::int % 1000 AS d "
            f"FROM {UsageEvent._meta.db_table} TABLESAMPLE BERNOULLI ({FINDINGS_PERCENT}) REPEATABLE (1)) e"
        )
        say(f"{cursor.rowcount:,} findings")
    _side_by_side([partial(_build, name, definition, say) for name, definition in indexes])
    _vacuum(table)


# --- sums -------------------------------------------------------------------------------------------------------------
def roll_up() -> tuple[int, float]:
    """Of the newest two days, by the product's own code, as Celery would; and the days of all: (hours, seconds)."""
    began, hours = time.monotonic(), rollups.roll_up_all()
    took_s = time.monotonic() - began
    _vacuum("usage_rollup")
    _vacuum("usage_subtotal")
    return hours, took_s


def _older_days(days: int) -> list[datetime]:
    today = rollups.floor_day(datetime.now(UTC))
    return [today - number * rollups.DAY for number in range(days, 1, -1)]


def sum_hours_of(day: datetime) -> None:
    """Rollups by hour of a day (UTC) that has none yet. Its hours count as rolled up, the day does not.

    One statement, which gives the same rows as the product (test_scale.py compares): that one takes an hour at a time,
    with the Python objects of each row, as they come in. For those of three months it would take an hour."""
    low, high = id_range(day, day + rollups.DAY)
    dimensions = ", ".join(aggregation.DIMENSIONS[:-1])
    sums = ", ".join(aggregation._SUM_EXPRESSIONS[name] for name in aggregation.SUMS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO usage_rollup (grain, start, {dimensions}, outcome, {', '.join(aggregation.SUMS)}, "
            f"latency_histogram, first_byte_histogram) SELECT 'hour', hour, {dimensions}, outcome, {sums}, "
            f"{_histogram('latency_bucket')}, {_histogram('first_byte_bucket')} FROM (SELECT *, "
            f"date_trunc('hour', at, 'UTC') AS hour, {aggregation._EXPRESSIONS['outcome']} AS outcome, "
            f"{_bucket('latency_us')} AS latency_bucket, {_bucket('first_byte_us')} AS first_byte_bucket "
            f"FROM usage_usageevent WHERE id >= %s AND id < %s) e GROUP BY hour, {dimensions}, outcome",
            [low, high],
        )
    subtotals.add_up(Rollup.Grain.HOUR, day, day + rollups.DAY)
    DirtyHour.objects.filter(hour__gte=day, hour__lt=day + rollups.DAY).update(rolled_up=F("marks"))
    DirtyDay.objects.bulk_create([DirtyDay(day=day)], ignore_conflicts=True)


def _bucket(column: str) -> str:
    """usage.histogram.bucket: how many bounds are below."""
    return f"width_bucket({column} - 1, ARRAY{list(histogram.BOUNDS_US)}::bigint[])"


def _histogram(column: str) -> str:
    counts = (f"count(*) FILTER (WHERE {column} = {number})" for number in range(histogram.BUCKETS))
    return f"jsonb_build_array({', '.join(counts)})"


def window_text(start: datetime, length: timedelta) -> str:
    """As the list of events takes one."""
    return f"{start:%Y-%m-%dT%H:%M}..{start + length:%Y-%m-%dT%H:%M}"
