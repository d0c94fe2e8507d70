"""Local accounts: the break-glass administrator, brute force, the second factor."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from django.conf import LazySettings
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client

from accounts.models import User
from accounts.sso.models import IdentityProvider

PASSWORD = "correct horse battery staple"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_earlier_attempts() -> None:
    cache.clear()


@pytest.fixture
def root() -> User:
    return User.objects.create_superuser("root", password=PASSWORD)


def log_in(client: Client, password: str = PASSWORD, username: str = "root", **extra: Any) -> Any:
    return client.post("/accounts/login/", {"login": username, "password": password, **extra})


def code(secret: str, periods: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time()) // 30 + periods))


def enrol(client: Client) -> str:
    """The secret."""
    page = client.get("/accounts/2fa/totp/activate/").content.decode()
    secret = re.search(r'id="authenticator_secret"[^>]*value="([A-Z2-7]+)"', page)
    assert secret
    answer = client.post("/accounts/2fa/totp/activate/", {"code": code(secret[1])})
    assert answer["location"] == "/accounts/2fa/recovery-codes/"
    return secret[1]


# --- the page ---------------------------------------------------------------------------------------------------------
def test_admin_asks_for_a_sign_in_on_the_page_of_everybody(client: Client) -> None:
    assert client.get("/admin/accounts/team/", follow=True).redirect_chain[-1][0] == (
        "/accounts/login/?next=%2Fadmin%2Faccounts%2Fteam%2F"
    )


def test_idps_come_first_and_the_local_form_is_folded_away(client: Client) -> None:
    page = client.get("/accounts/login/").content.decode()
    assert "<details" not in page
    IdentityProvider.objects.create(kind="oidc", slug="corp", name="Corp <b>")
    IdentityProvider.objects.create(kind="oidc", slug="secret", name="Hidden", hidden=True)
    page = client.get("/accounts/login/?next=/keys/").content.decode()
    assert page.index("/accounts/oidc/corp/login/?next=%2Fkeys%2F") < page.index("<details")
    assert "Corp &lt;b&gt;" in page
    assert "Hidden" not in page


def test_signed_in_person_without_staff_status_is_not_sent_in_circles(client: Client) -> None:
    client.force_login(User.objects.create_user("stu"))
    assert client.get("/admin/", follow=True).status_code == 403


def test_nobody_signs_up_by_themselves(client: Client) -> None:
    for path in ("signup/", "password/reset/", "email/", "social/signup/", "3rdparty/"):
        assert client.get(f"/accounts/{path}").status_code == 404


@pytest.mark.parametrize("target", ["https://evil.example.org/", "//evil.example.org", "javascript:alert(1)"])
def test_log_in_leads_to_this_host_only(client: Client, root: User, target: str) -> None:
    assert target not in client.get("/accounts/login/", {"next": target}).content.decode()
    assert log_in(client, next=target)["location"] == "/"


def test_session_has_another_key_after_the_log_in(client: Client, root: User) -> None:
    client.get("/accounts/2fa/authenticate/")
    session = client.session
    session["planted"] = True
    session.save()
    before = session.session_key
    log_in(client)
    assert client.session.session_key != before


def test_cookies_are_out_of_reach_of_scripts_and_of_other_sites(client: Client, root: User) -> None:
    client.get("/accounts/login/")
    log_in(client)
    for cookie in client.cookies.values():
        assert cookie["httponly"]
        assert cookie["samesite"] == "Lax"


def test_form_from_another_site_is_refused(root: User) -> None:
    assert log_in(Client(enforce_csrf_checks=True)).status_code == 403


# --- brute force ------------------------------------------------------------------------------------------------------
def test_account_takes_five_wrong_passwords_in_five_minutes_from_wherever(client: Client, root: User) -> None:
    for number in range(5):
        assert b"not correct" in log_in(client, "wrong", REMOTE_ADDR=f"192.0.2.{number}").content
    assert b"Too many attempts" in log_in(client, "wrong").content
    assert b"Too many attempts" in log_in(client).content


def test_account_that_is_blocked_blocks_nobody_else_and_no_idp(client: Client, root: User) -> None:
    User.objects.create_user("other", password=PASSWORD)
    for _ in range(6):
        log_in(client, "wrong")
    assert log_in(client, username="other").status_code == 302


# --- the second factor ------------------------------------------------------------------------------------------------
def test_staff_without_a_second_factor_see_nothing_else_where_it_is_required(
    client: Client, root: User, settings: LazySettings
) -> None:
    settings.LOCAL_ADMIN_TOTP = "required"
    log_in(client)
    for path in ("/admin/", "/", "/admin/accounts/user/"):
        assert client.get(path)["location"] == "/accounts/2fa/totp/activate/"
    refused = client.get("/api/v1/teams")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "second_factor_required")
    enrol(client)
    assert client.get("/admin/").status_code == 200


def test_nobody_else_needs_one(client: Client, settings: LazySettings) -> None:
    settings.LOCAL_ADMIN_TOTP = "required"
    User.objects.create_user("stu", password=PASSWORD)
    log_in(client, username="stu")
    assert client.get("/").status_code == 200


def test_password_alone_does_not_open_an_account_with_a_second_factor(client: Client, root: User) -> None:
    log_in(client)
    secret = enrol(client)
    browser = Client()
    assert log_in(browser)["location"] == "/accounts/2fa/authenticate/"
    assert browser.get("/admin/").status_code == 302
    assert b"Incorrect code" in browser.post("/accounts/2fa/authenticate/", {"code": "000000"}).content
    assert browser.post("/accounts/2fa/authenticate/", {"code": code(secret, 1)}).status_code == 302
    assert browser.get("/admin/").status_code == 200


def test_code_counts_once(client: Client, root: User) -> None:
    log_in(client)
    secret = enrol(client)
    codes = code(secret, 1)
    answers = []
    for _ in range(2):
        browser = Client()
        log_in(browser)
        answers.append(browser.post("/accounts/2fa/authenticate/", {"code": codes}).status_code)
    assert answers == [302, 200]


def test_recovery_code_replaces_the_app_once(client: Client, root: User) -> None:
    log_in(client)
    enrol(client)
    page = client.get("/accounts/2fa/recovery-codes/").content.decode()
    codes = re.search(r'id="recovery-codes">([^<]+)<', page)
    assert codes
    answers = []
    for _ in range(2):
        browser = Client()
        log_in(browser)
        answers.append(browser.post("/accounts/2fa/authenticate/", {"code": codes[1].split()[0]}).status_code)
    assert answers == [302, 200]


def test_secret_of_the_second_factor_is_encrypted(client: Client, root: User) -> None:
    log_in(client)
    secret = enrol(client)
    assert secret not in str(Authenticator.objects.get(type="totp").data)


def test_secret_of_the_second_factor_is_rotated_with_the_others(
    client: Client, root: User, settings: LazySettings
) -> None:
    log_in(client)
    secret = enrol(client)
    settings.ENCRYPTION_KEYS = ["another-key-of-the-tests-0123456789", *settings.ENCRYPTION_KEYS]
    call_command("rotate_encryption", verbosity=0)
    settings.ENCRYPTION_KEYS = settings.ENCRYPTION_KEYS[:1]
    browser = Client()
    log_in(browser)
    assert browser.post("/accounts/2fa/authenticate/", {"code": code(secret, 1)}).status_code == 302


def test_lost_phone_is_helped_by_a_command(client: Client, root: User) -> None:
    log_in(client)
    enrol(client)
    call_command("reset_second_factor", "root")
    assert log_in(Client())["location"] == "/"


def test_guesses_at_the_code_are_limited(client: Client, root: User) -> None:
    log_in(client)
    enrol(client)
    browser = Client()
    log_in(browser)
    for _ in range(5):
        browser.post("/accounts/2fa/authenticate/", {"code": "000000"})
    assert b"Too many attempts" in browser.post("/accounts/2fa/authenticate/", {"code": "000000"}).content
