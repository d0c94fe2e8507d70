"""What a sign-in through an IdP does: makes or renews the person, and gives and takes what the rules say."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.audit import acting, record, trail
from accounts.models import ApiKey, Membership, User
from accounts.scim import selectors
from accounts.scim.models import ScimPerson
from accounts.scim.selectors import group_names
from accounts.services import create_user, enable_key, revoke_key
from accounts.sso.identity import Identity, matches, may_sign_in, username_of
from accounts.sso.models import GroupRule, IdentityProvider, LapsedKey, RuleMembership, SignOn, SpentToken, SsoSession

MANAGER = Membership.Role.MANAGER
LAPSE_AT_ONCE = 500


class NotAdmitted(Exception):
    """The IdP knows them, but they may not come in here. The message is for them."""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# --- people ---------------------------------------------------------------------------------------------------------
def check_admitted(idp: IdentityProvider, identity: Identity, user: User | None) -> None:
    """Raises NotAdmitted."""
    if user is not None and not user.is_active:
        raise NotAdmitted("Your account here is not active. Ask an administrator of the gateway.")
    if not may_sign_in(identity, lines(idp.affiliations_allowed), lines(idp.groups_allowed)):
        raise NotAdmitted(f"{idp.name} knows you, but you are not among those who may use the gateway.")


def make_person(idp: IdentityProvider, identity: Identity) -> User:
    """A new person for an identity that nobody had, or who just got it in another request."""
    known = SocialAccount.objects.filter(provider=idp.slug, uid=identity.subject)
    try:
        with acting("sso", name=idp.name), transaction.atomic():
            trail.lock()  # before the rows of people, as everywhere
            user = create_user(_free_username(username_of(identity)), email=identity.email)
            SocialAccount.objects.create(user=user, provider=idp.slug, uid=identity.subject, extra_data={})
            record("user.made_by_identity_provider", target=user, details={"identity_provider": idp.slug})
            _renew(user, idp, identity)
            return user
    except IntegrityError:
        account = known.select_related("user").first()
        if account is None:
            raise
        return renew_person(account.user, idp, identity)


def made_for(idp: IdentityProvider, identity: Identity) -> User | None:
    """The account that this IdP has had made through SCIM for somebody who now signs in for the first time."""
    return selectors.made_for(idp, identity.subject, identity.username, identity.email)


def link(user: User, idp: IdentityProvider, identity: Identity) -> None:
    with acting("sso", name=idp.name), transaction.atomic():
        SocialAccount.objects.create(user=user, provider=idp.slug, uid=identity.subject, extra_data={})
        record("user.linked_to_identity_provider", target=user, details={"identity_provider": idp.slug})


def renew_person(user: User, idp: IdentityProvider, identity: Identity) -> User:
    """At each further sign-in."""
    with acting("sso", name=idp.name), transaction.atomic():
        trail.lock()
        _renew(user, idp, identity)
        return user


def _free_username(wanted: str) -> str:
    """`wanted`, or `wanted-2` and so on, whoever has it and however it is written there."""
    name, number = wanted, 1
    while User.objects.filter(username__iexact=name).exists():
        number += 1
        name = f"{wanted}-{number}"
    return name


def _renew(user: User, idp: IdentityProvider, identity: Identity) -> None:
    sign_on, _ = SignOn.objects.get_or_create(user=user)
    user = User.objects.select_for_update().get(pk=user.pk)
    given = {"email": identity.email, "first_name": identity.first_name, "last_name": identity.last_name}
    changed = [name for name, value in given.items() if value and getattr(user, name) != value]
    for name in changed:
        setattr(user, name, given[name])
    if changed:
        user.save(update_fields=changed)
    sign_on.provider, sign_on.at = idp, timezone.now()
    sign_on.affiliations, sign_on.groups = list(identity.affiliations), list(identity.groups)
    _apply_rules(user, sign_on, idp, identity)
    sign_on.save()
    _wake_keys(user)


# --- rules ----------------------------------------------------------------------------------------------------------
def groups_changed(user: User, now: Collection[str], lost: Collection[str]) -> None:
    """The IdP has told so through SCIM: what the rules say counts at once, not only at the next sign-in."""
    trail.lock()
    sign_on, _ = SignOn.objects.get_or_create(user=user)
    user = User.objects.select_for_update().get(pk=user.pk)
    person = ScimPerson.objects.filter(user=user).select_related("provider").first()
    idp = sign_on.provider or (person.provider if person else None)
    sign_on.groups = [group for group in sign_on.groups if group not in lost]
    kept = tuple(sign_on.affiliations), tuple(sign_on.groups)
    _apply_rules(user, sign_on, idp, Identity("", "", "", "", "", *kept))
    sign_on.save()


def rules_for(idp: IdentityProvider | None, identity: Identity) -> list[GroupRule]:
    """Those that hold for this identity now."""
    rules = GroupRule.objects.filter(Q(provider=idp) | Q(provider=None), enabled=True).select_related("team", "group")
    has = {GroupRule.Source.GROUP: identity.groups, GroupRule.Source.AFFILIATION: identity.affiliations}
    return [rule for rule in rules if any(matches(rule.value, value) for value in has[GroupRule.Source(rule.source)])]


def _apply_rules(user: User, sign_on: SignOn, idp: IdentityProvider | None, identity: Identity) -> None:
    told = tuple(sorted(group_names(user)))  # through SCIM
    rules = rules_for(idp, replace(identity, groups=(*identity.groups, *told)))
    facts = _apply_memberships(user, rules)
    facts |= _apply_standing(user, sign_on, rules)
    facts |= _apply_permissions(user, sign_on, {rule.group for rule in rules if rule.group})
    if facts:
        slug = idp.slug if idp else ""
        record("user.group_rules_applied", target=user, details={"identity_provider": slug, **facts})


def _apply_memberships(user: User, rules: Iterable[GroupRule]) -> dict[str, Any]:
    """Memberships that somebody gave by hand stay as they are."""
    wanted: dict[int, str] = {}
    for rule in rules:
        if rule.team_id is not None and wanted.get(rule.team_id) != MANAGER:
            wanted[rule.team_id] = rule.role
    has = {
        membership.team_id: membership
        for membership in Membership.objects.filter(user=user).select_related("team", "by_rule")
    }
    joined, left = [], []
    for team_id, role in wanted.items():
        membership = has.get(team_id)
        if membership is None:
            membership = Membership.objects.create(user=user, team_id=team_id, role=role)
            RuleMembership.objects.create(membership=membership)
            joined.append(membership.team.name)
        elif hasattr(membership, "by_rule") and membership.role != role:
            membership.role = role
            membership.save(update_fields=["role"])
    for team_id, membership in has.items():
        if team_id not in wanted and hasattr(membership, "by_rule"):
            left.append(membership.team.name)
            membership.delete()
    return {name: teams for name, teams in (("joined", joined), ("left", left)) if teams}


def _apply_standing(user: User, sign_on: SignOn, rules: Iterable[GroupRule]) -> dict[str, Any]:
    """Staff and superuser: given by a rule, taken when no rule gives it any more; what was given by hand stays."""
    superuser = any(rule.makes_superuser for rule in rules)
    wanted = {"superuser": superuser, "staff": superuser or any(rule.makes_staff for rule in rules)}
    facts: dict[str, Any] = {}
    for name, wants in wanted.items():
        by_rule = getattr(sign_on, f"{name}_by_rule")
        has = getattr(user, f"is_{name}")
        if wants and not has:
            setattr(sign_on, f"{name}_by_rule", True)
            facts[name] = True
        elif by_rule and not wants:
            setattr(sign_on, f"{name}_by_rule", False)
            if has:
                facts[name] = False
    for name, value in facts.items():
        setattr(user, f"is_{name}", value)
    if facts:
        user.save(update_fields=[f"is_{name}" for name in facts])
    return facts


def _apply_permissions(user: User, sign_on: SignOn, wanted: set[Group]) -> dict[str, Any]:
    given = set(sign_on.groups_by_rule)
    has = set(user.groups.values_list("pk", flat=True))
    new = {group for group in wanted if group.pk not in has}
    lost = Group.objects.filter(pk__in=(given & has) - {group.pk for group in wanted})
    facts = {
        "permissions_given": sorted(group.name for group in new),
        "permissions_taken": sorted(group.name for group in lost),
    }
    user.groups.remove(*lost)
    user.groups.add(*new)
    sign_on.groups_by_rule = sorted((given & {group.pk for group in wanted}) | {group.pk for group in new})
    return {name: names for name, names in facts.items() if names}


# --- keys of those who do not come back -------------------------------------------------------------------------------
def lapse_keys() -> int:
    """Disables the keys of people who signed in through an IdP, but not for KEYS_LAPSE_DAYS. Gives how many."""
    if not settings.KEYS_LAPSE_DAYS:
        return 0
    since = timezone.now() - timedelta(days=settings.KEYS_LAPSE_DAYS)
    keys = ApiKey.objects.filter(disabled=False, user__sign_on__at__lt=since)[:LAPSE_AT_ONCE]
    count = 0
    with acting("sso", name="keys lapse"):
        for key in keys:
            with transaction.atomic():
                revoke_key(key)
                LapsedKey.objects.get_or_create(key=key)
            count += 1
    return count


def _wake_keys(user: User) -> None:
    for lapsed in LapsedKey.objects.filter(key__user=user).select_related("key"):
        if lapsed.key.disabled:
            enable_key(lapsed.key)
        lapsed.delete()


# --- sessions -------------------------------------------------------------------------------------------------------
def remember_session(session_key: str, user: User, idp: IdentityProvider, identity: Identity) -> None:
    SsoSession.objects.update_or_create(
        session_key=session_key,
        defaults={
            "user": user,
            "provider": idp,
            "subject": identity.name_id or identity.subject,
            "idp_session": identity.session,
        },
    )


def end_sessions(idp: IdentityProvider, subject: str, session: str = "") -> int:
    """Because the IdP says so: those of its session, or (without one) all of this person's through this IdP."""
    found = SsoSession.objects.filter(provider=idp)
    if subject:
        found = found.filter(subject=subject)
    if session:
        found = found.filter(idp_session=session)
    if not subject and not session:
        return 0
    store = import_module(settings.SESSION_ENGINE).SessionStore
    ended = list(found.select_related("user"))
    with acting("sso", name=idp.name):
        for row in ended:
            store(row.session_key).delete()
            record("session.ended_by_identity_provider", target=row.user, details={"identity_provider": idp.slug})
            row.delete()
    return len(ended)


def forget_old() -> None:
    """What can no longer matter: tokens that are over, sessions that Django has forgotten."""
    SpentToken.objects.filter(expires_at__lt=timezone.now()).delete()
    age = timedelta(seconds=max(settings.SESSION_COOKIE_AGE, settings.SSO_SESSION_HOURS * 3600))
    SsoSession.objects.filter(created_at__lt=timezone.now() - age).delete()
