"""The admin's pages for alerts: what fired, the rules that watch, and the destinations that are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import display
from unfold.views import ChangeList

from accounts.admin_pages import Prefilled, change_url, label, link_to, short_time
from accounts.keyset import RecordList, WindowFilter
from usage.alert_forms import AlertDestinationForm, AlertRuleForm, kinds_with
from usage.alert_models import Alert, AlertDestination, AlertRule, Delivery
from usage.alerts.kinds import KINDS, OF_SOME_KINDS, Kind
from usage.alerts.sending import TRIES, send_test
from usage.display import duration

SEVERITY_COLORS = {"info": "info", "warning": "warning", "critical": "danger"}
STATE_COLORS = {"waiting": "info", "sent": "success", "given_up": "danger"}
DELIVERIES_SHOWN = 10
TESTS_AT_ONCE = 8


# --- alerts ---------------------------------------------------------------------------------------------------------
class AlertWindow(WindowFilter):
    """Alerts are few."""

    usual = "month"


class KindFilter(DropdownFilter):
    title = "about"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(words)) for value, words in AlertRule.Kind.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        return queryset.filter(kind=self.value()) if self.value() in AlertRule.Kind.values else queryset


class OpenFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Still going on"), ("over", "Over")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        if self.value() == "open":
            return queryset.filter(resolved_at=None)
        return queryset.exclude(resolved_at=None) if self.value() == "over" else queryset


class AlertList(RecordList):
    """Adds to each row how its deliveries stand: one query for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        states: dict[Any, Counter[str]] = {row.pk: Counter() for row in self.result_list}
        for pk, state in Delivery.objects.filter(alert__in=states).values_list("alert_id", "state"):
            states[pk][state] += 1
        for row in self.result_list:
            row.delivery_states = states[row.pk]


@admin.register(Alert)
class AlertAdmin(ModelAdmin):
    """Read-only: an alert is a record of what was."""

    empty_hint = (
        "The rules that Gatehouse begins with watch already: what they find appears here, and goes to every "
        "destination that you add. Choose a longer time above to see older ones."
    )
    list_before_template = "admin/windows.html"
    change_form_outer_after_template = "admin/usage/alert/deliveries.html"
    actions_detail_hide_default = True
    list_display = ("time", "how_bad", "title", "rule_name", "state", "told")
    list_display_links = ("time", "title")
    list_filter = (AlertWindow, OpenFilter, KindFilter)
    list_filter_submit = True
    list_per_page = 50
    list_select_related = False
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None
    fieldsets = (
        (None, {"fields": ("in_a_line", "in_full", ("how_bad", "state"), ("time", "over"))}),
        ("Where it comes from", {"fields": (("rule_link", "about"), "subject")}),
    )
    readonly_fields = ("in_a_line", "in_full", "time", "over", "how_bad", "state", "rule_link", "about")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AlertList

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Alert | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Alert | None = None) -> bool:
        return False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        alert = self.get_object(request, unquote(object_id))
        lines = delivery_lines(alert.deliveries.select_related("destination")) if alert else []
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "deliveries": lines})

    @display(description="time")
    def time(self, alert: Alert) -> str:
        return short_time(alert.fired_at)

    @display(description="severity")
    def how_bad(self, alert: Alert) -> SafeString:
        return label(alert.get_severity_display(), SEVERITY_COLORS.get(alert.severity, ""))

    @display(description="state")
    def state(self, alert: Alert) -> SafeString:
        if alert.resolved_at is None:
            return label("going on", "warning", f"For {timesince(alert.fired_at)}")
        return label("over", "success", f"Since {short_time(alert.resolved_at)}")

    @display(description="over")
    def over(self, alert: Alert) -> str:
        return short_time(alert.resolved_at) if alert.resolved_at else "Not yet"

    @display(description="alert")
    def in_a_line(self, alert: Alert) -> str:
        return alert.title

    @display(description="what is known")
    def in_full(self, alert: Alert) -> SafeString:
        return format_html_join("", "<div>{}</div>", ((line,) for line in alert.text.splitlines()))

    @display(description="about")
    def about(self, alert: Alert) -> str:
        return alert.get_kind_display()

    @display(description="told", empty_value="nobody: no destination")
    def told(self, alert: Any) -> SafeString | str | None:
        states = alert.delivery_states
        if not states:
            return None
        worst = next(state for state in ("given_up", "waiting", "sent") if states[state])
        words = {"sent": "sent", "waiting": "waiting", "given_up": "not sent"}
        text = ", ".join(f"{states[state]} {said}" for state, said in words.items() if states[state])
        return label(text, STATE_COLORS[worst])

    @display(description="rule")
    def rule_link(self, alert: Alert) -> SafeString | str:
        return link_to(AlertRule, alert.rule_id, alert.rule_name)


def delivery_lines(deliveries: Iterable[Delivery]) -> list[dict[str, Any]]:
    """What the table of deliveries shows, the newest first."""
    lines = []
    for one in deliveries:
        when = one.sent_at if one.state == Delivery.State.SENT else None
        note = one.last_error
        if one.state == Delivery.State.WAITING and one.attempts:
            note = f"{note} Tried {one.attempts} of {TRIES} times; the next time at {short_time(one.next_try_at)}."
        lines.append(
            {
                "delivery": one,
                "about": one.get_about_display(),
                "state": label(one.get_state_display(), STATE_COLORS.get(one.state, "")),
                "when": short_time(when) if when else "",
                "note": note or "-",
            }
        )
    return lines


# --- rules ----------------------------------------------------------------------------------------------------------
def _if_kind(field: str) -> str:
    """For the page: when a field is to be seen."""
    return " || ".join(f"kind == '{kind}'" for kind in kinds_with(field))


@admin.register(AlertRule)
class AlertRuleAdmin(Prefilled, ModelAdmin):
    empty_hint = "A rule says what to watch and from when on it is an alert."
    form = AlertRuleForm
    list_display = ("name", "about", "when", "narrowed", "tells", "switched")
    list_filter_submit = True
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name",)
    search_help_text = "Name"
    autocomplete_fields = ("team",)
    fieldsets = (
        (None, {"fields": ("name", "kind", "enabled")}),
        (
            "When it is an alert",
            {
                "fields": OF_SOME_KINDS,
                "description": "A number that is left empty becomes what is usual for the kind.",
            },
        ),
        ("Who is told", {"fields": ("destinations", "tell_when_over")}),
    )
    conditional_fields = {
        **{name: _if_kind(name) for name in OF_SOME_KINDS},
        "tell_when_over": " || ".join(f"kind == '{kind}'" for kind, is_ in KINDS.items() if is_.says_over),
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[AlertRule]:
        queryset: QuerySet[AlertRule] = super().get_queryset(request)
        return queryset.select_related("team").prefetch_related("destinations")

    @display(description="watches", ordering="kind")
    def about(self, rule: AlertRule) -> str:
        return rule.get_kind_display()

    @display(description="alert")
    def when(self, rule: AlertRule) -> str:
        return words_of(rule)

    @display(description="only", empty_value="everything")
    def narrowed(self, rule: AlertRule) -> str | None:
        names = [rule.team and rule.team.name, rule.model, rule.provider]
        return ", ".join(name for name in names if name) or None

    @display(description="tells")
    def tells(self, rule: AlertRule) -> str:
        return ", ".join(one.name for one in rule.destinations.all()) or "every destination"

    @display(description="state", ordering="enabled", label={"on": "success"})
    def switched(self, rule: AlertRule) -> str:
        return "on" if rule.enabled else "off"


def words_of(rule: AlertRule) -> str:
    """When it is an alert, in words."""
    window = f"within {rule.minutes} min"
    if rule.kind == Kind.BUDGET:
        shares = ", ".join(f"{one} %" for one in rule.thresholds)
        reached = [shares] * bool(shares) + ["the soft limit"] * rule.soft
        return f"at {' and '.join(reached)}" if reached else "never: no share is set"
    if rule.kind == Kind.ERRORS:
        return f"{rule.percent} % of at least {rule.at_least} calls fail {window}"
    if rule.kind == Kind.LATENCY:
        return f"p95 of at least {rule.at_least} calls {window} above {duration((rule.latency_ms or 0) * 1000)}"
    if rule.kind == Kind.PROVIDER:
        return f"{rule.percent} % of at least {rule.at_least} calls fail {window}"
    if rule.kind == Kind.BLOCKS:
        return f"{rule.at_least} blocked calls of a key {window}"
    if rule.kind == Kind.SIGN_IN:
        return f"{rule.at_least} from one address or on one account {window}"
    return f"{rule.days} days before"


# --- destinations ---------------------------------------------------------------------------------------------------
@admin.register(AlertDestination)
class AlertDestinationAdmin(ModelAdmin):
    empty_hint = (
        "Alerts are always to be seen in the list of alerts. Add an e-mail address, a channel or a webhook, and they "
        "go there too, at once and once each."
    )
    form = AlertDestinationForm
    list_display = ("name", "how", "address_shown", "rules_text", "last", "switched")
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name",)
    search_help_text = "Name"
    actions = ("test_selected",)
    change_form_outer_after_template = "admin/usage/alertdestination/deliveries.html"
    fieldsets = (
        (None, {"fields": ("name", "kind", "enabled")}),
        ("Where", {"fields": ("emails", "new_url", "new_secret", "private_network")}),
    )
    conditional_fields = {
        "emails": "kind == 'email'",
        "new_url": "kind != 'email'",
        "new_secret": "kind == 'webhook'",
        "private_network": "kind != 'email'",
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[AlertDestination]:
        newest = Delivery.objects.filter(destination=OuterRef("pk")).order_by("-id")
        queryset: QuerySet[AlertDestination] = super().get_queryset(request)
        return queryset.annotate(last_state=Subquery(newest.values("state")[:1])).prefetch_related("rules")

    def get_form(
        self, request: HttpRequest, obj: AlertDestination | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        return type(form.__name__, (form,), {"user": request.user})

    def get_fieldsets(self, request: HttpRequest, obj: AlertDestination | None = None) -> Any:
        may_edit = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        if may_edit:
            return super().get_fieldsets(request, obj)
        return ((None, {"fields": ("name", "kind", "address_shown", "enabled", "private_network")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: AlertDestination | None = None) -> tuple[str, ...]:
        return ("address_shown",) if request.user.is_superuser else ("address_shown", "private_network")

    def get_urls(self) -> list[URLPattern]:
        test = path(
            "<path:object_id>/test/",
            self.admin_site.admin_view(self.test_view),
            name="usage_alertdestination_test",
        )
        urls: list[URLPattern] = super().get_urls()
        return [test, *urls]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        found = self.get_object(request, unquote(object_id))
        newest = found.deliveries.select_related("alert")[:DELIVERIES_SHOWN] if found else []
        context = {"deliveries": delivery_lines(newest), "may_test": self.has_test_permission(request)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})

    # --- a test ---
    def has_test_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.has_change_permission(request))

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_test_permission(request):
            raise PermissionDenied
        destination = self.get_object(request, unquote(object_id))
        if destination is None:
            raise Http404("There is no such destination.")
        self._test(request, [destination])
        return HttpResponseRedirect(change_url(destination))

    @admin.action(description="Send a test", permissions=["test"])
    def test_selected(self, request: HttpRequest, queryset: QuerySet[AlertDestination]) -> None:
        self._test(request, list(queryset))

    def _test(self, request: HttpRequest, destinations: list[AlertDestination]) -> None:
        """All at once, so that ten take no longer than the slowest."""
        with ThreadPoolExecutor(TESTS_AT_ONCE) as threads:
            verdicts = list(threads.map(partial(send_test, by=request.user.get_username()), destinations))
        for destination, verdict in zip(destinations, verdicts, strict=True):
            self.log_change(request, destination, f"Sent a test. {verdict.words}")
            level = messages.SUCCESS if verdict.is_taken else messages.ERROR
            said = "The test was sent" if verdict.is_taken else "The test was not sent"
            self.message_user(request, f"{destination.name}: {said}. {verdict.words}", level)

    # --- columns ---
    @display(description="kind", ordering="kind")
    def how(self, destination: AlertDestination) -> str:
        return destination.get_kind_display()

    @display(description="told by")
    def rules_text(self, destination: AlertDestination) -> str:
        names = ", ".join(rule.name for rule in destination.rules.all())
        return f"{names}, and rules that tell everybody" if names else "rules that tell everybody"

    @display(description="last message", empty_value="none yet")
    def last(self, destination: Any) -> SafeString | None:
        state = destination.last_state
        return label(str(Delivery.State(state).label), STATE_COLORS[state]) if state else None

    @display(description="state", ordering="enabled", label={"on": "success"})
    def switched(self, destination: AlertDestination) -> str:
        return "on" if destination.enabled else "off"
