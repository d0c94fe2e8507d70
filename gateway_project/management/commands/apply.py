"""`manage.py apply FILE.yaml`: the database as the file says. See docs/configuration.md for the file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from gateway_project import declarations
from gateway_project.apply import NotApplied, apply


class Command(BaseCommand):
    help = "Brings the database to what a YAML file says, from providers to policies, and prints what changed."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", help="The YAML file; - reads standard input.")
        parser.add_argument("--dry-run", action="store_true", help="Only print what would change.")

    def handle(self, *args: Any, file: str, dry_run: bool, **options: Any) -> None:
        try:
            changes = apply(_read(file), dry_run=dry_run)
        except NotApplied as error:
            lines = [f"{file}:{m.line}: {m.field + ': ' if m.field else ''}{m.message}" for m in error.mistakes]
            raise CommandError("\n".join([*lines, "nothing was applied"])) from None
        for change in changes:
            self.stdout.write(str(change))
            for note in change.notes:
                self.stdout.write(f"  {note}")
        if not changes:
            self.stdout.write("nothing changed")
        elif dry_run:
            self.stdout.write("dry run: nothing was applied")
        if any(change.secret for change in changes):
            self.stderr.write("Keep the new keys now: they are not shown again.")


def _read(name: str) -> bytes:
    """At most a byte more than is allowed, so that a file too large is noticed without being read whole."""
    try:
        if name == "-":
            return sys.stdin.buffer.read(declarations.MAX_BYTES + 1)
        with Path(name).open("rb") as file:
            return file.read(declarations.MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror or error}") from None
