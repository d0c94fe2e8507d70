"""The forms of courses."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from accounts.models import User
from accounts.requests import policy
from accounts.requests.cohorts import MAX_STUDENTS
from accounts.requests.enrolment import names_in
from accounts.requests.fields import LastDayField, ModelsField, UsdField, window_field
from accounts.requests.models import Cohort

NEW_TEAM = "new"
MAX_FILE_BYTES = 1_000_000


class LimitsForm(forms.Form):
    """What every student of a course gets, and until when."""

    amount = UsdField(
        "Budget of each student, in US dollars", required=False, help_text="Empty: only the team's budget counts."
    )
    per = window_field(initial="week", required=False)
    requests_per_minute = forms.IntegerField(
        label="Requests a minute of each student", min_value=1, max_value=100_000, required=False
    )
    models_allowed = ModelsField(label="Models", help_text="None ticked: all that the team may use.")
    ends_at = LastDayField(label="Last day", help_text="All keys of the students end with it (UTC).")
    max_students = forms.IntegerField(
        label="Students at most", min_value=1, max_value=MAX_STUDENTS, initial=100, help_text="However they come."
    )
    group = forms.CharField(
        label="Group at the identity provider",
        max_length=200,
        required=False,
        help_text="Whoever signs in with this group is in the course, without an invitation.",
    )

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("amount") is not None and not given.get("per"):
            self.add_error("per", "Choose a window.")
        return given

    def fill(self, cohort: Cohort) -> Cohort:
        given = self.cleaned_data
        for name in ("amount", "requests_per_minute", "models_allowed", "ends_at", "max_students", "group"):
            setattr(cohort, name, given[name])
        cohort.per = given["per"] or "month"
        return cohort


class NewCohortForm(LimitsForm):
    name = forms.CharField(label="Name of the course", max_length=100, help_text="As the students know it.")
    team = forms.ChoiceField(
        label="Team",
        help_text="A team's budget and models count too. A new one is the course's own, and ends with it.",
    )
    cost_center = forms.CharField(label="Cost centre", max_length=64, required=False, help_text="Of a new team.")
    reason = forms.CharField(
        label="Reason",
        max_length=1000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="For whoever has to approve a new team.",
    )
    field_order = ("name", "team", "ends_at", "amount", "per", "requests_per_minute", "max_students", "models_allowed")

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teams = {str(team.pk): team for team in policy.managed_teams(user)}
        field: Any = self.fields["team"]
        own = [(pk, f"{team.name}, which is there already") for pk, team in self.teams.items()]
        field.choices = [*own, (NEW_TEAM, "A new team for this course")]

    @property
    def chosen_team(self) -> Any:
        """None: a new one."""
        return self.teams.get(self.cleaned_data["team"])


class InviteForm(forms.Form):
    people = forms.CharField(
        label="E-mail addresses or usernames",
        required=False,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
        help_text="One on each line, or as they come out of a spreadsheet.",
    )
    file = forms.FileField(label="Or a CSV file", required=False, help_text="Of each line the first e-mail address.")

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if not given.get("people") and not given.get("file"):
            raise ValidationError("Paste a list, or choose a file.")
        file = given.get("file")
        if file and file.size > MAX_FILE_BYTES:
            self.add_error("file", "This file is too large.")
        elif file:
            try:
                self.file_text = file.read().decode("utf-8-sig")
            except UnicodeDecodeError:
                self.add_error("file", "This is not a text file in UTF-8.")
        return given

    file_text = ""

    def names(self) -> list[str]:
        return [*names_in(self.cleaned_data["people"]), *names_in(self.file_text)]


class LinkForm(forms.Form):
    expires_at = LastDayField(label="Last day of the link")
    max_uses = forms.IntegerField(label="For so many people", min_value=1, max_value=MAX_STUDENTS, initial=30)
