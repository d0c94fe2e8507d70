"""Findings in the admin: what rules found in calls, sums over it, and what they found in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.views import ChangeList

from accounts.admin_pages import RowFilter, change_url, label, link_to, short_time
from accounts.charts import Chart, chart_data, chart_options
from accounts.keyset import NameFilter, RecordList, WindowFilter
from accounts.models import ApiKey, Team, User
from policies import calls, findings
from policies.display import check_label
from policies.findings import Day, Share
from policies.models import Finding, Policy
from policies.record_pages import Records, event_link, may_view

TOP = 10
# What was done -> (colour, in words).
DONE = {
    "block": ("danger", "blocked"),
    "redact": ("warning", "changed"),
    "audit": ("info", "recorded"),
}
WOULD = {"block": "would block", "redact": "would change", "audit": "would record"}
DRY_RUN = "The rule is in a dry run: it did nothing."
FAILED = "The check itself failed. Unless the rule fails open, the call was refused."


# --- filters --------------------------------------------------------------------------------------------------------
class FindingWindow(WindowFilter):
    """Findings are fewer than calls."""

    usual = "week"


class RuleFilter(NameFilter):
    title = parameter_name = "rule"


class PolicyFilter(NameFilter):
    title = parameter_name = "policy"


class CheckFilter(NameFilter):
    title = "check"
    parameter_name = "check_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, check_label(name)) for name, _ in super().lookups(request, model_admin)]


class ChoiceFilter(DropdownFilter):
    """One of a few values that are known beforehand: nothing is asked of the table."""

    choices_: dict[str, tuple[str, dict[str, Any]]] = {}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, words) for name, (words, _) in self.choices_.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Finding]) -> QuerySet[Finding]:
        chosen = self.choices_.get(str(self.value()))
        return queryset.filter(**chosen[1]) if chosen else queryset


class ActionFilter(ChoiceFilter):
    title = parameter_name = "action"
    choices_ = {
        "block": ("Block", {"action": "block"}),
        "redact": ("Change (redact, clamp, strip)", {"action": "redact"}),
        "audit": ("Record only", {"action": "audit"}),
    }


class StageFilter(ChoiceFilter):
    title = parameter_name = "stage"
    choices_ = {
        "request": ("In the request", {"stage": "request"}),
        "reply": ("In the reply", {"stage": "reply"}),
    }


class DryRunFilter(ChoiceFilter):
    title = "dry run"
    parameter_name = "dry_run"
    choices_ = {
        "no": ("Rules that act", {"dry_run": False}),
        "yes": ("Dry runs only", {"dry_run": True}),
    }


class FailedFilter(ChoiceFilter):
    title = "failed checks"
    parameter_name = "failed"
    choices_ = {
        "yes": ("Failed checks only", {"failed": True}),
        "no": ("Without failed checks", {"failed": False}),
    }


# --- the list and the page of one -----------------------------------------------------------------------------------
class FindingList(RecordList):
    """Adds to each row the link to its key, where that still exists and may be seen: one query for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        shown = may_view(request, ApiKey)
        pks = {row.key_id for row in self.result_list} if shown else set()
        there = set(ApiKey.objects.filter(pk__in=pks).values_list("pk", flat=True)) if pks else set()
        for row in self.result_list:
            row.key_url = reverse("admin:accounts_apikey_change", args=[row.key_id]) if row.key_id in there else ""
            row.event_url = calls.url(request, row.event_id)
        self.empty_links = [] if self.result_list else first_steps(request)


@admin.register(Finding)
class FindingAdmin(Records):
    """Read-only: a finding is written once, with the usage event of its call."""

    empty_hint = (
        "A finding appears when a rule of a published policy finds something in a call. To see what a rule would do "
        "before it does it, set its action to “Record only”, or switch on its dry run. Choose a longer time above to "
        "see older ones."
    )
    list_before_template = "admin/windows.html"
    actions_list = ("overview",)
    actions_detail_hide_default = True

    list_display = ("time", "done", "rule", "found", "policy_version", "stage", "key_name", "model", "call")
    list_display_links = ("time",)
    list_filter = (
        FindingWindow,
        RuleFilter,
        PolicyFilter,
        CheckFilter,
        ActionFilter,
        StageFilter,
        DryRunFilter,
        FailedFilter,
        ("team", RowFilter),
        ("key", RowFilter),
    )
    list_fullwidth = True
    search_fields = ("request_id",)
    search_help_text = "Request id of a call, or public id of a key"
    fieldsets = (
        (
            "What was found",
            {"fields": (("done", "found"), ("rule", "check_text"), ("policy_link", "stage_text"))},
        ),
        ("The call", {"fields": (("time", "call"), ("request_id", "endpoint"), "model")}),
        ("Who", {"fields": (("key_link", "team_link"), "user_link")}),
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return FindingList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Finding], search_term: str
    ) -> tuple[QuerySet[Finding], bool]:
        return calls.search(queryset, search_term), False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Finding | None:
        """With what its page links to, made once: the page asks for each of them several times."""
        finding: Any = super().get_object(request, object_id, from_field)
        if finding is not None:
            finding.event_url = calls.url(request, finding.event_id)
            finding.links = {
                "policy": policy_link(request, finding),
                "key": link_to(ApiKey, finding.key_id, finding.key_label),
                "team": link_to(Team, finding.team_id),
                "user": link_to(User, finding.user_id),
            }
        return finding  # type: ignore[no-any-return]

    def has_delete_permission(self, request: HttpRequest, obj: Finding | None = None) -> bool:
        return False

    @action(description="Overview", icon="monitoring", url_path="overview", permissions=["view"])
    def overview(self, request: HttpRequest) -> HttpResponse:
        """Sums over the last 30 days."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        context = {**self.admin_site.each_context(request), "title": "Overview", "opts": self.opts, **overview(request)}
        return TemplateResponse(request, "admin/policies/finding/overview.html", context)

    # --- columns ---
    @display(description="time")
    def time(self, finding: Finding) -> str:
        return short_time(finding.at)

    @display(description="what was done")
    def done(self, finding: Finding) -> SafeString:
        return done_label(finding)

    @display(description="found")
    def found(self, finding: Finding) -> SafeString | str:
        return found_text(finding)

    @display(description="policy")
    def policy_version(self, finding: Finding) -> str:
        return f"{finding.policy} v{finding.version}"

    @display(description="key", empty_value="-")
    def key_name(self, finding: Any) -> SafeString | str | None:
        if not finding.key_url:
            return finding.key_label or None
        return format_html('<a href="{}" class="text-link">{}</a>', finding.key_url, finding.key_label)

    @display(description="call")
    def call(self, finding: Any) -> SafeString | str:
        return event_link(finding)

    # --- the page of one finding ---
    @display(description="check")
    def check_text(self, finding: Finding) -> str:
        return check_label(finding.check_name)

    @display(description="stage")
    def stage_text(self, finding: Finding) -> str:
        return f"In the {finding.stage}"

    @display(description="policy")
    def policy_link(self, finding: Any) -> SafeString | str:
        return finding.links["policy"]  # type: ignore[no-any-return]

    @display(description="API key")
    def key_link(self, finding: Any) -> SafeString | str:
        return finding.links["key"] or "-"

    @display(description="team")
    def team_link(self, finding: Any) -> SafeString | str:
        return finding.links["team"] or "-"

    @display(description="key's owner")
    def user_link(self, finding: Any) -> SafeString | str:
        return finding.links["user"] or "-"


def done_label(finding: Finding) -> SafeString:
    if finding.failed:
        return label("check failed", "danger", FAILED)
    if finding.dry_run:
        return label(WOULD.get(finding.action, finding.action), "", DRY_RUN)
    kind, words = DONE.get(finding.action, ("", finding.action))
    return label(words, kind)


def found_text(finding: Finding) -> SafeString | str:
    """Of what kind, and how often; never the text."""
    words = finding.label or check_label(finding.check_name)
    return format_html("{} ×\u00a0{}", words, f"{finding.count:,}") if finding.count > 1 else words


def policy_link(request: HttpRequest, finding: Finding) -> SafeString | str:
    """The policy by its name, if there still is one and the reader may see it."""
    name = f"{finding.policy}, version {finding.version}"
    found = (
        Policy.objects.filter(name=finding.policy).first() if request.user.has_perm("policies.view_policy") else None
    )
    return format_html('<a href="{}" class="text-link">{}</a>', change_url(found), name) if found else name


def first_steps(request: HttpRequest) -> list[tuple[str, str]]:
    """(label, URL): what to do so that something is found."""
    if not request.user.has_perm("policies.view_policy"):
        return []
    if Policy.objects.exists():
        return [("Open the policies", reverse("admin:policies_policy_changelist"))]
    if request.user.has_perm("policies.add_policy"):
        return [("Make a policy", reverse("admin:policies_policy_add"))]
    return []


# --- the overview ---------------------------------------------------------------------------------------------------
def overview(request: HttpRequest) -> dict[str, Any]:
    """`chart`, `rankings` and `total`; only `total` (0) and `empty_links` when nothing was found."""
    days = findings.by_day()
    total = sum(day.total for day in days)
    if not total:
        return {"total": 0, "empty_links": first_steps(request)}
    since = findings.start_of()
    return {
        "total": total,
        "chart": days_chart(days, total),
        "rankings": [
            ranking("By rule", "Rule", findings.most("rule", since, TOP), total, "rule"),
            ranking("By team", "Team", findings.most("team", since, TOP), total, "team__id__exact"),
        ],
    }


def days_chart(days: list[Day], total: int) -> Chart:
    labels = [date_format(day.date, "j M") for day in days]
    series = [
        ("Blocked", [day.blocked for day in days], "--gh-failed"),
        ("Changed", [day.changed for day in days], "--gh-refused"),
        ("Recorded", [day.audited for day in days], "--color-primary-500"),
        ("Dry run", [day.dry_run for day in days], "--gh-muted"),
        ("Check failed", [day.failed for day in days], "--gh-broken"),
    ]
    legend = (
        ("gh-failed", "blocked"),
        ("gh-refused", "changed"),
        ("gh-answered", "recorded"),
        ("gh-left", "dry run"),
        ("gh-broken", "check failed"),
    )
    most = max(days, key=lambda day: day.total)
    sums = [f"{sum(values):,} {name.lower()}" for name, values, _ in series if sum(values)]
    summary = f"{total:,} in all: {', '.join(sums)}. Most on {date_format(most.date, 'j F')}: {most.total:,}."
    return Chart(
        "Findings by day", summary, "bar", chart_data(labels, series, "bar"), chart_options(precision=0), legend
    )


def ranking(title: str, column: str, shares: list[Share], total: int, parameter: str) -> dict[str, Any]:
    """`entries`: (name, URL of the list with these, findings, per cent of all)."""
    entries = [
        (share.name, findings_url(**{parameter: str(share.id or share.name)}), f"{share.findings:,}", share.findings)
        for share in shares
    ]
    most = max((count for *_, count in entries), default=1)
    return {
        "title": title,
        "column": column,
        "entries": [
            (name, url, count, percentage(number, total), round(100 * number / most))
            for name, url, count, number in entries
        ],
    }


def percentage(part: int, whole: int) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 1 else "< 1 %"


def findings_url(**filters: str) -> str:
    query = urlencode({**filters, FindingWindow.parameter_name: "month"})
    return f"{reverse('admin:policies_finding_changelist')}?{query}"


# --- on the page of a usage event -----------------------------------------------------------------------------------
def of_call(request: HttpRequest, event_id: UUID) -> str:
    """What rules found in the call, as HTML; "" when nothing, or for those who may not see it."""
    if not request.user.has_perm("policies.view_finding"):
        return ""
    rows = findings.of_call(event_id)
    if not rows:
        return ""
    return render_to_string("admin/policies/finding/of_call.html", {"rows": list(_lines(rows))})


def _lines(rows: Iterable[Finding]) -> Iterable[dict[str, Any]]:
    for row in rows:
        yield {"finding": row, "url": change_url(row), "done": done_label(row), "found": found_text(row)}
