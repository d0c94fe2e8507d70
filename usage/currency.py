"""The currency that amounts are shown in. The books are in US dollars; this is for people's eyes and for reports."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from django.core.signals import request_started
from django.db.models.signals import post_delete, post_save

from usage.models import MoneySettings
from usage.pricing import to_usd

KEPT_S = 1.0
# The digits of the largest amount in nano-USD (19) and of the largest rate (14), and some to spare.
EXACT = Context(prec=40)


@dataclass(frozen=True, slots=True)
class Currency:
    """`code`: ISO 4217, such as EUR. `units_per_usd`: what one US dollar is in it."""

    code: str
    units_per_usd: Decimal

    @property
    def is_usd(self) -> bool:
        return self.code == "USD"

    def amount(self, nano_usd: int) -> Decimal:
        """Exact: nothing is rounded, so that the amounts of some parts add up to that of the whole."""
        return EXACT.multiply(to_usd(nano_usd), self.units_per_usd)


USD = Currency("USD", Decimal(1))

_kept = threading.local()


def current() -> Currency:
    """As the admin has set it. One query a request: it is remembered until the thread's next one, or for a second."""
    found: tuple[float, Currency] | None = getattr(_kept, "found", None)
    if found is None or time.monotonic() - found[0] > KEPT_S:
        found = _kept.found = (time.monotonic(), _read())
    return found[1]


def forget(**kwargs: Any) -> None:
    """Signal receiver: what this thread remembers may be out of date."""
    _kept.found = None


def _read() -> Currency:
    row = MoneySettings.objects.values_list("currency", "units_per_usd").order_by("pk").first()
    return USD if row is None or row[0] == USD.code else Currency(*row)


request_started.connect(forget, dispatch_uid="usage.currency")
for _signal in (post_save, post_delete):
    _signal.connect(forget, sender=MoneySettings, dispatch_uid="usage.currency")
