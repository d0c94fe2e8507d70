"""Whom SCIM is about."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import User
from accounts.scim.models import ScimGroup, ScimMember, ScimPerson

LOCAL_STAFF = Q(is_staff=True) | Q(is_superuser=True)


def people() -> QuerySet[User]:
    """Everybody but those whom the IdP has deleted, and the local administrators: people with the staff status whom no
    IdP has ever spoken of. Else whoever has a token could take over the account that is kept for emergencies."""
    known = Q(Exists(ScimPerson.objects.filter(user=OuterRef("pk"))))
    if "sign_on" in {relation.name for relation in User._meta.related_objects}:
        known |= Q(sign_on__isnull=False)
    return User.objects.filter(~LOCAL_STAFF | known).exclude(scim__deleted=True).select_related("scim").order_by("pk")


def groups() -> QuerySet[ScimGroup]:
    return ScimGroup.objects.order_by("pk")


def group_names(user: User) -> set[str]:
    """Of the groups that the person is in, by all their names."""
    return {
        name for member in ScimMember.objects.filter(user=user).select_related("group") for name in member.group.names
    }
