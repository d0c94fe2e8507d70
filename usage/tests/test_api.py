"""Usage for programs: chargeback as JSON and as files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import Team, User
from usage.models import MoneySettings
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db

URL = "/api/v1/usage/chargeback"
NOVEMBER = datetime(2026, 11, 3, tzinfo=UTC)


@pytest.fixture
def month(research: Team) -> None:
    add(NOVEMBER, team_id=research.pk, cost_nano_usd=1_500_000_001)
    roll_up_all()


def error(client: Client, query: str) -> tuple[int, dict[str, Any]]:
    response = client.get(f"{URL}?{query}")
    assert response["Content-Type"] == "application/json"
    return response.status_code, response.json()["error"]


def test_json_has_every_digit_as_text(admin_client: Client, month: None, research: Team) -> None:
    MoneySettings.objects.create(currency="EUR", units_per_usd="0.5")
    used = {
        "calls": 1, "unpriced_calls": 0, "prompt_tokens": 100, "completion_tokens": 20,
        "cost_usd": "1.500000001", "cost": "0.7500000005",
    }  # fmt: skip
    assert admin_client.get(URL, {"month": "2026-11"}).json() == {
        "month": "2026-11",
        "by": "team",
        "currency": "EUR",
        "units_per_usd": "0.5",
        "complete": True,
        "total": used,
        "lines": [{"cost_center": "4711", "team": {"id": research.pk, "name": "research"}, **used}],
    }


@pytest.mark.parametrize(
    ("by", "part"),
    [("user", {"id": None, "name": "(no user)"}), ("model", "gpt"), ("key", {"id": None, "name": "(no key)"})],
)
def test_lines_can_be_broken_down(admin_client: Client, month: None, by: str, part: object) -> None:
    (line,) = admin_client.get(URL, {"month": "2026-11", "by": by}).json()["lines"]
    assert line[by] == part


def test_month_that_is_not_added_up_is_not_complete(admin_client: Client) -> None:
    add(NOVEMBER)
    assert admin_client.get(URL, {"month": "2026-11"}).json()["complete"] is False


@pytest.mark.parametrize(
    ("kind", "media_type", "begins"),
    [("csv", "text/csv; charset=utf-8", b"month,cost_center"),
     ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", b"PK")],
    ids=["csv", "xlsx"],
)  # fmt: skip
def test_files_are_asked_for_by_format_or_by_accept(
    admin_client: Client, month: None, kind: str, media_type: str, begins: bytes
) -> None:
    asked = admin_client.get(URL, {"month": "2026-11", "format": kind})
    accepted = admin_client.get(URL, {"month": "2026-11"}, headers={"accept": media_type.split(";")[0]})
    for response in (asked, accepted):
        assert response["Content-Type"] == media_type
        assert response["Content-Disposition"] == f'attachment; filename="chargeback-2026-11.{kind}"'
        assert response.content.startswith(begins)


@pytest.mark.parametrize(
    ("query", "parameter", "words"),
    [
        ("", "month", "such as 2026-11"),
        ("month=soon", "month", "such as 2026-11"),
        ("month=soon&format=csv", "month", "such as 2026-11"),
        ("month=2026-11&by=planet", "by", "one of team, user, key, model"),
    ],
    ids=["no month", "no such month", "as a file", "no such breakdown"],
)
def test_mistake_names_the_parameter(admin_client: Client, query: str, parameter: str, words: str) -> None:
    status, found = error(admin_client, query)
    assert (status, found["type"], found["param"]) == (400, "invalid_request_error", parameter)
    assert words in found["message"]


def test_unknown_format_is_not_found(admin_client: Client) -> None:
    status, found = error(admin_client, "month=2026-11&format=pdf")
    assert (status, found["code"]) == (404, "not_found")


def test_only_reading_is_possible(admin_client: Client) -> None:
    assert admin_client.post(URL).status_code == 405


def test_usage_is_for_those_who_may_see_it(client: Client, month: None) -> None:
    assert error(client, "month=2026-11")[0] == 401
    user = User.objects.create_user("someone", password="x")
    client.force_login(user)
    status, found = error(client, "month=2026-11")
    assert (status, found["code"]) == (403, "permission_denied")
    assert "permission to view usage" in found["message"]
    user.user_permissions.add(Permission.objects.get(codename="view_usageevent"))
    assert client.get(URL, {"month": "2026-11"}).status_code == 200
