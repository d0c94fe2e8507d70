"""Logged requests and replies as people read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.transcript import Part, Transcript, Turn, of_reply, of_request


def request(**body: Any) -> Transcript:
    return of_request(json.dumps(body))


def reply(**body: Any) -> Transcript:
    return of_reply(json.dumps(body))


def told(transcript: Transcript) -> list[tuple[str, list[str]]]:
    return [(turn.role, [part.text for part in turn.parts]) for turn in transcript.turns]


# --- requests -------------------------------------------------------------------------------------------------------
def test_messages_are_told_by_role_in_their_order() -> None:
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hello"}]
    assert told(request(model="m", messages=messages)) == [("system", ["Be terse."]), ("user", ["Hello"])]


@pytest.mark.parametrize(
    ("body", "turns"),
    [
        ({"prompt": "Once upon"}, [("prompt", ["Once upon"])]),
        ({"prompt": ["one", "two"]}, [("prompt", ["one"]), ("prompt", ["two"])]),
        ({"input": "embed me"}, [("prompt", ["embed me"])]),
        ({"input": [1, 2]}, [("prompt", ["[\n  1,\n  2\n]"])]),
        ({"prompt": "a", "suffix": "z"}, [("prompt", ["a"]), ("suffix", ["z"])]),
        ({"system": "Be terse.", "messages": []}, [("system", ["Be terse."])]),
        ({"instructions": "Be terse.", "input": [{"role": "user", "content": "Hi"}]},
         [("system", ["Be terse."]), ("user", ["Hi"])]),
        ({"messages": "nonsense", "prompt": None}, []),
        ({"messages": ["text", 7, None]}, [("unknown", ["text"]), ("unknown", ["7"]), ("unknown", [])]),
        ({"messages": [{"role": 7, "content": {"a": 1}}]}, [("7", ['{\n  "a": 1\n}'])]),
        ({"messages": [{"content": ["a", {"type": "text", "text": 7}]}]},
         [("unknown", ["a", '{\n  "type": "text",\n  "text": 7\n}'])]),
    ],
)  # fmt: skip
def test_every_endpoint_is_told(body: dict[str, Any], turns: list[tuple[str, list[str]]]) -> None:
    assert told(request(**body)) == turns


def test_calls_of_tools_and_their_results_are_told() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": "x"}'}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]
    assistant, tool = request(messages=messages).turns
    assert assistant.parts == (Part('{\n  "q": "x"\n}', "code", "Calls look_up"),)
    assert tool == Turn("tool", (Part("found"),), "c1")


@pytest.mark.parametrize("arguments", ["{broken", "", "[" * 5000])
def test_arguments_that_are_no_json_are_told_as_they_are(arguments: str) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    turn = request(messages=[{"role": "assistant", "tool_calls": [call]}]).turns[0]
    assert turn.parts[0].text == arguments


def test_pictures_sounds_and_files_are_named_not_shown() -> None:
    content = [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "A" * 8000, "format": "wav"}},
    ]
    found = request(messages=[{"role": "user", "content": content}])
    texts = [part.text for part in found.turns[0].parts]
    assert texts[:3] == ["Look", "(image/png, 3 kB, not shown)", "https://example.org/a.png"]
    assert "6 kB in base64, not shown" in texts[3]
    assert "AAAA" not in found.whole


def test_what_is_no_turn_is_told_as_json() -> None:
    found = request(model="m", temperature=0.2, messages=[])
    assert json.loads(found.rest) == {"model": "m", "temperature": 0.2}
    assert json.loads(found.whole) == {"model": "m", "temperature": 0.2, "messages": []}


# --- replies --------------------------------------------------------------------------------------------------------
def test_choices_are_told_with_how_they_ended() -> None:
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": "No"}, "finish_reason": "length"},
    ]
    found = reply(id="c", choices=choices)
    assert told(found) == [("assistant", ["Yes"]), ("assistant", ["No"])]
    assert [turn.note for turn in found.turns] == ["choice 1 of 2, ended by stop", "choice 2 of 2, ended by length"]
    assert json.loads(found.rest) == {"id": "c"}


@pytest.mark.parametrize(
    ("body", "turns"),
    [
        ({"choices": [{"text": "upon a time"}]}, [("assistant", ["upon a time"])]),
        ({"choices": [{"delta": {"content": "Hi"}}]}, [("assistant", ["Hi"])]),
        ({"choices": [{"message": {"role": "assistant", "content": ""}}]}, [("assistant", [])]),
        ({"choices": ["text", None]}, [("assistant", ["text"]), ("assistant", [])]),
        ({"text": "What was released"}, [("assistant", ["What was released"])]),
        ({"choices": [{"message": {"reasoning": "Hm", "content": "Yes", "refusal": "No"}}]},
         [("assistant", ["Hm", "Yes", "No"])]),
        ({"data": [{"embedding": [0.1]}]}, []),
    ],
)  # fmt: skip
def test_every_shape_of_reply_is_told(body: dict[str, Any], turns: list[tuple[str, list[str]]]) -> None:
    assert told(reply(**body)) == turns


# --- anything at all ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kept", ["no JSON", '{"cut": "of', "[" * 100_000, "NaN NaN", "\ud83d"])
def test_what_is_no_json_is_shown_as_it_was_kept(kept: str) -> None:
    assert of_request(kept) == of_reply(kept) == Transcript((), whole=kept)


@pytest.mark.parametrize(("kept", "whole"), [("[1]", "[\n  1\n]"), ('"text"', '"text"'), ("7", "7"), ("null", "null")])
def test_json_that_is_no_object_is_shown_as_json(kept: str, whole: str) -> None:
    assert of_reply(kept).whole == whole


def test_deeply_nested_json_is_shown_as_it_was_kept() -> None:
    kept = '{"a":' * 900 + "1" + "}" * 900
    assert of_request(kept).whole
