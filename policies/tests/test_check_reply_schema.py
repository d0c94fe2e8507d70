from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.checks.reply_schema import ReplySchemaCheck
from policies.tests.tools import exchange_of, made

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def faults(content: Any, schema: Any = CITY, **settings: Any) -> list[str]:
    check = made(ReplySchemaCheck, schema=schema, **settings)
    message = content if isinstance(content, dict) else {"content": content}
    reply = {"choices": [{"index": 0, "message": message}]}
    return [found.label for found in check.inspect_reply(reply, exchange_of())]


def refusal(schema: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        made(ReplySchemaCheck, schema=schema)
    return " ".join(refused.value.message_dict["schema"])


@pytest.mark.parametrize("text", ['{"city": "Rome"}', ' {"city": "Rome", "more": [1]}\n'])
def test_reply_that_fits_passes(text: str) -> None:
    assert faults(text) == []


@pytest.mark.parametrize("text", ['{"town": "Rome"}', '{"city": 4}', "[]", "null", "4"])
def test_reply_of_another_shape_is_found(text: str) -> None:
    assert faults(text) == ["not the schema"]


@pytest.mark.parametrize("text", ["Rome", "", None, '{"city": "Rome"', '{"city": "Rome"} and more', "[" * 100_000])
def test_reply_that_is_no_json_is_found(text: Any) -> None:
    assert faults(text) == ["not JSON"]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_only_some_programs_write_are_no_json(constant: str) -> None:
    assert faults(f'{{"city": {constant}}}', schema={"title": "anything"}) == ["not JSON"]


def test_reply_that_is_too_long_to_be_read_does_not_fit() -> None:
    assert faults(f'"{"x" * 1_000_000}"', schema={"title": "anything"}) == ["not the schema"]


def test_reply_is_judged_and_not_the_request() -> None:
    """llmproxy validated the request, with a schema that nobody could set."""
    check = made(ReplySchemaCheck, schema=CITY)
    assert list(check.inspect(exchange_of({"messages": [{"role": "user", "content": "no JSON"}]}))) == []


def test_block_of_code_does_not_fit_unless_the_rule_says_so() -> None:
    fenced = 'Sure:\n```json\n{"city": "Rome"}\n```'
    assert faults('```json\n{"city": "Rome"}\n```') == ["not JSON"]
    assert faults('```json\n{"city": "Rome"}\n```', allow_fences=True) == []
    assert faults(fenced, allow_fences=True) == ["not JSON"]


def test_reply_that_only_calls_a_tool_is_left_alone() -> None:
    assert faults({"content": None, "tool_calls": [{"id": "1"}]}) == []


def test_every_choice_is_judged() -> None:
    check = made(ReplySchemaCheck, schema=CITY)
    reply = {"choices": [{"message": {"content": text}} for text in ('{"city": "Rome"}', "no", "{}")]}
    assert [found.label for found in check.inspect_reply(reply, exchange_of())] == ["not JSON", "not the schema"]


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "https://example.com/schema.json"}])
def test_schema_that_cannot_be_used_is_refused_when_it_is_written(schema: dict[str, Any]) -> None:
    assert "is no JSON schema" in refusal(schema)


@pytest.mark.parametrize("schema", ["[1]", "{", "text", 4])
def test_schema_must_be_an_object(schema: Any) -> None:
    assert "must be a JSON object" in refusal(schema)


def test_schema_may_be_given_as_text() -> None:
    assert faults("[1]", schema='{"type": "array"}') == []


def test_pattern_takes_linear_time_whatever_a_model_writes() -> None:
    began = time.process_time()
    assert faults('"' + "a" * 50_000 + '!"', schema={"type": "string", "pattern": "^(a+)+$"}) == ["not the schema"]
    assert time.process_time() - began < 1


def test_integers_of_any_length_are_taken() -> None:
    assert faults("1" + "0" * 400, schema={"type": "object"}) == ["not the schema"]
