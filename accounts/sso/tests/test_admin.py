"""The admin's pages for identity providers and group rules."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import Team, User
from accounts.sso.models import GroupRule, IdentityProvider
from accounts.sso.tests.issuers import Oidc, OidcIssuer, SamlIdp

pytestmark = pytest.mark.django_db
FORM = {
    "kind": "oidc",
    "slug": "corp",
    "name": "Corp",
    "enabled": "on",
    "discovery_url": "https://idp.example.org",
    "client_id": "c",
    "scopes": "openid",
    "new_secret": "tell nobody",
}
ADD = "/admin/sso/identityprovider/add/"


def test_secret_is_kept_and_never_shown_again(admin_client: Client) -> None:
    assert admin_client.post(ADD, FORM).status_code == 302
    row = IdentityProvider.objects.get()
    assert row.secret == "tell nobody"
    page = admin_client.get(f"/admin/sso/identityprovider/{row.pk}/change/").content.decode()
    assert "tell nobody" not in page
    assert row.client_secret not in page
    admin_client.post(f"/admin/sso/identityprovider/{row.pk}/change/", {**FORM, "new_secret": "", "name": "Other"})
    row.refresh_from_db()
    assert (row.name, row.secret) == ("Other", "tell nobody")


def test_new_address_does_not_get_the_old_secret(admin_client: Client) -> None:
    admin_client.post(ADD, FORM)
    row = IdentityProvider.objects.get()
    moved = {**FORM, "discovery_url": "https://evil.example.org", "new_secret": ""}
    page = admin_client.post(f"/admin/sso/identityprovider/{row.pk}/change/", moved).content.decode()
    assert "enter the client secret again" in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"discovery_url": "http://idp.example.org"},
        {"discovery_url": "file:///etc/passwd"},
        {"discovery_url": ""},
        {"new_secret": ""},
        {"slug": "Not A Slug"},
        {"kind": "saml"},
        {"kind": "saml", "metadata_xml": "<no metadata"},
    ],
    ids=str,
)
def test_what_cannot_work_is_not_saved(admin_client: Client, wrong: dict[str, str]) -> None:
    assert admin_client.post(ADD, {**FORM, **wrong}).status_code == 200
    assert not IdentityProvider.objects.exists()


def test_page_shows_what_is_of_its_kind(admin_client: Client, oidc: Oidc, saml: SamlIdp) -> None:
    for row, shown, hidden in (
        (oidc.issuer().row, "discovery_url", "metadata_xml"),
        (saml.row, "metadata_xml", "new_secret"),
    ):
        page = admin_client.get(f"/admin/sso/identityprovider/{row.pk}/change/").content.decode()
        assert f'name="{shown}"' in page
        assert f'name="{hidden}"' not in page


def test_page_says_what_the_idp_must_be_told(admin_client: Client, oidc: Oidc, saml: SamlIdp) -> None:
    row = oidc.issuer().row
    page = admin_client.get(f"/admin/sso/identityprovider/{row.pk}/change/").content.decode()
    assert "http://testserver/accounts/oidc/corp/login/callback/" in page
    assert "http://testserver/accounts/oidc/corp/backchannel-logout/" in page
    page = admin_client.get(f"/admin/sso/identityprovider/{saml.row.pk}/change/").content.decode()
    assert "http://testserver/accounts/saml/uni/acs/" in page


def test_test_says_what_it_found(admin_client: Client, oidc: Oidc, saml: SamlIdp) -> None:
    for row, found in ((oidc.issuer().row, "1 signing key"), (saml.row, "1 certificate")):
        answer = admin_client.get(f"/admin/sso/identityprovider/{row.pk}/test", follow=True)
        assert found in answer.content.decode()


def test_test_says_what_is_wrong(admin_client: Client, oidc: Oidc) -> None:
    issuer = oidc.issuer()
    issuer.row.discovery_url = "https://idp.example.org/.well-known/openid-configuration"
    issuer.row.save()
    oidc.issuers = {"https://idp.example.org": OidcIssuer("other", "https://idp.example.org/realms/x")}
    answer = admin_client.get(f"/admin/sso/identityprovider/{issuer.row.pk}/test", follow=True)
    assert "lacks issuer" in answer.content.decode()


def test_what_the_environment_sets_up_is_changed_there(admin_client: Client) -> None:
    row = IdentityProvider.objects.create(kind="oidc", slug="oidc", name="Env", origin="environment")
    url = f"/admin/sso/identityprovider/{row.pk}/change/"
    assert b"environment variables" in admin_client.get(url).content
    assert admin_client.post(url, FORM).status_code == 403


def test_rule_that_makes_superusers_is_made_by_superusers_only(client: Client) -> None:
    user = User.objects.create_user("manager", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="sso"))
    client.force_login(user)
    team = Team.objects.create(name="course")
    rule = {"source": "group", "value": "g", "team": team.pk, "role": "member", "enabled": "on"}
    client.post("/admin/sso/grouprule/add/", {**rule, "makes_superuser": "on", "makes_staff": "on"})
    made = GroupRule.objects.get()
    assert (made.makes_superuser, made.makes_staff) == (False, False)


def test_rule_gives_something(admin_client: Client) -> None:
    answer = admin_client.post("/admin/sso/grouprule/add/", {"source": "group", "value": "g", "role": "member"})
    assert b"must give something" in answer.content


@pytest.mark.parametrize("page", ["account/emailaddress", "socialaccount/socialapp", "mfa/authenticator"])
def test_pages_of_the_library_are_not_there(admin_client: Client, page: str) -> None:
    assert admin_client.get(f"/admin/{page}/").status_code == 404
