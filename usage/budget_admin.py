"""Budgets in the admin: how each stands in its window of now, and more for that window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timeuntil
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import action, display
from unfold.views import ChangeList

from accounts.admin_pages import LiveSoon, Prefilled, RowFilter, change_url, confirm
from accounts.models import ApiKey, Team, User
from usage import budgets, cheaper_models
from usage.display import share, usd
from usage.limit_forms import BudgetForm, NewBudgetForm, TopUpForm
from usage.models import Budget, TopUp
from usage.spending import Standing, default_zone, standings
from usage.windows import UnknownZone, zone_of

NEARLY = 0.8
TOP_UPS_SHOWN = 100
OWNER_FIELDS = {"team": Team, "user": User, "key": ApiKey}
OWNER_WORDS = {"team": "Team", "user": "User", "key": "API key"}


# --- in words -------------------------------------------------------------------------------------------------------
def amount_text(amount: int, unit: str) -> str:
    """In what it was set: $50.00, 1,000,000 tokens."""
    return usd(amount) if unit == Budget.Unit.USD else f"{amount:,} tokens"


def owner_text(row: Any) -> str:
    """Of a budget or limit: whose calls count."""
    word = OWNER_WORDS.get(row.scope)
    return f"{word} {row.owner_name}" if word else str(row.get_scope_display())


def limit_text(budget: Budget) -> str:
    per = "in total" if budget.per == Budget.Per.TOTAL else f"per {budget.per}"
    return f"{amount_text(budget.limit, budget.unit)} {per}"


@dataclass(frozen=True, slots=True)
class Bar:
    """How full a budget is, for templates/admin/usage/budget/bar.html. `kind`: "", "near" or "full". `note`: why this
    limit is another than the budget's own."""

    spent: int
    limit: int
    text: str
    kind: str
    note: str

    @property
    def filled(self) -> int:
        """Per cent, for the bar."""
        return 100 if self.limit <= self.spent else 100 * self.spent // self.limit


def bar_of(standing: Standing) -> Bar:
    budget, spent, limit = standing.budget, standing.spent, standing.limit
    near = spent >= (budget.soft if budget.soft is not None else NEARLY * limit)
    part = f" ({share(spent, limit)})" if limit else ""
    text = f"{amount_text(spent, budget.unit).removesuffix(' tokens')} of {amount_text(limit, budget.unit)}{part}"
    return Bar(spent, limit, text, "full" if spent >= limit else "near" if near else "", topped_up_text(standing))


def topped_up_text(standing: Standing) -> str:
    added = standing.limit - standing.budget.limit
    if not added:
        return ""
    return f"{amount_text(abs(added), standing.budget.unit)} {'of it topped up' if added > 0 else 'taken back'}"


def bar(standing: Standing) -> SafeString:
    return render_to_string("admin/usage/budget/bar.html", {"bar": bar_of(standing)})


def in_zone(moment: datetime, zone: str) -> str:
    """By the clock of the budget's owner, and what that clock is."""
    try:
        return f"{date_format(moment.astimezone(zone_of(zone)), 'j M Y, H:i')} ({zone})"
    except UnknownZone:
        return f"{date_format(moment, 'j M Y, H:i')} (UTC)"


def resets_text(standing: Standing, now: datetime) -> str:
    if standing.window.end is None:
        return "never"
    return f"in {timeuntil(standing.window.end, now, depth=1)}"


# --- the list -------------------------------------------------------------------------------------------------------
class BudgetList(ChangeList):
    """Gives each row of the page its `standing` and `zone`."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        add_standings(list(self.result_list))


class EnabledFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("on", "On"), ("off", "Off")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Budget]) -> QuerySet[Budget]:
        return queryset.filter(enabled=self.value() == "on") if self.value() in ("on", "off") else queryset


OWNER_FILTERS = (
    ("scope", ChoicesDropdownFilter),
    *((name, RowFilter) for name in OWNER_FIELDS),
)
OWNER_SEARCH = ("team__name", "user__username", "key__name", "=key__public_id", "model")


class OwnedAdmin(Prefilled, LiveSoon, ModelAdmin):
    """What budgets and rate limits have alike. A new row has a form of its own: whose calls count is chosen once."""

    add_form: Any
    list_filter_submit = True
    list_per_page = 50
    list_select_related = ("team", "user", "key")
    list_disable_select_all = True
    search_fields = OWNER_SEARCH
    search_help_text = "Team, user, API key or model"
    autocomplete_fields = ("team", "user", "key")
    conditional_fields = {name: f"scope == '{name}'" for name in OWNER_FIELDS}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = self.add_form
        return super().get_form(request, obj, change, **kwargs)

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Filters that ask another list for names only for those who may see that list."""
        hidden = {
            name
            for name, model in OWNER_FIELDS.items()
            if not self.admin_site.get_model_admin(model).has_view_permission(request)
        }
        return [entry for entry in self.list_filter if not isinstance(entry, tuple) or entry[0] not in hidden]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @display(description="for")
    def owner(self, row: Any) -> str:
        return owner_text(row)

    @display(description="for")
    def owner_link(self, row: Any) -> SafeString | str:
        found = getattr(row, row.scope, None)
        if found is None:
            return owner_text(row)
        return format_html('<a href="{}" class="text-link">{}</a>', change_url(found), owner_text(row))

    @display(description="model")
    def model_text(self, row: Any) -> str:
        return row.model or "Every model"


@admin.register(Budget)
class BudgetAdmin(OwnedAdmin):
    empty_hint = (
        "A budget says how much a key, a person, a team or everybody may spend in an hour, a day, a week, a month or "
        "in total. A call must fit into every budget that it counts on."
    )
    form = BudgetForm
    add_form = NewBudgetForm
    list_display = ("owner", "model_text", "limit_text", "spent", "resets", "state")
    list_filter = (*OWNER_FILTERS, ("per", ChoicesDropdownFilter), ("unit", ChoicesDropdownFilter), EnabledFilter)
    actions_detail = ("top_up",)
    change_form_outer_after_template = "admin/usage/budget/top_ups.html"
    conditional_fields = {
        **OwnedAdmin.conditional_fields,
        "fallback_model": "on_exhaustion == 'fall_back'",
        "counts_from": "per == 'total'",
    }
    readonly_fields = ("owner_link", "model_text", "limit_text", "soft_text", "spent", "window", "spent_then", "state")

    def get_fieldsets(self, request: HttpRequest, obj: Budget | None = None) -> Any:
        if obj is None:
            return (
                ("Whose calls count", {"fields": ("scope", "team", "user", "key", "model")}),
                ("How much", {"fields": ("unit", ("amount", "soft_amount"))}),
                ("In which time", {"fields": (("per", "timezone"), "counts_from")}),
                ("What then", {"fields": ("on_exhaustion", "fallback_model", "enabled")}),
            )
        about = (("owner_link", "model_text"), ("spent", "window"))
        fixed = "Whose calls count and the unit stay: they were counted so. For another one make another budget."
        if not self.has_change_permission(request, obj):
            return ((None, {"fields": (*about, ("limit_text", "soft_text"), ("spent_then", "state"))}),)
        return (
            ("This budget", {"fields": about, "description": fixed}),
            ("How much", {"fields": (("amount", "soft_amount"),)}),
            ("In which time", {"fields": (("per", "timezone"), "counts_from")}),
            ("What then", {"fields": ("on_exhaustion", "fallback_model", "enabled")}),
        )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BudgetList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Budget | None:
        """With its `standing`, asked once: the page shows it in several places."""
        budget: Any = super().get_object(request, object_id, from_field)
        if budget is not None:
            add_standings([budget])
        return budget  # type: ignore[no-any-return]

    def has_delete_permission(self, request: HttpRequest, obj: Budget | None = None) -> bool:
        """One that was ever topped up is switched off, not deleted: who gave what must stay on record."""
        allowed = bool(super().has_delete_permission(request, obj))
        return allowed and (obj is None or not obj.top_ups.exists())

    def save_model(self, request: HttpRequest, obj: Budget, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if models := cheaper_models.saves_nothing(obj):
            text = f"{obj.fallback_model} is not cheaper than {models}: falling back from there saves nothing."
            self.message_user(request, text, messages.WARNING)

    # --- columns ---
    @display(description="limit")
    def limit_text(self, budget: Budget) -> str:
        return limit_text(budget)

    @display(description="soft limit", empty_value="none")
    def soft_text(self, budget: Budget) -> str | None:
        return None if budget.soft is None else amount_text(budget.soft, budget.unit)

    @display(description="spent in this window")
    def spent(self, budget: Any) -> SafeString:
        return bar(budget.standing)

    @display(description="resets")
    def resets(self, budget: Any) -> SafeString:
        end = budget.standing.window.end
        exact = "A total has no end." if end is None else in_zone(end, budget.zone)
        return format_html('<span title="{}">{}</span>', exact, resets_text(budget.standing, timezone.now()))

    @display(description="this window")
    def window(self, budget: Any) -> str:
        start, end = budget.standing.window
        since = in_zone(start, budget.zone)
        if end is None:
            return f"From {since}, without an end"
        return f"From {since.partition(' (')[0]} to {in_zone(end, budget.zone)}"

    @display(description="when it is spent")
    def spent_then(self, budget: Budget) -> str:
        falls_back = budget.on_exhaustion == Budget.OnExhaustion.FALL_BACK
        return f"Calls go to {budget.fallback_model}" if falls_back else "Calls are refused"

    @display(description="state", label={"on": "success", "off": "danger"}, ordering="enabled")
    def state(self, budget: Budget) -> str:
        return "on" if budget.enabled else "off"

    # --- top-ups ---
    @action(description="Top up", icon="add_card", url_path="top-up", permissions=["top_up"])
    def top_up(self, request: HttpRequest, object_id: str) -> HttpResponse:
        budget = self._budget(request, object_id)
        newest = str(budget.top_ups.values_list("pk", flat=True).first() or 0)
        form = TopUpForm(request.POST or None, unit=budget.unit, initial={"seen": newest})
        if form.is_valid():
            if form.cleaned_data["seen"] != newest:
                self.message_user(
                    request,
                    "Somebody has topped it up since the page was made, perhaps you: so nothing was given now. Look at "
                    "the history below.",
                    messages.WARNING,
                )
                return HttpResponseRedirect(change_url(budget))
            try:
                return self._topped_up(request, budget, form)
            except ValidationError as error:
                form.refuse(error)
        return confirm(
            self,
            request,
            [budget],
            title="Top up a budget",
            explanation=f"{bar_of(budget.standing).text} is spent. What you give counts in this window only "
            f"({self._window_text(budget)}) and is not carried over. It cannot be changed afterwards, only mended by "
            "a negative amount.",
            button="Top up",
            form=form,
            dangerous=False,
        )

    def _topped_up(self, request: HttpRequest, budget: Budget, form: TopUpForm) -> HttpResponse:
        """Raises ValidationError."""
        by = request.user if isinstance(request.user, User) else None
        given = budgets.top_up(budget, form.cleaned_data["amount"], form.cleaned_data["reason"], by)
        amount = amount_text(given.amount, budget.unit)
        self.log_change(request, budget, f"Topped up by {amount}: {given.reason}")
        self.message_user(request, f"Topped up by {amount}.", messages.SUCCESS)
        return HttpResponseRedirect(change_url(budget))

    def _window_text(self, budget: Any) -> str:
        end = budget.standing.window.end
        return "a total has no end" if end is None else f"until {in_zone(end, budget.zone)}"

    def has_top_up_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("usage.add_topup"))

    def _budget(self, request: HttpRequest, object_id: str) -> Any:
        """With its `standing` and `zone`."""
        budget: Budget | None = self.get_object(request, unquote(object_id))
        if budget is None:
            raise Http404("There is no such budget.")
        if not self.has_view_permission(request, budget) or not self.has_top_up_permission(request):
            raise PermissionDenied
        return budget

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        budget: Budget | None = kwargs.get("obj")
        if budget is not None:
            context["top_ups"] = top_up_rows(budget)
        return super().render_change_form(request, context, *args, **kwargs)


def add_standings(rows: list[Any]) -> None:
    """Gives budgets their `standing` and the `zone` by whose clock they are counted."""
    zone = default_zone() if rows else ""
    for row, standing in zip(rows, standings(rows, zone=zone), strict=True):
        row.standing, row.zone = standing, row.timezone or zone


def top_up_rows(budget: Any) -> list[dict[str, Any]]:
    """The newest ones, for the page of the budget."""
    rows: QuerySet[TopUp] = budget.top_ups.select_related("by")
    return [
        {
            "at": row.at,
            "amount": amount_text(row.amount, budget.unit),
            "window": in_zone(row.window_start, budget.zone),
            "reason": row.reason,
            "by": str(row.by) if row.by else "-",
        }
        for row in rows[:TOP_UPS_SHOWN]
    ]
