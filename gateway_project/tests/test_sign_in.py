"""Signing in at real identity providers, in a browser: what their groups give, and what is lost with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Browser, BrowserContext, Page

from gateway_project.tests.admin_steps import PASSWORD
from gateway_project.tests.clients import call
from gateway_project.tests.gateway_process import GatewayProcess
from gateway_project.tests.idps import CLIENT, SLUG, OidcServer, SamlServer
from gateway_project.tests.services import wait_until

pytestmark = pytest.mark.slow
STUDENT: dict[str, Any] = {
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
idp.groups_allowed = "students"
idp.set_secret("{client_secret}")
idp.save()
GroupRule.objects.create(value="course-1", team=Team.objects.create(name="course"))
"""
SESSIONS = "SELECT * FROM sso_ssosession WHERE subject = '3f2a-lecturer'"
SAML_SET_UP = """
from accounts.models import Team
from accounts.sso.models import GroupRule, IdentityProvider
idp = IdentityProvider.objects.create(kind="saml", slug="saml", name="College", metadata_url="{url}/metadata")
GroupRule.objects.create(value="lectures", team=Team.objects.create(name="lectures"), role="manager")
GroupRule.objects.create(value="staff", makes_staff=True)
"""
TEAMS = "SELECT t.name FROM accounts_membership m JOIN accounts_team t ON t.id = m.team_id WHERE t.name = 'course'"


@pytest.fixture(scope="module")
def idp(admin_gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcServer]:
    with OidcServer(tmp_path_factory.mktemp("oidc"), admin_gateway.url).running() as server:
        admin_gateway.manage("shell", "-c", SET_UP.format(slug=SLUG, url=server.url, **CLIENT))
        yield server


@pytest.fixture(scope="module")
def saml(admin_gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamlServer]:
    with SamlServer(tmp_path_factory.mktemp("saml"), admin_gateway.url).running() as server:
        admin_gateway.manage("shell", "-c", SAML_SET_UP.format(url=server.url))
        yield server


def sign_in(context: BrowserContext, gateway: GatewayProcess, name: str) -> Page:
    """A page of the person's, however far it got."""
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"{gateway.url}/accounts/login/")
    page.get_by_role("link", name="University").click()
    if page.url.startswith(gateway.url):  # the IdP still knows them
        return page
    page.locator("input[name=login]").fill(name)
    page.locator("input[name=password]").fill("any")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{gateway.url}/**")
    return page


def test_group_lost_at_the_idp_takes_the_team_and_stops_its_keys(
    admin_gateway: GatewayProcess, idp: OidcServer, browser: Browser
) -> None:
    idp.set_people({"stu": STUDENT})
    with browser.new_context() as context:
        page = sign_in(context, admin_gateway, "stu")
        assert page.url == f"{admin_gateway.url}/"
        page.get_by_text("Welcome, Stu").wait_for()
    assert admin_gateway.query(TEAMS)
    key = admin_gateway.manage("create_key", "notebook", "--user", "stu", "--team", "course", "--quiet").strip()
    assert call(admin_gateway, "echo", key=key).status_code == 200

    idp.set_people({"stu": {**STUDENT, "groups": ["students"]}})
    with browser.new_context() as context:
        sign_in(context, admin_gateway, "stu")
    assert not admin_gateway.query(TEAMS)
    wait_until(lambda: call(admin_gateway, "echo", key=key).status_code == 401, 2, "the key is refused")

    idp.set_people({"stu": {**STUDENT, "groups": []}})
    with browser.new_context() as context:
        page = sign_in(context, admin_gateway, "stu")
        page.get_by_text("you are not among those who may use the gateway").wait_for()
        page.goto(f"{admin_gateway.url}/")
        assert page.url.startswith(f"{admin_gateway.url}/accounts/login/")


def test_log_out_at_the_idp_ends_the_session_here(
    admin_gateway: GatewayProcess, idp: OidcServer, context: BrowserContext
) -> None:
    idp.set_people({"ann": {**STUDENT, "preferred_username": "ann"}})
    page = sign_in(context, admin_gateway, "ann")
    page.goto(f"{idp.url}/session/end")
    page.get_by_role("button", name="Yes, sign me out").click()
    wait_until(lambda: "logged out" in idp.log or "could not" in idp.log, 10, "the IdP has told the gateway")
    assert "could not" not in idp.log, idp.log
    page.goto(f"{admin_gateway.url}/keys/")
    assert page.url.startswith(f"{admin_gateway.url}/accounts/login/")


def test_lecturer_signs_in_and_is_signed_out_by_the_idp(
    admin_gateway: GatewayProcess, saml: SamlServer, context: BrowserContext
) -> None:
    page = context.new_page()
    page.goto(f"{admin_gateway.url}/accounts/login/")
    page.get_by_role("link", name="College").click()
    page.get_by_role("button", name="Sign In").click()
    page.wait_for_url(f"{admin_gateway.url}/")
    page.get_by_role("link", name="Admin", exact=True).wait_for()  # the rule makes staff of them
    assert len(admin_gateway.query(SESSIONS)) == 1

    page.goto(f"{saml.url}/signout")
    assert admin_gateway.query(SESSIONS) == []
    page.goto(f"{admin_gateway.url}/")
    assert page.url.startswith(f"{admin_gateway.url}/accounts/login/")


def test_break_glass_administrator_signs_in_with_a_second_factor(
    admin_gateway: GatewayProcess, idp: OidcServer, page: Page
) -> None:
    _log_in(page, admin_gateway)
    page.goto(f"{admin_gateway.url}/accounts/2fa/totp/activate/")
    assert page.locator("img.qr").evaluate("image => image.naturalWidth") > 0
    secret = page.get_by_label("Or type this secret into the app").input_value()
    page.get_by_label("Code").fill(_code(secret, 0))
    page.get_by_role("button", name="Switch on").click()
    page.get_by_text("10 of 10 are left").wait_for()
    page.context.clear_cookies()

    _log_in(page, admin_gateway)
    page.get_by_label("Code").wait_for()
    page.goto(f"{admin_gateway.url}/admin/")
    assert "/accounts/" in page.url
    page.get_by_label("Code").fill(_code(secret, 1))
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Overview").wait_for()


def _log_in(page: Page, gateway: GatewayProcess) -> None:
    page.goto(f"{gateway.url}/admin/")
    page.get_by_text("Local account").click()
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def _code(secret: str, later: int) -> str:
    """A code counts once, so the second one is that of the next half minute, which is taken too."""
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + later))
