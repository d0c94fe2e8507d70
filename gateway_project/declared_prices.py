"""Prices of models, and of teams for models, as a configuration file declares them.

A price is dated: one that is not yet as the file says counts from `prices_from`, or from now on. What the file does not
name of a price stays as it was.
"""

from __future__ import annotations

from typing import Any, cast

from django.utils import timezone

from accounts.models import Team
from gateway_project.declarations import PRICE, TIER, TOKEN_PRICES, Declared, Document, Value
from gateway_project.declared_rows import Change, Rows
from usage.models import ModelPrice
from usage.prices import Tier, UsdPrice, back_dated, check_tiers, check_tool_name, columns_of, price_in_force, set_price

BEGINS = "prices_from"
NEEDED = ("input_usd_per_mtok", "output_usd_per_mtok")


class DeclaredPrices(Rows):
    def __init__(self, document: Document, changes: list[Change]) -> None:
        super().__init__(document, changes)
        self._notes: list[str] = []

    def take_notes(self) -> list[str]:
        """What is to be said of the prices that were set since the last time."""
        notes, self._notes = self._notes, []
        return notes

    def set_price(self, model: str, declared: Declared, team: Team | None = None) -> list[str]:
        """Writes a dated price if the file names another one than counts then. Returns the fields that differ."""
        given = {name: declared.fields[name] for name in PRICE if name in declared and name != BEGINS}
        if not given:
            if BEGINS in declared:
                self.document.wrong(declared.fields[BEGINS], "says from when on, but no price is given")
            return []
        valid_from = declared.get(BEGINS) or timezone.now()
        before = price_in_force(model, team, valid_from)
        usd = {_name(name): self._value(name, value) for name, value in given.items()}
        missing = [name for name in NEEDED if before is None and name not in given]
        if missing:
            self.document.wrong(declared, "is missing: a price needs both, input and output", under=missing[0])
        if missing or not all(self._is_sound(value) for value in given.values()):
            return []
        is_new = set_price(model, team=team, valid_from=valid_from, **cast("UsdPrice", usd))
        if is_new and (note := back_dated(model, team, valid_from, before)):
            self._notes.append(note)
        return [name for name in given if _differs(before, cast("UsdPrice", {_name(name): usd[_name(name)]}))]

    def of_team(self, team: Team, value: Value) -> bool:
        """Replaces the team's own prices: a model that is not listed costs it what it costs everyone. True if anything
        changed. The models are known to be there."""
        changed = False
        seen: set[str] = set()
        for item in value.value:
            declared: Declared = item.value
            model = declared.get("model")
            if model is None:
                continue
            if model in seen:
                self.document.wrong(declared, "is listed twice")
                continue
            seen.add(model)
            if not any(name in declared for name in PRICE):
                self.document.wrong(declared, "names no price")
            changed |= bool(self.set_price(model, declared, team))
        for row in ModelPrice.objects.filter(team=team).exclude(model__in=seen):
            changed = True
            row.delete()
        return changed

    def _value(self, name: str, value: Value) -> Any:
        if name == "tools_usd":
            for tool in value.value:
                if mistake := check_tool_name(tool):
                    self.document.wrong(value, mistake, under=tool)
        elif name == "tiers":
            tiers = [_tier(item.value) for item in value.value if all(needed in item.value for needed in TIER.required)]
            if mistake := check_tiers(tiers):
                self.document.wrong(value, mistake)
            return tiers
        return value.value


def _tier(declared: Declared) -> Tier:
    rates = {_name(name): declared.get(name) for name in TOKEN_PRICES if name in declared}
    return cast("Tier", {"from_prompt_tokens": declared.get("from_prompt_tokens"), **rates})


def _name(name: str) -> str:
    """As usage.prices calls it."""
    return name.replace("cached_input", "cached")


def _differs(before: ModelPrice | None, usd: UsdPrice) -> bool:
    return any(getattr(before, column, None) != value for column, value in columns_of(usd).items())
