from __future__ import annotations

from typing import Any

import pytest

from policies.tests.request_checks import chat, compiled, completion, embedding, exchange_of, found, said


@pytest.mark.parametrize("make", [chat, completion, embedding])
def test_call_must_say_for_whom_it_is_made(make: Any) -> None:
    check = compiled("require_user")
    assert found(check, make(user="student-17")) == []
    assert found(check, make()) == ["missing"]


@pytest.mark.parametrize("user", ["", "  ", None, 17, ["a"], {"id": "a"}])
def test_what_names_nobody_does_not_count(user: Any) -> None:
    assert found(compiled("require_user"), chat(user=user)) == ["missing"]


def test_endpoints_without_a_user_need_none() -> None:
    assert found(compiled("require_user"), exchange_of("models", {})) == []


def test_caller_is_told_what_to_send() -> None:
    assert said(compiled("require_user"), chat()).startswith("Say for which user the call is made, in the field 'user'")
