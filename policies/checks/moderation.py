"""Moderation: somebody else's verdict on what is said, by category, with thresholds of one's own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks import base
from policies.checks.base import Check, Moderate, Verdict, World, register
from policies.errors import ModerationFailed
from policies.fields import LinesField, ProviderField
from policies.moderation import CATEGORY, says_anything
from policies.types import Action, Found

logger = logging.getLogger(__name__)

BEFORE, PARALLEL = "before", "parallel"


class ThresholdsField(forms.Field):
    """Scores by category: an object in files and the API, `category = 0.8` a line in the admin. Cleans to a dict."""

    widget = forms.Textarea(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return "\n".join(f"{category} = {score}" for category, score in value.items())

    def to_python(self, value: Any) -> dict[str, float]:
        if value in (None, ""):
            return {}
        if isinstance(value, str):
            lines = (line.strip() for line in value.splitlines())
            pairs = [tuple(map(str.strip, line.rpartition("=")[::2])) for line in lines if line]
            return {category: self._score(category, score) for category, score in pairs}
        if not isinstance(value, Mapping):
            raise forms.ValidationError("must be scores by category, such as {violence: 0.8}")
        return {str(category).strip(): self._score(category, score) for category, score in value.items()}

    def validate(self, value: dict[str, float]) -> None:
        check_categories(value)

    def _score(self, category: Any, given: Any) -> float:
        try:
            score = float("nan") if isinstance(given, bool) else float(given)
        except (TypeError, ValueError):
            score = float("nan")
        if not 0 <= score <= 1:
            raise forms.ValidationError(f"the score of {category or 'a category'} must be a number from 0 to 1")
        return score


def check_categories(categories: Iterable[str]) -> None:
    """Raises ValidationError."""
    for category in categories:
        if not CATEGORY.fullmatch(category):
            raise forms.ValidationError(f"{category or 'nothing'} is no name of a category")


@register
class ModerationCheck(Check):
    """Each category that counts is found once, whatever the number of texts it was found in.

    `runs_beside` only means something for requests: a reply is there before it can be judged.
    """

    name = "moderation"
    label = "Moderation"
    help = (
        "Asks a provider's moderation endpoint (OpenAI's, or any that answers like it) about what is said: hate, "
        "violence, sexual content, self-harm and so on. To block, it waits for the verdict; to audit, it asks after "
        "the reply, and nobody waits. The texts are sent to that provider."
    )
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    message = "Moderation flagged this request. Rephrase it."
    default_timeout_ms = 5000

    class SettingsForm(base.SettingsForm):
        provider = ProviderField(
            required=False,
            max_length=100,
            help_text="Which of your providers is asked. May be empty while there is just one of kind OpenAI.",
        )
        model = forms.CharField(
            initial="omni-moderation-latest", max_length=200, help_text="That provider's name of its moderation model."
        )
        categories = LinesField(
            required=False,
            help_text="Only these count, as the provider names them, such as violence or self-harm/intent. "
            "Empty: every one that it knows.",
        )
        thresholds = ThresholdsField(
            required=False,
            help_text="From which score on a category counts, such as `violence = 0.8`, instead of when the provider "
            "flags it. The lower, the stricter.",
        )
        mode = forms.ChoiceField(
            choices=[
                (BEFORE, "Before: the request leaves when the verdict is in"),
                (PARALLEL, "Parallel: the request leaves at once, the reply waits for the verdict"),
            ],
            initial=BEFORE,
            help_text="Parallel costs no time as long as the provider is slower than the moderation, but what is "
            "blocked then was sent and is billed. For requests; replies always wait.",
        )

        def clean_categories(self) -> list[str]:
            categories: list[str] = self.cleaned_data["categories"]
            check_categories(categories)
            return categories

        def clean(self) -> dict[str, Any]:
            cleaned = super().clean() or {}
            categories, thresholds = cleaned.get("categories"), cleaned.get("thresholds") or {}
            if categories and (idle := [category for category in thresholds if category not in categories]):
                self.add_error("thresholds", f"{idle[0]} is not among the categories that count")
            return cleaned

    def __init__(self, settings: Mapping[str, Any], world: World | None = None) -> None:
        self.settings = dict(settings)
        self.provider: str = settings.get("provider", "")
        self.model: str = settings.get("model", "omni-moderation-latest")
        self.categories: list[str] = settings.get("categories", [])
        self.thresholds: dict[str, float] = settings.get("thresholds", {})
        self.runs_beside = settings.get("mode") == PARALLEL

    async def ask(self, texts: list[str], moderate: Moderate) -> Iterable[Found]:
        if not says_anything(texts):
            return []
        found = self.judge(await moderate(self.provider, self.model, texts))
        return [Found(label=category, message=self.message) for category in found]

    def judge(self, verdict: Verdict) -> list[str]:
        """The categories that are found. Raises ModerationFailed when the verdict does not cover what the rule asks:
        a category that nobody judges would otherwise never be found, and nobody would know."""
        for category in (*self.categories, *self.thresholds):
            if category not in verdict.scores:
                logger.error("the moderation of provider %s has no category %s", self.provider or "(openai)", category)
                raise ModerationFailed(f"the endpoint has no category {category}")
        return [category for category in sorted(self.categories or verdict.scores) if self._counts(category, verdict)]

    def _counts(self, category: str, verdict: Verdict) -> bool:
        threshold = self.thresholds.get(category)
        return category in verdict.flagged if threshold is None else verdict.scores[category] >= threshold
