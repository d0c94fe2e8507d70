"""Imports the keys of a replaced system, so that its callers need no new key on the day of the change.

The file is CSV in UTF-8 with a header line:

    key or sha256   the whole old key, or the SHA-256 of it in hex (one of the two in each line)
    name            what the key is for
    user, team      the owner's username, the team's name, or both; without a team the personal one,
                    without a user a service key of the team
    expires         the end date, such as 2027-01-31 (from then on it is refused) or 2027-01-31T18:00+01:00
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts import keys
from accounts.models import Team, User
from accounts.services import import_key, personal_team

COLUMNS = ("key", "sha256", "name", "user", "team", "expires")
# What the services call a field -> the column it came from.
COLUMN_OF = {"expires_at": "expires", "sha256": "sha256", "name": "name", "user": "user", "team": "team"}
MAX_SHOWN = 50


class BadField(Exception):
    """`column` is wrong. The message never repeats a key."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


@dataclass(frozen=True, slots=True)
class Row:
    line: int  # as an editor counts; the last one of a field with line breaks
    cells: dict[str, str]


class Command(BaseCommand):
    help = "Imports keys of a replaced system (digests only) from a CSV file: all of them, or none if any is wrong."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE.csv", type=Path, help=f"columns: {', '.join(COLUMNS)}")
        parser.add_argument("--dry-run", action="store_true", help="check the file and import nothing")

    def handle(self, *, file: Path, dry_run: bool, **_options: Any) -> None:
        rows = _read(file)
        mistakes: list[str] = []
        with transaction.atomic():
            for row in rows:
                try:
                    _import(row.cells)
                except BadField as error:
                    mistakes.append(f"line {row.line}, {error.column}: {error}")
            transaction.set_rollback(bool(mistakes) or dry_run)
        if mistakes:
            shown = mistakes[:MAX_SHOWN] + [f"and {len(mistakes) - MAX_SHOWN} more"] * (len(mistakes) > MAX_SHOWN)
            raise CommandError("\n".join([f"{file.name}: nothing was imported.", *shown]))
        self.stdout.write(f"{len(rows)} keys {'could be' if dry_run else 'were'} imported.")


def _read(file: Path) -> list[Row]:
    """Raises CommandError."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            return list(_rows(reader, _header(next(reader, []))))
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file.name}: is not UTF-8.") from None
    except csv.Error as error:
        raise CommandError(f"{file.name}: line {reader.line_num}: is not CSV ({error}).") from None


def _header(cells: list[str]) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or len(set(header)) != len(header):
        # What stands there is not repeated: without a header line it is a key.
        raise CommandError(f"line 1: must name the columns, each once, out of: {', '.join(COLUMNS)}.")
    if "name" not in header or "expires" not in header or not {"key", "sha256"} & {*header}:
        raise CommandError("line 1: the columns name, expires, and key or sha256 must be there.")
    return header


def _rows(reader: Any, header: list[str]) -> Iterator[Row]:
    for cells in reader:
        if len(cells) not in (0, len(header)):
            raise CommandError(f"line {reader.line_num}: has {len(cells)} fields, the header line {len(header)}.")
        if any("\0" in cell for cell in cells):
            raise CommandError(f"line {reader.line_num}: has a NUL byte.")
        if cells:
            yield Row(reader.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)})


def _import(cells: dict[str, str]) -> None:
    """Raises BadField."""
    sha256 = _sha256(cells.get("key", ""), cells.get("sha256", ""))
    user = _find(User, "username", "user", cells.get("user", ""))
    team = _find(Team, "name", "team", cells.get("team", ""))
    expires_at = _moment(cells["expires"])
    if user is None and team is None:
        raise BadField("user", "is missing, and so is team: one of them is needed.")
    try:
        import_key(sha256, cells["name"], team or personal_team(user), user, expires_at=expires_at)
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise BadField(COLUMN_OF.get(field, "name"), " ".join(messages)) from None


def _sha256(key: str, sha256: str) -> str:
    if bool(key) == bool(sha256):
        raise BadField("key", "give either the key or its sha256.")
    if sha256:
        return sha256
    try:
        keys.public_id(key)
    except keys.MalformedKey:
        pass
    else:
        raise BadField("key", "is a key of Gatehouse: give it as `secret` in a file for `manage.py apply`.")
    try:
        return keys.old_key_sha256(key)
    except keys.MalformedKey as error:
        raise BadField("key", f"is {error}.") from None


def _find(model: Any, field: str, column: str, value: str) -> Any:
    if not value:
        return None
    row = model.objects.filter(**{field: value}).first()
    if row is None:
        raise BadField(column, f"there is no {model._meta.verbose_name} named {value!r}.")
    return row


def _moment(text: str) -> datetime:
    """A date is its first moment in the installation's time zone."""
    try:
        moment = parse_datetime(text)
    except ValueError:
        moment = None
    if moment is None:
        raise BadField("expires", "must be a date such as 2027-01-31, or a date and time.")
    return timezone.make_aware(moment) if timezone.is_naive(moment) else moment
