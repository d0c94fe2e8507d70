"""`manage.py erase_person USERNAME`: removes what tells who a person is from the database."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.audit.management.commands.export_person import find
from accounts.audit.people import erase_person


class Command(BaseCommand):
    help = (
        "Erases a person: their name, address, sign-ins, logged texts and keys. What they spent stays, under no name. "
        "Cannot be undone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")

    def handle(self, *args: Any, username: str, yes: bool, **options: Any) -> None:
        user = find(username)
        if not yes and input(f"Erase {username} for good? Type the user name: ") != username:
            raise CommandError("Nothing was erased.")
        counts = erase_person(user)
        for table, count in sorted(counts.items()):
            self.stdout.write(f"{table}: {count}")
        self.stdout.write(f"Erased. The person is now erased-{user.pk}.")
