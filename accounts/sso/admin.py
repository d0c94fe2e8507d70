"""The admin's pages for identity providers and what their groups give."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from cryptography import x509
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from accounts.admin_pages import change_url
from accounts.sso import documents, saml_messages
from accounts.sso.forms import GroupRuleForm, IdentityProviderForm
from accounts.sso.models import GroupRule, IdentityProvider

OIDC, SAML = IdentityProvider.Kind.OIDC, IdentityProvider.Kind.SAML
OF_OIDC = ("discovery_url", "client_id", "new_secret", "scopes")
OF_SAML = ("metadata_url", "metadata_xml", "idp_entity_id", "subject_names", "allow_idp_initiated")
MAPPED = ("username_names", "email_names", "first_name_names", "last_name_names", "affiliation_names", "group_names")
# Kept encrypted by our adapters, or empty; the library's own pages would show them in the clear.
OF_THE_LIBRARY = (EmailAddress, Authenticator, SocialAccount, SocialApp, SocialToken)

for model in OF_THE_LIBRARY:
    if admin.site.is_registered(model):
        admin.site.unregister(model)


@admin.register(IdentityProvider)
class IdentityProviderAdmin(ModelAdmin):
    empty_hint = "An identity provider lets people of your organisation sign in here without another password."
    form = IdentityProviderForm
    list_display = ("name", "kind", "slug", "state", "shown", "origin")
    list_per_page = 50
    actions_detail = ("test",)
    change_form_before_template = "admin/sso/identityprovider/addresses.html"
    # Of a row that is there the kind is no field of the form, and only what is of its kind is shown at all.
    conditional_fields = {
        name: f"typeof kind === 'undefined' || kind == '{kind}'"
        for kind, names in ((OIDC, OF_OIDC), (SAML, OF_SAML))
        for name in names
    }

    def get_fieldsets(self, request: HttpRequest, obj: IdentityProvider | None = None) -> Any:
        may_edit = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        of_oidc = OF_OIDC if may_edit else tuple(name for name in OF_OIDC if name != "new_secret")
        reached_by = (*of_oidc, *OF_SAML) if obj is None else OF_SAML if obj.kind == SAML else of_oidc
        return (
            (None, {"fields": ("kind", "slug", "name", ("enabled", "hidden"))}),
            ("How to reach it", {"fields": reached_by}),
            (
                "Who may sign in",
                {
                    "fields": ("affiliations_allowed", "groups_allowed"),
                    "description": "Looked at again at every sign-in.",
                },
            ),
            (
                "What it says of people",
                {
                    "fields": MAPPED,
                    "classes": ("collapse",),
                    "description": "Names of claims or attributes. Empty means the usual ones.",
                },
            ),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: IdentityProvider | None = None) -> tuple[str, ...]:
        # Every identity hangs on them.
        return () if obj is None else ("kind", "slug")

    def has_change_permission(self, request: HttpRequest, obj: IdentityProvider | None = None) -> bool:
        allowed = bool(super().has_change_permission(request, obj))
        return allowed and getattr(obj, "origin", None) != IdentityProvider.Origin.ENVIRONMENT

    def has_delete_permission(self, request: HttpRequest, obj: IdentityProvider | None = None) -> bool:
        allowed = bool(super().has_delete_permission(request, obj))
        return allowed and getattr(obj, "origin", None) != IdentityProvider.Origin.ENVIRONMENT

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        idp = self.get_object(request, unquote(object_id))
        shown = {"addresses": addresses_for(request, idp) if idp else []}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})

    @display(description="state", ordering="enabled", label={"on": "success"})
    def state(self, idp: IdentityProvider) -> str:
        return "on" if idp.enabled else "off"

    @display(description="on the sign-in page", boolean=True)
    def shown(self, idp: IdentityProvider) -> bool:
        return idp.enabled and not idp.hidden

    @action(description="Test", icon="network_check", url_path="test", permissions=["view"])
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        idp = self.get_object(request, unquote(object_id))
        if idp is None:
            raise Http404("There is no such identity provider.")
        try:
            messages.success(request, found_at(idp))
        except documents.Unusable as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(change_url(idp))


def addresses_for(request: HttpRequest, idp: IdentityProvider) -> list[tuple[str, str]]:
    """What the IdP must be told, as (what it is, address)."""
    if idp.kind == SAML:
        own = saml_messages.addresses(request, idp)
        return [
            ("Metadata, and our entity ID", own["metadata"]),
            ("Assertion consumer service (ACS), HTTP-POST", own["acs"]),
            ("Single logout service", own["sls"]),
        ]
    names = (("Redirect URI", "openid_connect_callback"), ("Back-channel log-out URI", "oidc_backchannel_logout"))
    return [(what, request.build_absolute_uri(reverse(name, args=[idp.slug]))) for what, name in names]


def found_at(idp: IdentityProvider) -> str:
    """A sentence or two on what the IdP publishes. Raises documents.Unusable."""
    if idp.kind == SAML:
        return _saml_found(idp)
    found = documents.discovery(idp.discovery_url, fresh=True)
    keys = documents.signing_keys(found["jwks_uri"])
    missing = [scope for scope in idp.scopes.split() if scope not in found.get("scopes_supported", idp.scopes.split())]
    parts = [f"Found the issuer {found['issuer']} with {_counted(len(keys), 'signing key')}."]
    if missing:
        parts.append(f"It does not name the scopes {', '.join(missing)} among those it knows.")
    if not found.get("backchannel_logout_supported"):
        parts.append("It does not say that it can log people out here (back-channel log-out).")
    return " ".join(parts)


def _saml_found(idp: IdentityProvider) -> str:
    facts = saml_messages.idp_facts(idp, fresh=True)
    certificates = facts.get("x509certMulti", {}).get("signing") or [facts["x509cert"]]
    parts = [f"Found {facts['entityId']} with {_counted(len(certificates), 'certificate')}."]
    ends = [end for end in map(_end_of, certificates) if end]
    if ends:
        parts.append(f"The last of them ends on {max(ends)}.")
    if not facts.get("singleLogoutService", {}).get("url"):
        parts.append("It names no log-out address.")
    return " ".join(parts)


def _end_of(certificate: str) -> str:
    """As a date; "" for what is no certificate."""
    body = "".join(line for line in certificate.split() if "-----" not in line)
    pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.date().isoformat()
    except ValueError:
        return ""


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


@admin.register(GroupRule)
class GroupRuleAdmin(ModelAdmin):
    empty_hint = "A rule gives everybody with a group at the identity provider a team and a role, or rights, here."
    form = GroupRuleForm
    list_display = ("value", "source", "provider", "team", "role", "group", "makes_staff", "makes_superuser", "enabled")
    list_filter = ("provider", "enabled")
    list_select_related = ("provider", "team", "group")
    list_per_page = 50
    search_fields = ("value", "team__name")
    search_help_text = "Group or team"
    autocomplete_fields = ("team",)
    # Whoever may set these may give themselves every right there is.
    for_superusers = ("group", "makes_staff", "makes_superuser")
    fieldsets = (
        (
            None,
            {
                "fields": ("provider", ("source", "value"), "enabled"),
                "description": "Applied at each sign-in: who has lost the group at the identity provider loses what "
                "the rule gave, and their keys in that team stop at once. What was given by hand stays.",
            },
        ),
        ("What it gives", {"fields": (("team", "role"), "group", ("makes_staff", "makes_superuser"))}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: GroupRule | None = None) -> tuple[str, ...]:
        return () if request.user.is_superuser else self.for_superusers
