"""Every address there is, asked to change something by a page of somebody else's, and asked to lead elsewhere."""

from __future__ import annotations

from itertools import islice
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from django.test import Client

from accounts.models import User
from gateway_project.tests.sweep import Maker, Route, World, routes

pytestmark = pytest.mark.django_db
FEW = 2

# Asked without a cookie: by a token in a header, or by what an identity provider has signed.
WITHOUT_COOKIE = {"api-token-exchange"}
SIGNED_BY_IDP = {"saml_acs", "saml_finish_acs", "saml_sls", "oidc_backchannel_logout", "openid_connect_callback"}

EVIL = [
    "//evil.example",
    "///evil.example",
    "https://evil.example/",
    "http:evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "\t//evil.example",
    "//localhost@evil.example",
    "javascript:alert(1)",
]
NAMES = ("next", "redirect_to", "return_to", "RelayState", "url", "continue", "TARGET")


@pytest.fixture
def world() -> World:
    return Maker().world_with_everything()


def by_token_alone(route: Route) -> bool:
    return route.template.startswith("scim/") or route.name in WITHOUT_COOKIE


def test_nothing_is_changed_by_a_form_of_another_site(world: World) -> None:
    """A superuser's browser sends their cookies along, but no token of ours."""
    victim = Client(enforce_csrf_checks=True, raise_request_exception=False)
    victim.force_login(world.root, backend="django.contrib.auth.backends.ModelBackend")
    before = world.state()
    wrong, refused = [], 0
    for route in routes():
        if by_token_alone(route) or route.name in SIGNED_BY_IDP:
            continue
        for path in islice(world.paths(route), FEW):
            for sent in ({"data": {"x": "1"}}, {"data": "{}", "content_type": "text/plain"}):
                response = victim.post(path, **sent, headers={"Origin": "https://evil.example"})
                refused += response.status_code == 403
                if response.status_code not in (401, 403, 404, 405):
                    wrong.append((path, route.name, response.status_code))
    assert not wrong, "\n".join(map(str, wrong))
    assert refused > 200
    assert world.state() == before


def test_cookies_mean_nothing_where_no_form_token_is_asked_for(world: World) -> None:
    victim = world.client(world.root)
    for route in routes():
        if by_token_alone(route):
            for path in islice(world.paths(route), FEW):
                assert victim.post(path, "{}", content_type="application/json").status_code in (401, 415), path


def leads_to(location: str) -> str:
    """Where a browser goes: it reads a backslash as a slash, and no tabs or line breaks."""
    cleaned = "".join(character for character in location.strip() if character not in "\t\r\n").replace("\\", "/")
    where = urlsplit(urljoin("http://testserver/somewhere/", cleaned))
    return where.netloc if where.scheme in ("http", "https") else where.scheme


def test_no_address_leads_to_another_site(world: World) -> None:
    """First those are found that lead where they are told to at all."""
    clients = {"nobody": world.client(None), "alice": world.client(world.alice)}
    wrong, leading = [], 0
    for route in routes():
        if route.template.startswith("admin/") and route.name not in ("login", "logout", "index", "view_on_site"):
            continue
        for path in islice(world.paths(route), 1):
            for who, client in clients.items():
                told = any("/told/" in location for location in _locations(client, path, "/told/"))
                leading += told
                for evil in EVIL if told else ():
                    for location in _locations(client, path, evil):
                        if leads_to(location) != "testserver":
                            wrong.append((path, who, location))
    assert not wrong, "\n".join(map(str, wrong))
    assert leading >= 2


def _locations(client: Client, path: str, wanted: str) -> list[str]:
    asked = dict.fromkeys(NAMES, wanted)
    responses = (client.get(f"{path}?{urlencode(asked)}"), client.post(path, asked))
    return [response["Location"] for response in responses if response.has_header("Location")]


@pytest.mark.parametrize("page", ["/accounts/login/", "/admin/login/"])
@pytest.mark.parametrize("evil", EVIL[:5])
def test_sign_in_does_not_lead_to_another_site(db: None, page: str, evil: str) -> None:
    User.objects.create_user("staff", "staff@example.org", "correct horse 9", is_staff=True)
    names = {"username": "staff", "login": "staff", "password": "correct horse 9", "next": evil}
    response = Client().post(f"{page}?{urlencode({'next': evil})}", names, follow=False)
    if response.has_header("Location"):
        assert leads_to(response["Location"]) == "testserver"
    assert "evil.example" not in response.headers.get("Location", "").split("?")[0]
