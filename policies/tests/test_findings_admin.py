"""Findings in the admin: the list at size, the page of one, the overview, and where they link to."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import ApiKey, Team, User
from accounts.services import create_key
from policies.checks.base import CHECKS
from policies.models import Finding, Policy
from policies.tests.admin_pages import MAX_QUERIES, staff, superuser, text_of
from policies.tests.findings import add
from policies.tests.many_findings import insert_many
from usage.models import UsageEvent
from usage.tests import events

pytestmark = pytest.mark.django_db

FINDINGS = reverse("admin:policies_finding_changelist")
OVERVIEW = reverse("admin:policies_finding_overview")


@pytest.fixture
def admin_client(client: Client) -> Client:
    return superuser(client)


@pytest.fixture
def key(research: Team, alice: User) -> ApiKey:
    return create_key("laptop", research, alice)[0]


def rows(client: Client, query: str = "") -> list[Any]:
    return list(client.get(f"{FINDINGS}{query}").context["cl"].result_list)


def rules(client: Client, query: str = "") -> set[str]:
    return {finding.rule for finding in rows(client, query)}


def page_of(client: Client, finding: Finding) -> str:
    return text_of(client.get(reverse("admin:policies_finding_change", args=[finding.pk])))


# --- at size --------------------------------------------------------------------------------------------------------
def test_every_page_of_a_large_table_is_cheap(admin_client: Client) -> None:
    """The same at a million rows takes a tenth of a second a page, on SQLite and on PostgreSQL."""
    insert_many(20_000, hours=24 * 20)
    middle = Finding.objects.filter(request_id="req-0005000").values_list("pk", flat=True)[0]
    queries = (
        *("", "?window=hour", "?window=day", "?window=month", "?window=all"),
        *(f"?window=all&before={middle}", f"?window=all&after={middle}"),
        *("?window=all&rule=rule-3", "?window=all&policy=policy-1", "?window=all&check_name=check-2"),
        *("?window=all&team__id__exact=2", "?window=all&key__id__exact=3", "?window=all&rule=rule-1&action=nothing"),
        *("?window=all&action=block", "?window=all&stage=reply", "?window=all&dry_run=yes", "?window=all&failed=yes"),
        *("?window=all&failed=yes&dry_run=yes&stage=reply&action=block", "?q=nothing"),
    )
    rows(admin_client)
    for query in queries:
        with CaptureQueriesContext(connection) as asked:
            began = time.perf_counter()
            assert admin_client.get(f"{FINDINGS}{query}").status_code == 200
            took = time.perf_counter() - began
        assert len(asked) <= MAX_QUERIES, query
        assert not [entry for entry in asked if "COUNT(" in entry["sql"].upper()], query
        assert took < 2, query  # a guard against scans, not a measurement: machines are shared


def test_pages_follow_each_other(admin_client: Client) -> None:
    insert_many(120)
    seen: list[Any] = []
    url = FINDINGS
    while url:
        page = admin_client.get(url).context["cl"]
        seen += [finding.pk for finding in page.result_list]
        url = f"{FINDINGS}{page.older_url}" if page.older_url else ""
    assert seen == list(Finding.objects.order_by("-pk").values_list("pk", flat=True))


def test_overview_of_a_large_table_takes_few_queries(admin_client: Client) -> None:
    insert_many(5_000, hours=24 * 20)
    with CaptureQueriesContext(connection) as asked:
        page = admin_client.get(OVERVIEW)
    assert page.context["total"] == 5_000
    assert len(asked) <= MAX_QUERIES


# --- what is found --------------------------------------------------------------------------------------------------
def test_last_week_is_shown_unless_asked_otherwise(admin_client: Client) -> None:
    now = timezone.now()
    for name, age in (("minutes", timedelta(minutes=5)), ("days", timedelta(days=5)), ("weeks", timedelta(weeks=3))):
        add(now - age, rule=name)
    assert rules(admin_client) == {"minutes", "days"}
    assert rules(admin_client, "?window=hour") == {"minutes"}
    assert rules(admin_client, "?window=month") == {"minutes", "days", "weeks"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("rule=wanted", {"wanted"}),
        ("policy=exams", {"wanted"}),
        ("check_name=max_tokens", {"wanted"}),
        ("action=redact", {"wanted"}),
        ("stage=reply", {"wanted"}),
        ("dry_run=yes", {"wanted"}),
        ("dry_run=no", {"other"}),
        ("failed=yes", {"wanted"}),
        ("failed=no", {"other"}),
        ("team__id__exact=7", {"wanted"}),
        ("key__id__exact=8", {"wanted"}),
        ("rule=wanted&action=block", set()),
        ("rule=nobody", set()),
        ("rule=%00", set()),
        ("action=nonsense&stage=nonsense&failed=nonsense", {"wanted", "other"}),
    ],
)
def test_findings_are_filtered(admin_client: Client, query: str, found: set[str]) -> None:
    now = timezone.now()
    add(now, 1, rule="other")
    add(
        now, 2, rule="wanted", policy="exams", check_name="max_tokens", action="redact", stage="reply",
        dry_run=True, failed=True, team_id=7, key_id=8,
    )  # fmt: skip
    assert rules(admin_client, f"?{query}") == found


def test_names_that_occur_are_offered(admin_client: Client) -> None:
    add(timezone.now(), rule="a+b & <c>", check_name="gone")
    page = text_of(admin_client.get(FINDINGS))
    assert '<option value="a+b &amp; &lt;c&gt;">' in page
    assert "gone (no longer there)" in page
    assert len(rows(admin_client, f"?rule={quote('a+b & <c>')}")) == 1


def test_findings_of_a_call_are_found_by_its_request_id(admin_client: Client) -> None:
    long_ago = timezone.now() - timedelta(days=80)
    events.add(long_ago, request_id="req_wanted")
    event = UsageEvent.objects.get()
    add(long_ago, 1, event_id=event.pk, rule="wanted")
    add(timezone.now(), 2)
    assert rules(admin_client, "?q=req_wanted") == {"wanted"}
    assert rows(admin_client, "?q=req_want") == []


def test_findings_are_found_by_the_public_id_of_their_key(admin_client: Client, key: ApiKey) -> None:
    add(timezone.now(), 1, key_id=key.pk, rule="wanted")
    add(timezone.now(), 2)
    assert rules(admin_client, f"?q={key.public_id}") == {"wanted"}


# --- what is shown --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"action": "block"}, "blocked"),
        ({"action": "redact"}, "changed"),
        ({"action": "audit"}, "recorded"),
        ({"action": "block", "dry_run": True}, "would block"),
        ({"action": "redact", "dry_run": True}, "would change"),
        ({"action": "audit", "dry_run": True}, "would record"),
        ({"action": "block", "failed": True}, "check failed"),
        ({"action": "mystery"}, "mystery"),
        ({"label": "violence", "count": 1234}, "violence ×\u00a01,234"),
        ({"policy": "exams", "version": 7}, "exams v7"),
        ({"label": "<b>"}, "&lt;b&gt;"),
    ],
)
def test_row_says_what_was_done_about_what(admin_client: Client, columns: dict[str, Any], words: str) -> None:
    finding = add(timezone.now(), **columns)
    assert words in text_of(admin_client.get(FINDINGS))
    page_of(admin_client, finding)


def test_finding_without_a_label_is_named_after_its_check(admin_client: Client) -> None:
    add(timezone.now(), label="", check_name="max_tokens")
    assert f">{CHECKS['max_tokens'].label}<" in text_of(admin_client.get(FINDINGS))


def test_row_links_to_the_usage_event_and_to_the_key(admin_client: Client, key: ApiKey) -> None:
    finding = add(timezone.now(), 1, key_id=key.pk, key_label=str(key))
    add(timezone.now(), 2, key_id=4711, key_label="gone")
    page = text_of(admin_client.get(FINDINGS))
    assert reverse("admin:usage_usageevent_change", args=[finding.event_id]) in page
    assert reverse("admin:accounts_apikey_change", args=[key.pk]) in page
    assert "4711" not in page


def test_page_of_a_finding_links_to_all_that_it_names(
    admin_client: Client, key: ApiKey, django_assert_max_num_queries: Any
) -> None:
    policy = Policy.objects.create(name="default")
    finding = add(timezone.now(), key_id=key.pk, team_id=key.team_id, user_id=key.user_id)
    with django_assert_max_num_queries(MAX_QUERIES):
        page = page_of(admin_client, finding)
    for app, model, pk in (
        ("accounts", "apikey", key.pk),
        ("accounts", "team", key.team_id),
        ("accounts", "user", key.user_id),
        ("policies", "policy", policy.pk),
        ("usage", "usageevent", finding.event_id),
    ):
        assert reverse(f"admin:{app}_{model}_change", args=[pk]) in page


def test_finding_outlives_what_it_names(admin_client: Client) -> None:
    page = page_of(admin_client, add(timezone.now(), key_id=4711, team_id=4712, key_label="laptop (gone)"))
    assert "laptop (gone)" in page
    assert "deleted (4712)" in page
    assert "default, version 3" in page


def test_empty_list_says_what_to_do(admin_client: Client) -> None:
    page = text_of(admin_client.get(FINDINGS))
    assert "set its action to “Record only”" in page
    assert reverse("admin:policies_policy_add") in page
    Policy.objects.create(name="default")
    assert "Open the policies" in text_of(admin_client.get(FINDINGS))


def test_empty_list_offers_only_what_one_may_do(client: Client) -> None:
    assert "Make a policy" not in text_of(staff(client, "policies.view_finding").get(FINDINGS))


# --- the overview ---------------------------------------------------------------------------------------------------
def test_overview_adds_up_by_day_rule_and_team(admin_client: Client, research: Team) -> None:
    now = timezone.now()
    add(now, times=3, team_id=research.pk)
    add(now, 10, rule="few", action="redact")
    page = admin_client.get(OVERVIEW)
    assert "4 in all: 3 blocked, 1 changed." in text_of(page)
    series = {entry["label"]: entry["data"][-1] for entry in json.loads(page.context["chart"].data)["datasets"]}
    assert series == {"Blocked": 3, "Changed": 1, "Recorded": 0, "Dry run": 0, "Check failed": 0}
    by_rule, by_team = page.context["rankings"]
    assert [(name, count, share) for name, _, count, share, _ in by_rule["entries"]] == [
        ("no frogs", "3", "75 %"),
        ("few", "1", "25 %"),
    ]
    assert [name for name, *_ in by_team["entries"]] == ["research"]


def test_names_of_the_overview_lead_to_the_findings_behind_their_number(admin_client: Client, research: Team) -> None:
    add(timezone.now() - timedelta(days=20), times=3, rule="a & b", team_id=research.pk)
    for ranking in admin_client.get(OVERVIEW).context["rankings"]:
        for _, url, *_ in ranking["entries"]:
            assert len(admin_client.get(url).context["cl"].result_list) == 3


def test_empty_overview_says_what_to_do(admin_client: Client) -> None:
    page = text_of(admin_client.get(OVERVIEW))
    assert "Nothing was found in the last 30 days" in page
    assert reverse("admin:policies_policy_add") in page


# --- on the page of a usage event -----------------------------------------------------------------------------------
def event_with_findings(**columns: Any) -> str:
    now = timezone.now()
    events.add(now)
    event = UsageEvent.objects.get()
    add(now, 1, event_id=event.pk, **columns)
    add(now, 2, rule="of another call")
    return reverse("admin:usage_usageevent_change", args=[event.pk])


def test_usage_event_shows_what_was_found_in_its_call(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    url = event_with_findings(rule="no <frogs>", label="frogs", count=2)
    with django_assert_max_num_queries(MAX_QUERIES):
        page = text_of(admin_client.get(url))
    assert "What policies found" in page
    assert "no &lt;frogs&gt;" in page
    assert "frogs ×\u00a02" in page
    assert "of another call" not in page


def test_usage_event_shows_findings_only_to_those_who_may_see_them(client: Client) -> None:
    url = event_with_findings()
    assert "What policies found" not in text_of(staff(client, "usage.view_usageevent").get(url))


def test_usage_event_without_findings_says_nothing_of_them(admin_client: Client) -> None:
    events.add(timezone.now())
    url = reverse("admin:usage_usageevent_change", args=[UsageEvent.objects.get().pk])
    assert "What policies found" not in text_of(admin_client.get(url))


def test_event_that_is_not_there_is_asked_nothing(admin_client: Client) -> None:
    for name in ("nonsense", "01a1fe5a-6949-709f-93d6-434ded0b2fca"):
        url = reverse("admin:usage_usageevent_change", args=[name])
        assert admin_client.get(url).status_code == 302


# --- who may --------------------------------------------------------------------------------------------------------
def test_nobody_changes_what_was_found(admin_client: Client) -> None:
    finding = add(timezone.now())
    for page in ("change", "delete"):
        url = reverse(f"admin:policies_finding_{page}", args=[finding.pk])
        assert admin_client.post(url, {"post": "yes"}).status_code == 403
    assert admin_client.get(reverse("admin:policies_finding_add")).status_code == 403
    assert 'name="_save"' not in page_of(admin_client, finding)


def test_those_who_may_see_findings_alone_see_no_links_to_the_rest(client: Client, key: ApiKey) -> None:
    finding = add(timezone.now(), key_id=key.pk, key_label=str(key), team_id=key.team_id)
    somebody = staff(client, "policies.view_finding")
    page = text_of(somebody.get(FINDINGS))
    assert str(key) in page
    assert "/accounts/apikey/" not in page
    assert "/usage/usageevent/" not in page
    assert "By API key" not in page
    assert somebody.get(OVERVIEW).status_code == 200
    assert "In the request" in page_of(somebody, finding)


def test_others_may_not(client: Client) -> None:
    finding = add(timezone.now())
    somebody = staff(client, "usage.view_usageevent")
    for url in (FINDINGS, OVERVIEW, reverse("admin:policies_finding_change", args=[finding.pk])):
        assert somebody.get(url).status_code == 403
