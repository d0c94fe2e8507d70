"""Who calls, and what they may do."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from accounts.tokens.models import ManagementToken
from gateway_project.api.access import SignedIn
from gateway_project.api.base import ApiView


class MyTokenSerializer(serializers.Serializer):
    name = serializers.CharField()
    public_id = serializers.CharField()
    scopes = serializers.ListField(child=serializers.CharField())
    expires_at = serializers.DateTimeField()


class MyTeamSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    role = serializers.CharField()


class MeSerializer(serializers.Serializer):
    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.CharField()
    is_superuser = serializers.BooleanField(help_text="Then every permission is held.")
    teams = MyTeamSerializer(many=True)
    permissions = serializers.ListField(child=serializers.CharField(), help_text="Such as accounts.view_team.")
    token = MyTokenSerializer(allow_null=True, help_text="The management token; null in a session.")


class Me(ApiView):
    """Who calls, and what they may do. Needs no scope."""

    permission_classes = (SignedIn,)
    tag_name = "me"

    @extend_schema(operation_id="me", responses=MeSerializer)
    def get(self, request: Any) -> Response:
        user, token = request.user, request.auth
        memberships = user.memberships.select_related("team").order_by("team__name")
        held = isinstance(token, ManagementToken)
        shown = {
            "id": user.pk,
            "username": user.get_username(),
            "email": user.email,
            "is_superuser": user.is_superuser,
            "teams": [{"id": one.team_id, "name": one.team.name, "role": one.role} for one in memberships],
            "permissions": sorted(user.get_all_permissions()),
            "token": token if held else None,
        }
        return Response(MeSerializer(shown).data)
