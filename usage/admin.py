"""The admin's pages for usage events."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import display
from unfold.views import ChangeList

from accounts.admin_pages import RowFilter, label, link_to, short_time
from accounts.keyset import NameFilter, distinct_values
from accounts.models import ApiKey, Team, User
from usage import (
    alert_admin,  # noqa: F401 - registers its pages
    chargeback_admin,
    limit_admin,  # noqa: F401 - registers its pages, and those of budgets
    price_admin,  # noqa: F401 - registers its pages
    report_admin,
)
from usage.call_sections import sections_of
from usage.display import duration, money, usd
from usage.downloads import streamed
from usage.event_list import EventList, EventWindow
from usage.exports import FORMATS, adjustments_of, pages
from usage.models import Budget, UsageEvent

CLIENT_LEFT, GATEWAY_DIED = 499, 0
STATUS_COLORS = {"ok": "success", "refused": "warning", "failed": "danger", "left": "info"}
UNPRICED = "The model's price was not known when it was called."
ADJUSTED = "priced again after the call"
ESTIMATED = "estimated by the gateway: the provider reported no tokens"


class ModelNameFilter(NameFilter):
    title = parameter_name = "model"


class ProviderNameFilter(NameFilter):
    title = parameter_name = "provider"


class ErrorFilter(DropdownFilter):
    title = "outcome"
    parameter_name = "error"
    any_error = "any"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        codes = distinct_values(UsageEvent, "error_code")
        return [(self.any_error, "Errors only"), *((code, f"Error: {code}") for code in codes)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageEvent]) -> QuerySet[UsageEvent]:
        if not self.value():
            return queryset
        # In these words, because the indexes hold errors only.
        errors = queryset.exclude(error_code="")
        return errors if self.value() == self.any_error else errors.filter(error_code=self.value())


@admin.register(UsageEvent)
class UsageEventAdmin(ModelAdmin):
    """Read-only: an event is written once, by the journal."""

    empty_hint = "Calls appear here within seconds. Choose a longer time above to see older ones."
    list_before_template = "admin/usage/usageevent/above_list.html"
    change_form_after_template = "admin/usage/usageevent/sections.html"
    actions_detail_hide_default = True

    list_display = (
        "time",
        "key_name",
        "model_name",
        "provider_name",
        "outcome",
        "tokens",
        "cost",
        "latency",
        "first_byte",
    )
    list_display_links = ("time",)
    list_filter = (
        EventWindow,
        ErrorFilter,
        ("key", RowFilter),
        ("team", RowFilter),
        ("user", RowFilter),
        ModelNameFilter,
        ProviderNameFilter,
    )
    list_filter_submit = True
    list_fullwidth = True
    list_per_page = 50
    list_select_related = False
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None
    search_fields = ("request_id",)
    search_help_text = "Request id, or public id of a key"
    fieldsets = (
        (
            "The call",
            {
                "fields": (
                    ("time", "outcome_text"),
                    ("request_id", "endpoint"),
                    ("answer", "attempts_text"),
                    "refused_by_text",
                )
            },
        ),
        ("Who", {"fields": (("key_link", "end_user"), ("team_link", "user_link"))}),
        ("Where it went", {"fields": (("model", "provider"), "upstream_model")}),
        (
            "What it used",
            {
                "fields": (
                    ("prompt_tokens", "completion_tokens"),
                    ("details", "units_text"),
                    ("cost", "adjustments"),
                    ("latency", "first_byte"),
                )
            },
        ),
        (
            "What the caller sent with it",
            {"fields": (("client_ip", "user_agent"), ("organization", "trace_id"), "tags_text")},
        ),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EventList

    def get_urls(self) -> list[Any]:
        views = {
            "dashboard": ("dashboard/", partial(report_admin.dashboard, self)),
            "dashboard_csv": ("dashboard.csv", partial(report_admin.dashboard_csv, self)),
            "chargeback": ("chargeback/", partial(chargeback_admin.page, self)),
            "chargeback_file": ("chargeback.<slug:kind>", partial(chargeback_admin.file, self)),
            "usageevent_export": ("export/<slug:kind>/", self.export),
        }
        wrap = self.admin_site.admin_view
        own = [path(route, wrap(view), name=f"usage_{name}") for name, (route, view) in views.items()]
        inherited: list[Any] = super().get_urls()
        return own + inherited

    def export(self, request: HttpRequest, kind: str) -> HttpResponseBase:
        """What the list with the same address shows, and all pages of it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if kind not in FORMATS:
            raise Http404
        try:
            found: Any = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(reverse("admin:usage_usageevent_changelist") + "?e=1")
        if found.unread:  # the list says so; a file of another time than was meant would not
            return HttpResponseRedirect(reverse("admin:usage_usageevent_changelist") + found.get_query_string())
        made = FORMATS[kind]
        name = f"usage-events-{timezone.now():%Y-%m-%dT%H%M%SZ}.{kind}"
        return streamed(request, name, made.content_type, made.write(pages(found.queryset)))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> UsageEvent | None:
        """With `links` to its key, team and owner, made once: the page asks for each of them several times."""
        event: Any = super().get_object(request, object_id, from_field)
        if event is not None:
            event.adjustment_nano_usd = adjustments_of([event.pk]).get(event.pk, 0)
            event.links = {
                "key": link_to(ApiKey, event.key_id, event.key_label),
                "team": link_to(Team, event.team_id),
                "user": link_to(User, event.user_id),
            }
        return event  # type: ignore[no-any-return]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        event_id = as_uuid(unquote(object_id))
        sections = sections_of(request, event_id) if event_id and self.has_view_permission(request) else []
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "sections": sections})

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Filters that ask another list for names only for those who may see that list."""
        shown = {
            field: self.admin_site.get_model_admin(model).has_view_permission(request)
            for field, model in (("key", ApiKey), ("team", Team), ("user", User))
        }
        return [entry for entry in self.list_filter if not isinstance(entry, tuple) or shown[entry[0]]]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageEvent], search_term: str
    ) -> tuple[QuerySet[UsageEvent], bool]:
        """Exact, so that an index answers: a key's public id, else a request id."""
        term = search_term.strip()
        if not term:
            return queryset, False
        key_id = ApiKey.objects.filter(public_id=term).values_list("pk", flat=True).first()
        return queryset.filter(**({"request_id": term} if key_id is None else {"key_id": key_id})), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: UsageEvent | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: UsageEvent | None = None) -> bool:
        return False

    # --- columns ---
    @display(description="time")
    def time(self, event: UsageEvent) -> str:
        return short_time(event.at)

    @display(description="key", empty_value="no valid key")
    def key_name(self, event: UsageEvent) -> str | None:
        return event.key_label or None

    @display(description="model", empty_value="-")
    def model_name(self, event: UsageEvent) -> str | None:
        return event.model or None

    @display(description="provider", empty_value="-")
    def provider_name(self, event: UsageEvent) -> str | None:
        return event.provider or None

    @display(description="status")
    def outcome(self, event: UsageEvent) -> SafeString:
        kind, words = outcome_of(event)
        return label(words, STATUS_COLORS[kind], ": ".join(filter(None, (event.error_code, event.refused_by))))

    @display(description="status")
    def outcome_text(self, event: UsageEvent) -> SafeString:
        return format_html("{} {}", self.outcome(event), event.error_code)

    @display(description="tokens in / out")
    def tokens(self, event: UsageEvent) -> SafeString:
        return format_html(
            "{} / {}{}", f"{event.prompt_tokens:,}", f"{event.completion_tokens:,}", estimate_mark(event)
        )

    @display(description="cost")
    def cost(self, event: Any) -> SafeString:
        """With its adjustments: what it costs today."""
        own, adjustment = event.cost_nano_usd, event.adjustment_nano_usd
        if own is None and not adjustment:
            return label("unpriced", "warning", UNPRICED)
        mark = format_html(' <abbr title="{}" class="gh-estimated">adj.</abbr>', ADJUSTED) if adjustment else ""
        return format_html("{}{}{}", money((own or 0) + adjustment), estimate_mark(event), mark)

    @display(description="latency")
    def latency(self, event: UsageEvent) -> str:
        return duration(event.latency_us)

    @display(description="first byte", empty_value="-")
    def first_byte(self, event: UsageEvent) -> str | None:
        return None if event.first_byte_us is None else duration(event.first_byte_us)

    # --- the page of one event ---
    @display(description="answer")
    def answer(self, event: UsageEvent) -> str:
        return "Streamed" if event.streamed else "In one piece"

    @display(description="attempts")
    def attempts_text(self, event: UsageEvent) -> str:
        if not event.attempts:
            return "None: no provider heard of it"
        failed = event.failed_tries.replace(":", " ").replace(",", ", ")
        return f"{event.attempts}; failed before: {failed}" if failed else str(event.attempts)

    @display(description="refused by")
    def refused_by_text(self, event: UsageEvent) -> SafeString | str:
        """With a link to the budget; a rate limit is found by its name."""
        if not event.refused_by:
            return "No limit or budget"
        return link_to(Budget, event.spent_budget_id, event.refused_by)

    @display(description="API key")
    def key_link(self, event: Any) -> SafeString | str:
        return event.links["key"] or "No valid key"

    @display(description="team")
    def team_link(self, event: Any) -> SafeString | str:
        return event.links["team"] or "-"

    @display(description="key's owner")
    def user_link(self, event: Any) -> SafeString | str:
        return event.links["user"] or "-"

    @display(description="of these")
    def details(self, event: UsageEvent) -> str:
        parts = {
            "prompt tokens from the provider's cache": event.cached_tokens,
            "written to it": event.cache_write_tokens,
            "completion tokens of reasoning": event.reasoning_tokens,
        }
        found = [f"{count:,} {what}" for what, count in parts.items() if count]
        found += ["cost more than was held for it"] if event.above_hold else []
        return ", ".join(found + ([ESTIMATED] if event.estimated else [])) or "-"

    @display(description="of this, adjustments")
    def adjustments(self, event: Any) -> str:
        """In dollars: the books are in them."""
        if not event.adjustment_nano_usd:
            return "-"
        own = "unpriced" if event.cost_nano_usd is None else usd(event.cost_nano_usd)
        return f"{usd(event.adjustment_nano_usd)}; when it was called: {own}"

    @display(description="also billed")
    def units_text(self, event: UsageEvent) -> str:
        return ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in event.units.items()) or "-"

    @display(description="tags")
    def tags_text(self, event: UsageEvent) -> str:
        return ", ".join(f"{name}={value}" for name, value in event.tags.items()) or "-"


def as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def outcome_of(event: UsageEvent) -> tuple[str, str]:
    """(a key of STATUS_COLORS, what to show)"""
    if event.status == CLIENT_LEFT:
        return "left", "499 client left"
    if event.status == GATEWAY_DIED:
        return "failed", "gateway died"
    if not event.error_code:
        return "ok", str(event.status)
    return ("refused" if event.status < 500 else "failed"), str(event.status)


def estimate_mark(event: UsageEvent) -> SafeString | str:
    mark = '<abbr title="{}" aria-label="{}" class="gh-estimated">est.</abbr>'
    return format_html(f" {mark}", ESTIMATED, ESTIMATED) if event.estimated else ""
