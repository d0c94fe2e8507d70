"""Topics that are not to be talked about: keywords and regular expressions that the admin writes into the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from policies.checks import base
from policies.checks.base import Check, Scanner, World, register
from policies.fields import LinesField
from policies.fold import Folded
from policies.patterns import MAX_PATTERN_CHARS, MAX_PATTERNS, BadPattern, Patterns
from policies.types import Scan, Span
from policies.wordlists.matcher import Matcher, validate_entry

MAX_KEYWORDS = 1000
MAX_MATCH_CHARS = 2000


class TopicsForm(base.SettingsForm):
    keywords = LinesField(
        required=False,
        help_text="Words and phrases, one per line, in any case; * stands for any letters. Longer lists belong under "
        "Word lists.",
    )
    whole_words = forms.BooleanField(
        required=False,
        initial=True,
        help_text="Only where a keyword stands by itself. Off: also inside a longer word.",
    )
    patterns = LinesField(
        required=False,
        help_text="Regular expressions in RE2 syntax, one per line, in any case; ^ and $ match at the ends of lines.",
    )
    max_match_chars = forms.IntegerField(
        label="Longest match",
        min_value=1,
        max_value=MAX_MATCH_CHARS,
        initial=200,
        help_text="What a pattern matches counts up to so many characters. The end of a stream may be held as long.",
    )

    def clean_keywords(self) -> list[str]:
        keywords: list[str] = self.cleaned_data["keywords"]
        if len(keywords) > MAX_KEYWORDS:
            raise forms.ValidationError(f"At most {MAX_KEYWORDS} keywords: put longer lists under Word lists.")
        return keywords

    def clean_patterns(self) -> list[str]:
        patterns: list[str] = self.cleaned_data["patterns"]
        if len(patterns) > MAX_PATTERNS:
            raise forms.ValidationError(f"At most {MAX_PATTERNS} patterns.")
        reasons = []
        for number, pattern in enumerate(patterns, 1):
            try:
                Patterns([pattern], MAX_MATCH_CHARS)
            except BadPattern as error:
                reasons.append(f"Pattern {number} ({pattern[:MAX_PATTERN_CHARS]}): {error}.")
        if reasons:
            raise forms.ValidationError(reasons)
        return patterns

    def clean(self) -> dict[str, Any]:
        if self.errors:
            return self.cleaned_data
        keywords, patterns = self.cleaned_data["keywords"], self.cleaned_data["patterns"]
        if not keywords and not patterns:
            raise forms.ValidationError({"keywords": "Name at least one keyword or pattern."})
        reasons = []
        for keyword, entry in zip(keywords, _entries(self.cleaned_data), strict=True):
            try:
                validate_entry(entry)
            except ValueError as error:
                reasons.append(f"{keyword}: {error}")
        if reasons:
            raise forms.ValidationError({"keywords": reasons})
        return self.cleaned_data


def _entries(settings: Mapping[str, Any]) -> list[str]:
    """The keywords as entries of a word list."""
    keywords: list[str] = settings["keywords"]
    return keywords if settings["whole_words"] else [_inside(keyword) for keyword in keywords]


def _inside(keyword: str) -> str:
    """Also inside a longer word, on the sides where it has a letter or a digit ("C++" only on the left)."""
    left, right = ("*" if keyword[end].isalnum() else "" for end in (0, -1))
    return f"{left}{keyword}{right}"


@register
class TopicsCheck(Check):
    """A finding is labelled "keyword" or with the number of the pattern: which line of the rule it was, not what stood
    in the text."""

    name = "topics"
    label = "Topics"
    help = (
        "Finds keywords and regular expressions that you write right here, for topics that are not to be talked about. "
        "Patterns run on RE2, in time that grows with the text and not with what it says."
    )
    message = "Your text is about a topic that your organisation does not allow here."
    SettingsForm = TopicsForm

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self._scanners: list[Scanner] = []
        if settings["keywords"]:
            matcher = Matcher("keyword", _entries(settings))
            self._scanners.append(matcher)
            self.left_context = matcher.left_context
        if settings["patterns"]:
            self._scanners.append(_OfPatterns(settings["patterns"], settings["max_match_chars"]))
            self.left_context = max(self.left_context, Patterns.left_context)

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        if len(self._scanners) == 1:
            return self._scanners[0].scan(text, start, final)
        scans = [scanner.scan(text, start, final) for scanner in self._scanners]
        spans: list[Span] = [span for scan in scans for span in scan.spans]
        return Scan(spans, min(scan.safe_upto for scan in scans))


class _OfPatterns:
    """Patterns read the text as it was sent: an administrator's `[A-Z]` or `é` means what it says."""

    def __init__(self, patterns: list[str], max_chars: int) -> None:
        self._patterns = Patterns(patterns, max_chars)

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return self._patterns.scan(text.original, start, final)
