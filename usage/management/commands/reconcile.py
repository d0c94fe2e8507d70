from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from usage import provider_exports, reconcile
from usage.pricing import to_usd
from usage.provider_exports import FIRST_DAY, LAST_DAY, BadExport
from usage.reconcile import CannotReconcile, Comparison, Line

BAD_FILE = 2

HELP = """\
Compare a provider's own figures with ours, per day (UTC) and model. Prints both, marks what differs, and ends with exit
code 1 when something does (2: a file cannot be read).

Files it knows, by their header or shape:
  OpenAI     usage and cost exports (CSV) of the usage page; the JSON of /v1/organization/usage/completions (or
             embeddings) and of /v1/organization/costs, each asked with bucket_width=1d and group_by=model (costs:
             group_by=line_item)
  Anthropic  usage and cost exports (CSV) of the console; the JSON of /v1/organizations/usage_report/messages and of
             /v1/organizations/cost_report, asked with group_by[]=model (costs: group_by[]=description)
  others     CSV with the columns date, model and any of: requests, input_tokens, output_tokens, cached_tokens, cost_usd
Several files, such as usage and costs, are added up. A file that is not split by model is compared by day.
"""


class Command(BaseCommand):
    help = HELP

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # The list of files keeps its lines.
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="What the provider exports.")
        parser.add_argument("--provider", help="Name of the provider here. Default: the one that the format is of.")
        parser.add_argument("--from", dest="start", type=_date, metavar="DATE", help="Only from this day on.")
        parser.add_argument("--to", dest="end", type=_date, metavar="DATE", help="Up to, but not including, this day.")
        parser.add_argument(
            "--tolerance",
            type=_percent,
            default=Decimal(1),
            metavar="PERCENT",
            help="By how many per cent figures may differ without being marked. Default: 1.",
        )
        parser.add_argument("--differences", action="store_true", help="Print only what differs.")

    def handle(
        self,
        *args: Any,
        files: list[Path],
        provider: str | None,
        start: date | None,
        end: date | None,
        tolerance: Decimal,
        differences: bool,
        **options: Any,
    ) -> None:
        try:
            exports = [provider_exports.read(path) for path in files]
        except BadExport as error:
            raise CommandError(str(error), returncode=BAD_FILE) from error
        told = [day for export in exports for day, _ in export.by]
        days = (start or min(told), end - timedelta(days=1) if end else max(told))
        if days[1] < days[0]:
            raise CommandError("--to must be later than --from, and the files must say something of the time between.")
        try:
            provider = provider or reconcile.provider_of(exports, days)
            comparison = reconcile.compare(exports, provider, days, tolerance)
        except CannotReconcile as error:
            raise CommandError(str(error), returncode=BAD_FILE) from error
        for path, export in zip(files, exports, strict=True):
            self.stdout.write(f"{path}: {export.format}")
            for warning in export.warnings:
                self.stdout.write(f"  {warning}")
        self.stdout.write(f"Compared with the calls to {provider}, {days[0]} to {days[1]} (UTC).\n\n")
        for text in table([line for line in comparison.lines if line.differs or not differences]):
            self.stdout.write(text)
        for text in remarks(comparison):
            self.stdout.write(text)
        marked = sum(line.differs for line in comparison.lines)
        if marked:
            raise CommandError(f"{marked} of {len(comparison.lines)} figures differ by more than {tolerance:f} %.")
        self.stdout.write(f"All {len(comparison.lines)} figures agree within {tolerance:f} %.")


def table(lines: list[Line]) -> Iterator[str]:
    if not lines:
        return
    width = max(len(line.model) for line in lines)
    yield f"{'day':10}  {'model':{width}}  {'':8}  {'theirs':>18}  {'ours':>18}  {'difference':>18}"
    before: tuple[date, str] | None = None
    for line in lines:
        here = (line.day, line.model)
        day, model = (f"{line.day}", line.model) if here != before else ("", "")
        before = here
        show = _usd if line.figure == "cost" else _number
        text = f"{day:10}  {model:{width}}  {line.figure:8}  {show(line.theirs):>18}  {show(line.ours):>18}"
        if line.difference:
            text += f"  {_signed(line):>18}  {'<-' if line.differs else ''}"
        yield text.rstrip()


def remarks(comparison: Comparison) -> Iterator[str]:
    yield ""
    if comparison.not_compared:
        days = ", ".join(map(str, comparison.not_compared))
        yield f"Not compared, because usage events of these days are deleted already: {days}."
    if comparison.estimated:
        yield f"{comparison.estimated:,} of our calls are estimates: the provider had reported no tokens for them."
    if comparison.unpriced:
        yield f"{comparison.unpriced:,} of our calls have no price, so their cost is missing in ours."


def _signed(line: Line) -> str:
    sign = "+" if line.difference > 0 else "-"
    show = _usd if line.figure == "cost" else _number
    percent = Decimal(abs(line.difference)) * 100 / max(abs(line.theirs), abs(line.ours))
    return f"{sign}{show(abs(line.difference))} ({percent:.1f} %)"


def _usd(nano: int) -> str:
    """Always as exactly: what differs in the sixth place is the concern of whoever asks for no tolerance."""
    return f"{'-' if nano < 0 else ''}${to_usd(abs(nano)):,.6f}"


def _number(value: int) -> str:
    return f"{value:,}"


def _date(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-11-01") from error
    if not FIRST_DAY <= day <= LAST_DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is not between {FIRST_DAY} and {LAST_DAY}")
    return day


def _percent(text: str) -> Decimal:
    try:
        percent = Decimal(text.removesuffix("%").strip())
    except InvalidOperation:
        percent = Decimal(-1)
    if not percent.is_finite() or percent < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage like 0.5")
    return percent
