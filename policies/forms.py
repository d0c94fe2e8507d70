"""Forms of the admin for a policy: the policy with whom it holds for, a card for each rule, and what to try it on.

The cards are no formset of rows: a rule has no identity but its place (services.replace_rules), and each card has the
fields of its own check. They are read from the answer by number, and put in order by `position`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelectMultiple
from django.core.exceptions import ValidationError
from django.forms.utils import ErrorDict
from django.utils.html import format_html
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
    UnfoldBooleanWidget,
)

from accounts import catalogue
from accounts.models import ApiKey, Team
from policies import selectors, services, try_it
from policies.book import canonical
from policies.checks.base import CHECKS, EVERYWHERE, Check
from policies.display import action_label, check_label
from policies.documents import POLICY_FIELDS, RuleSpec, specs_of
from policies.fields import WordlistsField
from policies.models import Assignment, Policy, Rule
from policies.types import Action, Stage

MAX_RULES = 200
MAX_PASTED_CHARS = 100_000
RULE_COLUMNS = (
    "name", "action", "block_with", "answer", "stage", "message", "timeout_ms", "fail_open", "dry_run", "enabled",
)  # fmt: skip
# Buttons of the policy's page.
PUBLISH, ADD_RULE, TRY = "_publish", "_add_rule", "_try"
CUT_OFF = "The rules did not come back whole, so nothing was saved. Load the page again."
CHANGED_MEANWHILE = (
    "Somebody else has saved this policy since you opened the page. Look at it in another tab; "
    "if you save again here, what you see replaces what they saved."
)


# --- the theme's looks for forms that do not know it ---------------------------------------------------------------
def dress(form: forms.BaseForm) -> None:
    """Give the plain widgets of a form the theme's looks. Widgets of a check's own making stay as they are."""
    for field in form.fields.values():
        plain = field.widget
        dressed = _dressed(plain, field)
        if dressed is not None:
            dressed.is_required, dressed.is_localized = plain.is_required, plain.is_localized
            field.widget = dressed


def _dressed(plain: forms.Widget, field: forms.Field) -> Any:
    attrs = dict(plain.attrs)
    kind = type(plain)
    if kind is forms.TextInput:
        return UnfoldAdminTextInputWidget(attrs)
    if kind is forms.NumberInput:
        return UnfoldAdminIntegerFieldWidget(attrs)
    if kind is forms.Textarea:
        return UnfoldAdminTextareaWidget({**attrs, "class": f"gh-lines {attrs.get('class', '')}"})
    if kind is forms.CheckboxInput:
        return UnfoldBooleanSwitchWidget(attrs)
    choices: Any = getattr(field, "choices", ())
    if kind is forms.Select:
        return UnfoldAdminSelectWidget(attrs, choices)
    if kind in (forms.CheckboxSelectMultiple, forms.SelectMultiple):
        dressed = UnfoldAdminCheckboxSelectMultipleWidget(choices=choices)
        dressed.attrs.update({name: value for name, value in attrs.items() if name != "class"})
        return dressed
    return None


class WordlistPicker(UnfoldAdminCheckboxSelectMultipleWidget):
    """The word lists that exist, to be ticked. Its field writes lists as lines."""

    def format_value(self, value: Any) -> Any:
        return value.splitlines() if isinstance(value, str) else super().format_value(value)


def _offer_wordlists(form: forms.BaseForm, names: Sequence[str]) -> None:
    """A name that is set but gone stays there, to be seen and taken out."""
    for name, field in form.fields.items():
        if isinstance(field, WordlistsField):
            if not names:
                field.help_text = f"{field.help_text} There is none yet: make one first, under Word lists."
            field.widget = picker = WordlistPicker(choices=[(one, one) for one in names])
            chosen = str(form[name].value() or "").splitlines()
            picker.choices += [(one, f"{one} (no longer there)") for one in chosen if one not in names]


# --- a rule ---------------------------------------------------------------------------------------------------------
class RuleForm(forms.ModelForm):
    """One card: the rule's own fields, and `settings`, the form of its check (None when the check is gone).

    `number` names it in the answer, and is not its position. `spec` is what it says: once the form is valid.
    """

    position = forms.IntegerField(min_value=1, required=False)
    remove = forms.BooleanField(required=False, widget=UnfoldBooleanWidget({"data-remove": ""}))

    class Meta:
        model = Rule
        fields = RULE_COLUMNS
        labels = {
            "action": "What is done about it",
            "block_with": "The caller gets",
            "answer": "Text of the answer",
            "stage": "Looks at",
            "enabled": "On",
        }
        help_texts = {"stage": "Replies are read as they stream, before the caller gets them."}
        widgets = {"message": forms.Textarea(attrs={"rows": 2}), "answer": forms.Textarea(attrs={"rows": 3})}

    def __init__(
        self, number: int, spec: RuleSpec, wordlists: Collection[str], data: Mapping[str, Any] | None = None
    ) -> None:
        initial = {name: getattr(spec, name) for name in RULE_COLUMNS}
        super().__init__(data, prefix=f"rules-{number}", initial=initial, use_required_attribute=False)
        self.number, self.spec, self._wordlists = number, spec, wordlists
        self.is_new = False
        self.check: type[Check] | None = CHECKS.get(spec.check)
        self.settings: forms.Form | None = None
        if self.check is not None:
            self._narrow(self.check)
            self.settings = _settings_form(self.check, f"{self.prefix}-settings", spec, data)
            dress(self.settings)
            _offer_wordlists(self.settings, sorted(wordlists))
        dress(self)

    def _narrow(self, check: type[Check]) -> None:
        """Only what the check can do, in its own words; and what is set, if it cannot do that any more."""
        actions = [(action.value, action_label(check.name, action)) for action in Action if action in check.actions]
        self._offer("action", actions)
        self.fields["action"].help_text = " ".join(
            _action_help(check, action) for action in Action if action in check.actions
        )
        if len(check.stages) == 1:
            only = next(iter(check.stages)).value
            # "both" is wherever the check can look, which is the same.
            stages = [("both", only), (only, only)]
            self._offer("stage", stages)
            if self.spec.stage in dict(stages):
                self.fields["stage"].widget = forms.HiddenInput()
        self.fields["message"].help_text = format_html(
            "What a blocked caller reads: say what to do instead. Empty: “{}”", check.message
        )

    def _offer(self, name: str, choices: list[tuple[str, str]]) -> None:
        field: Any = self.fields[name]
        current = getattr(self.spec, name)
        field.choices = choices + ([] if current in dict(choices) else [(current, f"{current} (not possible here)")])

    # --- for the template ---
    @property
    def title(self) -> str:
        return check_label(self.spec.check)

    @property
    def help(self) -> str:
        return self.check.help if self.check else ""

    @property
    def waits_for_whole_reply(self) -> bool:
        return self.check is not None and self.check.needs_whole_reply

    @property
    def given_name(self) -> str:
        return str(self["name"].value() or "")

    @property
    def settings_text(self) -> str:
        """What is stored of a check that is gone."""
        return canonical(self.spec.settings)

    @property
    def only_stage(self) -> str:
        """Where a check looks that can look in one place only."""
        stages = self.check.stages if self.check else EVERYWHERE
        return {Stage.REQUEST: "requests", Stage.REPLY: "replies"}[next(iter(stages))] if len(stages) == 1 else ""

    @property
    def is_removed(self) -> bool:
        return bool(self["remove"].value())

    @property
    def has_errors(self) -> bool:
        return bool(self.errors or (self.settings and self.settings.errors))

    # --- the answer ---
    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.check is None:
            self.add_error(None, "Gatehouse no longer has this check. Remove the rule.")
        elif self.settings is not None and self.settings.is_valid() and not self.errors:
            self._clean_spec(self.settings.cleaned_data)
        return cleaned

    def _clean_spec(self, settings: Mapping[str, Any]) -> None:
        columns = {name: self.cleaned_data[name] for name in RULE_COLUMNS}
        self.spec = RuleSpec(check=self.spec.check, settings=dict(settings), **columns)
        if not self.spec.enabled:
            return  # it may wait for a word list that is not there yet
        try:
            self.spec = services.clean_rule(self.spec, self._wordlists)
        except ValidationError as error:
            for name, said in error.message_dict.items():
                self._add_errors(name, said)

    def _add_errors(self, name: str, said: list[str]) -> None:
        _, _, setting = name.partition("settings.")
        if self.settings is not None and setting in self.settings.fields:
            for one in said:
                self.settings.add_error(setting, one)
        else:
            self.add_error(name if name in self.fields else None, said)

    def _post_clean(self) -> None:
        """No row is made here: see services.replace_rules."""

    def is_valid(self) -> bool:
        """A rule that goes needs no correction."""
        return self.is_removed or (super().is_valid() and not self.has_errors)

    def judge_later(self) -> None:
        """Show what was typed, and no errors yet."""
        both: list[Any] = [self, self.settings]
        for form in filter(None, both):
            form._errors = ErrorDict()


def _action_help(check: type[Check], action: Action) -> str:
    meanings = {
        Action.AUDIT: "lets it pass and notes a finding.",
        Action.REDACT: "changes it and goes on.",
        Action.BLOCK: "ends the call.",
    }
    return f"“{action_label(check.name, action)}” {meanings[action]}"


def _settings_form(check: type[Check], prefix: str, spec: RuleSpec, data: Mapping[str, Any] | None) -> forms.Form:
    return check.SettingsForm(data, prefix=prefix, initial=dict(spec.settings), use_required_attribute=False)


def new_rule(check_name: str) -> RuleSpec:
    """A rule of this check as it is offered at first: it blocks, if it can, wherever it can look."""
    check = CHECKS[check_name]
    action = next(action for action in (Action.BLOCK, Action.REDACT, Action.AUDIT) if action in check.actions)
    return RuleSpec(check=check_name, action=action.value, timeout_ms=check.default_timeout_ms)


class RuleCards:
    """The rules of a policy, in order: one RuleForm for each. From `specs`, or from the `data` that came back."""

    def __init__(self, specs: Iterable[RuleSpec] = (), data: Mapping[str, Any] | None = None) -> None:
        self._wordlists = selectors.wordlist_names()
        self.is_whole = True
        if data is None:
            self.forms = [RuleForm(number, spec, self._wordlists) for number, spec in enumerate(specs)]
        else:
            self.forms = self._read(data)
        self.next_number = max((form.number for form in self.forms), default=-1) + 1

    def _read(self, data: Mapping[str, Any]) -> list[RuleForm]:
        """Numbers may have gaps. Without their count the answer was cut off, or is none of ours."""
        count = str(data.get("rules-next", ""))
        self.is_whole = count.isdecimal() and len(count) < 5
        numbers = [number for number in range(int(count)) if f"rules-{number}-check" in data] if self.is_whole else []
        if len(numbers) > MAX_RULES:
            numbers, self.is_whole = [], False
        checks = ((number, str(data[f"rules-{number}-check"])) for number in numbers)
        specs = ((number, new_rule(name) if name in CHECKS else RuleSpec(check=name)) for number, name in checks)
        return sorted((RuleForm(number, spec, self._wordlists, data) for number, spec in specs), key=_position)

    def add(self, check_name: str) -> RuleForm | None:
        """An empty card at the end. None: there is no such check, or no room."""
        if check_name not in CHECKS or len(self.forms) >= MAX_RULES:
            return None
        card = RuleForm(self.next_number, new_rule(check_name), self._wordlists)
        card.is_new = True
        self.forms.append(card)
        self.next_number += 1
        return card

    def judge_later(self) -> None:
        for form in self.forms:
            form.judge_later()

    def is_valid(self) -> bool:
        return self.is_whole and not self.wrong()

    def wrong(self) -> list[str]:
        """Names of the rules that need a correction."""
        return [
            f"rule {position} ({form.given_name or form.title})"
            for position, form in enumerate(self.forms, 1)
            if not form.is_valid()
        ]

    def specs(self) -> list[RuleSpec]:
        """Of valid cards."""
        return [form.spec for form in self.forms if not form.is_removed]

    @property
    def media(self) -> forms.Media:
        media = forms.Media()
        for form in self.forms:
            media += form.media + (form.settings.media if form.settings else forms.Media())
        return media


def _position(card: RuleForm) -> int:
    value = str(card["position"].value() or "")
    return int(value) if value.isdecimal() and len(value) < 7 else MAX_RULES * 10


# --- the policy -----------------------------------------------------------------------------------------------------
class PolicyForm(forms.ModelForm):
    """The policy, its `rules`, and whom it holds for.

    `fixed` names fields that this person may not change, `template` the rules that a new policy begins with; both are
    set by the admin, for each request.
    """

    fixed: Collection[str] = ()
    template: Sequence[RuleSpec] = ()

    everyone = forms.BooleanField(required=False, help_text="Every call through the gateway, whoever makes it.")
    teams = forms.ModelMultipleChoiceField(Team.objects.all(), required=False, help_text="All keys of these teams.")
    keys = forms.ModelMultipleChoiceField(
        ApiKey.objects.all(), label="API keys", required=False, help_text="These keys, whatever their team."
    )
    note = forms.CharField(
        label="Why you publish",
        max_length=300,
        required=False,
        help_text="In a line, for your colleagues: it stands in the list of versions.",
    )
    opened = forms.CharField(required=False, widget=forms.HiddenInput())

    class Meta:
        model = Policy
        fields = ("name", "description", "enabled", *POLICY_FIELDS)
        labels = {"header_overrides": "Headers x-usagepanda-*", "retention_days": "Kept for (days)"}
        widgets = {"description": UnfoldAdminTextareaWidget(attrs={"rows": 2})}
        error_messages = {"name": {"unique": "There is already a policy of this name."}}

    def __init__(self, data: Any = None, files: Any = None, **kwargs: Any) -> None:
        super().__init__(data, files, **kwargs)
        policy: Policy = self.instance
        specs = specs_of(policy.rules.all()) if policy.pk else self.template
        assignments = list(policy.assignments.all()) if policy.pk else []
        self.rules = RuleCards(specs, data)
        self.fingerprint = _fingerprint(policy, specs, assignments) if policy.pk else ""
        self.initial.update(
            everyone=any(row.scope == Assignment.Scope.EVERYONE for row in assignments),
            teams=[row.team_id for row in assignments if row.team_id],
            keys=[row.key_id for row in assignments if row.key_id],
            opened=self.fingerprint,
        )
        self._show_whom()
        # Without JavaScript the whole page goes to and fro for another card, or for a try, and nothing is saved.
        self._asks_for_card = data is not None and ADD_RULE in data
        self._tries = data is not None and TRY in data
        if self._asks_for_card:
            self.rules.judge_later()
            self.rules.add(str(data[ADD_RULE]))

    def _show_whom(self) -> None:
        for name, column in (("teams", "team"), ("keys", "key")):
            field: Any = self.fields[name]
            field.widget = AutocompleteSelectMultiple(Assignment._meta.get_field(column), admin.site)
            field.widget.choices = field.choices
        self.fields["everyone"].widget = UnfoldBooleanSwitchWidget()
        self.fields["note"].widget = UnfoldAdminTextInputWidget()
        for name in self.fixed:
            if name in self.fields:
                self.fields[name].disabled = True

    # --- the answer ---
    def full_clean(self) -> None:
        if self._asks_for_card:  # it is not judged yet
            self._errors, self.cleaned_data = ErrorDict(), {}
        else:
            super().full_clean()

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.rules.is_valid():
            wrong = self.rules.wrong()
            self.add_error(None, f"Please correct {', '.join(wrong)}." if wrong else CUT_OFF)
        opened = cleaned.get("opened")
        if opened and opened != self.fingerprint and not self._tries:
            self.add_error(None, CHANGED_MEANWHILE)
            data: Any = self.data
            self.data = data.copy()
            self.data[self.add_prefix("opened")] = self.fingerprint  # type: ignore[index]
        return cleaned

    def is_valid(self) -> bool:
        return not self._asks_for_card and not self._tries and super().is_valid()

    @property
    def media(self) -> forms.Media:
        return super().media + self.rules.media


def _fingerprint(policy: Policy, specs: Sequence[RuleSpec], assignments: Iterable[Assignment]) -> str:
    """Of all that the page shows, as it is stored now: tells whether it was saved meanwhile."""
    shown = {name: getattr(policy, name) for name in ("name", "description", "enabled", *POLICY_FIELDS)}
    rules = [asdict(spec) for spec in specs]
    whom = sorted(str((row.team_id, row.key_id)) for row in assignments)
    return hashlib.sha256(canonical([shown, rules, whom]).encode()).hexdigest()[:16]


# --- try it ---------------------------------------------------------------------------------------------------------
class TryForm(forms.Form):
    """What to try a policy on. `conversation` is set when it is valid."""

    text = forms.CharField(
        label="Request",
        strip=False,
        max_length=MAX_PASTED_CHARS,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false", "placeholder": "Hello, can you help me with …"}),
        help_text="What a user writes, or the JSON of a whole request with its messages and tools.",
    )
    reply = forms.CharField(
        strip=False,
        required=False,
        max_length=MAX_PASTED_CHARS,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
        help_text="What the model answers, or the JSON of a whole reply. Empty: only the request is tried.",
    )
    model = forms.CharField(
        required=False,
        max_length=200,
        help_text="The model that is asked for, for rules about models. JSON with a model of its own wins.",
    )

    def __init__(self, data: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(data, prefix="try", use_required_attribute=False, **kwargs)
        if "model" not in self.initial:
            self.initial["model"] = next(iter(catalogue.model_names()), "")
        dress(self)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "text" in cleaned and "reply" in cleaned:
            try:
                self.conversation = try_it.read(cleaned["text"], cleaned["reply"], cleaned.get("model", ""))
            except ValidationError as error:
                self.add_error(None, error)
        return cleaned


class VersionedTryForm(TryForm):
    """With the choice of what is tried."""

    WORKING, IN_FORCE = "working", "current"
    rules = forms.ChoiceField(
        label="What to try",
        help_text="The working copy is what was saved last, published or not.",
    )

    def __init__(self, policy: Policy, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(data)
        choices = [(self.WORKING, "The working copy")]
        if policy.current is not None:
            choices.append((self.IN_FORCE, f"Version {policy.current.number}, in force"))
        field: Any = self.fields["rules"]
        field.choices = choices


class RollBackForm(forms.Form):
    note = forms.CharField(
        label="Why",
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="In a line, for the list of versions. May be empty.",
    )
