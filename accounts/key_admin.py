"""API keys in the admin: made and shown once, rotated with an overlap, revoked and enabled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince, timeuntil
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from accounts import catalogue, services
from accounts.admin_pages import KEPT, LIVE, LiveSoon, Prefilled, RowFilter, allowed_text, change_url, confirm
from accounts.forms import (
    ApiKeyForm,
    NewApiKeyForm,
    RotateForm,
)
from accounts.key_states import generation_of, state_of, with_membership
from accounts.models import ApiKey, User
from accounts.owner_sections import WithSections

STATE_COLORS = {
    "active": "success",
    "rotating": "info",
    "expired": "warning",
    "team disabled": "warning",
    "owner inactive": "warning",
    "owner left team": "warning",
    "revoked": "danger",
}


class KeyStateFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("active", "Active"),
            ("rotating", "Rotating"),
            ("revoked", "Revoked"),
            ("expired", "Expired"),
            ("soon", "Expires within 14 days"),
            ("unused", "Not used for 30 days"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        not_expired = Q(expires_at__isnull=True) | Q(expires_at__gt=now)
        owned = Q(user__is_active=True, owner_in_team=True)
        active = Q(disabled=False, team__disabled=False) & not_expired & (Q(user=None) | owned)
        conditions = {
            "active": active,
            "rotating": active & Q(previous_until__gt=now),
            "revoked": Q(disabled=True),
            "expired": Q(expires_at__lte=now),
            "soon": active & Q(expires_at__lte=now + timedelta(days=14)),
            "unused": active
            & (Q(last_used_at__lt=now - timedelta(days=30)) | Q(last_used_at=None))
            & Q(created_at__lt=now - timedelta(days=30)),
        }
        return queryset.filter(conditions[value]) if (value := self.value()) in conditions else queryset


@admin.register(ApiKey)
class ApiKeyAdmin(Prefilled, LiveSoon, WithSections, ModelAdmin):
    empty_hint = "A key lets an app or a person call the gateway. It is shown once, when it is made."
    list_display = ("name", "public_id", "owner", "team", "state", "last_used", "expires")
    list_display_links = ("name", "public_id")
    list_filter = (KeyStateFilter, ("team", RowFilter), ("user", RowFilter))
    list_filter_submit = True
    list_select_related = ("user", "team")
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "=public_id", "user__username", "user__email", "team__name")
    search_help_text = "Name, public id, owner or team"
    ordering = ("-id",)
    autocomplete_fields = ("user", "team")
    actions = ("revoke_selected", "enable_selected")
    actions_detail = ("rotate", "revoke", "enable")
    form = ApiKeyForm
    add_form = NewApiKeyForm

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = self.add_form
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        belongs = ("name", "user", "team")
        may = ("models_allowed", "endpoints_allowed", "networks_allowed")
        if obj is None:
            return (
                (None, {"fields": (*belongs, "expires_at")}),
                ("What it may do", {"fields": may}),
            )
        if not self.has_change_permission(request, obj):
            may = ("models_text", "endpoints_text", "networks_text")
        facts = ("public_id", "state", "last_used_at", "created_at", "old_secret")
        return (
            (None, {"fields": (*belongs, "expires_at")}),
            ("What it may do", {"fields": may}),
            (
                "What is known of it",
                {"fields": facts, "description": KEPT.format("An API key that was ever used", "revoked")},
            ),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        facts = ("public_id", "state", "last_used_at", "created_at", "old_secret")
        computed = (*facts, "models_text", "endpoints_text", "networks_text")
        # Its usage is booked on this owner and team: a key does not move, it is replaced.
        return computed if obj is None else ("user", "team", *computed)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return with_membership(super().get_queryset(request))

    @display(description="owner", ordering="user__username", empty_value="the team")
    def owner(self, key: ApiKey) -> User | None:
        return key.user

    @display(description="state", label=STATE_COLORS)
    def state(self, key: ApiKey) -> str:
        return state_of(key)

    @display(description="last used", ordering="last_used_at", empty_value="never")
    def last_used(self, key: ApiKey) -> str | None:
        return None if key.last_used_at is None else f"{timesince(key.last_used_at, depth=1)} ago"

    @display(description="expires", ordering="expires_at", empty_value="never")
    def expires(self, key: ApiKey) -> str | None:
        if key.expires_at is None:
            return None
        if key.expires_at <= timezone.now():
            return f"{timesince(key.expires_at, depth=1)} ago"
        return f"in {timeuntil(key.expires_at, depth=1)}"

    @display(description="old secret")
    def old_secret(self, key: ApiKey) -> str:
        if key.previous_until and key.previous_until > timezone.now():
            until = date_format(timezone.localtime(key.previous_until), "DATETIME_FORMAT")
            return f"The secret before the last rotation still works until {until}."
        return "Only the newest secret works."

    @display(description="models allowed")
    def models_text(self, key: ApiKey) -> str:
        return allowed_text(key.models_allowed, "Every model that its team and owner may use")

    @display(description="endpoints allowed")
    def endpoints_text(self, key: ApiKey) -> str:
        return allowed_text(key.endpoints_allowed, "Every endpoint")

    @display(description="networks allowed")
    def networks_text(self, key: ApiKey) -> str:
        return allowed_text(key.networks_allowed, "From anywhere its team may")

    # --- a new key, shown once ---
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        extra_context = {**(extra_context or {}), "show_save_and_add_another": False}
        if object_id is None:
            extra_context["show_save_and_continue"] = False
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            # Only what was edited: a rotation or a use of the key at the same moment stays.
            obj.save(update_fields=form.changed_data)
            return
        owner = form.cleaned_data["user"]
        key, secret = services.create_key(
            obj.name,
            form.cleaned_data["team"] or services.personal_team(owner),
            owner,
            endpoints=obj.endpoints_allowed,
            models=obj.models_allowed,
            networks=obj.networks_allowed,
            expires_at=obj.expires_at,
        )
        obj.__dict__.update(key.__dict__)
        request.new_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_once(request, obj, request.new_secret, "Your new API key")  # type: ignore[attr-defined]

    def _show_once(self, request: HttpRequest, key: ApiKey, secret: str, title: str) -> TemplateResponse:
        """The only page that ever holds the key: the answer to the POST that made it, kept by nobody on the way."""
        names = catalogue.model_names() if key.models_allowed is None else key.models_allowed
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "key": key,
            "secret": secret,
            "base_url": request.build_absolute_uri("/v1"),
            "model": next(iter(names), "MODEL"),
            "old_secret": self.old_secret(key) if key.previous_until else "",
            "live": LIVE,
            "opts": self.opts,
        }
        request.current_app = self.admin_site.name
        response = TemplateResponse(request, "admin/accounts/apikey/secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    # --- rotate, revoke, enable ---
    @action(description="Rotate", icon="autorenew", url_path="rotate", permissions=["change"])
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self._key(request, object_id)
        generation = generation_of(key)
        form = RotateForm(request.POST or None, initial={"generation": generation})
        if not form.is_valid():
            return confirm(
                self,
                request,
                [key],
                title=f"Rotate {key.name}",
                explanation="The key gets a new secret, which is shown once. Its id, owner and limits stay. "
                "Choose how long the old secret goes on working, so that you can change it wherever it is in use.",
                button="Rotate",
                form=form,
                dangerous=False,
            )
        if form.cleaned_data["generation"] != generation:
            self.message_user(
                request,
                "The key was rotated already, so nothing was done now: a secret is shown only once. "
                "If nobody has the new one, rotate again.",
                messages.WARNING,
            )
            return HttpResponseRedirect(change_url(key))
        secret = services.rotate_key(key, form.overlap_from_now())
        key.refresh_from_db()
        self.log_change(request, key, "Rotated.")
        return self._show_once(request, key, secret, "The key's new secret")

    @action(description="Revoke", icon="block", url_path="revoke", permissions=["change"], variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        keys = self.get_queryset(request).filter(pk=self._key(request, object_id).pk)
        return self.revoke_selected(request, keys) or HttpResponseRedirect(change_url(keys[0]))

    @action(description="Enable", icon="check", url_path="enable", permissions=["change"])
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        keys = self.get_queryset(request).filter(pk=self._key(request, object_id).pk)
        return self.enable_selected(request, keys) or HttpResponseRedirect(change_url(keys[0]))

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                queryset,
                title="Revoke API keys",
                explanation="Every call with these keys is refused from then on, also those of apps that still use "
                "them. They can be enabled again; their usage stays on record.",
                button="Revoke",
            )
        self._each(request, queryset, services.revoke_key, "Revoked")
        return None

    @admin.action(description="Enable the selected keys", permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                queryset,
                title="Enable API keys",
                explanation="Whoever has the secrets of these keys can call again.",
                button="Enable",
                dangerous=False,
            )
        self._each(request, queryset, services.enable_key, "Enabled")
        return None

    def _each(
        self, request: HttpRequest, keys: Iterable[ApiKey], change: Callable[[ApiKey], object], done: str
    ) -> None:
        changed = list(keys)
        for key in changed:
            change(key)
            self.log_change(request, key, f"{done}.")
        what = str(changed[0]) if len(changed) == 1 else f"{len(changed)} keys"
        self.message_user(request, f"{done} {what}.", messages.SUCCESS)

    def _key(self, request: HttpRequest, object_id: str) -> ApiKey:
        key: ApiKey | None = self.get_object(request, unquote(object_id))
        if key is None:
            raise Http404("There is no such API key.")
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        return key

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        key = self.get_object(request, str(object_id))
        hidden = "enable" if key is None or not key.disabled else "revoke"
        shown = super().get_actions_detail(request, object_id)
        return [offered for offered in shown if not offered.action_name.endswith(f"_{hidden}")]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """A key that was ever used is revoked, not deleted: what it spent must stay explained."""
        return super().has_delete_permission(request, obj) and (obj is None or obj.last_used_at is None)
