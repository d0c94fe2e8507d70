"""The currency that amounts are shown in."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from usage import currency
from usage.currency import USD, Currency
from usage.display import money, usd
from usage.models import MoneySettings

pytestmark = pytest.mark.django_db

FRANC = Currency("CHF", Decimal("0.9"))


def choose(code: str, units_per_usd: str) -> None:
    MoneySettings.objects.update_or_create(defaults={"currency": code, "units_per_usd": Decimal(units_per_usd)})


def test_dollars_unless_set_otherwise() -> None:
    assert currency.current() == USD


def test_change_counts_at_once_where_it_was_made() -> None:
    currency.current()
    choose("EUR", "0.86")
    assert currency.current() == Currency("EUR", Decimal("0.86"))


def test_change_made_elsewhere_counts_with_the_next_request(client: Client) -> None:
    currency.current()
    MoneySettings.objects.bulk_create([MoneySettings(currency="EUR", units_per_usd=2)])  # sends no signal
    client.get("/")
    assert currency.current().code == "EUR"


def test_change_made_elsewhere_counts_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("usage.currency.time.monotonic", lambda: now)
    currency.current()
    MoneySettings.objects.bulk_create([MoneySettings(currency="EUR", units_per_usd=2)])
    assert currency.current() == USD
    now += 1.1
    assert currency.current().code == "EUR"


def test_page_asks_once(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        for _ in range(50):
            money(1_000)


@pytest.mark.parametrize(
    ("nano", "shown_in", "words"),
    [
        (12_346_000_000, Currency("EUR", Decimal("0.5")), "€6.17"),
        (412_345, Currency("GBP", Decimal(1)), "£0.000412"),
        (1_000_000_000_000, FRANC, "CHF\u00a0900.00"),
        (1_500_000_000, Currency("JPY", Decimal(150)), "¥225"),
        (-2_000_000_000, FRANC, "-CHF\u00a01.80"),
        (0, USD, "$0.00"),
    ],
    ids=["half a euro", "small", "no sign of its own", "no cents", "negative", "nothing"],
)
def test_amount_is_shown_in_it(nano: int, shown_in: Currency, words: str) -> None:
    assert money(nano, shown_in) == words


def test_amount_is_exact() -> None:
    thirds = Currency("XTS", Decimal("0.333333"))
    parts = [thirds.amount(nano) for nano in (1, 2, 333_333_333_333_333_333)]
    assert sum(parts) == thirds.amount(333_333_333_333_333_336)


def test_prices_and_books_stay_in_dollars() -> None:
    choose("EUR", "0.5")
    assert (usd(2_000_000_000), money(2_000_000_000)) == ("$2.00", "€1.00")
