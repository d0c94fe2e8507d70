"""Rate limits and the settings of money in the admin. Budgets: usage.budget_admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.admin_pages import LiveSoon
from usage import budgets
from usage.budget_admin import OWNER_FILTERS, OwnedAdmin
from usage.limit_forms import LimitForm, MoneySettingsForm, NewLimitForm
from usage.models import Limit, MoneySettings


@admin.register(Limit)
class LimitAdmin(OwnedAdmin):
    empty_hint = (
        "A rate limit says how many calls or tokens a minute, or how many calls at the same time, a key, a person, a "
        "team, each client IP or everybody may have. Calls above it are asked to come again a little later."
    )
    form = LimitForm
    add_form = NewLimitForm
    list_display = ("owner", "model_text", "requests", "tokens", "parallel")
    list_filter = OWNER_FILTERS
    readonly_fields = ("owner_link", "model_text")

    def get_fieldsets(self, request: HttpRequest, obj: Limit | None = None) -> Any:
        rates = (
            "How fast",
            {
                "fields": (("requests_per_minute", "tokens_per_minute"), "max_parallel"),
                "description": "What is left empty is not limited. A call must fit into every limit that it counts on.",
            },
        )
        if obj is None:
            return (("Whose calls count", {"fields": ("scope", "team", "user", "key", "model")}), rates)
        return ((None, {"fields": (("owner_link", "model_text"),)}), rates)

    @display(description="requests a minute", ordering="requests_per_minute", empty_value="not limited")
    def requests(self, limit: Limit) -> str | None:
        return rate_text(limit.requests_per_minute)

    @display(description="tokens a minute", ordering="tokens_per_minute", empty_value="not limited")
    def tokens(self, limit: Limit) -> str | None:
        return rate_text(limit.tokens_per_minute)

    @display(description="parallel calls", ordering="max_parallel", empty_value="not limited")
    def parallel(self, limit: Limit) -> str | None:
        return rate_text(limit.max_parallel)


def rate_text(rate: int | None) -> str | None:
    return None if rate is None else f"{rate:,}"


@admin.register(MoneySettings)
class MoneySettingsAdmin(LiveSoon, ModelAdmin):
    """One row, which nobody has to make: its page is where the list would be."""

    form = MoneySettingsForm
    fieldsets = (
        ("Budgets", {"fields": ("timezone", "when_redis_is_away", "default_max_tokens")}),
        (
            "Keys that policies block again and again",
            {"fields": (("blocks_to_throttle", "throttle_s"),)},
        ),
        ("How amounts are shown", {"fields": (("currency", "units_per_usd"),)}),
        (
            "What is kept",
            {
                "fields": (("events_kept_days", "rollups_kept_days"),),
                "description": "Sums by day are kept for ever, and budgets and reports stay right.",
            },
        ),
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:usage_moneysettings_change", args=[budgets.MONEY_ROW]))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> MoneySettings | None:
        """As it is by default, where nobody has saved it yet."""
        return budgets.money_settings()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: MoneySettings | None = None) -> bool:
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        hidden = {"show_save_and_add_another": False, "show_save_and_continue": False, "show_close": False}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **hidden})
