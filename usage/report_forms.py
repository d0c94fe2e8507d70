"""What the dashboard's address asks for: a time, filters, a grouping. Nonsense in it is said, and else left out."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.forms import AutocompleteDropdownForm
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from accounts.keyset import distinct_values
from usage.models import UsageEvent
from usage.reports import LONGEST, OF_ROWS, Group, Measure, Selection

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RANGES = {
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "month": "This month",
    "last_month": "Last month",
}
USUAL_RANGE = "7d"
GROUPS = {
    "team": "Team",
    "user": "User",
    "key": "API key",
    "model": "Model",
    "provider": "Provider",
    "time": "Time",
}
MEASURES = {
    "spend": "Spend",
    "tokens": "Tokens",
    "calls": "Calls",
    "failed": "Failed calls",
    "refused": "Refused calls",
}
DIMENSIONS = ("team", "user", "key", "model", "provider")
LONGEST_DAYS = LONGEST // DAY


class ReportForm(forms.Form):
    """Always gives a `selection`: where a field makes no sense, that of an address that does not have it."""

    group = forms.ChoiceField(
        label="Group by",
        choices=GROUPS,
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="What the table has a line for, and the chart a colour.",
    )
    measure = forms.ChoiceField(
        label="Show",
        choices=MEASURES,
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="What the chart shows and the table is sorted by.",
    )

    def __init__(self, request: HttpRequest) -> None:
        super().__init__(request.GET)
        for name, words in (("from", "First day"), ("to", "Last day")):
            self.fields[name] = _day_field(words)
        self.fields["range"] = forms.ChoiceField(choices=RANGES, required=False, widget=forms.HiddenInput)
        for dimension in DIMENSIONS:
            self.fields[dimension] = self._filter_field(request, dimension)
        self.is_valid()
        self.selection = self._selection()

    class Media:
        js = AutocompleteDropdownForm.Media.js
        css = AutocompleteDropdownForm.Media.css

    @property
    def filter_fields(self) -> list[forms.BoundField]:
        """Those that a choice can still be made in; the others are links that take the filter away."""
        return [self[name] for name in DIMENSIONS if not self.fields[name].widget.is_hidden]

    @property
    def is_custom(self) -> bool:
        return bool(self._given("from") or self._given("to"))

    @property
    def range(self) -> str:
        return "" if self.is_custom else self._given("range") or USUAL_RANGE

    def parameters(self, **changed: str | int | None) -> str:
        """The query of the same page, with these changed; None takes one away."""
        current: dict[str, Any] = {
            "range": self.range,
            "from": self._day("from"),
            "to": self._day("to"),
            **self.selection.filters,
            "group": self.selection.group,
            "measure": self.selection.measure,
            **changed,
        }
        return "?" + urlencode({name: value for name, value in current.items() if value not in (None, "")})

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        last = data.get("to") or _today()
        first = data.get("from") or last
        wrong = ""
        if first > last:
            wrong = "The last day is before the first one."
        elif (last - first).days >= LONGEST_DAYS:
            wrong = f"At most {LONGEST_DAYS} days can be shown at once."
        if wrong:
            self.add_error("to", wrong)
            data.pop("from", None)
        return data

    def _selection(self) -> Selection:
        start, end = self._time()
        filters = {name: value for name in DIMENSIONS if (value := self._given(name)) not in (None, "")}
        group = cast(Group, self._given("group") or next(name for name in GROUPS if name not in filters))
        return Selection(start, end, filters, group, cast(Measure, self._given("measure") or "spend"))

    def _time(self) -> tuple[datetime, datetime]:
        if self.is_custom:
            last = self._given("to") or _today()
            return _midnight(self._given("from") or last), _midnight(last) + DAY
        return bounds(self.range)

    def _given(self, name: str) -> Any:
        return self.cleaned_data.get(name)

    def _day(self, name: str) -> str | None:
        day: date | None = self._given(name)
        return day.isoformat() if day else None

    def _filter_field(self, request: HttpRequest, dimension: str) -> forms.Field:
        if dimension not in OF_ROWS:
            return _NameField(dimension, self.data.get(dimension, ""))
        field = UsageEvent._meta.get_field(dimension)
        model_admin = admin.site.get_model_admin(cast(Any, field.related_model))
        choosable = not self.data.get(dimension) and model_admin.has_view_permission(request)
        return _RowField(dimension, choosable)


class _Chooser(AutocompleteSelect):
    def build_attrs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**super().build_attrs(*args, **kwargs), "data-placeholder": "All"}


class _RowField(forms.ModelChoiceField):
    """The id of a row, which may be gone; 0: nobody. Chosen from a list that searches while one types."""

    def __init__(self, dimension: str, choosable: bool) -> None:
        field: Any = UsageEvent._meta.get_field(dimension)
        chooser = _Chooser(field, admin.site, attrs={"class": "unfold-filter-autocomplete"})
        super().__init__(
            queryset=field.related_model._default_manager.all(),
            label=GROUPS[dimension],
            required=False,
            widget=chooser if choosable else forms.HiddenInput,
        )

    def to_python(self, value: Any) -> Any:
        if value in (None, ""):
            return None
        try:
            number = int(value)
        except ValueError:
            number = -1
        if not 0 <= number < 2**63:
            raise ValidationError("This is not the id of one.")
        return number

    def validate(self, value: Any) -> None:
        """What is gone has its usage still."""


class _NameField(forms.CharField):
    def __init__(self, dimension: str, given: str) -> None:
        if given:
            widget: forms.Widget = forms.HiddenInput()
        else:
            names = distinct_values(UsageEvent, dimension)
            widget = UnfoldAdminSelectWidget(choices=[("", "All"), *((name, name) for name in names)])
        super().__init__(label=GROUPS[dimension], required=False, max_length=200, strip=False, widget=widget)


def bounds(name: str) -> tuple[datetime, datetime]:
    """First moment, and the first one after, of one of RANGES (UTC)."""
    now = timezone.now().astimezone(UTC)
    if name == "24h":
        end = now.replace(minute=0, second=0, microsecond=0) + HOUR
        return end - DAY, end
    tomorrow = _midnight(now.date()) + DAY
    if name == "month":
        return _midnight(now.date().replace(day=1)), tomorrow
    if name == "last_month":
        end = _midnight(now.date().replace(day=1))
        return (end - DAY).replace(day=1), end
    return tomorrow - {"7d": 7, "30d": 30}[name] * DAY, tomorrow


def _day_field(label: str) -> forms.DateField:
    attributes: dict[str, Any] = {"type": "date", "class": " ".join(INPUT_CLASSES)}
    return forms.DateField(label=label, required=False, widget=forms.DateInput(format="%Y-%m-%d", attrs=attributes))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _today() -> date:
    return timezone.now().astimezone(UTC).date()
