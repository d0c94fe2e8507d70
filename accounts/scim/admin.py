"""SCIM in the admin: tokens, shown once, and what the identity providers have told."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display

from accounts.admin_pages import confirm
from accounts.scim.models import ScimGroup, ScimMember, ScimPerson, ScimToken
from accounts.scim.tokens import create_token, rotate_token


@admin.register(ScimToken)
class ScimTokenAdmin(ModelAdmin):
    empty_hint = "With a token an identity provider keeps people and groups up to date here, without their signing in."
    list_display = ("name", "public_id", "state", "created_at", "last_used_at")
    readonly_fields = ("public_id", "created_at", "last_used_at")
    actions_detail = ("rotate",)

    def get_fields(self, request: HttpRequest, obj: ScimToken | None = None) -> tuple[str, ...]:
        return (
            ("name", "provider")
            if obj is None
            else ("name", "provider", "disabled", "public_id", "created_at", "last_used_at")
        )

    @display(description="state", label={"on": "success", "disabled": "danger"})
    def state(self, token: ScimToken) -> str:
        return "disabled" if token.disabled else "on"

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        extra = {**(extra_context or {}), "show_save_and_add_another": False}
        if object_id is None:
            extra["show_save_and_continue"] = False
        return super().changeform_view(request, object_id, form_url, extra)

    def save_model(self, request: HttpRequest, obj: ScimToken, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=form.changed_data)
            return
        token, secret = create_token(obj.name, obj.provider)
        obj.__dict__.update(token.__dict__)
        request.new_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ScimToken, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_once(request, obj, request.new_secret)  # type: ignore[attr-defined]

    @action(description="Rotate", icon="autorenew", url_path="rotate", permissions=["change"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        token = self.get_object(request, unquote(object_id))
        if token is None:
            raise Http404("There is no such token.")
        if not self.has_change_permission(request, token):
            raise PermissionDenied
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                [token],
                title=f"Rotate {token.name}",
                explanation="The token gets a new secret, which is shown once. The old one ends at once: the identity "
                "provider is refused until it has the new one, and then catches up.",
                button="Rotate",
            )
        secret = rotate_token(token)
        self.log_change(request, token, "Rotated.")
        return self._show_once(request, token, secret)

    def _show_once(self, request: HttpRequest, token: ScimToken, secret: str) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"The token of {token.name}",
            "token": token,
            "secret": secret,
            "address": request.build_absolute_uri("/scim/v2"),
            "opts": self.opts,
        }
        response = TemplateResponse(request, "admin/scim/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response


class ToldByIdp:
    """Looked at here, changed at the identity provider."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ScimMembersInline(ToldByIdp, TabularInline):
    model = ScimMember
    fields = ("user",)
    extra = 0
    hide_title = True


@admin.register(ScimGroup)
class ScimGroupAdmin(ToldByIdp, ModelAdmin):
    empty_hint = "Groups appear here when an identity provider sends them through SCIM."
    list_display = ("name", "external_id", "changed_at")
    search_fields = ("name", "external_id")
    inlines = (ScimMembersInline,)
    fields = ("name", "external_id", "created_at", "changed_at")


@admin.register(ScimPerson)
class ScimPersonAdmin(ToldByIdp, ModelAdmin):
    empty_hint = "People appear here when an identity provider sends them through SCIM."
    list_display = ("user", "external_id", "active", "deleted", "changed_at")
    list_filter = ("active", "deleted")
    list_select_related = ("user",)
    search_fields = ("user__username", "user__email", "external_id")
    fields = ("user", "external_id", "active", "deleted", "attributes", "changed_at")
