"""What the tests of the admin's pages share: people with certain rights, and pages as text."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User

MAX_QUERIES = 15


def staff(client: Client, *permissions: str, name: str = "staff") -> Client:
    """Signed in as somebody who may only do this; a permission is written as `policies.view_finding`."""
    user = User.objects.create_user(name, is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


def superuser(client: Client) -> Client:
    """Without a password, because to hash one takes longer than most tests."""
    client.force_login(User.objects.create_superuser("admin"))
    return client


def text_of(response: Any) -> str:
    return str(response.content.decode())


def said(response: Any) -> str:
    """The messages that the page after a redirect shows."""
    return " ".join(str(message) for message in response.context["messages"])
