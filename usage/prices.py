"""Sets prices: dated rows, in US dollars as providers publish them. What reads them is usage.price_list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypedDict, Unpack, cast

from django.db import transaction
from django.utils import timezone

from accounts.models import Team
from accounts.time_ids import first_id
from usage.models import ModelPrice, UsageEvent
from usage.price_list import TIER_RATES, price_of
from usage.pricing import UNITS, per_mtok, to_nano, to_usd


class Tier(TypedDict, total=False):
    """What a call costs whose prompt is at least so long. US dollars per million tokens; None or absent: as input, or
    as output. `from_prompt_tokens`, input and output are needed."""

    from_prompt_tokens: int
    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cached_usd_per_mtok: Decimal | None
    cache_write_usd_per_mtok: Decimal | None
    cache_write_1h_usd_per_mtok: Decimal | None
    reasoning_usd_per_mtok: Decimal | None
    audio_input_usd_per_mtok: Decimal | None
    audio_output_usd_per_mtok: Decimal | None
    image_input_usd_per_mtok: Decimal | None
    image_output_usd_per_mtok: Decimal | None


class UsdPrice(TypedDict, total=False):
    """US dollars: per million tokens, a call, a picture, and a call of a tool by its name. What is not given stays as
    it was; None: such tokens cost what plain ones do."""

    input_usd_per_mtok: Decimal
    output_usd_per_mtok: Decimal
    cached_usd_per_mtok: Decimal | None
    cache_write_usd_per_mtok: Decimal | None
    cache_write_1h_usd_per_mtok: Decimal | None
    reasoning_usd_per_mtok: Decimal | None
    audio_input_usd_per_mtok: Decimal | None
    audio_output_usd_per_mtok: Decimal | None
    image_input_usd_per_mtok: Decimal | None
    image_output_usd_per_mtok: Decimal | None
    request_usd: Decimal
    image_usd: Decimal | None
    tools_usd: Mapping[str, Decimal]
    batch_percent: int
    tiers: Iterable[Tier]


# The columns of a price: what a row has beside its model, its team and its beginning.
COLUMNS = (
    *(f"{name}_nano_usd_per_mtok" for name in TIER_RATES),
    "request_nano_usd", "image_nano_usd", "tools_nano_usd", "batch_percent", "tiers",
)  # fmt: skip
TOOL_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9_]{1,64}")
TIER: Final = "from_prompt_tokens"
# A price that begins earlier than so long ago was meant to begin in the past: forms are filled in for a while.
LATE = timedelta(minutes=10)


def set_price(
    model: str, *, team: Team | None = None, valid_from: datetime | None = None, **usd: Unpack[UsdPrice]
) -> bool:
    """Let `model` (its public name) cost this from `valid_from` (default: now) on; for `team` only, if one is given.
    False if it already does. Prices of earlier calls stay what they were (usage.rerating changes them).

    Raises ValueError when there is nothing before that a missing input or output price could stay as.
    """
    valid_from = valid_from or timezone.now()
    with transaction.atomic():
        before = price_in_force(model, team, valid_from)
        row = ModelPrice(model=model, team=team, valid_from=valid_from)
        for column in COLUMNS:
            if before is not None:
                setattr(row, column, getattr(before, column))
        for column, value in columns_of(usd).items():
            setattr(row, column, value)
        if row.input_nano_usd_per_mtok is None or row.output_nano_usd_per_mtok is None:
            raise ValueError("A price needs both, input and output.")
        if before is not None and price_of(before) == price_of(row):
            return False
        row.save()
    return True


def carry_prices(model: str, renamed: str) -> None:
    """Let `renamed`, as `model` is called from now on, cost what `model` does and would: everyone's price and those of
    teams, the one in force and those to come. What the old name has stays, for the calls of its time."""
    now = timezone.now()
    rows = ModelPrice.objects.filter(model=model).order_by("valid_from", "id").select_related("team")
    begun = {row.team_id: row for row in rows if row.valid_from <= now}
    to_come = [row for row in rows if row.valid_from > now]
    with transaction.atomic():
        for row in (*begun.values(), *to_come):
            set_price(renamed, team=row.team, valid_from=max(row.valid_from, now), **usd_of(row))


def price_in_force(model: str, team: Team | None, at: datetime) -> ModelPrice | None:
    """The row that counts at that time for this team, or for everyone (None). Not what ships with the gateway."""
    return ModelPrice.objects.filter(model=model, team=team, valid_from__lte=at).order_by("valid_from", "id").last()


def back_dated(model: str, team: Team | None, valid_from: datetime, before: ModelPrice | None) -> str:
    """What a price that begins in the past means for what was called since then, in words; "" when nothing does.
    `before`: the row that counted at its beginning until now."""
    now = timezone.now()
    if now - valid_from < LATE:
        return ""
    called = UsageEvent.objects.filter(model=model, pk__gte=first_id(valid_from)).exists()
    if before is None and not called:
        return ""
    rows = ModelPrice.objects.filter(model=model, team=team, valid_from__gt=valid_from, valid_from__lte=now)
    after = rows.order_by("valid_from", "id").first()
    whose = f"{model} for team {team}" if team else model
    replaces = f"replaces that of {_day(before.valid_from)}" if before else "counts"
    until = f" until that of {_day(after.valid_from)}" if after else ""
    said = f"The price of {whose} {replaces} from {_day(valid_from)} on{until}."
    if not called:
        return said
    again = f"manage.py rerate --from {valid_from.astimezone(UTC):%Y-%m-%dT%H:%M} --model {model} --reason TEXT"
    return f"{said} Calls since then keep what they cost until they are priced again: {again}"


def _day(moment: datetime) -> str:
    at = moment.astimezone(UTC)
    return f"{at:%-d %b %Y}" if at.hour == at.minute == 0 else f"{at:%-d %b %Y, %H:%M} UTC"


def columns_of(usd: UsdPrice) -> dict[str, Any]:
    """The columns for what is given."""
    columns: dict[str, Any] = {}
    for name, value in usd.items():
        if name == "tools_usd":
            columns["tools_nano_usd"] = {tool: to_nano(price) for tool, price in usd["tools_usd"].items()}
        elif name == "tiers":
            columns["tiers"] = sorted((_stored_tier(tier) for tier in usd["tiers"]), key=lambda tier: int(tier[TIER]))
        elif name == "batch_percent":
            columns[name] = value
        else:
            assert isinstance(value, Decimal | None)
            columns[name.replace("_usd", "_nano_usd")] = None if value is None else to_nano(value)
    return columns


def usd_of(row: ModelPrice) -> UsdPrice:
    """The way back: everything that a row says."""
    usd: dict[str, Any] = {"batch_percent": row.batch_percent}
    for column in COLUMNS:
        if column.endswith(("_nano_usd", "_nano_usd_per_mtok")) and column != "tools_nano_usd":
            nano = getattr(row, column)
            usd[column.replace("_nano_usd", "_usd")] = None if nano is None else to_usd(nano)
    usd["tools_usd"] = {tool: to_usd(nano) for tool, nano in row.tools_nano_usd.items()}
    usd["tiers"] = [
        {TIER: tier[TIER], **{f"{name}_usd_per_mtok": to_usd(nano) for name, nano in tier.items() if name != TIER}}
        for tier in row.tiers
    ]
    return cast("UsdPrice", usd)


def check_tool_name(name: str) -> str:
    """The mistake in the name of a tool, or "". A usage keeps other things under names of their own beside them."""
    if name in UNITS:
        return f"{name} is no tool: the gateway keeps count of something else under this name"
    return "" if TOOL_NAME.fullmatch(name) else "a tool's name is letters, digits and _, at most 64 of them"


def check_tiers(tiers: Iterable[Tier]) -> str:
    """The mistake in the tiers of a price, or ""."""
    starts = [tier[TIER] for tier in tiers]
    if any(start < 1 for start in starts):
        return "a tier begins at one token at least: what is below it is the price itself"
    return "" if len(set(starts)) == len(starts) else "two tiers begin at the same length"


def _stored_tier(tier: Tier) -> dict[str, int]:
    rates = {name.removesuffix("_usd_per_mtok"): usd for name, usd in tier.items() if name != TIER}
    return {TIER: tier[TIER], **{name: per_mtok(usd) for name, usd in rates.items() if isinstance(usd, Decimal)}}
