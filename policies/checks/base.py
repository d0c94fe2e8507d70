"""What a check is: it finds. The rule decides what is done about it, and the engine does it.

So every check works in audit, redact and block, on requests and replies, whole and streamed, without a line about any
of them. To add one: subclass Check in a file of its own, decorate it with `@register`, override the moments at which it
has something to say, describe it in docs/policies.md, and run it through the kit in policies/tests/tools.py.

Moments, in order. A check overrides one or several; the others cost nothing:

    inspect(exchange)           the request as a whole: a model, a number, a list of tools
    for_call(exchange)          once a call, before `scan`: a scanner that knows this call (what the reply must not say)
    scan(text, start, final)    a text: every text of the request, every text of the reply, whole or as it grows
    enforce(exchange)           after everything was looked at: what the rule changes whatever was found
    ask(texts, moderate)        somebody else's verdict on the texts (moderation); the only one that may wait
    inspect_reply(reply, exchange)   the whole reply (`needs_whole_reply`)

One instance serves all calls of a process at once: compile in `__init__`, keep nothing of a call in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from django import forms
from django.core.exceptions import ValidationError

from policies.fold import Folded
from policies.types import Action, Exchange, Found, Scan, Stage

EVERYWHERE = frozenset(Stage)
EVERY_ACTION = frozenset(Action)


class Scanner(Protocol):
    def scan(self, text: Folded, start: int, final: bool) -> Scan: ...


class WordMatcher(Protocol):
    """A compiled word list (policies.wordlists.matcher). `scan` as Check.scan, its spans labelled with the list."""

    left_context: int

    def scan(self, text: Folded, start: int, final: bool) -> Scan: ...


class World(Protocol):
    """What a check may need of the rest of the configuration, when it is compiled."""

    def wordlist(self, name: str) -> WordMatcher:
        """Raises LookupError when there is no such list."""


class Verdict(Protocol):
    """A moderation endpoint's answer: score per category, 0 to 1; `flagged`: the categories it flags itself."""

    @property
    def scores(self) -> Mapping[str, float]: ...

    @property
    def flagged(self) -> frozenset[str]: ...


# Provider's name, model, texts -> one verdict for all of them. Raises policies.errors.ModerationFailed.
Moderate = Callable[[str, str, list[str]], Awaitable[Verdict]]


class SettingsForm(forms.Form):
    """The settings of a rule, as the admin shows them and `apply` and the API read them.

    `clean()` gives JSON: lists, texts, numbers, booleans. Use policies.fields for lists and for choices that are rows.
    Every field has help_text; defaults (`initial`) stand for fields that are not given.
    """


class Check:
    """Class attributes are the check's identity card; see the module for the moments.

    name               stable id: in the database, in findings, in metrics, in `apply` files
    label, help        for the admin: what it is called, and in two or three sentences what it is for
    stages             where it can look
    actions            what can be done about what it finds
    change_label       what REDACT is called for it: "Redact", "Clamp", "Strip", "Add"
    message            for the caller of a blocked call, when neither the rule nor the finding has one
    left_context       so many characters before `start` are enough to judge the text from `start` on
    needs_whole_reply  in a stream nothing is released before the reply is complete (unless it is only audited)
    remembers          keeps something from call to call (a loop breaker): each rule has an instance of its own, where
                       others share one that has the same settings
    """

    name: ClassVar[str]
    label: ClassVar[str]
    help: ClassVar[str]
    stages: ClassVar[frozenset[Stage]] = EVERYWHERE
    actions: ClassVar[frozenset[Action]] = EVERY_ACTION
    change_label: ClassVar[str] = "Redact"
    message: ClassVar[str] = "This request was blocked by a policy of your organisation."
    needs_whole_reply: ClassVar[bool] = False
    default_timeout_ms: ClassVar[int] = 1000
    remembers: ClassVar[bool] = False
    SettingsForm: ClassVar[type[SettingsForm]] = SettingsForm

    left_context: int = 1
    gentle: bool = False  # its settings want BLOCK to put things right, as REDACT does
    runs_beside: bool = False  # its settings let the call go ahead while it is asked; the reply waits for it

    def __init__(self, settings: Mapping[str, Any], world: World) -> None:
        """`settings` as cleaned by the form. Raises LookupError, ValueError for what cannot be compiled."""

    def inspect(self, exchange: Exchange) -> Iterable[Found]:
        """What is wrong with the request as a whole. Changes nothing."""
        return ()

    def for_call(self, exchange: Exchange) -> Scanner | None:
        """Who scans the texts of this call; None: nobody needs to. Sees the request as it came."""
        return self

    def scan(self, text: Folded, start: int, final: bool) -> Scan:
        """Every match that begins at or after `start`, as offsets into `text.original`; see policies.types.Scan.

        The verdict on a match must be the same however the text came in: judged from the text before `start` for at
        most `left_context` characters, and only once it is `safe_upto` there. Called again with the same text and more.
        """
        raise NotImplementedError

    def enforce(self, exchange: Exchange) -> None:
        """What the rule changes in the request, whatever was found: never in a dry run."""

    def replacement(self, text: str, label: str) -> str:
        """What stands in a redacted text where `text` was found."""
        return "****"

    async def ask(self, texts: list[str], moderate: Moderate) -> Iterable[Found]:
        """Somebody else's verdict. Raises policies.errors.ModerationFailed."""
        return ()

    def inspect_reply(self, reply: dict[str, Any], exchange: Exchange) -> Iterable[Found]:
        """What is wrong with the whole reply, in the endpoint's OpenAI shape (a stream's is put together)."""
        return ()


CHECKS: dict[str, type[Check]] = {}

Registered = TypeVar("Registered", bound=type[Check])


def register(check: Registered) -> Registered:
    CHECKS[check.name] = check
    return check


def has(check: type[Check], moment: str) -> bool:
    """Whether the check overrides a moment, such as "scan"."""
    return getattr(check, moment) is not getattr(Check, moment)


def reads_texts(check: type[Check]) -> bool:
    return has(check, "scan") or has(check, "for_call")


def clean_settings(check: type[Check], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are stored, from a form, a file or the API: checked, with defaults for what is not given.

    Raises ValidationError, by field.
    """
    known = check.SettingsForm.base_fields
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        names = ", ".join(known) or "none"
        raise ValidationError(dict.fromkeys(unknown, f"is no setting of {check.name}; it has: {names}"))
    usual = {name: field.initial for name, field in known.items() if field.initial is not None}
    form = check.SettingsForm(usual | dict(given))
    if not form.is_valid():
        raise ValidationError(dict(form.errors.as_data()))
    return dict(form.cleaned_data)
