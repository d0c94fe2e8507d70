"""Whom SCIM is about."""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet

from accounts.models import User
from accounts.scim.models import ScimGroup, ScimMember, ScimPerson, ScimToken
from accounts.sso.models import IdentityProvider

LOCAL_STAFF = Q(is_staff=True) | Q(is_superuser=True)


def people() -> QuerySet[User]:
    """Everybody but those whom the IdP has deleted, and the local administrators: people with the staff status whom no
    IdP has ever spoken of. Else whoever has a token could take over the account that is kept for emergencies."""
    known = Q(Exists(ScimPerson.objects.filter(user=OuterRef("pk"))))
    return (
        User.objects.filter(~LOCAL_STAFF | known | Q(sign_on__isnull=False))
        .exclude(scim__deleted=True)
        .select_related("scim")
        .order_by("pk")
    )


def groups() -> QuerySet[ScimGroup]:
    return ScimGroup.objects.order_by("pk")


def group_names(user: User) -> set[str]:
    """Of the groups that the person is in, by all their names."""
    return {
        name for member in ScimMember.objects.filter(user=user).select_related("group") for name in member.group.names
    }


def provider_of(token: ScimToken) -> IdentityProvider | None:
    """Through which the people of this token sign in."""
    if token.provider is not None:
        return token.provider
    enabled = list(IdentityProvider.objects.filter(enabled=True)[:2])
    return enabled[0] if len(enabled) == 1 else None


def made_for(provider: IdentityProvider, subject: str, username: str, email: str) -> User | None:
    """Whom this IdP has sent through SCIM and who signs in now for the first time. None, too, where it is not plain
    who that is, for the staff, and for those who have signed in through an IdP before."""
    sent = User.objects.filter(scim__provider=provider, scim__deleted=False, socialaccount=None)
    sent = sent.filter(is_staff=False, is_superuser=False)
    for name, value in (("scim__external_id", subject), ("username__iexact", username), ("username__iexact", email)):
        found = list(sent.filter(**{name: value})[:2]) if value else []
        if found:
            return found[0] if len(found) == 1 else None
    return None
