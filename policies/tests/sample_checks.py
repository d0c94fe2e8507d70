"""Checks for tests of what surrounds checks: small, and with a setting of each kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django import forms

from policies.checks.base import CHECKS, Check, SettingsForm, World
from policies.fields import WordlistsField
from policies.fold import Folded
from policies.types import Action, Exchange, Found, Scan, Stage


class SampleWords(Check):
    """Needs word lists."""

    name = "sample_words"
    label = "Sample words"
    help = "For tests."

    class SettingsForm(SettingsForm):
        wordlists = WordlistsField(help_text="Lists.")

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self.matchers = [world.wordlist(name) for name in settings["wordlists"]]

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return Scan((), len(text.original))


class SampleLimit(Check):
    """Looks at requests only, and has nothing to redact."""

    name = "sample_limit"
    label = "Sample limit"
    help = "For tests."
    stages = frozenset({Stage.REQUEST})
    actions = frozenset({Action.AUDIT, Action.BLOCK})

    class SettingsForm(SettingsForm):
        limit = forms.IntegerField(min_value=1, help_text="At most.")
        strict = forms.BooleanField(required=False, initial=True, help_text="Without exception.")

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        self.limit = settings["limit"]

    def inspect(self, exchange: Exchange) -> list[Found]:
        return []


class SamplePattern(Check):
    """Can only be written down, and cannot be compiled from everything."""

    name = "sample_pattern"
    label = "Sample pattern"
    help = "For tests."
    actions = frozenset({Action.AUDIT})

    class SettingsForm(SettingsForm):
        pattern = forms.CharField(help_text="A pattern.")

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        try:
            self.pattern = re.compile(settings["pattern"])
        except re.error:
            raise ValueError("is not a regular expression") from None

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        return Scan((), len(text.original))


class SampleMemory(Check):
    name = "sample_memory"
    label = "Sample memory"
    help = "For tests."
    remembers = True

    def inspect(self, exchange: Exchange) -> list[Found]:
        return []


@contextmanager
def registered() -> Iterator[None]:
    """With these checks among the others."""
    samples = {check.name: check for check in (SampleWords, SampleLimit, SamplePattern, SampleMemory)}
    CHECKS.update(samples)
    yield
    for name in samples:
        del CHECKS[name]
