"""Makes one API key for a person or, with --service, for a team."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from accounts.models import Team, User
from accounts.services import create_key, personal_team


class Command(BaseCommand):
    help = "Makes one API key and prints it. It is shown this once only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="what the key is for, such as the app that uses it")
        owner = parser.add_mutually_exclusive_group(required=True)
        owner.add_argument("--user", metavar="USERNAME", help="whose key it is")
        owner.add_argument("--service", action="store_true", help="the key belongs to the team itself")
        parser.add_argument("--team", metavar="TEAM", help="whose limits and models apply; else the personal team")
        parser.add_argument("--quiet", action="store_true", help="print the key and nothing else")

    def handle(self, *, name: str, user: str | None, team: str | None, quiet: bool, **_options: Any) -> None:
        if user is None and team is None:
            raise CommandError("A service key belongs to a team: name it with --team.")
        owner = _find(User, "username", user)
        owning = _find(Team, "name", team)
        try:
            with transaction.atomic():  # with the personal team, if that is missing
                key, secret = create_key(name, owning or personal_team(owner), owner)
        except ValidationError as error:
            raise CommandError("\n".join(error.messages)) from None
        if not quiet:
            self.stdout.write(f"Made the key {key} of {owner or 'the team itself'} in the team {key.team}.")
            self.stdout.write("Keep it now: it cannot be shown again.")
        self.stdout.write(secret)


def _find(model: Any, field: str, value: str | None) -> Any:
    """None for None. Raises CommandError."""
    if value is None:
        return None
    row = model.objects.filter(**{field: value}).first()
    if row is None:
        raise CommandError(f"There is no {model._meta.verbose_name} named {value!r}.")
    return row
