from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.checks.tools import ToolsCheck
from policies.engine import Chain, Review
from policies.errors import Blocked
from policies.tests.request_checks import chat, compiled, found, put_right, said
from policies.tests.tools import exchange_of, made, nobody, rule, run

NOT_LISTED = "not on the list"


def function(name: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


def custom(name: str) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": name}}


def reply(*calls: Any, **message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": list(calls), **message}}]}


def called(check: Any, answer: dict[str, Any]) -> list[str]:
    return [one.label for one in check.inspect_reply(answer, chat())]


# --- finding --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tool", "labels"),
    [
        (function("shell"), ["shell"]),
        (function("Shell"), ["shell"]),
        (function("delete_file"), ["delete_*"]),
        (function("read_file"), []),
        (function("shell_history"), []),
        (custom("shell"), ["shell"]),
        ({"type": "web_search"}, ["web_search*"]),
        ({"type": "web_search_20250305", "name": "web_search"}, ["web_search*"]),
        ({"type": "bash_20250124", "name": "shell"}, ["shell"]),
        ({"type": "code_interpreter"}, []),
        ({"name": "shell"}, ["shell"]),
        ({"type": "function", "name": "shell"}, ["shell"]),
        (function("x" * 256), []),
        (function("x" * 257), ["name too long"]),
        (function(None), []),
        (function(["shell"]), []),
        ({}, []),
        ({"type": None, "function": "shell", "custom": []}, []),
    ],
)
def test_blocked_tools_are_found_by_name_or_type(tool: dict[str, Any], labels: list[str]) -> None:
    check = compiled("tools", block=["shell", "delete_*", "web_search*"])
    assert found(check, chat(tools=[tool])) == labels
    assert found(check, chat(functions=[tool])) == labels


@pytest.mark.parametrize(
    ("tool", "labels"),
    [
        (function("read_file"), []),
        (function("shell"), [NOT_LISTED]),
        ({"type": "web_search"}, []),
        ({"type": "web_search_20250305", "name": "web_search"}, [NOT_LISTED]),
        ({"type": "code_interpreter"}, [NOT_LISTED]),
        ({"type": "code_interpreter", "name": "read_file"}, [NOT_LISTED]),
        (function(None), [NOT_LISTED]),
        ({}, [NOT_LISTED]),
        ({"type": "function", "function": {"name": "read_file"}, "custom": {"name": "shell"}}, [NOT_LISTED]),
    ],
)
def test_with_a_list_of_allowed_tools_all_others_are_found(tool: dict[str, Any], labels: list[str]) -> None:
    assert found(compiled("tools", allow=["read_*", "web_search"]), chat(tools=[tool])) == labels


def test_blocked_wins_over_allowed() -> None:
    check = compiled("tools", allow=["read_*"], block=["read_secrets"])
    assert found(check, chat(tools=[function("read_file"), function("read_secrets")])) == ["read_secrets"]


@pytest.mark.parametrize(
    ("field", "value", "entry"), [("web_search_options", {}, "web_search"), ("mcp_servers", [{"url": "x"}], "mcp")]
)
def test_field_that_implies_a_tool_is_that_tool(field: str, value: Any, entry: str) -> None:
    check = compiled("tools", block=[entry])
    assert found(check, chat(**{field: value})) == [entry]
    assert found(check, chat(**{field: None})) == []
    assert field not in put_right(check, chat(**{field: value}))
    assert found(compiled("tools", block=["other"]), chat(**{field: value})) == []


def test_call_without_tools_has_nothing_to_find() -> None:
    check = compiled("tools", allow=["read_file"])
    assert [found(check, chat(**fields)) for fields in ({}, {"tools": None}, {"tools": []}, {"tools": "x"})] == [[]] * 4


def test_caller_is_told_what_to_do_and_no_name() -> None:
    check = compiled("tools", block=["shell*"])
    message = said(check, chat(tools=[function("shell_7f")]))
    assert message.endswith("Send it without that tool.")
    assert "shell" not in message


# --- stripping ------------------------------------------------------------------------------------------------------
def stripped(check: Any = None, **fields: Any) -> dict[str, Any]:
    body = put_right(check or compiled("tools", block=["shell", "delete_*"]), chat("Hello", **fields))
    assert body.pop("messages") == [{"role": "user", "content": "Hello"}]
    return body


def test_offending_tools_are_removed_and_the_others_stay() -> None:
    tools = [function("shell"), function("read_file"), custom("delete_all"), custom("draw")]
    assert stripped(tools=tools, tool_choice="required", parallel_tool_calls=False) == {
        "tools": [function("read_file"), custom("draw")],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


def test_without_any_tool_left_nothing_speaks_of_tools() -> None:
    fields = {"tool_choice": "required", "parallel_tool_calls": True, "temperature": 0}
    assert stripped(tools=[function("shell")], **fields) == {"temperature": 0}
    assert stripped(functions=[{"name": "shell"}], function_call={"name": "shell"}) == {}


def test_list_without_an_offending_tool_stays_as_it_is() -> None:
    fields = {"tools": [function("read_file")], "tool_choice": function("other"), "parallel_tool_calls": True}
    assert stripped(functions=[{"name": "shell"}], **fields) == fields
    assert stripped(functions=[{"name": "shell"}], tools=None, tool_choice="none") == {
        "tools": None,
        "tool_choice": "none",
    }


@pytest.mark.parametrize("name", ["shell", "read_file"])
def test_choice_of_a_removed_tool_goes_with_it(name: str) -> None:
    body = stripped(tools=[function("shell"), function("read_file")], tool_choice=function(name))
    assert body == {"tools": [function("read_file")]} | ({} if name == "shell" else {"tool_choice": function(name)})
    body = stripped(functions=[{"name": "shell"}, {"name": "read_file"}], function_call={"name": name})
    assert body == {"functions": [{"name": "read_file"}]} | (
        {} if name == "shell" else {"function_call": {"name": name}}
    )


@pytest.mark.parametrize("kind", ["auto", "none", "any", "required"])
def test_choice_that_names_no_tool_stays(kind: str) -> None:
    allow = compiled("tools", allow=["read_file"])
    tools = [function("shell"), function("read_file")]
    assert stripped(allow, tools=tools, tool_choice=kind)["tool_choice"] == kind
    assert stripped(allow, tools=tools, tool_choice={"type": kind})["tool_choice"] == {"type": kind}


def test_choice_among_several_tools_loses_the_removed_ones() -> None:
    def choice(*names: str) -> dict[str, Any]:
        return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function(name) for name in names]}}

    tools = [function("shell"), function("read_file")]
    assert stripped(tools=tools, tool_choice=choice("shell", "read_file"))["tool_choice"] == choice("read_file")
    assert stripped(tools=tools, tool_choice=choice("shell"))["tool_choice"] == "none"


def test_stripping_for_one_finding_strips_for_all() -> None:
    check, exchange = compiled("tools", block=["shell", "bash"]), chat(tools=[function("shell"), function("bash")])
    first, second = check.inspect(exchange)
    for one in (first, second):
        assert one.fix is not None
        one.fix()
        assert "tools" not in exchange.body


def test_callers_list_is_not_changed_by_looking() -> None:
    tools = [function("shell"), function("read_file")]
    found(compiled("tools", block=["shell"]), chat(tools=tools))
    assert len(tools) == 2


@pytest.mark.parametrize(("on_block", "gentle"), [("block", False), ("strip", True)])
def test_rule_that_blocks_may_strip_instead_of_refusing(on_block: str, gentle: bool) -> None:
    check = compiled("tools", block=["shell"], on_block=on_block)
    assert check.gentle is gentle
    assert put_right(check, chat("Hello", tools=[function("shell")])) == {
        "messages": [{"role": "user", "content": "Hello"}]
    }


# --- replies --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "labels"),
    [
        ({"id": "1", "type": "function", "function": {"name": "shell", "arguments": "{}"}}, ["shell"]),
        ({"function": {"name": "shell"}}, ["shell"]),
        ({"id": "1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}, ["shell"]),
        ({"id": "1", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}, []),
        ({}, []),
        (None, []),
    ],
)
def test_model_must_not_call_a_blocked_tool(call: Any, labels: list[str]) -> None:
    assert called(compiled("tools", block=["shell"]), reply(call)) == labels


def test_model_may_only_call_allowed_tools() -> None:
    check = compiled("tools", allow=["read_file"])
    assert called(check, reply(function("read_file"))) == []
    assert called(check, reply(function("invented"))) == [NOT_LISTED]
    assert called(check, reply({})) == []


def test_calls_of_all_choices_and_old_function_calls_are_seen() -> None:
    check = compiled("tools", block=["shell"])
    both = {"choices": reply(function("a"))["choices"] + reply(function("shell"))["choices"]}
    assert called(check, both) == ["shell"]
    assert called(check, reply(function_call={"name": "shell", "arguments": "{}"})) == ["shell"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": None},
        {"choices": [None, {}, {"message": None}, {"text": "shell"}]},
        {"choices": [{"message": {"content": "shell", "tool_calls": None}}]},
    ],
)
def test_reply_without_calls_has_nothing_to_find(answer: dict[str, Any]) -> None:
    assert called(compiled("tools", block=["shell"]), answer) == []


def test_reply_cannot_be_put_right() -> None:
    (one,) = compiled("tools", block=["shell"]).inspect_reply(reply(function("shell")), chat())
    assert one.fix is None
    assert one.message.endswith("Ask it to do without that tool.")


# --- settings -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("settings", [{}, {"allow": [], "block": []}, {"block": ["x"], "on_block": "scold"}])
def test_settings_must_name_a_tool(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        compiled("tools", settings)


def test_call_of_a_blocked_tool_ends_a_stream_before_it_is_given_and_holds_back_nothing_else() -> None:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": "shell", "arguments": ""}}
    greeting, called = (
        {"choices": [{"index": 0, "delta": delta}]} for delta in ({"content": "Hi"}, {"tool_calls": [call]})
    )
    review = Review(Chain([rule(made(ToolsCheck, block=["shell"]))]), exchange_of())
    run(review.request(nobody))
    guard = review.stream()
    assert guard is not None
    assert not guard.withhold
    assert guard.event(greeting) is None
    with pytest.raises(Blocked):
        guard.event(called)
