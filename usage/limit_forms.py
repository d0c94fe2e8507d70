"""Forms of the admin for budgets, top-ups, rate limits and the settings of money. Amounts are typed in US dollars or
whole tokens; what makes sense, usage.budgets knows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelect2Widget,
    UnfoldAdminTextInputWidget,
)

from accounts import catalogue
from usage import budgets, cheaper_models
from usage.budgets import OWNERS
from usage.models import Budget, Limit, MoneySettings
from usage.pricing import to_nano, to_usd
from usage.spending import default_zone

Choices = list[tuple[str, str]]
USUAL_SCOPE = "team"
UNIT_WORDS = {Budget.Unit.USD: "US dollars", Budget.Unit.TOKENS: "tokens"}
EITHER_UNIT = ", in US dollars or in tokens"
FIXED_HINT = "This cannot be changed later: make another one instead."


@cache
def zones() -> list[str]:
    """Names of places and UTC; not the hundred old abbreviations."""
    places = (name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))
    return [*sorted(places), "UTC"]


class KeptChoiceField(forms.ChoiceField):
    """One of names that are asked for at each form. One that is stored but gone stays choosable (`keep`)."""

    def __init__(self, names: Callable[[], list[str]], empty: Callable[[], str] | None, **kwargs: Any) -> None:
        self._names, self._empty, self._kept = names, empty, ""
        kwargs.setdefault("widget", UnfoldAdminSelect2Widget())
        super().__init__(choices=self._offered, required=empty is None, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptChoiceField:
        copied: KeptChoiceField = super().__deepcopy__(memo)
        copied.choices = copied._offered
        return copied

    def keep(self, name: str) -> None:
        self._kept = name

    def _offered(self) -> Choices:
        names = self._names()
        kept = [(self._kept, self._kept)] if self._kept and self._kept not in names else []
        return ([("", self._empty())] if self._empty else []) + [(name, name) for name in names] + kept


def zone_field(help_text: str, empty: Callable[[], str] | None) -> KeptChoiceField:
    return KeptChoiceField(zones, empty, label="Time zone", help_text=help_text)


def model_field(label: str, empty: str, help_text: str) -> KeptChoiceField:
    return KeptChoiceField(catalogue.model_names, lambda: empty, label=label, help_text=help_text)


def amount_field(label: str, help_text: str, *, required: bool = True, least: int | None = 0) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        required=required,
        min_value=None if least is None else Decimal(least),
        max_digits=24,
        decimal_places=9,
        widget=UnfoldAdminDecimalFieldWidget(attrs={"step": "any"}),
        help_text=help_text,
    )


def typed(amount: int | None, unit: str) -> Decimal | int | None:
    """As people type it: US dollars without needless zeros, or tokens."""
    if amount is None or unit == Budget.Unit.TOKENS:
        return amount
    usd = to_usd(amount)
    return usd.quantize(Decimal(1)) if usd == usd.to_integral_value() else usd.normalize()


def stored(amount: Decimal | None, unit: str) -> int | None:
    """Raises ValidationError for a part of a token."""
    if amount is None:
        return None
    if unit == Budget.Unit.TOKENS and amount != amount.to_integral_value():
        raise ValidationError("Tokens are whole: write a number without a fraction.")
    return int(amount) if unit == Budget.Unit.TOKENS else to_nano(amount)


class CheckedForm(forms.ModelForm):
    """Asks usage.budgets whether the row makes sense. `names`: fields that the form calls otherwise than the model."""

    names: dict[str, str] = {}

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        try:
            self.check_row()
        except ValidationError as error:
            for column, messages in error.message_dict.items():
                name = self.names.get(column, column)
                self.add_error(name if name in self.fields else None, [str(message) for message in messages])

    def check_row(self) -> None:
        raise NotImplementedError


class OwnedForm(CheckedForm):
    """Of a new row: whose calls count. What was chosen for another scope before does not matter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not the whole installation, which is the first of the choices: that must be meant.
        self.initial["scope"] = self.initial.get("scope") or USUAL_SCOPE

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for name in OWNERS:
            if name in cleaned and name != cleaned.get("scope"):
                cleaned[name] = None
        return cleaned


# --- budgets --------------------------------------------------------------------------------------------------------
class BudgetForm(CheckedForm):
    names = {"limit": "amount", "soft": "soft_amount"}

    amount = amount_field("Limit", f"Hard limit of each window{EITHER_UNIT}. Calls that might exceed it are refused.")
    soft_amount = amount_field(
        "Soft limit", "From here on it is reported, and nothing is refused. Empty: no soft limit.", required=False
    )
    timezone = zone_field(
        "In which hours, days, weeks and months begin. Days with a change of clocks have 23 or 25 hours.",
        lambda: f"The installation's ({default_zone()})",
    )
    fallback_model = model_field(
        "Cheaper model",
        "None",
        "Calls go to this model while the budget is spent. This budget does not hold it back: what it costs comes on "
        "top. Give it a budget of its own if it must not.",
    )

    class Meta:
        model = Budget
        fields: tuple[str, ...] = ("per", "timezone", "counts_from", "on_exhaustion", "fallback_model", "enabled")
        help_texts = {"on_exhaustion": "What happens to calls for which not enough is left."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        for name in ("timezone", "fallback_model"):
            if name in fields:
                fields[name].keep(getattr(self.instance, name))
        if self.instance.pk:
            self._name_unit()
            self.initial.setdefault("amount", typed(self.instance.limit, self.instance.unit))
            self.initial.setdefault("soft_amount", typed(self.instance.soft, self.instance.unit))

    def _name_unit(self) -> None:
        """That of this budget, which no field shows: it cannot be changed."""
        words = UNIT_WORDS[self.instance.unit]
        for name, what in (("amount", "Limit"), ("soft_amount", "Soft limit")):
            if name in self.fields:
                self.fields[name].label = f"{what}, {words}"
                self.fields[name].help_text = str(self.fields[name].help_text).replace(EITHER_UNIT, "")

    def check_row(self) -> None:
        wrong: dict[str, Any] = {}
        for column, name in self.names.items():
            try:
                setattr(self.instance, column, stored(self.cleaned_data[name], self.instance.unit))
            except ValidationError as error:
                wrong[column] = error.messages
        if wrong:
            raise ValidationError(wrong)
        budgets.check_budget(self.instance)
        if "fallback_model" in self.changed_data and cheaper_models.lacks_price(self.instance):
            words = "It has no price, so calls that come to it on a budget would be refused. Set its price first."
            raise ValidationError({"fallback_model": words})


class NewBudgetForm(BudgetForm, OwnedForm):
    model = model_field("Model", "Every model", f"Only calls of this model count. {FIXED_HINT}")

    class Meta(BudgetForm.Meta):
        fields = ("scope", *OWNERS, "model", "unit", *BudgetForm.Meta.fields)


class TopUpForm(forms.Form):
    """More for the window of now. `unit`: that of the budget."""

    amount = amount_field("Amount", "", least=None)
    reason = forms.CharField(
        max_length=200,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Stays in the history, with your name.",
    )
    # What the page was made for: a reloaded or second answer finds another top-up, and gives nothing again.
    seen = forms.CharField(widget=forms.HiddenInput())

    def __init__(self, *args: Any, unit: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unit = unit
        words = UNIT_WORDS[Budget.Unit(unit)]
        self.fields["amount"].label = f"Amount, {words}"
        self.fields["amount"].help_text = "Added to the limit. A negative amount takes a mistake back."

    def clean_amount(self) -> int | None:
        return stored(self.cleaned_data["amount"], self._unit)

    def refuse(self, error: ValidationError) -> None:
        for name, messages in error.message_dict.items():
            self.add_error(None if name == NON_FIELD_ERRORS else name, [str(message) for message in messages])


# --- rate limits ----------------------------------------------------------------------------------------------------
class LimitForm(CheckedForm):
    class Meta:
        model = Limit
        fields: tuple[str, ...] = budgets.RATES

    def check_row(self) -> None:
        budgets.check_limit(self.instance)


class NewLimitForm(LimitForm, OwnedForm):
    model = model_field("Model", "Every model", f"Only calls of this model count. {FIXED_HINT}")

    class Meta(LimitForm.Meta):
        fields = ("scope", *OWNERS, "model", *LimitForm.Meta.fields)


# --- settings -------------------------------------------------------------------------------------------------------
class MoneySettingsForm(CheckedForm):
    timezone = zone_field("In which days, weeks and months begin, for budgets that name no other.", None)

    class Meta:
        model = MoneySettings
        fields = (
            "timezone",
            "when_redis_is_away",
            "default_max_tokens",
            "blocks_to_throttle",
            "throttle_s",
            "currency",
            "units_per_usd",
            "events_kept_days",
            "rollups_kept_days",
        )
        labels = {
            "when_redis_is_away": "When Redis is away",
            "default_max_tokens": "Longest answer, in tokens",
            "blocks_to_throttle": "Blocked calls",
            "events_kept_days": "Keep events for days",
            "rollups_kept_days": "Keep sums by hour for days",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: dict[str, Any] = self.fields
        if "timezone" in fields:
            fields["timezone"].keep(self.instance.timezone)

    def check_row(self) -> None:
        budgets.check_money_settings(self.instance)
