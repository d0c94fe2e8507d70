"""Forms of the admin for alerts: rules, and destinations whose addresses are never shown again."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from accounts import catalogue
from accounts.encryption import Undecryptable
from accounts.models import User
from accounts.public_addresses import UnknownHost, is_public_address, resolve
from usage.alert_models import AlertDestination, AlertRule
from usage.alerts.addresses import NEEDS_HTTPS, UNSIGNED, clean_emails, clean_secret, clean_url
from usage.alerts.kinds import KINDS, MAX_THRESHOLDS, MOST_PERCENT, OF_SOME_KINDS, counts, fitting

Kind = AlertDestination.Kind


def kinds_with(field: str) -> list[str]:
    """The kinds of rules for which this field counts."""
    return [str(kind) for kind in KINDS if counts(field, kind)]


# --- destinations ---------------------------------------------------------------------------------------------------
class AlertDestinationForm(forms.ModelForm):
    """`user` is set by the admin: what may be saved depends on who saves it."""

    user: User

    emails = forms.CharField(
        label="E-mail addresses",
        required=False,
        max_length=4000,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "ops@example.org, anna@example.org"}),
        help_text="Separated by commas. Mail is sent through the server that EMAIL_URL names.",
    )
    new_url = forms.CharField(
        label="URL",
        required=False,
        max_length=2000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    new_secret = forms.CharField(
        label="Signing secret",
        required=False,
        max_length=500,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
    )

    class Meta:
        model = AlertDestination
        fields = ("name", "kind", "private_network", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stored_kind = self.instance.kind if self.instance.pk else ""
        url, secret = self.fields["new_url"], self.fields["new_secret"]
        url.help_text = "Of the incoming webhook. Kept encrypted and never shown again: whoever has it can post there."
        secret.help_text = (
            "With which messages are signed, so that the receiver knows they are ours: at least 16 characters, such "
            "as those of “openssl rand -hex 32”. Kept encrypted and never shown again."
        )
        if self._stored_kind == Kind.EMAIL:
            self.initial["emails"] = self._stored_emails()
        elif self._stored_kind:
            url.help_text = f"One is stored: {self.instance.address_shown} Leave empty to keep it."
            url.widget.attrs["placeholder"] = "••••••••••••"
        if self.instance.secret:
            secret.help_text = "One is stored. Leave empty to keep it; what you enter replaces it."
            secret.widget.attrs["placeholder"] = "••••••••••••"

    def _stored_emails(self) -> str:
        try:
            return str(self.instance.read_address())
        except Undecryptable:
            return ""

    def clean_emails(self) -> str:
        return clean_emails(self.cleaned_data["emails"].split(","))

    def clean_new_url(self) -> str:
        given = str(self.cleaned_data["new_url"])
        return clean_url(given) if given.strip() else ""

    def clean_new_secret(self) -> str:
        given = str(self.cleaned_data["new_secret"])
        return clean_secret(given) if given.strip() else ""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        kind = cleaned.get("kind")
        if not kind:
            return cleaned
        if kind == Kind.EMAIL:
            if not cleaned.get("emails") and "emails" not in self.errors:
                self.add_error("emails", "Enter at least one address.")
            return cleaned
        if "new_url" not in self.errors:
            self._check_url(cleaned, kind)
        has_secret = cleaned.get("new_secret") or self.instance.secret or "new_secret" in self.errors
        if kind == Kind.WEBHOOK and not has_secret:
            self.add_error("new_secret", UNSIGNED)
        return cleaned

    def _check_url(self, cleaned: dict[str, Any], kind: str) -> None:
        url = cleaned.get("new_url") or ""
        is_private = bool(cleaned.get("private_network", self.instance.private_network))
        if not url:
            if kind != self._stored_kind:
                self.add_error("new_url", "Enter the URL.")
            elif self._stored_needs_private() and not is_private:
                self.add_error(
                    "private_network", "The stored URL begins with http://. Enter another one with https://."
                )
            return
        if is_private and not self.user.is_superuser:
            self.add_error("new_url", "It may be in the private network: only a superuser can change where it leads.")
        elif not is_private:
            self._check_is_public(url)

    def _stored_needs_private(self) -> bool:
        try:
            return str(self.instance.read_address()).startswith("http://")
        except Undecryptable:
            return False

    def _check_is_public(self, url: str) -> None:
        """The address is judged again at each connection, so a name that is not known yet does no harm."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "https":
            self.add_error("new_url", NEEDS_HTTPS)
            return
        try:
            refused = [one for one in resolve(host, parts.port or 443) if not is_public_address(one)]
        except UnknownHost as error:
            self.add_error("new_url", str(error))
            return
        if refused:
            who = "Tick “may be in the private network” if that is meant."
            advice = who if self.user.is_superuser else "Only a superuser can allow that."
            self.add_error("new_url", f"{host} is {refused[0]}, in this machine or a private network. {advice}")

    def save(self, commit: bool = True) -> Any:
        cleaned, destination = self.cleaned_data, self.instance
        is_mail = destination.kind == Kind.EMAIL
        if address := cleaned["emails"] if is_mail else cleaned["new_url"]:
            destination.set_address(address)
        if destination.kind != Kind.WEBHOOK:
            destination.set_secret("")
        elif cleaned["new_secret"]:
            destination.set_secret(cleaned["new_secret"])
        return super().save(commit)


# --- rules ----------------------------------------------------------------------------------------------------------
class ThresholdsField(forms.CharField):
    """50, 80, 100 <-> [50, 80, 100]"""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(str(one) for one in value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        text = str(super().clean(value) or "")
        try:
            found = sorted({int(one.strip().removesuffix("%")) for one in text.split(",") if one.strip()})
        except ValueError:
            raise ValidationError("Write whole numbers separated by commas, such as 50, 80, 100.") from None
        if any(not 1 <= one <= MOST_PERCENT for one in found) or len(found) > MAX_THRESHOLDS:
            raise ValidationError(f"At most {MAX_THRESHOLDS} numbers between 1 and {MOST_PERCENT}.")
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.prepare_value(initial) != data)


NAMES = {"model": catalogue.model_names, "provider": catalogue.provider_names}


def _choices(everything: str, names: list[str], current: str) -> list[tuple[str, str]]:
    """What is chosen stays there to be chosen when there is nothing of that name any more."""
    gone = [current] if current and current not in names else []
    return [("", everything), *((name, name) for name in sorted([*names, *gone]))]


class AlertRuleForm(forms.ModelForm):
    thresholds = ThresholdsField(
        label="At these per cent of the budget",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "50, 80, 100"}),
        help_text="An alert at each of these shares, once in each window of each budget. Separated by commas.",
    )

    class Meta:
        model = AlertRule
        fields = ("name", "kind", *OF_SOME_KINDS, "destinations", "tell_when_over", "enabled")
        widgets = {
            "model": UnfoldAdminSelectWidget(),
            "provider": UnfoldAdminSelectWidget(),
            "destinations": UnfoldAdminCheckboxSelectMultipleWidget(),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, everything in (("model", "Every model"), ("provider", "Every provider")):
            if name in self.fields:
                self.fields[name].widget.choices = _choices(everything, NAMES[name](), getattr(self.instance, name))

    def clean(self) -> dict[str, Any]:
        """What does not count for the kind is emptied; of what counts, the empty is filled."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        kind = str(cleaned.get("kind") or self.instance.kind)
        if kind not in KINDS:
            return cleaned
        fits = fitting(kind, cleaned)
        return cleaned | {name: value for name, value in fits.items() if name not in self.errors}
