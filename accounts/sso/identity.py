"""What an IdP says of a person, read the same way from OIDC claims and SAML attributes. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Attributes = Mapping[str, Any]
CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
USUAL: dict[str, tuple[str, ...]] = {
    "username": (
        "preferred_username",
        "eduPersonPrincipalName",
        "eduperson_principal_name",
        "urn:oid:1.3.6.1.4.1.5923.1.1.1.6",
        "upn",
        f"{CLAIMS}upn",
        "uid",
        "urn:oid:0.9.2342.19200300.100.1.1",
        f"{CLAIMS}name",
    ),
    "email": ("email", "mail", "urn:oid:0.9.2342.19200300.100.1.3", f"{CLAIMS}emailaddress"),
    "first_name": ("given_name", "givenName", "urn:oid:2.5.4.42", f"{CLAIMS}givenname", "firstName"),
    "last_name": ("family_name", "sn", "urn:oid:2.5.4.4", f"{CLAIMS}surname", "lastName"),
    "affiliation": (
        "eduPersonAffiliation",
        "eduperson_affiliation",
        "urn:oid:1.3.6.1.4.1.5923.1.1.1.1",
        "eduPersonScopedAffiliation",
        "eduperson_scoped_affiliation",
        "urn:oid:1.3.6.1.4.1.5923.1.1.1.9",
    ),
    "group": (
        "groups",
        "roles",
        "isMemberOf",
        "urn:oid:1.3.6.1.4.1.5923.1.5.1.1",
        "memberOf",
        "eduPersonEntitlement",
        "eduperson_entitlement",
        "urn:oid:1.3.6.1.4.1.5923.1.1.1.7",
        "http://schemas.microsoft.com/ws/2008/06/identity/claims/groups",
    ),
}
MAX_SUBJECT = 190  # what allauth's column holds
MAX_NAME = 150
MAX_VALUES = 2000
UNFIT_FOR_USERNAME = re.compile(r"[^\w.@+-]+")
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Identity:
    """`subject` is who it is at this IdP, for good; everything else may be another at the next sign-in."""

    subject: str
    username: str
    email: str
    first_name: str
    last_name: str
    affiliations: tuple[str, ...]
    groups: tuple[str, ...]
    session: str = ""  # the IdP's
    name_id: str = ""  # SAML: by which the IdP calls them when it logs them out


def read(subject: str, attributes: Attributes, names: Mapping[str, str], session: str = "") -> Identity:
    """`names`: by username, email, first_name, last_name, affiliation, group: where to look, separated by commas."""

    def where(what: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in names.get(what, "").split(",") if name.strip()) or USUAL[what]

    def first(what: str, limit: int = MAX_NAME) -> str:
        found = (value for name in where(what) for value in values(attributes, name))
        return CONTROL.sub(" ", next(found, "")).strip()[:limit]

    def every(what: str) -> tuple[str, ...]:
        found = (value[:255] for name in where(what) for value in values(attributes, name))
        return tuple(dict.fromkeys(found))[:MAX_VALUES]

    return Identity(
        subject=short_subject(subject),
        username=first("username"),
        email=_address(first("email", 254), attributes),
        first_name=first("first_name"),
        last_name=first("last_name"),
        affiliations=every("affiliation"),
        groups=every("group"),
        session=session[:255],
    )


def values(attributes: Attributes, name: str) -> list[str]:
    """The texts of a claim or attribute; `a.b` also means the claim b inside the claim a."""
    found = attributes.get(name)
    if found is None and "." in name:
        inner: Any = attributes
        for part in name.split("."):
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        found = inner
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        found = [found]
    if not isinstance(found, Sequence):
        return []
    return [str(value) for value in found if isinstance(value, str | int | float) and str(value).strip()]


def _address(email: str, attributes: Attributes) -> str:
    """An address that the IdP itself says is not verified could be anybody's."""
    verified = attributes.get("email_verified")
    if isinstance(verified, list):
        verified = verified[0] if verified else None
    if verified is False or str(verified).lower() in ("false", "0"):
        return ""
    return email if re.fullmatch(r"[^@\s]+@[^@\s]+", email) else ""


def short_subject(subject: str) -> str:
    if len(subject) <= MAX_SUBJECT:
        return subject
    return f"sha256:{hashlib.sha256(subject.encode()).hexdigest()}"


def username_of(identity: Identity) -> str:
    """Fit to be a username, not yet a free one."""
    for wanted in (identity.username, identity.email, identity.subject):
        name = UNFIT_FOR_USERNAME.sub("-", wanted).strip("-")[:140]
        if name:
            return name
    return "user"


def matches(pattern: str, value: str) -> bool:
    """Letter by letter, but for `*`."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), value, re.DOTALL) is not None


def may_sign_in(identity: Identity, affiliations: Iterable[str], groups: Iterable[str]) -> bool:
    wanted_affiliations, wanted_groups = list(affiliations), list(groups)
    if not wanted_affiliations and not wanted_groups:
        return True
    return any(matches(p, v) for p in wanted_affiliations for v in identity.affiliations) or any(
        matches(p, v) for p in wanted_groups for v in identity.groups
    )
