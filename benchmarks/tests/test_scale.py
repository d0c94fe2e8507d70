"""`make scale` measures what it says: events that the product could have written, sums that the product would make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import Client

from benchmarks import machine, scale, scale_export
from usage import exports

PAGE = scale.Page("a page", "/admin/", most_ms=300)


def opened(**changed: float) -> scale.Opened:
    figures = {"queries": 15, "first_ms": 900.0, "best_ms": 300.0, "cpu_ms": 250.0, **changed}
    return scale.Opened(PAGE, **figures)  # type: ignore[arg-type]


def test_page_may_take_what_it_may_take() -> None:
    assert opened().misses == []


@pytest.mark.parametrize(("changed", "words"), [({"best_ms": 301.0}, "301 ms"), ({"queries": 16}, "16 queries")])
def test_slower_page_and_more_queries_are_missed(changed: dict[str, float], words: str) -> None:
    (missed,) = opened(**changed).misses
    assert words in missed
    assert "**FAIL**" in list(scale.table([opened(**changed)]))[-1]


@pytest.mark.django_db
def test_page_that_is_not_there_is_no_fast_page(admin_client: Client) -> None:
    with pytest.raises(RuntimeError, match="answers 404"):
        scale.open_page(admin_client, scale.Page("nowhere", "/admin/nowhere/"))


@pytest.mark.django_db
def test_queries_of_a_page_are_counted(admin_client: Client) -> None:
    found = scale.open_page(admin_client, scale.Page("budgets", "/admin/usage/budget/"))
    assert 2 < found.queries < 16
    assert found.cpu_ms > 0


# Of the sums of a day: those that the one statement made, then those that the product makes of the same hours.
COMPARE = """
from django.db.models import F
from benchmarks import scale_rows
from usage import rollups
from policies.models import Finding
from usage.models import DirtyHour, Rollup, Subtotal, UsageEvent
scale_rows.fill(scale_rows.Size(2400, 3, 3, 5, 16, 4, 2, 12, 20), lambda text: None)
columns = [f.name for f in Rollup._meta.concrete_fields if f.name != "id"]
def hours():
    return sorted(map(repr, Rollup.objects.filter(grain="hour", start__in=clean).values_list(*columns)))
def hours_of_subtotals():
    names = [f.name for f in Subtotal._meta.fields]
    return sorted(map(repr, Subtotal.objects.filter(grain="hour", start__in=clean).values_list(*names)))
clean = list(DirtyHour.objects.filter(marks=F("rolled_up")).values_list("hour", flat=True))
before = hours()
subtotals = hours_of_subtotals()
assert len(before) > 100 and len(subtotals) > 100 and len(clean) >= 24, (len(before), len(clean))
DirtyHour.objects.update(marks=F("marks") + 1)
rollups.roll_up_all()
assert hours() == before
assert hours_of_subtotals() == subtotals
assert 60 < Finding.objects.count() < 240
assert UsageEvent.objects.count() == 2400
assert sum(Rollup.objects.filter(grain="day").values_list("calls", flat=True)) == 2400
"""


@pytest.mark.slow
def test_sums_are_those_that_the_product_makes(postgres_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": postgres_url, "DATA_DIR": str(tmp_path), "GATEHOUSE_LOCAL": "true"}
    for command in (["migrate", "-v", "0"], ["shell", "-v", "0", "-c", COMPARE]):
        done = subprocess.run(
            [sys.executable, "manage.py", *command], cwd=machine.ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.django_db
def test_export_is_watched_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = iter([100.0, 102.0, 101.0, 150.0])
    monkeypatch.setattr(scale_export, "resident_mib", lambda: next(memory))
    monkeypatch.setattr(scale_export, "EVERY", 2)
    monkeypatch.setattr(exports, "pages", lambda events: iter([["row"] * 2] * 9))
    monkeypatch.setitem(
        exports.FORMATS, "csv", exports.Format("CSV", "", lambda pages: (b"x" * len(page) for page in pages))
    )
    found = scale_export.export("csv", 8)
    assert (found.rows, found.size, found.rss_mib, found.growth_mib) == (8, 8, [100, 102, 101, 150], 50)
    assert found.misses == "50 MiB more, at most 32"
