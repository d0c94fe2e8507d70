"""Signing in at a real SAML identity provider, in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page

from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.idps import SamlServer

pytestmark = pytest.mark.slow
SESSIONS = "SELECT * FROM sso_ssosession"
SET_UP = """
from accounts.models import Team
from accounts.sso.models import GroupRule, IdentityProvider
idp = IdentityProvider.objects.create(kind="saml", slug="saml", name="University", metadata_url="{url}/metadata")
GroupRule.objects.create(value="course-1", team=Team.objects.create(name="course"), role="manager")
GroupRule.objects.create(value="staff", makes_staff=True)
"""


@pytest.fixture(scope="module")
def idp(admin_gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamlServer]:
    with SamlServer(tmp_path_factory.mktemp("saml"), admin_gateway.url).running() as server:
        admin_gateway.manage("shell", "-c", SET_UP.format(url=server.url))
        yield server


def sign_in(page: Page, gateway: GatewayProcess) -> None:
    page.set_default_timeout(10_000)
    page.goto(f"{gateway.url}/accounts/login/")
    page.get_by_role("link", name="University").click()
    page.get_by_role("button", name="Sign In").click()
    page.wait_for_url(f"{gateway.url}/**")


def test_lecturer_signs_in_and_is_signed_out_by_the_idp(
    admin_gateway: GatewayProcess, idp: SamlServer, context: BrowserContext
) -> None:
    page = context.new_page()
    sign_in(page, admin_gateway)
    page.wait_for_url(f"{admin_gateway.url}/")
    page.get_by_role("link", name="Admin", exact=True).wait_for()  # the rule makes staff of them
    assert len(admin_gateway.query(SESSIONS)) == 1

    page.goto(f"{idp.url}/signout")
    assert admin_gateway.query(SESSIONS) == []
    page.goto(f"{admin_gateway.url}/")
    assert page.url.startswith(f"{admin_gateway.url}/accounts/login/")
