"""What tests that commit leave behind is gone for the next one."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection

from accounts.models import Team, User
from gateway_project.tests.database_state import DatabaseState
from policies.models import Wordlist

pytestmark = pytest.mark.django_db


@pytest.fixture
def state(db: None) -> DatabaseState:
    return DatabaseState()


def all_rows() -> dict[str, list[tuple[Any, ...]]]:
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    with connection.cursor() as cursor:
        return {table: cursor.execute(f'SELECT * FROM "{table}" ORDER BY 1').fetchall() for table in tables}


def test_what_was_written_is_gone(state: DatabaseState) -> None:
    before = all_rows()
    User.objects.create_user("alice").user_permissions.add(Permission.objects.earliest("id"))
    Team.objects.create(name="research")
    assert all_rows() != before
    state.restore()
    assert all_rows() == before


def test_what_was_changed_is_as_it_was(state: DatabaseState) -> None:
    before = all_rows()
    Wordlist.objects.update(description="changed")
    Permission.objects.create(name="new", codename="new", content_type_id=1)
    state.restore()
    assert all_rows() == before


def test_what_was_deleted_is_there_again(state: DatabaseState) -> None:
    before = all_rows()
    assert before[Wordlist._meta.db_table]
    Wordlist.objects.all().delete()
    Permission.objects.earliest("id").delete()
    state.restore()
    assert all_rows() == before
