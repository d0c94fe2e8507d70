from __future__ import annotations

import argparse
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.time_ids import within_reach
from usage.display import usd
from usage.models import UsageEvent
from usage.rerating import Rerated, rerate

MODELS_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Price the calls of a time again, with the prices that count for that time by now: after a price was entered "
        "late, was wrong, or was missing. Calls keep the cost that was written for them; what is different is written "
        "down beside them, and counts in every sum from the next roll-up on, and in budgets within seconds. May be "
        "repeated: what is right stays."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            dest="start",
            type=_first_moment,
            required=True,
            metavar="DAY",
            help="The first day, such as 2026-11-01, or a time such as 2026-11-01T08:00 (UTC).",
        )
        parser.add_argument(
            "--to",
            dest="end",
            type=_last_moment,
            metavar="DAY",
            help="The last day, included; or a time, up to which, but not including it. Default: now.",
        )
        parser.add_argument("--model", default="", metavar="NAME", help="Only calls of this model. Default: of all.")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="Why, for whoever reads the books later.")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would change.")

    def handle(
        self,
        *args: Any,
        start: datetime,
        end: datetime | None,
        model: str,
        reason: str,
        dry_run: bool,
        **options: Any,
    ) -> None:
        if model and not UsageEvent.objects.filter(model=model).exists():
            raise CommandError(f"There is no call of a model named {model!r}.")
        try:
            rerated = rerate(
                within_reach(start),
                within_reach(end or timezone.now()),
                model=model,
                reason=reason,
                dry_run=dry_run,
            )
        except ValueError as error:
            raise CommandError(str(error)) from None
        for line in _report(rerated, dry_run):
            self.stdout.write(line)


def _report(rerated: Rerated, dry_run: bool) -> list[str]:
    would = "would change" if dry_run else "changed"
    lines = [
        f"Looked at {_calls(rerated.events)}: the cost of {rerated.changed:,} {would}, "
        f"by {_signed(rerated.delta_nano_usd)} in all."
    ]
    largest = sorted(rerated.by_model.items(), key=lambda item: -abs(item[1][1]))
    lines += [f"  {model}: {_calls(calls)}, {_signed(delta)}" for model, (calls, delta) in largest[:MODELS_SHOWN]]
    if len(largest) > MODELS_SHOWN:
        lines.append(f"  and {len(largest) - MODELS_SHOWN} more models")
    if rerated.became_priced:
        lines.append(f"{_calls(rerated.became_priced)} had no cost before.")
    if rerated.provider_gone:
        lines.append(f"{_calls(rerated.provider_gone)} kept the cost they have: their provider is not there any more.")
    if rerated.price_unknown:
        lines.append(f"{_calls(rerated.price_unknown)} kept the cost they have: nobody knows a price for them.")
    return lines


def _calls(number: int) -> str:
    return f"{number:,} call{'' if number == 1 else 's'}"


def _signed(nano: int) -> str:
    return f"{'-' if nano < 0 else '+'}{usd(abs(nano))}"


def _first_moment(text: str) -> datetime:
    return _moment(text, timedelta(0))


def _last_moment(text: str) -> datetime:
    return _moment(text, timedelta(days=1))


def _moment(text: str, of_a_day: timedelta) -> datetime:
    """A day, moved by `of_a_day`; or an ISO time as it is. Without a zone it is UTC."""
    try:
        if len(text) == len("2026-11-01"):
            return datetime.combine(date.fromisoformat(text), time(), UTC) + of_a_day
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day like 2026-11-01 or a time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
