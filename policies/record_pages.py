"""What the lists of findings, logged content and looks at it share: nobody writes in them, and nothing is counted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from accounts.models import ApiKey, Team, User


class Records(ModelAdmin):
    list_filter_submit = True
    list_per_page = 50
    list_select_related = False
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Filters that ask another list for names only for those who may see that list."""
        shown = {name: may_view(request, model) for name, model in (("key", ApiKey), ("team", Team), ("user", User))}
        return [entry for entry in self.list_filter if not isinstance(entry, tuple) or shown[entry[0]]]


def may_view(request: HttpRequest, model: Any) -> bool:
    return bool(admin.site.get_model_admin(model).has_view_permission(request))


def event_link(row: Any) -> SafeString | str:
    """To the usage event of its call, where its list has found one (`event_url`)."""
    if not row.event_url:
        return str(row.request_id)
    return format_html('<a href="{}" class="text-link" title="{}">Usage event</a>', row.event_url, row.request_id)


def as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
