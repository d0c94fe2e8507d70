"""What sign-ins give and take: teams, rights, keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.utils import timezone

from accounts.audit.models import AuditEvent
from accounts.authentication import InvalidKey, check_now
from accounts.keys import Peppers
from accounts.models import ApiKey, Membership, Team, User
from accounts.services import create_key, personal_team, revoke_key
from accounts.sso import environment, services
from accounts.sso.identity import Identity, may_sign_in, read, username_of
from accounts.sso.models import GroupRule, IdentityProvider, LapsedKey, SignOn, SpentToken

MANAGER, MEMBER = Membership.Role.MANAGER, Membership.Role.MEMBER


def person(*groups: str, affiliations: tuple[str, ...] = (), subject: str = "s-1", username: str = "stu") -> Identity:
    return Identity(subject, username, "stu@example.org", "Stu", "Dent", affiliations, groups)


@pytest.fixture
def idp(db: None) -> IdentityProvider:
    return IdentityProvider.objects.create(
        kind="oidc", slug="corp", name="Corp", discovery_url="https://idp.example.org"
    )


@pytest.fixture
def course(db: None) -> Team:
    return Team.objects.create(name="course")


def teams_of(user: User) -> dict[str, str]:
    found = Membership.objects.filter(user=user, team__personal_of=None)
    return {membership.team.name: membership.role for membership in found.select_related("team")}


# --- teams ------------------------------------------------------------------------------------------------------------
def test_group_gives_a_team_and_losing_it_takes_the_team_with_its_keys(idp: IdentityProvider, course: Team) -> None:
    GroupRule.objects.create(value="course-1", team=course)
    user = services.make_person(idp, person("course-1"))
    assert teams_of(user) == {"course": MEMBER}
    _, secret = create_key("notebook", course, user)
    services.renew_person(user, idp, person())
    assert teams_of(user) == {}
    with pytest.raises(InvalidKey):
        check_now(secret, _peppers())
    services.renew_person(user, idp, person("course-1"))
    assert check_now(secret, _peppers()).user_id == user.pk


def _peppers() -> Peppers:
    from django.conf import settings

    return Peppers(settings.KEY_PEPPERS)


def test_membership_given_by_hand_stays_as_it_is(idp: IdentityProvider, course: Team) -> None:
    rule = GroupRule.objects.create(value="course-1", team=course)
    user = services.make_person(idp, person())
    Membership.objects.create(user=user, team=course, role=MANAGER)
    services.renew_person(user, idp, person("course-1"))
    assert teams_of(user) == {"course": MANAGER}
    rule.delete()
    services.renew_person(user, idp, person())
    assert teams_of(user) == {"course": MANAGER}


def test_highest_role_counts_and_changes_with_the_groups(idp: IdentityProvider, course: Team) -> None:
    GroupRule.objects.create(value="teachers", team=course, role=MANAGER)
    GroupRule.objects.create(value="course-*", team=course)
    user = services.make_person(idp, person("course-1", "teachers"))
    assert teams_of(user) == {"course": MANAGER}
    services.renew_person(user, idp, person("course-1"))
    assert teams_of(user) == {"course": MEMBER}


def test_rule_counts_for_its_idp_its_kind_of_value_and_while_it_is_on(idp: IdentityProvider, course: Team) -> None:
    other = IdentityProvider.objects.create(kind="oidc", slug="other", name="Other")
    GroupRule.objects.create(provider=other, value="x", team=course)
    GroupRule.objects.create(value="x", source=GroupRule.Source.AFFILIATION, team=course)
    GroupRule.objects.create(value="x", team=course, enabled=False)
    user = services.make_person(idp, person("x"))
    assert teams_of(user) == {}
    services.renew_person(user, idp, person(affiliations=("x",)))
    assert teams_of(user) == {"course": MEMBER}


@pytest.mark.parametrize(("pattern", "value", "fits"), [
    ("staff", "staff", True), ("staff", "Staff", False), ("staff", "staffers", False), ("course-*", "course-1", True),
    ("*", "anything", True), ("a.c", "abc", False), ("student@*", "student@example.org", True), ("[a]", "a", False),
])  # fmt: skip
def test_values_fit_letter_by_letter_but_for_a_star(pattern: str, value: str, fits: bool) -> None:
    assert may_sign_in(person(value), [], [pattern]) is fits
    assert may_sign_in(person(affiliations=(value,)), [pattern], []) is fits


# --- rights -----------------------------------------------------------------------------------------------------------
def test_staff_and_superuser_come_and_go_with_the_group(idp: IdentityProvider) -> None:
    GroupRule.objects.create(value="admins", makes_superuser=True)
    user = services.make_person(idp, person("admins"))
    user.refresh_from_db()
    assert (user.is_staff, user.is_superuser) == (True, True)
    services.renew_person(user, idp, person())
    user.refresh_from_db()
    assert (user.is_staff, user.is_superuser) == (False, False)


def test_rights_given_by_hand_stay(idp: IdentityProvider) -> None:
    GroupRule.objects.create(value="admins", makes_staff=True)
    user = services.make_person(idp, person())
    User.objects.filter(pk=user.pk).update(is_staff=True)
    services.renew_person(user, idp, person("admins"))
    services.renew_person(user, idp, person())
    user.refresh_from_db()
    assert user.is_staff


def test_permissions_come_and_go_with_the_group(idp: IdentityProvider) -> None:
    viewers, own = Group.objects.create(name="Lookers"), Group.objects.create(name="Own")
    GroupRule.objects.create(value="it", group=viewers)
    user = services.make_person(idp, person("it"))
    user.groups.add(own)
    assert {group.name for group in user.groups.all()} == {"Lookers", "Own"}
    services.renew_person(user, idp, person())
    assert {group.name for group in user.groups.all()} == {"Own"}


def test_changes_are_in_the_audit_trail_as_those_of_single_sign_on(idp: IdentityProvider, course: Team) -> None:
    GroupRule.objects.create(value="course-1", team=course)
    services.make_person(idp, person("course-1"))
    (event,) = AuditEvent.objects.filter(action="user.group_rules_applied")
    assert event.channel == "sso"


# --- who it is --------------------------------------------------------------------------------------------------------
def test_two_people_with_one_username_are_told_apart(idp: IdentityProvider) -> None:
    User.objects.create_user("STU")
    names = [services.make_person(idp, person(subject=f"s-{number}")).username for number in (1, 2)]
    assert names == ["stu-2", "stu-3"]


def test_person_that_another_request_has_just_made_is_found(idp: IdentityProvider) -> None:
    first = services.make_person(idp, person())
    assert services.make_person(idp, person()) == first
    assert User.objects.count() == 1


def test_claims_and_attributes_are_read_where_they_usually_are() -> None:
    attributes = {
        "urn:oid:1.3.6.1.4.1.5923.1.1.1.6": ["stu@example.org"],
        "urn:oid:0.9.2342.19200300.100.1.3": ["stu@mail.example.org"],
        "urn:oid:2.5.4.42": ["Stu"],
        "eduPersonAffiliation": ["student", "member"],
        "urn:oid:1.3.6.1.4.1.5923.1.5.1.1": ["cn=course"],
    }
    found = read("s", attributes, {})
    assert (found.username, found.email, found.first_name) == ("stu@example.org", "stu@mail.example.org", "Stu")
    assert (found.affiliations, found.groups) == (("student", "member"), ("cn=course",))


def test_own_names_count_instead_and_go_into_claims() -> None:
    claims = {"realm_access": {"roles": ["a", 7, None]}, "groups": ["b"], "uid": "u\x00\n1"}
    found = read("s" * 300, claims, {"group": "realm_access.roles", "username": "nothing, uid"})
    assert (found.groups, found.username) == (("a", "7"), "u 1")
    assert found.subject.startswith("sha256:")


@pytest.mark.parametrize(
    "claims", [{}, {"groups": "one"}, {"groups": {"a": 1}}, {"groups": None}, {"email": "no address"}]
)
def test_odd_claims_break_nothing(claims: dict[str, Any]) -> None:
    assert read("s", claims, {}).email == ""


@pytest.mark.parametrize(("wanted", "name"), [("müller", "müller"), ("a b/c", "a-b-c"), ("", "s-1"), ("///", "s-1")])
def test_username_is_made_fit(wanted: str, name: str) -> None:
    identity = Identity("s-1", wanted, "", "", "", (), ())
    assert username_of(identity) == name


# --- keys of those who do not come back -------------------------------------------------------------------------------
def test_keys_lapse_after_the_last_sign_in_and_come_back_with_the_next(
    idp: IdentityProvider, settings: LazySettings
) -> None:
    user = services.make_person(idp, person())
    local = User.objects.create_user("local")
    keys = [create_key("a", personal_team(owner), owner)[0] for owner in (user, local)]
    SignOn.objects.update(at=timezone.now() - timedelta(days=31))
    assert services.lapse_keys() == 0
    settings.KEYS_LAPSE_DAYS = 30
    assert services.lapse_keys() == 1
    assert [ApiKey.objects.get(pk=key.pk).disabled for key in keys] == [True, False]
    services.renew_person(user, idp, person())
    assert not ApiKey.objects.get(pk=keys[0].pk).disabled
    assert not LapsedKey.objects.exists()


def test_revoked_key_does_not_come_back(idp: IdentityProvider) -> None:
    user = services.make_person(idp, person())
    key, _ = create_key("a", personal_team(user), user)
    revoke_key(key)
    services.renew_person(user, idp, person())
    assert ApiKey.objects.get(pk=key.pk).disabled


def test_what_can_no_longer_matter_is_forgotten(db: None) -> None:
    SpentToken.objects.create(digest="a", expires_at=timezone.now() - timedelta(hours=1))
    SpentToken.objects.create(digest="b", expires_at=timezone.now() + timedelta(hours=1))
    services.forget_old()
    assert list(SpentToken.objects.values_list("digest", flat=True)) == ["b"]


# --- set up by the environment ----------------------------------------------------------------------------------------
GIVEN = {"name": "Corp", "discovery_url": "https://idp.example.org", "client_id": "c", "client_secret": "s"}


def test_environment_sets_an_idp_up_and_switches_it_off(settings: LazySettings, db: None) -> None:
    settings.OIDC = {**settings.OIDC, **GIVEN}
    environment.sync()
    events = AuditEvent.objects.count()
    environment.sync()
    row = IdentityProvider.objects.get()
    assert (row.slug, row.secret, row.origin, row.enabled) == ("oidc", "s", "environment", True)
    assert AuditEvent.objects.count() == events
    settings.OIDC = {**settings.OIDC, "discovery_url": ""}
    environment.sync()
    assert not IdentityProvider.objects.get().enabled


def test_environment_leaves_the_admins_own_alone(settings: LazySettings, db: None) -> None:
    IdentityProvider.objects.create(kind="oidc", slug="oidc", name="Mine")
    settings.OIDC = {**settings.OIDC, **GIVEN}
    environment.sync()
    assert IdentityProvider.objects.get().name == "Mine"


def test_secret_is_encrypted_and_rotated_with_the_others(idp: IdentityProvider) -> None:
    idp.set_secret("tell nobody")
    idp.save()
    assert "tell nobody" not in IdentityProvider.objects.get().client_secret
    call_command("rotate_encryption", verbosity=0)
    assert IdentityProvider.objects.get().secret == "tell nobody"
