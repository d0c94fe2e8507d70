"""Requests, their rules, courses and terms in the admin. Requests are decided and courses run on the portal's pages, to
which these link."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSelectWidget

from accounts import catalogue
from accounts.admin_pages import RowFilter
from accounts.requests import policy
from accounts.requests.fields import UsdField
from accounts.requests.models import (
    AccessRequest,
    AccessSettings,
    Cohort,
    RequestRule,
    TermsAgreement,
    TermsVersion,
)
from accounts.requests.money import amount_text, usd
from accounts.requests.notices import words

SETTINGS_ROW = 1
STATE_COLOURS = {"open": "info", "approved": "success", "declined": "danger"}


class ReadOnly(ModelAdmin):
    """Made and changed elsewhere."""

    list_fullwidth = True
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(AccessRequest)
class AccessRequestAdmin(ReadOnly):
    list_display = ("asked_for", "requester", "team", "shown_state", "created_at", "decided_by")
    list_filter = (
        ("state", ChoicesDropdownFilter),
        ("kind", ChoicesDropdownFilter),
        ("team", RowFilter),
        ("requester", RowFilter),
    )
    list_select_related = ("requester", "team", "key", "cohort", "decided_by")
    search_fields = ("requester__username", "name", "model", "cost_center")
    fields = (
        *("asked_for", "page", "shown_state", "requester", "team", "key", "cohort", "asked_amount", "granted"),
        *("cost_center", "reason", "outcome", "decided_by", "decided_at", "decision_reason", "collected_at"),
    )

    @display(description="request")
    def asked_for(self, row: AccessRequest) -> str:
        return words(row)

    @display(description="state", label=STATE_COLOURS)
    def shown_state(self, row: AccessRequest) -> tuple[str, str]:
        return row.state, row.get_state_display()

    @display(description="amount")
    def asked_amount(self, row: AccessRequest) -> str:
        return amount_text(row.amount, row.per) or "-"

    @display(description="granted")
    def granted(self, row: AccessRequest) -> str:
        return amount_text(row.granted_amount, row.per) or "-"

    @display(description="decide")
    def page(self, row: AccessRequest) -> str:
        """In the portal: nobody decides their own."""
        url = reverse("access_decide", args=[row.pk])
        return format_html('<a href="{}" class="text-link">Open it in the portal</a>', url)


class RuleForm(forms.ModelForm):
    max_per_month = UsdField(
        "Up to, in US dollars a month",
        required=False,
        help_text="Only amounts up to that. Other windows are reckoned as a month; keys, teams and courses that the "
        "rules granted before count too. Empty: any amount.",
    )
    model = forms.ChoiceField(
        label="Model", required=False, widget=UnfoldAdminSelectWidget(), help_text="Only this one. Empty: any."
    )

    class Meta:
        model = RequestRule
        fields = ("kind", "outcome", "position", "team", "model", "group", "max_per_month", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = catalogue.model_names()
        kept = [self.instance.model] if self.instance.model and self.instance.model not in names else []
        model: Any = self.fields["model"]
        model.choices = [("", "Any"), *((name, name) for name in [*names, *kept])]
        self.fields["max_per_month"].widget = UnfoldAdminDecimalFieldWidget(attrs={"step": "any"})


@admin.register(RequestRule)
class RequestRuleAdmin(ModelAdmin):
    form = RuleForm
    list_display = ("kind", "outcome", "position", "who", "up_to", "enabled")
    list_filter = (("kind", ChoicesDropdownFilter), ("outcome", ChoicesDropdownFilter))
    list_select_related = ("team",)
    autocomplete_fields = ("team",)

    @display(description="only")
    def who(self, row: RequestRule) -> str:
        only = (row.team and f"team {row.team}", row.model, row.group and f"group {row.group}")
        return ", ".join(part for part in only if part) or "-"

    @display(description="up to a month")
    def up_to(self, row: RequestRule) -> str:
        return "-" if row.max_per_month is None else usd(row.max_per_month)


class SettingsForm(forms.ModelForm):
    key_threshold = UsdField(
        "Keys are free up to, in US dollars a month",
        required=False,
        help_text="Who makes a key with a larger budget, or without one, has to ask for it. Empty: nobody has to.",
    )

    class Meta:
        model = AccessSettings
        fields = ("key_threshold", "open_days")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["key_threshold"].widget = UnfoldAdminDecimalFieldWidget(attrs={"step": "any"})


@admin.register(AccessSettings)
class AccessSettingsAdmin(ModelAdmin):
    """One row, which nobody has to make: its page is where the list would be."""

    form = SettingsForm

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:access_accesssettings_change", args=[SETTINGS_ROW]))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> AccessSettings | None:
        """As it is by default, where nobody has saved it yet."""
        row = policy.settings()
        row.pk = row.pk or SETTINGS_ROW
        return row

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Cohort)
class CohortAdmin(ReadOnly):
    list_display = ("name", "team", "made_by", "ends_at", "stopped_at", "budget")
    list_filter = (("team", RowFilter),)
    list_select_related = ("team", "made_by")
    search_fields = ("name",)
    fields = (
        *("name", "page", "team", "made_by", "budget", "requests_per_minute", "models_allowed", "ends_at"),
        *("stopped_at", "waits", "group", "max_students", "created_at"),
    )

    @display(description="budget of each student")
    def budget(self, row: Cohort) -> str:
        return amount_text(row.amount, row.per) or "-"

    @display(description="look after it")
    def page(self, row: Cohort) -> str:
        url = reverse("access_cohort", args=[row.pk])
        return format_html('<a href="{}" class="text-link">Open it in the portal</a>', url)


@admin.register(TermsVersion)
class TermsVersionAdmin(ModelAdmin):
    list_display = ("title", "published_at", "grace_until")
    fields = ("title", "text", "published_at", "grace_until")

    def get_readonly_fields(self, request: HttpRequest, obj: TermsVersion | None = None) -> tuple[str, ...]:
        """What people may have agreed to stays as they read it."""
        return ("title", "text", "published_at") if is_published(obj) else ()

    def has_delete_permission(self, request: HttpRequest, obj: TermsVersion | None = None) -> bool:
        return not is_published(obj) and super().has_delete_permission(request, obj)


def is_published(version: TermsVersion | None) -> bool:
    return version is not None and version.published_at is not None and version.published_at <= timezone.now()


@admin.register(TermsAgreement)
class TermsAgreementAdmin(ReadOnly):
    list_display = ("user", "version", "at")
    list_filter = (("version", RowFilter), ("user", RowFilter))
    list_select_related = ("user", "version")
    search_fields = ("user__username",)
    fields = ("user", "version", "at")
