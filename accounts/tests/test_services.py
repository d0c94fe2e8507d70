from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import keys, services, versions
from accounts.keys import Digest
from accounts.models import ApiKey, Membership, Team, User
from accounts.services import (
    create_key,
    create_user,
    enable_key,
    import_key,
    peppers,
    personal_team,
    revoke_key,
    rotate_key,
    touch_keys,
)

pytestmark = pytest.mark.django_db
NEXT_YEAR = timezone.now() + timedelta(days=365)


def identity() -> int:
    return versions.current().get(versions.IDENTITY, 0)


def fits(key: ApiKey, secret: str) -> bool:
    return peppers().verify(secret, Digest(key.digest, key.pepper))


# --- people -----------------------------------------------------------------------------------------------------------
def test_new_person_manages_a_personal_team_of_their_name():
    user = create_user("dora", email="dora@example.org", password="a long secret")

    assert user.check_password("a long secret")
    assert user.personal_team.name == "dora"
    assert user.memberships.get().role == Membership.Role.MANAGER


def test_person_without_a_password_cannot_sign_in_with_one():
    assert not create_user("dora").has_usable_password()


@pytest.mark.parametrize("username", ["", "a b", "x" * 151, "alice"])
def test_person_needs_a_good_name_that_is_free(alice, username):
    with pytest.raises(ValidationError):
        create_user(username)
    assert not Team.objects.filter(personal_of__isnull=False).exists()


def test_personal_team_is_made_once(alice):
    assert personal_team(alice) == personal_team(alice)
    assert Team.objects.filter(personal_of=alice).count() == 1


def test_personal_team_takes_the_next_free_name(alice):
    Team.objects.create(name="alice")
    Team.objects.create(name="alice (2)")
    assert personal_team(alice).name == "alice (3)"


def test_personal_team_of_a_long_name_fits():
    first, second = create_user("x" * 149 + "1"), create_user("x" * 149 + "2")
    assert first.personal_team.name == "x" * 100
    assert second.personal_team.name == "x" * 96 + " (2)"


# --- making keys ------------------------------------------------------------------------------------------------------
def test_key_is_returned_once_and_only_its_digest_is_stored(alice, research):
    key, secret = create_key("laptop", research, alice, endpoints=["embeddings"], models=[], expires_at=NEXT_YEAR)
    stored = ApiKey.objects.get()

    assert keys.public_id(secret) == stored.public_id == key.public_id
    assert fits(stored, secret)
    assert (stored.user, stored.team, stored.name) == (alice, research, "laptop")
    assert (stored.endpoints_allowed, stored.models_allowed) == (["embeddings"], [])
    assert stored.expires_at == NEXT_YEAR
    assert not any(secret[-49:] in str(value) for value in vars(stored).values())


def test_key_is_in_force_everywhere_because_the_version_rises(alice, research):
    before = identity()
    create_key("laptop", research, alice)
    assert identity() > before


def test_given_secret_becomes_the_key(alice, research):
    given = keys.make_key(keys.make_public_id())
    key, secret = create_key("laptop", research, alice, secret=given)
    assert secret == given
    assert fits(key, given)


def test_malformed_secret_is_refused_without_repeating_it(alice, research):
    with pytest.raises(ValidationError) as caught:
        create_key("laptop", research, alice, secret="sk-my-own-secret")
    assert list(caught.value.message_dict) == ["secret"]
    assert "my-own" not in str(caught.value)


def test_secret_whose_public_id_is_taken_is_refused(alice, research):
    key, _ = create_key("laptop", research, alice)
    with pytest.raises(ValidationError, match="already exists"):
        create_key("desktop", research, alice, secret=keys.make_key(key.public_id))


def test_public_id_that_is_taken_is_drawn_again(alice, research, monkeypatch):
    key, _ = create_key("laptop", research, alice)
    drawn = iter([key.public_id, "b" * 12])
    monkeypatch.setattr(services.keys, "make_public_id", lambda: next(drawn))
    assert create_key("desktop", research, alice)[0].public_id == "b" * 12


def test_key_of_a_person_needs_them_in_the_team(charlie, research):
    with pytest.raises(ValidationError, match="charlie is not in the team research"):
        create_key("laptop", research, charlie)


def test_everybody_may_have_keys_in_their_personal_team(charlie):
    team = personal_team(charlie)
    Membership.objects.filter(team=team).delete()
    assert create_key("laptop", team, charlie)[0].team == team


def test_team_may_have_a_service_key(research):
    assert create_key("nightly", research)[0].user is None


def test_personal_team_has_no_service_key(alice):
    with pytest.raises(ValidationError, match="person's own team"):
        create_key("nightly", personal_team(alice))


def test_name_is_free_again_for_another_owner(alice, bob, research):
    create_key("laptop", research, alice)
    create_key("laptop", research, bob)
    create_key("laptop", research)
    assert ApiKey.objects.count() == 3


@pytest.mark.parametrize("is_service", [False, True])
def test_one_owner_has_each_name_once(alice, research, is_service):
    owner = None if is_service else alice
    create_key("laptop", research, owner)
    with pytest.raises(ValidationError, match="already"):
        create_key("laptop", research, owner)


@pytest.mark.parametrize("is_service", [False, True])
def test_name_that_is_taken_in_the_same_moment_is_refused_too(alice, research, is_service, monkeypatch):
    owner = None if is_service else alice
    create_key("laptop", research, owner)
    real, asked = ApiKey.full_clean, []
    # The first check does not see the other one's key, which is not committed yet.
    monkeypatch.setattr(ApiKey, "full_clean", lambda self: real(self) if asked else asked.append(self))
    with pytest.raises(ValidationError, match="already"):
        create_key("laptop", research, owner)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\nb"),
        ("name", "x" * 101),
        ("models", [1]),
        ("models", [""]),
        ("endpoints", [None]),
        ("expires_at", datetime(2099, 1, 1)),
    ],
)
def test_bad_field_is_named(alice, research, field, value):
    fields = {"name": "laptop", field: value}
    with pytest.raises(ValidationError) as caught:
        create_key(fields.pop("name"), research, alice, **fields)
    assert next(iter(caught.value.message_dict)).startswith(field)
    assert not ApiKey.objects.exists()


# --- rotating, revoking -----------------------------------------------------------------------------------------------
def test_renamed_model_is_renamed_in_every_list_of_allowed_models(alice, research):
    """In its place and once, also where the new name is listed already; live as soon as anything else."""
    key = services.create_key("laptop", research, alice, models=["gpt", "other"])[0]
    Team.objects.filter(pk=research.pk).update(models_allowed=["gpt", "renamed"])
    User.objects.filter(pk=alice.pk).update(models_allowed=[])
    before = versions.current()[versions.IDENTITY]
    assert services.rename_allowed("gpt", "renamed") == 2
    for row in (key, research, alice):
        row.refresh_from_db()
    assert key.models_allowed == ["renamed", "other"]
    assert research.models_allowed == ["renamed"]
    assert alice.models_allowed == []
    assert versions.current()[versions.IDENTITY] > before


def test_rotation_keeps_the_public_id_and_changes_the_secret(alice, research):
    key, old = create_key("laptop", research, alice)
    before = identity()
    new = rotate_key(key, timedelta(days=1))
    stored = ApiKey.objects.get()

    assert keys.public_id(new) == keys.public_id(old)
    assert fits(stored, new)
    assert not fits(stored, old)
    assert peppers().verify(old, Digest(stored.previous_digest, stored.previous_pepper))
    assert abs(stored.previous_until - timezone.now() - timedelta(days=1)) < timedelta(minutes=1)
    assert identity() > before


def test_rotation_without_overlap_ends_the_old_secret_at_once(alice, research):
    key, _ = create_key("laptop", research, alice)
    rotate_key(key, timedelta(days=1))
    rotate_key(key, timedelta(0))
    stored = ApiKey.objects.get()
    assert (stored.previous_digest, stored.previous_pepper, stored.previous_until) == ("", "", None)


def test_rotation_changes_nothing_else_even_from_a_stale_row(alice, research):
    key, _ = create_key("laptop", research, alice)
    ApiKey.objects.filter(pk=key.pk).update(disabled=True, name="desktop")
    rotate_key(key, timedelta(0))
    stored = ApiKey.objects.get()
    assert (stored.disabled, stored.name) == (True, "desktop")


def test_stale_row_rotated_twice_overlaps_with_the_secret_that_was_last(alice, research):
    key, _ = create_key("laptop", research, alice)
    stale = ApiKey.objects.get()
    second = rotate_key(key, timedelta(0))
    rotate_key(stale, timedelta(hours=1))
    stored = ApiKey.objects.get()
    assert peppers().verify(second, Digest(stored.previous_digest, stored.previous_pepper))


def test_overlap_cannot_be_negative(alice, research):
    key, _ = create_key("laptop", research, alice)
    with pytest.raises(ValueError, match="negative"):
        rotate_key(key, timedelta(seconds=-1))


@pytest.mark.parametrize(("change", "disabled"), [(revoke_key, True), (enable_key, False)])
def test_key_can_be_revoked_and_enabled_again(alice, research, change, disabled):
    key, _ = create_key("laptop", research, alice)
    ApiKey.objects.update(disabled=not disabled)
    before = identity()
    change(key)
    assert ApiKey.objects.get().disabled is disabled
    assert identity() > before


# --- keys of replaced systems -----------------------------------------------------------------------------------------
def test_imported_key_is_stored_as_a_digest_of_its_sha256(alice, research):
    sha256 = keys.old_key_sha256("old-key-1")
    import_key(sha256.upper(), "old app", research, alice, expires_at=NEXT_YEAR)
    stored = ApiKey.objects.get()

    assert stored.imported_digest == peppers().digest(sha256).value
    assert sha256 not in str(vars(stored))
    assert stored.digest == ""
    assert len(stored.public_id) == 12


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 65])
def test_imported_key_needs_a_sha256(alice, research, sha256):
    with pytest.raises(ValidationError, match="64 hex"):
        import_key(sha256, "old app", research, alice, expires_at=NEXT_YEAR)


@pytest.mark.parametrize("expires_at", [None, timezone.now() - timedelta(seconds=1), datetime(2099, 1, 1)])
def test_imported_key_needs_an_end_date_to_come(alice, research, expires_at):
    with pytest.raises(ValidationError) as caught:
        import_key("0" * 64, "old app", research, alice, expires_at=expires_at)
    assert list(caught.value.message_dict) == ["expires_at"]
    assert not ApiKey.objects.exists()


def test_key_is_imported_once_even_under_a_newer_pepper(alice, research, settings):
    import_key("0" * 64, "old app", research, alice, expires_at=NEXT_YEAR)
    settings.KEY_PEPPERS = ["n" * 48, *settings.KEY_PEPPERS]
    with pytest.raises(ValidationError, match="already"):
        import_key("0" * 64, "same app", research, alice, expires_at=NEXT_YEAR)


def test_first_rotation_of_an_imported_key_lets_the_old_one_work_for_the_overlap(alice, research):
    key = import_key("0" * 64, "old app", research, alice, expires_at=NEXT_YEAR)
    new = rotate_key(key, timedelta(days=1))
    stored = ApiKey.objects.get()
    assert stored.imported_digest
    assert stored.previous_until
    assert fits(stored, new)


@pytest.mark.parametrize("overlaps", [[0], [1, 1]])
def test_old_key_ends_with_a_rotation_without_overlap_or_a_second_rotation(alice, research, overlaps):
    key = import_key("0" * 64, "old app", research, alice, expires_at=NEXT_YEAR)
    for days in overlaps:
        rotate_key(key, timedelta(days=days))
    assert ApiKey.objects.get().imported_digest is None


def test_end_date_of_an_imported_key_cannot_be_taken_away(alice, research):
    key = import_key("0" * 64, "old app", research, alice, expires_at=NEXT_YEAR)
    key.expires_at = None
    with pytest.raises(ValidationError, match="end date"):
        key.full_clean()
    rotate_key(key, timedelta(0))
    key.full_clean()


# --- last use ---------------------------------------------------------------------------------------------------------
def test_last_use_is_noted_in_one_go_and_bumps_nothing(alice, research):
    first, second = create_key("one", research, alice)[0], create_key("two", research, alice)[0]
    before = identity()
    at = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
    touch_keys({second.pk: at, first.pk: at, 999_999: at})

    assert [key.last_used_at for key in ApiKey.objects.all()] == [at, at]
    assert identity() == before


def test_last_use_never_goes_back(alice, research):
    key, _ = create_key("one", research, alice)
    late = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for at in (late, late - timedelta(hours=1)):
        touch_keys({key.pk: at})
    assert ApiKey.objects.get().last_used_at == late


def test_nothing_used_is_nothing_to_do(db):
    touch_keys({})


def test_deleting_a_person_deletes_their_keys_and_personal_team():
    user = create_user("dora")
    create_key("laptop", user.personal_team, user)
    user.delete()
    assert not ApiKey.objects.exists()
    assert not Team.objects.exists()
    assert not User.objects.exists()


def test_key_is_made_for_networks_as_they_are_usually_written(alice, research):
    key, _ = create_key("laptop", research, alice, networks=["192.0.2.9/24"])
    assert ApiKey.objects.get(pk=key.pk).networks_allowed == ["192.0.2.0/24"]


def test_key_for_a_network_that_is_none_is_refused(alice, research):
    with pytest.raises(ValidationError, match="neither an address nor a network"):
        create_key("laptop", research, alice, networks=["home"])
