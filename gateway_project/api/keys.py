"""API keys, and the management tokens that programs call this API with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action

from accounts import services
from accounts.forms import MAX_OVERLAP
from accounts.key_states import state_of, with_membership
from accounts.models import ApiKey, User
from accounts.tokens import services as token_services
from accounts.tokens.models import ManagementToken
from accounts.tokens.scopes import EVERYTHING
from gateway_project.api.answers import answered
from gateway_project.api.base import Created, Everything, Listed, Retrieved
from gateway_project.api.errors import BadRequest, ScopeMissing
from gateway_project.api.fields import Names, RowSerializer, Text, Whole, team_id, user_id
from gateway_project.api.pages import Filter

ONCE = "The whole key. It is in this reply only: nobody can look it up later."


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "A key of a person in a team",
            value={
                "name": "alice-laptop", "user": 1, "team": 1, "models_allowed": ["gpt-4o-mini"],
                "expires_at": "2027-01-31T00:00:00Z",
            },
            request_only=True,
        )
    ]
)  # fmt: skip
class KeySerializer(RowSerializer):
    user = user_id(required=False, allow_null=True, help_text="Whose key it is. Null: the team's own, a service key.")
    team = team_id(required=False, help_text="Whose limits and models apply. Left out: the owner's personal team.")
    endpoints_allowed = Names(help_text="Endpoints it may call, such as chat/completions. Null: all.")
    models_allowed = Names(help_text="Models it may call. Null: every model its team and owner may.")
    networks_allowed = Names(help_text="Addresses from which it may be used. Null: from anywhere its team may.")
    state = serializers.SerializerMethodField(help_text="active, rotating, or why it does not work.")

    class Meta:
        model = ApiKey
        fields: tuple[str, ...] = (
            *("id", "public_id", "name", "user", "team", "state", "endpoints_allowed", "models_allowed"),
            *("networks_allowed", "expires_at", "disabled", "previous_until", "last_used_at", "created_at"),
        )
        read_only_fields = ("id", "public_id", "disabled", "previous_until", "last_used_at", "created_at")

    def get_state(self, key: Any) -> str:
        return state_of(key)


class NewKeySerializer(KeySerializer):
    secret = serializers.CharField(read_only=True, help_text=ONCE)

    class Meta(KeySerializer.Meta):
        fields = (*KeySerializer.Meta.fields, "secret")


class RotationSerializer(serializers.Serializer):
    overlap_s = Whole(
        default=24 * 3600,
        min_value=0,
        max_value=int(MAX_OVERLAP.total_seconds()),
        help_text="How many seconds the old secret goes on working. 0: it ends now.",
    )


class Keys(Everything):
    """API keys. A secret is shown once, in the reply that makes it."""

    resource, model, serializer_class = "keys", ApiKey, KeySerializer
    queryset = ApiKey.objects.all()
    volatile = ("last_used_at", "state")
    filters = {
        "name": Filter("name", "Only keys of this name."),
        "public_id": Filter("public_id", "Only the key with this public id."),
        "user": Filter("user", "Only keys of the person with this id.", "id"),
        "team": Filter("team", "Only keys of the team with this id.", "id"),
        "disabled": Filter("disabled", "Only revoked keys, or only others.", "flag"),
        "expires_before": Filter("expires_at__lt", "Only keys that end before then.", "moment"),
    }

    def get_queryset(self) -> Any:
        return with_membership(ApiKey.objects.select_related("user", "team"))

    @extend_schema(request=KeySerializer, responses={201: NewKeySerializer})
    def create(self, request: Any) -> Any:
        return super().create(request)

    def save(self, given: dict[str, Any], row: Any) -> Any:
        form = answered(self.request, ApiKey, given, row)
        if row is not None:
            form.instance.save(update_fields=[name for name in form.changed_data if name in given])
            return form.instance
        made = form.cleaned_data
        key, secret = services.create_key(
            made["name"],
            made["team"] or services.personal_team(made["user"]),
            made["user"],
            endpoints=made["endpoints_allowed"],
            models=made["models_allowed"],
            networks=made["networks_allowed"],
            expires_at=made["expires_at"],
        )
        self.extra = {"secret": secret}
        return key

    @extend_schema(request=RotationSerializer, responses={200: NewKeySerializer})
    @action(detail=True, methods=["post"])
    def rotate(self, request: Any, pk: str) -> Any:
        """A new secret under the same public id; the old one goes on working for a while."""
        key = self.row()
        overlap = self.given(serializer=RotationSerializer)["overlap_s"]
        secret = services.rotate_key(key, timedelta(seconds=overlap))
        return self.answer(self.fresh(key), extra={"secret": secret})

    @extend_schema(request=None, responses={200: KeySerializer})
    @action(detail=True, methods=["post"])
    def revoke(self, request: Any, pk: str) -> Any:
        """Refused from now on, within about a second."""
        key = self.row()
        services.revoke_key(key)
        return self.answer(self.fresh(key))

    @extend_schema(request=None, responses={200: KeySerializer})
    @action(detail=True, methods=["post"])
    def enable(self, request: Any, pk: str) -> Any:
        """Works again, unless something else speaks against it: see `state`."""
        key = self.row()
        services.enable_key(key)
        return self.answer(self.fresh(key))


@extend_schema_serializer(
    examples=[OpenApiExample("A token", value={"name": "nightly report", "scopes": ["usage:read"]}, request_only=True)]
)
class TokenSerializer(RowSerializer):
    user: Any = serializers.PrimaryKeyRelatedField(read_only=True, help_text="Who answers for it: always who makes it.")
    scopes = serializers.ListField(child=Text(max_length=60), max_length=100, help_text="Such as keys:read.")
    networks_allowed = Names(help_text="Addresses from which it may be used. Null: from anywhere.")
    expires_at = serializers.DateTimeField(required=False, help_text="At most a year away. Left out: in 90 days.")
    state = serializers.CharField(read_only=True, help_text="active, expired, revoked or owner inactive.")

    class Meta:
        model = ManagementToken
        fields: tuple[str, ...] = (
            *("id", "public_id", "name", "user", "state", "scopes", "networks_allowed", "expires_at"),
            *("revoked_at", "last_used_at", "created_at"),
        )
        read_only_fields = ("id", "public_id", "revoked_at", "last_used_at", "created_at")


class NewTokenSerializer(TokenSerializer):
    secret = serializers.CharField(read_only=True, help_text=ONCE)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "secret")


class Tokens(Listed, Retrieved, Created):
    """Management tokens. A token makes none that could do more, or live longer, than itself."""

    resource, model, serializer_class = "tokens", ManagementToken, TokenSerializer
    rights = {"revoke": "tokens.change_managementtoken"}
    queryset = ManagementToken.objects.all()
    volatile = ("last_used_at", "state")
    filters = {
        "user": Filter("user", "Only tokens of the person with this id.", "id"),
        "name": Filter("name", "Only tokens of this name."),
    }

    def get_queryset(self) -> Any:
        return ManagementToken.objects.select_related("user")

    @extend_schema(responses={201: NewTokenSerializer})
    def create(self, request: Any) -> Any:
        return super().create(request)

    def save(self, given: dict[str, Any], row: Any) -> Any:
        end = given.get("expires_at")
        own = self.request.auth
        if isinstance(own, ManagementToken):
            if EVERYTHING not in own.scopes and not set(given["scopes"]) <= set(own.scopes):
                raise ScopeMissing("The new token may have scopes only that yours has.")
            end = end or min(own.expires_at, timezone.now() + token_services.USUAL_LIFE)
            if end > own.expires_at:
                raise BadRequest("It cannot live longer than your own token.", "expires_at")
        networks = given.get("networks_allowed")
        if isinstance(own, ManagementToken) and own.networks_allowed is not None and networks is None:
            networks = own.networks_allowed
        token, secret = token_services.create_token(
            given["name"], cast(User, self.request.user), given["scopes"], expires_at=end, networks=networks
        )
        self.extra = {"secret": secret}
        return token

    @extend_schema(request=None, responses={200: TokenSerializer})
    @action(detail=True, methods=["post"])
    def revoke(self, request: Any, pk: str) -> Any:
        """Refused from now on, for ever."""
        token = self.row()
        token_services.revoke_token(token)
        return self.answer(self.fresh(token))
