"""Texts as checks read them: what is folded away, what is not, and the way back to the text as sent."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import fold
from policies.fold import Folded

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # lone surrogates too


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Fudge CAKE", "fudge cake"),
        ("ｆｕｄｇｅ", "fudge"),  # full width
        ("𝓯𝓾𝓭𝓰𝓮 𝕗𝕦𝕕𝕘𝕖", "fudge fudge"),  # of mathematics
        ("ⓕⓤⓓⓖⓔ 🅵🆄🅳🅶🅴", "fudge fudge"),  # in circles and squares
        ("ꜰᴜᴅɢᴇ", "fudge"),  # small capitals
        ("сoсoа ТОР", "cocoa top"),  # Cyrillic
        ("τοp Ноpe", "top hope"),  # Greek, Cyrillic
        ("ꓝꓴꓓꓖꓰ", "fudge"),  # Lisu
        ("Straße ﬁne ĳ", "strasse fine ij"),
        ("No\u00a0break　wide", "no break wide"),
        ("don’t ‘a’ b‑c", "don't 'a' b-c"),
        ("İstanbul", "istanbul"),
    ],
)
def test_case_width_and_look_alikes_are_folded_away(written: str, read: str) -> None:
    assert Folded(written).text == read


@pytest.mark.parametrize(
    "hidden",
    [
        "fu\u200bdge",
        "f\u00adudge",
        "fu\u200d\u2060dge",
        "\ufefffudge",
        "fud\ufe0fge",
        "fud\U000e0067ge",
        "f̶u̶d̶g̶e̶",
        "fu\u3164dge",
    ],
)
def test_what_cannot_be_seen_is_not_there(hidden: str) -> None:
    assert Folded(hidden).text == "fudge"


def test_vowel_points_and_stretching_of_arabic_and_hebrew_are_optional() -> None:
    assert Folded("كِتـــاب").text == "كتاب"
    assert Folded("סֵפֶר").text == "ספר"


@pytest.mark.parametrize(
    ("one", "other"), [("й", "и"), ("é", "e"), ("ø", "o"), ("ł", "l"), ("ñ", "n"), ("が", "か"), ("ё", "е"), ("ü", "u")]
)
def test_other_letters_stay_other_letters(one: str, other: str) -> None:
    assert Folded(one).text != Folded(other).text


@pytest.mark.parametrize("one", ["²", "½", "①", "™", "´", "¨"])
def test_what_stands_behind_a_word_becomes_no_part_of_it(one: str) -> None:
    assert Folded(f"fudge{one}").words == ["fudge"]


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert Folded("Käse 한국 ガ").text == Folded(unicodedata.normalize("NFD", "Käse 한국 ガ")).text


@given(st.characters(exclude_categories=()))
@settings(max_examples=500)
def test_folding_again_changes_nothing(character: str) -> None:
    once = fold.fold(character)
    assert fold.fold(once) == once


@given(ANY_TEXT, ANY_TEXT)
def test_a_character_is_folded_the_same_whatever_stands_around_it(one: str, other: str) -> None:
    assert fold.fold(one + other) == fold.fold(one) + fold.fold(other)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_keeps_its_places(text: str) -> None:
    folded = Folded(text)
    assert folded.text == "".join(map(fold.fold_character, text))
    assert [folded.at(index) for index in range(len(text) + 1)] == list(range(len(text) + 1))


@given(ANY_TEXT, st.data())
def test_the_way_back_covers_exactly_the_characters_that_were_folded(text: str, data: st.DataObject) -> None:
    folded = Folded(text)
    assert folded.at(len(folded.text)) == len(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    first, last = folded.span(start, end)
    assert len(fold.fold(text[:first])) <= start < len(fold.fold(text[: first + 1]))
    assert len(fold.fold(text[: last - 1])) < end <= len(fold.fold(text[:last]))


@given(ANY_TEXT)
def test_words_stand_where_they_are_said_to_start(text: str) -> None:
    folded = Folded(text)
    assert [
        folded.text[start : start + len(word)] for start, word in zip(folded.starts, folded.words, strict=True)
    ] == (folded.words)


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_the_same_in_other_company(text: str) -> None:
    assert Folded(text).words == Folded(f"{text} é").words[:-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a_b c-d, 4you", ["a", "b", "c", "d", "4you"]),
        ("schön й", ["scho\u0308n", "и\u0306"]),
        ("ไทย 中文 fudge日本", ["fudge"]),  # scripts without spaces have no words
        ("नमस्ते دنیا 한국", ["नमस्ते", "دنیا", unicodedata.normalize("NFD", "한국")]),
    ],
)
def test_marks_belong_to_words_and_punctuation_does_not(text: str, words: list[str]) -> None:
    assert Folded(text).words == words


def test_what_several_checks_work_out_is_worked_out_once() -> None:
    folded, calls = Folded("fudge"), []

    def work(text: Folded) -> int:
        calls.append(text)
        return len(text.text)

    assert (folded.derive(work), folded.derive(work)) == (5, 5)
    assert calls == [folded]


def test_no_caller_fills_the_memory_with_rare_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "_REMEMBERED", 1000)
    monkeypatch.setattr(fold, "_FOLDS", fold._Folds())
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    assert fold.fold(text) == text
    assert len(fold._FOLDS) <= 1000


def test_two_kilobytes_of_cyrillic_take_a_fraction_of_a_millisecond() -> None:
    text = ("Съешь же ещё этих мягких французских булок, да выпей чаю. " * 40)[:2000]
    assert best_us(lambda: Folded(text).text) < 800  # about 90 on a quiet core
    assert best_us(lambda: Folded(text * 8).text) < 8 * 800


def best_us(work: object, rounds: int = 20) -> float:
    """Microseconds of the fastest round."""
    assert callable(work)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times) * 1e6
