"""SCIM in the admin."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from accounts.models import User
from accounts.scim.models import ScimToken
from accounts.scim.tests.conftest import IdP
from accounts.scim.tokens import authenticate

pytestmark = pytest.mark.django_db
ADD = reverse("admin:scim_scimtoken_add")


def secret_in(page: str) -> str:
    found = re.search(r"gh-scim-[0-9A-Za-z]{12}-[0-9A-Za-z]{49}", page)
    assert found
    return found[0]


def test_token_is_shown_once(admin_client: Client) -> None:
    response = admin_client.post(ADD, {"name": "Okta"})
    assert "no-store" in response["Cache-Control"]
    secret = secret_in(response.content.decode())
    token = authenticate(secret)
    page = admin_client.get(reverse("admin:scim_scimtoken_change", args=[token.pk])).content.decode()
    assert token.public_id in page
    assert secret not in page
    assert token.digest not in page


def test_rotation_asks_first(admin_client: Client, idp: IdP) -> None:
    rotate = reverse("admin:scim_scimtoken_rotate", args=[idp.token.pk])
    assert "Rotate" in admin_client.get(rotate).content.decode()
    assert authenticate(idp.secret) == idp.token
    secret = secret_in(admin_client.post(rotate, {"confirmed": "yes"}).content.decode())
    assert secret != idp.secret
    assert authenticate(secret) == idp.token


def test_disabled_token_is_refused(admin_client: Client, idp: IdP) -> None:
    page = reverse("admin:scim_scimtoken_change", args=[idp.token.pk])
    assert admin_client.post(page, {"name": "Entra ID", "disabled": "on"}).status_code == 302
    assert idp.get("Users").status_code == 401


def test_only_superusers_make_tokens(client: Client, idp: IdP) -> None:
    """Whoever says who people are can become anybody."""
    boss = User.objects.create_user("boss", is_staff=True)
    boss.groups.add(Group.objects.get(name="Admin"))
    client.force_login(boss)
    assert client.get(reverse("admin:scim_scimtoken_changelist")).status_code == 200
    assert client.post(ADD, {"name": "Okta"}).status_code == 403
    rotate = reverse("admin:scim_scimtoken_rotate", args=[idp.token.pk])
    assert client.post(rotate, {"confirmed": "yes"}).status_code in (302, 403)
    assert ScimToken.objects.get().digest == idp.token.digest


def test_what_the_idp_told_is_looked_at_here_and_changed_there(admin_client: Client, idp: IdP) -> None:
    person = idp.create("alice", externalId="a1f")
    group = idp.create_group("research", person["id"])
    for model, pk in (("scimgroup", group["id"]), ("scimperson", User.objects.get(username="alice").scim.pk)):
        page = reverse(f"admin:scim_{model}_change", args=[pk])
        assert "alice" in admin_client.get(page).content.decode()
        assert admin_client.post(page, {}).status_code == 403
        assert admin_client.get(reverse(f"admin:scim_{model}_changelist")).status_code == 200
