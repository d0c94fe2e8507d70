"""Forms of the pages of a person's own keys. What they allow is decided here, on the server: the page only helps."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone

from accounts import catalogue
from accounts.forms import OVERLAPS
from accounts.models import NAME, ApiKey, User
from accounts.portal.choices import TeamChoice, choices_of

ALL, SOME = "all", "some"
EXPIRIES = {"30": timedelta(days=30), "90": timedelta(days=90), "365": timedelta(days=365)}
NEVER, ON_A_DAY = "never", "day"
LONGEST = timedelta(days=10 * 366)
MOST_USD = Decimal(1_000_000)


class ModelChoices(forms.CheckboxSelectMultiple):
    """Each model with the teams that allow it, so that a script can hide the others."""

    teams: dict[str, str]

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option: dict[str, Any] = super().create_option(name, value, *args, **kwargs)
        option["attrs"]["data-teams"] = self.teams.get(str(value), "")
        return option


class NewKeyForm(forms.Form):
    name = forms.CharField(
        max_length=100,
        validators=[NAME],
        help_text="What it is for, such as the app or the machine that uses it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    team = forms.ChoiceField(help_text="Whose models, budget and limits apply, and who is charged.")
    which_models = forms.ChoiceField(
        label="Models",
        choices=[(ALL, "Every model I may use, also those added later"), (SOME, "Only these:")],
        initial=ALL,
        widget=forms.RadioSelect,
    )
    models = forms.MultipleChoiceField(label="Which models", required=False, widget=ModelChoices)
    expires = forms.ChoiceField(
        label="Expires",
        choices=[
            ("30", "In 30 days"),
            ("90", "In 90 days"),
            ("365", "In a year"),
            (ON_A_DAY, "On a day of your choice"),
            (NEVER, "Never"),
        ],
        initial="90",
        help_text="Then the key stops working by itself.",
    )
    expires_on = forms.DateField(
        label="Last day",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text="Until its end, UTC.",
    )
    budget_usd = forms.DecimalField(
        label="Budget in US dollars",
        required=False,
        min_value=Decimal("0.01"),
        max_value=MOST_USD,
        max_digits=12,
        decimal_places=4,
        help_text="The most this key may spend. Your team's budget counts as well.",
        widget=forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"}),
    )
    budget_per = forms.ChoiceField(
        label="Each",
        choices=[("day", "day"), ("week", "week"), ("month", "month"), ("total", "key, in total")],
        initial="month",
    )
    endpoints = forms.MultipleChoiceField(
        label="Endpoints",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="What the key may be used for. None chosen: everything.",
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.choices_by_value = {choice.value: choice for choice in choices_of(user)}
        fields: Any = self.fields
        fields["team"].choices = [(value, choice.label) for value, choice in self.choices_by_value.items()]
        teams_of: dict[str, list[str]] = {}
        for value, choice in self.choices_by_value.items():
            for name in choice.models:
                teams_of.setdefault(name, []).append(value)
        fields["models"].choices = [(name, name) for name in sorted(teams_of)]
        fields["models"].widget.teams = {name: " ".join(values) for name, values in teams_of.items()}
        fields["endpoints"].choices = [(name, name) for name in catalogue.endpoint_names()]

    @property
    def chosen(self) -> TeamChoice:
        return self.choices_by_value[self.cleaned_data["team"]]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        self._clean_models(cleaned)
        self._clean_expiry(cleaned)
        choice = self.choices_by_value.get(cleaned.get("team", ""))
        if choice and cleaned.get("name") and self._name_is_taken(choice, cleaned["name"]):
            self.add_error("name", "You already have a key of this name in this team.")
        return cleaned

    def _clean_models(self, cleaned: dict[str, Any]) -> None:
        choice = self.choices_by_value.get(cleaned.get("team", ""))
        if cleaned.get("which_models") != SOME or choice is None or "models" in self.errors:
            return
        chosen = cleaned.get("models") or []
        beyond = sorted(set(chosen) - set(choice.models))
        if not chosen:
            self.add_error("models", "Choose at least one, or every model.")
        elif beyond:
            self.add_error("models", f"The team does not allow {', '.join(beyond)}.")

    def _clean_expiry(self, cleaned: dict[str, Any]) -> None:
        day = cleaned.get("expires_on")
        if cleaned.get("expires") != ON_A_DAY or "expires_on" in self.errors:
            return
        today = timezone.now().date()
        if day is None:
            self.add_error("expires_on", "Choose the day.")
        elif not today <= day <= today + LONGEST:
            self.add_error("expires_on", "Choose a day from today on, within the next ten years.")

    def _name_is_taken(self, choice: TeamChoice, name: str) -> bool:
        return choice.team is not None and ApiKey.objects.filter(team=choice.team, user=self.user, name=name).exists()

    # --- what was chosen ---
    @property
    def models_allowed(self) -> list[str] | None:
        return sorted(self.cleaned_data["models"]) if self.cleaned_data["which_models"] == SOME else None

    @property
    def expires_at(self) -> datetime | None:
        chosen = self.cleaned_data["expires"]
        if chosen == ON_A_DAY:
            return datetime.combine(self.cleaned_data["expires_on"] + timedelta(days=1), time.min, UTC)
        return None if chosen == NEVER else timezone.now() + EXPIRIES[chosen]

    @property
    def budget(self) -> tuple[int, str] | None:
        """Nano-USD, and of which window."""
        usd: Decimal | None = self.cleaned_data["budget_usd"]
        return None if usd is None else (int(usd * 10**9), self.cleaned_data["budget_per"])


class RotateOwnKeyForm(forms.Form):
    overlap = forms.ChoiceField(
        label="The old secret stops working",
        initial="day",
        choices=[
            ("now", "Now, because it may have leaked"),
            ("hour", "In 1 hour"),
            ("day", "In 1 day"),
            ("week", "In 7 days"),
        ],
        widget=forms.RadioSelect,
    )
    # What the page was made for: a reloaded or second answer finds the key changed, and does not rotate again.
    generation = forms.CharField(widget=forms.HiddenInput)

    @property
    def overlap_from_now(self) -> timedelta:
        return OVERLAPS[self.cleaned_data["overlap"]]
