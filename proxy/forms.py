"""Forms of the admin for providers, models and routes."""

from __future__ import annotations

import json
import re
import ssl
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import escape
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminURLInputWidget,
    UnfoldBooleanSwitchWidget,
)

from accounts.encryption import Undecryptable
from accounts.models import User
from proxy import selectors, services
from proxy.models import MODEL_NAME, Model, Provider
from proxy.providers import presets
from proxy.ssrf import PrivateAddress, RefusedUrl, UnknownHost, check_url
from usage.forms import CACHE_WRITE, CACHED, INPUT, OUTPUT, PRICES, price_field
from usage.pricing import to_usd

SET_SECRETS = "proxy.set_provider_secrets"
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*\Z")
# These belong to the connection, not to the provider's account.
HEADERS_OF_OURS = frozenset(
    {"host", "content-length", "content-type", "connection", "transfer-encoding", "upgrade", "te"}
)


class WriteOnlyTextarea(UnfoldAdminTextareaWidget):
    """Takes text and never gives it back, not even what was typed a moment ago."""

    def format_value(self, value: Any) -> None:
        return None


class ProviderForm(forms.ModelForm):
    """`user` and `may_set_secrets` are set by the admin: what may be saved depends on who saves it."""

    user: User
    may_set_secrets = True

    kind = forms.ChoiceField(
        choices=presets.kinds,
        widget=UnfoldAdminSelectWidget(),
        help_text="Who it is, or what it speaks. Fills in the usual base URL when that is left empty.",
    )
    base_url = forms.CharField(
        label="Base URL",
        required=False,
        max_length=500,
        widget=UnfoldAdminURLInputWidget(),
        help_text="Up to and including the version, such as https://api.openai.com/v1. Empty: the kind's usual one.",
    )
    new_credential = forms.CharField(
        label="API key",
        required=False,
        max_length=10_000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
    )
    remove_credential = forms.BooleanField(
        label="Remove the API key",
        required=False,
        widget=UnfoldBooleanSwitchWidget(),
        help_text="Calls then go without one, unless the caller brings it.",
    )
    new_extra_headers = forms.CharField(
        label="Extra headers",
        required=False,
        max_length=20_000,
        widget=WriteOnlyTextarea(attrs={"rows": 3, "spellcheck": "false", "placeholder": "X-Organization: acme"}),
    )
    remove_extra_headers = forms.BooleanField(
        label="Remove the extra headers", required=False, widget=UnfoldBooleanSwitchWidget()
    )

    class Meta:
        model = Provider
        fields = (
            "name",
            "kind",
            "base_url",
            "enabled",
            "caller_key",
            "api_version",
            "connect_timeout_s",
            "first_byte_timeout_s",
            "idle_timeout_s",
            "tls_verify",
            "tls_ca",
            "private_network",
        )
        widgets = {"tls_ca": UnfoldAdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stored_url = effective_url(self.instance.base_url, self.instance.kind)
        self.unresolved = ""
        if self.instance.pk:
            self._describe_secrets()
        else:
            del self.fields["remove_credential"], self.fields["remove_extra_headers"]
            self.fields["new_credential"].help_text = "Kept encrypted and never shown again."
            self.fields[
                "new_extra_headers"
            ].help_text = "Sent with every call, one “Name: value” a line. Kept encrypted and never shown again."
        if not self.may_set_secrets:
            for name in ("new_credential", "remove_credential", "new_extra_headers", "remove_extra_headers"):
                self.fields.pop(name, None)
        show_round_numbers(self)
        # admin/gatehouse.js shows the chosen kind's address as the placeholder.
        defaults = {kind: presets.default_base_url(kind) for kind, _ in presets.kinds()}
        self.fields["kind"].widget.attrs["data-base-urls"] = json.dumps(defaults)

    def _describe_secrets(self) -> None:
        """Say what is stored without saying it."""
        credential, headers = self.fields["new_credential"], self.fields["new_extra_headers"]
        if self.instance.credential:
            credential.help_text = "One is stored. Leave empty to keep it; what you enter replaces it."
            credential.widget.attrs["placeholder"] = "••••••••••••"
        else:
            credential.help_text = "None is stored. Kept encrypted and never shown again."
            del self.fields["remove_credential"]
        if self.instance.extra_headers:
            names = escape(", ".join(header_names(self.instance)))
            headers.help_text = f"Stored: {names}. Leave empty to keep them; what you enter replaces them all."
        else:
            headers.help_text = "None are stored. One “Name: value” a line. Kept encrypted and never shown again."
            del self.fields["remove_extra_headers"]

    def clean_new_extra_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in self.cleaned_data["new_extra_headers"].splitlines():
            if not line.strip():
                continue
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon or not HEADER_NAME.match(name) or not HEADER_VALUE.match(value):
                raise ValidationError("Write one header a line, as “Name: value”, in plain ASCII.")
            if name.lower() in HEADERS_OF_OURS:
                raise ValidationError(f"{name} is set by the gateway itself.")
            headers[name] = value
        return headers

    def clean_new_credential(self) -> str:
        credential = str(self.cleaned_data["new_credential"]).strip()
        if not HEADER_VALUE.match(credential):
            raise ValidationError("An API key is plain ASCII, without line breaks.")
        return credential

    def clean_base_url(self) -> str:
        return str(self.cleaned_data["base_url"]).strip()

    def clean_tls_ca(self) -> str:
        pem = str(self.cleaned_data["tls_ca"]).strip()
        try:
            if pem:
                ssl.create_default_context(cadata=pem)
        except (ssl.SSLError, ValueError) as error:
            raise ValidationError("These are no certificates in PEM: -----BEGIN CERTIFICATE----- ...") from error
        return pem

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for what in ("credential", "extra_headers"):
            if cleaned.get(f"remove_{what}") and cleaned.get(f"new_{what}"):
                self.add_error(f"remove_{what}", "Either enter a new one, or remove it.")
        if "kind" in cleaned and "base_url" in cleaned:
            self._check_address(cleaned)
        self._check_uses(cleaned)
        return cleaned

    def _check_uses(self, cleaned: dict[str, Any]) -> None:
        """Rules that ask this provider would fail at every call, and so block it."""
        before = self.initial.get("name")
        if not before or not (users := services.policies_asking(before)):
            return
        if cleaned.get("name", before) != before:
            self.add_error("name", f"It is asked as {before} by {users}. Publish without it first.")
        if self.initial.get("enabled") and not cleaned.get("enabled"):
            self.add_error("enabled", f"It is asked by {users}. Publish without it first.")

    def _check_address(self, cleaned: dict[str, Any]) -> None:
        url = effective_url(cleaned["base_url"], cleaned["kind"])
        if presets.adapter_for(cleaned["kind"]).answer is not None:
            if cleaned["base_url"]:
                self.add_error("base_url", "This kind answers inside the gateway: leave the base URL empty.")
            return
        if not url:
            self.add_error("base_url", "This kind has no usual address: enter yours.")
            return
        moved = origin(url) != origin(self._stored_url)
        if not self.may_set_secrets:
            if (moved or self._opens_tls(cleaned)) and self._keeps_secrets(cleaned):
                field = "base_url" if moved else "tls_verify"
                self.add_error(field, "It has an API key or extra headers, and you may not set these: they would be "
                               "sent where they were not meant for. Ask somebody who may set them.")  # fmt: skip
        elif self.instance.pk and moved and self._keeps_secrets(cleaned):
            self.add_error(
                "new_credential",
                "The address has changed. Enter the API key (and the extra headers) again, or remove them, so that "
                "they are not sent to somebody they are not meant for.",
            )
        if self.user.is_superuser or url != self._stored_url:
            self._check_network(url, cleaned)

    def _opens_tls(self, cleaned: dict[str, Any]) -> bool:
        """Whether somebody on the way could read along who could not before."""
        other_authority = cleaned.get("tls_ca", "") != str(self.initial.get("tls_ca") or "").strip()
        return other_authority or bool(self.initial.get("tls_verify") and not cleaned.get("tls_verify"))

    def _keeps_secrets(self, cleaned: dict[str, Any]) -> bool:
        return any(
            getattr(self.instance, what) and not cleaned.get(f"new_{what}") and not cleaned.get(f"remove_{what}")
            for what in ("credential", "extra_headers")
        )

    def _check_network(self, url: str, cleaned: dict[str, Any]) -> None:
        # Who may not switch it on gets no private address past either, on a provider where it is on already.
        allow_private = self.user.is_superuser and bool(cleaned.get("private_network"))
        try:
            check_url(url, allow_private)
        except UnknownHost as error:
            # The address is judged again at each connection, so an address that is not there yet does no harm.
            if not self.user.is_superuser and cleaned["base_url"]:
                self.add_error("base_url", str(error))
            self.unresolved = str(error)
        except PrivateAddress as error:
            advice = (
                "Tick “may be in the private network” if that is meant."
                if self.user.is_superuser
                else ("Only a superuser can allow that.")
            )
            self.add_error("base_url", f"{error} {advice}")
        except RefusedUrl as error:
            self.add_error("base_url", str(error))

    def new_secrets(self) -> dict[str, Any]:
        """For services.save_provider."""
        secrets: dict[str, Any] = {}
        for what, nothing in (("credential", ""), ("extra_headers", {})):
            if self.cleaned_data.get(f"remove_{what}"):
                secrets[what] = nothing
            elif self.cleaned_data.get(f"new_{what}"):
                secrets[what] = self.cleaned_data[f"new_{what}"]
        return secrets


def show_round_numbers(form: forms.ModelForm) -> None:
    """Begin with 300 seconds, not 300.0."""
    for name, value in form.initial.items():
        if isinstance(value, float) and value.is_integer():
            form.initial[name] = int(value)


def effective_url(base_url: str, kind: str) -> str:
    """The address in use: the one entered, else the kind's usual one; "" when there is none."""
    try:
        return base_url or presets.default_base_url(kind)
    except KeyError:
        return base_url


def origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def header_names(provider: Provider) -> list[str]:
    """Names of the stored extra headers. Empty when they cannot be decrypted any more."""
    try:
        return list(provider.read_extra_headers())
    except Undecryptable:
        return []


class AliasesField(forms.CharField):
    """Names, one a line or with commas; as a list."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [name for name in re.split(r"[\s,]+", value or "") if name]

    def validate(self, value: list[str]) -> None:
        for name in value:
            MODEL_NAME(name)

    def run_validators(self, value: Any) -> None:
        """`validate` has looked at each name."""

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool((initial or []) != self.to_python(data))


class ModelForm(forms.ModelForm):
    aliases = AliasesField(
        label="Aliases",
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2, "spellcheck": "false"}),
        help_text="Other names for the same model, one a line, so that clients need no change.",
    )

    class Meta:
        model = Model
        fields = (
            "name",
            "aliases",
            "description",
            "context_window",
            "max_output_tokens",
            "time_budget_s",
            "enabled",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        show_round_numbers(self)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "name" in cleaned and "aliases" in cleaned:
            try:
                if self.instance.pk and "name" in self.changed_data:
                    services.check_rename(self.initial["name"], cleaned["name"])
                services.check_model_names(cleaned["name"], cleaned["aliases"], self.instance)
            except ValidationError as error:
                self.add_error(None, error)
        return cleaned


class PricedModelForm(ModelForm):
    """For those who may also set prices. An entry that differs writes a price that counts from now on."""

    input_usd = price_field("Input", INPUT)
    output_usd = price_field("Output", OUTPUT)
    cached_usd = price_field("Cached input", CACHED)
    cache_write_usd = price_field("Cache write", CACHE_WRITE)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_price = selectors.own_price(self.instance.name) if self.instance.pk else None
        for name, usd in self._stored().items():
            self.initial[name] = usd

    def _stored(self) -> dict[str, Decimal | None]:
        nano = {name: getattr(self.own_price, f"{name}_nano_usd_per_mtok", None) for name in PRICES}
        return {f"{name}_usd": None if price is None else to_usd(price) for name, price in nano.items()}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        given = [cleaned.get(f"{name}_usd") is not None for name in PRICES]
        if self.own_price and not any(given) and not self.errors:
            self.add_error(
                "input_usd",
                "A price can be replaced, not emptied. To go back to the list price, delete it under Prices.",
            )
        elif any(given):
            for name, there in zip(PRICES[:2], given[:2], strict=True):
                if not there and f"{name}_usd" not in self.errors:
                    self.add_error(f"{name}_usd", "Needed with any other price. 0 means free.")
        return cleaned

    def has_new_price(self) -> bool:
        """Whether what was entered has to be written. A renamed model takes its price along."""
        given = {name: self.cleaned_data[name] for name in self._stored()}
        renamed = "name" in self.changed_data and self.own_price is not None
        return given["input_usd"] is not None and (renamed or given != self._stored())
