"""The identity version rises with every change that a call could depend on, and with nothing else."""

from __future__ import annotations

import pytest
import redis
from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from django.db import transaction

from accounts import versions
from accounts.models import ApiKey, ConfigVersion, Membership, Team, User
from accounts.services import create_key, create_user

pytestmark = pytest.mark.django_db


def identity() -> int:
    return versions.current().get(versions.IDENTITY, 0)


@pytest.fixture
def key(alice, research) -> ApiKey:
    return create_key("laptop", research, alice)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.save(),
        lambda key: key.delete(),
        lambda key: key.user.save(),
        lambda key: User.objects.filter(pk=key.user_id).delete(),
        lambda key: key.team.save(),
        lambda key: Team.objects.filter(pk=key.team_id).delete(),
        lambda key: Membership.objects.filter(user=key.user).delete(),
        lambda key: key.team.members.remove(key.user),
        lambda key: create_user("dora"),
    ],
)
def test_every_change_of_a_person_team_or_key_raises_the_version(key, change):
    before = identity()
    change(key)
    assert identity() > before


def test_signing_in_does_not_raise_the_version(alice):
    before = identity()
    update_last_login(None, alice)
    assert authenticate(username="alice", password="wrong") is None
    assert identity() == before


def test_change_that_is_rolled_back_does_not_raise_the_version(research):
    before = identity()
    with transaction.atomic():
        research.save()
        transaction.set_rollback(True)
    assert identity() == before


def test_first_bump_makes_the_counter():
    ConfigVersion.objects.all().delete()
    versions.bump("catalogue")
    assert versions.current() == {"catalogue": 1}


def test_redis_is_told_after_the_commit_once_for_many_changes(
    settings, monkeypatch, research, django_capture_on_commit_callbacks
):
    settings.REDIS_URL = "redis://127.0.0.1:6379"
    told = []

    class Client:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def publish(self, channel, part):
            told.append((channel, part))

    monkeypatch.setattr(versions, "_published_at", {})
    monkeypatch.setattr(redis.Redis, "from_url", lambda *args, **kwargs: Client())
    with django_capture_on_commit_callbacks(execute=True):
        research.save()
        research.save()
        assert told == []

    assert told == [(versions.CHANNEL, "identity")]


def test_change_is_saved_when_redis_is_away(
    settings, monkeypatch, research, django_capture_on_commit_callbacks, caplog
):
    settings.REDIS_URL = "redis://127.0.0.1:1"
    monkeypatch.setattr(versions, "_published_at", {})
    with django_capture_on_commit_callbacks(execute=True):
        research.save()

    assert "could not publish" in caplog.text
