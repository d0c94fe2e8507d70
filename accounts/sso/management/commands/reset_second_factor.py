from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.audit import record
from accounts.models import User


class Command(BaseCommand):
    help = "Removes the second factor of a local account whose phone is lost. The next sign-in sets up another one."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}.")
        removed, _ = Authenticator.objects.filter(user=user).delete()
        if removed:
            record("user.second_factor_removed", target=user)
        self.stdout.write(f"{user} signs in with the password alone." if removed else f"{user} has no second factor.")
