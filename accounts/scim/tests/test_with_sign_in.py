"""SCIM and single sign-on together: one account, and groups that count at once."""

from __future__ import annotations

import pytest

from accounts.audit.models import AuditEvent
from accounts.authentication import InvalidKey, check_now
from accounts.models import Team, User
from accounts.scim.tests.conftest import IdP
from accounts.services import create_key, peppers
from accounts.sso import services
from accounts.sso.identity import Identity
from accounts.sso.models import GroupRule, IdentityProvider

pytestmark = pytest.mark.django_db


@pytest.fixture
def corp(db: None) -> IdentityProvider:
    return IdentityProvider.objects.create(
        kind="oidc", slug="corp", name="Corp", discovery_url="https://idp.example.org", client_id="gatehouse"
    )


@pytest.fixture
def course(db: None) -> Team:
    team = Team.objects.create(name="course")
    GroupRule.objects.create(value="course-1", team=team)
    return team


def identity(*groups: str, subject: str = "s-1", username: str = "alice", email: str = "alice@example.org") -> Identity:
    return Identity(subject, username, email, "Alice", "Sample", (), groups)


def teams_of(user: User) -> list[str]:
    return list(Team.objects.filter(personal_of=None, memberships__user=user).values_list("name", flat=True))


def works(secret: str) -> bool:
    try:
        check_now(secret, peppers())
    except InvalidKey:
        return False
    return True


# --- groups ---------------------------------------------------------------------------------------------------------
def test_group_that_comes_through_scim_gives_its_team_at_once(corp: IdentityProvider, course: Team, idp: IdP) -> None:
    person = idp.create("alice")
    idp.create_group("course-1", person["id"])
    assert teams_of(User.objects.get(pk=person["id"])) == ["course"]


@pytest.mark.parametrize("how", ["removed", "group deleted", "renamed", "person deleted"])
def test_group_that_is_lost_through_scim_stops_its_keys_without_a_sign_in(
    corp: IdentityProvider, course: Team, idp: IdP, how: str
) -> None:
    user = services.make_person(corp, identity("course-1"))  # a sign-in, whose claims say so too
    _, secret = create_key("notebook", course, user)
    group = idp.create_group("course-1", str(user.pk))
    assert works(secret)
    where = f"Groups/{group['id']}"
    if how == "removed":
        idp.patch(where, {"op": "remove", "path": f'members[value eq "{user.pk}"]'})
    elif how == "renamed":
        idp.patch(where, {"op": "replace", "path": "displayName", "value": "course-2"})
    else:
        assert idp.ask("DELETE", where if how == "group deleted" else f"Users/{user.pk}").status_code == 204
    assert teams_of(user) == []
    assert not works(secret)


def test_group_of_scim_still_counts_at_the_next_sign_in(corp: IdentityProvider, course: Team, idp: IdP) -> None:
    """Many identity providers send groups one way only."""
    user = services.make_person(corp, identity())
    idp.create_group("course-1", str(user.pk))
    services.renew_person(user, corp, identity())
    assert teams_of(user) == ["course"]


def test_external_id_of_a_group_is_meant_by_a_rule_too(corp: IdentityProvider, idp: IdP) -> None:
    team = Team.objects.create(name="physics")
    GroupRule.objects.create(value="0f3c-77", team=team)
    person = idp.create("alice")
    idp.create_group("Physics", person["id"], externalId="0f3c-77")
    assert teams_of(User.objects.get(pk=person["id"])) == ["physics"]


def test_membership_that_was_given_by_hand_stays(corp: IdentityProvider, idp: IdP, research: Team, alice: User) -> None:
    group = idp.create_group("anything", str(alice.pk))
    idp.ask("DELETE", f"Groups/{group['id']}")
    assert teams_of(alice) == ["research"]


def test_what_a_rule_does_is_in_the_trail_as_scims(corp: IdentityProvider, course: Team, idp: IdP) -> None:
    idp.create_group("course-1", idp.create("alice")["id"])
    assert AuditEvent.objects.get(action="user.group_rules_applied").channel == "scim"


# --- one account ----------------------------------------------------------------------------------------------------
def test_person_who_signs_in_gets_the_account_that_scim_made(corp: IdentityProvider, idp: IdP) -> None:
    person = idp.create("alice", externalId="s-1")
    found = services.made_for(corp, identity())
    assert found is not None
    assert str(found.pk) == person["id"]
    services.link(found, corp, identity())
    assert services.made_for(corp, identity()) is None  # only for the first time


@pytest.mark.parametrize(
    "who",
    [
        pytest.param({"subject": "s-1", "username": "other", "email": ""}, id="external id"),
        pytest.param({"subject": "x", "username": "ALICE", "email": ""}, id="username"),
        pytest.param({"subject": "x", "username": "", "email": "alice"}, id="address as userName"),
    ],
)
def test_person_is_known_by_what_scim_said(corp: IdentityProvider, idp: IdP, who: dict[str, str]) -> None:
    idp.create("alice", externalId="s-1")
    assert services.made_for(corp, identity(**who)) is not None


def test_account_is_not_given_to_people_of_another_identity_provider(corp: IdentityProvider, idp: IdP) -> None:
    idp.create("alice", externalId="s-1")
    other = IdentityProvider.objects.create(
        kind="oidc", slug="other", name="Other", discovery_url="https://other.example.org", client_id="x"
    )
    assert services.made_for(other, identity()) is None


def test_account_that_scim_did_not_make_is_given_to_nobody(corp: IdentityProvider, idp: IdP, alice: User) -> None:
    assert services.made_for(corp, identity()) is None


@pytest.mark.parametrize("flag", ["is_staff", "is_superuser"])
def test_account_with_rights_is_given_to_nobody(corp: IdentityProvider, idp: IdP, flag: str) -> None:
    user = User.objects.get(pk=idp.create("alice", externalId="s-1")["id"])
    setattr(user, flag, True)
    user.save()
    assert services.made_for(corp, identity()) is None


def test_with_several_identity_providers_the_token_says_whose_its_people_are(corp: IdentityProvider, idp: IdP) -> None:
    IdentityProvider.objects.create(
        kind="oidc", slug="other", name="Other", discovery_url="https://other.example.org", client_id="x"
    )
    idp.create("alice", externalId="s-1")
    assert services.made_for(corp, identity()) is None
    idp.token.provider = corp
    idp.token.save()
    idp.create("bob", externalId="s-2")
    assert services.made_for(corp, identity(subject="s-2", username="bob")) is not None
