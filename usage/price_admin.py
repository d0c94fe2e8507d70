"""Prices in the admin, and what became of pricing calls again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Case, OuterRef, QuerySet, Subquery, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.views import ChangeList

from accounts.admin_pages import LiveSoon, RowFilter, change_url, short_time
from accounts.keyset import KeysetChangeList, NameFilter
from accounts.models import Team
from usage.display import price, usd
from usage.forms import ModelPriceForm, initial_of
from usage.models import ModelPrice, Rerating
from usage.price_list import TIER_RATES
from usage.prices import back_dated, price_in_force

COPIED = "copy"
LINE_BREAK = SafeString("<br>")
TOKENS = "US dollars per million tokens"
APIECE = "Other charges, US dollars"


class ModelNameFilter(NameFilter):
    title = parameter_name = "model"


class WhoseFilter(DropdownFilter):
    title = "for"
    parameter_name = "for"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("everyone", "Everyone"), ("teams", "Single teams")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ModelPrice]) -> QuerySet[ModelPrice]:
        return queryset.filter(team__isnull=self.value() == "everyone") if self.value() else queryset


@admin.register(ModelPrice)
class ModelPriceAdmin(LiveSoon, ModelAdmin):
    """Prices set here. Those that ship with the gateway are not rows; a model's page shows them."""

    empty_hint = "Models cost what the list that ships with the gateway says, where it knows them. Set your own here."
    form = ModelPriceForm
    list_display = ("model", "whose", "begins", "in_usd", "out_usd", "cached", "more", "counts")
    list_filter = (ModelNameFilter, WhoseFilter, ("team", RowFilter))
    list_filter_submit = True
    list_per_page = 50
    list_select_related = ("team",)
    list_disable_select_all = True
    autocomplete_fields = ("team",)
    search_fields = ("model", "team__name")
    search_help_text = "Model or team"
    actions_detail = ("copy",)

    def get_fieldsets(self, request: HttpRequest, obj: ModelPrice | None = None) -> Any:
        if obj is None:
            return (
                (
                    None,
                    {
                        "fields": ("model", "team", "valid_from"),
                        "description": "A price is history: it stays for the calls of its time, and the next one "
                        "follows it. To change what calls of the past cost, enter it with a day of the past and run "
                        "manage.py rerate.",
                    },
                ),
                (
                    TOKENS,
                    {
                        "fields": (
                            ("input_usd_per_mtok", "output_usd_per_mtok"),
                            ("cached_usd_per_mtok", "cache_write_usd_per_mtok"),
                            ("cache_write_1h_usd_per_mtok", "reasoning_usd_per_mtok"),
                            ("audio_input_usd_per_mtok", "audio_output_usd_per_mtok"),
                            ("image_input_usd_per_mtok", "image_output_usd_per_mtok"),
                            "tiers_usd",
                        )
                    },
                ),
                (APIECE, {"fields": (("request_usd", "image_usd"), "tools_usd", "batch_percent")}),
            )
        return (
            (None, {"fields": (("model", "whose_link"), ("begins", "counts"))}),
            (
                TOKENS,
                {
                    "fields": (
                        ("in_usd", "out_usd"),
                        ("cached", "cache_write"),
                        ("cache_write_1h", "reasoning"),
                        ("audio_in", "audio_out"),
                        ("image_in", "image_out"),
                        "long_prompts",
                    )
                },
            ),
            (APIECE, {"fields": (("each_call", "each_picture"), "tools", "batch")}),
        )

    def save_model(self, request: HttpRequest, obj: ModelPrice, form: Any, change: bool) -> None:
        before = price_in_force(obj.model, obj.team, obj.valid_from)
        super().save_model(request, obj, form, change)
        if said := back_dated(obj.model, obj.team, obj.valid_from, before):
            self.message_user(request, said, messages.WARNING)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        copied = request.GET.get(COPIED, "")
        row = ModelPrice.objects.filter(pk=int(copied)).first() if copied.isascii() and copied.isdecimal() else None
        return {"valid_from": timezone.now(), **(initial_of(row) if row else {})}

    def get_list_filter(self, request: HttpRequest) -> Any:
        """The filter by team asks another list for names: only for those who may see that list."""
        may_see = self.admin_site.get_model_admin(Team).has_view_permission(request)
        return self.list_filter if may_see else self.list_filter[:-1]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelPrice]:
        begun = ModelPrice.objects.filter(model=OuterRef("model"), valid_from__lte=timezone.now())
        newest = begun.order_by("-valid_from", "-id").values("pk")
        queryset: QuerySet[ModelPrice] = super().get_queryset(request)
        everyones, teams = newest.filter(team=None)[:1], newest.filter(team=OuterRef("team"))[:1]
        return queryset.annotate(in_force=Case(When(team=None, then=Subquery(everyones)), default=Subquery(teams)))

    def has_change_permission(self, request: HttpRequest, obj: ModelPrice | None = None) -> bool:
        """A price is history: a new one is added, the old one stays for the calls of its time."""
        return False

    @action(description="Set the next price", icon="content_copy", url_path="copy", permissions=["copy"])
    def copy(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The form for a new one, filled in as this one."""
        return HttpResponseRedirect(f"{reverse('admin:usage_modelprice_add')}?{COPIED}={object_id}")

    def has_copy_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(self.has_add_permission(request))

    # --- whose and when ---
    @display(description="for", ordering="team__name")
    def whose(self, row: ModelPrice) -> str:
        return f"Team {row.team}" if row.team else "Everyone"

    @display(description="for")
    def whose_link(self, row: ModelPrice) -> SafeString | str:
        if row.team is None:
            return "Everyone"
        return format_html('<a href="{}" class="text-link">{}</a>', change_url(row.team), self.whose(row))

    @display(description="counts from", ordering="valid_from")
    def begins(self, row: ModelPrice) -> SafeString:
        at = timezone.localtime(row.valid_from)
        exact = date_format(at, "j M Y, H:i:s e")
        return format_html('<span title="{}">{}</span>', exact, date_format(at, "j M Y, H:i"))

    @display(description="counts", label={"now": "success", "later": "info"})
    def counts(self, row: Any) -> str:
        if row.in_force == row.pk:
            return "now"
        return "later" if row.valid_from > timezone.now() else "no more"

    # --- tokens ---
    @display(description="input", ordering="input_nano_usd_per_mtok")
    def in_usd(self, row: ModelPrice) -> str:
        return price(row.input_nano_usd_per_mtok)

    @display(description="output", ordering="output_nano_usd_per_mtok")
    def out_usd(self, row: ModelPrice) -> str:
        return price(row.output_nano_usd_per_mtok)

    @display(description="cached input")
    def cached(self, row: ModelPrice) -> str:
        return _price(row.cached_nano_usd_per_mtok, "as input")

    @display(description="cache write")
    def cache_write(self, row: ModelPrice) -> str:
        return _price(row.cache_write_nano_usd_per_mtok, "as input")

    @display(description="cache write, for an hour")
    def cache_write_1h(self, row: ModelPrice) -> str:
        return _price(row.cache_write_1h_nano_usd_per_mtok, "as cache write")

    @display(description="audio input")
    def audio_in(self, row: ModelPrice) -> str:
        return _price(row.audio_input_nano_usd_per_mtok, "as input")

    @display(description="audio output")
    def audio_out(self, row: ModelPrice) -> str:
        return _price(row.audio_output_nano_usd_per_mtok, "as output")

    @display(description="image input")
    def image_in(self, row: ModelPrice) -> str:
        return _price(row.image_input_nano_usd_per_mtok, "as input")

    @display(description="image output")
    def image_out(self, row: ModelPrice) -> str:
        return _price(row.image_output_nano_usd_per_mtok, "as output")

    @display(description="reasoning")
    def reasoning(self, row: ModelPrice) -> str:
        return _price(row.reasoning_nano_usd_per_mtok, "as output")

    @display(description="long prompts")
    def long_prompts(self, row: ModelPrice) -> SafeString | str:
        return format_html_join(LINE_BREAK, "{}", ((_tier(tier),) for tier in row.tiers)) or "cost the same"

    # --- by the piece ---
    @display(description="each call")
    def each_call(self, row: ModelPrice) -> str:
        return price(row.request_nano_usd) if row.request_nano_usd else "its tokens only"

    @display(description="each picture")
    def each_picture(self, row: ModelPrice) -> str:
        return _price(row.image_nano_usd, "its tokens only")

    @display(description="tools of the provider")
    def tools(self, row: ModelPrice) -> str:
        tools = sorted(row.tools_nano_usd.items())
        words = (f"{tool} {price(nano * 1_000)} per 1,000 calls" for tool, nano in tools)
        return ", ".join(words) or "their tokens only"

    @display(description="batch")
    def batch(self, row: ModelPrice) -> str:
        return f"{row.batch_percent} %"

    @display(description="also", empty_value=" ")
    def more(self, row: ModelPrice) -> str:
        """What else is priced, in a few words: the row's own page has the figures."""
        said = {
            "cache write": _is_set(row, "cache_write", "cache_write_1h"),
            "reasoning": _is_set(row, "reasoning"),
            "audio": _is_set(row, "audio_input", "audio_output"),
            "calls": row.request_nano_usd,
            "pictures": row.image_nano_usd is not None or _is_set(row, "image_input", "image_output"),
            "tools": row.tools_nano_usd,
            "batch": row.batch_percent != 100,
            "long prompts": row.tiers,
        }
        return ", ".join(name for name, is_said in said.items() if is_said)


def _is_set(row: ModelPrice, *names: str) -> bool:
    return any(getattr(row, f"{name}_nano_usd_per_mtok") is not None for name in names)


def _price(nano: int | None, otherwise: str) -> str:
    return otherwise if nano is None else price(nano)


def _tier(tier: dict[str, int]) -> str:
    rates = (f"{name.replace('_', ' ')} {price(tier[name])}" for name in TIER_RATES if name in tier)
    return f"from {tier['from_prompt_tokens']:,} prompt tokens on: {', '.join(rates)}"


# --- re-rating ------------------------------------------------------------------------------------------------------


@admin.register(Rerating)
class ReratingAdmin(ModelAdmin):
    """Read-only: a run is written by usage.rerating, and mended by another run."""

    empty_hint = (
        "After a price was entered late, was wrong or was missing, manage.py rerate prices the calls of that time "
        "again. Each run is listed here with what came of it; --dry-run says so without changing anything."
    )
    list_display = ("when", "calls_of", "model_text", "reason", "who", "looked_at", "changed_text", "difference")
    list_display_links = ("when",)
    list_per_page = 50
    list_select_related = ("by",)
    list_disable_select_all = True
    fieldsets = (
        ("The run", {"fields": (("when", "who"), ("reason", "done"))}),
        ("What it looked at", {"fields": (("calls_of", "model_text"), "looked_at")}),
        ("What came of it", {"fields": (("changed_text", "difference"),)}),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Rerating | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Rerating | None = None) -> bool:
        return False

    @display(description="run")
    def when(self, run: Rerating) -> str:
        return short_time(run.at)

    @display(description="done")
    def done(self, run: Rerating) -> str:
        return short_time(run.ended_at) if run.ended_at else "Not that we know: if it was cut off, run it again"

    @display(description="calls of")
    def calls_of(self, run: Rerating) -> str:
        return f"{_moment(run.start)} to {_moment(run.end)}"

    @display(description="model")
    def model_text(self, run: Rerating) -> str:
        return run.model or "Every model"

    @display(description="by")
    def who(self, run: Rerating) -> str:
        return str(run.by) if run.by else "manage.py"

    @display(description="calls looked at")
    def looked_at(self, run: Rerating) -> str:
        return f"{run.events:,}"

    @display(description="calls changed")
    def changed_text(self, run: Rerating) -> str:
        return f"{run.changed:,}"

    @display(description="difference")
    def difference(self, run: Rerating) -> str:
        return f"+{usd(run.delta_nano_usd)}" if run.delta_nano_usd > 0 else usd(run.delta_nano_usd)


def _moment(moment: Any) -> str:
    at = timezone.localtime(moment)
    return date_format(at, "j M Y" if at.hour == at.minute == at.second == 0 else "j M Y, H:i")
