"""The admin's front page, sidebar and search, for those who may see all, some or nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.admin_pages import short_time
from accounts.models import Team, User
from accounts.services import create_key
from accounts.time_ids import to_unix_us
from policies.models import Policy, Wordlist
from policies.tests.findings import add as add_finding
from proxy.models import Model, Provider, Route
from usage.alert_models import Alert, AlertDestination
from usage.rollups import roll_up_all
from usage.services import new_event_id
from usage.tests.alerts import destination
from usage.tests.events import add

pytestmark = pytest.mark.django_db

FRONT = reverse("admin:index")
SEARCH = reverse("admin:search")


def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("staff", password="x", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


def callable_model(name: str = "gpt-test") -> Model:
    model = Model.objects.create(name=name)
    Route.objects.create(model=model, provider=Provider.objects.create(name=f"of-{name}", kind="echo"))
    return model


# --- a new installation ---------------------------------------------------------------------------------------------
def test_new_installation_is_told_what_to_do(admin_client: Client) -> None:
    page = admin_client.get(FRONT)
    assert [step.done for step in page.context["steps"]] == [False, False, False]
    text = page.content.decode()
    for url in ("proxy_provider", "proxy_model", "accounts_apikey"):
        assert reverse(f"admin:{url}_add") in text
    assert "curl http://testserver/v1/chat/completions" in text


def test_steps_are_ticked_off(admin_client: Client, research: Team) -> None:
    Provider.objects.create(name="p", kind="echo")
    assert [step.done for step in admin_client.get(FRONT).context["steps"]] == [True, False, False]
    callable_model()
    create_key("app", research)
    page = admin_client.get(FRONT)
    assert [step.done for step in page.context["steps"]] == [True, True, True]
    assert '"model": "gpt-test"' in page.content.decode()


def test_steps_offer_only_what_one_may_do(client: Client) -> None:
    steps = staff(client, "accounts.add_apikey").get(FRONT).context["steps"]
    assert [bool(step.url) for step in steps] == [False, False, True]


# --- figures --------------------------------------------------------------------------------------------------------
@pytest.fixture
def calls() -> None:
    add(timezone.now(), count=3, cost_nano_usd=1_500_000_000)
    roll_up_all()


def test_front_page_shows_what_goes_on(admin_client: Client, calls: None) -> None:
    page = admin_client.get(FRONT).content.decode()
    for words in ("Calls per minute", "Spend per hour", "Latency of answered calls", "Top teams", "$4.50"):
        assert words in page


def test_front_page_takes_few_queries(admin_client: Client, calls: None, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(10):
        admin_client.get(FRONT)


def test_empty_front_page_takes_few_queries(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(10):
        admin_client.get(FRONT)


def test_front_page_shows_what_policies_stopped(admin_client: Client, calls: None) -> None:
    now = timezone.now()
    add_finding(now, 1, times=2)
    add_finding(now, 10, action="redact")
    add_finding(now - timedelta(hours=5), 20)
    card = next(card for card in admin_client.get(FRONT).context["cards"] if card.title == "Stopped by policies")
    assert (card.hour, card.hour_note, card.day, card.day_note) == ("2", "1 changed", "3", "1 changed")
    assert admin_client.get(card.url).status_code == 200


def test_what_policies_stopped_is_for_those_who_may_see_findings(client: Client, calls: None) -> None:
    assert "Stopped by policies" not in staff(client, "usage.view_usageevent").get(FRONT).content.decode()


def test_spend_is_for_those_who_may_see_usage(client: Client, calls: None) -> None:
    page = staff(client, "accounts.view_apikey").get(FRONT).content.decode()
    assert "$4.50" not in page
    assert "Make an API key" in page


# --- alerts ---------------------------------------------------------------------------------------------------------
def alert(title: str, severity: str = "warning", **changed: Any) -> Alert:
    fired_at = changed.pop("fired_at", timezone.now() - timedelta(hours=2))
    pk = UUID(new_event_id(to_unix_us(fired_at)))
    return Alert.objects.create(
        id=pk, fired_at=fired_at, subject=title, kind="errors", severity=severity, title=title, text="", **changed
    )


def test_open_alerts_are_told_the_worst_and_newest_first(admin_client: Client, calls: None) -> None:
    alert("over", "critical", resolved_at=timezone.now())
    alert("old", "critical", fired_at=timezone.now() - timedelta(days=40))
    alert("small", "info")
    alert("bad", "critical")
    page = admin_client.get(FRONT)
    assert [line.title for line in page.context["alerts"]["lines"]] == ["bad", "old", "small"]
    text = page.content.decode()
    newest = Alert.objects.get(title="bad")
    for words in (
        "Critical",
        reverse("admin:usage_alert_change", args=[newest.pk]),
        f"since {short_time(newest.fired_at)} (2\xa0hours)",
    ):
        assert words in text
    shown = admin_client.get(page.context["alerts"]["list_url"]).context["cl"].result_list
    assert {row.title for row in shown} == {"old", "small", "bad"}, "all that are open"


def test_many_open_alerts_are_a_few_lines(admin_client: Client, calls: None) -> None:
    for number in range(6):
        alert(f"alert {number}")
    page = admin_client.get(FRONT)
    assert len(page.context["alerts"]["lines"]) == 5
    assert "and more" in page.content.decode()


def test_open_alerts_are_told_before_there_is_any_call(admin_client: Client) -> None:
    assert "Open alerts" not in admin_client.get(FRONT).content.decode(), "it has other things to do first"
    alert("Key laptop expires soon")
    assert "Key laptop expires soon" in admin_client.get(FRONT).content.decode()


def test_front_page_says_when_nothing_is_amiss_and_when_nobody_would_be_told(admin_client: Client, calls: None) -> None:
    page = admin_client.get(FRONT).content.decode()
    assert "nothing that the rules watch is amiss" in page
    assert reverse("admin:usage_alertdestination_add") in page
    made = destination()
    assert "Nobody is told" not in admin_client.get(FRONT).content.decode()
    AlertDestination.objects.filter(pk=made.pk).update(enabled=False)
    assert "Nobody is told" in admin_client.get(FRONT).content.decode()


def test_alerts_are_for_those_who_may_see_them(client: Client, calls: None) -> None:
    alert("secret trouble")
    somebody = staff(client, "usage.view_usageevent")
    assert "secret trouble" not in somebody.get(FRONT).content.decode()
    User.objects.get().user_permissions.add(Permission.objects.get(codename="view_alert"))
    page = somebody.get(FRONT).content.decode()
    assert "secret trouble" in page
    assert "there is no destination" in page
    assert reverse("admin:usage_alertdestination_add") not in page


# --- sidebar --------------------------------------------------------------------------------------------------------
def sidebar(client: Client) -> dict[str, list[str]]:
    groups = client.get(FRONT).context["sidebar_navigation"]
    return {group["title"] or "": [item["title"] for item in group["items"]] for group in groups}


def test_sidebar_leads_everywhere(admin_client: Client) -> None:
    assert sidebar(admin_client) == {
        "": ["Overview"],
        "People & keys": [
            *("API keys", "Teams", "Users", "Groups", "Management tokens", "Audit trail"),
            *("Identity providers", "Group rules", "SCIM tokens", "SCIM groups"),
        ],
        "Requests & courses": [
            *("Requests", "Rules for requests", "Settings of requests", "Courses", "Terms", "Agreements"),
        ],
        "Providers & models": ["Providers", "Models"],
        "Policies": ["Policies", "Word lists", "Findings", "Logged content", "Looks at content"],
        "Usage": ["Spend & usage", "Chargeback", "Events", "Prices", "Re-ratings"],
        "Limits & money": ["Budgets", "Rate limits", "Money & limits"],
        "Alerts": ["Alerts", "Rules", "Destinations"],
    }


def test_sidebar_shows_what_one_may_see(client: Client) -> None:
    somebody = staff(client, "accounts.view_team", "usage.view_usageevent")
    usage = ["Spend & usage", "Chargeback", "Events"]
    assert sidebar(somebody) == {"": ["Overview"], "People & keys": ["Teams"], "Usage": usage}


@pytest.mark.parametrize(
    ("page", "entry"),
    [("index", "Overview"), ("usage_dashboard", "Spend & usage"), ("usage_usageevent_changelist", "Events")],
)
def test_sidebar_shows_where_one_is(admin_client: Client, page: str, entry: str) -> None:
    groups = admin_client.get(reverse(f"admin:{page}")).context["sidebar_navigation"]
    assert [item["title"] for group in groups for item in group["items"] if item["active"]] == [entry]


# --- search ---------------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def no_cached_results() -> None:
    cache.clear()


def found(client: Client, term: str) -> str:
    return client.get(SEARCH, {"s": term, "extended": "1"}).content.decode()


def test_search_finds_keys_people_providers_and_models(admin_client: Client, research: Team, alice: User) -> None:
    key, _ = create_key("laptop", research, alice)
    callable_model()
    assert str(key) in found(admin_client, "laptop")
    assert str(key) in found(admin_client, key.public_id)
    assert reverse("admin:accounts_user_change", args=[alice.pk]) in found(admin_client, "alice")
    assert "gpt-test" in found(admin_client, "gpt")


def test_search_finds_policies_and_word_lists(admin_client: Client) -> None:
    policy = Policy.objects.create(name="exams")
    words = Wordlist.objects.create(name="exam questions")
    page = found(admin_client, "exam")
    assert reverse("admin:policies_policy_change", args=[policy.pk]) in page
    assert reverse("admin:policies_wordlist_change", args=[words.pk]) in page


def test_search_shows_what_one_may_see(client: Client, research: Team) -> None:
    create_key("laptop", research)
    callable_model("laptop-model")
    page = found(staff(client, "proxy.view_model"), "laptop")
    assert "laptop-model" in page
    assert "API key" not in page


def test_search_puts_what_is_called_so_first(admin_client: Client) -> None:
    for number in range(12):
        model = Model.objects.create(name=f"a-{number}")
        provider = Provider.objects.create(name=f"p-{number}", kind="echo")
        Route.objects.create(model=model, provider=provider, upstream_model="wanted")
    Model.objects.create(name="wanted")
    page = found(admin_client, "wanted")
    assert page.index('data-title="wanted"') < page.index('data-title="a-0"')


def test_search_lists_a_few_of_each(admin_client: Client, research: Team) -> None:
    for number in range(30):
        create_key(f"app-{number}", research)
    assert found(admin_client, "app-").count("data-title") == 8
