"""What is asked of a moderation endpoint, and what its answer means."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import ModerationFailed
from policies.moderation import (
    MAX_CATEGORIES,
    MAX_REQUESTS,
    OVERLAP_CHARS,
    PIECE_CHARS,
    REQUEST_CHARS,
    TextsTooLong,
    Verdict,
    body_of,
    is_too_long,
    read_verdict,
    requests_of,
    unite,
)

SECRET = "the text itself"


def result(categories: Any = None, scores: Any = None, **fields: Any) -> dict[str, Any]:
    return {"flagged": False, "categories": categories or {"hate": False}, "category_scores": scores or {}, **fields}


def answer(*results: Any) -> bytes:
    return orjson.dumps({"id": "modr-1", "model": "m", "results": list(results)})


# --- the question ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n\t"]])
def test_texts_that_say_nothing_take_no_request(texts: list[str]) -> None:
    assert requests_of(texts) == []


def test_short_texts_are_judged_together_as_they_stand_in_the_conversation() -> None:
    assert requests_of(["Be kind.", " ", "Who are you?", "A friend."]) == [["Be kind.\nWho are you?\nA friend."]]


@pytest.mark.parametrize(("chars", "pieces"), [(PIECE_CHARS - 2, 1), (PIECE_CHARS - 1, 2)])
def test_texts_are_put_together_as_long_as_they_fit_into_a_piece(chars: int, pieces: int) -> None:
    (inputs,) = requests_of(["a", "x" * chars])
    assert len(inputs) == pieces
    assert max(map(len, inputs)) <= PIECE_CHARS


def test_long_text_is_cut_into_pieces_of_one_request() -> None:
    (inputs,) = requests_of(["x" * 3 * PIECE_CHARS])
    assert [len(piece) for piece in inputs] == [PIECE_CHARS, PIECE_CHARS, PIECE_CHARS, 3 * OVERLAP_CHARS]


def test_what_stands_across_a_cut_is_whole_in_a_piece() -> None:
    phrase = " a phrase that is looked for "
    assert len(phrase) < OVERLAP_CHARS
    for start in range(PIECE_CHARS - 2 * len(phrase), PIECE_CHARS + 1):
        text = "x" * start + phrase + "y" * PIECE_CHARS
        assert any(phrase in piece for inputs in requests_of([text]) for piece in inputs)


def test_very_long_texts_take_several_requests() -> None:
    requests = requests_of(["x" * 5 * REQUEST_CHARS, "and so on"])
    assert len(requests) == 6
    assert requests[-1][-1] == "and so on"


@pytest.mark.parametrize(
    "texts",
    [
        ["x" * (MAX_REQUESTS * REQUEST_CHARS + 1)],
        ["x" * REQUEST_CHARS] * (MAX_REQUESTS + 1),
        ["x" * (MAX_REQUESTS * REQUEST_CHARS)],  # the overlap takes it beyond the last request
    ],
    ids=["one", "many", "by its overlap"],
)
def test_texts_beyond_the_last_request_fail_instead_of_being_half_read(texts: list[str]) -> None:
    with pytest.raises(TextsTooLong):
        requests_of(texts)


def test_what_no_way_of_asking_would_do_for_is_known_beforehand() -> None:
    assert is_too_long(["x" * REQUEST_CHARS] * MAX_REQUESTS) is False
    assert is_too_long(["x" * REQUEST_CHARS] * MAX_REQUESTS + ["x"]) is True


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3 * PIECE_CHARS), max_size=30))
def test_every_character_is_asked_about_within_the_limits(lengths: list[int]) -> None:
    """The n-th text is made of a character of its own."""
    texts = [chr(0x4E00 + number) * length for number, length in enumerate(lengths)]
    requests = requests_of(texts)
    assert all(0 < len(piece) <= PIECE_CHARS for inputs in requests for piece in inputs)
    assert all(sum(map(len, inputs)) <= REQUEST_CHARS for inputs in requests)
    asked = "".join(piece for inputs in requests for piece in inputs)
    assert all(asked.count(text[0]) >= len(text) for text in texts if text)


def test_body_names_the_model_and_the_inputs_and_nothing_else() -> None:
    assert orjson.loads(body_of("omni-moderation-latest", ["Zürich", "東京"])) == {
        "model": "omni-moderation-latest",
        "input": ["Zürich", "東京"],
    }


def test_half_an_emoji_does_not_keep_a_text_from_being_judged() -> None:
    assert orjson.loads(body_of("m", ["cut \ud83d here"]))["input"] == ["cut ? here"]


# --- the answer -----------------------------------------------------------------------------------------------------


def test_verdict_unites_the_results_of_all_inputs() -> None:
    one = result({"hate": False, "violence": False}, {"hate": 0.6, "violence": 0.1})
    other = result({"hate": False, "violence": True}, {"hate": 0.2, "violence": 0.9}, flagged=True)
    verdict = read_verdict(answer(one, other), 2)
    assert verdict.scores == {"hate": 0.6, "violence": 0.9}
    assert verdict.flagged == {"violence"}


def test_verdicts_of_several_requests_unite_alike() -> None:
    one, other = Verdict({"hate": 0.6}, frozenset()), Verdict({"hate": 0.2, "spam": 0.8}, frozenset({"spam"}))
    assert unite([one, other]) == Verdict({"hate": 0.6, "spam": 0.8}, frozenset({"spam"}))


def test_endpoint_without_scores_says_all_or_nothing() -> None:
    given = {"flagged": True, "categories": {"hate": True, "spam": False}}
    assert read_verdict(answer(given), 1) == Verdict({"hate": 1.0, "spam": 0.0}, frozenset({"hate"}))


def test_endpoint_need_not_say_the_sum_of_it() -> None:
    """Mistral's answer has no `flagged`."""
    given = {"categories": {"pii": True}, "category_scores": {"pii": 0.93}}
    assert read_verdict(answer(given), 1) == Verdict({"pii": 0.93}, frozenset({"pii"}))


def test_category_that_the_model_does_not_judge_is_left_out() -> None:
    given = result({"hate": False, "illicit": None}, {"hate": 0.1, "illicit": None})
    assert read_verdict(answer(given), 1).scores == {"hate": 0.1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{not json",
        b"null",
        b"[]",
        b"[" * 100_000 + b"]" * 100_000,
        b"\xff\xfe",
        orjson.dumps({"error": {"message": SECRET}}),
        orjson.dumps({"results": None}),
        orjson.dumps({"results": {}}),
        answer(),
        answer(result(), result()),
        answer(None),
        answer([]),
        answer({}),
        answer({"flagged": False}),
        answer({"categories": ["hate"], "category_scores": {}}),
        answer({"categories": {"hate": "yes"}}),
        answer({"categories": {"hate": 1}}),
        answer({"categories": {"hate": True}, "category_scores": [0.5]}),
        answer(result(scores={"hate": "0.5"})),
        answer(result(scores={"hate": True})),
        answer(result(scores={"hate": -0.1})),
        answer(result(scores={"hate": 1.1})),
        answer(result({"": False})),
        answer(result({SECRET + "!": False})),
        answer(result({"x" * 65: False})),
        answer(result({f"c{number}": False for number in range(MAX_CATEGORIES + 1)})),
        answer(result(scores={f"c{number}": 0.0 for number in range(MAX_CATEGORIES + 1)})),
        answer({"flagged": True, "categories": {"hate": False}}),
    ],
)
def test_answer_that_makes_no_sense_is_a_failure_and_never_a_pass(body: bytes) -> None:
    with pytest.raises(ModerationFailed) as failed:
        read_verdict(body, 1)
    assert SECRET not in str(failed.value)
