"""`manage.py seed_demo`: a month of plausible traffic, to see what the admin shows. See gateway_project/demo.py."""

from __future__ import annotations

import argparse
import random
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from gateway_project import demo
from usage.models import UsageEvent
from usage.pricing import to_usd


class Command(BaseCommand):
    help = (
        "Fill an empty installation with an invented company: teams, people, keys, providers, models, policies and a "
        "month of calls. Its keys cannot be used, its providers are switched off. Refuses where there has been traffic."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--days", type=_positive, default=30, help="How far back the calls go. Default: 30.")
        parser.add_argument("--calls", type=_positive, default=20_000, help="How many. Default: 20000.")
        parser.add_argument("--seed", type=int, default=1, help="The same number gives the same traffic. Default: 1.")
        parser.add_argument("--force", action="store_true", help="Mix it with the traffic that is there.")

    def handle(self, *args: Any, days: int, calls: int, seed: int, force: bool, **options: Any) -> None:
        if not force and UsageEvent.objects.exists():
            raise CommandError(
                "There is traffic already; invented calls would spoil its figures. Use an empty DATA_DIR, or --force."
            )
        made = demo.seed(random.Random(seed), timezone.now(), days, calls)  # noqa: S311 - a demo
        self.stdout.write(
            f"Made {made.teams} teams, {made.users} people, {made.keys} keys, {made.providers} providers and "
            f"{made.models} models (switched off), {made.policies} policies, and {made.calls} calls of the last {days} "
            f"days for ${to_usd(made.cost_nano_usd):,.2f}."
        )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
