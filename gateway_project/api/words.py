"""Word lists and their entries."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.response import Response

from gateway_project.api.answers import answered
from gateway_project.api.base import Everything
from gateway_project.api.fields import RowSerializer, Text
from gateway_project.api.pages import Filter, page_of
from policies import services
from policies.intake import MAX_ENTRIES
from policies.models import Wordlist, WordlistEntry
from policies.services import ENTRY_CHARS, EntriesChanged
from policies.wordlist_forms import too_many


class WordlistSerializer(RowSerializer):
    class Meta:
        model = Wordlist
        fields = (
            "id",
            "name",
            "description",
            "catch_disguises",
            "builtin",
            "entry_count",
            "content_hash",
            "updated_at",
        )
        read_only_fields = ("id", "builtin", "entry_count", "content_hash", "updated_at")


class EntrySerializer(serializers.ModelSerializer):
    class Meta:
        model = WordlistEntry
        fields = ("id", "text", "allow")


def _texts(words: str) -> serializers.ListField:
    return serializers.ListField(
        child=Text(max_length=ENTRY_CHARS, allow_blank=True), required=False, max_length=MAX_ENTRIES, help_text=words
    )


@extend_schema_serializer(
    examples=[
        OpenApiExample("Two", value={"entries": ["secret project", "codename*"], "exceptions": []}, request_only=True)
    ]
)
class EntriesSerializer(serializers.Serializer):
    entries = _texts("Words, phrases, or either with * for any letters.")
    exceptions = _texts("Where these stand, no entry of the list counts.")


class ChangedSerializer(serializers.Serializer):
    added = serializers.IntegerField()
    removed = serializers.IntegerField()
    duplicates = serializers.ListField(
        child=serializers.CharField(), help_text="Given more than once, or there already under another spelling."
    )


class Wordlists(Everything):
    """Words and phrases that rules look for."""

    resource, model, serializer_class = "wordlists", Wordlist, WordlistSerializer
    queryset = Wordlist.objects.all()
    paged = ("entries",)
    filters = {"name": Filter("name", "Only the list of this name.")}

    def save(self, given: dict[str, Any], row: Any) -> Any:
        form = answered(self.request, Wordlist, given, row)
        services.save_wordlist(form.instance)
        return form.instance

    def remove(self, row: Any) -> None:
        services.delete_wordlist(row)

    @extend_schema(responses=EntrySerializer(many=True))
    @action(detail=True, methods=["get"])
    def entries(self, request: Any, pk: str) -> Response:
        """Those of your own; words that ship with Gatehouse are not listed."""
        page = page_of(self.row().entries.all(), request)
        return Response({"data": EntrySerializer(page.rows, many=True).data, "next": page.next})

    @extend_schema(request=EntriesSerializer, responses=ChangedSerializer)
    @entries.mapping.post
    def add_entries(self, request: Any, pk: str) -> Response:
        """Adds these; what is there stays."""
        wordlist, given = self.row(), self._given()
        self._check_room(sum(map(len, given)), wordlist)
        return _changed(services.add_entries(wordlist, *given))

    @extend_schema(request=EntriesSerializer, responses=ChangedSerializer)
    @entries.mapping.put
    def put_entries(self, request: Any, pk: str) -> Response:
        """Lets these be all entries and exceptions."""
        wordlist, given = self.row(), self._given()
        self._check_room(sum(map(len, given)), None)
        return _changed(services.set_entries(wordlist, *given))

    @extend_schema(request=EntriesSerializer, responses=ChangedSerializer)
    @action(detail=True, methods=["post"], url_path="entries/remove")
    def remove_entries(self, request: Any, pk: str) -> Response:
        """Takes these out, however they are spelled. What is not there is not missed."""
        wordlist = self.row()
        return _changed(services.remove_entries(wordlist, *self._given()))

    def _given(self) -> tuple[list[str], list[str]]:
        given = self.given(serializer=EntriesSerializer)
        return given.get("entries", []), given.get("exceptions", [])

    def _check_room(self, count: int, wordlist: Wordlist | None) -> None:
        if problem := too_many(count, wordlist):
            raise serializers.ValidationError({"entries": problem})


def _changed(changed: EntriesChanged) -> Response:
    return Response({"added": changed.added, "removed": changed.removed, "duplicates": changed.duplicates[:1000]})
