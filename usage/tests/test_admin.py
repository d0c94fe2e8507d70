"""The admin's list of usage events at size, the page of one event, and prices."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import Team, User
from accounts.services import create_key
from usage.models import Budget, UsageEvent
from usage.tests.events import add
from usage.tests.many_events import insert_many

pytestmark = pytest.mark.django_db

EVENTS = reverse("admin:usage_usageevent_changelist")
PRICES = reverse("admin:usage_modelprice_changelist")
MAX_QUERIES = 15


def rows(client: Client, query: str = "") -> list[Any]:
    return list(client.get(f"{EVENTS}{query}").context["cl"].result_list)


def event_page(client: Client, event: UsageEvent) -> str:
    url = reverse("admin:usage_usageevent_change", args=[event.pk])
    return client.get(url).content.decode()


def staff(client: Client, *permissions: str) -> Client:
    user = User.objects.create_user("staff", password="x", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


# --- at size --------------------------------------------------------------------------------------------------------
def test_every_page_of_a_large_table_is_cheap(admin_client: Client) -> None:
    """The same at a million rows takes a tenth of a second a page, on SQLite and on PostgreSQL."""
    insert_many(20_000, hours=24 * 20)
    middle = UsageEvent.objects.get(request_id="req-0010000").pk
    queries = (
        *("", "?window=hour", "?window=week", "?window=month", "?window=all"),
        *(f"?window=all&before={middle}", f"?window=all&after={middle}"),
        *("?window=all&key__id__exact=3", "?window=all&team__id__exact=2", "?window=all&user__id__exact=7"),
        *("?window=all&model=model-1", "?window=all&provider=provider-1", "?window=all&model=model-1&provider=nobody"),
        *("?window=all&error=any", "?window=all&error=rate_limit_exceeded", "?q=req-0000042", "?q=nothing"),
    )
    rows(admin_client)
    for query in queries:
        with CaptureQueriesContext(connection) as asked:
            began = time.perf_counter()
            assert admin_client.get(f"{EVENTS}{query}").status_code == 200
            took = time.perf_counter() - began
        assert len(asked) <= MAX_QUERIES, query
        assert not [entry for entry in asked if "COUNT(" in entry["sql"].upper()], query
        assert took < 2, query  # a guard against scans, not a measurement: machines are shared


def test_pages_follow_each_other(admin_client: Client) -> None:
    insert_many(120)
    seen = []
    url = EVENTS
    while url:
        page = admin_client.get(url).context["cl"]
        seen += [event.request_id for event in page.result_list]
        url = f"{EVENTS}{page.older_url}" if page.older_url else ""
    assert seen == [f"req-{number:07}" for number in reversed(range(120))]


def test_way_back_leads_to_the_same_page(admin_client: Client) -> None:
    insert_many(120)
    first = admin_client.get(EVENTS).context["cl"]
    second = admin_client.get(f"{EVENTS}{first.older_url}").context["cl"]
    back = admin_client.get(f"{EVENTS}{second.newer_url}").context["cl"]
    assert [event.pk for event in back.result_list] == [event.pk for event in first.result_list]


def test_filters_stay_while_paging_and_paging_ends_with_another_filter(admin_client: Client) -> None:
    insert_many(400)
    page = admin_client.get(f"{EVENTS}?model=model-1").context["cl"]
    older = admin_client.get(f"{EVENTS}{page.older_url}").context["cl"]
    assert {event.model for event in older.result_list} == {"model-1"}
    assert "model=model-1" in older.older_url
    assert all("before=" not in url for _, url, _ in older.windows)


@pytest.mark.parametrize("cursor", ["before=nonsense", "after=", "before=%00", "before=1"])
def test_nonsense_in_the_address_shows_the_newest_page(admin_client: Client, cursor: str) -> None:
    insert_many(3)
    assert len(rows(admin_client, f"?{cursor}")) == 3


# --- what is found --------------------------------------------------------------------------------------------------
def test_last_day_is_shown_unless_asked_otherwise(admin_client: Client) -> None:
    now = timezone.now()
    for name, age in (("minutes", timedelta(minutes=5)), ("hours", timedelta(hours=5)), ("days", timedelta(days=5))):
        add(now - age, request_id=name)

    def shown(query: str = "") -> list[str]:
        return [event.request_id for event in rows(admin_client, query)]

    assert shown() == ["minutes", "hours"]
    assert shown("?window=hour") == ["minutes"]
    assert shown("?window=week") == ["minutes", "hours", "days"]
    assert shown("?window=nonsense") == ["minutes", "hours"]


def test_call_is_found_by_its_request_id_however_old(admin_client: Client) -> None:
    add(timezone.now() - timedelta(days=100), request_id="req_wanted")
    add(timezone.now(), request_id="req_other")
    assert [event.request_id for event in rows(admin_client, "?q=req_wanted")] == ["req_wanted"]
    assert rows(admin_client, "?q=req_want") == []


def test_calls_are_found_by_the_public_id_of_their_key(admin_client: Client, research: Team) -> None:
    key, _ = create_key("app", research)
    add(timezone.now(), key_id=key.pk)
    add(timezone.now())
    assert len(rows(admin_client, f"?q={key.public_id}")) == 1


def test_search_and_window_can_be_combined(admin_client: Client) -> None:
    add(timezone.now() - timedelta(days=3), request_id="req_wanted")
    assert rows(admin_client, "?q=req_wanted&window=hour") == []


def test_errors_are_found_all_or_by_code(admin_client: Client) -> None:
    now = timezone.now()
    add(now, request_id="good")
    add(now, request_id="limited", status=429, error_code="rate_limit_exceeded")
    add(now, request_id="broken", status=502, error_code="upstream_unavailable")

    def shown(query: str) -> set[str]:
        return {event.request_id for event in rows(admin_client, query)}

    assert shown("?error=any") == {"limited", "broken"}
    assert shown("?error=upstream_unavailable") == {"broken"}
    page = admin_client.get(EVENTS).content.decode()
    assert "Error: rate_limit_exceeded" in page


@pytest.mark.parametrize("name", ["model/with+signs", "provider"])
def test_names_that_occur_are_offered(admin_client: Client, name: str) -> None:
    add(timezone.now(), model=name, provider=name)
    assert len(rows(admin_client, f"?model={quote(name, safe='')}&provider={quote(name, safe='')}")) == 1
    assert f'<option value="{name}">' in admin_client.get(EVENTS).content.decode()


# --- what is shown --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"cost_nano_usd": None}, "unpriced"),
        ({"cost_nano_usd": 12_345_678_900}, "$12.35"),
        ({"cost_nano_usd": 6_340}, "$0.00000634"),
        ({"estimated": True}, "est."),
        ({"status": 499, "error_code": "client_disconnected"}, "499 client left"),
        ({"status": 0, "error_code": "gateway_died"}, "gateway died"),
        ({"status": 502, "error_code": "upstream_unavailable"}, "bg-red-100"),
        ({"status": 429, "error_code": "rate_limit_exceeded"}, "bg-orange-100"),
        ({"latency_us": 1_234_567}, "1.2 s"),
        ({"first_byte_us": 123_456}, "123 ms"),
        ({"prompt_tokens": 12_345}, "12,345 / 20"),
        ({"key_label": ""}, "no valid key"),
    ],
)
def test_row_says_what_happened(admin_client: Client, event: dict[str, Any], words: str) -> None:
    add(timezone.now(), **event)
    assert words in admin_client.get(EVENTS).content.decode()


def test_page_of_an_event_links_to_whom_it_belongs(admin_client: Client, research: Team, alice: User) -> None:
    key, _ = create_key("laptop", research, alice)
    add(timezone.now(), key_id=key.pk, team_id=research.pk, user_id=alice.pk, key_label=str(key), tags={"app": "x"})
    with CaptureQueriesContext(connection) as asked:
        page = event_page(admin_client, UsageEvent.objects.get())
    for row in (key, research, alice):
        assert reverse(f"admin:accounts_{row._meta.model_name}_change", args=[row.pk]) in page
    assert "app=x" in page
    assert len(asked) <= MAX_QUERIES


def test_event_outlives_what_it_names(admin_client: Client) -> None:
    add(timezone.now(), key_id=4711, team_id=4712, user_id=4713, key_label="laptop (gone)")
    page = event_page(admin_client, UsageEvent.objects.get())
    assert "laptop (gone)" in page
    assert "deleted (4712)" in page


def test_page_of_an_event_says_who_failed_before(admin_client: Client) -> None:
    add(timezone.now(), provider="groq", attempts=3, failed_tries="azure:503,openai:429")
    assert "3; failed before: azure 503, openai 429" in event_page(admin_client, UsageEvent.objects.get())


def test_list_and_page_of_an_event_say_which_limit_refused_it(admin_client: Client) -> None:
    limit = "requests per minute of team research: 3"
    add(timezone.now(), status=429, error_code="rate_limit_exceeded", refused_by=limit)
    assert f"rate_limit_exceeded: {limit}" in admin_client.get(EVENTS).content.decode()
    assert limit in event_page(admin_client, UsageEvent.objects.get())


def test_page_of_an_event_leads_to_the_budget_that_refused_it(admin_client: Client) -> None:
    budget = Budget.objects.create(scope="installation", limit=0, per="day")
    named = "budget of the whole installation per day"
    add(timezone.now(), status=429, error_code="insufficient_quota", refused_by=named, spent_budget_id=budget.pk)
    url = reverse("admin:usage_budget_change", args=[budget.pk])
    assert f'<a href="{url}" class="text-link">{named}</a>' in event_page(admin_client, UsageEvent.objects.get())


def test_empty_list_says_when_calls_appear(admin_client: Client) -> None:
    assert "Calls appear here within seconds" in admin_client.get(EVENTS).content.decode()


# --- who may --------------------------------------------------------------------------------------------------------
def test_nobody_changes_what_was_recorded(admin_client: Client) -> None:
    add(timezone.now())
    event = UsageEvent.objects.get()
    for page in ("change", "delete"):
        url = reverse(f"admin:usage_usageevent_{page}", args=[event.pk])
        assert admin_client.post(url, {"post": "yes"}).status_code == 403
    assert admin_client.get(reverse("admin:usage_usageevent_add")).status_code == 403
    assert 'name="_save"' not in event_page(admin_client, event)


def test_those_who_may_look_at_usage_alone_can(client: Client) -> None:
    add(timezone.now(), key_id=1)
    somebody = staff(client, "usage.view_usageevent")
    page = somebody.get(EVENTS)
    assert page.status_code == 200
    assert "By API key" not in page.content.decode()
    assert "In one piece" in event_page(somebody, UsageEvent.objects.get())


def test_others_may_not(client: Client) -> None:
    assert staff(client).get(EVENTS).status_code == 403
