"""The page of who pays for a month, and its files."""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import Team, User
from usage.models import MoneySettings
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:usage_chargeback")
CSV = reverse("admin:usage_chargeback_file", args=["csv"])
XLSX = reverse("admin:usage_chargeback_file", args=["xlsx"])
NOVEMBER = datetime(2026, 11, 3, tzinfo=UTC)
MONTH = {"month": "2026-11"}


@pytest.fixture
def month(research: Team) -> None:
    add(NOVEMBER, count=2, team_id=research.pk, cost_nano_usd=1_500_000_001)
    add(NOVEMBER, team_id=research.pk, cost_nano_usd=None, model="llama")
    add(NOVEMBER, cost_nano_usd=0, status=401)
    roll_up_all()


def test_page_has_cost_centres_teams_and_a_total(admin_client: Client, month: None) -> None:
    page: Any = admin_client.get(PAGE, MONTH)
    first, last = page.context["centers"]
    assert (first.total.name, first.teams[0].total.name, first.total.usd) == ("4711", "research", "3.000000002")
    assert (first.total.calls, first.total.unpriced) == ("3", "1")
    assert (last.total.name, last.teams[0].total.name) == ("(no cost centre)", "(no team)")
    assert page.context["total"].usd == "3.000000002"


def test_page_breaks_teams_down(admin_client: Client, month: None) -> None:
    page: Any = admin_client.get(PAGE, {**MONTH, "by": "model"})
    assert [part.name for part in page.context["centers"][0].teams[0].parts] == ["gpt", "llama"]
    assert f"{CSV}?month=2026-11&amp;by=model" in page.content.decode()


def test_page_escapes_names_and_marks_calls_without_a_price(admin_client: Client, research: Team) -> None:
    add(NOVEMBER, count=2, team_id=research.pk, cost_nano_usd=None, model="<b>x</b>&")
    roll_up_all()
    page = admin_client.get(PAGE, {**MONTH, "by": "model"}).content.decode()
    assert '<tr class="gh-part"><th scope="row">&lt;b&gt;x&lt;/b&gt;&amp;</th>' in page
    assert '<td>2 <abbr title="Of these without a price: 2">+?</abbr></td>' in page


def test_page_shows_the_currency_beside_the_dollars(admin_client: Client, month: None) -> None:
    MoneySettings.objects.create(currency="EUR", units_per_usd="0.5")
    page: Any = admin_client.get(PAGE, MONTH)
    assert (page.context["total"].usd, page.context["total"].shown) == ("3.000000002", "€1.50")


def test_month_without_calls_says_so(admin_client: Client) -> None:
    assert "No calls in this month" in admin_client.get(PAGE, {"month": "2020-02"}).content.decode()


def test_month_that_is_still_added_up_says_so(admin_client: Client) -> None:
    add(NOVEMBER)
    assert "still being added up" in admin_client.get(PAGE, MONTH).content.decode()


@pytest.mark.parametrize("query", ["month=soon", "by=planet"])
def test_nonsense_is_said(admin_client: Client, query: str) -> None:
    response = admin_client.get(f"{PAGE}?{query}")
    assert response.status_code == 200
    assert "It was left out." in response.content.decode()


def test_csv_has_a_line_for_each_team_and_every_digit(admin_client: Client, month: None, research: Team) -> None:
    MoneySettings.objects.create(currency="EUR", units_per_usd="0.5")
    response = admin_client.get(CSV, MONTH)
    assert response["Content-Disposition"] == 'attachment; filename="chargeback-2026-11.csv"'
    first, last = csv.DictReader(io.StringIO(response.content.decode(), newline=""))
    assert first == {
        "month": "2026-11", "cost_center": "4711", "team_id": str(research.pk), "team": "research", "calls": "3",
        "unpriced_calls": "1", "prompt_tokens": "300", "completion_tokens": "60", "cost_usd": "3.000000002",
        "cost_eur": "1.500000001",
    }  # fmt: skip
    assert (last["cost_center"], last["team_id"], last["team"]) == ("", "", "(no team)")


def test_workbook_opens(admin_client: Client, month: None) -> None:
    response = admin_client.get(XLSX, {**MONTH, "by": "user"})
    with zipfile.ZipFile(io.BytesIO(response.content)) as files:
        assert files.testzip() is None
        assert b">3.000000002<" in files.read("xl/worksheets/sheet1.xml")


def test_no_other_kind_of_file_is_made(admin_client: Client) -> None:
    assert admin_client.get(reverse("admin:usage_chargeback_file", args=["pdf"])).status_code == 404


@pytest.mark.parametrize("url", [PAGE, CSV, XLSX])
def test_only_those_who_may_see_usage_see_it(client: Client, url: str) -> None:
    assert client.get(url).status_code == 302
    user = User.objects.create_user("staff", password="x", is_staff=True)
    client.force_login(user)
    assert client.get(url).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_usageevent"))
    assert client.get(url).status_code == 200


def test_page_takes_few_queries(admin_client: Client, month: None, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(12):
        admin_client.get(PAGE, {**MONTH, "by": "key"})
