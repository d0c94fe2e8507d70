"""Replies that must be JSON of a certain shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema_rs
from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.fields import ObjectField
from policies.replies import choices_of
from policies.types import Action, Exchange, Found, Stage

FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.IGNORECASE | re.DOTALL)
NOT_JSON, NOT_FITTING = "not JSON", "not the schema"
MAX_REPLY_CHARS = 1_000_000


class SchemaForm(SettingsForm):
    schema = ObjectField(
        label="JSON schema",
        max_chars=100_000,
        help_text="What the text of each answer must fit, as JSON Schema (drafts 4 to 2020-12). References may point "
        "inside the schema only; patterns know neither look-around nor back-references.",
    )
    allow_fences = forms.BooleanField(
        label="Allow code fences",
        required=False,
        initial=False,
        help_text="Also take an answer that is one block of code (```json) with the JSON in it.",
    )

    def clean_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = self.cleaned_data["schema"]
        try:
            compiled(schema)
        except ValueError as error:
            raise forms.ValidationError(f"is no JSON schema: {str(error).splitlines()[0]}") from None
        return schema


@register
class ReplySchemaCheck(Check):
    name = "reply_schema"
    label = "JSON schema of replies"
    help = (
        "Finds answers whose text is not JSON of the shape that you describe. Answers that only call tools are left "
        "alone. A rule that blocks holds a stream back to its end: until then nobody knows."
    )
    stages = frozenset({Stage.REPLY})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    message = "The model's answer does not have the form that is required here. Ask again, and ask for that form."
    needs_whole_reply = True
    SettingsForm = SchemaForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._fits = compiled(settings["schema"]).is_valid
        self._allows_fences = settings["allow_fences"]

    def inspect_reply(self, reply: dict[str, Any], exchange: Exchange) -> Iterable[Found]:
        """One finding for each choice that does not fit. Embeddings have no text and fit."""
        return [
            Found(fault)
            for said in choices_of(reply)
            if (said.text or not said.calls) and (fault := self._fault(said.text))
        ]

    def _fault(self, text: str) -> str:
        if self._allows_fences and (fenced := FENCED.fullmatch(text[:MAX_REPLY_CHARS])):
            text = fenced[1]
        if len(text) > MAX_REPLY_CHARS:
            return NOT_FITTING
        try:
            value = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return NOT_JSON
        try:
            return "" if self._fits(value) else NOT_FITTING
        except ValueError:
            return NOT_FITTING  # nested more deeply, or numbers larger, than the validator reads


def compiled(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """Raises ValueError. Nothing is fetched, and patterns take linear time whatever a model writes."""
    return jsonschema_rs.validator_for(schema, retriever=_fetch_nothing, pattern_options=jsonschema_rs.RegexOptions())


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is Python's, and no client's JSON")


def _fetch_nothing(uri: str) -> Any:
    raise ValueError("references to other documents are not followed")
