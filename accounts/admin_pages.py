"""What the admin's pages of every app share: they ask before something drastic, and say how soon a change counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import quote
from django.db.models import Model
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
