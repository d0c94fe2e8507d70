"""The admin's pages for budgets, rate limits and the settings of money, as those who use them meet them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import WARNING, get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts import catalogue
from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from usage.budgets import money_settings, top_up
from usage.models import Budget, Limit, MoneySettings, TopUp
from usage.pricing import NANO
from usage.tests.events import add

pytestmark = pytest.mark.django_db

BUDGETS, ADD_BUDGET = reverse("admin:usage_budget_changelist"), reverse("admin:usage_budget_add")
LIMITS, ADD_LIMIT = reverse("admin:usage_limit_changelist"), reverse("admin:usage_limit_add")
SETTINGS = reverse("admin:usage_moneysettings_change", args=[1])
NEW_BUDGET = {"unit": "usd", "amount": "50", "per": "month", "on_exhaustion": "refuse", "enabled": "on"}
FROM = {"counts_from_0": "2026-11-01", "counts_from_1": "00:00:00"}
SAVED_SETTINGS = {
    "timezone": "Europe/Berlin",
    "when_redis_is_away": "serve",
    "default_max_tokens": "1000",
    "blocks_to_throttle": "",
    "throttle_s": "60",
    "currency": "EUR",
    "units_per_usd": "0.92",
    "events_kept_days": "",
    "rollups_kept_days": "",
}
MAX_QUERIES = 20


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue._sources, "models", lambda: ["gpt", "gpt-mini"])


@pytest.fixture
def key(research: Team, alice: User) -> ApiKey:
    return create_key("laptop", research, alice)[0]


@pytest.fixture
def budget(research: Team) -> Budget:
    return Budget.objects.create(scope="team", team=research, limit=50 * NANO, per="month")


def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("staff", password="x", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


def page_of(row: Any, page: str = "change") -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{page}", args=[row.pk])


def shown(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return response.content.decode()


def check_saved(client: Client, url: str, data: dict[str, Any]) -> Any:
    response = client.post(url, data)
    assert response.status_code == 302, response.context["errors"]
    return response


def errors_on(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def spend(nano_usd: int, **owner: Any) -> None:
    add(timezone.now(), cost_nano_usd=nano_usd, **owner)


# --- budgets: the list ----------------------------------------------------------------------------------------------
def test_list_says_how_each_budget_stands(admin_client: Client, budget: Budget, research: Team) -> None:
    spend(int(12.5 * NANO), team_id=research.pk)
    page = shown(admin_client, BUDGETS)
    assert "Team research" in page
    assert "$50.00 per month" in page
    assert "$12.50 of $50.00 (25 %)" in page
    assert '<progress max="100" value="25"' in page


def test_list_of_many_budgets_asks_few_questions(admin_client: Client, research: Team) -> None:
    def questions() -> int:
        with CaptureQueriesContext(connection) as asked:
            shown(admin_client, BUDGETS)
        return len(asked)

    Budget.objects.create(scope="team", team=research, limit=NANO, per="month")
    questions()
    few = questions()
    for number in range(20):
        Budget.objects.create(scope="team", team=research, limit=NANO, per="month", model=f"m{number}")
    assert questions() == few
    assert few <= MAX_QUERIES


def test_empty_list_says_what_a_budget_is_for(admin_client: Client) -> None:
    assert "A budget says how much a key, a person, a team" in shown(admin_client, BUDGETS)
    assert "A rate limit says how many calls" in shown(admin_client, LIMITS)


def test_list_is_searched_by_owner_and_filtered(admin_client: Client, budget: Budget, key: ApiKey) -> None:
    Budget.objects.create(scope="key", key=key, limit=1, unit="tokens", per="day", enabled=False)

    def found(query: str) -> list[str]:
        return [row.scope for row in admin_client.get(f"{BUDGETS}{query}").context["cl"].result_list]

    assert found(f"?q={key.public_id}") == ["key"]
    assert found("?q=research") == ["team"]
    assert found("?state=off") == ["key"]
    assert found("?scope__exact=team") == ["team"]
    assert found(f"?team__id__exact={budget.team_id}") == ["team"]


# --- budgets: made and changed --------------------------------------------------------------------------------------
def test_budget_is_made_in_dollars(admin_client: Client, research: Team) -> None:
    data = {**NEW_BUDGET, **FROM, "scope": "team", "team": research.pk, "soft_amount": "12.345678901"}
    response = check_saved(admin_client, ADD_BUDGET, data)
    budget = Budget.objects.get()
    assert (budget.scope, budget.team, budget.limit, budget.soft) == ("team", research, 50 * NANO, 12_345_678_901)
    assert "live in about a second" in messages_of(response)[0]


def test_budget_is_made_in_tokens_for_one_model(admin_client: Client, key: ApiKey) -> None:
    data = {**NEW_BUDGET, **FROM, "scope": "key", "key": key.pk, "unit": "tokens", "amount": "1000", "model": "gpt"}
    check_saved(admin_client, ADD_BUDGET, {**data, "timezone": "Asia/Tokyo"})
    budget = Budget.objects.get()
    assert (budget.key, budget.limit, budget.unit, budget.model) == (key, 1000, "tokens", "gpt")
    assert budget.timezone == "Asia/Tokyo"


def test_owner_of_a_scope_that_was_left_again_does_not_matter(admin_client: Client, research: Team) -> None:
    check_saved(admin_client, ADD_BUDGET, {**NEW_BUDGET, **FROM, "scope": "installation", "team": research.pk})
    assert Budget.objects.get().team is None


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        ({"scope": "team"}, "team", "Choose whose calls count"),
        ({"amount": "-1"}, "amount", "greater than or equal to 0"),
        ({"amount": "2000000000"}, "amount", "Must be between 0 and $1,000,000,000"),
        ({"unit": "tokens", "amount": "1.5"}, "amount", "Tokens are whole"),
        ({"soft_amount": "50"}, "soft_amount", "less than the limit"),
        ({"timezone": "Mars/Olympus"}, "timezone", "not one of the available choices"),
        ({"model": "gone"}, "model", "not one of the available choices"),
        ({"on_exhaustion": "fall_back"}, "fallback_model", "Name the model"),
    ],
    ids=str,
)
def test_budget_that_makes_no_sense_is_refused_at_its_field(
    admin_client: Client, data: dict[str, Any], field: str, words: str
) -> None:
    response = admin_client.post(ADD_BUDGET, {**NEW_BUDGET, **FROM, "scope": "installation", **data})
    errors = errors_on(response)
    assert list(errors) == [field]
    assert words in errors[field][0]
    assert not Budget.objects.exists()


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int] | None]:
    """Of gpt-mini all is half of gpt's."""
    known: dict[str, tuple[int, int] | None] = {"gpt": (2, 8), "gpt-mini": (1, 4)}
    monkeypatch.setattr(catalogue, "_prices", [lambda: known])
    return known


def fall_back(client: Client, **data: Any) -> Any:
    falling_back = {"on_exhaustion": "fall_back", "fallback_model": "gpt-mini"}
    return client.post(ADD_BUDGET, {**NEW_BUDGET, **FROM, "scope": "installation", **falling_back, **data})


def warnings_of(response: Any) -> list[str]:
    return [str(one) for one in get_messages(response.wsgi_request) if one.level == WARNING]


@pytest.mark.parametrize("model", ["gpt", ""])
@pytest.mark.parametrize(("price", "warned"), [((1, 4), False), ((2, 8), True), ((1, 9), True), ((3, 9), True)])
def test_budget_that_leads_to_a_model_that_is_not_cheaper_says_so(
    admin_client: Client, prices: dict[str, Any], price: tuple[int, int], warned: bool, model: str
) -> None:
    prices["gpt-mini"] = price
    said = warnings_of(fall_back(admin_client, model=model))
    assert [text.partition(":")[0] for text in said] == ["gpt-mini is not cheaper than gpt"] * warned
    assert Budget.objects.exists()


@pytest.mark.parametrize(("unit", "refused"), [("usd", True), ("tokens", False)])
def test_budget_in_money_leads_to_no_model_without_a_price(
    admin_client: Client, prices: dict[str, Any], unit: str, refused: bool
) -> None:
    prices["gpt-mini"] = None
    response = fall_back(admin_client, unit=unit)
    assert Budget.objects.exists() is not refused
    if refused:
        assert "It has no price" in errors_on(response)["fallback_model"][0]


def test_budget_is_changed_but_not_whose_it_is(admin_client: Client, budget: Budget, alice: User) -> None:
    page = shown(admin_client, page_of(budget))
    assert 'name="scope"' not in page
    assert 'name="unit"' not in page
    assert 'value="50"' in page
    data = {**NEW_BUDGET, **FROM, "amount": "75.5", "scope": "user", "user": alice.pk, "unit": "tokens", "model": "gpt"}
    check_saved(admin_client, page_of(budget), data)
    budget.refresh_from_db()
    assert budget.limit == int(75.5 * NANO)
    assert (budget.scope, budget.user, budget.unit, budget.model) == ("team", None, "usd", "")


def test_zone_and_model_that_are_no_longer_offered_stay_choosable(admin_client: Client, budget: Budget) -> None:
    Budget.objects.filter(pk=budget.pk).update(timezone="EST", on_exhaustion="fall_back", fallback_model="gone")
    data = {**NEW_BUDGET, **FROM, "timezone": "EST", "on_exhaustion": "fall_back", "fallback_model": "gone"}
    check_saved(admin_client, page_of(budget), data)
    budget.refresh_from_db()
    assert (budget.timezone, budget.fallback_model) == ("EST", "gone")


def test_who_may_only_look_gets_no_fields(client: Client, budget: Budget) -> None:
    page = shown(staff(client, "usage.view_budget"), page_of(budget))
    assert "$50.00 per month" in page
    assert 'name="amount"' not in page
    assert "/top-up" not in page


@pytest.mark.parametrize(("unit", "words"), [("usd", "US dollars"), ("tokens", "tokens")])
def test_page_of_a_budget_says_in_what_its_limit_is(admin_client: Client, unit: str, words: str) -> None:
    budget = Budget.objects.create(scope="installation", unit=unit, limit=5, per="day")
    page = shown(admin_client, page_of(budget))
    assert f"Limit, {words}" in page
    assert f"Soft limit, {words}" in page
    assert "in US dollars or in tokens" not in page
    assert f"Amount, {words}" in shown(admin_client, page_of(budget, "top_up"))


# --- top-ups --------------------------------------------------------------------------------------------------------
def give(client: Client, budget: Budget, **data: Any) -> Any:
    newest = str(budget.top_ups.values_list("pk", flat=True).first() or 0)
    return client.post(page_of(budget, "top_up"), {"seen": newest, "confirmed": "yes", **data})


def test_top_up_counts_in_the_window_of_now_and_stays_on_record(
    admin_client: Client, admin_user: User, budget: Budget
) -> None:
    response = give(admin_client, budget, amount="12.5", reason="Black Friday")
    assert messages_of(response) == ["Topped up by $12.50. It is live in about a second."]
    row = TopUp.objects.get()
    now = timezone.now()
    assert (row.amount, row.reason, row.by) == (int(12.5 * NANO), "Black Friday", admin_user)
    assert row.window_start == now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert "Topped up by $12.50: Black Friday" in LogEntry.objects.get().get_change_message()
    page = shown(admin_client, page_of(budget))
    assert "$0.00 of $62.50" in page
    assert "Black Friday" in page


@pytest.mark.parametrize(("amount", "words"), [(10, "$10.00 of it topped up"), (-10, "$10.00 taken back")])
def test_list_says_how_much_of_a_limit_was_topped_up(
    admin_client: Client, budget: Budget, amount: int, words: str
) -> None:
    assert "topped up" not in shown(admin_client, BUDGETS)
    top_up(budget, amount * NANO, "a demo", None)
    page = shown(admin_client, BUDGETS)
    assert "$50.00 per month" in page
    assert words in page


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"amount": "5", "reason": ""}, "This field is required"),
        ({"amount": "", "reason": "why"}, "This field is required"),
        ({"amount": "-51", "reason": "why"}, "Takes more than there is: $50 at most"),
        ({"amount": "0", "reason": "why"}, "Must not be 0"),
    ],
    ids=str,
)
def test_top_up_that_makes_no_sense_is_refused(
    admin_client: Client, budget: Budget, data: dict[str, str], words: str
) -> None:
    response = give(admin_client, budget, **data)
    assert response.status_code == 200
    assert words in response.content.decode()
    assert not TopUp.objects.exists()


def test_answer_that_comes_twice_gives_once(admin_client: Client, budget: Budget) -> None:
    for _ in range(2):
        response = admin_client.post(page_of(budget, "top_up"), {"seen": "0", "amount": "5", "reason": "why"})
    assert TopUp.objects.count() == 1
    assert "nothing was given now" in messages_of(response)[-1]


def test_top_up_needs_a_right_of_its_own(client: Client, budget: Budget) -> None:
    somebody = staff(client, "usage.view_budget", "usage.change_budget")
    assert give(somebody, budget, amount="5", reason="why").status_code == 403
    user = User.objects.get(username="staff")
    user.user_permissions.add(Permission.objects.get(codename="add_topup"))
    assert give(somebody, budget, amount="5", reason="why").status_code == 302


def test_budget_that_was_topped_up_is_not_deleted(admin_client: Client, budget: Budget) -> None:
    assert admin_client.get(page_of(budget, "delete")).status_code == 200
    top_up(budget, NANO, "a demo", None)
    assert admin_client.post(page_of(budget, "delete"), {"post": "yes"}).status_code == 403


# --- rate limits ----------------------------------------------------------------------------------------------------
def test_limit_is_made_for_each_client_ip(admin_client: Client) -> None:
    check_saved(admin_client, ADD_LIMIT, {"scope": "client_ip", "requests_per_minute": "30", "max_parallel": "4"})
    limit = Limit.objects.get()
    assert (limit.scope, limit.requests_per_minute, limit.max_parallel) == ("client_ip", 30, 4)
    assert limit.tokens_per_minute is None
    page = shown(admin_client, LIMITS)
    assert "Each client IP" in page
    assert "not limited" in page


def test_limit_that_limits_nothing_or_is_there_already_is_refused(admin_client: Client, research: Team) -> None:
    data = {"scope": "team", "team": research.pk}
    assert list(errors_on(admin_client.post(ADD_LIMIT, data))) == ["requests_per_minute"]
    check_saved(admin_client, ADD_LIMIT, {**data, "requests_per_minute": "60"})
    errors = errors_on(admin_client.post(ADD_LIMIT, {**data, "requests_per_minute": "6"}))
    assert errors
    assert Limit.objects.get().requests_per_minute == 60


def test_limit_is_changed_but_not_whose_it_is(admin_client: Client, research: Team) -> None:
    limit = Limit.objects.create(scope="team", team=research, requests_per_minute=60)
    check_saved(admin_client, page_of(limit), {"requests_per_minute": "", "tokens_per_minute": "9", "scope": "key"})
    limit.refresh_from_db()
    assert (limit.scope, limit.requests_per_minute, limit.tokens_per_minute) == ("team", None, 9)


# --- money & limits -------------------------------------------------------------------------------------------------
def test_settings_have_a_page_and_no_list(admin_client: Client) -> None:
    response = admin_client.get(reverse("admin:usage_moneysettings_changelist"))
    assert (response.status_code, response["Location"]) == (302, SETTINGS)
    assert "4096" in shown(admin_client, SETTINGS)
    assert not MoneySettings.objects.exists()


def test_settings_are_saved_in_their_one_row(admin_client: Client) -> None:
    for _ in range(2):
        check_saved(admin_client, SETTINGS, {**SAVED_SETTINGS, "_continue": "1"})
    assert MoneySettings.objects.count() == 1
    assert (money_settings().timezone, money_settings().blocks_to_throttle) == ("Europe/Berlin", None)


def test_settings_that_make_no_sense_are_refused_at_their_field(admin_client: Client) -> None:
    response = admin_client.post(SETTINGS, {**SAVED_SETTINGS, "currency": "E1", "units_per_usd": "0"})
    assert set(errors_on(response)) == {"currency", "units_per_usd"}
    assert not MoneySettings.objects.exists()


# --- on the pages of teams, people and keys -------------------------------------------------------------------------
def test_owner_sees_its_budgets_and_limits_with_a_way_to_add(admin_client: Client, budget: Budget) -> None:
    Limit.objects.create(scope="team", team=budget.team, requests_per_minute=600)
    page = shown(admin_client, page_of(budget.team))
    assert "$0.00 of $50.00" in page
    assert page_of(budget) in page
    assert ">600<" in page
    add = f"{ADD_BUDGET}?scope=team&amp;team={budget.team_id}"
    assert add in page
    form = admin_client.get(add.replace("&amp;", "&")).context["adminform"].form
    assert (form.initial["scope"], form.initial["team"]) == ("team", str(budget.team_id))


def test_person_and_key_have_sections_too(admin_client: Client, key: ApiKey, budget: Budget) -> None:
    for row in (key, key.user):
        page = shown(admin_client, page_of(row))
        assert "No budget of its own" in page
        assert page_of(budget) not in page


def test_who_may_not_see_budgets_sees_no_section(client: Client, budget: Budget) -> None:
    page = shown(staff(client, "accounts.view_team"), page_of(budget.team))
    assert "owner-budgets" not in page
    assert "owner-limits" not in page


def test_who_may_see_but_not_add_gets_no_link(client: Client, budget: Budget) -> None:
    page = shown(staff(client, "accounts.view_team", "usage.view_budget"), page_of(budget.team))
    assert "owner-budgets" in page
    assert "Add a budget" not in page


@pytest.mark.parametrize("name", ["budget", "limit"])
def test_every_page_opens(admin_client: Client, name: str, budget: Budget) -> None:
    limit = Limit.objects.create(scope="installation", max_parallel=3)
    row = {"budget": budget, "limit": limit}[name]
    for page in ("changelist", "add"):
        shown(admin_client, reverse(f"admin:usage_{name}_{page}"))
    for page in ("change", "history", "delete"):
        shown(admin_client, page_of(row, page))


def test_budget_whose_window_is_over_begins_anew(admin_client: Client, research: Team) -> None:
    Budget.objects.create(scope="team", team=research, limit=NANO, per="day", timezone="UTC")
    add(timezone.now() - timedelta(days=2), cost_nano_usd=NANO, team_id=research.pk)
    assert "$0.00 of $1.00" in shown(admin_client, BUDGETS)


def test_new_budget_is_for_a_team_unless_something_else_is_meant(admin_client: Client) -> None:
    for url in (ADD_BUDGET, ADD_LIMIT):
        assert admin_client.get(url).context["adminform"].form["scope"].value() == "team"
        assert admin_client.get(f"{url}?scope=key").context["adminform"].form["scope"].value() == "key"
