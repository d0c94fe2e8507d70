"""`manage.py roll_up`, for when Celery was away."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from usage.models import DirtyHour, Rollup
from usage.tests.events import NOON, add

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.django_db


def roll_up(*arguments: str) -> str:
    out = StringIO()
    call_command("roll_up", *arguments, stdout=out)
    return out.getvalue().strip()


def test_everything_dirty_is_rolled_up() -> None:
    for hours in range(3):
        add(NOON - hours * HOUR)
    assert roll_up() == "Rolled up 3 hours."
    assert roll_up() == "Rolled up 0 hours."


@pytest.mark.parametrize(
    ("arguments", "hours"),
    [
        (["--from", "2026-11-20T11:59"], 2),
        (["--from", "2026-11-20T11:00", "--to", "2026-11-20T12:00"], 1),
        (["--from", "2026-11-20T13:00+02:00", "--to", "2026-11-20T12:00Z"], 1),
        (["--from", "2026-11-20"], 3),
        (["--from", "2026-11-21"], 0),
        (["--from", "1960-01-01"], 3),
        (["--from", "0001-01-01T00:00+14:00", "--to", "9999-12-31T23:59-14:00"], 3),
        (["--from", "9999-12-31T23:30", "--to", "9999-12-31T23:59"], 0),
    ],
)
def test_hours_of_a_time_are_recomputed(arguments: list[str], hours: int) -> None:
    for back in range(3):
        add(NOON - back * HOUR)
    roll_up()
    Rollup.objects.filter(grain="hour").update(calls=99)
    assert roll_up(*arguments).startswith(f"Rolled up {hours} hour")
    assert Rollup.objects.filter(grain="hour", calls=1).count() == hours


def test_hours_whose_marks_were_lost_are_found_by_their_events() -> None:
    """As after a restore of the events alone."""
    for back in (0, 1, 5, 30):
        add(NOON - back * HOUR)
    DirtyHour.objects.all().delete()
    assert roll_up() == "Rolled up 0 hours."
    assert roll_up("--from", "2026-11-01") == "Rolled up 4 hours."
    assert list(Rollup.objects.filter(grain="day").order_by("start").values_list("calls", flat=True)) == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "2026-11-20"], "--to needs --from"),
        (["--from", "2026-11-20", "--to", "2026-11-20"], "later"),
        (["--from", "yesterday"], "not a time"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        roll_up(*arguments)
