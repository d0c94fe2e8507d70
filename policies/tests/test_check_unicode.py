from __future__ import annotations

import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checks.unicode import UnicodeCheck
from policies.fold import Folded
from policies.tests.stream_law import check_stream_law
from policies.tests.tools import (
    check_blocks,
    check_finds,
    check_holds,
    check_keeps_flowing,
    check_passes,
    check_redacts,
    made,
)
from policies.types import Span
from policies.window import Edit, apply_edits

CHECK = made(UnicodeCheck)

# What a tag, a run of selectors or of joiners can carry: letters nobody sees.
TAGGED = "".join(chr(0xE0000 + ord(letter)) for letter in "hi")
SELECTED = "".join(chr(0xE0100 + ord(letter) - 16) for letter in "hi")


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found", "left"),
    [
        ("ig\u200bnore", "\u200b", "ignore"),
        ("ig\u200cnore", "\u200c", "ignore"),
        ("ig\u200dnore", "\u200d", "ignore"),
        ("ig\u2060nore", "\u2060", "ignore"),
        ("ig\ufeffnore", "\ufeff", "ignore"),
        ("a \u3164 b", "\u3164", "a  b"),
        ("a \u180e b", "\u180e", "a  b"),
        ("x\u034fy", "\u034f", "xy"),
        ("x\u206ay", "\u206a", "xy"),
        ("x \u2063 y", "\u2063", "x  y"),
        ("x\u2061\u2062y", "\u2061\u2062", "xy"),
        ("Hi" + TAGGED, TAGGED, "Hi"),
        ("Hi \U000e0001", "\U000e0001", "Hi "),
        ("\U0001f3f4" + TAGGED, TAGGED, "\U0001f3f4"),
        ("\U0001f600" + SELECTED, SELECTED, "\U0001f600"),
        ("\U0001f600\ufe0f\ufe0f\ufe00", "\ufe0f\ufe00", "\U0001f600\ufe0f"),
        ("h\ufe01e\ufe02y", "\ufe01\ufe02", "hey"),
        ("k\u00adi\u00adl\u00adl", "\u00ad\u00ad\u00ad", "kill"),
        ("a \u00ad\u00ad b", "\u00ad\u00ad", "a  b"),
        ("\u0647\u200c\u200d\u200c\u200c\u0647", "\u200d\u200c\u200c", "\u0647\u200c\u0647"),
        ("\u0e17\u200b\u200b\u200b\u0e17", "\u200b\u200b", "\u0e17\u200b\u0e17"),
    ],
)
def test_invisible_characters_are_found_and_removed(text: str, found: str, left: str) -> None:
    check_finds(CHECK, text, *[(character, "invisible") for character in found])
    check_redacts(CHECK, text, left)


@pytest.mark.parametrize(
    "sign", ["\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"]
)
def test_direction_overrides_are_found_and_removed(sign: str) -> None:
    check_finds(CHECK, f"access{sign}level", (sign, "bidirectional"))
    check_redacts(CHECK, f"access{sign}level", "accesslevel")


def test_override_is_found_in_arabic_text_too() -> None:
    check_finds(CHECK, "مرحبا \u202eبكم", ("\u202e", "bidirectional"))


def test_run_of_direction_marks_is_found() -> None:
    check_finds(CHECK, "שלום\u200f\u200e\u200f\u200e!", *[(sign, "bidirectional") for sign in "\u200f\u200e"])


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("раypal", "paypal"),
        ("pаypаl", "paypal"),
        ("Αpple", "Apple"),
        ("gοοgle", "google"),
        ("pαypαl", "paypal"),
        ("admιn", "admin"),
        ("Ignоre all", "Ignore all"),
        ("SYSТEM", "SYSTEM"),
        ("googlе", "google"),
        ("ԁrор tаblе", "drop table"),
        ("cafе\u0301s", "cafe\u0301s"),
    ],
)
def test_word_in_disguise_becomes_latin(text: str, latin: str) -> None:
    check_redacts(CHECK, f"So: {text}!", f"So: {latin}!")
    check_blocks(CHECK, text)


def test_word_in_disguise_is_found_whole() -> None:
    check_finds(CHECK, "My раypal, your pаypal", ("раypal", "look_alike"), ("pаypal", "look_alike"))


# --- never at the cost of ---------------------------------------------------------------------------------------------

PYTHON = """
def median(values: list[float]) -> float:
        ordered = sorted(values)
        middle = len(ordered) // 2                      # floor division
        if len(ordered) % 2:
                return ordered[middle]
        return (ordered[middle - 1] + ordered[middle]) / 2
"""
HONEST = {
    # llmproxy's L1, each one a reply that it answered with 403
    "indented code": PYTHON,
    "talk of system prompts": "A system prompt tells a model its role; a jailbreak tries to make it forget that.",
    "Hindi": "नमस्ते दुनिया, क्षत्रिय और ज्ञान। विद्युत् शक्ति",
    "Thai": "สวัสดีชาวโลก น้ำแข็ง กำลังทำงาน",
    "emoji with joiners": "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 ❤️‍🔥 🧑‍⚕️ 🐻‍❄️ 🙂‍↔️ 🏴‍☠️",
    "a Russian word in English text": "The Russians say привет when they meet.",
    # joiners and breaks where they belong
    "Hindi with joiners": "क्\u200dष और क्\u200cष, र्\u200dय",
    "Persian with non-joiners": "می\u200cخواهم کتاب\u200cها را بخوانم",
    "Sinhala": "ශ්\u200dරී ලංකාව",
    "Malayalam with soft hyphens": "മ\u00adല\u00adയാ\u00adളം",
    "Bengali": "র\u200d্যাব",
    "Khmer with breaks": "ខ្ញុំ\u200bចង់\u200bទៅ",
    "Burmese": "မြန်မာ\u200bနိုင်ငံ",
    "Mongolian": "ᠮᠣᠩᠭᠣᠯ\u180eᠠ ᠪᠠᠭ᠎ᠠ\u180b",
    "Korean": "안녕하세요 ㅤㅏ",
    # directions
    "Hebrew with a mark": "שלום (world)\u200f, C++\u200e ועוד",
    "Arabic with marks": "مرحبا بالعالم\u200f (Gatehouse)\u200e ١٢٣",
    "Hebrew with points": "בְּרֵאשִׁית בָּרָא, לֹ\u05d0\u034fּ",
    "an isolated Arabic name": "The title is \u2067ألف ليلة وليلة\u2069, I think.",
    "an isolated Latin name in Arabic": "جهازي هو \u2066iPhone 15\u2069 الجديد",
    # emoji and signs with variants
    "emoji with selectors": "☀️ ✈️ ❤️ ▶️ ‼️ ↔️ ©️ ™️ ℹ️ Ⓜ️ ㊗️ 1️⃣ #️⃣ *️⃣ ☺︎",
    "flags": "🇩🇪 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏁",
    "ideographs with variants": "葛\U000e0100城市 辻\U000e0101さん",
    "slashed zero": "0\ufe00",
    # letters of several alphabets side by side
    "mixed languages": "привет world, καλημέρα world, 你好 world, שלום world",
    "units": "µm, μm, 5 kΩ, Ω resistor, 3 Å, °C, kВт",
    "accents": "naïve café, façade, Zürich, Łódź, Đà Nẵng, cafe\u0301",
    "Greek in science": "β-carotene, λ-calculus, Δx, Δν, ρgh, αβγ, RORγt, Gαi, αSMA, αsynuclein",
    "Greek in biology": "TNFα, IFNγ, NFκB, IκBα, PPARγ, 17αhydroxy, GSK3β",
    "Greek in formulas": "sinαcosβ + sinαcosx, 2πr, λx.x, σ_max, ωt, ∂f/∂x, ∑ᵢ xᵢ",
    "mathematical letters": "𝐀𝐱 = 𝐛, 𝓛(θ), ℝⁿ, 𝔼[X]",
    "soft hyphens": "Donau\u00addampf\u00adschiff\u00adfahrt, infor\u00ad\nmation",
    "unseen operators": "f\u2061(x) = 2\u2062x",
    "byte order mark of a file": "\ufeffname,age\n",
    "Russian with English": "Залей это в GitHub, HRам из IT-отдела, SMSка, PDFка, docker'а, iPhone'ом",
    "Russian endings on English words": "Лежит в GitHubе, найди в Googlе",
    "Russian with mixed keys": "XХI век, ХIХ век, ХVIII, СО2, рН крови, 5 МHz",
    "Ukrainian, Serbian, Greek": "Її їжак, Љубав и Џеп, ΟΤΕ και ΔΕΗ",
    "fullwidth": "ｆｕｌｌｗｉｄｔｈ テキスト",
    "CJK without spaces": "我在GitHub上写代码，これはテストです。",
    "Vietnamese": "Tiếng Việt có dấu: ngữ, phở",
    "box drawing": "┌──┬──┐\n│░▒▓│⠓⠑│\n└──┴──┘",
    "identifiers": "Δt = t_end - t0; μ_hat = Σx / n; naïve_élan",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_text_is_left_alone(name: str) -> None:
    check_passes(CHECK, HONEST[name])


@pytest.mark.parametrize("text", ["x" * 80 + "а" * 3, "aа", "оk", "XIXв", "cловo"])
def test_what_is_no_latin_word_in_disguise_is_left_alone(text: str) -> None:
    check_passes(CHECK, text)


# --- settings --------------------------------------------------------------------------------------------------------

ONE_OF_EACH = "x\u200by \u202e pаypal"


@pytest.mark.parametrize(
    ("kind", "found"), [("invisible", "\u200b"), ("bidirectional", "\u202e"), ("look_alikes", "pаypal")]
)
def test_each_kind_can_be_looked_for_alone(kind: str, found: str) -> None:
    usual = dict.fromkeys(("invisible", "bidirectional", "look_alikes"), False)
    check_finds(made(UnicodeCheck, **usual | {kind: True}), ONE_OF_EACH, found)
    check_finds(CHECK, ONE_OF_EACH, "\u200b", "\u202e", "pаypal")


def test_rule_that_looks_for_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one"):
        made(UnicodeCheck, invisible=False, bidirectional=False, look_alikes=False)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "pаy\u200bpal \U0001f3f4" + TAGGED + " me",
        "ok \u2067abc\u2069 and googlе: в GitHubе",
        "🏴󠁧󠁢󠁳󠁣󠁴󠁿👩🏽‍💻k\u00adi\u00adl",
    ],
)
def test_everything_holds_in_every_field_and_split(text: str) -> None:
    check_holds(CHECK, text)


def test_plain_text_keeps_flowing_word_by_word() -> None:
    check_keeps_flowing(CHECK, "A system prompt tells a model its role. Привет всем, नमस्ते दुनिया!", at_most=6)


def test_end_of_a_stream_in_latin_letters_only_is_held_for_what_may_follow() -> None:
    check_redacts(made(UnicodeCheck, invisible=False, bidirectional=False), "x payраl", "x paypal")


@pytest.mark.parametrize("sign", ["\u2067", "\u202c", "ABа"])
def test_neighbourhood_is_the_same_in_a_stream(sign: str) -> None:
    explained = "ש ж" + " " * 37 + sign
    assert check_stream_law(CHECK, explained, range(99), CHECK.left_context) == []
    assert check_stream_law(CHECK, " " + explained, range(99), CHECK.left_context) == []
    assert len(check_stream_law(CHECK, "   " + explained.replace(" ", "  ", 4), range(99), CHECK.left_context)) == 1


def test_word_that_began_before_is_not_found_again() -> None:
    assert list(CHECK.scan(Folded("pаypаl pаypаl"), 2, True).spans) == [Span(7, 13, "look_alike")]


PIECES = st.sampled_from(
    [
        *"abZ .1\n",
        *"аеоСшдαοωΩ",
        *"\u0301\u00ad\u034f\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2063\u2067\u2069\ufeff\u3164\ufe0f\U000e0101",
        *"हمของ한葛☀👩\U0001f3f4",
        "\U000e0067\U000e0062",
        "\U000e0065\U000e006e\U000e0067\U000e007f",
        "a" * 30,
        " " * 20,
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(PIECES, max_size=30).map("".join),
    st.lists(st.integers(0, 200), max_size=10),
    st.sampled_from([(0,), (1,), (5, 0, 70)]),
)
def test_law_of_streams(text: str, cuts: list[int], lags: tuple[int, ...]) -> None:
    check_stream_law(CHECK, text, cuts, CHECK.left_context, lags)


@settings(max_examples=100, deadline=None)
@given(st.lists(PIECES, max_size=15).map("".join))
def test_what_is_left_after_redacting_holds_no_disguise(text: str) -> None:
    spans = CHECK.scan(Folded(text), 0, True).spans
    edits = [Edit(s.start, s.end, CHECK.replacement(text[s.start : s.end], s.label)) for s in sorted(spans)]
    again = CHECK.scan(Folded(apply_edits(text, edits)), 0, True).spans
    assert len(again) <= len(spans)


# --- what it costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "aа" * 100_000,
        "\u200b" * 60_000,
        "\u2067" * 60_000,
        ("a" * 60 + "а ") * 3_000,
        "\U0001f3f4" + "\U000e0067" * 60_000,
    ],
    ids=["one endless mixed word", "zero width", "isolates", "mixed words", "tags"],
)
def test_time_grows_with_the_text_whatever_it_says(text: str) -> None:
    begun = time.process_time()
    CHECK.scan(Folded(text), 0, True)
    assert time.process_time() - begun < 3


def found_in(text: str) -> list[Any]:
    return list(CHECK.scan(Folded(text), 0, True).spans)


def test_ascii_text_is_not_looked_at() -> None:
    assert found_in("plain ASCII text, \x00\x1b[31m and all") == []
