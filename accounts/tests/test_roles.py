"""Who may what: the five roles, and that nobody gets or gives more than they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.db.models.signals import post_migrate
from django.test import Client
from django.urls import reverse

from accounts import roles
from accounts.models import User
from accounts.roles import ADMIN, AUDITOR, OPERATOR, RESOURCES, ROLES, USER_MANAGER, VIEWER, May

pytestmark = pytest.mark.django_db
MATRIX = Path(settings.BASE_DIR) / "docs" / "roles.md"
CELLS = {"–": None, "view": May.VIEW, "all": May.ALL}
NO_TEAMS = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
BASICS = {"is_active": "on", "models_allowed_0": "every", **NO_TEAMS}


def person(name: str, *groups: str, **fields: bool) -> User:
    user = User.objects.create_user(name, f"{name}@example.org", "old-passw0rd!", **fields)
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


def signed_in(name: str, *groups: str) -> Client:
    client = Client()
    client.force_login(person(name, *groups, is_staff=True))
    return client


def page_of(user: User) -> str:
    return reverse("admin:accounts_user_change", args=[user.pk])


def right(name: str) -> Permission:
    app, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app, codename=codename)


def migrate() -> None:
    for config in apps.get_app_configs():
        if config.models_module is not None:
            post_migrate.send(config, app_config=config, using="default", verbosity=0, interactive=False, apps=apps)


# --- the matrix -----------------------------------------------------------------------------------------------------
def documented() -> dict[str, dict[str, May | None]]:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in MATRIX.read_text().splitlines()
        if line.startswith("|") and not re.match(r"[| -]+$", line)
    ]
    head = rows[0][1:]
    return {name: dict(zip(head, (CELLS[cell] for cell in cells), strict=True)) for name, *cells in rows[1:]}


def test_matrix_in_the_docs_is_the_one_of_the_code() -> None:
    assert documented() == {resource.name: {role: resource.roles.get(role) for role in ROLES} for resource in RESOURCES}


def test_groups_hold_what_the_matrix_says_and_nothing_else() -> None:
    held = {role: Group.objects.get(name=role).permissions.all() for role in ROLES}
    matrix = documented()
    for permission in Permission.objects.select_related("content_type"):
        kind = permission.content_type
        row = matrix[roles.resource_of(f"{kind.app_label}.{kind.model}:{permission.codename}").name]
        for role in ROLES:
            may = row[role] == May.ALL or (row[role] == May.VIEW and permission.codename.startswith("view_"))
            assert (permission in held[role]) == may, (role, permission)


def test_every_resource_with_a_name_is_of_an_installed_app_or_one_to_come() -> None:
    """A misspelt pattern would quietly leave its model to `Everything else`."""
    installed = {model._meta.label_lower for model in apps.get_models()}
    labels = {config.label for config in apps.get_app_configs()}
    for resource in RESOURCES:
        for pattern in resource.patterns:
            model = pattern.partition(":")[0]
            if "*" not in model and model.split(".")[0] in labels:
                assert model in installed, pattern


# --- keeping them ---------------------------------------------------------------------------------------------------
def test_roles_that_were_changed_are_put_right_at_migrate() -> None:
    viewer = Group.objects.get(name=VIEWER)
    viewer.permissions.add(right("accounts.change_user"))
    viewer.permissions.remove(right("accounts.view_user"))
    Group.objects.get(name=AUDITOR).delete()
    migrate()
    names = set(viewer.permissions.values_list("codename", flat=True))
    assert "view_user" in names
    assert "change_user" not in names
    assert Group.objects.get(name=AUDITOR).permissions.exists()


def test_groups_of_an_administrators_own_are_left_alone() -> None:
    own = Group.objects.create(name="finance")
    own.permissions.add(right("usage.view_usageevent"))
    migrate()
    assert list(own.permissions.all()) == [right("usage.view_usageevent")]


def test_people_stay_in_their_roles_when_these_are_put_right() -> None:
    somebody = person("somebody", OPERATOR)
    migrate()
    assert somebody.groups.get().name == OPERATOR


def test_permission_of_a_model_that_came_later_falls_to_its_resource() -> None:
    found = {name: roles.resource_of(f"{name}:change_it").name for name in ("access.cohort", "sso.provider", "new.it")}
    assert found == {
        "access.cohort": "Requests, cohorts and terms",
        "sso.provider": "Identity providers and SCIM",
        "new.it": roles.EVERYTHING_ELSE,
    }


def test_right_to_publish_belongs_to_the_policies() -> None:
    assert person("somebody", OPERATOR).has_perm("policies.publish_policy")
    assert not person("somebody_else", AUDITOR).has_perm("policies.publish_policy")


@pytest.mark.parametrize("role", [OPERATOR, USER_MANAGER, VIEWER])
def test_only_auditors_and_admins_read_logged_content(role: str) -> None:
    assert not person("somebody", role).has_perm("policies.view_loggedcontent")
    assert person("auditor", AUDITOR).has_perm("policies.view_loggedcontent")


# --- nobody reaches up ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("field", ["is_superuser", "is_staff", "groups", "user_permissions"])
@pytest.mark.parametrize("whom", ["themselves", "somebody else"])
def test_user_manager_gives_no_rights(field: str, whom: str) -> None:
    client = signed_in("manager", USER_MANAGER)
    target = User.objects.get(username="manager") if whom == "themselves" else person("alice")
    group = Group.objects.get(name=ADMIN)
    values = {"groups": group.pk, "user_permissions": right("proxy.change_provider").pk}
    before = (target.is_staff, roles.rights_of(target))
    staff = {"is_staff": "on"} if target.is_staff else {}
    data = {"username": target.username, **BASICS, **staff, field: values.get(field, "on")}
    assert client.post(page_of(target), data).status_code == 302
    target = User.objects.get(pk=target.pk)
    assert not target.is_superuser
    assert (target.is_staff, roles.rights_of(target)) == before


def test_user_manager_creates_people_without_rights() -> None:
    client = signed_in("manager", USER_MANAGER)
    data = {"username": "new", "usable_password": "true", "password1": "n3w-passw0rd!", "password2": "n3w-passw0rd!"}
    rights = {"is_superuser": "on", "is_staff": "on", "groups": Group.objects.get(name=ADMIN).pk}
    client.post(reverse("admin:accounts_user_add"), {**data, **rights, **NO_TEAMS})
    new = User.objects.get(username="new")
    assert (new.is_superuser, new.is_staff, new.groups.count()) == (False, False, 0)


@pytest.mark.parametrize("groups", [(ADMIN,), (OPERATOR,), (AUDITOR,)])
@pytest.mark.parametrize("is_active", [True, False])
def test_user_manager_does_not_touch_those_with_other_rights(groups: tuple[str, ...], is_active: bool) -> None:
    """Their password or e-mail address would be the way to these rights."""
    client = signed_in("manager", USER_MANAGER)
    target = person("target", *groups, is_staff=True, is_active=is_active)
    password = reverse("admin:auth_user_password_change", args=[target.pk])
    assert client.post(password, {"password1": "n3w-passw0rd!", "password2": "n3w-passw0rd!"}).status_code == 403
    assert client.post(page_of(target), {"username": "x", "email": "mine@example.org", **BASICS}).status_code == 403
    assert client.post(page_of(target).replace("change", "delete"), {"post": "yes"}).status_code == 403
    target.refresh_from_db()
    assert target.email == "target@example.org"
    assert target.check_password("old-passw0rd!")


def test_user_manager_looks_after_everybody_else(alice: User) -> None:
    client = signed_in("manager", USER_MANAGER)
    assert client.post(page_of(alice), {"username": "alice", "email": "a@example.org", **BASICS}).status_code == 302
    alice.refresh_from_db()
    assert alice.email == "a@example.org"


def test_admin_puts_people_into_roles(alice: User) -> None:
    client = signed_in("boss", ADMIN)
    group = Group.objects.get(name=OPERATOR)
    data = {"username": "alice", **BASICS, "is_staff": "on", "is_superuser": "on", "groups": group.pk}
    assert client.post(page_of(alice), data).status_code == 302
    alice.refresh_from_db()
    assert (alice.is_staff, alice.is_superuser, alice.groups.get()) == (True, False, group)


def test_admin_does_not_become_a_superuser() -> None:
    client = signed_in("boss", ADMIN)
    boss = User.objects.get(username="boss")
    data = {"username": "boss", **BASICS, "is_staff": "on", "is_superuser": "on"}
    data["groups"] = str(Group.objects.get(name=ADMIN).pk)
    client.post(page_of(boss), data)
    boss.refresh_from_db()
    assert not boss.is_superuser
    for right_to in ("sso", "scim"):
        beyond = [name for name in boss.get_all_permissions() if name.startswith(f"{right_to}.")]
        assert all(name.split(".")[1].startswith("view_") for name in beyond)


def test_who_may_give_rights_gives_their_own_and_no_others(alice: User) -> None:
    client = signed_in("helpdesk")
    own = Group.objects.create(name="helpdesk")
    own.permissions.set([right(f"accounts.{verb}_user") for verb in ("view", "change")])
    own.permissions.add(right("auth.give_rights"))
    User.objects.get(username="helpdesk").groups.add(own)
    admins, publish = Group.objects.get(name=ADMIN), right("policies.publish_policy")
    for field, wanted in (("groups", admins.pk), ("user_permissions", publish.pk)):
        response = client.post(page_of(alice), {"username": "alice", **BASICS, field: wanted})
        assert "not one of the available choices" in response.content.decode()
    assert client.post(page_of(alice), {"username": "alice", **BASICS, "groups": own.pk}).status_code == 302
    assert alice.groups.get() == own
    assert not alice.user_permissions.exists()


@pytest.mark.parametrize("role", [VIEWER, OPERATOR, USER_MANAGER, AUDITOR])
def test_only_admins_make_groups(role: str) -> None:
    add = reverse("admin:auth_group_add")
    assert signed_in("somebody", role).post(add, {"name": "mine"}).status_code == 403
    assert not Group.objects.filter(name="mine").exists()


def test_groups_of_the_gateway_stay_as_they_are(admin_client: Client) -> None:
    viewer = Group.objects.get(name=VIEWER)
    change, delete = (reverse(f"admin:auth_group_{page}", args=[viewer.pk]) for page in ("change", "delete"))
    assert "stays as it is" in admin_client.get(change).content.decode()
    assert admin_client.post(change, {"name": "mine"}).status_code == 403
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    assert Group.objects.filter(name=VIEWER).exists()


def test_gifts_are_checked_for_callers_other_than_the_admin(alice: User, admin_user: User) -> None:
    manager, boss = person("manager", USER_MANAGER), person("boss", ADMIN)
    operators = Group.objects.filter(name=OPERATOR)
    for refused in ({"staff": True}, {"superuser": True}, {"groups": operators}):
        with pytest.raises(PermissionDenied):
            roles.check_gift(manager, alice, **refused)
    for target in (boss, admin_user):
        with pytest.raises(PermissionDenied):
            roles.check_gift(manager, target)
    with pytest.raises(PermissionDenied):
        roles.check_gift(boss, alice, superuser=True)
    roles.check_gift(boss, alice, staff=True, groups=operators)
    roles.check_gift(admin_user, alice, superuser=True)
    roles.check_gift(manager, alice)


def test_roles_are_there_after_a_second_migrate() -> None:
    call_command("migrate", verbosity=0)
    assert set(Group.objects.values_list("name", flat=True)) >= set(ROLES)
