"""Every address there is, asked by somebody who has no business there: not signed in, of another team, or on the staff
without a right. New pages are covered without being named here; those that are open to everybody are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.test import Client

from accounts.models import User
from accounts.roles import ADMIN, ROLES
from gateway_project.tests.sweep import Maker, Route, World, routes

pytestmark = pytest.mark.django_db

# By the names of their addresses. Each says nothing that depends on who asks.
PUBLIC = {
    "account_login",
    "account_inactive",
    "socialaccount_login_cancelled",
    "login",  # of the admin
    "jsi18n",
    "logout",
    "account_logout",
    "api-schema",
    "api-docs",
    # What identity providers and browsers on their way from one ask for.
    *("openid_connect_login", "openid_connect_callback", "oidc_backchannel_logout"),
    *("saml_login", "saml_acs", "saml_finish_acs", "saml_sls", "saml_metadata"),
}
SIGN_IN = ("/accounts/", "/admin/login/")
FEW = 3  # addresses of a route, where only the route matters
# What everybody on the staff has, whatever their rights.
STAFF = {"index", "logout", "password_change", "password_change_done", "autocomplete", "search", "jsi18n", "login"}
NOT_YOURS = (403, 404, 405)
CHANGING = ("post", "put", "patch", "delete")


@pytest.fixture
def world() -> World:
    return Maker().world_with_everything()


def is_admin(route: Route) -> bool:
    return route.template.startswith("admin/")


def text_of(response: Any) -> str:
    return (b"".join(response) if response.streaming else response.content).decode("utf-8", "replace")


def test_world_has_a_row_of_every_model(world: World) -> None:
    """Without them the specs below would find nothing wrong with their pages."""
    assert world.failed == {}
    assert len(world.rows) > 40


def test_nobody_gets_anything_without_signing_in(world: World) -> None:
    anybody = Client(raise_request_exception=False)
    wrong = []
    for route in routes():
        for path in islice(world.paths(route), FEW):
            response = anybody.get(path)
            to_sign_in = response.status_code == 302 and response["Location"].startswith(SIGN_IN)
            refused = response.status_code in (401, 403, 404, 405) or to_sign_in
            if world.leaks(text_of(response)) or not (refused or route.name in PUBLIC):
                wrong.append((path, route.name, response.status_code))
    assert not wrong, "\n".join(map(str, wrong))


def test_nobody_changes_anything_without_signing_in(world: World) -> None:
    anybody = Client(raise_request_exception=False)
    before = world.state()
    wrong = []
    for route in routes():
        for path in islice(world.paths(route), 1):
            for method in CHANGING[:1] if is_admin(route) else CHANGING:
                response = getattr(anybody, method)(path, {}, content_type="application/json")
                to_sign_in = response.status_code == 302 and response["Location"].startswith(SIGN_IN)
                if not (400 <= response.status_code < 500 or to_sign_in or route.name in PUBLIC):
                    wrong.append((method, path, route.name, response.status_code))
    assert not wrong, "\n".join(map(str, wrong))
    assert world.state() == before


def test_nobody_sees_what_belongs_to_another_team(world: World) -> None:
    """Whatever alice finds her own things on, is not there for charlie; and he finds none of them anywhere else."""
    alice, charlie = world.client(world.alice), world.client(world.charlie)
    hers, wrong = [], []
    for route in routes():
        if is_admin(route):
            continue
        for path in world.paths(route):
            answer = alice.get(path)
            asked = charlie.get(path)
            if world.leaks(text_of(asked)):
                wrong.append((path, asked.status_code, sorted(world.leaks(text_of(asked)))))
            if route.parameters and answer.status_code == 200 and world.leaks(text_of(answer)):
                hers.append(route)
                if asked.status_code not in NOT_YOURS:
                    wrong.append((path, asked.status_code, []))
    assert not wrong, "\n".join(map(str, wrong))
    assert len({str(route) for route in hers}) >= 10, "too few of alice's own pages were found to be a test"


def test_nobody_changes_what_belongs_to_another_team(world: World) -> None:
    charlie = world.client(world.charlie)
    before = world.state()
    wrong = []
    for route in routes():
        if is_admin(route) or not route.parameters:
            continue
        for path, method in product(world.paths(route), CHANGING):
            response = getattr(charlie, method)(path, {}, content_type="application/json")
            if response.status_code < 300 or response.status_code >= 500 or world.leaks(text_of(response)):
                wrong.append((method, path, response.status_code))
    assert not wrong, "\n".join(map(str, wrong))
    assert world.state() == before


def test_staff_without_rights_open_no_page_of_the_admin(world: World) -> None:
    staff = User.objects.create_user("staff", is_staff=True)
    somebody = world.client(staff)
    before = world.state()
    wrong = []
    for route in routes():
        if not is_admin(route):
            continue
        for path in islice(world.paths(route), FEW):
            for method in ("get", "post"):
                response = getattr(somebody, method)(path)
                allowed = route.name in STAFF and not world.leaks(text_of(response))
                if response.status_code not in (302, *NOT_YOURS) and not allowed:
                    wrong.append((method, path, route.name, response.status_code))
    assert not wrong, "\n".join(map(str, wrong))
    assert world.state() == before


def test_roles_open_no_page_of_the_admin_that_the_matrix_does_not_give_them(world: World) -> None:
    before = world.state()
    wrong = []
    for role in ROLES:
        staff = User.objects.create_user(f"staff {role}", is_staff=True)
        staff.groups.add(Group.objects.get(name=role))
        somebody = world.client(staff)
        asked = 0
        for path in _pages_without_a_right(world, staff):
            response = somebody.get(path)
            asked += 1
            if response.status_code not in (302, *NOT_YOURS) or world.leaks(text_of(response)):
                wrong.append((role, path, response.status_code))
        assert asked > 10 or role == ADMIN
    assert not wrong, "\n".join(map(str, wrong))
    assert world.state() == before


def _pages_without_a_right(world: World, user: User) -> Iterator[str]:
    """Of models on which the person has no permission whatever."""
    models = {permission.partition(".")[2].partition("_")[2] for permission in user.get_all_permissions()}
    for route in routes():
        found = re.match(r"admin/(\w+)/(\w+)/", route.template)
        if found and found[2] not in models and found[2] in apps.all_models.get(found[1], {}):
            yield from islice(world.paths(route), 1)
