"""How figures are written for people to read."""

from __future__ import annotations

from decimal import Decimal

from usage import currency
from usage.currency import USD, Currency
from usage.pricing import to_usd

SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
NO_BREAK = "\u00a0"
WITHOUT_CENTS = {"CLP", "ISK", "JPY", "KRW", "VND"}


def money(nano_usd: int, shown_in: Currency | None = None) -> str:
    """An amount in the currency that the admin has set (or in `shown_in`): €12.34, CHF 12.34, and of a small one the
    digits that say something: €0.000412."""
    shown_in = shown_in or currency.current()
    return _written(shown_in.amount(nano_usd), shown_in.code)


def usd(nano: int) -> str:
    """The same in US dollars, whatever the admin has set: for prices and for precise books."""
    return _written(to_usd(nano), USD.code)


def _written(amount: Decimal, code: str) -> str:
    sign = "-" if amount < 0 else ""
    symbol = SYMBOLS.get(code, f"{code}\u00a0")
    return f"{sign}{symbol}{_digits(abs(amount), 0 if code in WITHOUT_CENTS else 2)}"


def _digits(amount: Decimal, places: int) -> str:
    if not amount or amount >= 1:
        return f"{amount:,.{places}f}"
    places = min(9, 2 - amount.adjusted())
    return f"{amount:.{places}f}".rstrip("0").ljust(4, "0")


def price(nano_per_mtok: int) -> str:
    """A price per million tokens: $0.15, $0.0375; at least two places, and no digit lost."""
    amount = to_usd(nano_per_mtok).normalize()
    places = max(2, -int(amount.as_tuple().exponent))
    return f"${amount:,.{places}f}"


def duration(us: int | None) -> str:
    if us is None:
        return "-"
    return f"{us / 1000:,.0f} ms" if us < 1_000_000 else f"{us / 1_000_000:,.1f} s"


def nearly_all_within(us: int | None) -> str:
    """Of a 95th percentile. No line ends between a number and its unit."""
    return f"95{NO_BREAK}% within {duration(us).replace(' ', NO_BREAK)}"


def compact(count: int) -> str:
    """A count, short: 999, 12.3k, 4.5M."""
    for limit, suffix in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if count >= limit:
            return f"{count / (1000 if suffix == 'k' else limit):,.1f}{suffix}"
    return f"{count:,}"


def share(part: int, whole: int) -> str:
    """A percentage; small ones are not rounded to nothing."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 else f"{max(percent, 0.1):.1f} %"
