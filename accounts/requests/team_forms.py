"""The forms of a team's pages."""

from __future__ import annotations

from typing import Any

from django import forms

from accounts.models import Membership
from accounts.requests.fields import LastDayField, ModelsField, UsdField, window_field


class MemberForm(forms.Form):
    person = forms.CharField(label="Username or e-mail address", max_length=254)
    role = forms.ChoiceField(label="Role", choices=Membership.Role.choices, initial=Membership.Role.MEMBER)


class ServiceKeyForm(forms.Form):
    name = forms.CharField(label="Name of the key", max_length=100, help_text="Such as the app that will use it.")
    amount = UsdField("Its budget in US dollars", required=False, help_text="Empty: only the team's budget counts.")
    per = window_field(initial="month", required=False)
    models = ModelsField(label="Models", help_text="None ticked: all that the team may use.")
    expires_at = LastDayField(label="Last day", required=False, help_text="Empty: it does not expire.")

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("amount") is not None and not given.get("per"):
            self.add_error("per", "Choose a window.")
        return given


class BudgetAmountForm(forms.Form):
    amount = UsdField()
