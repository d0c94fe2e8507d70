"""Makes one management token for a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import User
from accounts.tokens.services import USUAL_LIFE, create_token


class Command(BaseCommand):
    help = "Makes one management token for the management API and prints it. It is shown this once only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="what the token is for, such as the program that uses it")
        parser.add_argument("--user", metavar="USERNAME", required=True, help="who answers for it")
        parser.add_argument(
            "--scopes", metavar="SCOPE", nargs="+", required=True, help="such as keys:read users:write; * is everything"
        )
        parser.add_argument("--days", type=int, default=USUAL_LIFE.days, help="how long it lives (default 90)")
        parser.add_argument("--quiet", action="store_true", help="print the token and nothing else")

    def handle(self, *, name: str, user: str, scopes: list[str], days: int, quiet: bool, **_options: Any) -> None:
        owner = User.objects.filter(username=user).first()
        if owner is None:
            raise CommandError(f"There is no user named {user!r}.")
        listed = [scope for text in scopes for scope in text.split(",")]
        try:
            end = timezone.now() + timedelta(days=min(days, 10_000))
            token, secret = create_token(name, owner, listed, expires_at=end)
        except ValidationError as error:
            raise CommandError("\n".join(error.messages)) from None
        if not quiet:
            self.stdout.write(f"Made the token {token} of {owner}, for {', '.join(token.scopes)}.")
            self.stdout.write(f"It ends on {token.expires_at:%Y-%m-%d}. Keep it now: it cannot be shown again.")
        self.stdout.write(secret)
