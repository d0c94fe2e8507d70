"""Users, teams and their members, and the groups that hold rights."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from accounts import roles, services
from accounts.audit.people import erase_person, export_person
from accounts.models import Membership, Team, User
from gateway_project.api.answers import answered
from gateway_project.api.base import Everything, Listed, Retrieved
from gateway_project.api.fields import Names, RowSerializer, team_id, user_id
from gateway_project.api.pages import Filter


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A person",
            value={"username": "alice", "email": "alice@example.org", "models_allowed": ["gpt-4o-mini"]},
            request_only=True,
        )
    ]
)
class UserSerializer(RowSerializer):
    models_allowed = Names(help_text="Models this person may call, through any key. Null: every model the team may.")
    groups = serializers.SlugRelatedField(
        slug_field="name", many=True, required=False, queryset=Group.objects.all(), help_text="Roles and other groups."
    )

    class Meta:
        model = User
        fields = (
            *("id", "username", "email", "first_name", "last_name", "is_active", "models_allowed"),
            *("is_staff", "is_superuser", "groups", "date_joined", "last_login"),
        )
        read_only_fields = ("id", "date_joined", "last_login")


class PersonalDataSerializer(serializers.Serializer):
    tables = serializers.DictField(
        child=serializers.ListField(child=serializers.DictField()), help_text="By table, the rows about the person."
    )


class Users(Everything):
    """People. Passwords are not set here: people sign in through the IdP, or set theirs themselves."""

    resource, model, serializer_class = "users", User, UserSerializer
    queryset = User.objects.all()
    volatile = ("last_login",)
    rights = {"erase": "accounts.delete_user", "personal_data": "accounts.delete_user"}
    filters = {
        "username": Filter("username", "Only the person with this user name."),
        "email": Filter("email__iexact", "Only people with this e-mail address, in any case."),
        "is_active": Filter("is_active", "Only active people, or only others.", "flag"),
        "team": Filter("memberships__team", "Only members of the team with this id.", "id"),
        "group": Filter("groups__name", "Only people in the group of this name."),
    }

    def get_queryset(self) -> Any:
        return User.objects.prefetch_related("groups")

    @extend_schema(request=None, responses=PersonalDataSerializer)
    @action(detail=True, methods=["post"], url_path="personal-data")
    def personal_data(self, request: Any, pk: str) -> Response:
        """All that the database keeps on the person, secrets masked. Needs the permission to see logged content too."""
        person = self._manageable()
        self.need("policies.view_loggedcontent")
        return Response({"tables": export_person(person)}, headers={"Cache-Control": "no-store"})

    @extend_schema(request=None, responses=UserSerializer)
    @action(detail=True, methods=["post"])
    def erase(self, request: Any, pk: str) -> Any:
        """Removes for good what tells who the person is; what they spent stays, under no name. Not oneself."""
        person = self._manageable()
        if person.pk == request.user.pk:
            raise PermissionDenied("Nobody erases themselves: somebody else has to.")
        erase_person(person)
        return self.answer(self.fresh(person))

    def _manageable(self) -> User:
        """Raises NotFound and PermissionDenied."""
        person: User = self.row()
        if not roles.may_manage(self.request.user, person):
            raise PermissionDenied("This person has more rights than you.")
        return person

    def save(self, given: dict[str, Any], row: Any) -> Any:
        roles.check_gift(
            self.request.user,
            row,
            staff=given.get("is_staff"),
            superuser=given.get("is_superuser"),
            groups=given.get("groups"),
        )
        if row is None:
            row = services.create_user(given.pop("username"), email=given.pop("email", ""))
            if not given:
                return row
        form = answered(self.request, User, given, row)
        form.save()
        return form.instance


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A team",
            value={"name": "research", "cost_center": "4711", "models_allowed": None, "networks_allowed": None},
            request_only=True,
        )
    ]
)
class TeamSerializer(RowSerializer):
    models_allowed = Names(help_text="Models this team's keys may call. Null: every enabled model.")
    networks_allowed = Names(help_text="Addresses from which its keys may be used. Null: from anywhere.")
    personal_of: Any = serializers.PrimaryKeyRelatedField(
        read_only=True, allow_null=True, help_text="Whose personal team it is. Null: it is shared."
    )

    class Meta:
        model = Team
        fields = (
            *("id", "name", "cost_center", "models_allowed", "networks_allowed", "disabled"),
            *("personal_of", "created_at"),
        )
        read_only_fields = ("id", "created_at")


class Teams(Everything):
    """Teams, personal ones too."""

    resource, model, serializer_class = "teams", Team, TeamSerializer
    queryset = Team.objects.all()
    filters = {
        "name": Filter("name", "Only the team of this name."),
        "cost_center": Filter("cost_center", "Only teams with this cost centre."),
        "disabled": Filter("disabled", "Only disabled teams, or only others.", "flag"),
        "personal_of": Filter("personal_of", "Only the personal team of the person with this id.", "id"),
        "member": Filter("memberships__user", "Only teams of the person with this id.", "id"),
    }

    def save(self, given: dict[str, Any], row: Any) -> Any:
        disabled = given.pop("disabled", None)
        form = answered(self.request, Team, given, row)
        if disabled is not None:
            form.instance.disabled = disabled
        form.save()
        return form.instance


@extend_schema_serializer(
    examples=[OpenApiExample("A manager", value={"user": 1, "team": 1, "role": "manager"}, request_only=True)]
)
class MembershipSerializer(RowSerializer):
    user = user_id(help_text="The person in the team.")
    team = team_id(help_text="The team.")

    class Meta:
        model = Membership
        fields = ("id", "user", "team", "role")


class Memberships(Everything):
    """Who is in which team, and as what."""

    resource, model, serializer_class = "memberships", Membership, MembershipSerializer
    queryset = Membership.objects.all()
    filters = {
        "user": Filter("user", "Only teams of the person with this id.", "id"),
        "team": Filter("team", "Only people in the team with this id.", "id"),
        "role": Filter("role", "Only people of this role.", ("member", "manager")),
    }

    def save(self, given: dict[str, Any], row: Any) -> Any:
        membership = row or Membership()
        for name, value in given.items():
            setattr(membership, name, value)
        membership.full_clean()
        membership.save()
        return membership


class GroupSerializer(serializers.ModelSerializer):
    permissions = serializers.SerializerMethodField(help_text="Such as accounts.view_team.")

    class Meta:
        model = Group
        fields = ("id", "name", "permissions")

    def get_permissions(self, group: Group) -> list[str]:
        return sorted(f"{one.content_type.app_label}.{one.codename}" for one in group.permissions.all())


class Groups(Listed, Retrieved):
    """Roles and other groups, with what they may do. Groups of your own are made in the admin."""

    resource, model, serializer_class = "groups", Group, GroupSerializer
    queryset = Group.objects.all()
    filters = {"name": Filter("name", "Only the group of this name.")}

    def get_queryset(self) -> Any:
        return Group.objects.prefetch_related("permissions__content_type")
