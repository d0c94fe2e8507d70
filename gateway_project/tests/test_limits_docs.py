"""docs/limits.md says what is so: its examples are applied, asked for and compared."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from accounts.models import Team, User
from accounts.services import create_key
from gateway_project.apply import apply
from gateway_project.tests.test_docs import page, table
from proxy import errors
from usage import me
from usage.models import Budget, Limit
from usage.pricing import NANO
from usage.windows import window_at

TEXT = page("docs/limits.md")
MOMENT = datetime(2026, 3, 29, 12, tzinfo=UTC)


def example(kind: str) -> str:
    (block,) = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return str(block)


def shape(value: Any) -> Any:
    """Names and kinds, without what varies."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    return type(value).__name__


@pytest.mark.django_db
def test_file_is_applied() -> None:
    apply(example("yaml").encode())
    budgets = Budget.objects.values_list("scope", "limit", "per", "timezone")
    assert set(budgets) == {
        ("team", 50 * NANO, "month", ""),
        ("team", 5 * NANO, "day", ""),
        ("key", 2_000_000, "week", "Europe/Berlin"),
        ("installation", 1000 * NANO, "month", ""),
    }


@pytest.mark.django_db
def test_answer_of_an_apps_own_budget_has_that_shape(client: Client, research: Team, alice: User) -> None:
    key, secret = create_key("laptop", research, alice)
    Budget.objects.create(scope="key", key=key, limit=5 * NANO, per="day", timezone="Europe/Berlin")
    Limit.objects.create(scope="key", key=key, requests_per_minute=60, max_parallel=8)
    answer = client.get("/api/v1/me/usage", headers={"authorization": f"Bearer {secret}"}).json()
    assert shape(answer) == shape(json.loads(example("json")))


def test_windows_begin_and_end_as_they_are_told() -> None:
    def told(start: datetime, end: datetime) -> str:
        last = "00:00" if end.hour == 0 and end.minute == 0 else f"{end:%H:%M}"
        hours = (end - start) // timedelta(hours=1)
        note = f": {hours} hours" if hours == 23 else ""
        return f"{start.day} {start:%B}, {start:%H:%M} to {end.day} {end:%B}, {last} UTC{note}"

    rows = table(TEXT, "### Windows and daylight saving")
    assert len(rows) == 4
    for per, zone, window in rows:
        start, end = window_at(per.removeprefix("per "), zone, MOMENT, MOMENT)
        assert end is not None
        assert told(start, end) == window


def test_errors_are_those_of_the_data_plane() -> None:
    known = {
        (str(one.status), f"`{one.code}`")
        for one in (errors.RateLimited, errors.BudgetSpent, errors.UnpricedModel, errors.AddressNotAllowed)
    }
    assert {(row[1], row[2]) for row in table(TEXT, "## What a caller sees")} == known


def test_key_is_refused_in_the_words_of_the_data_plane() -> None:
    assert errors.Unauthenticated().message == me.INVALID_KEY
