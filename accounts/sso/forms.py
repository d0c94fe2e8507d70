"""The admin's forms for identity providers and group rules."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from accounts.sso import documents, saml_messages
from accounts.sso.models import GroupRule, IdentityProvider

OIDC, SAML = IdentityProvider.Kind.OIDC, IdentityProvider.Kind.SAML


class IdentityProviderForm(forms.ModelForm):
    new_secret = forms.CharField(
        label="Client secret",
        required=False,
        max_length=2000,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password", "spellcheck": "false"}),
    )

    class Meta:
        model = IdentityProvider
        exclude = ("client_secret", "sp_key", "sp_certificate", "origin", "created_at")
        widgets = {
            name: UnfoldAdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false"})
            for name in ("metadata_xml", "affiliations_allowed", "groups_allowed")
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        secret = self.fields.get("new_secret")
        if secret is None:
            return
        secret.help_text = "OpenID Connect: kept encrypted and never shown again."
        if self.instance.client_secret:
            secret.help_text = "One is stored. Leave empty to keep it; what you enter replaces it."
            secret.widget.attrs["placeholder"] = "••••••••••••"

    def clean_discovery_url(self) -> str:
        return _checked(self.cleaned_data["discovery_url"])

    def clean_metadata_url(self) -> str:
        return _checked(self.cleaned_data["metadata_url"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        kind = cleaned.get("kind", self.instance.kind)
        if kind == OIDC:
            self._check_secret(cleaned)
        if kind == SAML and cleaned.get("metadata_xml"):
            self._check_metadata(cleaned)
        return cleaned

    def _check_secret(self, cleaned: dict[str, Any]) -> None:
        """A new address must not be sent the old secret."""
        moved = "discovery_url" in self.changed_data and self.instance.client_secret
        if moved and not cleaned["new_secret"]:
            self.add_error("new_secret", "The address has changed: enter the client secret again.")
        elif not self.instance.client_secret and not cleaned["new_secret"]:
            self.add_error("new_secret", "Enter the client secret that the IdP gave you.")

    def _check_metadata(self, cleaned: dict[str, Any]) -> None:
        tried = IdentityProvider(metadata_xml=cleaned["metadata_xml"], idp_entity_id=cleaned["idp_entity_id"])
        try:
            saml_messages.idp_facts(tried)
        except documents.Unusable as error:
            self.add_error("metadata_xml", str(error))

    def save(self, commit: bool = True) -> IdentityProvider:
        if self.cleaned_data.get("new_secret"):
            self.instance.set_secret(self.cleaned_data["new_secret"].strip())
        saved: IdentityProvider = super().save(commit)
        return saved


def _checked(url: str) -> str:
    try:
        if url:
            documents.check_url(url)
    except documents.Unusable as error:
        raise ValidationError(str(error)) from None
    return url


class GroupRuleForm(forms.ModelForm):
    class Meta:
        model = GroupRule
        fields = "__all__"
