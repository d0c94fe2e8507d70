from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts import keys
from accounts.models import ApiKey, Team
from accounts.services import personal_team

pytestmark = pytest.mark.django_db


def create_key(*arguments: str) -> str:
    out = StringIO()
    call_command("create_key", *arguments, stdout=out)
    return out.getvalue()


def test_quiet_prints_the_key_and_nothing_else(alice):
    secret = create_key("laptop", "--user", "alice", "--quiet").removesuffix("\n")
    assert keys.public_id(secret) == ApiKey.objects.get().public_id


def test_otherwise_it_says_what_was_made_and_that_it_is_shown_once(alice, research):
    lines = create_key("laptop", "--user", "alice", "--team", "research").splitlines()
    row = ApiKey.objects.get()
    assert lines[0] == f"Made the key laptop ({row.public_id}) of alice in the team research."
    assert "cannot be shown again" in lines[1]
    assert keys.public_id(lines[2]) == row.public_id
    assert (row.user, row.team) == (alice, research)


def test_without_a_team_the_key_is_in_the_personal_one(alice):
    create_key("laptop", "--user", "alice")
    assert ApiKey.objects.get().team == personal_team(alice)


def test_service_key_belongs_to_the_team(research):
    assert "of the team itself in the team research" in create_key("nightly", "--service", "--team", "research")
    assert ApiKey.objects.get().user is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["laptop", "--user", "dora"], "There is no user named 'dora'."),
        (["laptop", "--user", "alice", "--team", "x"], "There is no team named 'x'."),
        (["laptop", "--user", "charlie", "--team", "research"], "charlie is not in the team research."),
        (["laptop", "--service"], "name it with --team"),
        (["laptop"], "one of the arguments --user --service is required"),
        (["laptop", "--user", "alice", "--service"], "not allowed with"),
        (["a\nb", "--user", "alice"], "Control characters"),
    ],
)
def test_mistake_is_named_and_nothing_is_made(alice, charlie, arguments, message):
    with pytest.raises(CommandError, match=message.replace("(", r"\(")):
        create_key(*arguments)
    assert not ApiKey.objects.exists()
    assert not Team.objects.filter(personal_of__isnull=False).exists()
