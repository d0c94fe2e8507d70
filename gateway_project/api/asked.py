"""Requests: what people have asked for, approved or declined."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied

from accounts.models import User
from accounts.requests import policy, services
from accounts.requests.models import AccessRequest, Kind
from gateway_project.api.base import Listed, Retrieved
from gateway_project.api.errors import Conflict
from gateway_project.api.fields import Amount, Text, usd
from gateway_project.api.pages import Filter
from usage.pricing import to_nano


class RequestSerializer(serializers.ModelSerializer):
    amount_usd = serializers.SerializerMethodField(help_text="What was asked for; null: it is about no amount.")
    granted_usd = serializers.SerializerMethodField(help_text="What was granted.")
    requester: Any = serializers.PrimaryKeyRelatedField(read_only=True)
    team: Any = serializers.PrimaryKeyRelatedField(read_only=True, allow_null=True)
    key: Any = serializers.PrimaryKeyRelatedField(read_only=True, allow_null=True)
    cohort: Any = serializers.PrimaryKeyRelatedField(read_only=True, allow_null=True)
    decided_by: Any = serializers.PrimaryKeyRelatedField(read_only=True, allow_null=True)
    budget = serializers.IntegerField(source="budget_id", allow_null=True)

    class Meta:
        model = AccessRequest
        fields = (
            *("id", "kind", "state", "requester", "subject", "team", "key", "cohort", "name", "model", "budget"),
            *("amount_usd", "granted_usd", "per", "once", "expires_at", "cost_center", "reason", "outcome"),
            *("decided_by", "decided_at", "decision_reason", "collected_at", "created_at"),
        )

    def get_amount_usd(self, row: AccessRequest) -> str | None:
        return None if row.amount is None else usd(row.amount)

    def get_granted_usd(self, row: AccessRequest) -> str | None:
        return None if row.granted_amount is None else usd(row.granted_amount)


class ApprovalSerializer(serializers.Serializer):
    amount_usd = Amount(required=False, allow_null=True, help_text="In place of what was asked for.")
    reason = Text(required=False, allow_blank=True, default="", max_length=1000, help_text="What the person is told.")


class RefusalSerializer(serializers.Serializer):
    reason = Text(max_length=1000, help_text="What the person is told.")


class Requests(Listed, Retrieved):
    """What people have asked for, newest first. Nobody decides on their own."""

    resource, model, serializer_class = "requests", AccessRequest, RequestSerializer
    queryset = AccessRequest.objects.all()
    newest_first = True
    rights = {"approve": policy.DECIDE, "decline": policy.DECIDE}
    filters = {
        "state": Filter("state", "Only those that stand so.", tuple(AccessRequest.State.values)),
        "kind": Filter("kind", "Only those of this kind.", tuple(Kind.values)),
        "team": Filter("team", "Only those about the team with this id.", "id"),
        "requester": Filter("requester", "Only those of the person with this id.", "id"),
    }

    @extend_schema(request=ApprovalSerializer, responses=RequestSerializer)
    @action(detail=True, methods=["post"])
    def approve(self, request: Any, pk: str) -> Any:
        """Carries it out, and tells the person."""
        row, given = self.row(), self.given(serializer=ApprovalSerializer)
        amount = given.get("amount_usd")
        return self._decide(row, services.approve, None if amount is None else to_nano(amount), given["reason"])

    @extend_schema(request=RefusalSerializer, responses=RequestSerializer)
    @action(detail=True, methods=["post"])
    def decline(self, request: Any, pk: str) -> Any:
        """Turns it down, and tells the person why."""
        row, given = self.row(), self.given(serializer=RefusalSerializer)
        return self._decide(row, services.decline, given["reason"])

    def _decide(self, row: AccessRequest, decide: Any, *given: Any) -> Any:
        try:
            decide(row.pk, cast(User, self.request.user), *given)
        except services.AlreadyDecided:
            raise Conflict("Somebody has decided on this already.") from None
        except services.NotYours:
            raise PermissionDenied("Nobody decides on their own request.") from None
        return self.answer(self.fresh(row))
