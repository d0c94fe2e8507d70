"""The audit trail, to be read."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.audit.actors import CHANNELS
from accounts.audit.models import AuditEvent
from gateway_project.api.base import Listed, Retrieved
from gateway_project.api.pages import Filter
from gateway_project.api.usage import Since


class AuditEventSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    number = serializers.IntegerField(help_text="Its place in the chain.")
    at = serializers.DateTimeField()
    channel = serializers.CharField()
    action = serializers.CharField(help_text="Such as apikey.created.")
    user = serializers.IntegerField(source="user_id", allow_null=True, help_text="Id of who did it.")
    who = serializers.CharField(source="user_name", help_text="As they were shown then.")
    ip = serializers.CharField()
    request_id = serializers.CharField()
    target_type = serializers.CharField(help_text="Such as accounts.apikey.")
    target_id = serializers.CharField()
    target = serializers.CharField(source="target_name", help_text="As it was shown then.")
    before = serializers.DictField(help_text="The changed fields as they were; secrets are masked.")
    after = serializers.DictField(help_text="The changed fields as they are now.")
    details = serializers.DictField(help_text="What else there is to say.")
    digest = serializers.CharField(help_text="What holds it in the chain.")


class Audit(Listed, Retrieved):
    """Every change, sign-in and look at logged content, newest first."""

    resource, model, serializer_class = "audit", AuditEvent, AuditEventSerializer
    queryset = AuditEvent.objects.all()
    newest_first = True
    lookup_value_regex = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    filters = {
        "since": Since("pk__gte", "Only events from then on.", "moment"),
        "until": Since("pk__lt", "Only events before then.", "moment"),
        "channel": Filter("channel", "Only what was done through this.", tuple(CHANNELS)),
        "action": Filter("action", "Only this action."),
        "user": Filter("detail__user_id", "Only what the person with this id did.", "id"),
        "target_type": Filter("target_type", "Only what was done to such objects."),
        "target_id": Filter("target_id", "Only what was done to the object with this id; with target_type."),
    }

    def get_queryset(self) -> Any:
        return AuditEvent.objects.select_related("detail")

    def row(self, **conditions: Any) -> Any:
        return super().row(pk=self.kwargs["pk"])
