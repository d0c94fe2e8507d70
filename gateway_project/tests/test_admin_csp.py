"""The Content-Security-Policy: what the theme needs, under /admin/ only, and nothing from anywhere else."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse

from accounts.models import Team
from accounts.services import create_key
from gateway_project.csp import ContentSecurityPolicyMiddleware
from policies.models import Policy
from policies.services import publish

HEADER = "content-security-policy"
pytestmark = pytest.mark.django_db


def policy(header: str) -> dict[str, list[str]]:
    directives = (directive.split() for directive in header.split(";"))
    return {words[0]: sorted(words[1:]) for words in directives if words}


@pytest.mark.parametrize("url", ["/admin/login/", "/admin/", "/admin/accounts/apikey/add/"])
def test_admin_may_evaluate_expressions_and_write_styles(admin_client: Client, url: str) -> None:
    found = policy(admin_client.get(url).headers[HEADER])
    assert found["script-src"] == ["'self'", "'unsafe-eval'"]
    assert found["style-src"] == ["'self'", "'unsafe-inline'"]
    assert found["default-src"] == ["'self'"]
    assert found["frame-ancestors"] == ["'none'"]


@pytest.mark.parametrize("path", ["/", "/accounts/login/", "/administrator/", "/x/admin/"])
def test_policy_is_strict_everywhere_else(path: str) -> None:
    answer = ContentSecurityPolicyMiddleware(lambda _request: HttpResponse())(RequestFactory().get(path))
    assert "unsafe" not in answer.headers[HEADER]
    assert policy(answer.headers[HEADER])["default-src"] == ["'self'"]


class Page(HTMLParser):
    """What a strict policy would stop: inline scripts and handlers, and anything from another host."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script" and "src" not in values:
            self.faults.append("inline script")
        self.faults += [f"{tag} {name}" for name in values if name.startswith("on")]
        for name in ("src", "href", "action"):
            self._address(tag, values.get(name) or "")

    def _address(self, tag: str, address: str) -> None:
        if address.startswith(("http:", "https:", "//", "javascript:")):
            self.faults.append(f"{tag} {address}")
        if tag in ("script", "link") and address.startswith("/static/"):
            self.links.append(address.removeprefix("/static/"))


def pages(client: Client, research: Team) -> list[tuple[str, Any]]:
    key, _ = create_key("app", research)
    policy = Policy.objects.create(name="default")
    publish(policy)
    names = (
        *("accounts_apikey", "accounts_team", "accounts_user", "proxy_provider", "proxy_model"),
        *("policies_policy", "policies_wordlist", "usage_alertrule", "usage_alertdestination", "usage_usageevent"),
    )
    urls = [reverse("admin:index"), reverse("admin:login"), reverse("admin:accounts_apikey_rotate", args=[key.pk])]
    urls += [reverse(f"admin:{name}_changelist") for name in names]
    urls += [reverse(f"admin:{name}_add") for name in names[:-1]]
    urls += [
        reverse(f"admin:policies_policy_{name}", args=[policy.pk]) for name in ("change", "try_page", "versions_page")
    ]
    urls += [f"{reverse('admin:policies_policy_add')}?start=watch"]
    return [(url, client.get(url)) for url in urls]


def test_pages_need_nothing_that_the_policy_forbids(admin_client: Client, research: Team) -> None:
    for url, answer in pages(admin_client, research):
        assert Page(answer.content.decode()).faults == [], url


def test_pages_link_to_files_that_are_there(admin_client: Client, research: Team) -> None:
    for url, answer in pages(admin_client, research):
        for path in Page(answer.content.decode()).links:
            assert finders.find(path), f"{url}: {path}"
