"""Policies: the draft that is edited, versions that are in force, and whom they hold for."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin
from django.core.exceptions import ValidationError
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.response import Response

from accounts.models import ApiKey, Team, User
from gateway_project.api.answers import wrong
from gateway_project.api.base import Everything
from gateway_project.api.fields import AnyObject, Flag, RowId, RowSerializer, Text, Whole
from gateway_project.api.pages import Filter, page_of
from gateway_project.api.tags import check_match, tag_of
from policies import selectors, services
from policies.documents import POLICY_FIELDS, RuleSpec, document_of, read
from policies.forms import TryForm
from policies.models import Policy, PolicyVersion, Rule
from policies.services import InvalidRules
from policies.try_it import Ending, Trial, attempt

WORKING, IN_FORCE = "draft", "in_force"
AT_ONCE = ("enabled", "everyone", "teams", "keys")


class PolicySerializer(RowSerializer):
    version = serializers.SerializerMethodField(help_text="The version in force; null: never published.")
    unpublished_changes = serializers.SerializerMethodField(help_text="Whether the draft says something else.")

    class Meta:
        model = Policy
        fields = ("id", "name", "description", "enabled", "version", "unpublished_changes", "created_at")
        read_only_fields = ("id", "created_at")

    def get_version(self, policy: Policy) -> int | None:
        return policy.current.number if policy.current else None

    def get_unpublished_changes(self, policy: Policy) -> bool:
        return selectors.has_unpublished_changes(policy)


class RuleSerializer(serializers.Serializer):
    check = Text(max_length=50, help_text="What it looks for, such as wordlist.")
    name = Text(required=False, allow_blank=True, max_length=100)
    action = serializers.ChoiceField(Rule.Action.choices, required=False)
    block_with = serializers.ChoiceField(Rule.BlockWith.choices, required=False)
    answer = Text(required=False, allow_blank=True, max_length=100_000)
    stage = serializers.ChoiceField(Rule.AppliesTo.choices, required=False)
    settings = AnyObject(required=False, help_text="The check's own: see docs/policies.md.")
    message = Text(required=False, allow_blank=True, max_length=500)
    timeout_ms = Whole(required=False, min_value=1, max_value=60_000)
    fail_open = Flag(required=False)
    dry_run = Flag(required=False)
    enabled = Flag(required=False)


@extend_schema_serializer(
    examples=[
        OpenApiExample(
            "One rule",
            value={
                "show_flags": True,
                "rules": [{"check": "wordlist", "action": "block", "settings": {"wordlists": ["custom"]}}],
            },
            request_only=True,
        )
    ]
)
class DraftSerializer(serializers.Serializer):
    show_flags = Flag(required=False)
    header_overrides = serializers.ChoiceField(Policy.HeaderOverrides.choices, required=False)
    log_request = Flag(required=False)
    log_reply = Flag(required=False)
    retention_days = Whole(required=False, min_value=1, max_value=3650)
    rules = RuleSerializer(many=True, help_text="In the order in which they run.")


class NoteSerializer(serializers.Serializer):
    note = Text(required=False, allow_blank=True, max_length=300, default="", help_text="Why, in a line.")


class VersionSerializer(serializers.ModelSerializer):
    document = AnyObject(help_text="As drafts have it.")
    in_force = serializers.SerializerMethodField()

    class Meta:
        model = PolicyVersion
        fields = ("number", "in_force", "document", "published_at", "published_as", "note")

    def get_in_force(self, version: PolicyVersion) -> bool:
        return version.policy.current_id == version.pk


class AssignmentsSerializer(serializers.Serializer):
    everyone = Flag(help_text="Every call through the gateway.")
    teams = serializers.ListField(child=RowId(queryset=Team.objects.all()), max_length=1000, help_text="Ids.")
    keys = serializers.ListField(child=RowId(queryset=ApiKey.objects.all()), max_length=1000, help_text="Ids.")


class TrySerializer(serializers.Serializer):
    text = Text(max_length=100_000, help_text="What a user writes, or the JSON of a whole request, as text.")
    reply = Text(required=False, allow_blank=True, max_length=100_000, help_text="What the model answers, or its JSON.")
    model = Text(required=False, allow_blank=True, max_length=200, help_text="The model that is asked for.")
    rules = serializers.ChoiceField((WORKING, IN_FORCE), default=WORKING, help_text="Which rules are tried.")


class EndingSerializer(serializers.Serializer):
    ending = serializers.CharField(help_text="passes, blocked, answered or failed.")
    message = serializers.CharField()
    changed = serializers.BooleanField()
    texts = serializers.ListField(child=serializers.CharField(), help_text="As they go on.")


class TriedRuleSerializer(serializers.Serializer):
    rule = serializers.CharField()
    check = serializers.CharField()
    action = serializers.CharField()
    dry_run = serializers.BooleanField()
    found = serializers.ListField(child=serializers.CharField())
    note = serializers.CharField()


class TrialSerializer(serializers.Serializer):
    request = EndingSerializer()
    reply = EndingSerializer(allow_null=True)
    rules = TriedRuleSerializer(many=True)
    problems = serializers.ListField(child=serializers.CharField())


class Policies(Everything):
    """A policy is edited as a draft; what is in force is a version, made by publishing the draft."""

    resource, model, serializer_class = "policies", Policy, PolicySerializer
    queryset = Policy.objects.all()
    rights = {
        "publish": "policies.publish_policy",
        "roll_back": "policies.publish_policy",
        "put_draft": "change",
        "put_assignments": "change",
    }
    reading = ("try_it",)
    paged = ("versions",)
    filters = {
        "name": Filter("name", "Only the policy of this name."),
        "enabled": Filter("enabled", "Only policies that are switched on, or only others.", "flag"),
        "team": Filter("assignments__team", "Only those assigned to the team with this id.", "id"),
        "key": Filter("assignments__key", "Only those assigned to the API key with this id.", "id"),
    }

    def get_queryset(self) -> Any:
        return Policy.objects.select_related("current").prefetch_related("rules")

    def save(self, given: dict[str, Any], row: Any) -> Any:
        if "enabled" in given:
            self._check_fixed(row, "enabled")
        policy = row or Policy()
        for name, value in given.items():
            setattr(policy, name, value)
        policy.full_clean()
        policy.save(update_fields=list(given) if row is not None and given else None)
        return policy

    def _check_fixed(self, policy: Policy | None, *names: str) -> None:
        """What counts at once, without publishing, is for those who may publish. Raises PermissionDenied."""
        judge: Any = admin.site.get_model_admin(Policy)
        fixed = judge.fixed_fields(self.request, policy)
        for name in names:
            if name in fixed:
                raise PermissionDenied(f"You may not set {name} of a policy that is in force.")

    # --- the draft ---------------------------------------------------------------------------------------------------
    @extend_schema(responses=DraftSerializer)
    @action(detail=True, methods=["get"])
    def draft(self, request: Any, pk: str) -> Response:
        """What publishing would put in force."""
        return self._draft(self.row())

    @extend_schema(request=DraftSerializer, responses=DraftSerializer)
    @draft.mapping.put
    def put_draft(self, request: Any, pk: str) -> Response:
        """Replaces the draft. Nothing of it is in force before it is published."""
        policy = self.row()
        check_match(request, tag_of(document_of(policy)))
        judge = DraftSerializer(data=request.data)
        judge.is_valid(raise_exception=True)
        given = dict(judge.validated_data)
        specs = [RuleSpec(**rule) for rule in given.pop("rules")]
        try:
            specs = services.clean_rules(specs)
        except InvalidRules as error:
            said = {str(position): one.message_dict for position, one in error.by_rule.items()}
            raise serializers.ValidationError({"rules": said}) from None
        for name in POLICY_FIELDS:
            setattr(policy, name, given.get(name, _default(Policy, name)))
        policy.full_clean()
        policy.save(update_fields=POLICY_FIELDS)
        services.replace_rules(policy, specs)
        return self._draft(self.fresh(policy))

    def _draft(self, policy: Policy) -> Response:
        document = document_of(policy)
        response = Response(document)
        response["ETag"] = tag_of(document)
        return response

    def row(self, **conditions: Any) -> Any:
        """The draft has a tag of its own."""
        if self.action in ("put_draft", "put_assignments"):
            policy = self.get_queryset().select_for_update(of=("self",)).filter(pk=int(self.kwargs["pk"])).first()
            if policy is None:
                raise NotFound("There is no such policy.")
            self.need("change", policy)
            return policy
        return super().row(**conditions)

    # --- trying ------------------------------------------------------------------------------------------------------
    @extend_schema(request=TrySerializer, responses=TrialSerializer)
    @action(detail=True, methods=["post"], url_path="try")
    def try_it(self, request: Any, pk: str) -> Response:
        """What the policy would do with a conversation. Nothing is called, kept or logged."""
        policy = self.row()
        given = self.given(serializer=TrySerializer)
        if given["rules"] == IN_FORCE and policy.current is None:
            raise serializers.ValidationError({"rules": "It was never published."})
        form = TryForm({f"try-{name}": value for name, value in given.items() if name != "rules"})
        if not form.is_valid():
            raise wrong(form, {})
        document = policy.current.document if given["rules"] == IN_FORCE else document_of(policy)
        return Response(_trial(attempt(read(document, policy.name), form.conversation)))

    # --- versions ----------------------------------------------------------------------------------------------------
    @extend_schema(request=NoteSerializer, responses=VersionSerializer)
    @action(detail=True, methods=["post"])
    def publish(self, request: Any, pk: str) -> Response:
        """Puts the draft in force; without any change it is the version in force already."""
        policy = self.row()
        note = self.given(serializer=NoteSerializer)["note"]
        try:
            version = services.publish(policy, cast(User, request.user), note)
        except InvalidRules as error:
            said = {str(position): one.message_dict for position, one in error.by_rule.items()}
            raise serializers.ValidationError({"rules": said}) from None
        return Response(VersionSerializer(version).data)

    @extend_schema(responses=VersionSerializer(many=True))
    @action(detail=True, methods=["get"])
    def versions(self, request: Any, pk: str) -> Response:
        """What was ever in force, newest first."""
        rows = self.row().versions.select_related("policy")
        page = page_of(rows, request, newest_first=True, column="number")
        return Response({"data": VersionSerializer(page.rows, many=True).data, "next": page.next})

    @extend_schema(
        request=NoteSerializer,
        responses=VersionSerializer,
        parameters=[OpenApiParameter("number", int, OpenApiParameter.PATH, description="Of the version.")],
    )
    @action(detail=True, methods=["post"], url_path="versions/(?P<number>[0-9]{1,9})/roll-back")
    def roll_back(self, request: Any, pk: str, number: str) -> Response:
        """Publishes what that version said again, as a new one, and makes it the draft."""
        policy = self.row()
        self.need("change", policy)
        version = policy.versions.filter(number=int(number)).first()
        if version is None:
            raise NotFound("There is no such version.")
        note = self.given(serializer=NoteSerializer)["note"]
        try:
            now = services.roll_back(policy, version, cast(User, request.user), note)
        except ValidationError as error:
            raise serializers.ValidationError({"number": error.messages}) from None
        return Response(VersionSerializer(now).data)

    # --- whom it holds for ------------------------------------------------------------------------------------------
    @extend_schema(responses=AssignmentsSerializer)
    @action(detail=True, methods=["get"])
    def assignments(self, request: Any, pk: str) -> Response:
        """Whom it holds for. All policies that hold for a call count together."""
        return self._assignments(self.row())

    @extend_schema(request=AssignmentsSerializer, responses=AssignmentsSerializer)
    @assignments.mapping.put
    def put_assignments(self, request: Any, pk: str) -> Response:
        """Lets it hold for exactly these; that counts at once."""
        policy = self.row()
        check_match(request, tag_of(_assigned(policy)))
        judge = AssignmentsSerializer(data=request.data)
        judge.is_valid(raise_exception=True)
        given = judge.validated_data
        there = _assigned(policy)
        wanted = {"everyone": given["everyone"], **{name: _ids(given[name]) for name in ("teams", "keys")}}
        self._check_fixed(policy, *(name for name in there if there[name] != wanted[name]))
        services.set_assignments(policy, **given)
        return self._assignments(policy)

    def _assignments(self, policy: Policy) -> Response:
        shown = _assigned(policy)
        response = Response(shown)
        response["ETag"] = tag_of(shown)
        return response

    # --- deleting ----------------------------------------------------------------------------------------------------
    def refusal(self, row: Any) -> str:
        return "What is in force is taken out of force by those who may publish."


def _default(model: Any, name: str) -> Any:
    return model._meta.get_field(name).get_default()


def _ids(rows: list[Any]) -> list[int]:
    return sorted({row.pk for row in rows})


def _assigned(policy: Policy) -> dict[str, Any]:
    rows = list(policy.assignments.all())
    return {
        "everyone": any(row.scope == "everyone" for row in rows),
        "teams": sorted(row.team_id for row in rows if row.team_id),
        "keys": sorted(row.key_id for row in rows if row.key_id),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "request": _ending(trial.request),
        "reply": None if trial.reply is None else _ending(trial.reply),
        "rules": [
            {
                "rule": rule.title, "check": rule.check_label, "action": rule.action, "dry_run": rule.dry_run,
                "found": list(rule.found), "note": rule.note,
            }
            for rule in trial.rules
        ],
        "problems": list(trial.problems),
    }  # fmt: skip


def _ending(ending: Ending) -> dict[str, Any]:
    return {
        "ending": ending.kind,
        "message": ending.message,
        "changed": ending.changed,
        "texts": [one.text for one in ending.texts],
    }
