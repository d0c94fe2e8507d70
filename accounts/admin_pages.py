"""What the admin's pages of every app share: they ask before something drastic, and say how soon a change counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.forms import Form
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
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


def change_url(instance: Model) -> str:
    return reverse(f"admin:{instance._meta.app_label}_{instance._meta.model_name}_change", args=[quote(instance.pk)])


def allowed_text(names: list[str] | None, everything: str) -> str:
    return everything if names is None else ", ".join(names) or "None"


# --- teams ----------------------------------------------------------------------------------------------------------
