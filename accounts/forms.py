"""Forms of the admin for keys, teams and users."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelect2MultipleWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
)

from accounts import catalogue, services
from accounts.models import ApiKey, Team, User
from accounts.networks import BadNetwork, clean_networks

EVERY, SOME = "every", "some"
MAX_OVERLAP = timedelta(days=90)
OVERLAPS = {
    "now": timedelta(0),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
}


class SearchableSelectMultiple(UnfoldAdminSelect2MultipleWidget):
    """Several of the choices on the page, found by typing.

    The theme's own also bears the class by which Django's script finds fields that ask the server. On a page with such
    fields it would ask too, and find nothing.
    """

    css_class = "unfold-admin-autocomplete"

    def __init__(self) -> None:
        super().__init__()
        self.attrs["class"] = self.css_class


def searchable(field: Any, help_text: str) -> Any:
    """For formfield_for_manytomany, after the theme has set its own class and Django its advice to hold down keys."""
    if field is not None:
        field.widget.attrs["class"] = SearchableSelectMultiple.css_class
        field.help_text = help_text
    return field


class AllowListField(forms.MultiValueField):
    """An allow-list as the models store it: None = everything, a list = only these, [] = nothing.

    Shown as a choice between the two, and the names to choose from. `names` is asked at each form, so that a new model
    is there at once; names that are stored but gone stay choosable (`keep`), so that saving does not widen the list.
    """

    def __init__(
        self, *, names: Callable[[], list[str]], every: str, some: str, options: forms.Widget, **kwargs: Any
    ) -> None:
        self._names = names
        self._kept: list[str] = []
        modes: forms.Field = forms.ChoiceField(choices=[(EVERY, every), (SOME, some)])
        chosen: forms.Field = forms.MultipleChoiceField(choices=self._choices, required=False)
        mode_widget = UnfoldAdminRadioSelectWidget(attrs={"class": "gh-allow-mode"})
        widget = AllowListWidget([mode_widget, options])
        super().__init__([modes, chosen], widget=widget, required=False, require_all_fields=False, **kwargs)
        self._offer()

    def __deepcopy__(self, memo: dict[int, Any]) -> AllowListField:
        copied: AllowListField = super().__deepcopy__(memo)
        copied._offer()
        return copied

    def keep(self, names: list[str] | None) -> None:
        """Offer these too, whether or not they still exist."""
        self._kept = list(names or [])
        self._offer()

    def prepare_value(self, value: Any) -> Any:
        """What is stored is a list itself, so the widget would take it for the values of its two parts."""
        answered = isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)
        return value if answered else self.widget.decompress(value)

    def has_changed(self, initial: list[str] | None, data: list[Any] | None) -> bool:
        before, (mode, chosen) = self.widget.decompress(initial), data or [None, None]
        return bool(before != [mode, [] if mode == EVERY else sorted(chosen or [])])

    def compress(self, values: list[Any]) -> list[str] | None:
        if not values:  # An answer without this field must not open the list.
            raise ValidationError("Choose one of the two.")
        mode, chosen = values
        return None if mode == EVERY else list(chosen)

    def _offer(self) -> None:
        modes: Any = self.fields[0]
        chosen: Any = self.fields[1]
        chosen.choices = self._choices
        self.widget.widgets[0].choices, self.widget.widgets[1].choices = modes.choices, chosen.choices

    def _choices(self) -> list[tuple[str, str]]:
        names = self._names()
        return [(name, name) for name in names] + [
            (name, f"{name} (no longer here)") for name in self._kept if name not in names
        ]


class AllowListWidget(forms.MultiWidget):
    def decompress(self, value: list[str] | None) -> list[Any]:
        return [EVERY, []] if value is None else [SOME, sorted(value)]


def models_field(whose: str) -> AllowListField:
    """`whose`: completes "Every model ..."."""
    return AllowListField(
        label="Models allowed",
        names=catalogue.model_names,
        every=f"Every model {whose}",
        some="Only these:",
        options=SearchableSelectMultiple(),
        help_text="A call may use a model when team, owner and key all allow it. “Only these” with none chosen: none.",
    )


class NetworksField(forms.CharField):
    """Networks as the models store them (None: from anywhere), shown one on each line."""

    def __init__(self, help_text: str) -> None:
        widget = UnfoldAdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false", "placeholder": "192.0.2.0/24"})
        super().__init__(label="Networks allowed", required=False, widget=widget, help_text=help_text)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            return clean_networks(line for part in text.split("\n") for line in part.split(",") if line.strip())
        except BadNetwork as error:
            raise ValidationError(str(error)) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != initial)
        except ValidationError:
            return True


NETWORKS = "One address or network on each line, IPv4 or IPv6, such as 192.0.2.0/24. Calls from elsewhere are refused. "


class AllowListForm(forms.ModelForm):
    """Keeps what is stored in its AllowListFields choosable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if isinstance(field, AllowListField):
                field.keep(getattr(self.instance, name))


class TeamForm(AllowListForm):
    models_allowed = models_field("there is, also those added later")
    networks_allowed = NetworksField(NETWORKS + "Holds for all keys of the team. Empty: from anywhere.")

    class Meta:
        model = Team
        fields = ("name", "cost_center", "models_allowed", "networks_allowed")


class ApiKeyForm(AllowListForm):
    models_allowed = models_field("that its team and owner may use")
    endpoints_allowed = AllowListField(
        label="Endpoints allowed",
        names=catalogue.endpoint_names,
        every="Every endpoint",
        some="Only these:",
        options=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="What the key may be used for. A call to another endpoint is refused with 403.",
    )
    networks_allowed = NetworksField(NETWORKS + "The team's list counts too. Empty: from anywhere its team may.")

    class Meta:
        model = ApiKey
        fields = ("name", "user", "team", "endpoints_allowed", "models_allowed", "networks_allowed", "expires_at")

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at and "expires_at" in self.changed_data and expires_at <= timezone.now():
            raise ValidationError("That time has passed. To switch the key off now, revoke it.")
        return expires_at


class NewApiKeyForm(ApiKeyForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["team"].required = False
        self.fields["team"].help_text = "Whose limits and models apply. Empty: the owner's personal team."

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        user, team, name = cleaned.get("user"), cleaned.get("team"), cleaned.get("name")
        if not user and not team:
            raise ValidationError("Choose an owner, or a team for a key that belongs to the team itself.")
        if team:
            self._check_owner(team, user)
        if ApiKey.objects.filter(user=user, team=team or personal_team_id(user), name=name).exists():
            self.add_error("name", "There is already a key of this name with this owner and team.")
        return cleaned

    def _check_owner(self, team: Team, user: User | None) -> None:
        try:
            services.check_owner(team, user)
        except ValidationError as error:
            self.add_error(None, error)


def personal_team_id(user: User | None) -> int | None:
    """None when the team does not exist yet: it is made with the person's first key."""
    return Team.objects.filter(personal_of=user).values_list("pk", flat=True).first() if user else None


class RotateForm(forms.Form):
    """How long the secret that is replaced goes on working."""

    overlap = forms.ChoiceField(
        label="The old secret stops working",
        initial="day",
        choices=[
            ("now", "Now, because it may have leaked"),
            ("hour", "In 1 hour"),
            ("day", "In 1 day"),
            ("week", "In 7 days"),
            ("until", "At a time of your choice"),
        ],
        widget=UnfoldAdminRadioSelectWidget(attrs={"class": "gh-overlap"}),
    )
    until = forms.SplitDateTimeField(
        label="Time",
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget(),
        help_text=f"At most {MAX_OVERLAP.days} days from now.",
    )
    # What the page was made for: a reloaded or second answer finds the key changed, and does not rotate again.
    generation = forms.CharField(widget=forms.HiddenInput())

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("overlap") == "until" and "until" not in self.errors:
            until = cleaned.get("until")
            if not until or not timezone.now() < until <= timezone.now() + MAX_OVERLAP:
                self.add_error("until", f"Choose a time within the next {MAX_OVERLAP.days} days.")
        return cleaned

    def overlap_from_now(self) -> timedelta:
        choice = self.cleaned_data["overlap"]
        until: datetime | None = self.cleaned_data["until"]
        return OVERLAPS[choice] if choice in OVERLAPS or until is None else until - timezone.now()
