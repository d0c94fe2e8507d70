"""Signing in at a real OpenID provider, in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page

from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.idps import CLIENT, SLUG, OidcServer

pytestmark = pytest.mark.slow
STUDENT = {
    "email": "stu@example.org",
    "email_verified": True,
    "given_name": "Stu",
    "family_name": "Dent",
    "preferred_username": "stu",
    "groups": ["course-1", "students"],
}
SET_UP = """
from accounts.models import Team
from accounts.sso.models import GroupRule, IdentityProvider
idp = IdentityProvider(kind="oidc", slug="{slug}", name="University", discovery_url="{url}", client_id="{client_id}")
idp.set_secret("{client_secret}")
idp.save()
GroupRule.objects.create(value="course-1", team=Team.objects.create(name="course"))
"""


@pytest.fixture(scope="module")
def idp(admin_gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcServer]:
    with OidcServer(tmp_path_factory.mktemp("oidc"), admin_gateway.url).running() as server:
        admin_gateway.manage("shell", "-c", SET_UP.format(slug=SLUG, url=server.url, **CLIENT))
        yield server


def sign_in(page: Page, gateway: GatewayProcess, name: str, *, fresh: bool = True) -> None:
    page.goto(f"{gateway.url}/accounts/login/")
    page.get_by_role("link", name="University").click()
    page.set_default_timeout(8000)
    if fresh:
        page.locator("input[name=login]").fill(name)
        page.locator("input[name=password]").fill("any")
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{gateway.url}/**")


def test_student_signs_in(admin_gateway: GatewayProcess, idp: OidcServer, context: BrowserContext) -> None:
    page = context.new_page()
    idp.set_people({"stu": STUDENT})
    sign_in(page, admin_gateway, "stu")
    assert page.url == f"{admin_gateway.url}/"
