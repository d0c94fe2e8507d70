"""The settings of the checks that look at requests as a whole: what stands when nothing is given, and what may be."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.checks.base import CHECKS, clean_settings
from policies.tests.request_checks import compiled

NAMES = [
    "allowed_models",
    "canned_reply",
    "context_window",
    "disabled_models",
    "loop",
    "max_prompt_chars",
    "max_tokens",
    "message_limits",
    "require_user",
    "retries",
    "system_prompt",
    "tools",
]
NEEDED: dict[str, dict[str, Any]] = {
    "allowed_models": {"models": ["a"]},
    "canned_reply": {"replies": [{"match": "a", "reply": "b"}]},
    "disabled_models": {"models": ["a"]},
    "message_limits": {"max_messages": 1},
    "system_prompt": {"text": "x"},
    "tools": {"block": ["a"]},
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "allowed_models": {},
    "canned_reply": {"match_how": "normalised"},
    "context_window": {"reserve_for_reply": True, "share_percent": 100},
    "disabled_models": {},
    "loop": {"repeats": 4, "within_s": 120},
    "max_prompt_chars": {"limit": 32_000},
    "max_tokens": {"limit": 4096, "missing_counts": False},
    "message_limits": {"max_message_chars": 0, "max_body_bytes": 0},
    "require_user": {},
    "retries": {"count": 2},
    "system_prompt": {"where": "prepend"},
    "tools": {"allow": [], "on_block": "block"},
}
MOST = 2**31 - 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_given_has_its_default(name: str) -> None:
    needed = NEEDED.get(name, {})
    assert clean_settings(CHECKS[name], needed) == needed | DEFAULTS[name]


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_must_be_given(name: str) -> None:
    with pytest.raises(ValidationError):
        compiled(name)


@pytest.mark.parametrize(
    ("name", "setting", "least", "most"),
    [
        ("context_window", "share_percent", 1, 100),
        ("loop", "repeats", 2, 1000),
        ("loop", "within_s", 1, 86_400),
        ("max_prompt_chars", "limit", 0, MOST),
        ("max_tokens", "limit", 0, MOST),
        ("message_limits", "max_messages", 0, MOST),
        ("message_limits", "max_message_chars", 0, MOST),
        ("message_limits", "max_body_bytes", 0, MOST),
        ("retries", "count", 0, 5),
    ],
)
def test_numbers_have_a_least_and_a_most(name: str, setting: str, least: int, most: int) -> None:
    others = {"message_limits": {"max_messages": 1, "max_message_chars": 1}}.get(name, {})
    for value in (least, most):
        compiled(name, others | {setting: value})
    for value in (least - 1, most + 1):
        with pytest.raises(ValidationError) as error:
            compiled(name, others | {setting: value})
        assert set(error.value.message_dict) == {setting}


@pytest.mark.parametrize("name", NAMES)
def test_operator_is_told_what_everything_is_for(name: str) -> None:
    check = CHECKS[name]
    assert check.label
    assert check.help.endswith(".")
    for field in check.SettingsForm.base_fields.values():
        assert field.label
        assert str(field.help_text).rstrip().endswith((".", '"}].'))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="is no setting of"):
        compiled(name, NEEDED.get(name, {}), nonsense=1)
