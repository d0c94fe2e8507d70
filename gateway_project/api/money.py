"""Budgets with their top-ups, and rate limits."""

from __future__ import annotations

from typing import Any, cast

from django.core.exceptions import ValidationError
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from accounts.models import User
from gateway_project.api.answers import answered, django_errors
from gateway_project.api.base import Everything
from gateway_project.api.fields import Amount, RowSerializer, Text, amount, key_id, team_id, user_id
from gateway_project.api.pages import Filter, page_of
from usage import budgets
from usage.limit_forms import stored
from usage.models import Budget, Limit, TopUp
from usage.spending import standings

AMOUNTS = {"amount": "limit", "soft_amount": "soft"}
OWNERS = {
    "scope": Filter("scope", "Only those for this kind of owner.", ("installation", "team", "user", "key")),
    "team": Filter("team", "Only those of the team with this id.", "id"),
    "user": Filter("user", "Only those of the person with this id.", "id"),
    "key": Filter("key", "Only those of the API key with this id.", "id"),
    "model": Filter("model", "Only those on the model of this name."),
}


class OwnedSerializer(RowSerializer):
    team = team_id(required=False, allow_null=True, help_text="The team, where `scope` is team.")
    user = user_id(required=False, allow_null=True, help_text="The person, where `scope` is user.")
    key = key_id(required=False, allow_null=True, help_text="The API key, where `scope` is key.")


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "50 dollars a month for a team",
            value={"scope": "team", "team": 1, "unit": "usd", "limit": "50", "per": "month"},
            request_only=True,
        )
    ]
)
class BudgetSerializer(OwnedSerializer):
    limit = Amount(help_text="US dollars, or tokens: as text.")
    soft = Amount(required=False, allow_null=True, help_text="From here on it is reported, and nothing is refused.")

    class Meta:
        model = Budget
        fields = (
            *("id", "scope", "team", "user", "key", "model", "unit", "limit", "soft", "per", "timezone"),
            *("counts_from", "on_exhaustion", "fallback_model", "enabled", "created_at"),
        )
        read_only_fields = ("id", "created_at")

    def to_representation(self, budget: Budget) -> dict[str, Any]:
        amounts = {name: amount(getattr(budget, name), budget.unit) for name in ("limit", "soft")}
        return {**super().to_representation(budget), **amounts}


class StandingSerializer(serializers.Serializer):
    limit = serializers.CharField(help_text="With top-ups.")
    spent = serializers.CharField()
    remaining = serializers.CharField()
    window_start = serializers.DateTimeField()
    resets_at = serializers.DateTimeField(allow_null=True, help_text="Null: it never does.")


class TopUpSerializer(RowSerializer):
    amount = Amount(help_text="In the budget's unit; negative takes an earlier one back.")
    reason = Text(max_length=200, help_text="Stays in the history, with your name.")
    by: Any = serializers.SlugRelatedField(slug_field="username", read_only=True, help_text="Who gave it.")

    class Meta:
        model = TopUp
        fields = ("id", "amount", "reason", "window_start", "by", "at")
        read_only_fields = ("id", "window_start", "at")

    def to_representation(self, row: TopUp) -> dict[str, Any]:
        return {**super().to_representation(row), "amount": amount(row.amount, row.budget.unit)}


class Budgets(Everything):
    """How much may be spent. Whose calls count, and in which unit, is chosen once."""

    resource, model, serializer_class = "budgets", Budget, BudgetSerializer
    queryset = Budget.objects.all()
    paged = ("top_ups",)
    rights = {"top_up": "usage.add_topup", "top_ups": "view"}
    filters = {
        **OWNERS,
        "per": Filter("per", "Only budgets of this window.", ("hour", "day", "week", "month", "total")),
        "enabled": Filter("enabled", "Only budgets that are switched on, or only others.", "flag"),
    }

    def save(self, given: dict[str, Any], row: Any) -> Any:
        for name, column in AMOUNTS.items():
            if column in given:
                given[name] = given.pop(column)
        form = answered(self.request, Budget, given, row, AMOUNTS)
        budgets.save_budget(form.instance)
        return form.instance

    @extend_schema(responses=StandingSerializer)
    @action(detail=True, methods=["get"])
    def standing(self, request: Any, pk: str) -> Response:
        """What is spent and what is left in the window of now."""
        budget = self.row()
        (found,) = standings([budget])
        shown = {
            "limit": amount(found.limit, budget.unit),
            "spent": amount(found.spent, budget.unit),
            "remaining": amount(found.left, budget.unit),
            "window_start": found.window.start,
            "resets_at": found.window.end,
        }
        return Response(StandingSerializer(shown).data)

    @extend_schema(responses=TopUpSerializer(many=True))
    @action(detail=True, methods=["get"], url_path="top-ups")
    def top_ups(self, request: Any, pk: str) -> Response:
        """What was given on top, newest first."""
        page = page_of(self.row().top_ups.select_related("budget", "by"), request, newest_first=True)
        return Response({"data": TopUpSerializer(page.rows, many=True).data, "next": page.next})

    @extend_schema(request=TopUpSerializer, responses={201: TopUpSerializer})
    @top_ups.mapping.post
    def top_up(self, request: Any, pk: str) -> Response:
        """More for the window of now."""
        budget = self.row()
        given = self.given(serializer=TopUpSerializer)
        try:
            units = stored(given["amount"], budget.unit)
            row = budgets.top_up(budget, units or 0, given["reason"], cast(User, request.user))
        except ValidationError as error:
            raise django_errors(error, {}) from None
        return Response(TopUpSerializer(row).data, status=201)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "60 calls a minute",
            value={"scope": "key", "key": 1, "requests_per_minute": 60, "max_parallel": 8},
            request_only=True,
        )
    ]
)
class LimitSerializer(OwnedSerializer):
    class Meta:
        model = Limit
        fields = (
            *("id", "scope", "team", "user", "key", "model"),
            *("requests_per_minute", "tokens_per_minute", "max_parallel"),
        )


class Limits(Everything):
    """How fast. Whose calls count is chosen once."""

    resource, model, serializer_class = "limits", Limit, LimitSerializer
    queryset = Limit.objects.all()
    filters = {
        **OWNERS,
        "scope": Filter("scope", "Only those for this.", ("installation", "team", "user", "key", "client_ip")),
    }

    def save(self, given: dict[str, Any], row: Any) -> Any:
        form = answered(self.request, Limit, given, row)
        budgets.save_limit(form.instance)
        return form.instance
