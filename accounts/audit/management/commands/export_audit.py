"""`manage.py export_audit`: the audit trail as JSON lines, or as syslog to a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime

from accounts.audit import record, selectors, syslog


class Command(BaseCommand):
    help = (
        "Writes the audit trail, oldest event first: as JSON lines or syslog (RFC 5424) to the standard output, or to "
        "a syslog server. The last line on the error output is the number to continue after."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=_moment, metavar="TIME", help="Events from then on, such as 2026-03-01.")
        parser.add_argument("--until", type=_moment, metavar="TIME", help="Events before then.")
        parser.add_argument("--after", type=int, default=0, metavar="NUMBER", help="Events after this one.")
        parser.add_argument("--format", choices=("jsonl", "syslog"), default="jsonl", help="On the standard output.")
        parser.add_argument("--to", metavar="ADDRESS", help="udp://host:514, tcp://host:601 or tls://host:6514.")

    def handle(self, *args: Any, **options: Any) -> None:
        found = selectors.events(options["since"], options["until"], options["after"])
        newest = found.order_by("-number").values_list("number", flat=True).first()
        if newest is None:
            self.stderr.write(str(options["after"]))
            return
        events = selectors.oldest_first(found.filter(number__lte=newest))
        if options["to"]:
            try:
                with syslog.sender(options["to"]) as send:
                    for event in events:
                        send(syslog.as_syslog(event))
            except (syslog.BadAddress, syslog.NotSent) as error:
                raise CommandError(str(error)) from None
        else:
            for line in syslog.lines(events, options["format"]):
                self.stdout.write(line.decode(), ending="")
        record("audit.exported", details={"after": options["after"], "up_to": newest})
        self.stderr.write(str(newest))


def _moment(text: str) -> datetime:
    """Raises ValueError."""
    day = parse_date(text)
    moment = parse_datetime(text) if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)
    if moment is None:
        raise ValueError(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
