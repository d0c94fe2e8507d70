"""`make scale`: an installation with ten million usage events, and how long the admin takes over every page of it.

PostgreSQL is a throw-away server of our own (or `--database`). Pages are asked for with Django's test client, as an
administrator: what is measured is the product and its database, without a network.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.scale_export import export

MOST_MS = 300
MOST_DASHBOARD_MS = 200
# Its first byte comes with the first group of 20,000 rows.
MOST_PARQUET_MS = 5_000
MOST_QUERIES = 15
AGAIN = 5
# As the manual wants them on a server of a few gigabytes; what a new server has is for one of 128 MB.
SERVER_SETTINGS = {
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "512MB",
    "work_mem": "32MB",
    "max_wal_size": "8GB",
    "synchronous_commit": "off",
    "random_page_cost": "1.1",
    # On a busy server a page gets no helpers, and the CPU of these would not be seen in the process that is measured.
    "max_parallel_workers_per_gather": "0",
}


@dataclass(frozen=True, slots=True)
class Page:
    """`streams`: a file that is made while it is sent, of which the first part is waited for."""

    name: str
    url: str
    most_ms: int = MOST_MS
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """What a page took. `queries` in one request; `first_ms` the very first time, `best_ms` of some more, and `cpu_ms`,
    that one's CPU time here and in PostgreSQL: what it would take on a machine that does nothing else."""

    page: Page
    queries: int
    first_ms: float
    best_ms: float
    cpu_ms: float

    @property
    def misses(self) -> list[str]:
        found = []
        if self.best_ms > self.page.most_ms:
            found.append(f"{self.best_ms:.0f} ms, at most {self.page.most_ms}")
        if self.queries > MOST_QUERIES and not self.page.streams:
            found.append(f"{self.queries} queries, at most {MOST_QUERIES}")
        return found


def main() -> int:
    options = _options()
    # So that the server is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-scale-", dir=options.folder))
        url = options.database or _own_server(stack, folder)
        _set_up_django(url, folder)
        try:
            missed = _measure(options)
        except Exception:
            if not options.keep:
                raise
            traceback.print_exc()
            missed = ["it broke off"]
        if options.keep:
            say(f"kept until Ctrl-C; in another shell: make scale ARGS='--database {url}'")
            try:
                signal.pause()
            except KeyboardInterrupt:
                say("removed")
    return 1 if missed else 0


def say(text: str) -> None:
    """Progress; the tables are for stdout."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _own_server(stack: ExitStack, folder: str) -> str:
    import psycopg

    from gateway_project.tests import services

    # PostgreSQL may run under another account, which must get in here.
    Path(folder).chmod(0o755)
    tempfile.tempdir = folder
    server = stack.enter_context(services.postgres())
    if isinstance(server, services.OwnPostgres):
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name, value in SERVER_SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        server.stop()
        server.start()
    return server.database()


def _set_up_django(url: str, folder: str) -> None:
    """Of this process. Before anything that reads settings is imported."""
    data_dir = Path(folder) / "data"
    data_dir.mkdir()
    os.environ |= {"DATABASE_URL": url, "DATA_DIR": str(data_dir), "GATEHOUSE_LOCAL": "true", "DEBUG": "false"}
    for name in ("REDIS_URL", "CELERY_BROKER_URL", "ALLOWED_HOSTS"):
        os.environ.pop(name, None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "gateway_project.settings"
    import django

    django.setup()


def _measure(options: argparse.Namespace) -> list[str]:
    """Fills the database unless it is filled; prints the tables. What was missed."""
    from django.core.management import call_command

    from benchmarks import scale_facts, scale_rows
    from usage.models import UsageEvent

    call_command("migrate", verbosity=0)
    facts = [f"- {scale_facts.machine()}"]
    if not UsageEvent.objects.exists():
        size = scale_rows.Size(options.rows, options.days)
        scale_rows.fill(size, say)
        hours, seconds = scale_rows.roll_up()
        facts.append(f"- rolled up: {hours:,} hours in {seconds:,.0f} s, {hours / seconds:.1f} hours a second")
    facts += [f"- {line}" for line in scale_facts.sizes()]
    print("\n".join(facts), end="\n\n", flush=True)
    exported = [export(kind, options.export) for kind in ("csv", "parquet") if options.export]
    print("\n".join(map(str, exported)), flush=True)
    opened = open_pages(list(pages()), say)
    print("\n".join(table(opened)), flush=True)
    missed = [f"{it.page.name}: {', '.join(it.misses)}" for it in opened if it.misses]
    missed += [f"export as {it.kind}: {it.misses}" for it in exported if it.misses]
    print(f"\n{len(opened)} pages, {len(missed)} missed." + "".join(f"\n- {line}" for line in missed), flush=True)
    return missed


# --- pages ------------------------------------------------------------------------------------------------------------
def pages() -> Iterator[Page]:
    """Every page of the admin about usage, money and findings, in the ways that people come to it."""
    yield from _front_and_dashboard()
    yield from _lists_of_events()
    yield from _lists_of_findings()
    yield from _single_rows()
    yield from _other_lists()
    yield from _files()


def _front_and_dashboard() -> Iterator[Page]:
    from accounts.models import Team
    from usage.report_forms import GROUPS, MEASURES, RANGES

    dashboard = _url("usage_dashboard")
    yield Page("front page", _url("index"), MOST_DASHBOARD_MS)
    for name in RANGES:
        yield Page(f"dashboard, {name}", f"{dashboard}?range={name}", MOST_DASHBOARD_MS)
    for group in GROUPS:
        for name in ("24h", "30d"):
            query = f"?range={name}&group={group}"
            yield Page(f"dashboard, {name} by {group}", dashboard + query, MOST_DASHBOARD_MS)
    own_range = f"from={datetime.now(UTC) - timedelta(days=89):%Y-%m-%d}"
    for group in GROUPS:
        for name, of in (("", ""), (" of a provider", "&provider=provider-1")):
            query = f"?{own_range}{of}&group={group}"
            yield Page(f"dashboard, 90 days{name} by {group}", dashboard + query, MOST_DASHBOARD_MS)
    for measure in MEASURES:
        yield Page(f"dashboard, 30d, {measure}", f"{dashboard}?range=30d&measure={measure}", MOST_DASHBOARD_MS)
    team = Team.objects.earliest("pk").pk
    yield Page("dashboard, 30d of a team by key", f"{dashboard}?range=30d&team={team}&group=key", MOST_DASHBOARD_MS)
    for name in ("model", "provider"):
        query = f"?range=30d&{name}={name}-1&group=team"
        yield Page(f"dashboard, 30d of a {name}", dashboard + query, MOST_DASHBOARD_MS)
    yield Page("dashboard, 30d as CSV", f"{_url('usage_dashboard_csv')}?range=30d&group=key")
    chargeback = _url("usage_chargeback")
    for by in ("", "user", "key", "model"):
        yield Page(f"chargeback{by and f' by {by}'}", f"{chargeback}?by={by}")


def _lists_of_events() -> Iterator[Page]:
    from django.utils import timezone

    from accounts.keyset import WindowFilter
    from benchmarks.scale_rows import window_text
    from usage.models import UsageEvent

    newest = UsageEvent.objects.exclude(user=None).latest("pk")
    middle = _event_of_long_ago()
    filters: dict[str, dict[str, Any]] = {
        "error": {"error": "any"},
        "one error": {"error": "upstream_error"},
        "key": {"key__id__exact": newest.key_id},
        "quiet key": {"key__id__exact": _quiet_key()},
        "team": {"team__id__exact": newest.team_id},
        "user": {"user__id__exact": newest.user_id},
        "no user": {"user__isnull": "True"},
        "model": {"model": newest.model},
        "provider": {"provider": newest.provider},
    }
    yield _events("as it opens")
    for window in WindowFilter.windows:
        yield _events(f"{window}", window=window)
        for name, query in filters.items():
            yield _events(f"{window}, {name}", window=window, **query)
    long_ago = window_text(timezone.now() - timedelta(days=60), timedelta(days=1))
    yield _events("a day two months ago", window=long_ago)
    yield _events("a day two months ago, one error", window=long_ago, error="upstream_error")
    yield _events("page 2", window="all", before=newest.pk)
    yield _events("in the middle, older", window="all", before=middle.pk)
    yield _events("in the middle, newer", window="all", after=middle.pk)
    yield _events("in the middle, of a team", window="all", team__id__exact=newest.team_id, before=middle.pk)
    yield _events("search, request id", q=middle.request_id)
    yield _events("search, a key's public id", q=newest.key_label.partition("(")[2].rstrip(")"))
    yield _events("search, nothing found", q="req_nothing")


def _lists_of_findings() -> Iterator[Page]:
    from policies.findings_admin import FindingWindow
    from policies.models import Finding

    newest = Finding.objects.latest("pk")
    middle = Finding.objects.filter(pk__lte=_event_of_long_ago().pk).order_by("-pk").first() or newest
    filters: dict[str, dict[str, Any]] = {
        "rule": {"rule": newest.rule},
        "policy": {"policy": newest.policy},
        "check": {"check_name": newest.check_name},
        "blocked": {"action": "block"},
        "replies": {"stage": "reply"},
        "dry runs": {"dry_run": "yes"},
        "failed": {"failed": "yes"},
        "team": {"team__id__exact": newest.team_id},
        "key": {"key__id__exact": newest.key_id},
    }
    yield _findings("as it opens")
    for window in FindingWindow.windows:
        yield _findings(f"{window}", window=window)
        for name, query in filters.items():
            yield _findings(f"{window}, {name}", window=window, **query)
    yield _findings("in the middle, older", window="all", before=middle.pk)
    yield _findings("search, request id", q=middle.request_id)
    yield Page("findings, overview", _url("policies_finding_overview"))
    yield Page("one finding", _url("policies_finding_change", middle.pk))


def _single_rows() -> Iterator[Page]:
    from accounts.models import ApiKey, Team, User
    from usage.alert_models import Alert
    from usage.models import Budget

    yield Page("one event", _url("usage_usageevent_change", _event_of_long_ago().pk))
    for what, model in (("budget", Budget), ("alert", Alert), ("API key", ApiKey), ("team", Team), ("user", User)):
        row: Any = model._default_manager.latest("pk")
        yield Page(f"one {what}", _url(f"{model._meta.app_label}_{model._meta.model_name}_change", row.pk))


def _other_lists() -> Iterator[Page]:
    budgets, alerts = _url("usage_budget_changelist"), _url("usage_alert_changelist")
    yield Page("budgets", budgets)
    yield Page("budgets, page 2", f"{budgets}?p=2")
    yield Page("budgets of keys", f"{budgets}?scope__exact=key")
    yield Page("a new budget", _url("usage_budget_add"))
    yield Page("rate limits", _url("usage_limit_changelist"))
    yield Page("alerts", alerts)
    yield Page("alerts, all, of a kind", f"{alerts}?window=all&kind=provider")
    yield Page("alerts, all, still going on", f"{alerts}?window=all&state=open")
    yield Page("alert rules", _url("usage_alertrule_changelist"))
    yield Page("alert destinations", _url("usage_alertdestination_changelist"))
    yield Page("model prices", _url("usage_modelprice_changelist"))
    yield Page("re-ratings", _url("usage_rerating_changelist"))
    yield Page("money & limits", _url("usage_moneysettings_change", 1))
    yield Page("API keys", _url("accounts_apikey_changelist"))
    yield Page("teams", _url("accounts_team_changelist"))
    yield Page("users", _url("accounts_user_changelist"))


def _files() -> Iterator[Page]:
    from usage.exports import FORMATS

    for kind in FORMATS:
        url = f"{_url('usage_usageevent_export', kind)}?window=all"
        most_ms = MOST_PARQUET_MS if kind == "parquet" else MOST_MS
        yield Page(f"export, all as {kind}: its first byte", url, most_ms, streams=True)
    yield Page("chargeback as CSV", f"{_url('usage_chargeback_file', 'csv')}?by=key")
    yield Page("chargeback as XLSX", f"{_url('usage_chargeback_file', 'xlsx')}?by=key")


def _events(name: str, **query: Any) -> Page:
    return Page(f"events, {name}", f"{_url('usage_usageevent_changelist')}?{urlencode(query)}")


def _findings(name: str, **query: Any) -> Page:
    return Page(f"findings, {name}", f"{_url('policies_finding_changelist')}?{urlencode(query)}")


def _url(name: str, *arguments: Any) -> str:
    from django.urls import reverse

    return reverse(f"admin:{name}", args=arguments)


def _event_of_long_ago() -> Any:
    from django.utils import timezone

    from accounts.time_ids import first_id
    from usage.models import UsageEvent

    event = UsageEvent.objects.filter(pk__gte=first_id(timezone.now() - timedelta(days=45))).order_by("pk").first()
    return event or UsageEvent.objects.latest("pk")


def _quiet_key() -> int:
    """One that makes few calls: its page is the one that an index must find."""
    from accounts.models import ApiKey

    return ApiKey.objects.latest("pk").pk


# --- measuring --------------------------------------------------------------------------------------------------------
def open_pages(asked: list[Page], say: Callable[[str], None]) -> list[Opened]:
    """As an administrator who is made for it."""
    from django.core.signals import request_finished
    from django.db import close_old_connections
    from django.test import Client

    from accounts.models import User

    name = "scale-administrator"
    user = User.objects.filter(username=name).first() or User.objects.create_superuser(name, "root@example.org")
    # What is closed at the end of a file that is sent: all is measured on one connection.
    request_finished.disconnect(close_old_connections)
    client = Client(SERVER_NAME="localhost")
    client.force_login(user)
    found = []
    for page in asked:
        found.append(open_page(client, page))
        if found[-1].misses:
            say(f"{page.name}: {', '.join(found[-1].misses)}")
    return found


def open_page(client: Any, page: Page) -> Opened:
    """Raises RuntimeError when it is not there."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    first_ms, _ = _timed_ms(client, page)
    with CaptureQueriesContext(connection) as captured:
        _fetch(client, page)
    queries = len(captured)  # the next request forgets them
    best_ms, cpu_ms = min(_timed_ms(client, page) for _ in range(AGAIN))
    return Opened(page, queries, first_ms, best_ms, cpu_ms)


def _timed_ms(client: Any, page: Page) -> tuple[float, float]:
    """(milliseconds, those of CPU)"""
    began, cpu_before = time.perf_counter(), _cpu_s()
    _fetch(client, page)
    return (time.perf_counter() - began) * 1000, (_cpu_s() - cpu_before) * 1000


def _cpu_s() -> float:
    """CPU seconds of this process so far, and of the one that PostgreSQL has for our connection, if it is here."""
    from django.db import connection

    connection.ensure_connection()
    if connection.vendor != "postgresql":
        return time.process_time()
    backend = Path(f"/proc/{connection.connection.info.backend_pid}/schedstat")
    beside = int(backend.read_text().split()[0]) / 1e9 if backend.exists() else 0.0
    return time.process_time() + beside


def _fetch(client: Any, page: Page) -> None:
    response = client.get(page.url)
    if response.status_code != 200:
        raise RuntimeError(f"{page.name}: {page.url} answers {response.status_code}")
    if page.streams:
        next(iter(response.streaming_content))
        response.close()


def table(opened: list[Opened]) -> Iterator[str]:
    yield f"| page | queries | first time | best of {AGAIN} | its CPU | at most | |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for it in opened:
        verdict = "**FAIL**" if it.misses else "pass"
        times = f"{it.first_ms:.0f} ms | {it.best_ms:.0f} ms | {it.cpu_ms:.0f} ms | {it.page.most_ms} ms"
        yield f"| {it.page.name} | {it.queries} | {times} | {verdict} |"


# --- options ----------------------------------------------------------------------------------------------------------
def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make scale ARGS=...", description="Fills a PostgreSQL with usage events and opens every admin page."
    )
    parser.add_argument("--rows", type=int, default=10_000_000, help="how many usage events (10,000,000)")
    parser.add_argument("--days", type=int, default=90, help="over how many days (90)")
    parser.add_argument(
        "--export",
        type=int,
        default=1_000_000,
        metavar="ROWS",
        help="how many to export, watching the memory (1,000,000)",
    )
    parser.add_argument("--folder", help="where the server keeps its data; 1 GB for each million (the usual one)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the server until Ctrl-C, to look at it or measure again"
    )
    parser.add_argument(
        "--database", metavar="URL", help="measure here instead: an empty database, or one that `--keep` has kept"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
