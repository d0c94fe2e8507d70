"""Subtotals where no roll-up makes them: of rollups that were there before them, and of none."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from usage import subtotals
from usage.models import Rollup, Subtotal
from usage.rollups import roll_up_all
from usage.tests.events import NOON, add
from usage.tests.subtotals import added_up
from usage.tests.subtotals import subtotals as written

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture
def traffic() -> None:
    for number, status in enumerate((200, 200, 429, 499, 502)):
        add(NOON + number % 2 * HOUR, count=3, key_id=number, team_id=None, status=status, cost_nano_usd=None)
        add(NOON, user_id=7, model="", provider="", status=status, latency_us=9_000_000)
    roll_up_all()


def test_migration_fills_them_from_the_rollups_that_are_there(traffic: None) -> None:
    Subtotal.objects.all().delete()
    with connection.cursor() as cursor:
        editor = SimpleNamespace(connection=connection, execute=cursor.execute)
        for name in ("0006_subtotals", "0010_subtotals_of_owners"):
            import_module(f"usage.migrations.{name}").add_up(None, editor)
    assert written("hour") == added_up("hour")
    assert written("day") == added_up("day")


def test_there_is_one_row_of_each_member_and_one_of_all(traffic: None) -> None:
    noon = Subtotal.objects.filter(grain=Rollup.Grain.HOUR, start=NOON)
    assert list(noon.filter(dimension="all").values_list("member", "calls")) == [("", 14)]
    assert sorted(noon.filter(dimension="user").values_list("member", "calls")) == [("", 9), ("7", 5)]


def test_owners_are_added_up_by_day(traffic: None) -> None:
    owners = dict(Subtotal.objects.filter(dimension="owner").values_list("member", "calls"))
    assert owners == {"0//": 3, "1//": 3, "2//": 3, "3//": 3, "4//": 3, "/7/": 5}
    assert subtotals.owner("3//12") == {"key": 3, "user": None, "team": 12}
    assert set(Subtotal.objects.filter(dimension="owner").values_list("grain", flat=True)) == {"day"}


def test_time_without_rollups_has_none(traffic: None) -> None:
    Rollup.objects.filter(grain=Rollup.Grain.HOUR, start=NOON).delete()
    subtotals.add_up(Rollup.Grain.HOUR, NOON, NOON + HOUR)
    assert not Subtotal.objects.filter(grain=Rollup.Grain.HOUR, start=NOON).exists()
    assert Subtotal.objects.filter(grain=Rollup.Grain.HOUR, start=NOON + HOUR).exists()


@pytest.mark.parametrize(
    ("dimension", "group", "member"), [("team", 7, "7"), ("key", None, ""), ("model", "gpt", "gpt"), ("model", "", "")]
)
def test_members_are_groups_as_text(dimension: str, group: Any, member: str) -> None:
    assert subtotals.member(group) == member
    assert subtotals.group(dimension, member) == group
