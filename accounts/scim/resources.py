"""People and groups as SCIM has them, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson
from scim2_models import Context, EnterpriseUser, Meta, Resource, ScimPolicy
from scim2_models import Group as GroupResource
from scim2_models import User as PlainUserResource

from accounts.models import User
from accounts.scim.models import ScimGroup, ScimPerson

UserResource = PlainUserResource[EnterpriseUser]
# As Entra ID and Okta write, which is not always as the standard has it.
POLICY = ScimPolicy(
    unknown=ScimPolicy.Unknown.ignore,
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
# In the User itself, or not kept at all. Passwords are the IdP's own business.
NOT_KEPT = ("schemas", "id", "externalId", "meta", "userName", "active", "password", "groups")


def as_user(user: User, base: str, memberships: Iterable[ScimGroup] = ()) -> UserResource:
    """`memberships`: the groups they are in."""
    person: ScimPerson | None = getattr(user, "scim", None)
    kept: dict[str, Any] = dict(person.attributes) if person else {}
    names = {"givenName": user.first_name, "familyName": user.last_name}
    name = {**kept.get("name", {}), **names}
    payload = {
        **kept,
        "schemas": [str(PlainUserResource.__schema__), *(key for key in kept if key.startswith("urn:"))],
        "id": str(user.pk),
        "externalId": person.external_id if person else None,
        "userName": user.username,
        "name": {key: value for key, value in name.items() if value},
        "active": person.active if person else user.is_active,
        "emails": _emails(user.email, kept.get("emails", [])),
        "groups": [
            {"value": str(group.pk), "display": group.name, "$ref": f"{base}/Groups/{group.pk}", "type": "direct"}
            for group in memberships
        ],
    }
    changed = person.changed_at if person else user.date_joined
    resource = UserResource.model_validate(_without_empty(payload), scim_policy=POLICY)
    resource.meta = Meta(
        resource_type="User", created=user.date_joined, last_modified=changed, location=f"{base}/Users/{user.pk}"
    )
    return resource


def as_group(group: ScimGroup, base: str, members: Iterable[tuple[int, str]] | None) -> GroupResource:
    """`members`: (id, username); None: they are not asked for."""
    payload = {
        "schemas": [str(GroupResource.__schema__)],
        "id": str(group.pk),
        "externalId": group.external_id,
        "displayName": group.name,
        "members": [
            {"value": str(pk), "display": name, "type": "User", "$ref": f"{base}/Users/{pk}"}
            for pk, name in members or ()
        ],
    }
    resource = GroupResource.model_validate(_without_empty(payload), scim_policy=POLICY)
    resource.meta = Meta(
        resource_type="Group",
        created=group.created_at,
        last_modified=group.changed_at,
        location=f"{base}/Groups/{group.pk}",
    )
    return resource


def _without_empty(payload: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if value not in (None, "", [], {})}


def _emails(address: str, kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the IdP has sent, unless another address was entered here since."""
    if not address:
        return []
    if any(str(email.get("value", "")).lower() == address.lower() for email in kept):
        return kept
    return [{"value": address, "type": "work", "primary": True}]


def address_of(resource: UserResource) -> str:
    """The primary e-mail address, else that of work, else the first."""
    emails = [email for email in resource.emails or [] if email.value]
    emails.sort(key=lambda email: (not email.primary, email.type != "work"))
    return str(emails[0].value) if emails else ""


def attributes_of(resource: UserResource) -> dict[str, Any]:
    """What is kept of them as it came."""
    dumped = resource.model_dump(scim_ctx=Context.RESOURCE_REPLACEMENT_REQUEST)
    return {key: value for key, value in dumped.items() if key not in NOT_KEPT}


def version_of(resource: Resource[Any]) -> str:
    """A weak ETag."""
    dumped = resource.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    meta = dumped.get("meta", {})
    meta.pop("version", None)
    meta.pop("location", None)
    return f'W/"{hashlib.sha256(orjson.dumps(dumped, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]}"'
