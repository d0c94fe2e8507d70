"""The admin's pages for people and keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Model, Q, QuerySet
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import DropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.views import ChangeList

from accounts import (
    key_admin,  # noqa: F401 - registers its page
    roles,
)
from accounts.admin_pages import KEPT, LiveSoon, allowed_text, change_url, confirm
from accounts.audit.person_admin import PersonalData
from accounts.forms import (
    SearchableSelectMultiple,
    TeamForm,
    models_field,
    searchable,
)
from accounts.models import Membership, Team, User
from accounts.owner_sections import WithSections


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


class KnownChoice(AutocompleteSelect):
    """Shows the row that is chosen without asking for it: the page has read it already. Else each line of a table is
    a query more."""

    known: Model | None = None

    def optgroups(self, name: str, value: Sequence[str], attr: Any = None) -> Any:
        if self.known is None or list(value) != [str(self.known.pk)]:
            return super().optgroups(name, value, attr)
        label = self.choices.field.label_from_instance(self.known)
        return [(None, [self.create_option(name, self.known.pk, label, True, 0)], 0)]


class MembershipForm(ModelForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("user", "team"):
            chooser = getattr(self.fields[name].widget, "widget", None) if name in self.fields else None
            if isinstance(chooser, KnownChoice) and self.instance.pk:
                chooser.known = getattr(self.instance, name)


class MembershipsInline(TabularInline):
    """Of a team the users, of a user the teams: `autocomplete_fields` says which."""

    model = Membership
    form = MembershipForm
    extra = 0
    hide_title = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related(*self.autocomplete_fields)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.autocomplete_fields:
            kwargs["widget"] = KnownChoice(db_field, self.admin_site)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class MembersInline(MembershipsInline):
    autocomplete_fields = ("user",)
    verbose_name = "member"
    verbose_name_plural = "members"


@admin.register(Team)
class TeamAdmin(LiveSoon, KeptWithUsedKeys, WithSections, ModelAdmin):
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
    readonly_fields = ("state", "created_at", "models_text", "networks_text")

    def get_fieldsets(self, request: HttpRequest, obj: Team | None = None) -> Any:
        may_edit = self._may_edit(request, obj)
        may = ("models_allowed", "networks_allowed") if may_edit else ("models_text", "networks_text")
        kept = KEPT.format("A team whose keys were ever used", "disabled")
        facts = () if obj is None else (("State", {"fields": ("state", "created_at"), "description": kept}),)
        return ((None, {"fields": ("name", "cost_center", *may)}), *facts)

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

    @display(description="networks")
    def networks_text(self, team: Team) -> str:
        return allowed_text(team.networks_allowed, "From anywhere")

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
class TeamsInline(MembershipsInline):
    autocomplete_fields = ("team",)
    verbose_name = "team"
    verbose_name_plural = "teams"


class UserForm(UserChangeForm):
    models_allowed = models_field("that the team may use")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "models_allowed" in self.fields:
            self.fields["models_allowed"].keep(self.instance.models_allowed)


@admin.register(User)
class UserAdmin(PersonalData, LiveSoon, KeptWithUsedKeys, WithSections, BaseUserAdmin, ModelAdmin):
    empty_hint = "People own keys and are in teams. Only those with the staff status can sign in here."
    form = UserForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = (TeamsInline,)
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
    # For those who may give rights, up to their own; the second is for superusers alone.
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
        if request.user.is_superuser:
            return self.readonly_fields
        fixed = ("is_superuser",) if roles.may_give_rights(request.user) else self.for_superusers
        return (*self.readonly_fields, *fixed)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        give = {"groups": roles.groups_to_give, "user_permissions": roles.permissions_to_give}.get(db_field.name)
        if give is not None and not request.user.is_superuser:
            kwargs["queryset"] = give(request.user)
        field = super().formfield_for_manytomany(db_field, request, widget=SearchableSelectMultiple(), **kwargs)
        return searchable(field, db_field.help_text)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("teams")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Nobody changes who has more rights than they, or sets their password."""
        return super().has_change_permission(request, obj) and roles.may_manage(request.user, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and roles.may_manage(request.user, obj)

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
    """Rights in the admin, by job. Who is in a group is set at the person. The roles of accounts.roles stay as they
    are; of other groups one gives what one has."""

    empty_hint = "A group holds rights in this admin, such as looking at usage or making keys; people are put into it."
    filter_horizontal = ()

    def get_form(self, request: HttpRequest, obj: Group | None = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["help_texts"] = {"name": "The job, such as support or finance."}
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Group | None = None) -> Any:
        fields = ("name", "permissions")
        kept = "A role of the gateway's own, which stays as it is. For other rights, make a group of your own."
        return ((None, {"fields": fields, "description": kept if roles.is_builtin(obj) else ""}),)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest | None = None, **kwargs: Any) -> Any:
        if request is not None:
            kwargs["queryset"] = roles.permissions_to_give(request.user).select_related("content_type")
        field = super().formfield_for_manytomany(db_field, request, widget=SearchableSelectMultiple(), **kwargs)
        return searchable(field, "What people of this group may do in this admin. To look at something: its “view”.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and roles.may_give_rights(request.user)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_give(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._may_give(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Each is looked at before it is deleted: several at once would pass the roles by."""
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @staticmethod
    def _may_give(request: HttpRequest, group: Group | None) -> bool:
        if group is None:
            return roles.may_give_rights(request.user)
        return not roles.is_builtin(group) and roles.groups_to_give(request.user).filter(pk=group.pk).exists()
