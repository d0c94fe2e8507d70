"""The admin's pages for people and keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import AutocompleteSelectFilter, DropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.views import ChangeList

from accounts import catalogue, services
from accounts.admin_pages import LIVE, LiveSoon, change_url, confirm
from accounts.forms import (
    ApiKeyForm,
    NewApiKeyForm,
    RotateForm,
    SearchableSelectMultiple,
    TeamForm,
    models_field,
    searchable,
)
from accounts.models import ApiKey, Membership, Team, User

KEPT = "{} can be {}, but not deleted, so that its usage stays explained."
STATE_COLORS = {
    "active": "success",
    "rotating": "info",
    "expired": "warning",
    "team disabled": "warning",
    "owner inactive": "warning",
    "owner left team": "warning",
    "revoked": "danger",
}


class KeptWithUsedKeys:
    """Of those who own keys: they are not deleted once a key was used, and never several at once."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = bool(super().has_delete_permission(request, obj))  # type: ignore[misc]
        return allowed and (obj is None or not self._has_used_keys(obj))

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        actions.pop("delete_selected", None)
        return actions

    @staticmethod
    def _has_used_keys(owner: Any) -> bool:
        """Asked several times for each page."""
        if not hasattr(owner, "has_used_keys"):
            owner.has_used_keys = owner.api_keys.filter(last_used_at__isnull=False).exists()
        return bool(owner.has_used_keys)


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
class ApiKeyAdmin(LiveSoon, ModelAdmin):
    empty_hint = "A key lets an app or a person call the gateway. It is shown once, when it is made."
    list_display = ("name", "public_id", "owner", "team", "state", "last_used", "expires")
    list_display_links = ("name", "public_id")
    list_filter = (KeyStateFilter, ("team", AutocompleteSelectFilter), ("user", AutocompleteSelectFilter))
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
        may = ("models_allowed", "endpoints_allowed")
        if obj is None:
            return (
                (None, {"fields": (*belongs, "expires_at")}),
                ("What it may do", {"fields": may}),
            )
        if not self.has_change_permission(request, obj):
            may = ("models_text", "endpoints_text")
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
        computed = ("public_id", "state", "last_used_at", "created_at", "old_secret", "models_text", "endpoints_text")
        # Its usage is booked on this owner and team: a key does not move, it is replaced.
        return computed if obj is None else ("user", "team", *computed)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        membership = Membership.objects.filter(user=OuterRef("user"), team=OuterRef("team"))
        in_team = Q(team__personal_of=F("user")) | Exists(membership)
        queryset: QuerySet[ApiKey] = super().get_queryset(request)
        return queryset.annotate(owner_in_team=in_team)

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


def state_of(key: Any) -> str:
    """Why the key works or does not. Reads its team and owner, and the admin's `owner_in_team`."""
    now = timezone.now()
    if key.disabled:
        return "revoked"
    if key.expires_at and key.expires_at <= now:
        return "expired"
    if key.team.disabled:
        return "team disabled"
    if key.user and not key.user.is_active:
        return "owner inactive"
    if key.user and not key.owner_in_team:
        return "owner left team"
    return "rotating" if key.previous_until and key.previous_until > now else "active"


def generation_of(key: ApiKey) -> str:
    """Differs after each rotation and says nothing about the secret."""
    return hashlib.sha256(f"generation {key.pk} {key.digest} {key.imported_digest}".encode()).hexdigest()[:16]


def allowed_text(names: list[str] | None, everything: str) -> str:
    return everything if names is None else ", ".join(names) or "None"


# --- teams ----------------------------------------------------------------------------------------------------------
class TeamKindFilter(DropdownFilter):
    """Everybody has a personal team, so these are left out unless asked for."""

    title = "kind"
    parameter_name = "kind"
    all_option = ["", "Shared teams"]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("personal", "Personal teams"), ("every", "All teams")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Team]) -> QuerySet[Team]:
        if self.value() == "every":
            return queryset
        return queryset.filter(personal_of__isnull=self.value() != "personal")


class TeamChangeList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        """Leaving out the personal teams is not worth an "8 of 500" in the heading."""
        super().get_results(request)
        if not self.query and not self.has_active_filters:
            self.full_result_count = self.result_count


class DisabledFilter(DropdownFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("on", "On"), ("off", "Disabled")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Team]) -> QuerySet[Team]:
        return queryset.filter(disabled=self.value() == "off") if self.value() in ("on", "off") else queryset


class MembersInline(TabularInline):
    model = Membership
    autocomplete_fields = ("user",)
    extra = 0
    hide_title = True
    verbose_name = "member"
    verbose_name_plural = "members"


@admin.register(Team)
class TeamAdmin(LiveSoon, KeptWithUsedKeys, ModelAdmin):
    empty_hint = "A team shares models and a cost centre. Everybody also has a personal team, which is not listed here."
    form = TeamForm
    inlines = (MembersInline,)
    list_display = ("name", "cost_center", "members_count", "keys_count", "models_text", "state")
    list_filter = (TeamKindFilter, DisabledFilter)
    list_filter_submit = True
    list_per_page = 50
    list_disable_select_all = True
    search_fields = ("name", "cost_center")
    search_help_text = "Name or cost centre"
    actions = ("disable_selected", "enable_selected")
    actions_detail = ("disable", "enable")
    readonly_fields = ("state", "created_at", "models_text")

    def get_fieldsets(self, request: HttpRequest, obj: Team | None = None) -> Any:
        models = "models_allowed" if self._may_edit(request, obj) else "models_text"
        kept = KEPT.format("A team whose keys were ever used", "disabled")
        facts = () if obj is None else (("State", {"fields": ("state", "created_at"), "description": kept}),)
        return ((None, {"fields": ("name", "cost_center", models)}), *facts)

    def _may_edit(self, request: HttpRequest, team: Team | None) -> bool:
        return bool(self.has_add_permission(request) if team is None else self.has_change_permission(request, team))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TeamChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Team]:
        queryset: QuerySet[Team] = super().get_queryset(request)
        match = request.resolver_match
        if match is None or not (match.url_name or "").endswith("_changelist"):
            return queryset
        return queryset.annotate(
            members_=Count("memberships", distinct=True),
            keys_=Count("api_keys", filter=Q(api_keys__disabled=False), distinct=True),
        )

    @display(description="members", ordering="members_")
    def members_count(self, team: Any) -> int:
        return int(team.members_)

    @display(description="keys in use", ordering="keys_")
    def keys_count(self, team: Any) -> SafeString:
        url = reverse("admin:accounts_apikey_changelist")
        return format_html('<a href="{}?team__id__exact={}" class="text-link">{}</a>', url, team.pk, team.keys_)

    @display(description="models")
    def models_text(self, team: Team) -> str:
        return allowed_text(team.models_allowed, "Every model")

    @display(description="state", label={"on": "success", "disabled": "danger"})
    def state(self, team: Team) -> str:
        return "disabled" if team.disabled else "on"

    @action(
        description="Disable", icon="block", url_path="disable", permissions=["change"], variant=ActionVariant.DANGER
    )
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        teams = self._one(request, object_id)
        return self.disable_selected(request, teams) or HttpResponseRedirect(change_url(teams[0]))

    @action(description="Enable", icon="check", url_path="enable", permissions=["change"])
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        teams = self._one(request, object_id)
        return self.enable_selected(request, teams) or HttpResponseRedirect(change_url(teams[0]))

    @admin.action(description="Disable the selected teams", permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[Team]) -> HttpResponse | None:
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                queryset,
                title="Disable teams",
                explanation="Every call with a key of these teams is refused from then on. Members, keys and usage "
                "stay, and a team can be enabled again.",
                button="Disable",
            )
        self._switch(request, queryset, disabled=True)
        return None

    @admin.action(description="Enable the selected teams", permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[Team]) -> HttpResponse | None:
        if "confirmed" not in request.POST:
            return confirm(
                self,
                request,
                queryset,
                title="Enable teams",
                explanation="The keys of these teams work again, except those that are revoked or expired themselves.",
                button="Enable",
                dangerous=False,
            )
        self._switch(request, queryset, disabled=False)
        return None

    def _switch(self, request: HttpRequest, teams: Iterable[Team], disabled: bool) -> None:
        done = "Disabled" if disabled else "Enabled"
        changed = list(teams)
        for team in changed:
            team.disabled = disabled
            team.save(update_fields=["disabled"])
            self.log_change(request, team, f"{done}.")
        what = str(changed[0]) if len(changed) == 1 else f"{len(changed)} teams"
        self.message_user(request, f"{done} {what}.", messages.SUCCESS)

    def _one(self, request: HttpRequest, object_id: str) -> QuerySet[Team]:
        team = self.get_object(request, unquote(object_id))
        if team is None:
            raise Http404("There is no such team.")
        if not self.has_change_permission(request, team):
            raise PermissionDenied
        return self.get_queryset(request).filter(pk=team.pk)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[Any]:
        team = self.get_object(request, str(object_id))
        hidden = "enable" if team is None or not team.disabled else "disable"
        shown = super().get_actions_detail(request, object_id)
        return [offered for offered in shown if not offered.action_name.endswith(f"_{hidden}")]


# --- users and groups -----------------------------------------------------------------------------------------------
class MembershipsInline(TabularInline):
    model = Membership
    autocomplete_fields = ("team",)
    extra = 0
    hide_title = True
    verbose_name = "team"
    verbose_name_plural = "teams"


class UserForm(UserChangeForm):
    models_allowed = models_field("that the team may use")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "models_allowed" in self.fields:
            self.fields["models_allowed"].keep(self.instance.models_allowed)


@admin.register(User)
class UserAdmin(LiveSoon, KeptWithUsedKeys, BaseUserAdmin, ModelAdmin):
    empty_hint = "People own keys and are in teams. Only those with the staff status can sign in here."
    form = UserForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = (MembershipsInline,)
    list_display = ("username", "full_name", "email", "teams_text", "staff", "is_active", "last_login")
    list_filter = ("is_active", "is_staff", "groups")
    list_filter_submit = True
    list_per_page = 50
    fieldsets = (
        (None, {"fields": ("username", "password", "is_active")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("What they may call", {"fields": ("models_allowed",)}),
        ("What they may do in this admin", {"fields": ("is_staff", "is_superuser", "groups", "user_permissions")}),
        (
            "Dates",
            {
                "fields": ("last_login", "date_joined"),
                "description": KEPT.format("A person whose keys were ever used", "made inactive"),
            },
        ),
    )
    readonly_fields = ("last_login", "date_joined", "models_text")
    filter_horizontal = ()
    # Whoever may set these may give themselves every right there is.
    for_superusers = ("is_staff", "is_superuser", "groups", "user_permissions")

    def get_form(self, request: HttpRequest, obj: User | None = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["help_texts"] = {
            "is_active": "Who is not active cannot sign in, and their keys are refused within about a second.",
            "is_staff": "May sign in to this admin. What they may do here: groups and permissions.",
            "is_superuser": "May do everything here, without being given the right to.",
        }
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        return [
            (title, {**options, "fields": ("models_text",)} if "models_allowed" in options["fields"] else options)
            for title, options in fieldsets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        return (*self.readonly_fields, *(() if request.user.is_superuser else self.for_superusers))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, widget=SearchableSelectMultiple(), **kwargs)
        return searchable(field, db_field.help_text)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("teams")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Nobody but a superuser changes a superuser, or sets their password."""
        allowed = super().has_change_permission(request, obj)
        return allowed and (request.user.is_superuser or not getattr(obj, "is_superuser", False))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (request.user.is_superuser or not getattr(obj, "is_superuser", False))

    @display(description="name", ordering="last_name")
    def full_name(self, user: User) -> str:
        return user.get_full_name()

    @display(description="teams")
    def teams_text(self, user: User) -> str:
        return ", ".join(sorted(team.name for team in user.teams.all()))

    @display(description="admin", label={"superuser": "warning", "staff": "info"}, ordering="is_staff")
    def staff(self, user: User) -> str:
        return "superuser" if user.is_superuser else "staff" if user.is_staff else ""

    @display(description="models allowed")
    def models_text(self, user: User) -> str:
        return allowed_text(user.models_allowed, "Every model that the team may use")


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, ModelAdmin):
    """Rights in the admin, by job. Who is in a group is set at the person. Only superusers give rights."""

    empty_hint = "A group holds rights in this admin, such as looking at usage or making keys; people are put into it."
    filter_horizontal = ()

    def get_form(self, request: HttpRequest, obj: Group | None = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["help_texts"] = {"name": "The job, such as support or finance."}
        return super().get_form(request, obj, change, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest | None = None, **kwargs: Any) -> Any:
        field = super().formfield_for_manytomany(db_field, request, widget=SearchableSelectMultiple(), **kwargs)
        return searchable(field, "What people of this group may do in this admin. To look at something: its “view”.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return bool(request.user.is_superuser)
