"""The admin's pages for keys, teams and people, as those who use them meet them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.contrib.messages import get_messages
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import versions
from accounts.keys import Digest
from accounts.models import ApiKey, Membership, Team, User
from accounts.services import create_key, peppers, rotate_key

pytestmark = pytest.mark.django_db

KEYS = reverse("admin:accounts_apikey_changelist")
ADD_KEY = reverse("admin:accounts_apikey_add")
TEAMS = reverse("admin:accounts_team_changelist")
EVERYTHING = {"models_allowed_0": "every", "endpoints_allowed_0": "every"}
SECRET = re.compile(r"sk-gh-\w{12}-\w{49}")


def staff(client: Client, *permissions: str) -> Client:
    """Signed in as somebody with these rights and no others."""
    user = User.objects.create_user("staff", password="x", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client.force_login(user)
    return client


def page_of(row: Any, page: str = "change") -> str:
    return reverse(f"admin:accounts_{row._meta.model_name}_{page}", args=[row.pk])


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def secret_on(response: Any) -> str:
    found = set(SECRET.findall(response.content.decode()))
    assert len(found) == 1
    return found.pop()


@pytest.fixture
def key(research: Team, alice: User) -> ApiKey:
    return create_key("laptop", research, alice)[0]


# --- a new key ------------------------------------------------------------------------------------------------------
def add_key(client: Client, **data: Any) -> Any:
    return client.post(ADD_KEY, {"name": "app", **EVERYTHING, **data})


def test_new_key_is_shown_on_a_page_of_its_own(admin_client: Client, research: Team, alice: User) -> None:
    response = add_key(admin_client, team=research.pk, user=alice.pk)
    assert response.status_code == 200
    key = ApiKey.objects.get()
    secret = secret_on(response)
    assert peppers().verify(secret, Digest(key.digest, key.pepper))
    assert (key.user, key.team, key.name) == (alice, research, "app")
    page = response.content.decode()
    assert "it is shown this once" in page
    assert "live in about a second" in page
    assert f"Authorization: Bearer {secret}" in page
    assert "client.chat.completions.create" in page


def test_page_with_the_key_is_kept_by_nobody(admin_client: Client, research: Team) -> None:
    assert "no-store" in add_key(admin_client, team=research.pk).headers["cache-control"]


def test_key_is_in_no_session_message_log_or_other_page(admin_client: Client, research: Team) -> None:
    response = add_key(admin_client, team=research.pk)
    secret = secret_on(response)
    assert messages_of(response) == []
    for session in Session.objects.all():
        assert secret not in str(session.get_decoded())
    for entry in LogEntry.objects.all():
        assert secret not in f"{entry.object_repr} {entry.change_message}"
    for url in (KEYS, page_of(ApiKey.objects.get()), ADD_KEY, reverse("admin:index")):
        assert not SECRET.search(admin_client.get(url).content.decode())


def test_reloading_the_page_neither_shows_nor_makes_a_key(admin_client: Client, research: Team) -> None:
    add_key(admin_client, team=research.pk)
    again = add_key(admin_client, team=research.pk)
    assert "already a key of this name" in again.content.decode()
    assert not SECRET.search(again.content.decode())
    assert ApiKey.objects.count() == 1


def test_owner_without_a_team_gets_a_key_in_their_personal_team(admin_client: Client, alice: User) -> None:
    add_key(admin_client, user=alice.pk)
    assert ApiKey.objects.get().team.personal_of == alice


def test_limits_of_the_key_are_saved(admin_client: Client, research: Team) -> None:
    limits = {"endpoints_allowed_0": "some", "endpoints_allowed_1": ["models"], "models_allowed_0": "some"}
    add_key(admin_client, team=research.pk, **limits)
    key = ApiKey.objects.get()
    assert (key.endpoints_allowed, key.models_allowed) == (["models"], [])


def test_making_a_key_is_in_the_history(admin_client: Client, research: Team) -> None:
    add_key(admin_client, team=research.pk)
    assert LogEntry.objects.get().object_id == str(ApiKey.objects.get().pk)


def test_new_key_offers_no_other_way_to_save(admin_client: Client) -> None:
    page = admin_client.get(ADD_KEY).content.decode()
    assert "_continue" not in page
    assert "_addanother" not in page


# --- an existing key ------------------------------------------------------------------------------------------------
def test_owner_and_team_of_a_key_do_not_change(admin_client: Client, key: ApiKey, charlie: User) -> None:
    data = {"name": "renamed", "user": charlie.pk, "team": Team.objects.get(name="sales").pk, **EVERYTHING}
    admin_client.post(page_of(key), data)
    owner, team = key.user, key.team
    key.refresh_from_db()
    assert (key.name, key.user, key.team) == ("renamed", owner, team)


def test_saving_overwrites_only_what_was_edited(admin_client: Client, key: ApiKey) -> None:
    """A key may be rotated or used while its page is open."""
    saved = ApiKey.save

    def save_after_a_rotation(self: ApiKey, *args: Any, **kwargs: Any) -> None:
        ApiKey.objects.filter(pk=key.pk).update(digest="rotated")
        saved(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ApiKey, "save", save_after_a_rotation)
        admin_client.post(page_of(key), {"name": "renamed", **EVERYTHING})
    key.refresh_from_db()
    assert (key.name, key.digest) == ("renamed", "rotated")


def test_saving_says_that_it_is_live_soon(admin_client: Client, key: ApiKey) -> None:
    response = admin_client.post(page_of(key), {"name": "renamed", **EVERYTHING})
    assert messages_of(response)[0].endswith("It is live in about a second.")


def rotate(client: Client, key: ApiKey, **data: Any) -> Any:
    """Opens the page and answers it."""
    page = client.get(page_of(key, "rotate"))
    generation = page.context["form"].initial["generation"]
    return client.post(page_of(key, "rotate"), {"overlap": "day", "generation": generation, **data})


def test_rotation_shows_the_new_secret_once(admin_client: Client, key: ApiKey) -> None:
    response = rotate(admin_client, key)
    secret = secret_on(response)
    assert "no-store" in response.headers["cache-control"]
    before = key.digest
    key.refresh_from_db()
    assert key.public_id in secret
    assert key.previous_digest == before
    assert "still works until" in response.content.decode()


def test_rotation_without_overlap_ends_the_old_secret_at_once(admin_client: Client, key: ApiKey) -> None:
    rotate(admin_client, key, overlap="now")
    key.refresh_from_db()
    assert key.previous_digest == ""


def test_reloading_the_rotation_does_not_rotate_again(admin_client: Client, key: ApiKey) -> None:
    generation = admin_client.get(page_of(key, "rotate")).context["form"].initial["generation"]
    answer = {"overlap": "day", "generation": generation}
    admin_client.post(page_of(key, "rotate"), answer)
    key.refresh_from_db()
    digest = key.digest
    again = admin_client.post(page_of(key, "rotate"), answer)
    key.refresh_from_db()
    assert key.digest == digest
    assert again.status_code == 302
    assert "was rotated already" in messages_of(again)[0]


def test_looking_at_the_rotation_page_changes_nothing(admin_client: Client, key: ApiKey) -> None:
    admin_client.get(page_of(key, "rotate"))
    digest = key.digest
    key.refresh_from_db()
    assert key.digest == digest


def test_revoking_asks_first(admin_client: Client, key: ApiKey) -> None:
    page = admin_client.get(page_of(key, "revoke"))
    assert "Every call with these keys is refused" in page.content.decode()
    assert not ApiKey.objects.get().disabled
    response = admin_client.post(page_of(key, "revoke"), {"confirmed": "yes"})
    assert ApiKey.objects.get().disabled
    assert messages_of(response) == [f"Revoked {key}. It is live in about a second."]


def test_revoked_key_can_be_enabled_again(admin_client: Client, key: ApiKey) -> None:
    admin_client.post(page_of(key, "revoke"), {"confirmed": "yes"})
    assert page_of(key, "enable") in admin_client.get(page_of(key)).content.decode()
    admin_client.post(page_of(key, "enable"), {"confirmed": "yes"})
    assert not ApiKey.objects.get().disabled


def test_several_keys_are_revoked_after_a_question(admin_client: Client, research: Team) -> None:
    keys = [create_key(f"k{number}", research)[0] for number in range(3)]
    data = {"action": "revoke_selected", "_selected_action": [key.pk for key in keys[:2]]}
    page = admin_client.post(KEYS, data).content.decode()
    assert "k0" in page
    assert not ApiKey.objects.filter(disabled=True).exists()
    admin_client.post(KEYS, {**data, "confirmed": "yes"})
    assert ApiKey.objects.filter(disabled=True).count() == 2
    assert LogEntry.objects.filter(change_message__contains="Revoked").count() == 2


def test_every_change_of_a_key_is_told_to_the_data_plane(admin_client: Client, key: ApiKey) -> None:
    seen = [versions.current()[versions.IDENTITY]]
    for change in (
        lambda: admin_client.post(page_of(key), {"name": "renamed", **EVERYTHING}),
        lambda: rotate(admin_client, key),
        lambda: admin_client.post(page_of(key, "revoke"), {"confirmed": "yes"}),
        lambda: admin_client.post(page_of(key, "enable"), {"confirmed": "yes"}),
    ):
        change()
        seen.append(versions.current()[versions.IDENTITY])
    assert seen == sorted(set(seen))


def test_used_key_cannot_be_deleted(admin_client: Client, key: ApiKey) -> None:
    assert admin_client.get(page_of(key, "delete")).status_code == 200
    ApiKey.objects.update(last_used_at=timezone.now())
    assert admin_client.post(page_of(key, "delete"), {"post": "yes"}).status_code == 403
    assert ApiKey.objects.exists()


def test_team_with_used_keys_cannot_be_deleted_either(admin_client: Client, key: ApiKey) -> None:
    ApiKey.objects.update(last_used_at=timezone.now())
    assert admin_client.post(page_of(key.team, "delete"), {"post": "yes"}).status_code == 403
    assert ApiKey.objects.exists()


def test_delete_is_offered_only_while_nothing_was_used(admin_client: Client, key: ApiKey) -> None:
    rows = (key, key.team, key.user)
    assert all(page_of(row, "delete") in admin_client.get(page_of(row)).content.decode() for row in rows)
    ApiKey.objects.update(last_used_at=timezone.now())
    assert not any(page_of(row, "delete") in admin_client.get(page_of(row)).content.decode() for row in rows)


def test_rotating_and_revoking_need_the_right_to_change(client: Client, key: ApiKey) -> None:
    somebody = staff(client, "accounts.view_apikey")
    for page in ("rotate", "revoke", "enable"):
        assert somebody.get(page_of(key, page)).status_code == 403
    shown = somebody.get(page_of(key)).content.decode()
    assert "Every model that its team and owner may use" in shown
    assert "<textarea" not in shown


# --- the list of keys -----------------------------------------------------------------------------------------------
def states(client: Client, query: str = "") -> dict[str, str]:
    page = client.get(f"{KEYS}{query}")
    return {row.name: _state(page, row) for row in page.context["cl"].result_list}


def _state(page: Any, row: ApiKey) -> str:
    return page.context["cl"].model_admin.state(row)


def test_state_says_why_a_key_does_not_work(admin_client: Client, research: Team, alice: User, bob: User) -> None:
    for name in ("active", "revoked", "expired", "rotating"):
        create_key(name, research, alice)
    closed = Team.objects.create(name="closed", disabled=True)
    Membership.objects.create(user=alice, team=closed)
    create_key("closed", closed, alice)
    create_key("left", research, bob)
    create_key("gone", Team.objects.create(name="other"), None)
    Membership.objects.filter(user=bob).delete()
    inactive = User.objects.create_user("inactive", is_active=False)
    Membership.objects.create(user=inactive, team=research)
    create_key("inactive", research, inactive)
    ApiKey.objects.filter(name="revoked").update(disabled=True)
    ApiKey.objects.filter(name="expired").update(expires_at=timezone.now() - timedelta(days=1))
    rotate_key(ApiKey.objects.get(name="rotating"), timedelta(hours=1))
    assert states(admin_client) == {
        "active": "active",
        "revoked": "revoked",
        "expired": "expired",
        "rotating": "rotating",
        "closed": "team disabled",
        "left": "owner left team",
        "gone": "active",
        "inactive": "owner inactive",
    }
    assert set(states(admin_client, "?state=active")) == {"active", "rotating", "gone"}
    assert set(states(admin_client, "?state=revoked")) == {"revoked"}
    assert set(states(admin_client, "?state=expired")) == {"expired"}
    assert set(states(admin_client, "?state=rotating")) == {"rotating"}


def test_keys_that_need_attention_are_found(admin_client: Client, research: Team) -> None:
    for name in ("soon", "unused", "busy"):
        create_key(name, research)
    now = timezone.now()
    ApiKey.objects.filter(name="soon").update(expires_at=now + timedelta(days=3))
    ApiKey.objects.exclude(name="soon").update(created_at=now - timedelta(days=60))
    ApiKey.objects.filter(name="busy").update(last_used_at=now)
    assert set(states(admin_client, "?state=soon")) == {"soon"}
    assert set(states(admin_client, "?state=unused")) == {"unused"}


@pytest.mark.parametrize("term", ["laptop", "alice", "research", "PUBLIC"])
def test_key_is_found_by_name_id_owner_and_team(admin_client: Client, key: ApiKey, term: str) -> None:
    create_key("other", Team.objects.create(name="elsewhere"))
    term = key.public_id if term == "PUBLIC" else term
    assert set(states(admin_client, f"?q={term}")) == {"laptop"}


def test_list_costs_the_same_however_long_it_is(
    admin_client: Client, research: Team, alice: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        create_key(f"k{number}", research, alice)
    with django_assert_max_num_queries(12):
        assert len(states(admin_client)) == 30


def test_page_of_a_team_costs_the_same_however_many_members_it_has(
    admin_client: Client, research: Team, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        research.members.add(User.objects.create_user(f"member-{number}"))
    with django_assert_max_num_queries(15):
        page = admin_client.get(f"{TEAMS}{research.pk}/change/").content.decode()
    assert all(f"member-{number}</option>" in page for number in range(30))


def test_page_of_a_person_costs_the_same_however_many_teams_they_are_in(
    admin_client: Client, alice: User, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        Team.objects.create(name=f"team-{number}").members.add(alice)
    with django_assert_max_num_queries(15):
        page = admin_client.get(f"/admin/accounts/user/{alice.pk}/change/").content.decode()
    assert all(f"team-{number}</option>" in page for number in range(30))


# --- teams ----------------------------------------------------------------------------------------------------------
def test_team_is_saved_with_its_members(admin_client: Client, alice: User) -> None:
    members = {
        "memberships-TOTAL_FORMS": 1,
        "memberships-INITIAL_FORMS": 0,
        "memberships-0-user": alice.pk,
        "memberships-0-role": "manager",
    }
    data = {"name": "ops", "models_allowed_0": "some", **members}
    response = admin_client.post(reverse("admin:accounts_team_add"), data)
    assert response.status_code == 302, response.context["errors"]
    team = Team.objects.get(name="ops")
    assert team.models_allowed == []
    assert team.memberships.get().role == "manager"


def test_disabling_a_team_asks_first(admin_client: Client, research: Team) -> None:
    assert "is refused from then on" in admin_client.get(page_of(research, "disable")).content.decode()
    assert not Team.objects.get().disabled
    admin_client.post(page_of(research, "disable"), {"confirmed": "yes"})
    assert Team.objects.get().disabled
    admin_client.post(page_of(research, "enable"), {"confirmed": "yes"})
    assert not Team.objects.get().disabled


def test_several_teams_are_disabled_after_a_question(admin_client: Client, research: Team) -> None:
    data = {"action": "disable_selected", "_selected_action": [research.pk]}
    admin_client.post(TEAMS, data)
    assert not Team.objects.get().disabled
    admin_client.post(TEAMS, {**data, "confirmed": "yes"})
    assert Team.objects.get().disabled


def test_personal_teams_are_listed_only_when_asked_for(admin_client: Client, research: Team, alice: User) -> None:
    add_key(admin_client, user=alice.pk)

    def listed(query: str = "") -> set[str]:
        return {team.name for team in admin_client.get(f"{TEAMS}{query}").context["cl"].result_list}

    assert listed() == {"research"}
    assert listed("?kind=personal") == {"alice"}
    assert listed("?kind=every") == {"research", "alice"}


def test_team_list_counts_members_and_keys_in_use(admin_client: Client, research: Team, alice: User, bob: User) -> None:
    for name in ("a", "b", "c"):
        create_key(name, research, alice)
    ApiKey.objects.filter(name="c").update(disabled=True)
    team = admin_client.get(TEAMS).context["cl"].result_list[0]
    assert (team.members_, team.keys_) == (2, 2)


def test_those_who_may_only_look_at_teams_get_no_fields(client: Client, research: Team) -> None:
    page = staff(client, "accounts.view_team").get(page_of(research)).content.decode()
    assert "Every model" in page
    assert 'name="models_allowed_0"' not in page
    assert client.get(page_of(research, "disable")).status_code == 403


# --- people ---------------------------------------------------------------------------------------------------------
NO_TEAMS = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}


def test_only_superusers_give_rights(client: Client, alice: User) -> None:
    somebody = staff(client, "accounts.view_user", "accounts.change_user")
    page = somebody.get(page_of(alice)).content.decode()
    assert 'name="is_superuser"' not in page
    data = {"username": "alice", "is_active": "on", "is_staff": "on", "is_superuser": "on", "models_allowed_0": "every"}
    assert somebody.post(page_of(alice), {**data, **NO_TEAMS}).status_code == 302
    alice.refresh_from_db()
    assert (alice.is_staff, alice.is_superuser) == (False, False)


def test_nobody_but_a_superuser_touches_a_superuser(client: Client, admin_user: User) -> None:
    somebody = staff(client, "accounts.view_user", "accounts.change_user", "accounts.delete_user")
    password = reverse("admin:auth_user_password_change", args=[admin_user.pk])
    assert somebody.post(password, {"password1": "n3w-passw0rd!", "password2": "n3w-passw0rd!"}).status_code == 403
    assert somebody.post(page_of(admin_user), {"username": "mine"}).status_code == 403
    assert somebody.post(page_of(admin_user, "delete"), {"post": "yes"}).status_code == 403


def test_groups_are_for_superusers(client: Client, admin_client: Client) -> None:
    add = reverse("admin:auth_group_add")
    assert staff(client, "auth.add_group", "auth.change_group").get(add).status_code == 403
    permission = Permission.objects.get(codename="view_usageevent")
    assert admin_client.post(add, {"name": "auditors", "permissions": [permission.pk]}).status_code == 302
    assert Group.objects.get(name="auditors").permissions.get() == permission


def test_person_is_saved_with_models_and_teams(admin_client: Client, alice: User) -> None:
    data = {"username": "alice", "is_active": "on", "models_allowed_0": "some", **NO_TEAMS}
    response = admin_client.post(page_of(alice), data)
    assert response.status_code == 302, response.context["errors"]
    alice.refresh_from_db()
    assert alice.models_allowed == []


@pytest.mark.parametrize("name", ["apikey", "team", "user"])
def test_every_page_opens(admin_client: Client, name: str, key: ApiKey) -> None:
    row = {"apikey": key, "team": key.team, "user": key.user}[name]
    for url in (
        reverse(f"admin:accounts_{name}_changelist"),
        reverse(f"admin:accounts_{name}_add"),
        page_of(row),
        page_of(row, "history"),
        page_of(row, "delete"),
    ):
        assert admin_client.get(url).status_code == 200


# --- networks -------------------------------------------------------------------------------------------------------
def test_key_is_made_for_the_networks_that_were_typed(admin_client: Client, alice: User, research: Team) -> None:
    data = {"name": "bound", "user": alice.pk, "team": research.pk, "networks_allowed": "192.0.2.9/24", **EVERYTHING}
    secret_on(admin_client.post(ADD_KEY, data))
    assert ApiKey.objects.get(name="bound").networks_allowed == ["192.0.2.0/24"]


def test_who_may_only_look_sees_the_networks(client: Client, key: ApiKey) -> None:
    Team.objects.filter(pk=key.team.pk).update(networks_allowed=["10.0.0.0/8"])
    ApiKey.objects.filter(pk=key.pk).update(networks_allowed=["10.9.0.0/16"])
    somebody = staff(client, "accounts.view_team", "accounts.view_apikey")
    assert "10.0.0.0/8" in somebody.get(page_of(key.team)).content.decode()
    assert "10.9.0.0/16" in somebody.get(page_of(key)).content.decode()
