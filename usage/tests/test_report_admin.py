"""The usage dashboard: what it shows, where it leads, and what it costs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import Team, User
from accounts.services import create_key
from usage.models import MoneySettings, UsageEvent
from usage.report_admin import Row
from usage.rollups import roll_up_all
from usage.tests.events import add

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:usage_dashboard")
CSV = reverse("admin:usage_dashboard_csv")
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
MAX_QUERIES = 15


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Friday in the middle of a month, wherever the calendar of the machine is."""
    for module in ("report_forms", "reports", "chargeback"):
        monkeypatch.setattr(f"usage.{module}.timezone.now", lambda: NOW)


@pytest.fixture
def traffic(research: Team) -> None:
    """Research by two keys today and yesterday, and a team that is gone two weeks ago."""
    keys = [create_key(name, research)[0].pk for name in ("laptop", "server")]
    add(NOW, team_id=research.pk, key_id=keys[0], cost_nano_usd=2_000_000_000)
    add(NOW - DAY, team_id=research.pk, key_id=keys[1], cost_nano_usd=500_000_000, model="llama")
    add(NOW - DAY, team_id=research.pk, key_id=keys[1], cost_nano_usd=None, model="llama")
    add(NOW - 14 * DAY, team_id=4711, cost_nano_usd=9_000_000_000, status=502, error_code="upstream_unavailable")
    roll_up_all()


def shown(client: Client, query: str = "") -> dict[str, Any]:
    page = client.get(f"{PAGE}{query}")
    assert page.status_code == 200
    context: dict[str, Any] = page.context_data
    return context


def rows(client: Client, query: str = "") -> dict[str, Row]:
    return {row.name: row for row in shown(client, query)["rows"]}


def figure(client: Client, title: str, query: str = "") -> Any:
    return next(found for found in shown(client, query)["figures"] if found.title == title)


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


# --- what it shows --------------------------------------------------------------------------------------------------
def test_last_seven_days_by_team_unless_asked_otherwise(admin_client: Client, traffic: None) -> None:
    page = shown(admin_client)
    assert page["period"] == "14 Nov 2026 to 20 Nov 2026 (UTC)"
    assert [row.name for row in page["rows"]] == ["research"]


@pytest.mark.parametrize(
    ("query", "period", "calls"),
    [
        ("?range=24h", "19 Nov 2026, 13:00 to 20 Nov 2026, 13:00 (UTC)", "1"),
        ("?range=30d", "22 Oct 2026 to 20 Nov 2026 (UTC)", "4"),
        ("?range=month", "1 Nov 2026 to 20 Nov 2026 (UTC)", "4"),
        ("?range=last_month", "1 Oct 2026 to 31 Oct 2026 (UTC)", None),
        ("?from=2026-11-06&to=2026-11-06", "6 Nov 2026 (UTC)", "1"),
        ("?from=2026-11-19", "19 Nov 2026 to 20 Nov 2026 (UTC)", "3"),
        ("?to=2026-11-19&range=24h", "19 Nov 2026 (UTC)", "2"),
    ],
    ids=["24 hours", "30 days", "this month", "last month", "one day", "from", "until"],
)
def test_time_can_be_chosen(admin_client: Client, traffic: None, query: str, period: str, calls: str | None) -> None:
    page = shown(admin_client, query)
    assert page["period"] == period
    assert page["empty"] is (calls is None)
    if calls:
        assert figure(admin_client, "Calls", query).value == calls


def test_figures_say_spend_tokens_calls_failures_and_latency(admin_client: Client, traffic: None) -> None:
    found = {figure.title: (figure.value, *figure.notes) for figure in shown(admin_client, "?range=30d")["figures"]}
    assert found["Spend"] == ("$11.50", "1 call unpriced")
    assert found["Tokens"] == ("480", "400 in, 80 out")
    assert found["Calls"][0] == "4"
    assert found["Failed"][0] == "25 %"
    assert found["Latency"][0].endswith("ms")
    assert found["First byte"][0].endswith("ms")


def test_refused_calls_are_no_failed_ones(admin_client: Client, traffic: None) -> None:
    """A limit or a policy that does its work is no failure, neither in the figures nor in the table and the chart."""
    add(NOW - DAY, team_id=4711, count=4, status=429, error_code="rate_limit_exceeded", cost_nano_usd=0)
    roll_up_all()
    found = {figure.title: (figure.value, *figure.notes) for figure in shown(admin_client, "?range=30d")["figures"]}
    assert found["Failed"] == ("12 %", "1, by the provider or the gateway")
    assert found["Refused"] == ("50 %", "4, by policies, limits, budgets")
    row = rows(admin_client, "?range=30d")["(deleted team 4711)"]
    assert (row.failed, row.refused) == ("1", "4")
    for measure, calls in (("failed", 1), ("refused", 4)):
        data = json.loads(shown(admin_client, f"?range=30d&measure={measure}")["chart"].data)
        assert sum(sum(series["data"]) for series in data["datasets"]) == calls


def test_page_says_which_calls_are_failed_and_which_refused(admin_client: Client, traffic: None) -> None:
    page = admin_client.get(f"{PAGE}?range=30d").content.decode()
    assert "The provider or the gateway failed" in page
    assert "by a policy, a rate limit, a budget" in page


def test_forecast_is_to_the_end_of_the_month(admin_client: Client, traffic: None) -> None:
    assert figure(admin_client, "Forecast").notes == ("by 30 November; $11.50 so far",)


def test_too_little_for_a_forecast_shows_none(admin_client: Client) -> None:
    add(NOW - DAY)
    roll_up_all()
    assert "Forecast" not in [figure.title for figure in shown(admin_client)["figures"]]


def test_chart_adds_up_to_the_figure(admin_client: Client, traffic: None) -> None:
    data = json.loads(shown(admin_client, "?range=30d&group=model")["chart"].data)
    assert [series["label"] for series in data["datasets"]] == ["gpt", "llama"]
    assert len(data["labels"]) == 30
    assert sum(sum(series["data"]) for series in data["datasets"]) == 11.5


def test_chart_shows_what_is_asked_for(admin_client: Client, traffic: None) -> None:
    data = json.loads(shown(admin_client, "?range=30d&measure=failed")["chart"].data)
    assert sum(sum(series["data"]) for series in data["datasets"]) == 1


def test_lines_have_shares_and_say_what_is_unpriced(admin_client: Client, traffic: None) -> None:
    found = rows(admin_client, "?range=30d")
    assert [(row.share, row.percent, row.unpriced) for row in found.values()] == [
        ("78 %", 100, False),
        ("22 %", 28, True),
    ]


def test_amounts_are_in_the_currency_that_was_set(admin_client: Client, traffic: None) -> None:
    MoneySettings.objects.create(currency="EUR", units_per_usd="0.5")
    spend = figure(admin_client, "Spend")
    assert (spend.value, spend.notes[0]) == ("€1.25", "$2.50")
    assert rows(admin_client)["research"].cost == "€1.25"
    assert sum(json.loads(shown(admin_client)["chart"].data)["datasets"][0]["data"]) == 1.25


def test_nothing_used_says_what_to_do(admin_client: Client) -> None:
    page = admin_client.get(PAGE).content.decode()
    assert "No calls in this time" in page
    assert "Choose a longer time above" in page


def test_name_from_outside_is_not_taken_for_markup(admin_client: Client) -> None:
    add(NOW, model="<script>alert(1)</script>")
    roll_up_all()
    assert "<script>alert" not in admin_client.get(f"{PAGE}?group=model").content.decode()


# --- what it leads to -----------------------------------------------------------------------------------------------
def test_line_leads_deeper_until_times_are_left(admin_client: Client, traffic: None) -> None:
    url = rows(admin_client, "?range=30d")["research"].url
    keys = rows(admin_client, url)
    assert [name.split(" (")[0] for name in keys] == ["laptop", "server"]
    models = rows(admin_client, next(row.url for name, row in keys.items() if name.startswith("server")))
    assert list(models) == ["llama"]
    assert query_of(models["llama"].url)["range"] == "30d"
    providers = rows(admin_client, models["llama"].url)
    assert list(providers) == ["openai"]
    days = rows(admin_client, providers["openai"].url)
    assert list(days) == ["Thu 19 Nov 2026"]


def test_day_leads_to_that_day(admin_client: Client, traffic: None) -> None:
    day = rows(admin_client, "?range=30d&group=time")["Fri 6 Nov 2026"]
    assert list(rows(admin_client, day.url)) == ["(deleted team 4711)"]


@pytest.mark.parametrize("group", ["team", "user", "key", "model", "provider", "time"])
def test_line_leads_to_its_calls(admin_client: Client, traffic: None, group: str) -> None:
    for row in rows(admin_client, f"?range=30d&group={group}").values():
        events = admin_client.get(row.events_url).context["cl"].result_list
        assert str(len(events)) == row.calls, row.name


def test_hour_leads_to_its_calls(admin_client: Client, traffic: None) -> None:
    (hour,) = rows(admin_client, "?range=24h&group=time").values()
    assert (hour.name, hour.url) == ("20 Nov, 12:00", "")
    assert len(admin_client.get(hour.events_url).context["cl"].result_list) == 1


def test_filters_are_named_and_can_be_taken_away(admin_client: Client, traffic: None, research: Team) -> None:
    page = shown(admin_client, f"?range=30d&team={research.pk}&model=llama")
    assert [(dimension, name) for dimension, name, _ in page["chips"]] == [("Team", "research"), ("Model", "llama")]
    without_team, _ = (url for _, _, url in page["chips"])
    assert query_of(without_team) == {"range": "30d", "model": "llama", "group": "user", "measure": "spend"}


def test_filter_goes_with_another_choice_of_the_form(admin_client: Client, traffic: None, research: Team) -> None:
    page = admin_client.get(f"{PAGE}?range=30d&team={research.pk}").content.decode()
    assert f'<input type="hidden" name="team" value="{research.pk}" id="id_team">' in page
    assert '<input type="hidden" name="range" value="30d" id="id_range">' in page


def test_calls_of_nobody_can_be_asked_for(admin_client: Client) -> None:
    add(NOW)
    roll_up_all()
    page = shown(admin_client, rows(admin_client)["(no team)"].url)
    assert [(dimension, name) for dimension, name, _ in page["chips"]] == [("Team", "(no team)")]
    assert len(page["rows"]) == 1


def test_calls_without_a_model_lead_nowhere(admin_client: Client) -> None:
    add(NOW, model="", status=404, error_code="model_not_found")
    roll_up_all()
    row = rows(admin_client, "?group=model")["(no model)"]
    assert (row.url, row.events_url) == ("", "")


# --- nonsense -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?from=2026-11-10&to=2026-11-01", "The last day is before the first one."),
        ("?from=2024-01-01&to=2026-11-01", "At most 366 days can be shown at once."),
        ("?from=yesterday", "Enter a valid date."),
        ("?from=2027-01-01", "The last day is before the first one."),
        ("?team=x", "This is not the id of one."),
        ("?key=-1", "This is not the id of one."),
        ("?key=99999999999999999999", "This is not the id of one."),
        ("?group=planet", "Select a valid choice."),
        ("?range=century", "Select a valid choice."),
        ("?model=%00", "Null characters are not allowed."),
    ],
    ids=["turned round", "too long", "no date", "future", "no id", "negative", "huge", "group", "range", "nul"],
)
def test_nonsense_is_said_and_left_out(admin_client: Client, traffic: None, query: str, words: str) -> None:
    response = admin_client.get(f"{PAGE}{query}")
    assert words in response.content.decode()
    assert [row.name for row in response.context["rows"]] == ["research"]


# --- CSV ------------------------------------------------------------------------------------------------------------
def test_csv_has_what_the_page_shows(admin_client: Client, traffic: None, research: Team) -> None:
    response = admin_client.get(f"{CSV}?range=30d")
    assert response["Content-Disposition"] == 'attachment; filename="usage-2026-10-22-2026-11-20-by-team.csv"'
    lost, found = csv.DictReader(io.StringIO(response.content.decode(), newline=""))
    assert (lost["team"], lost["id"], float(lost["cost_usd"])) == ("(deleted team 4711)", "4711", 9)
    assert (found["team"], found["id"], found["calls"], found["unpriced_calls"]) == (
        *("research", str(research.pk)),
        *("3", "1"),
    )
    assert float(found["latency_p50_ms"]) > 0
    assert lost["latency_p50_ms"] == ""


def test_csv_has_the_currency_beside_the_dollars(admin_client: Client, traffic: None) -> None:
    MoneySettings.objects.create(currency="EUR", units_per_usd="0.5")
    (row,) = csv.DictReader(io.StringIO(admin_client.get(CSV).content.decode()))
    assert (float(row["cost_usd"]), float(row["cost_eur"])) == (2.5, 1.25)


def test_csv_of_names_that_are_formulas_is_harmless(admin_client: Client) -> None:
    add(NOW, model="=HYPERLINK(1)")
    roll_up_all()
    assert "'=HYPERLINK" in admin_client.get(f"{CSV}?group=model").content.decode()


# --- who, and at what cost ------------------------------------------------------------------------------------------
def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("staff", password="x", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


@pytest.mark.parametrize("url", [PAGE, CSV])
def test_usage_is_for_those_who_may_see_it(client: Client, url: str) -> None:
    assert client.get(url).status_code == 302
    assert staff(client, "accounts.view_team").get(url).status_code == 403


def test_who_may_see_usage_but_not_keys_is_offered_no_list_of_keys(client: Client, traffic: None) -> None:
    form = shown(staff(client, "usage.view_usageevent", "accounts.view_team"))["form"]
    assert [field.name for field in form.filter_fields] == ["team", "model", "provider"]


@pytest.mark.parametrize("group", ["team", "user", "key", "model", "provider", "time"])
def test_page_takes_few_queries_and_no_event(
    client: Client, traffic: None, research: Team, group: str, django_assert_max_num_queries: Any
) -> None:
    staff(client, "usage.view_usageevent", "accounts.view_team")
    key = UsageEvent.objects.filter(team=research).values_list("key_id", flat=True)[0]
    UsageEvent.objects.all().delete()
    with django_assert_max_num_queries(MAX_QUERIES):
        assert len(shown(client, f"?range=30d&group={group}&team={research.pk}&key={key}&user=0")["chips"]) == 3
    with django_assert_max_num_queries(MAX_QUERIES):
        assert shown(client, f"?range=30d&group={group}")["rows"]
