"""Two administrators at the same moment. Run on PostgreSQL too, where requests really are side by side."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.models import User
from policies import services
from policies.documents import RuleSpec
from policies.models import Policy
from policies.tests.pages import form_of

pytestmark = pytest.mark.django_db(transaction=True)

PROMPT_CHARS = RuleSpec(check="max_prompt_chars", stage="request", settings={"limit": 20})
PEOPLE = ("ann", "ben", "cay")


def test_of_those_who_save_a_page_at_once_all_but_one_are_told() -> None:
    policy = Policy.objects.create(name="default")
    services.replace_rules(policy, [PROMPT_CHARS])
    page = reverse("admin:policies_policy_change", args=[policy.pk])
    clients = [Client() for _ in PEOPLE]
    for client, name in zip(clients, PEOPLE, strict=True):
        client.force_login(User.objects.create(username=name, is_staff=True, is_superuser=True))
    forms = [form_of(client.get(page).content.decode(), "policy_form") for client in clients]
    together = threading.Barrier(len(PEOPLE), timeout=10)
    refused: list[str] = []

    def save(client: Client, form: dict[str, object], name: str) -> None:
        together.wait()
        try:
            answer = client.post(page, {**form, "rules-0-message": f"Ask {name}.", "_publish": "1"})
        finally:
            connection.close()
        if "Somebody else has saved this policy" in answer.content.decode():
            refused.append(name)

    threads = [threading.Thread(target=save, args=one) for one in zip(clients, forms, PEOPLE, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(refused) == len(PEOPLE) - 1
    (saved,) = set(PEOPLE) - set(refused)
    assert policy.rules.get().message == f"Ask {saved}."
    assert policy.versions.count() == 1
