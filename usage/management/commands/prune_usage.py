from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from usage import retention
from usage.retention import Limits, Pruned


class Command(BaseCommand):
    help = (
        "Delete usage events and sums by hour that are older than 'money & limits' in the admin says. Celery does this "
        "every hour, for a minute at most; run it by hand to clear a long backlog. Sums stay right to the cent: by "
        "hour until they are too old themselves, by day for ever."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be deleted.")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        to = retention.limits()
        if not to.events_before and not to.hours_before:
            self.stdout.write("Everything is kept: under 'money & limits' in the admin no number of days is set.")
            return
        pruned = retention.would_prune() if dry_run else retention.prune()
        for line in report(pruned, to, "Would delete" if dry_run else "Deleted"):
            self.stdout.write(line)


def report(pruned: Pruned, to: Limits, verb: str) -> list[str]:
    lines = []
    if to.events_before:
        what = f"{_number(pruned.events, 'usage event')} and {_number(pruned.adjustments, 'adjustment')}"
        lines.append(f"{verb} {what} from before {to.events_before:%Y-%m-%d %H:%M} UTC.")
    if to.hours_before:
        lines.append(f"{verb} {_number(pruned.hours, 'sum')} by hour from before {to.hours_before:%Y-%m-%d} UTC.")
    if pruned.not_rolled_up:
        left = _number(pruned.not_rolled_up, "hour or day", "hours and days")
        lines.append(
            f"Left alone: {left} not rolled up yet. `manage.py roll_up` does that; after a restore, with --from."
        )
    return lines


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
