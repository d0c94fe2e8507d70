from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from accounts import keys
from accounts.models import ApiKey, Team
from accounts.services import peppers, personal_team

pytestmark = pytest.mark.django_db
HEADER = "key,sha256,name,user,team,expires"
SECRET = "old-secret-of-alice"


@pytest.fixture
def import_keys(tmp_path):
    """import_keys("line", ...): writes the lines to a file and imports it; returns what was printed."""

    def run(*lines: str, options: tuple[str, ...] = ()) -> str:
        file = tmp_path / "keys.csv"
        file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
        out = StringIO()
        call_command("import_keys", file, *options, stdout=out)
        return out.getvalue()

    return run


def test_keys_are_imported_with_owner_team_and_end_date(import_keys, alice, research):
    sha256 = keys.old_key_sha256("another")
    said = import_keys(
        HEADER,
        f"{SECRET},,laptop,alice,research,2099-01-31",
        f",{sha256.upper()},nightly,,research,2099-01-31T18:00+01:00",
        "third key,,phone,alice,,2099-01-31",
    )
    laptop, nightly, phone = ApiKey.objects.order_by("id")

    assert said == "3 keys were imported.\n"
    assert laptop.imported_digest == peppers().digest(keys.old_key_sha256(SECRET)).value
    assert (laptop.user, laptop.team, laptop.expires_at) == (alice, research, datetime(2099, 1, 31, tzinfo=UTC))
    assert nightly.imported_digest == peppers().digest(sha256).value
    assert (nightly.user, nightly.team) == (None, research)
    assert nightly.expires_at == datetime(2099, 1, 31, 17, tzinfo=UTC)
    assert phone.team == personal_team(alice)


def test_columns_may_come_in_any_order_and_with_a_byte_order_mark(import_keys, research):
    import_keys("\ufeffExpires, name ,team,key", "2099-01-31, nightly ,research,old", "")
    assert ApiKey.objects.get().name == "nightly"


def test_dry_run_checks_and_imports_nothing(import_keys, alice):
    said = import_keys(HEADER, f"{SECRET},,laptop,alice,,2099-01-31", options=("--dry-run",))
    assert said == "1 keys could be imported.\n"
    assert not ApiKey.objects.exists()
    assert not Team.objects.filter(personal_of=alice).exists()


GOOD = "good key,,good,alice,research,2099-01-31"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SECRET},,laptop,dora,,2099-01-31", "line 3, user: there is no user named 'dora'"),
        (f"{SECRET},,laptop,,nowhere,2099-01-31", "line 3, team: there is no team named 'nowhere'"),
        (f"{SECRET},,laptop,,,2099-01-31", "line 3, user: is missing"),
        (f"{SECRET},,laptop,charlie,research,2099-01-31", "line 3, user: charlie is not in the team"),
        (f"{SECRET},,,alice,research,2099-01-31", "line 3, name: This field cannot be blank"),
        (f"{SECRET},,good,alice,research,2099-01-31", "line 3, name: .*already exists"),
        (f"{SECRET},,laptop,alice,research,", "line 3, expires: must be a date"),
        (f"{SECRET},,laptop,alice,research,2099-02-31", "line 3, expires: must be a date"),
        (f"{SECRET},,laptop,alice,research,soon", "line 3, expires: must be a date"),
        (f"{SECRET},,laptop,alice,research,2020-01-31", "line 3, expires: Must be in the future"),
        (",,laptop,alice,research,2099-01-31", "line 3, key: give either"),
        (f"{SECRET},{'0' * 64},laptop,alice,research,2099-01-31", "line 3, key: give either"),
        (",abc,laptop,alice,research,2099-01-31", "line 3, sha256: Must be 64 hex"),
        ("good key,,laptop,alice,research,2099-01-31", "line 3, sha256: This key has been imported already"),
        (f"{SECRET}ü,,laptop,alice,research,2099-01-31", "line 3, key: is not 1 to 512 printable"),
        (f"{keys.make_key('a' * 12)},,laptop,alice,research,2099-01-31", "line 3, key: is a key of Gatehouse"),
        (f"{SECRET},,laptop,alice,research", "line 3: has 5 fields, the header line 6"),
        (f"{SECRET},,laptop,al\0ice,research,2099-01-31", "line 3: has a NUL byte"),
        (f'"{SECRET},,laptop', "line 3: is not CSV"),
        (f"{SECRET},,laptop\udcff,alice,research,2099-01-31", "is not UTF-8"),
    ],
)
def test_mistake_is_named_with_line_and_field_and_nothing_is_imported(import_keys, alice, charlie, line, message):
    with pytest.raises(CommandError, match=message) as caught:
        import_keys(HEADER, GOOD, line)
    assert SECRET not in str(caught.value)
    assert "sk-gh-" not in str(caught.value)
    assert not ApiKey.objects.exists()


def test_all_mistakes_are_named_at_once(import_keys, alice):
    with pytest.raises(CommandError) as caught:
        import_keys(HEADER, *(f"{SECRET} {number},,laptop,dora,,2099-01-31" for number in range(60)))
    lines = str(caught.value).splitlines()
    assert lines[0] == "keys.csv: nothing was imported."
    assert lines[1].startswith("line 2, user:")
    assert lines[-1] == "and 10 more"
    assert len(lines) == 52


@pytest.mark.parametrize(
    "header",
    ["", f"{SECRET},laptop,alice", "key,name,expires,colour", "key,key,name,expires", "key,name", "name,expires"],
)
def test_header_must_name_the_columns(import_keys, header):
    with pytest.raises(CommandError, match="line 1: ") as caught:
        import_keys(header, "x,y,z")
    assert SECRET not in str(caught.value)


def test_file_that_is_not_there_is_named():
    with pytest.raises(CommandError, match=r"nowhere\.csv: No such file"):
        call_command("import_keys", Path("nowhere.csv"))
