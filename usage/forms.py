"""Forms of the admin for prices: US dollars per million tokens, as providers publish them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSelectWidget

from accounts import catalogue
from usage.models import ModelPrice
from usage.pricing import per_mtok

PRICES = ("input", "output", "cached", "cache_write")


def price_field(label: str, help_text: str, required: bool = False) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        required=required,
        min_value=Decimal(0),
        max_value=Decimal(1_000_000),
        decimal_places=9,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any", "min": "0"}),
        help_text=help_text,
    )


INPUT = "US dollars per million prompt tokens."
OUTPUT = "US dollars per million completion tokens."
CACHED = "Per million prompt tokens that the provider had cached. Empty: as input."
CACHE_WRITE = "Per million prompt tokens that the provider writes to its cache. Empty: as input."


class ModelPriceForm(forms.ModelForm):
    model = forms.ChoiceField(
        choices=lambda: [(name, name) for name in catalogue.model_names()],
        widget=UnfoldAdminSelectWidget(),
        help_text="Public name of the model.",
    )
    input_usd = price_field("Input", INPUT, required=True)
    output_usd = price_field("Output", OUTPUT, required=True)
    cached_usd = price_field("Cached input", CACHED)
    cache_write_usd = price_field("Cache write", CACHE_WRITE)

    class Meta:
        model = ModelPrice
        fields = ("model", "valid_from")

    def save(self, commit: bool = True) -> Any:
        for name in PRICES:
            usd = self.cleaned_data[f"{name}_usd"]
            setattr(self.instance, f"{name}_nano_usd_per_mtok", None if usd is None else per_mtok(usd))
        return super().save(commit)
