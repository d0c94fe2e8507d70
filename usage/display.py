"""How figures are written for people to read."""

from __future__ import annotations

from usage.pricing import to_usd


def usd(nano: int) -> str:
    """An amount: $12.34, and of a small one the digits that say something: $0.000412."""
    amount = to_usd(nano)
    if not amount or abs(amount) >= 1:
        return f"${amount:,.2f}"
    places = min(9, 2 - amount.adjusted())
    return f"${amount:.{places}f}".rstrip("0").ljust(5, "0")


def price(nano_per_mtok: int) -> str:
    """A price per million tokens: $0.15, $0.0375; at least two places, and no digit lost."""
    amount = to_usd(nano_per_mtok).normalize()
    places = max(2, -int(amount.as_tuple().exponent))
    return f"${amount:,.{places}f}"


def duration(us: int | None) -> str:
    if us is None:
        return "-"
    return f"{us / 1000:,.0f} ms" if us < 1_000_000 else f"{us / 1_000_000:,.1f} s"


def share(part: int, whole: int) -> str:
    """A percentage; small ones are not rounded to nothing."""
    if not part or not whole:
        return "0 %"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 else f"{max(percent, 0.1):.1f} %"
