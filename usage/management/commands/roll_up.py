from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.time_ids import within_reach
from usage import rollups


class Command(BaseCommand):
    help = (
        "Bring the rollups that dashboards read up to date. Celery does this every few seconds; run it by hand after "
        "an outage of Celery, or with --from to recompute hours and days that are thought to be right already: of any "
        "time, as often as you like, also after a restore that brought back nothing but the usage events."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            dest="start",
            type=_moment,
            metavar="TIME",
            help="Recompute the hours from this time on, and their days, such as 2026-11-01T00:00 (UTC).",
        )
        parser.add_argument(
            "--to", dest="end", type=_moment, metavar="TIME", help="Up to, but not including, this time. Default: now."
        )

    def handle(self, *args: Any, start: datetime | None, end: datetime | None, **options: Any) -> None:
        if start is None:
            if end is not None:
                raise CommandError("--to needs --from.")
            hours = rollups.roll_up_all()
        else:
            end = end or timezone.now()
            if end <= start:
                raise CommandError("--to must be later than --from.")
            hours = rollups.roll_up_again(within_reach(start), within_reach(end))
        self.stdout.write(f"Rolled up {hours} hour{'' if hours == 1 else 's'}.")


def _moment(text: str) -> datetime:
    """An ISO time or date; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 2026-11-01T00:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
