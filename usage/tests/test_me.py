"""GET /api/v1/me/usage: what an app learns with its own key, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import keys
from accounts.authentication import Principal, check_now
from accounts.models import ApiKey, Team, User
from accounts.services import create_key, peppers, revoke_key
from usage import key_usage
from usage.budgets import top_up
from usage.key_usage import usage_of
from usage.models import Adjustment, Budget, DirtyHour, Limit, MoneySettings, UsageEvent
from usage.pricing import NANO
from usage.rollups import roll_up_all
from usage.spending import standings
from usage.tests.events import add

pytestmark = pytest.mark.django_db
URL = "/api/v1/me/usage"
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
MAX_QUERIES = 9


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def key(research: Team, alice: User) -> tuple[ApiKey, str]:
    return create_key("laptop", research, alice)


@pytest.fixture
def principal(key: tuple[ApiKey, str]) -> Principal:
    return check_now(key[1], peppers())


def ask(client: Client, secret: str, **headers: str) -> dict[str, Any]:
    response = client.get(URL, headers={"authorization": f"Bearer {secret}", **headers})
    assert response.status_code == 200, response.content
    return dict(response.json())


def check_error(response: Any, status: int, code: str) -> None:
    assert response.status_code == status
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["code"], error["param"]) == (code, None)
    assert response["Cache-Control"] == "no-store"


def spend(principal: Principal, at: datetime = NOW, **changed: Any) -> None:
    owner = {"key_id": principal.key_id, "user_id": principal.user_id, "team_id": principal.team_id}
    add(at, **{**owner, "cost_nano_usd": NANO, **changed})


# --- who may ask ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-usagepanda-api-key"])
def test_key_is_taken_from_where_the_data_plane_takes_it(client: Client, key: tuple[ApiKey, str], header: str) -> None:
    value = f"Bearer {key[1]}" if header == "authorization" else key[1]
    response = client.get(URL, headers={header: value})
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


def test_own_header_comes_first_where_authorization_is_the_providers(client: Client, key: tuple[ApiKey, str]) -> None:
    assert ask(client, "sk-of-the-provider", **{"x-usagepanda-api-key": key[1]})["key"]["name"] == "laptop"


def test_every_failure_reads_the_same(client: Client, key: tuple[ApiKey, str], research: Team) -> None:
    row, secret = key
    expired = create_key("expired", research)
    ApiKey.objects.filter(pk=expired[0].pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    revoked = create_key("revoked", research)
    revoke_key(revoked[0])
    wrong = ["", "nonsense", secret[:-1], keys.make_key(row.public_id), keys.make_key("a" * 12), expired[1], revoked[1]]
    answers = [client.get(URL, headers={"authorization": f"Bearer {one}"}) for one in wrong]
    answers += [client.get(URL), client.get(URL, headers={"authorization": secret})]
    for response in answers:
        check_error(response, 401, "invalid_api_key")
    assert len({response.content for response in answers}) == 1


def test_someone_who_is_signed_in_is_nobody_without_a_key(admin_client: Client) -> None:
    check_error(admin_client.get(URL), 401, "invalid_api_key")


def test_key_is_refused_from_another_network(client: Client, key: tuple[ApiKey, str]) -> None:
    ApiKey.objects.filter(pk=key[0].pk).update(networks_allowed=["192.0.2.0/24"])
    headers = {"authorization": f"Bearer {key[1]}"}
    check_error(client.get(URL, headers=headers), 403, "address_not_allowed")
    assert client.get(URL, headers=headers, REMOTE_ADDR="192.0.2.7").status_code == 200


def test_other_methods_are_refused_in_the_same_shape(client: Client, key: tuple[ApiKey, str]) -> None:
    response = client.post(URL, headers={"authorization": f"Bearer {key[1]}"})
    check_error(response, 405, "method_not_allowed")


def test_database_that_is_away_is_no_invalid_key(client: Client, key: tuple[ApiKey, str]) -> None:
    with (
        mock.patch("usage.me.check_now", side_effect=OperationalError("password=secret")),
        mock.patch("usage.me.connection"),
    ):
        response = client.get(URL, headers={"authorization": f"Bearer {key[1]}"})
    check_error(response, 503, "key_lookup_unavailable")
    assert response["Retry-After"] == "2"
    assert b"password" not in response.content


def test_answer_is_json_whatever_is_accepted(client: Client, key: tuple[ApiKey, str]) -> None:
    assert ask(client, key[1], accept="text/html")["key"] == {"name": "laptop", "public_id": key[0].public_id}


# --- what it learns -------------------------------------------------------------------------------------------------
def test_budget_tells_what_is_left_and_until_when(
    client: Client, key: tuple[ApiKey, str], principal: Principal
) -> None:
    MoneySettings.objects.create(pk=1, timezone="Europe/Berlin")
    budget = Budget.objects.create(scope="key", key=key[0], limit=10 * NANO, soft=8 * NANO, per="total")
    Budget.objects.filter(pk=budget.pk).update(counts_from=NOW - timedelta(days=400))
    spend(principal, timezone.now(), cost_nano_usd=2_500_000_001)
    top_up(budget, 5 * NANO, "a demo", None)
    assert ask(client, key[1])["budgets"] == [
        {
            "scope": "key",
            "model": None,
            "unit": "usd",
            "per": "total",
            "exhausted": False,
            "timezone": "Europe/Berlin",
            "window_start": "2025-10-16T14:30:00+02:00",
            "resets_at": None,
            "when_spent": "refuse",
            "fallback_model": None,
            "limit": "15",
            "spent": "2.500000001",
            "remaining": "12.499999999",
            "soft": "8",
        }
    ]


def test_window_is_told_by_the_clock_of_the_owner(key: tuple[ApiKey, str], principal: Principal) -> None:
    from usage.me import as_json

    Budget.objects.create(scope="key", key=key[0], limit=100, unit="tokens", per="day", timezone="Asia/Kolkata")
    (budget,) = as_json(principal, usage_of(principal, NOW))["budgets"]
    assert (budget["window_start"], budget["resets_at"]) == ("2026-11-20T00:00:00+05:30", "2026-11-21T00:00:00+05:30")
    assert (budget["limit"], budget["spent"], budget["remaining"]) == (100, 0, 100)


def test_budgets_of_key_owner_and_team_hold_and_no_others(
    client: Client, key: tuple[ApiKey, str], research: Team, alice: User, bob: User, charlie: User
) -> None:
    other = create_key("other", research, bob)[0]
    for owner in (
        *({"scope": "key", "key": key[0]}, {"scope": "user", "user": alice}, {"scope": "team", "team": research}),
        *(
            {"scope": "key", "key": other},
            {"scope": "user", "user": bob},
            {"scope": "team", "team": charlie.teams.get()},
        ),
    ):
        Budget.objects.create(limit=NANO, per="day", **owner)
        Limit.objects.create(requests_per_minute=60, **owner)
    Budget.objects.create(scope="key", key=key[0], limit=NANO, per="week", enabled=False)
    Limit.objects.create(scope="client_ip", max_parallel=4)
    found = ask(client, key[1])
    assert sorted(one["scope"] for one in found["budgets"]) == ["key", "team", "user"]
    assert sorted(one["scope"] for one in found["limits"]) == ["client_ip", "key", "team", "user"]
    service = create_key("nightly", research)[1]
    assert sorted(one["scope"] for one in ask(client, service)["budgets"]) == ["team"]


def test_of_the_installation_it_learns_only_whether_it_is_spent(
    client: Client, key: tuple[ApiKey, str], principal: Principal
) -> None:
    Budget.objects.create(scope="installation", limit=5 * NANO, per="month")
    Limit.objects.create(scope="installation", requests_per_minute=6000)
    found = ask(client, key[1])
    (budget,) = found["budgets"]
    assert (budget["scope"], budget["exhausted"], found["limits"]) == ("installation", False, [])
    assert budget.keys().isdisjoint({"limit", "spent", "remaining", "soft"})
    cache.clear()
    spend(principal, timezone.now(), key_id=None, team_id=None, user_id=None, cost_nano_usd=5 * NANO)
    assert ask(client, key[1])["budgets"][0]["exhausted"]


def test_what_others_have_used_is_not_in_it(client: Client, key: tuple[ApiKey, str], principal: Principal) -> None:
    spend(principal, timezone.now())
    spend(principal, timezone.now(), key_id=principal.key_id + 1)
    usage = ask(client, key[1])["usage"]
    assert usage["today"] == {"calls": 1, "prompt_tokens": 100, "completion_tokens": 20, "cost_usd": "1"}


# --- sums -----------------------------------------------------------------------------------------------------------
def check_sums(principal: Principal) -> None:
    """The same as the page of the admin has."""
    found = usage_of(principal, NOW)
    for standing, expected in zip(found.standings, standings(Budget.objects.order_by("scope", "id"), NOW), strict=True):
        assert standing == expected


@pytest.mark.parametrize("rolled_up", [False, True], ids=["events alone", "rolled up"])
def test_sums_are_those_of_the_books(key: tuple[ApiKey, str], principal: Principal, rolled_up: bool) -> None:
    """Windows that begin in the middle of an hour (Kolkata), and hours that are rolled up, or half, or not at all."""
    for per in ("hour", "day", "week", "month", "total"):
        for owner in (
            {"scope": "key", "key": key[0]},
            {"scope": "team", "team_id": principal.team_id},
            {"scope": "installation"},
        ):
            zone = {"timezone": "Asia/Kolkata"} if owner["scope"] == "key" else {}
            began = NOW - timedelta(days=20, minutes=17)
            Budget.objects.create(limit=9 * NANO, per=per, counts_from=began, **zone, **owner)
    Budget.objects.create(scope="key", key=key[0], limit=9999, unit="tokens", per="month", model="small")
    Budget.objects.create(scope="installation", limit=9999, per="month", model="small")
    for minutes in (1, 20, 40, 59, 61, 90, 60 * 7, 60 * 13, 60 * 18 + 7, 60 * 24 * 4, 60 * 24 * 19, 60 * 24 * 20 + 20):
        at = NOW - timedelta(minutes=minutes)
        spend(principal, at)
        spend(principal, at, model="small", cost_nano_usd=3)
        spend(principal, at, key_id=None, team_id=None, user_id=None, cost_nano_usd=50)
    if rolled_up:
        roll_up_all()
        spend(principal, NOW - timedelta(minutes=70), cost_nano_usd=700)
        spend(principal, NOW - timedelta(days=3), cost_nano_usd=7000)
    event = UsageEvent.objects.filter(key_id=principal.key_id).order_by("-id")[0]
    Adjustment.objects.create(
        id=event.pk, event_id=event.pk, at=event.at, key_id=event.key_id, team_id=event.team_id, user_id=event.user_id,
        model=event.model, provider=event.provider, status=200, delta_nano_usd=-400,
    )  # fmt: skip
    check_sums(principal)


def test_sums_are_those_of_the_books_on_the_hour_too(key: tuple[ApiKey, str], principal: Principal) -> None:
    """Then there is no rest of an hour to be read from events."""
    Budget.objects.create(scope="key", key=key[0], limit=9 * NANO, per="day")
    spend(principal, NOW - timedelta(hours=3))
    roll_up_all()
    noon = NOW.replace(minute=0)
    assert usage_of(principal, noon).standings == standings(Budget.objects.all(), noon)


def test_key_learns_what_it_used_today_and_this_month(principal: Principal) -> None:
    MoneySettings.objects.create(pk=1, timezone="Asia/Kolkata")
    spend(principal, NOW - timedelta(hours=17))  # yesterday in London, today in Kolkata
    spend(principal, NOW - timedelta(hours=19))
    spend(principal, NOW - timedelta(days=30))
    found = usage_of(principal, NOW)
    assert (found.today.calls, found.today.cost_nano_usd, found.this_month.calls) == (1, NANO, 2)


def test_answer_takes_few_questions_however_much_holds(
    client: Client, key: tuple[ApiKey, str], research: Team, alice: User, principal: Principal
) -> None:
    for per in ("hour", "day", "week", "month", "total"):
        for owner in (
            *({"scope": "key", "key": key[0]}, {"scope": "user", "user": alice}),
            *({"scope": "team", "team": research}, {"scope": "installation"}),
        ):
            Budget.objects.create(limit=NANO, per=per, **owner)
    spend(principal, timezone.now())
    for _ in range(2):
        with CaptureQueriesContext(connection) as asked:
            ask(client, key[1])
        assert len(asked) <= MAX_QUERIES


def test_answer_takes_few_questions_where_nothing_holds(client: Client, key: tuple[ApiKey, str]) -> None:
    with CaptureQueriesContext(connection) as asked:
        assert ask(client, key[1])["budgets"] == []
    assert len(asked) <= MAX_QUERIES


def test_sum_over_everybody_is_not_made_again_at_each_question(principal: Principal) -> None:
    Budget.objects.create(scope="installation", limit=NANO, per="month")
    usage_of(principal, NOW)
    with mock.patch.object(key_usage, "_used", wraps=key_usage._used) as used:
        usage_of(principal, NOW)
    assert [one.scope for one in used.call_args[0][0]] == ["key", "key"]


def test_many_hours_that_wait_to_be_rolled_up_are_one_question(principal: Principal) -> None:
    """After an outage: SQLite takes neither thousands of conditions nor tens of thousands of parameters."""
    hours = [datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(460)]
    DirtyHour.objects.bulk_create(DirtyHour(hour=hour) for hour in hours if hour.hour != 3)
    spend(principal, NOW - timedelta(days=3))
    assert usage_of(principal, NOW).this_month.calls == 1
