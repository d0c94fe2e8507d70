"""Every change that an identity provider makes through SCIM."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone
from scim2_models import Group as GroupResource
from scim2_models import InvalidValueException, UniquenessException

from accounts.models import User
from accounts.scim import selectors, tell_of_groups
from accounts.scim.models import ScimGroup, ScimMember, ScimPerson
from accounts.scim.resources import UserResource, address_of, attributes_of
from accounts.services import create_user
from accounts.sso.models import IdentityProvider


# --- people ---------------------------------------------------------------------------------------------------------
@transaction.atomic
def create_person(resource: UserResource, provider: IdentityProvider | None = None) -> User:
    """Somebody new, or somebody whom the IdP had deleted before. Raises SCIMException and ValidationError."""
    username = resource.user_name or ""
    user = User.objects.select_for_update().filter(username__iexact=username).first()
    if user is None:
        user = create_user(username, email=address_of(resource))
        return _write(user, ScimPerson(user=user), resource, provider)
    person = ScimPerson.objects.filter(user=user, deleted=True).first()
    if person is None:
        raise UniquenessException(detail="There is somebody with this userName.")
    person.deleted, person.active = False, False
    return _write(user, person, resource, provider)


@transaction.atomic
def change_person(user: User, resource: UserResource, provider: IdentityProvider | None = None) -> User:
    """Raises SCIMException and ValidationError."""
    person = ScimPerson.objects.filter(user=user).first() or ScimPerson(user=user, active=user.is_active)
    return _write(user, person, resource, provider)


@transaction.atomic
def delete_person(user: User) -> None:
    """They stay, inactive and in no group, so that what they spent stays explained."""
    person = ScimPerson.objects.filter(user=user).first() or ScimPerson(user=user)
    person.deleted, person.active, person.changed_at = True, False, timezone.now()
    person.save()
    _deactivate(user)
    members = ScimMember.objects.filter(user=user).select_related("group")
    lost = {name for member in members for name in member.group.names}
    for member in members:
        member.delete()
    tell_of_groups(user, set(), lost)


def _write(user: User, person: ScimPerson, resource: UserResource, provider: IdentityProvider | None) -> User:
    username = User.normalize_username(resource.user_name or "")
    if User.objects.filter(username__iexact=username).exclude(pk=user.pk).exists():
        raise UniquenessException(detail="There is somebody with this userName.")
    name = resource.name
    wanted = {
        "username": username,
        "email": address_of(resource),
        "first_name": (name and name.given_name) or "",
        "last_name": (name and name.family_name) or "",
    }
    changed = [field for field, value in wanted.items() if getattr(user, field) != value]
    active = resource.active is not False
    # Whoever was made inactive here stays so when the IdP only repeats what it said before.
    if active and not person.active and not user.is_active:
        wanted["is_active"] = True  # type: ignore[assignment]
        changed.append("is_active")
    for field in changed:
        setattr(user, field, wanted[field])
    if changed:
        user.full_clean(exclude=["password"])
        user.save(update_fields=changed)
    if not active:
        _deactivate(user)
    person.external_id, person.provider = resource.external_id or "", provider or person.provider
    person.active, person.attributes, person.changed_at = active, attributes_of(resource), timezone.now()
    person.full_clean(exclude=["attributes"])
    person.save()
    user.scim = person
    return user


def _deactivate(user: User) -> None:
    if user.is_active:
        user.is_active = False
        user.save(update_fields=["is_active"])
    end_sessions(user)


def end_sessions(user: User) -> None:
    """Nobody inactive is let in anyway; without this their sessions would go on when they are active again."""
    for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator():
        if session.get_decoded().get("_auth_user_id") == str(user.pk):
            session.delete()


# --- groups ---------------------------------------------------------------------------------------------------------
@transaction.atomic
def create_group(resource: GroupResource) -> ScimGroup:
    """Raises SCIMException and ValidationError."""
    group = ScimGroup()
    _write_group(group, resource)
    _set_members(group, _member_ids(resource))
    return group


@transaction.atomic
def change_group(group: ScimGroup, resource: GroupResource) -> ScimGroup:
    """Raises SCIMException and ValidationError."""
    before = group.names
    _write_group(group, resource)
    renamed = before - group.names
    kept = _set_members(group, _member_ids(resource))
    if before != group.names:
        for user in User.objects.filter(pk__in=kept):
            _tell(user, renamed)
    return group


@transaction.atomic
def delete_group(group: ScimGroup) -> None:
    _set_members(group, set())
    group.delete()


def _write_group(group: ScimGroup, resource: GroupResource) -> None:
    name = resource.display_name or ""
    if ScimGroup.objects.filter(name=name).exclude(pk=group.pk).exists():
        raise UniquenessException(detail="There is a group with this displayName.")
    group.name, group.external_id = name, resource.external_id or ""
    group.changed_at = timezone.now()
    group.full_clean()
    group.save()


def _member_ids(resource: GroupResource) -> set[int]:
    """Raises InvalidValueException."""
    ids = set()
    for member in resource.members or []:
        value = member.value or ""
        if str(member.type or "User").lower() == "group":
            raise InvalidValueException(detail="Groups in groups are not taken: send their people.")
        if not (value.isascii() and value.isdigit() and len(value) < 19):
            raise InvalidValueException(detail="A member's value is the id of a user.")
        ids.add(int(value))
    return ids


def _set_members(group: ScimGroup, wanted: set[int]) -> list[int]:
    """Returns the ids of those who were in it and still are. Raises InvalidValueException."""
    members = {member.user_id: member for member in group.members.select_related("user")}
    added = wanted - set(members)
    people = selectors.people().in_bulk(added)
    if len(people) != len(added):
        raise InvalidValueException(detail=f"There is no user {min(added - set(people))}.")
    for user_id in sorted(added):
        ScimMember(group=group, user=people[user_id]).save()
        _tell(people[user_id], ())
    for user_id in sorted(set(members) - wanted):
        member = members[user_id]
        member.delete()
        _tell(member.user, group.names)
    return sorted(set(members) & wanted)


def _tell(user: User, lost: Iterable[str]) -> None:
    now = selectors.group_names(user)
    tell_of_groups(user, now, set(lost) - now)
