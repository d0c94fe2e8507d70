"""Fields that several forms share."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import catalogue
from accounts.requests.models import PER_CHOICES
from accounts.requests.money import MOST, NANO

WINDOWS = [
    ("", "Choose"),
    *((value, f"each {label}" if value != "total" else "in total") for value, label in PER_CHOICES),
]


class UsdField(forms.DecimalField):
    """Whole nano-USD, entered in US dollars."""

    def __init__(self, label: str = "Amount in US dollars", **kwargs: Any) -> None:
        widget = forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"})
        super().__init__(
            label=label,
            min_value=Decimal("0.000001"),
            max_value=Decimal(MOST // NANO),
            max_digits=15,
            decimal_places=6,
            widget=widget,
            **kwargs,
        )

    def clean(self, value: Any) -> Any:
        amount = super().clean(value)
        return None if amount is None else int(amount * NANO)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, int):
            amount = (Decimal(value) / NANO).normalize()
            return f"{amount.quantize(Decimal('0.01')) if amount == amount.quantize(Decimal('0.01')) else amount:f}"
        return value


def window_field(**kwargs: Any) -> forms.ChoiceField:
    return forms.ChoiceField(label="Window", choices=WINDOWS, **kwargs)


class LastDayField(forms.DateField):
    """A day, until the end of which something lasts (UTC): the moment at which the next one begins."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"), **kwargs)

    def clean(self, value: Any) -> Any:
        day: date | None = super().clean(value)
        if day is None:
            return None
        if day < timezone.now().astimezone(UTC).date():
            raise ValidationError("That day has passed.")
        if day > date.today() + timedelta(days=3660):
            raise ValidationError("Choose a day within the next ten years.")
        return datetime.combine(day + timedelta(days=1), time.min, UTC)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, datetime):
            value = (value.astimezone(UTC) - timedelta(microseconds=1)).date()
        return value.isoformat() if isinstance(value, date) else value


class ModelsField(forms.MultipleChoiceField):
    """None: all of them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            choices=lambda: [(name, name) for name in catalogue.model_names()],
            widget=forms.CheckboxSelectMultiple(attrs={"class": "scrolls"}),
            required=False,
            **kwargs,
        )

    def clean(self, value: Any) -> Any:
        return super().clean(value) or None


def add_errors(form: forms.Form, error: ValidationError) -> None:
    """To the fields that have them; those of fields that are not shown, above all."""
    if not hasattr(error, "error_dict"):
        form.add_error(None, error)
        return
    for field, found in error.error_dict.items():
        form.add_error(field if field in form.fields else None, found)
