from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from policies.fields import PairsField, WordlistsField

PAIRS = [{"match": "Who are you?", "reply": "A gateway."}, {"match": "[help]", "reply": "See => the docs."}]


def field(**more: Any) -> PairsField:
    return PairsField("match", "reply", **{"max_pairs": 3, "max_chars": 50, **more})


def test_pairs_are_objects_in_files_and_lines_in_the_admin() -> None:
    assert field().clean(PAIRS) == PAIRS
    assert field().prepare_value(PAIRS) == "Who are you? => A gateway.\n[help] => See => the docs."
    assert field().clean("Who are you? => A gateway.\r\n\r\n  [help]=>See => the docs.  ") == PAIRS


@pytest.mark.parametrize(
    "pair",
    [
        {"match": "hours", "reply": "Monday: 9 to 5\nSunday: closed"},
        {"match": "a => b", "reply": "an arrow"},
        {"match": " kept ", "reply": "to the letter"},
        {"match": "x", "reply": "\r\n."},
    ],
)
def test_what_cannot_stand_in_a_line_is_shown_as_json(pair: dict[str, str]) -> None:
    shown = field().prepare_value([*PAIRS, pair])
    assert json.loads(shown) == [*PAIRS, pair]
    assert field().clean(shown) == [*PAIRS, pair]


def test_line_that_begins_with_a_bracket_is_no_json() -> None:
    assert field().clean("[a] => b") == [{"match": "[a]", "reply": "b"}]


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[::-1], [{"match": "[]", "reply": "[]"}]])
def test_what_the_admin_shows_is_read_as_it_was(pairs: list[dict[str, str]]) -> None:
    assert field().clean(field().prepare_value(pairs)) == pairs


@pytest.mark.parametrize("typed", ["no arrow", "=> no question", "no answer =>", "[1", [{"match": 1}], 7])
def test_what_was_typed_wrongly_is_shown_again_as_it_was(typed: Any) -> None:
    if isinstance(typed, str):
        assert field().prepare_value(typed) == typed
    with pytest.raises(ValidationError):
        field().clean(typed)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a => b\nc", "line 2 must read: match => reply"),
        ('[{"match": "a"}]', "must be a list of objects with match and reply, both texts"),
        ([{"match": "a", "reply": " "}], "must be a list of objects with match and reply, both texts"),
        ([{"match": "a", "reply": "b", "more": "c"}], "must be a list of objects with match and reply, both texts"),
        ([["a", "b"]], "must be a list of objects with match and reply, both texts"),
        ({"match": "a", "reply": "b"}, "must be a list of objects with match and reply, both texts"),
        ([{"match": str(n), "reply": "b"} for n in range(4)], "must be at most 3"),
        ([{"match": "a", "reply": "b" * 51}], "must be texts of at most 50 characters"),
    ],
)
def test_mistake_is_named(value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as error:
        field().clean(value)
    assert error.value.messages == [says]


@pytest.mark.parametrize("nothing", [None, "", [], "\n"])
def test_field_that_is_required_wants_a_pair(nothing: Any) -> None:
    assert field(required=False).clean(nothing) == []
    with pytest.raises(ValidationError):
        field().clean(nothing)


def test_word_lists_come_in_order_of_name_so_that_the_same_ones_are_the_same_settings() -> None:
    assert WordlistsField().clean(["profanity", "adult", "profanity"]) == ["adult", "profanity"]
