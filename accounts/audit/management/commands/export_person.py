"""`manage.py export_person USERNAME`: everything that is kept on a person, as JSON."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.audit.people import export_person
from accounts.models import User


class Command(BaseCommand):
    help = "Prints everything that the database keeps on a person, as JSON: for a request of access (GDPR, article 15)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, username: str, **options: Any) -> None:
        self.stdout.write(json.dumps(export_person(find(username)), indent=2, ensure_ascii=False))


def find(username: str) -> User:
    """Raises CommandError."""
    user = User.objects.filter(username=username).first()
    if user is None:
        raise CommandError(f"There is no user {username}.")
    return user
