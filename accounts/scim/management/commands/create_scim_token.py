"""Makes a token with which an identity provider calls /scim/v2, or gives one a new secret."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.scim.models import ScimToken
from accounts.scim.tokens import create_token, rotate_token


class Command(BaseCommand):
    help = "Makes a SCIM token and prints it. It is shown this once only."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="which identity provider has it")
        parser.add_argument("--rotate", action="store_true", help="a new secret for the one there is; the old one ends")
        parser.add_argument("--quiet", action="store_true", help="print the token and nothing else")

    def handle(self, *, name: str, rotate: bool, quiet: bool, **_options: Any) -> None:
        if rotate:
            token = ScimToken.objects.filter(name=name).first()
            if token is None:
                raise CommandError(f"There is no SCIM token named {name!r}.")
            secret = rotate_token(token)
        else:
            try:
                token, secret = create_token(name)
            except ValidationError as error:
                raise CommandError("\n".join(error.messages)) from None
        if not quiet:
            self.stdout.write(f"The token {token}. Keep it now: it cannot be shown again.")
        self.stdout.write(secret)
