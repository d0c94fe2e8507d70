"""What the admin's pages of every app share: they ask before something drastic, and say how soon a change counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import quote
from django.db.models import Model, QuerySet
from django.forms import Form
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import AutocompleteSelectFilter

KEPT = "{} can be {}, but not deleted, so that its usage stays explained."
LIVE = "It is live in about a second."


class LiveSoon:
    """Says with every success how soon the gateway acts on it."""

    def message_user(
        self, request: HttpRequest, message: Any, level: int | str = messages.INFO, *args: Any, **kwargs: Any
    ) -> None:
        if level == messages.SUCCESS:
            message = format_html("{} {}", message, LIVE)
        super().message_user(request, message, level, *args, **kwargs)  # type: ignore[misc]


class RowFilter(AutocompleteSelectFilter):
    """Of a list: what belongs to one row of another, such as a team; `team__isnull=True` for what belongs to none,
    which the theme's own filter leaves out."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.lookup_val_isnull:
            return queryset.filter(**{f"{self.field_path}__isnull": True})
        given = self.lookup_val if isinstance(self.lookup_val, list) else [self.lookup_val or ""]
        if not all(text == "" or is_row_id(text) for text in given):
            raise IncorrectLookupParameters
        found: QuerySet[Any] = super().queryset(request, queryset)
        return found


class Prefilled:
    """A form for a new row that links may fill in, such as `?scope=team&team=7`. What can be no row is left empty."""

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_changeform_initial_data(request)  # type: ignore[misc]
        relations = {field.name for field in self.opts.get_fields() if field.is_relation}  # type: ignore[attr-defined]
        return {name: given for name, given in initial.items() if name not in relations or _are_row_ids(given)}


def _are_row_ids(given: str | list[str]) -> bool:
    return all(map(is_row_id, [given] if isinstance(given, str) else given))


def is_row_id(text: str) -> bool:
    """Whether a database can be asked for it: of anything else it makes an error."""
    return re.fullmatch(r"\d{1,18}", text, re.ASCII) is not None


def confirm(
    model_admin: ModelAdmin,
    request: HttpRequest,
    objects: Iterable[Model],
    *,
    title: str,
    explanation: str,
    button: str,
    form: Form | None = None,
    dangerous: bool = True,
) -> TemplateResponse:
    """The page that asks before something is done. Its answer comes to the same URL, with `confirmed` in it."""
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "explanation": explanation,
        "button": button,
        "dangerous": dangerous,
        "objects": list(objects),
        "form": form,
        "action": request.POST.get("action", ""),
        "opts": model_admin.opts,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/confirm.html", context)


def link_to(model: type[Model], pk: int | None, name: str = "") -> SafeString | str:
    """What a record refers to may be gone; the name it had at that time stays."""
    found = None if pk is None else model._default_manager.filter(pk=pk).first()
    if found is None:
        return name or ("" if pk is None else f"deleted ({pk})")
    return format_html('<a href="{}" class="text-link">{}</a>', change_url(found), name or found)


def label(text: str, kind: str, title: str = "") -> SafeString:
    """A coloured one; `kind` is the theme's: success, info, warning, danger."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": kind, "label_title": title})


def short_time(moment: datetime) -> str:
    """To the second; the year only when it is another one."""
    at = timezone.localtime(moment)
    return date_format(at, "j M, H:i:s" if at.year == timezone.localtime().year else "j M Y, H:i:s")


def change_url(instance: Model) -> str:
    return reverse(f"admin:{instance._meta.app_label}_{instance._meta.model_name}_change", args=[quote(instance.pk)])


def allowed_text(names: list[str] | None, everything: str) -> str:
    return everything if names is None else ", ".join(names) or "None"


# --- teams ----------------------------------------------------------------------------------------------------------
