"""Forms of the admin for prices: US dollars, as providers publish them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelect2Widget,
    UnfoldAdminTextareaWidget,
)

from accounts import catalogue
from usage.models import ModelPrice
from usage.price_list import TIER_RATES
from usage.prices import TIER, UsdPrice, check_tiers, check_tool_name, columns_of, usd_of

# The prices that the page of a model has too.
PRICES = ("input", "output", "cached", "cache_write")
MOST = Decimal(1_000_000)
PLACES = 9
TOOLS_AT_ONCE = Decimal(1_000)


def price_field(label: str, help_text: str, required: bool = False, places: int = PLACES) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        required=required,
        min_value=Decimal(0),
        max_value=MOST,
        decimal_places=places,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any", "min": "0"}),
        help_text=help_text,
    )


INPUT = "US dollars per million prompt tokens."
OUTPUT = "US dollars per million completion tokens."
CACHED = "Per million prompt tokens that the provider had cached. Empty: as input."
CACHE_WRITE = "Per million prompt tokens that the provider writes to its cache. Empty: as input."


class LinesField(forms.CharField):
    """Entries, one a line; each line is `name: rest`."""

    def __init__(self, rows: int, **kwargs: Any) -> None:
        widget = UnfoldAdminTextareaWidget(attrs={"rows": rows, "spellcheck": "false"})
        super().__init__(required=False, widget=widget, **kwargs)

    def run_validators(self, value: Any) -> None:
        """`to_python` has looked at each line."""

    def lines(self, value: Any) -> list[tuple[str, str]]:
        """Raises ValidationError."""
        found = []
        for line in filter(None, map(str.strip, str(value or "").splitlines())):
            name, separator, rest = (part.strip() for part in line.partition(":"))
            if not separator or not name or not rest:
                raise ValidationError(f"{line!r} is not like the example.")
            found.append((name, rest))
        return found


class ToolsField(LinesField):
    """US dollars per thousand calls; as a dict of dollars a call."""

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return "\n".join(f"{tool}: {plain(usd * TOOLS_AT_ONCE)}" for tool, usd in value.items())

    def to_python(self, value: Any) -> Any:
        tools: dict[str, Decimal] = {}
        for tool, usd in self.lines(value):
            if mistake := check_tool_name(tool):
                raise ValidationError(f"{tool!r}: {mistake}.")
            if tool in tools:
                raise ValidationError(f"{tool!r} is there twice.")
            tools[tool] = read_usd(usd) / TOOLS_AT_ONCE
        return tools


class TiersField(LinesField):
    """As a list of usage.prices.Tier."""

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        lines = []
        for tier in value:
            given = ((name, tier.get(f"{name}_usd_per_mtok")) for name in TIER_RATES)
            rates = ", ".join(f"{name} {plain(usd)}" for name, usd in given if usd is not None)
            lines.append(f"{tier[TIER]}: {rates}")
        return "\n".join(lines)

    def to_python(self, value: Any) -> Any:
        tiers = [{TIER: read_count(start), **self._rates(rates)} for start, rates in self.lines(value)]
        if mistake := check_tiers(cast("Any", tiers)):
            raise ValidationError(f"{mistake[0].upper()}{mistake[1:]}.")
        return tiers

    def _rates(self, text: str) -> dict[str, Decimal]:
        rates: dict[str, Decimal] = {}
        for part in text.split(","):
            name, _, usd = part.strip().partition(" ")
            if name not in TIER_RATES:
                raise ValidationError(f"{name!r} is no price of a tier. There are {', '.join(TIER_RATES)}.")
            rates[f"{name}_usd_per_mtok"] = read_usd(usd)
        if missing := [name for name in TIER_RATES[:2] if f"{name}_usd_per_mtok" not in rates]:
            raise ValidationError(f"A tier needs both, input and output: {missing[0]} is missing.")
        return rates


def plain(usd: Decimal) -> str:
    """Without an exponent, and without needless zeros."""
    text = f"{usd:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def read_usd(text: str) -> Decimal:
    """Raises ValidationError."""
    try:
        usd = Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise ValidationError(f"{text.strip()!r} is not an amount of US dollars.") from None
    if not usd.is_finite() or not 0 <= usd <= MOST:
        raise ValidationError("A price is between 0 and 1,000,000 US dollars.")
    return usd


def read_count(text: str) -> int:
    """Of tokens, with or without commas. Raises ValidationError."""
    digits = re.sub(r"[,_\s]", "", text)
    if not re.fullmatch(r"[0-9]{1,9}", digits):
        raise ValidationError(f"{text!r} is not a number of tokens.")
    return int(digits)


class ModelPriceForm(forms.ModelForm):
    model = forms.ChoiceField(
        choices=lambda: [(name, name) for name in catalogue.model_names()],
        widget=UnfoldAdminSelect2Widget(),
        help_text="Public name of the model.",
    )
    input_usd_per_mtok = price_field("Input", INPUT, required=True)
    output_usd_per_mtok = price_field("Output", OUTPUT, required=True)
    cached_usd_per_mtok = price_field("Cached input", CACHED)
    cache_write_usd_per_mtok = price_field("Cache write", CACHE_WRITE)
    cache_write_1h_usd_per_mtok = price_field(
        "Cache write, for an hour", "Per million prompt tokens to be cached for an hour. Empty: as cache write."
    )
    reasoning_usd_per_mtok = price_field(
        "Reasoning", "Per million completion tokens spent on reasoning. Empty: as output."
    )
    audio_input_usd_per_mtok = price_field("Audio input", "Per million prompt tokens of audio. Empty: as input.")
    audio_output_usd_per_mtok = price_field("Audio output", "Per million completion tokens of audio. Empty: as output.")
    image_input_usd_per_mtok = price_field("Image input", "Per million prompt tokens of pictures. Empty: as input.")
    image_output_usd_per_mtok = price_field(
        "Image output", "Per million completion tokens of pictures. Empty: as output."
    )
    request_usd = price_field("Each call", "US dollars a call that used anything, on top of its tokens. Empty: none.")
    image_usd = price_field("Each picture", "US dollars per picture made. Empty: pictures cost their tokens only.")
    tools_usd = ToolsField(
        2,
        label="Tools of the provider",
        help_text="US dollars per 1,000 calls, as they are published, one tool a line, such as: web_search: 10",
    )
    batch_percent = forms.IntegerField(
        label="Batch",
        min_value=0,
        max_value=100,
        initial=100,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="What a call in a batch, or of OpenAI's flex tier, costs, in per cent of this price. Usually 50. "
        "Tools cost the whole price there too.",
    )
    tiers_usd = TiersField(
        2,
        label="Long prompts",
        help_text="From which length of the prompt on the whole call costs what instead, one length a line, such as: "
        "200001: input 2.50, output 15, cached 0.25. What is left out costs what plain tokens do.",
    )

    class Meta:
        model = ModelPrice
        fields = ("model", "team", "valid_from", "batch_percent")
        labels = {"valid_from": "Counts from"}
        help_texts = {"valid_from": "UTC. Calls before then keep the price of their time."}

    def clean_request_usd(self) -> Decimal:
        return self.cleaned_data["request_usd"] or Decimal(0)

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        usd = {name: value for name, value in self.cleaned_data.items() if name in UsdPrice.__annotations__}
        if "tiers_usd" in self.cleaned_data:
            usd["tiers"] = self.cleaned_data["tiers_usd"]
        for column, value in columns_of(cast("UsdPrice", usd)).items():
            setattr(self.instance, column, value)


def initial_of(row: ModelPrice) -> dict[str, Any]:
    """For a new price that begins as this one."""
    usd = usd_of(row)
    return {
        **usd,
        "model": row.model,
        "team": row.team_id,
        "request_usd": usd["request_usd"] or None,
        "tiers_usd": usd["tiers"],
    }
