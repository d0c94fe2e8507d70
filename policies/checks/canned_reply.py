"""Questions that are answered here, with a text of yours, and reach no provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.fields import PairsField
from policies.prompts import CHAT, COMPLETIONS, messages_of, texts_in
from policies.types import Action, Exchange, Found, Stage

NORMALISED, EXACT = "normalised", "exact"


class CannedReplyForm(SettingsForm):
    replies = PairsField(
        "match",
        "reply",
        max_pairs=1000,
        max_chars=20_000,
        label="Replies",
        help_text="One a line: the whole question => the answer. Of replies with several lines the form shows JSON: "
        '[{"match": "...", "reply": "..."}].',
    )
    match_how = forms.ChoiceField(
        label="Compare",
        choices=[(NORMALISED, "Whatever the case and the spaces"), (EXACT, "To the letter")],
        initial=NORMALISED,
        help_text="Whether case, and white space around and between words, make a difference.",
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        replies = cleaned.get("replies") or []
        normalised = cleaned.get("match_how") == NORMALISED
        questions = [_normalised(pair["match"]) if normalised else pair["match"] for pair in replies]
        if len(set(questions)) < len(questions):
            again = next(index for index, question in enumerate(questions) if question in questions[:index])
            self.add_error("replies", f"must have one reply a question: number {again + 1} asks what was asked before")
        return cleaned


@register
class CannedReplyCheck(Check):
    name = "canned_reply"
    label = "Canned replies"
    help = (
        "Answers questions that you list with texts that you write: “who are you”, “what are your opening hours”. "
        "The whole last message must be the question. “Block” gives the answer; no provider is asked and nothing is "
        "billed. What another rule blocks stays blocked."
    )
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})
    SettingsForm = CannedReplyForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._normalise = settings["match_how"] == NORMALISED
        self._found: dict[str, tuple[Found, ...]] = {}
        for number, pair in enumerate(settings["replies"], 1):
            question = _normalised(pair["match"]) if self._normalise else pair["match"]
            self._found.setdefault(question, (Found(f"reply {number}", answer=pair["reply"]),))
        self._most_chars = max(map(len, self._found))
        self._most_words = max(len(question.split()) for question in self._found)

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        question = _last_text(exchange)
        if self._normalise:
            # Of a long text no more words are looked at than the longest question has; the rest stays one piece.
            question = " ".join(question.split(None, self._most_words))
        if len(question) > self._most_chars:  # folding case never makes a text shorter
            return ()
        return self._found.get(question.casefold() if self._normalise else question, ())


def _normalised(text: str) -> str:
    return " ".join(text.split()).casefold()


def _last_text(exchange: Exchange) -> str:
    """What the last message says, or the prompt; "" where there is none, or several."""
    if exchange.endpoint == CHAT:
        messages = messages_of(exchange.body)
        content = messages[-1].get("content") if messages else None
        return content if isinstance(content, str) else "\n".join(texts_in(content))
    prompt = exchange.body.get("prompt") if exchange.endpoint == COMPLETIONS else None
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return prompt if isinstance(prompt, str) else ""
