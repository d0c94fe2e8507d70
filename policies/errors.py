"""How a policy ends a call. Only proxy/errors.py knows what status these become."""

from __future__ import annotations


class PolicyError(Exception):
    """`message` is for the caller; it names no text that was matched."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Blocked(PolicyError):
    """A rule blocks the call.

    answer  the text to give as a normal completion instead of an error, if any
    canned  that text is what the rule is for, not a polite refusal
    """

    def __init__(self, message: str, answer: str | None = None, *, canned: bool = False) -> None:
        super().__init__(message)
        self.answer = answer
        self.canned = canned


class CheckFailed(PolicyError):
    """A check broke, or took too long, and its rule does not fail open."""


class Unreadable(PolicyError):
    """What came cannot be read as texts, so nothing of it may pass."""


class ModerationFailed(Exception):
    """The moderation endpoint did not answer, or made no sense. Says nothing of the text."""
