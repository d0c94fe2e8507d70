"""The admin's pages for management tokens."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from accounts.audit.models import AuditEvent
from accounts.models import User
from accounts.tokens.models import ManagementToken
from accounts.tokens.services import authenticate, create_token

pytestmark = pytest.mark.django_db
LIST = "/admin/tokens/managementtoken/"


def make(client: Client, **more: object) -> str:
    given = {"name": "nightly", "scopes": ["usage:read"], "days": 30, "networks_allowed": "", **more}
    return client.post(f"{LIST}add/", given).content.decode()


def test_token_is_shown_once_and_belongs_to_who_makes_it(admin_client: Client, admin_user: User) -> None:
    page = make(admin_client)
    secret = re.search(r'value="(gh-mt-[^"]+)"', page)
    assert secret is not None
    token = authenticate(secret[1], "192.0.2.1")
    assert (token.user, token.scopes) == (admin_user, ["usage:read"])
    for url in (LIST, f"{LIST}{token.pk}/change/"):
        page = admin_client.get(url).content.decode()
        assert token.public_id in page
        assert secret[1] not in page


def test_mistakes_are_told_on_the_form(admin_client: Client) -> None:
    assert "Select a valid choice" in make(admin_client, scopes=["everything"])
    assert "less than or equal to 366" in make(admin_client, days=367)
    assert "neither an address nor a network" in make(admin_client, networks_allowed="here")
    assert not ManagementToken.objects.exists()


def test_token_is_revoked_after_a_question_and_not_deleted(admin_client: Client, admin_user: User) -> None:
    token, _ = create_token("nightly", admin_user, ["*"])
    assert "refused from then on" in admin_client.post(f"{LIST}{token.pk}/revoke/").content.decode()
    admin_client.post(f"{LIST}{token.pk}/revoke/", {"confirmed": "yes"})
    token.refresh_from_db()
    assert token.state == "revoked"
    assert admin_client.post(f"{LIST}{token.pk}/delete/", {"post": "yes"}).status_code == 403


def test_making_and_revoking_is_in_the_audit_trail_without_the_digest(admin_client: Client) -> None:
    make(admin_client)
    event = AuditEvent.objects.select_related("detail").get(action="managementtoken.created")
    assert event.after["digest"] == "***"
