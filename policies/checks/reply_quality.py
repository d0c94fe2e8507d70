"""Whether a reply is one: not empty, not refused, not cut off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from policies.checks.base import Check, SettingsForm, World, register
from policies.replies import Said, choices_of
from policies.types import Action, Exchange, Found, Stage

# How models begin when they decline. Only at the beginning of a reply: in its middle somebody may be quoted.
# The model must speak of itself ("unfortunately you cannot cancel online" declines nothing).
_CANNOT = r"i(?:\ can(?:no|['’])?t|\ can\ not|\ won['’]t|(?:\ a|['’])m\ (?:not\ able|unable))\b(?!\ help\ but\b)"
REFUSALS = re.compile(
    rf"""\W*(?:
    (?:i(?:['’]m|\ am)\ (?:very\ |so\ |really\ )?sorry|sorry|(?:my\ )?apologies|i\ apologi[sz]e|unfortunately)\b
        .{{0,40}}?\b{_CANNOT}
    |{_CANNOT}.{{0,20}}?\b(?:help|assist|comply|provide|discuss|do\ that|fulfil|generate|create|share|engage)
    |as\ an\ ai\b.{{0,60}}?\b{_CANNOT}
    |(?:es\ tut\ mir\ leid|leider|entschuldigung)\b.{{0,40}}?\b(?:(?:kann|darf)\ ich|ich\ (?:kann|darf))\b
        .{{0,60}}?\bnicht\b
    |ich\ (?:kann|darf)\b.{{0,40}}?\bnicht\ (?:weiter)?helfen\b
    |(?:je\ suis\ (?:vraiment\ )?désolée?|désolée?|malheureusement)\b.{{0,40}}?\bje\ ne\ (?:peux|puis)\b
    |(?:lo\ siento|lamentablemente|lamento)\b.{{0,40}}?\bno\ puedo\b
    |(?:mi\ dispiace|purtroppo)\b.{{0,40}}?\bnon\ posso\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
OPENING_CHARS = 200
CUT_OFF = frozenset({"length", "max_tokens", "content_filter"})


class QualityForm(SettingsForm):
    empty = forms.BooleanField(
        label="Empty", required=False, initial=True, help_text="Neither text nor a call of a tool."
    )
    refused = forms.BooleanField(
        label="Refused",
        required=False,
        initial=True,
        help_text="The provider says so, or the reply begins as refusals do in English, German, French, Spanish or "
        "Italian.",
    )
    truncated = forms.BooleanField(
        label="Cut off",
        required=False,
        initial=True,
        help_text="The reply ended at the limit of its tokens, or at the provider's own filter.",
    )


@register
class ReplyQualityCheck(Check):
    name = "reply_quality"
    label = "Reply quality"
    help = (
        "Counts replies that are empty, refused or cut off, so that you see where a model or a limit does not fit. It "
        "only watches: nothing is changed or blocked, and streams are not held back."
    )
    stages = frozenset({Stage.REPLY})
    actions = frozenset({Action.AUDIT})
    needs_whole_reply = True
    SettingsForm = QualityForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._wanted = frozenset(name for name in ("empty", "refused", "truncated") if settings[name])

    def inspect_reply(self, reply: dict[str, Any], exchange: Exchange) -> Iterable[Found]:
        """One finding for each choice and fault, labelled with the fault."""
        return [Found(fault) for said in choices_of(reply) for fault in _faults(said) if fault in self._wanted]


def _faults(said: Said) -> Iterable[str]:
    if not said.text.strip() and not said.calls and not said.refusal:
        yield "empty"
    if said.refusal or REFUSALS.match(said.text[:OPENING_CHARS]):
        yield "refused"
    if said.ending in CUT_OFF:
        yield "truncated"
