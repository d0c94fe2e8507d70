"""What people ask for, one form for each kind of request, and what those who decide answer."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from accounts import catalogue
from accounts.models import ApiKey, Team, User
from accounts.portal.choices import teams_of
from accounts.requests import money
from accounts.requests.fields import LastDayField, UsdField, window_field
from accounts.requests.models import AccessRequest, Kind

Subject = AccessRequest.Subject
KEYS = 200
LAST = ("cost_center", "reason")


class AskForm(forms.Form):
    """`request`: what is asked for, once it is valid."""

    kind: Kind
    cost_center = forms.CharField(
        label="Cost centre", max_length=64, required=False, help_text="Where it is to be charged, if you know it."
    )
    reason = forms.CharField(
        label="Reason", max_length=1000, widget=forms.Textarea(attrs={"rows": 3}), help_text="What you need it for."
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        self.order_fields([*(name for name in self.fields if name not in LAST), *LAST])
        self.prepare()

    def prepare(self) -> None:
        """Choices that depend on the person."""

    def request(self) -> AccessRequest:
        """Not saved. Raises ValidationError."""
        given = self.cleaned_data
        request = AccessRequest(kind=self.kind, requester=self.user)
        request.cost_center, request.reason = given["cost_center"], given["reason"]
        self.fill(request, given)
        return request

    def fill(self, request: AccessRequest, given: dict[str, Any]) -> None:
        raise ValidationError("Nothing is asked for.")

    def choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        field: Any = self.fields[name]
        field.choices = choices


class JoinForm(AskForm):
    kind = Kind.JOIN
    team = forms.CharField(label="Team", max_length=100, help_text="Its name, exactly as your colleagues see it.")

    def fill(self, request: AccessRequest, given: dict[str, Any]) -> None:
        request.team = Team.objects.filter(name__iexact=given["team"], personal_of=None).first()


class TeamForm(AskForm):
    kind = Kind.TEAM
    name = forms.CharField(label="Name of the team", max_length=100, help_text="You will be its manager.")
    amount = UsdField("Its budget in US dollars")
    per = window_field(initial="month")

    def fill(self, request: AccessRequest, given: dict[str, Any]) -> None:
        request.name, request.amount, request.per = given["name"], given["amount"], given["per"]


class ModelForm(AskForm):
    kind = Kind.MODEL
    model = forms.ChoiceField(label="Model")
    owner = forms.ChoiceField(label="For")

    def prepare(self) -> None:
        self.choices("model", [("", "Choose"), *((name, name) for name in catalogue.model_names())])
        self.choices("owner", owner_choices(self.user))

    def fill(self, request: AccessRequest, given: dict[str, Any]) -> None:
        request.model = given["model"]
        set_owner(request, given["owner"], self.user)


class BudgetForm(AskForm):
    kind = Kind.BUDGET
    budget = forms.ChoiceField(label="Which budget", help_text="Those that hold for you, with what is spent of them.")
    amount = UsdField("New amount in US dollars", help_text="The whole of it, not what is added.")
    once = forms.BooleanField(
        label="Only for the window that runs now", required=False, help_text="Then it goes back to what it was."
    )

    def prepare(self) -> None:
        self.budgets = {str(row.id): row for row in budgets_for(self.user)}
        names = {value: f"{whose(row)}: {row.amount_text}" for value, row in self.budgets.items()}
        self.choices("budget", [("", "Choose"), *names.items()])

    def fill(self, request: AccessRequest, given: dict[str, Any]) -> None:
        row = self.budgets[given["budget"]]
        request.budget_id, request.amount, request.once = row.id, given["amount"], given["once"]
        set_owner(request, "me" if row.scope == "user" else f"{row.scope}:{row.owner_id}", self.user)


class KeyForm(AskForm):
    kind = Kind.KEY
    name = forms.CharField(label="Name of the key", max_length=100, help_text="Such as the app that will use it.")
    team = forms.ChoiceField(label="Team", help_text="Whose limits and models apply.")
    amount = UsdField("Its budget in US dollars", required=False, help_text="Empty: only the team's budget counts.")
    per = window_field(initial="month", required=False)
    expires_at = LastDayField(label="Last day", required=False, help_text="Empty: it does not expire.")

    def prepare(self) -> None:
        teams = [(str(team.pk), team.name) for team in teams_of(self.user) if team.personal_of_id is None]
        self.choices("team", [*teams, ("me", "Just me")])

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if given.get("amount") is not None and not given.get("per"):
            self.add_error("per", "Choose a window.")
        return given

    def fill(self, request: AccessRequest, given: dict[str, Any]) -> None:
        request.name, request.amount, request.expires_at = given["name"], given["amount"], given["expires_at"]
        request.per = given["per"] if given["amount"] is not None else ""
        personal = Team.objects.filter(personal_of=self.user).first()
        chosen = None if given["team"] == "me" else Team.objects.filter(pk=int(given["team"])).first()
        request.team = chosen or personal


FORMS: dict[Kind, type[AskForm]] = {form.kind: form for form in (BudgetForm, ModelForm, KeyForm, JoinForm, TeamForm)}


# --- whose -----------------------------------------------------------------------------------------------------------
def owner_choices(user: User) -> list[tuple[str, str]]:
    """Me, my teams, my keys. Two queries."""
    teams = [(f"team:{team.pk}", f"Team {team.name}") for team in teams_of(user) if team.personal_of_id is None]
    keys = ApiKey.objects.filter(user=user, disabled=False)[:KEYS]
    return [("me", "Me, through any key"), *teams, *((f"key:{key.pk}", f"Key {key}") for key in keys)]


def set_owner(request: AccessRequest, value: str, user: User) -> None:
    """`value`: as in `owner_choices`. Whether it is theirs, `ask` judges."""
    kind, _, pk = value.partition(":")
    request.subject = Subject(kind)
    if kind == "team":
        request.team = Team.objects.filter(pk=int(pk)).first()
    elif kind == "key":
        request.key = ApiKey.objects.select_related("team").filter(pk=int(pk), user=user).first()
        request.team = request.key.team if request.key else None


def budgets_for(user: User) -> list[money.BudgetView]:
    """Those of the person, of their teams and of their keys."""
    keys = ApiKey.objects.filter(user=user, disabled=False).values_list("pk", flat=True)[:KEYS]
    owners = [("user", user.pk), *(("team", team.pk) for team in teams_of(user)), *(("key", pk) for pk in keys)]
    return money.source().budgets(owners)


def whose(row: money.BudgetView) -> str:
    name = {"user": "Mine", "team": f"Team {row.owner_name}", "key": f"Key {row.owner_name}"}[row.scope]
    return f"{name}, {row.model}" if row.model else name


# --- deciding --------------------------------------------------------------------------------------------------------
class DecideForm(forms.Form):
    amount = UsdField("Approve this much, in US dollars", required=False)
    reason = forms.CharField(
        label="Note to the requester",
        max_length=1000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Needed to decline.",
    )

    def __init__(self, request: AccessRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if request.amount is None:
            del self.fields["amount"]
        else:
            self.initial["amount"] = request.amount
