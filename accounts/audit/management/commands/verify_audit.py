"""`manage.py verify_audit`: whether the audit trail is as it was written. Exit code 1 and a sentence per finding."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.audit import anchors
from accounts.audit.verify import Report, verify


class Command(BaseCommand):
    help = "Tells whether anything in the audit trail was edited, deleted, added, reordered or cut off."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--anchors", type=Path, metavar="FILE", help="Anchors to hold it against, instead of AUDIT_ANCHOR_FILE."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path | None = options["anchors"]
        if path and not path.is_file():
            raise CommandError(f"There is no file {path}.")
        report = verify(anchors.read(path) if path else None)
        for finding in report.findings:
            self.stderr.write(finding)
        if report.findings:
            self.stderr.write("The audit trail is not as it was written.")
            sys.exit(1)
        self.stdout.write(summary(report))


def summary(report: Report) -> str:
    if not report.events:
        return "The audit trail is empty."
    words = f"The audit trail is as it was written: events {report.first} to {report.last}"
    words += f", {report.erased} erased parts" if report.erased else ""
    return f"{words}, {report.anchors} anchors." if report.anchors else f"{words}. No anchors to hold it against."
