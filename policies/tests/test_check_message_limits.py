from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.tests.request_checks import chat, compiled, completion, embedding, found, said


def test_messages_are_counted_whoever_said_them() -> None:
    check = compiled("message_limits", max_messages=2)
    assert found(check, chat({"role": "system", "content": "x"}, "hi")) == []
    assert found(check, chat({"role": "system", "content": "x"}, "hi", "there")) == ["too many messages"]


def test_each_message_by_itself_may_be_so_long() -> None:
    check = compiled("message_limits", max_message_chars=5)
    assert found(check, chat("12345", "12345")) == []
    assert found(check, chat("1", "123456")) == ["message too long"]
    assert found(check, chat({"role": "user", "content": [{"type": "text", "text": "123"}, "456"]})) == [
        "message too long"
    ]


def test_content_null_does_not_break_it() -> None:
    check = compiled("message_limits", max_message_chars=5)
    assert found(check, chat("12345", {"role": "assistant", "content": None})) == []


@pytest.mark.parametrize("make", [chat, completion, embedding])
def test_requests_of_all_endpoints_may_be_so_large(make: Any) -> None:
    check = compiled("message_limits", max_body_bytes=1000)
    exchange = make()
    for size, labels in ((1000, []), (1001, ["request too large"])):
        exchange.body_bytes = size
        assert found(check, exchange) == labels


def test_all_that_is_too_much_is_said_at_once() -> None:
    check = compiled("message_limits", max_messages=1, max_message_chars=5, max_body_bytes=10)
    exchange = chat("1234567", "1234567")
    exchange.body_bytes = 11
    assert found(check, exchange) == ["too many messages", "message too long", "request too large"]
    assert said(check, exchange) == (
        "Send at most 1 messages in one call. A message may have at most 5 characters. Shorten it. "
        "Send at most 10 bytes in one call, images and tools included."
    )


@pytest.mark.parametrize("name", ["max_messages", "max_message_chars", "max_body_bytes"])
def test_limit_of_zero_is_off(name: str) -> None:
    limits = {"max_messages": 2, "max_message_chars": 5, "max_body_bytes": 10} | {name: 0}
    check = compiled("message_limits", limits)
    exchange = chat("1234567", "1234567", "1234567")
    exchange.body_bytes = 11
    assert len(found(check, exchange)) == 2


def test_one_limit_must_be_set() -> None:
    with pytest.raises(ValidationError) as error:
        compiled("message_limits")
    assert error.value.messages == ["must set at least one limit above 0"]
