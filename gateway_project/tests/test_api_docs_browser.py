"""The pages that show the management API: offline, and under the strict policy."""

from __future__ import annotations

import pytest
from django.test import Client
from playwright.sync_api import Page

from accounts.models import Team, User
from gateway_project.tests.gateway_process import GatewayProcess


def test_pages_of_the_api_work_offline_under_the_strict_policy(admin_gateway: GatewayProcess, page: Page) -> None:
    """`page` fails the test for whatever the browser complains of, and for anything from another host."""
    reply = page.goto(f"{admin_gateway.url}/api/v1/docs/")
    assert reply is not None
    assert "unsafe" not in reply.headers["content-security-policy"]
    page.get_by_role("heading", name="Gatehouse management API").wait_for()
    page.locator("#operations-teams-teams_create").click()
    page.get_by_role("button", name="Try it out").click()
    assert "research" in page.locator("#operations-teams-teams_create textarea").input_value()


@pytest.mark.django_db
def test_who_is_signed_in_can_try_it_with_the_token_of_the_page(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    page = client.get("/api/v1/docs/").content.decode()
    token = page.partition('data-csrf="')[2].partition('"')[0]
    given = {"content_type": "application/json", "headers": {"x-csrftoken": token}}
    assert client.post("/api/v1/teams", {"name": "made in the docs"}, **given).status_code == 201
    assert Team.objects.filter(name="made in the docs").exists()
