"""Requests, rules, courses and terms in the admin."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Team, User
from accounts.requests.models import AccessSettings, RequestRule, TermsVersion
from accounts.requests.tests.stage import USD, course, key_request, manager_of


@pytest.fixture
def rows(alice: User, research: Team) -> dict[str, int]:
    manager = manager_of(research)
    return {
        "accessrequest": key_request(alice, research).pk,
        "cohort": course(manager, research).pk,
        "requestrule": RequestRule.objects.create(kind="key").pk,
        "termsversion": TermsVersion.objects.create(text="Be nice.", published_at=timezone.now()).pk,
        "accesssettings": 1,
    }


def test_every_list_and_page_opens(admin_client: Client, rows: dict[str, int]) -> None:
    for name, pk in rows.items():
        for page in (f"/admin/access/{name}/", f"/admin/access/{name}/{pk}/change/"):
            assert admin_client.get(page, follow=True).status_code == 200, page
    assert admin_client.get("/admin/access/termsagreement/").status_code == 200


def test_what_waits_is_on_the_front_page(admin_client: Client, rows: dict[str, int]) -> None:
    assert "1 request waits for your decision" in admin_client.get("/admin/").content.decode()


def test_rule_is_typed_in_us_dollars(admin_client: Client, db: None) -> None:
    given = {"kind": "key", "outcome": "automatic", "position": 1, "max_per_month": "2.50", "enabled": "on"}
    admin_client.post("/admin/access/requestrule/add/", given)
    assert RequestRule.objects.get().max_per_month == 2_500_000_000


def test_threshold_of_keys_is_set(admin_client: Client, db: None) -> None:
    admin_client.post("/admin/access/accesssettings/1/change/", {"key_threshold": "10", "open_days": 14})
    row = AccessSettings.objects.get()
    assert (row.key_threshold, row.open_days) == (10 * USD, 14)


def test_published_terms_are_not_rewritten(admin_client: Client, rows: dict[str, int]) -> None:
    page = f"/admin/access/termsversion/{rows['termsversion']}/change/"
    admin_client.post(page, {"title": "Other", "text": "Anything goes.", "grace_until_0": "", "grace_until_1": ""})
    assert TermsVersion.objects.get().text == "Be nice."


def test_requests_are_not_rewritten(admin_client: Client, rows: dict[str, int]) -> None:
    page = f"/admin/access/accessrequest/{rows['accessrequest']}/change/"
    assert admin_client.post(page, {"state": "approved"}).status_code == 403
