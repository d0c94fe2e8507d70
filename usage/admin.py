"""The admin's pages for usage events and prices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, DropdownFilter
from unfold.decorators import display
from unfold.views import ChangeList

from accounts.admin_pages import LiveSoon, change_url
from accounts.models import ApiKey, Team, User
from usage.display import duration, price, usd
from usage.forms import ModelPriceForm
from usage.keyset import KeysetChangeList, distinct_values
from usage.models import ModelPrice, UsageEvent
from usage.services import id_range

CLIENT_LEFT, GATEWAY_DIED = 499, 0
STATUS_COLORS = {"ok": "success", "refused": "warning", "failed": "danger", "left": "info"}
UNPRICED = "The model's price was not known when it was called."
ESTIMATED = "estimated by the gateway: the provider reported no tokens"


class WindowFilter(DropdownFilter):
    """A window of time is a range of ids. Who searches for one call means it whenever it was."""

    title = "time"
    parameter_name = "window"
    all_option = None
    windows: dict[str, tuple[str, timedelta | None]] = {
        "hour": ("Last hour", timedelta(hours=1)),
        "day": ("Last 24 hours", timedelta(days=1)),
        "week": ("Last 7 days", timedelta(days=7)),
        "month": ("Last 30 days", timedelta(days=30)),
        "all": ("All time", None),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.windows.items()]

    def value(self) -> str:
        chosen = super().value()
        if chosen in self.windows:
            return str(chosen)
        return "all" if self.request.GET.get(SEARCH_VAR) else "day"

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageEvent]) -> QuerySet[UsageEvent]:
        _, window = self.windows[self.value()]
        if window is None:
            return queryset
        now = timezone.now()
        return queryset.filter(pk__gte=id_range(now - window, now)[0])


class NameFilter(DropdownFilter):
    """The names that occur in the events: also those of models and providers that are gone."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in distinct_values(UsageEvent, str(self.parameter_name))]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageEvent]) -> QuerySet[UsageEvent]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


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


class EventChangeList(KeysetChangeList):
    """`windows`: (name, URL, whether it is the one shown), for the links above the list."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        shown = next(spec.value() for spec in self.filter_specs if isinstance(spec, WindowFilter))
        self.windows = [
            (words, self.get_query_string({WindowFilter.parameter_name: name}), name == shown)
            for name, (words, _) in WindowFilter.windows.items()
        ]


@admin.register(UsageEvent)
class UsageEventAdmin(ModelAdmin):
    """Read-only: an event is written once, by the journal."""

    empty_hint = "Calls appear here within seconds. Choose a longer time above to see older ones."
    list_before_template = "admin/usage/usageevent/windows.html"
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
        WindowFilter,
        ErrorFilter,
        ("key", AutocompleteSelectFilter),
        ("team", AutocompleteSelectFilter),
        ("user", AutocompleteSelectFilter),
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
            {"fields": (("time", "outcome_text"), ("request_id", "endpoint"), ("answer", "attempts_text"))},
        ),
        ("Who", {"fields": (("key_link", "end_user"), ("team_link", "user_link"))}),
        ("Where it went", {"fields": (("model", "provider"), "upstream_model")}),
        (
            "What it used",
            {"fields": (("prompt_tokens", "completion_tokens"), ("details", "cost"), ("latency", "first_byte"))},
        ),
        (
            "What the caller sent with it",
            {"fields": (("client_ip", "user_agent"), ("organization", "trace_id"), "tags_text")},
        ),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EventChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> UsageEvent | None:
        """With `links` to its key, team and owner, made once: the page asks for each of them several times."""
        event: Any = super().get_object(request, object_id, from_field)
        if event is not None:
            event.links = {
                "key": link_to(ApiKey, event.key_id, event.key_label),
                "team": link_to(Team, event.team_id),
                "user": link_to(User, event.user_id),
            }
        return event  # type: ignore[no-any-return]

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
        at = timezone.localtime(event.at)
        return date_format(at, "j M, H:i:s" if at.year == timezone.localtime().year else "j M Y, H:i:s")

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
        return label(words, STATUS_COLORS[kind], event.error_code)

    @display(description="status")
    def outcome_text(self, event: UsageEvent) -> SafeString:
        return format_html("{} {}", self.outcome(event), event.error_code)

    @display(description="tokens in / out")
    def tokens(self, event: UsageEvent) -> SafeString:
        return format_html(
            "{} / {}{}", f"{event.prompt_tokens:,}", f"{event.completion_tokens:,}", estimate_mark(event)
        )

    @display(description="cost")
    def cost(self, event: UsageEvent) -> SafeString:
        if event.cost_nano_usd is None:
            return label("unpriced", "warning", UNPRICED)
        return format_html("{}{}", usd(event.cost_nano_usd), estimate_mark(event))

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
        return f"{event.attempts}" if event.attempts else "None: no provider heard of it"

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
        return ", ".join(found + ([ESTIMATED] if event.estimated else [])) or "-"

    @display(description="tags")
    def tags_text(self, event: UsageEvent) -> str:
        return ", ".join(f"{name}={value}" for name, value in event.tags.items()) or "-"


def link_to(model: type[Model], pk: int | None, name: str = "") -> SafeString | str:
    """What an event refers to may be gone; the name it had at that time stays."""
    found = None if pk is None else model._default_manager.filter(pk=pk).first()
    if found is None:
        return name or ("" if pk is None else f"deleted ({pk})")
    return format_html('<a href="{}" class="text-link">{}</a>', change_url(found), name or found)


def outcome_of(event: UsageEvent) -> tuple[str, str]:
    """(a key of STATUS_COLORS, what to show)"""
    if event.status == CLIENT_LEFT:
        return "left", "499 client left"
    if event.status == GATEWAY_DIED:
        return "failed", "gateway died"
    if not event.error_code:
        return "ok", str(event.status)
    return ("refused" if event.status < 500 else "failed"), str(event.status)


def label(text: str, kind: str, title: str = "") -> SafeString:
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": kind, "label_title": title})


def estimate_mark(event: UsageEvent) -> SafeString | str:
    mark = '<abbr title="{}" aria-label="{}" class="gh-estimated">est.</abbr>'
    return format_html(f" {mark}", ESTIMATED, ESTIMATED) if event.estimated else ""


# --- prices ---------------------------------------------------------------------------------------------------------
class PriceModelFilter(DropdownFilter):
    title = parameter_name = "model"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in distinct_values(ModelPrice, "model")]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelPrice]) -> QuerySet[ModelPrice]:
        return queryset.filter(model=self.value()) if self.value() else queryset


@admin.register(ModelPrice)
class ModelPriceAdmin(LiveSoon, ModelAdmin):
    """Prices set here. Those that ship with the gateway are not rows; a model's page shows them."""

    empty_hint = "Models cost what the list that ships with the gateway says, where it knows them. Set your own here."
    form = ModelPriceForm
    list_display = ("model", "valid_from", "in_usd", "out_usd", "cached", "cache_write", "counts")
    list_filter = (PriceModelFilter,)
    list_filter_submit = True
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("model",)
    search_help_text = "Model"

    def get_fieldsets(self, request: HttpRequest, obj: ModelPrice | None = None) -> Any:
        if obj is None:
            prices = (("input_usd", "output_usd"), ("cached_usd", "cache_write_usd"))
        else:
            prices = (("in_usd", "out_usd"), ("cached", "cache_write"))
        return (
            (None, {"fields": ("model", "valid_from")}),
            ("US dollars per million tokens", {"fields": prices}),
        )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelPrice]:
        begun = ModelPrice.objects.filter(model=OuterRef("model"), valid_from__lte=timezone.now())
        newest = Subquery(begun.order_by("-valid_from", "-id").values("pk")[:1])
        queryset: QuerySet[ModelPrice] = super().get_queryset(request)
        return queryset.annotate(in_force=newest)

    def has_change_permission(self, request: HttpRequest, obj: ModelPrice | None = None) -> bool:
        """A price is history: a new one is added, the old one stays for the calls of its time."""
        return False

    @display(description="input", ordering="input_nano_usd_per_mtok")
    def in_usd(self, row: ModelPrice) -> str:
        return price(row.input_nano_usd_per_mtok)

    @display(description="output", ordering="output_nano_usd_per_mtok")
    def out_usd(self, row: ModelPrice) -> str:
        return price(row.output_nano_usd_per_mtok)

    @display(description="cached input", empty_value="as input")
    def cached(self, row: ModelPrice) -> str | None:
        nano = row.cached_nano_usd_per_mtok
        return None if nano is None else price(nano)

    @display(description="cache write", empty_value="as input")
    def cache_write(self, row: ModelPrice) -> str | None:
        nano = row.cache_write_nano_usd_per_mtok
        return None if nano is None else price(nano)

    @display(description="counts", label={"now": "success", "later": "info"})
    def counts(self, row: Any) -> str:
        if row.in_force == row.pk:
            return "now"
        return "later" if row.valid_from > timezone.now() else "no more"
