"""Roles: what people may do in the admin, the portal and the management API, by job.

A role is a Django group. `keep_roles` makes the five after every migrate and puts them right again when somebody has
changed them; groups of an administrator's own are left alone. Code asks for permissions, never for the name of a group.

Each permission belongs to one resource: the first in `RESOURCES` with a pattern that fits. So the permissions of a new
model are sorted in by the name of its app. What fits none is under `EVERYTHING_ELSE`.
docs/roles.md is the matrix for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet

from accounts.models import User

VIEWER, OPERATOR, USER_MANAGER, AUDITOR, ADMIN = "Viewer", "Operator", "User manager", "Auditor", "Admin"
GIVE_RIGHTS = "auth.give_rights"
EVERYTHING_ELSE = "Everything else"


class May(StrEnum):
    VIEW = "view"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Resource:
    """`patterns` are of `app.model` or `app.model:permission`. `roles`: who may what; who is not there may nothing."""

    name: str
    patterns: tuple[str, ...]
    roles: dict[str, May] = field(default_factory=dict)

    def covers(self, permission: str) -> bool:
        model = permission.partition(":")[0]
        return any(fnmatchcase(permission if ":" in pattern else model, pattern) for pattern in self.patterns)


def _resource(name: str, *patterns: str, view: Iterable[str] = (), all: Iterable[str] = ()) -> Resource:
    return Resource(name, patterns, dict.fromkeys(view, May.VIEW) | dict.fromkeys(all, May.ALL))


LOOKERS = (VIEWER, AUDITOR)
RESOURCES = (
    _resource("Users", "accounts.user", view=LOOKERS, all=(USER_MANAGER, ADMIN)),
    _resource("Teams", "accounts.team", view=(*LOOKERS, OPERATOR), all=(USER_MANAGER, ADMIN)),
    _resource("Memberships", "accounts.membership", view=LOOKERS, all=(USER_MANAGER, ADMIN)),
    _resource("API keys", "accounts.apikey", view=LOOKERS, all=(USER_MANAGER, ADMIN)),
    _resource("Requests, cohorts and terms", "access.*", view=LOOKERS, all=(USER_MANAGER, ADMIN)),
    _resource("Budgets and top-ups", "usage.budget", "usage.topup", view=(*LOOKERS, OPERATOR),
              all=(USER_MANAGER, ADMIN)),
    _resource("Rate limits and money settings", "usage.limit", "usage.moneysettings", view=(*LOOKERS, USER_MANAGER),
              all=(OPERATOR, ADMIN)),
    _resource("Provider secrets", "proxy.provider:set_provider_secrets", all=(ADMIN,)),
    _resource("Providers", "proxy.provider", view=LOOKERS, all=(OPERATOR, ADMIN)),
    _resource("Models, routes and prices", "proxy.model", "proxy.route", "usage.modelprice",
              view=(*LOOKERS, USER_MANAGER), all=(OPERATOR, ADMIN)),
    _resource("Logged content", "policies.loggedcontent", "policies.contentview", view=(AUDITOR,), all=(ADMIN,)),
    _resource("Findings", "policies.finding", view=(*LOOKERS, OPERATOR), all=(ADMIN,)),
    _resource("Policies and word lists", "policies.*", view=LOOKERS, all=(OPERATOR, ADMIN)),
    _resource("Alerts", "usage.alert*", "usage.delivery", view=LOOKERS, all=(OPERATOR, ADMIN)),
    _resource("Usage and chargeback", "usage.*", view=(*LOOKERS, OPERATOR, USER_MANAGER), all=(ADMIN,)),
    _resource("Audit trail", "audit.*", "admin.logentry", view=(AUDITOR,), all=(ADMIN,)),
    _resource("Management tokens", "tokens.*", all=(ADMIN,)),
    _resource("Roles and rights", "auth.group", all=(ADMIN,)),
    # Whoever says who people are can become anybody, a superuser too.
    _resource("Identity providers and SCIM", "sso.*", "scim.*", view=(ADMIN,)),
    _resource("Sign-in internals", "account.*", "socialaccount.*", "mfa.*", "sessions.*", "contenttypes.*",
              "auth.permission", "usersessions.*"),
    _resource(EVERYTHING_ELSE, "*", all=(ADMIN,)),
)  # fmt: skip
ROLES = (VIEWER, OPERATOR, USER_MANAGER, AUDITOR, ADMIN)
# Not of a model of ours, so no migration makes it.
GIVE_RIGHTS_NAME = "Can give people roles and rights, up to their own"


# --- keeping them ---------------------------------------------------------------------------------------------------
def keep_roles(app_config: AppConfig, using: str, apps: Any = installed_apps, **_kwargs: Any) -> None:
    """After migrate, once all permissions are there: each role holds exactly what it is to hold."""
    if app_config.label != _last_with_models():
        return
    try:
        groups, permissions = (apps.get_model("auth", name)._default_manager.using(using) for name in _AUTH)
        content_type = apps.get_model("contenttypes", "ContentType")._default_manager.using(using)
    except LookupError:  # migrated back to where there were none
        return
    group_type, _ = content_type.get_or_create(app_label="auth", model="group")
    permissions.get_or_create(codename="give_rights", content_type=group_type, defaults={"name": GIVE_RIGHTS_NAME})
    rights = rights_by_role(permissions.select_related("content_type"))
    for role, wanted in rights.items():
        group, _ = groups.get_or_create(name=role)
        if set(group.permissions.values_list("pk", flat=True)) != wanted:
            group.permissions.set(wanted)


_AUTH = ("Group", "Permission")


def _last_with_models() -> str:
    """migrate sends its signal for each app that has models, in order; permissions are made at the same time."""
    return [config.label for config in installed_apps.get_app_configs() if config.models_module is not None][-1]


def rights_by_role(permissions: Iterable[Any]) -> dict[str, set[int]]:
    """Of each role the ids of those of these permissions that it holds."""
    rights: dict[str, set[int]] = {role: set() for role in ROLES}
    for permission in permissions:
        kind = permission.content_type
        resource = resource_of(f"{kind.app_label}.{kind.model}:{permission.codename}")
        for role, may in resource.roles.items():
            if may == May.ALL or permission.codename.startswith("view_"):
                rights[role].add(permission.pk)
    return rights


def resource_of(permission: str) -> Resource:
    """`permission` as `app.model:codename`."""
    return next(resource for resource in RESOURCES if resource.covers(permission))


def is_builtin(group: Group | None) -> bool:
    return group is not None and group.name in ROLES


# --- nobody gives more than they have -------------------------------------------------------------------------------
def may_manage(actor: Any, target: User | None) -> bool:
    """Whether `actor`, who may change people, may change this one: their name, e-mail, password, or whether they are
    active. Whoever has more rights than oneself is out of reach, since a new password would be the way to them."""
    if actor.is_superuser or target is None or target.pk is None or target.pk == actor.pk:
        return True
    return not target.is_superuser and rights_of(target) <= actor.get_all_permissions()


def rights_of(user: User) -> set[str]:
    """What the person may do, or could if they were active. Not for superusers, who may do everything."""
    held = Permission.objects.filter(Q(user=user) | Q(group__user=user)).values_list(*_NAME)
    return {f"{app}.{codename}" for app, codename in held}


def may_give_rights(actor: Any) -> bool:
    return bool(actor.is_superuser or actor.has_perm(GIVE_RIGHTS))


def permissions_to_give(actor: Any) -> QuerySet[Permission]:
    """Those that the actor has."""
    if actor.is_superuser:
        return Permission.objects.all()
    if not may_give_rights(actor):
        return Permission.objects.none()
    return Permission.objects.filter(Q(user=actor) | Q(group__user=actor)).distinct()


def groups_to_give(actor: Any) -> QuerySet[Group]:
    """Those with nothing in them that the actor does not have."""
    if actor.is_superuser:
        return Group.objects.all()
    if not may_give_rights(actor):
        return Group.objects.none()
    beyond = Q(permissions__isnull=False) & ~Q(permissions__in=permissions_to_give(actor))
    return Group.objects.annotate(beyond=Count("permissions", filter=beyond)).filter(beyond=0)


def check_gift(
    actor: Any,
    target: User | None,
    *,
    staff: bool | None = None,
    superuser: bool | None = None,
    groups: Collection[Group] | None = None,
) -> None:
    """For whatever sets rights of people other than the admin's pages: None is what is not set. Raises
    PermissionDenied."""
    if not may_manage(actor, target):
        raise PermissionDenied("This person has more rights than you.")
    if actor.is_superuser:
        return
    if superuser is not None and superuser != bool(target and target.is_superuser):
        raise PermissionDenied("Only a superuser makes a superuser.")
    if (staff is not None or groups is not None) and not may_give_rights(actor):
        raise PermissionDenied("You may not give rights.")
    if groups and not {group.pk for group in groups} <= set(groups_to_give(actor).values_list("pk", flat=True)):
        raise PermissionDenied("A group holds more rights than you have.")


_NAME = ("content_type__app_label", "codename")
