"""The admin's pages for management tokens: made, shown once, looked at and revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.timesince import timesince, timeuntil
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from accounts.admin_pages import LiveSoon, RowFilter, change_url, confirm
from accounts.forms import NetworksField, SearchableSelectMultiple
from accounts.tokens import services
from accounts.tokens.models import ManagementToken
from accounts.tokens.scopes import choices

STATE_COLORS = {"active": "success", "expired": "warning", "owner inactive": "warning", "revoked": "danger"}


class NewTokenForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=lambda: [(scope, scope) for scope in choices()],
        widget=SearchableSelectMultiple(),
        help_text="What it may be used for; writing includes reading. * is everything that you may do.",
    )
    days = forms.IntegerField(
        label="Days to live",
        min_value=1,
        max_value=services.LONGEST_LIFE.days,
        initial=services.USUAL_LIFE.days,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="Then it is refused. At most a year.",
    )
    networks_allowed = NetworksField("One address or network on each line. Empty: it may be used from anywhere.")

    class Meta:
        model = ManagementToken
        fields = ("name",)


@admin.register(ManagementToken)
class ManagementTokenAdmin(LiveSoon, ModelAdmin):
    empty_hint = "A management token lets a program use the management API, with no more rights than its owner has."
    list_display = ("name", "public_id", "user", "scopes_text", "state", "last_used", "ends")
    list_filter = (("user", RowFilter),)
    list_filter_submit = True
    list_select_related = ("user",)
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "=public_id", "user__username")
    search_help_text = "Name, public id or owner"
    actions_detail = ("revoke",)
    actions = None

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = NewTokenForm
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: ManagementToken | None = None) -> Any:
        if obj is None:
            return ((None, {"fields": ("name", "scopes", "days", "networks_allowed")}),)
        return ((None, {"fields": ("name", "public_id", "user", "state", "scopes_text", "networks_text", "expires_at",
                                   "last_used", "created_at")}),)  # fmt: skip

    def has_change_permission(self, request: HttpRequest, obj: ManagementToken | None = None) -> bool:
        """A token stays as it was made; it can be revoked."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ManagementToken | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return bool(request.user.has_perm("tokens.change_managementtoken"))

    def save_model(self, request: HttpRequest, obj: ManagementToken, form: Any, change: bool) -> None:
        """Whoever makes it is its owner: nobody lends somebody else's rights to a program."""
        given = form.cleaned_data
        token, secret = services.create_token(
            given["name"],
            request.user,  # type: ignore[arg-type]
            given["scopes"],
            expires_at=timezone.now() + timedelta(days=given["days"]),
            networks=given["networks_allowed"],
        )
        obj.__dict__.update(token.__dict__)
        request.new_secret = secret  # type: ignore[attr-defined]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        hidden = {"show_save_and_add_another": False, "show_save_and_continue": False}
        try:
            return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **hidden})
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(request.get_full_path())

    def response_add(
        self, request: HttpRequest, obj: ManagementToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        """The only page that ever holds the token."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Your new management token",
            "token": obj,
            "secret": request.new_secret,  # type: ignore[attr-defined]
            "base_url": request.build_absolute_uri("/api/v1"),
            "opts": self.opts,
        }
        request.current_app = self.admin_site.name
        response = TemplateResponse(request, "admin/tokens/managementtoken/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @action(description="Revoke", icon="block", url_path="revoke", permissions=["revoke"], variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        token: ManagementToken | None = self.get_object(request, unquote(object_id))
        if token is None:
            raise Http404("There is no such token.")
        if not self.has_revoke_permission(request):
            raise PermissionDenied
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                [token],
                title="Revoke the management token",
                explanation="Whatever still uses it is refused from then on. It cannot be enabled again.",
                button="Revoke",
            )
        services.revoke_token(token)
        self.log_change(request, token, "Revoked.")
        self.message_user(request, f"Revoked {token}.", messages.SUCCESS)
        return HttpResponseRedirect(change_url(token))

    def get_queryset(self, request: HttpRequest) -> QuerySet[ManagementToken]:
        return super().get_queryset(request).select_related("user")

    @display(description="scopes")
    def scopes_text(self, token: ManagementToken) -> str:
        return ", ".join(map(str, token.scopes))

    @display(description="networks allowed")
    def networks_text(self, token: ManagementToken) -> str:
        return ", ".join(token.networks_allowed or ["From anywhere"])

    @display(description="state", label=STATE_COLORS)
    def state(self, token: ManagementToken) -> str:
        return token.state

    @display(description="last used", ordering="last_used_at", empty_value="never")
    def last_used(self, token: ManagementToken) -> str | None:
        return None if token.last_used_at is None else f"{timesince(token.last_used_at, depth=1)} ago"

    @display(description="expires", ordering="expires_at")
    def ends(self, token: ManagementToken) -> str:
        if token.expires_at <= timezone.now():
            return f"{timesince(token.expires_at, depth=1)} ago"
        return f"in {timeuntil(token.expires_at, depth=1)}"
