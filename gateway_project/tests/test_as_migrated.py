"""What tests that commit leave behind is gone for the next one."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection

from accounts.models import Team, User
from gateway_project.tests.as_migrated import AsMigrated
from policies.models import Wordlist

pytestmark = pytest.mark.django_db


@pytest.fixture
def as_migrated(db: None) -> AsMigrated:
    return AsMigrated()


def all_rows() -> dict[str, list[tuple[Any, ...]]]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    with connection.cursor() as cursor:
        return {table: cursor.execute(f'SELECT * FROM "{table}" ORDER BY 1').fetchall() for table in tables}


def test_what_was_written_is_gone(as_migrated: AsMigrated) -> None:
    before = all_rows()
    User.objects.create_user("alice").user_permissions.add(Permission.objects.earliest("id"))
    Team.objects.create(name="research")
    assert all_rows() != before
    as_migrated.restore()
    assert all_rows() == before


def test_what_was_changed_is_as_it_was(as_migrated: AsMigrated) -> None:
    before = all_rows()
    Wordlist.objects.update(description="changed")
    Permission.objects.create(name="new", codename="new", content_type_id=1)
    as_migrated.restore()
    assert all_rows() == before


def test_what_was_deleted_is_there_again(as_migrated: AsMigrated) -> None:
    before = all_rows()
    assert before[Wordlist._meta.db_table]
    Wordlist.objects.all().delete()
    Permission.objects.earliest("id").delete()
    as_migrated.restore()
    assert all_rows() == before
