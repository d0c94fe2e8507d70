"""The audit trail in the admin: read by those who may, written by nobody."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter, TextFilter
from unfold.decorators import display
from unfold.views import ChangeList

from accounts import downloads
from accounts.admin_pages import link_to, short_time
from accounts.audit import actors, record, selectors, syslog
from accounts.audit.models import AuditEvent
from accounts.keyset import NameFilter, RecordList, WindowFilter
from accounts.models import User

VIEW = "audit.view_auditevent"
FIELDS_SHOWN = 4
ERASED_PARTS = {"who": "who did it", "ip": "the address", "target": "the target's name"}


class Window(WindowFilter):
    usual = "week"


class ActionFilter(NameFilter):
    title = parameter_name = "action"


class ChannelFilter(DropdownFilter):
    title = parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in actors.CHANNELS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(channel=self.value()) if self.value() in actors.CHANNELS else queryset


class WhoFilter(TextFilter):
    """A name as the list shows it, or a number: the id of a person, whatever they were called then."""

    title = "who (name, or id of a user)"
    parameter_name = "who"

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        name = str(self.value() or "").strip()
        if "\0" in name:
            return queryset.none()
        by_id = Q(detail__user_id=int(name)) if name.isascii() and name.isdecimal() and len(name) < 19 else Q()
        return queryset.filter(Q(detail__user_name=name) | by_id) if name else queryset


class TargetFilter(TextFilter):
    """A name as the list shows it, or type:id, such as accounts.team:7."""

    title = "target (name, or type:id)"
    parameter_name = "target"

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        name = str(self.value() or "").strip()
        if "\0" in name:
            return queryset.none()
        kind, _, pk = name.rpartition(":")
        by_id = Q(target_type=kind, target_id=pk) if kind and pk else Q(pk__in=[])
        return queryset.filter(Q(detail__target_name=name) | by_id) if name else queryset


class EventList(RecordList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.download_url = reverse("admin:audit_auditevent_download") + self.get_query_string()


@admin.register(AuditEvent)
class AuditEventAdmin(ModelAdmin):
    empty_hint = "Changes, sign-ins, exports and looks at logged content appear here. Choose a longer time above."
    list_before_template = "admin/audit/auditevent/above_list.html"
    list_display = ("time", "who", "channel", "action", "target", "what", "address")
    list_display_links = ("time",)
    list_filter = (Window, ActionFilter, ChannelFilter, WhoFilter, TargetFilter)
    list_filter_submit = True
    list_fullwidth = True
    list_per_page = 50
    list_select_related = ("detail",)
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None
    search_fields = ("request_id",)
    search_help_text = "Request id"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EventList

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        own = [path("download.jsonl", wrap(self.download), name="audit_auditevent_download")]
        return [*own, *super().get_urls()]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEvent], search_term: str
    ) -> tuple[QuerySet[AuditEvent], bool]:
        term = search_term.strip()
        if "\0" in term:
            return queryset.none(), False
        return (queryset.filter(request_id=term) if term else queryset), False

    # --- who may ---
    def has_view_permission(self, request: HttpRequest, obj: AuditEvent | None = None) -> bool:
        return bool(request.user.has_perm(VIEW))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuditEvent | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AuditEvent | None = None) -> bool:
        return False

    # --- columns ---
    @display(description="time")
    def time(self, event: AuditEvent) -> str:
        return short_time(event.at)

    @display(description="who", empty_value="-")
    def who(self, event: AuditEvent) -> str | None:
        return event.user_name or (f"user {event.user_id}" if event.user_id else None)

    @display(description="target", empty_value="-")
    def target(self, event: AuditEvent) -> str | None:
        return event.target_name or (f"{event.target_type}:{event.target_id}" if event.target_type else None)

    @display(description="what", empty_value="-")
    def what(self, event: AuditEvent) -> str | None:
        names = list({**event.before, **event.after, **event.details})
        more = f" and {len(names) - FIELDS_SHOWN} more" if len(names) > FIELDS_SHOWN else ""
        return ", ".join(names[:FIELDS_SHOWN]) + more or None

    @display(description="address", empty_value="-")
    def address(self, event: AuditEvent) -> str | None:
        return event.ip or None

    # --- the page of one ---
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        try:
            event = AuditEvent.objects.select_related("detail").filter(pk=UUID(unquote(object_id))).first()
        except ValueError:
            event = None
        if event is None:
            raise Http404("There is no such event; it may have been deleted after its time.")
        names = sorted({*event.before, *event.after})
        erased = [ERASED_PARTS.get(name, name) for name in json.loads(event.detail.erased)]
        context = {
            **self.admin_site.each_context(request),
            "title": event.action,
            "opts": self.opts,
            "original": event,
            "facts": facts_of(request, event),
            "changes": [(name, _text(event.before, name), _text(event.after, name)) for name in names],
            "details": [(name, _text(event.details, name)) for name in event.details],
            "erased": ", ".join(erased),
            "of_target": list_url(event.target_type, event.target_id) if event.target_id else "",
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/audit/auditevent/event.html", context)

    # --- download ---
    def download(self, request: HttpRequest) -> HttpResponseBase:
        """What the list with the same address shows, and all pages of it; oldest first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        found: Any = self.get_changelist_instance(request)
        record("audit.exported", details={"filters": request.GET.urlencode()[:200]})
        name = f"audit-{timezone.now():%Y-%m-%dT%H%M%SZ}.jsonl"
        return downloads.streamed(request, name, "application/jsonl", _lines(found.queryset))


def _lines(queryset: QuerySet[AuditEvent]) -> Generator[bytes, None, None]:
    yield from syslog.lines(selectors.oldest_first(queryset.select_related("detail")), "jsonl")


def list_url(target_type: str, target_id: object) -> str:
    """Of all events of a target."""
    query = urlencode({"target": f"{target_type}:{target_id}", "window": "all"})
    return f"{reverse('admin:audit_auditevent_changelist')}?{query}"


def of_owner(request: HttpRequest, owner: models.Model) -> str:
    """On the page of a team, a person or a key: a link to its events, for those who may read the trail."""
    if not request.user.has_perm(VIEW):
        return ""
    return render_to_string("admin/audit/of_owner.html", {"url": list_url(owner._meta.label_lower, owner.pk)})


def facts_of(request: HttpRequest, event: AuditEvent) -> list[tuple[str, SafeString | str]]:
    return [
        ("Time", date_format(timezone.localtime(event.at), "DATETIME_FORMAT")),
        ("Who", _who(request, event)),
        ("Channel", event.channel),
        ("Address", event.ip or "-"),
        ("Target", _target(request, event)),
        ("Request", event.request_id or "-"),
        ("Number", str(event.number)),
    ]


def _who(request: HttpRequest, event: AuditEvent) -> SafeString | str:
    person = User.objects.filter(pk=event.user_id).first() if event.user_id else None
    if person is None or not request.user.has_perm("accounts.view_user"):
        return event.user_name or "-"
    return link_to(User, person.pk, event.user_name or person.get_username())


def _target(request: HttpRequest, event: AuditEvent) -> SafeString | str:
    """A link where there is still such a row, and a page for it."""
    named = f"{event.target_type}:{event.target_id}" if event.target_type else "-"
    name = f"{event.target_name} ({named})" if event.target_name else named
    row = _row(event)
    if row is None:
        return name
    try:
        url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return name
    model_admin = admin.site.get_model_admin(type(row))
    if not model_admin.has_view_permission(request, row):
        return name
    return format_html('<a href="{}" class="text-link">{}</a>', url, name)


def _row(event: AuditEvent) -> models.Model | None:
    try:
        model = apps.get_model(event.target_type)
        return model._base_manager.filter(pk=event.target_id).first()
    except (LookupError, ValueError, ValidationError):  # no such table, or an id of another kind than the table's
        return None


def _text(fields: dict[str, Any], name: str) -> str:
    """ "" where the field is not told."""
    if name not in fields:
        return ""
    value = fields[name]
    if isinstance(value, str):
        return value or "(empty)"
    return json.dumps(value, ensure_ascii=False, indent=1 if isinstance(value, dict | list) else None)
