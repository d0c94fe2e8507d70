"""Words and phrases that are not to pass, by lists that the admin keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.checks import base
from policies.checks.base import Check, World, register
from policies.fields import WordlistsField
from policies.fold import Folded
from policies.types import Scan, Span


@register
class Wordlist(Check):
    name = "wordlist"
    label = "Word lists"
    help = (
        "Finds words and phrases of the lists you choose: whole words, in any case, with any white space between the "
        "words of a phrase, also when look-alike letters or invisible characters hide them. What each list holds, and "
        "what it makes exceptions for, is kept under Word lists."
    )
    message = "Your text contains words that your organisation does not allow here. Rephrase it."

    class SettingsForm(base.SettingsForm):
        wordlists = WordlistsField(
            label="Word lists", help_text="Their names: profanity, adult, dan, or one of your own."
        )

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._lists = [world.wordlist(name) for name in settings["wordlists"]]
        self.left_context = max((matcher.left_context for matcher in self._lists), default=1)

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        if len(self._lists) == 1:
            return self._lists[0].scan(text, start, final)
        scans = [matcher.scan(text, start, final) for matcher in self._lists]
        spans: list[Span] = [span for scan in scans for span in scan.spans]
        return Scan(spans, min(scan.safe_upto for scan in scans))
